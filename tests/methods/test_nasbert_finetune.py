"""Fine-tuning on a task: the loss, the grid, where it starts from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from methods.backbone import Backbone
from methods.costs import costs
from methods.errors import UserError
from methods.evaluation import evaluate, weights_digest
from methods.nasbert import finetune as module
from methods.nasbert.encoding import from_short
from methods.nasbert.finetune import TaughtStep, finetune
from methods.nasbert.networks import teacher_spec
from methods.nasbert.options import Finetuning
from methods.nasbert.space import NasBertSpace
from methods.network import Network
from methods.recipe import Context, Hardware, StageRecord, stage_of
from methods.supernet import inputs
from methods.tasks.batches import joint
from methods.tasks.head import Head
from methods.tasks.spec import TaskSpec
from methods.tasks.split import Split
from methods.tasks.task import Task
from tests.conformance.cases import randomise

ARCHITECTURE = from_short("E8|8:M.F|16:S3.M")
CLASSES = Head("classification", 2)
RATES = (1e-9, 0.02)


@pytest.fixture(scope="module")
def space(tiny_backbone: Backbone) -> NasBertSpace:
    return NasBertSpace(4, 2, (8, 16), ("M", "F", "S3"), (8, 16), head_size=8, backbone=tiny_backbone.config)


@pytest.fixture(scope="module")
def pretrained(space: NasBertSpace, tiny_backbone: Backbone) -> Network:
    network = Network(space.spec(ARCHITECTURE, tiny_backbone.config, Head("mlm")))
    randomise(network, 1)
    return network.eval()


@pytest.fixture(scope="module")
def teacher(tiny_backbone: Backbone) -> Network:
    network = Network(teacher_spec(tiny_backbone.config, CLASSES))
    randomise(network, 2)
    return network.eval()


def make_context(
    folder: Path, backbone: Backbone, task: Task, teacher: Network | None = None, records: list[StageRecord] | None = None
) -> Context:
    record = records.append if records is not None else lambda _: None
    return Context(folder, backbone, task.restricted("train", "search"), 1, teacher, record=record, max_length=24)


def options_of(**changes: Any) -> Finetuning:
    return Finetuning(**{"learning_rates": (0.02,), "batch_sizes": (16,), "epochs": (2,), **changes})


def accuracy(network: Network, context: Context) -> float:
    collate = joint(context.backbone.tokenizer, context.max_length)
    found = evaluate(lambda batch: network(**inputs(batch)), collate, context.task.split("search"), context.task.spec, Hardware())
    return found.metrics["accuracy"]


def test_the_loss_by_hand(space: NasBertSpace, teacher: Network, tiny_backbone: Backbone) -> None:
    ids, labels = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]]), torch.tensor([1, 0])
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}
    student = Network(space.spec(ARCHITECTURE, tiny_backbone.config, CLASSES)).eval()
    randomise(student, 3)
    losses: list[torch.Tensor] = []
    TaughtStep(student, teacher, CLASSES, 0.25, 3.0)(batch, losses.append)
    with torch.no_grad():
        own, theirs = student(**inputs(batch))["logits"], teacher(**inputs(batch))["logits"]
        p, q = torch.softmax(theirs / 3, -1), torch.softmax(own / 3, -1)
        words = -own.log_softmax(-1)[[0, 1], labels].mean()
        expected = 0.75 * words + 0.25 * 9 * (p * (p / q).log()).sum(-1).mean()
    assert float(losses[0].detach()) == pytest.approx(float(expected), rel=1e-5)
    TaughtStep(student, None, CLASSES, 0.25, 3.0)(batch, losses.append)
    assert float(losses[1].detach()) == pytest.approx(float(words), rel=1e-5)


def test_the_loss_of_a_regression_by_hand(space: NasBertSpace, tiny_backbone: Backbone) -> None:
    ids, labels, head = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]]), torch.tensor([1.5, 0.0]), Head("regression")
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}
    student, teacher = Network(space.spec(ARCHITECTURE, tiny_backbone.config, head)), Network(teacher_spec(tiny_backbone.config, head))
    for i, network in enumerate((student, teacher)):
        randomise(network.eval(), i)
    losses: list[torch.Tensor] = []
    TaughtStep(student, teacher, head, 0.5, 1.0)(batch, losses.append)
    with torch.no_grad():
        own, theirs = student(**inputs(batch))["logits"][:, 0], teacher(**inputs(batch))["logits"][:, 0]
    expected = 0.5 * (own - labels).square().mean() + 0.5 * (own - theirs).square().mean()
    assert float(losses[0].detach()) == pytest.approx(float(expected), rel=1e-5)


def test_the_loss_of_spans_by_hand(space: NasBertSpace, tiny_backbone: Backbone) -> None:
    """The mean of start and end; places behind a text are nobody's."""
    ids, labels, head = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]]), torch.tensor([[1, 2], [0, 0]]), Head("span")
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}
    student, teacher = Network(space.spec(ARCHITECTURE, tiny_backbone.config, head)), Network(teacher_spec(tiny_backbone.config, head))
    for i, network in enumerate((student, teacher)):
        randomise(network.eval(), i)
    losses: list[torch.Tensor] = []
    TaughtStep(student, teacher, head, 0.25, 2.0)(batch, losses.append)
    expected = torch.zeros(())
    with torch.no_grad():
        own, theirs = student(**inputs(batch))["logits"], teacher(**inputs(batch))["logits"]
        for row, length in enumerate((4, 3)):
            for side in (0, 1):
                p, q = (torch.softmax(logits[row, :length, side] / 2, 0) for logits in (theirs, own))
                task = -own[row, :length, side].log_softmax(0)[labels[row, side]]
                expected += (0.75 * task + 0.25 * 4 * (p * (p / q).log()).sum()) / 4
    assert float(losses[0].detach()) == pytest.approx(float(expected), rel=1e-5)


