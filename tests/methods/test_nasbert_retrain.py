"""Pre-training of the chosen network with the teacher on masked words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from methods.backbone import Backbone
from methods.corpus.corpus import Corpus
from methods.corpus.masked_words import word_flops
from methods.corpus.masking import SHARE
from methods.costs import costs
from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.layers.encoder import Link
from methods.nasbert.encoding import from_short
from methods.nasbert.networks import teacher_spec
from methods.nasbert.options import Retraining
from methods.nasbert.retrain import DistilledStep, retrain
from methods.nasbert.space import NasBertSpace
from methods.nasbert.supernet import NasBertSupernet
from methods.network import Network
from methods.recipe import CorpusContext, Hardware, StageRecord, stage_of
from methods.tasks.head import Head
from methods.training.distillation import soft_divergence
from tests.conformance.cases import randomise
from tests.methods.nasbert_text import LENGTH, likelihood, make_corpus

MLM = Head("mlm")
ARCHITECTURE = from_short("E16|8:M.F|8:S3.M")
FAST = {"steps": 40, "batch_size": 8, "length": LENGTH, "optimiser": {"learning_rate": 0.02, "warmup_steps": 0}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Backbone) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), tiny_backbone)


@pytest.fixture(scope="module")
def teacher(tiny_backbone: Backbone) -> Network:
    network = Network(teacher_spec(tiny_backbone.config, MLM))
    randomise(network, 1)
    return network.eval()


@pytest.fixture(scope="module")
def supernet(tiny_backbone: Backbone, teacher: Network) -> NasBertSupernet:
    config = tiny_backbone.config
    space = NasBertSpace(4, 2, (8, 16), ("M", "F", "S3"), (8, 16), head_size=8, backbone=config)
    torch.manual_seed(0)
    net = NasBertSupernet(space, config, MLM)
    net.load_teacher(teacher)
    return net.eval()


def make_context(folder: Path, backbone: Backbone, corpus: Corpus, records: list[StageRecord] | None = None) -> CorpusContext:
    record = records.append if records is not None else lambda _: None
    return CorpusContext(folder, folder / "shared", backbone, corpus.restricted("train", "search"), seed=1, record=record)


def options_of(**changes: Any) -> Retraining:
    return Retraining.model_validate({**FAST, **changes})


def barely(**changes: Any) -> Retraining:
    """One step that changes next to nothing: the network as it starts."""
    return options_of(**{"steps": 1, "optimiser": {"learning_rate": 1e-12}, **changes})


def test_the_divergence_by_hand() -> None:
    student, taught = torch.tensor([[0.0, 2.0, -2.0], [1.0, 1.0, 0.0]]), torch.tensor([[4.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    p, q = (torch.softmax(logits / 2, -1) for logits in (taught, student))
    first = float((p[0] * (p[0] / q[0]).log()).sum())
    assert first > 0.1
    assert float(soft_divergence(student, taught, 2.0)) == pytest.approx(4 * first / 2)
    assert float(soft_divergence(taught, taught, 3.0)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("objective", ["logits", "hidden"])
def test_the_loss_by_hand(objective: str, supernet: NasBertSupernet, teacher: Network, tiny_backbone: Backbone, corpus: Corpus) -> None:
    student = Network(supernet.space.spec(ARCHITECTURE, tiny_backbone.config, MLM)).eval()
    randomise(student, 2)
    bridge = torch.nn.Linear(8, 16) if objective == "hidden" else None
    step = DistilledStep(student, teacher, corpus.masker, options_of(distillation=0.3, temperature=2.0, objective=objective), bridge)
    batch, losses = corpus.packed("train", LENGTH).batch(range(5)), []
    torch.manual_seed(3)
    figures = step(batch, losses.append)
    torch.manual_seed(3)
    masked = corpus.masker(batch)
    asked = masked["labels"] >= 0
    with torch.no_grad():
        own, theirs = (network(masked["input_ids"], masked["attention_mask"]) for network in (student, teacher))
        words = -own["logits"].log_softmax(-1)[asked].gather(1, masked["labels"][asked][:, None]).mean()
        if bridge is None:
            p, q = (torch.softmax(output["logits"][asked] / 2, -1) for output in (theirs, own))
            distilled = 4 * (p * (p.log() - q.log())).sum(-1).mean()
        else:
            target = theirs["hidden_states"][-1]
            error = (bridge(own["hidden_states"][-1]) - target).square().mean()
            distilled = error / (target - target.mean((0, 1))).square().mean()
    assert float(losses[0].detach()) == pytest.approx(0.7 * float(words) + 0.3 * float(distilled), rel=1e-5)
    assert figures == {"words": pytest.approx(float(words), rel=1e-5), "distilled": pytest.approx(float(distilled), rel=1e-5)}
    losses[0].backward()
    assert all(p.grad is None or not p.requires_grad for p in teacher.parameters())


def test_without_distillation_the_teacher_does_not_matter(
    supernet: NasBertSupernet, teacher: Network, tiny_backbone: Backbone, corpus: Corpus, tmp_path: Path
) -> None:
    records: list[StageRecord] = []
    options, other = options_of(steps=2, distillation=0.0), Network(teacher.spec)
    digests = {
        weights_digest(
            retrain(make_context(tmp_path / str(i), tiny_backbone, corpus, records), supernet, who, ARCHITECTURE, options, "scratch")
        )
        for i, who in enumerate((teacher, other))
    }
    assert len(digests) == 1
    spec = supernet.space.spec(ARCHITECTURE, tiny_backbone.config, MLM)
    assert records[0].flops == pytest.approx(3 * records[0].examples * word_flops(spec, LENGTH))


@pytest.mark.parametrize("objective", ["logits", "hidden"])
@pytest.mark.parametrize("start", ["scratch", "inherit"])
def test_it_learns(
    objective: str, start: Any, supernet: NasBertSupernet, teacher: Network, tiny_backbone: Backbone, corpus: Corpus, tmp_path: Path
) -> None:
    records: list[StageRecord] = []
    context, before = make_context(tmp_path, tiny_backbone, corpus, records), weights_digest(teacher)
    options = options_of(objective=objective, start=start, distillation=0.2)
    trained = retrain(context, supernet, teacher, ARCHITECTURE, options, start)
    start_context = make_context(tmp_path / "start", tiny_backbone, corpus)
    begun = retrain(start_context, supernet, teacher, ARCHITECTURE, barely(objective=objective, start=start), start)
    assert likelihood(trained, corpus) > likelihood(begun, corpus) + 0.2
    assert trained.spec == supernet.space.spec(ARCHITECTURE, tiny_backbone.config, MLM) and not trained.training
    assert set(trained.state_dict()) == set(Network(trained.spec).state_dict())
    assert weights_digest(teacher) == before
    cost = 3 * word_flops(trained.spec, LENGTH) + word_flops(teacher.spec, LENGTH)
    if objective == "hidden":
        cost += 3 * Link(8, 16).flops(LENGTH) - SHARE * teacher.spec.head.flops(LENGTH)
        assert cost == pytest.approx(
            3 * (word_flops(trained.spec, LENGTH) + Link(8, 16).flops(LENGTH))
            + costs(teacher_spec(tiny_backbone.config, Head("none")), LENGTH).flops
        )
    assert [r.stage for r in records] == [stage_of("retrain", ARCHITECTURE)]
    assert records[0].flops == pytest.approx(records[0].examples * cost)


def test_the_other_start_has_a_folder_of_its_own(
    supernet: NasBertSupernet, teacher: Network, tiny_backbone: Backbone, corpus: Corpus, tmp_path: Path
) -> None:
    context, options, name = make_context(tmp_path, tiny_backbone, corpus), options_of(steps=2), stage_of("retrain", ARCHITECTURE)
    one = retrain(context, supernet, teacher, ARCHITECTURE, options, "scratch")
    other = retrain(context, supernet, teacher, ARCHITECTURE, options, "inherit")
    assert (tmp_path / name / "stage.json").exists() and (tmp_path / "inherit" / name / "stage.json").exists()
    assert weights_digest(one) != weights_digest(other)
    again = retrain(context, supernet, teacher, ARCHITECTURE, options, "inherit")
    assert weights_digest(again) == weights_digest(other)
    with pytest.raises(UserError, match="trained with other settings"):
        retrain(context, supernet, teacher, ARCHITECTURE, options_of(steps=2, temperature=3.0), "scratch")


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("objective", ["logits", "hidden"])
def test_a_stopped_run_goes_on_bit_equal(
    objective: str,
    supernet: NasBertSupernet,
    teacher: Network,
    tiny_backbone: Backbone,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = options_of(steps=7, objective=objective)
    context = replace(make_context(tmp_path / "stopped", tiny_backbone, corpus), hardware=Hardware(checkpoint_seconds=0.0))
    expected = retrain(replace(context, folder=tmp_path / "whole"), supernet, teacher, ARCHITECTURE, options, "scratch")
    original, count = DistilledStep.__call__, [0]

    def stopping(self: DistilledStep, batch: Any, backward: Any) -> dict[str, float]:
        if count[0] == 4:
            raise StoppedError
        count[0] += 1
        return original(self, batch, backward)

    with monkeypatch.context() as patch:
        patch.setattr(DistilledStep, "__call__", stopping)
        with pytest.raises(StoppedError):
            retrain(context, supernet, teacher, ARCHITECTURE, options, "scratch")
    assert (context.folder / stage_of("retrain", ARCHITECTURE) / "checkpoint.json").exists()
    assert weights_digest(retrain(context, supernet, teacher, ARCHITECTURE, options, "scratch")) == weights_digest(expected)
