"""Block-wise training: what it touches, that blocks are independent, that it goes on where it stopped, alone and in two processes."""

from __future__ import annotations

import csv
import itertools
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from methods.backbone import Backbone
from methods.corpus.corpus import Corpus
from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.latency import LatencyTable, Timing, key_of
from methods.nasbert import supernet_stage
from methods.nasbert.block_training import BlockwiseStep
from methods.nasbert.losses import BlockLosses
from methods.nasbert.networks import operation, teacher_spec
from methods.nasbert.options import NasBertOptions
from methods.nasbert.paths import Paths
from methods.nasbert.ranking import HeldOut, block_error, path_losses, teacher_states, walked
from methods.nasbert.space import space_of
from methods.nasbert.supernet import NasBertSupernet
from methods.nasbert.supernet_stage import held_out_text, losses_file, make_tables, new_survivors, train_supernet
from methods.network import Network
from methods.recipe import CorpusContext, Hardware, StageRecord
from methods.tasks.head import Head
from methods.training.initialisation import initialise, load_backbone
from tests.apart import printed_by_several
from tests.conformance.cases import randomise

SIZES = {"sublayers": 4, "blocks": 2, "hidden_sizes": (8, 16), "operations": ("M", "F", "S3"), "embedding_sizes": (8, 16), "head_size": 8}
TRAINING = {"warmup_epochs": 1, "epoch_steps": 3, "batch_size": 4, "length": 12, "optimiser": {"learning_rate": 0.003, "warmup_steps": 0}}
SHRINKING = {"bins": 3, "kept": 2, "sample": 0, "dev_batches": 1}


def options_of(**training: Any) -> NasBertOptions:
    return NasBertOptions.model_validate({**SIZES, "supernet": {**TRAINING, **training}, "shrinking": SHRINKING})


def make_teacher(backbone: Backbone) -> Network:
    torch.manual_seed(0)
    teacher = Network(teacher_spec(backbone.config, Head("mlm")))
    initialise(teacher)
    load_backbone(teacher, backbone.weights())
    return teacher.eval()


def make_context(folder: Path, backbone: Backbone, corpus: Corpus, records: list[StageRecord] | None = None) -> CorpusContext:
    record = records.append if records is not None else lambda _: None
    return CorpusContext(folder, folder, backbone, corpus.restricted("train", "search"), seed=1, record=record)


def train(context: CorpusContext, options: NasBertOptions) -> tuple[NasBertSupernet, Any]:
    space = space_of(options, context.backbone.config)
    teacher = make_teacher(context.backbone)
    torch.manual_seed(context.seed)
    supernet = NasBertSupernet(space, context.backbone.config, Head("mlm"))
    supernet.load_teacher(teacher)
    survivors = new_survivors(options, space, context)
    train_supernet(context, options, space, supernet, teacher, survivors)
    return supernet, survivors


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Backbone, tiny_corpus: Corpus) -> tuple[Path, str, Any]:
    folder = tmp_path_factory.mktemp("trained")
    supernet, survivors = train(make_context(folder, tiny_backbone, tiny_corpus), options_of())
    return folder, weights_digest(supernet), survivors.state()


def test_states_of_the_teacher_are_those_of_its_layers(tiny_backbone: Backbone) -> None:
    teacher = make_teacher(tiny_backbone)
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    mask = (ids > 0).long()
    found = teacher_states(teacher, {"input_ids": ids, "attention_mask": mask}, 2)
    states = teacher(ids, mask)["hidden_states"]
    assert len(found) == 3 and all(torch.equal(a, b) for a, b in zip(found, states, strict=True))


def test_the_error_of_a_block_counts_valid_tokens_alone() -> None:
    output, target = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    target[0, 2] = target[1, 1:] = 100.0
    target[0, 0] = 3.0
    assert float(block_error(output, target, mask)) == pytest.approx((9 + 1 + 1) / 3)


def test_a_step_reaches_one_path_of_each_block(tiny_backbone: Backbone, tiny_corpus: Corpus, tmp_path: Path) -> None:
    options = options_of()
    space = space_of(options, tiny_backbone.config)
    supernet = NasBertSupernet(space, tiny_backbone.config, Head("mlm"))
    randomise(supernet, 0)
    context = make_context(tmp_path, tiny_backbone, tiny_corpus)
    survivors = new_survivors(options, space, context)
    step = BlockwiseStep(supernet, make_teacher(tiny_backbone), tiny_corpus.masker, survivors, (0, 1), options, 0)
    step(tiny_corpus.packed("train", 12).batch([0, 1, 2]), lambda loss: loss.backward())
    reached = {name for name, p in supernet.named_parameters() if p.grad is not None}
    used = set()
    for block in (0, 1):
        hidden, names = survivors.paths[step.before[block]]
        prefixes = [
            f"into.{block}.{hidden}.",
            f"out.{block}.{hidden}.",
            *(f"operations.{block}.{j}.{hidden}.{o}." for j, o in enumerate(names)),
        ]
        used |= {name for name, _ in supernet.named_parameters() if name.startswith(tuple(prefixes))}
    assert reached == used
    assert all(bool(p.grad.any()) for p in supernet.parameters() if p.grad is not None)