def test_regression_tasks_are_fine_tuned(space: NasBertSpace, pretrained: Network, tiny_backbone: Backbone, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = tuple(" ".join(["good"] * n + ["film"] * (6 - n)) for n in rng.integers(0, 7, 64))
    split = Split("train", texts, None, np.array([t.count("good") for t in texts], dtype=np.float32), np.arange(64))
    task = Task(
        TaskSpec("count", ("text",), "label", (), "spearman", ("spearman",)), {"train": split, "search": replace(split, name="search")}
    )
    context = make_context(tmp_path, tiny_backbone, task, Network(teacher_spec(tiny_backbone.config, task.head)))
    spec = space.spec(ARCHITECTURE, tiny_backbone.config, task.head)
    options = options_of(learning_rates=RATES, epochs=(8,), distillation=0.1)
    network = finetune(context, pretrained, ARCHITECTURE, options, spec)
    found = evaluate(lambda batch: network(**inputs(batch)), joint(tiny_backbone.tokenizer, 24), split, task.spec)
    assert found.metrics["spearman"] > 0.8


def test_the_grid_keeps_what_is_best_on_search(
    space: NasBertSpace, pretrained: Network, teacher: Network, tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path
) -> None:
    records: list[StageRecord] = []
    context, spec = (
        make_context(tmp_path, tiny_backbone, tiny_task, teacher, records),
        space.spec(ARCHITECTURE, tiny_backbone.config, CLASSES),
    )
    options = options_of(learning_rates=RATES, epochs=(1, 6), distillation=0.1, rows=80)
    before = weights_digest(teacher), weights_digest(pretrained)
    network = finetune(context, pretrained, ARCHITECTURE, options, spec)
    assert (weights_digest(teacher), weights_digest(pretrained)) == before
    choice = json.loads((tmp_path / stage_of("finetune-choice", ARCHITECTURE) / "choice.json").read_text())
    assert list(choice["scores"]) == [stage_of(f"finetune-lr{r}-b16-e{e}", ARCHITECTURE) for r in RATES for e in (1, 6)]
    best = max(choice["scores"].values())
    assert choice["scores"][choice["winner"]] == best == accuracy(network, context) > min(choice["scores"].values())
    kept = [path.parent.name for path in tmp_path.glob("finetune-*/weights.safetensors")]
    assert kept == [choice["winner"]] and len(records) == 4
    cost = 3 * costs(spec, 10).flops + costs(teacher.spec, 10).flops
    assert 0.4 * cost < records[0].flops / records[0].examples < 1.2 * cost and records[0].examples == 80
    seen = records.copy()
    records.clear()
    again = finetune(context, pretrained, ARCHITECTURE, options, spec)
    assert weights_digest(again) == weights_digest(network) and records == seen
    with pytest.raises(UserError, match="chosen from another grid"):
        finetune(context, pretrained, ARCHITECTURE, options_of(learning_rates=(0.01, 0.02)), spec)


def test_a_run_that_stopped_before_the_choice_chooses_alike(
    space: NasBertSpace,
    pretrained: Network,
    tiny_backbone: Backbone,
    tiny_task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options, spec = options_of(learning_rates=RATES, epochs=(4,)), space.spec(ARCHITECTURE, tiny_backbone.config, CLASSES)
    expected = finetune(make_context(tmp_path / "whole", tiny_backbone, tiny_task), pretrained, ARCHITECTURE, options, spec)
    context = make_context(tmp_path / "stopped", tiny_backbone, tiny_task)

    def stop(path: Path, text: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "write_atomically", stop)
        finetune(context, pretrained, ARCHITECTURE, options, spec)
    assert len(list(context.folder.glob("finetune-*/weights.safetensors"))) == 2
    network = finetune(context, pretrained, ARCHITECTURE, options, spec)
    assert weights_digest(network) == weights_digest(expected)
    assert len(list(context.folder.glob("finetune-*/weights.safetensors"))) == 1


def test_equal_scores_keep_the_first_run(
    space: NasBertSpace, pretrained: Network, tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path
) -> None:
    context, spec = make_context(tmp_path, tiny_backbone, tiny_task), space.spec(ARCHITECTURE, tiny_backbone.config, CLASSES)
    rates = (1e-10, 1e-11)
    network = finetune(context, pretrained, ARCHITECTURE, options_of(learning_rates=rates), spec)
    choice = json.loads((tmp_path / stage_of("finetune-choice", ARCHITECTURE) / "choice.json").read_text())
    assert len(set(choice["scores"].values())) == 1 and choice["winner"] == stage_of("finetune-lr1e-10-b16-e2", ARCHITECTURE)
    kept = load_file(tmp_path / choice["winner"] / "weights.safetensors")
    assert all(torch.equal(tensor, kept[name]) for name, tensor in network.state_dict().items())
    finetune(replace(context, folder=tmp_path / "alone"), pretrained, ARCHITECTURE, options_of(learning_rates=rates[:1]), spec)
    assert (tmp_path / "alone" / stage_of("finetune", ARCHITECTURE) / "stage.json").exists()


def test_it_starts_from_the_encoder_of_another_task(
    space: NasBertSpace, pretrained: Network, tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path
) -> None:
    context, spec = make_context(tmp_path, tiny_backbone, tiny_task), space.spec(ARCHITECTURE, tiny_backbone.config, CLASSES)
    other = Network(space.spec(ARCHITECTURE, tiny_backbone.config, Head("classification", 3)))
    randomise(other, 9)
    still = options_of(learning_rates=(1e-12,))
    for source, start in ((pretrained, None), (other, other)):
        network = finetune(replace(context, folder=tmp_path / str(start is None)), pretrained, ARCHITECTURE, still, spec, start)
        for name, tensor in network.state_dict().items():
            if not name.startswith("head."):
                torch.testing.assert_close(tensor, source.state_dict()[name], rtol=0, atol=1e-7)
        assert network.head.classifier.weight.shape == (2, 16) and float(network.head.classifier.weight.detach().abs().max()) < 0.1
        assert not network.training
    with pytest.raises(UserError, match="another encoder"):
        wrong = Network(space.spec(from_short("E8|8:M|16:F"), tiny_backbone.config, CLASSES))
        finetune(context, pretrained, ARCHITECTURE, still, spec, wrong)


def test_plain_fine_tuning(
    space: NasBertSpace, pretrained: Network, teacher: Network, tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path
) -> None:
    spec, records, digests = space.spec(ARCHITECTURE, tiny_backbone.config, CLASSES), [], []
    for i, (who, share) in enumerate(((None, 0.5), (teacher, 0.0), (teacher, 0.5))):
        context = make_context(tmp_path / str(i), tiny_backbone, tiny_task, who, records)
        options = options_of(distillation=share, clip=0.0)
        digests.append(weights_digest(finetune(context, pretrained, ARCHITECTURE, options, spec)))
    assert digests[0] == digests[1] != digests[2]
    assert records[0].flops == records[1].flops < records[2].flops


def test_a_task_with_other_outputs_is_refused(
    space: NasBertSpace, pretrained: Network, tiny_backbone: Backbone, tiny_task: Task, tmp_path: Path
) -> None:
    class Words(TaskSpec):
        head = Head("mlm")  # type: ignore[assignment]

    task = Task(
        Words("words", ("text",), "label", ("a", "b"), "accuracy", ("accuracy",)),
        {"train": tiny_task.split("train"), "search": tiny_task.split("search")},
    )
    spec = space.spec(ARCHITECTURE, tiny_backbone.config, Head("mlm"))
    with pytest.raises(UserError, match="'words' asks for mlm outputs"):
        finetune(make_context(tmp_path, tiny_backbone, task), pretrained, ARCHITECTURE, options_of(), spec)