def test_paths_ranked_together_have_the_losses_that_each_has_alone(tiny_backbone: Backbone, tiny_corpus: Corpus, tmp_path: Path) -> None:
    options = options_of()
    space = space_of(options, tiny_backbone.config)
    supernet = NasBertSupernet(space, tiny_backbone.config, Head("mlm"))
    randomise(supernet, 0)
    context, teacher = make_context(tmp_path, tiny_backbone, tiny_corpus), make_teacher(tiny_backbone)
    held_out = HeldOut.of(teacher, held_out_text(context, options), 2, Hardware())
    paths = Paths(space)
    numbers = np.array([3, 20, 7, 0, 15])
    found = path_losses(supernet, 1, paths, numbers, held_out, Hardware())
    (states,), (mask,) = held_out.states, held_out.masks
    for loss, number in zip(found, numbers, strict=True):
        output = supernet.block_forward(1, paths[int(number)], states[1], mask)
        assert loss == pytest.approx(float(block_error(output.detach(), states[2], mask)), rel=1e-5)
    table = space.tables(tiny_backbone.config, Head("mlm"), 12).operation[:, :-1, 2]
    nodes = {(h, names[:k]) for h, names in (paths[int(i)] for i in numbers) for k in range(1, len(names) + 1)}
    single = walked(paths, np.array([3]), table, np.array([10, 20]))
    assert single == table[0, space.operations.index(paths[3][1][0])] + table[0, space.operations.index(paths[3][1][1])] + 20
    assert walked(paths, numbers, table, np.array([0, 0])) == sum(
        table[space.hidden_sizes.index(h), space.operations.index(names[-1])] for h, names in nodes
    )


def test_it_learns_and_shrinks(trained: tuple[Path, str, Any], tiny_backbone: Backbone, tiny_corpus: Corpus, tmp_path: Path) -> None:
    folder, _, alive = trained
    with (folder / "supernet" / "shrinking.csv").open() as file:
        rounds = list(csv.DictReader(file))
    assert {int(row["epoch"]) for row in rounds} == set(range(2, 2 + len({row["epoch"] for row in rounds})))
    assert all(len(numbers) <= 2 for block in alive for numbers in block) and all(any(block) for block in alive)
    supernet, _ = train(make_context(tmp_path, tiny_backbone, tiny_corpus), options_of(epochs=30, sampler="paths"))
    with (tmp_path / "supernet" / "training.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["block"] == "1"]
    assert float(rows[-1]["relative"]) < 0.8 * float(rows[0]["relative"])
    assert not supernet.training


def test_a_finished_stage_is_read_back(trained: tuple[Path, str, Any], tiny_backbone: Backbone, tiny_corpus: Corpus) -> None:
    folder, digest, alive = trained
    records: list[StageRecord] = []
    supernet, survivors = train(make_context(folder, tiny_backbone, tiny_corpus, records), options_of())
    assert weights_digest(supernet) == digest and survivors.state() == alive
    assert [record.stage for record in records] == ["supernet", "shrinking"]


def test_blocks_trained_apart_come_out_as_those_trained_together(
    trained: tuple[Path, str, Any], tiny_backbone: Backbone, tiny_corpus: Corpus, tmp_path: Path
) -> None:
    _, digest, alive = trained
    supernet, survivors = train(make_context(tmp_path, tiny_backbone, tiny_corpus), options_of(blocks_per_step="one"))
    assert weights_digest(supernet) == digest and survivors.state() == alive
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("supernet")) == ["supernet-1", "supernet-2"]


@contextmanager
def spoilt(path: Path, damage: str) -> Iterator[None]:
    """The file is missing, or has another last character, and is whole again afterwards."""
    good = path.read_bytes()
    path.unlink() if damage == "missing" else path.write_bytes(good[:-2] + b"?" + good[-1:])
    try:
        yield
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize("name", ["survivors.json", "shrinking.json", "weights.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_what_is_not_whole_is_named(
    trained: tuple[Path, str, Any], tiny_backbone: Backbone, tiny_corpus: Corpus, name: str, damage: str
) -> None:
    folder, _, _ = trained
    with spoilt(folder / "supernet" / name, damage), pytest.raises(UserError, match=rf"supernet/{name}: .*{damage}.*; remove the folder"):
        train(make_context(folder, tiny_backbone, tiny_corpus), options_of())


def test_a_latency_table_is_known_by_what_it_holds(tiny_backbone: Backbone, tiny_corpus: Corpus, tmp_path: Path) -> None:
    """A table that was moved is the same one; one that was edited is another."""
    context, times = make_context(tmp_path / "run", tiny_backbone, tiny_corpus), clock(options_of(), tiny_backbone)
    for name in ("here", "there"):
        times.save(tmp_path / f"{name}.json")
    timing = {part: timing.model_copy(update={"mean": timing.mean / 2}) for part, timing in times.parts.items()}
    times.model_copy(update={"parts": timing}).save(tmp_path / "edited.json")

    def by(name: str) -> str:
        shrinking = {**SHRINKING, "latency": str(tmp_path / f"{name}.json")}
        options = NasBertOptions.model_validate({**SIZES, "supernet": {**TRAINING, "epochs": 1}, "shrinking": shrinking})
        return weights_digest(train(context, options)[0])

    assert by("here") == by("there")
    with pytest.raises(UserError, match="trained with other settings"):
        by("edited")


def clock(options: NasBertOptions, backbone: Backbone) -> LatencyTable:
    """Times of all operations of the space."""
    space, eps = space_of(options, backbone.config), backbone.config.layer_norm_eps
    parts = [operation(name, hidden, eps, space.settings) for name in space.operations for hidden in space.hidden_sizes]
    pieces = [piece for part in parts for piece in part.pieces(0)]
    timing = Timing(mean=1e-3, std=0.0, p10=1e-3, p50=1e-3, p90=1e-3, n=1)
    made_with = {"processor": "x", "cores": 1, "system": "x", "torch": "x", "backend": "torch", "threads": 1, "dtype": "float32"}
    fingerprint = {**made_with, "batch": 1, "length": 12}
    about = {"name": "clock", "measured_at": "x", "scale": 1.0, "fixed": 0.0, "calibrated_on": 0, "held_out": None}
    return LatencyTable.model_validate({**about, "fingerprint": fingerprint, "parts": {key_of(piece): timing for piece in pieces}})


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("stop_at", [2, 5, 6, 8])
def test_a_stopped_training_has_the_same_survivors(
    trained: tuple[Path, str, Any],
    tiny_backbone: Backbone,
    tiny_corpus: Corpus,
    tmp_path: Path,
    stop_at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, digest, alive = trained
    original, count = BlockwiseStep.__call__, [0]

    def stopping(self: BlockwiseStep, batch: Any, backward: Any) -> dict[str, float]:
        if count[0] == stop_at:
            raise StoppedError
        count[0] += 1
        return original(self, batch, backward)

    context = replace(make_context(tmp_path, tiny_backbone, tiny_corpus), hardware=Hardware(checkpoint_seconds=0.0))
    with monkeypatch.context() as patch:
        patch.setattr(BlockwiseStep, "__call__", stopping)
        with pytest.raises(StoppedError):
            train(context, options_of())
    assert (tmp_path / "supernet" / "checkpoint.json").exists()
    supernet, survivors = train(context, options_of())
    assert weights_digest(supernet) == digest and survivors.state() == alive


def test_tables_hold_the_loss_of_every_survivor(
    trained: tuple[Path, str, Any], tiny_backbone: Backbone, tiny_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, alive = trained
    options, records = options_of(), []
    context = make_context(folder, tiny_backbone, tiny_corpus, records)
    supernet, survivors = train(context, options)
    space = space_of(options, tiny_backbone.config)
    teacher = make_teacher(tiny_backbone)
    make_tables(context, options, space, supernet, teacher, survivors)
    losses = BlockLosses.load(losses_file(folder), space)
    for block, (numbers, found, bins) in enumerate(losses.blocks):
        assert sorted(numbers.tolist()) == sorted(i for bin_ in alive[block] for i in bin_)
        assert np.isfinite(found).all() and [survivors.bin_of[i] for i in numbers] == bins.tolist()
    monkeypatch.setattr(supernet_stage, "_best_of_block", None)  # what is there already is not measured again
    make_tables(replace(context, record=records.append), options, space, supernet, teacher, survivors)
    assert records[-1] == records[-2] and records[-1].stage == "tables"
    for name, damage in itertools.product(("stage.json", "losses.csv"), ("missing", "damaged")):
        if (name, damage) == ("stage.json", "missing"):  # then it is to be measured
            continue
        with spoilt(folder / "tables" / name, damage), pytest.raises(UserError, match=rf"tables/{name}: .*{damage}.*; remove the folder"):
            make_tables(context, options, space, supernet, teacher, survivors)


def test_two_processes_draw_the_same_paths(tmp_path: Path) -> None:
    """Two processes on gloo: equal weights in both, equal survivors, and the paths of one process alone."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    environments = [shared | {"RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"} for rank in ("0", "1")]
    printed_by_several("from tests.methods.two_processes import main; main()", str(tmp_path), environments=environments)
    one, two = (json.loads((tmp_path / f"rank{i}.json").read_text()) for i in (0, 1))
    assert one == two
    alone = json.loads((tmp_path / "alone.json").read_text())
    assert one["paths"] == alone["paths"] and one["digest"] != alone["start"]
    assert one["examples"] == alone["examples"]
    assert max(abs(a - b) for a, b in zip(one["sample"], alone["sample"], strict=True)) < 1e-4
