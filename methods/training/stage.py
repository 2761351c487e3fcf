"""A stage of a recipe: trained once, its weights kept under a digest, read back when the run is started again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from methods.costs import costs
from methods.errors import UserError
from methods.network import NetworkSpec
from methods.recipe import Context, StageRecord
from methods.tasks.batches import Collate, training_batches
from methods.tasks.task import Split
from methods.training.checkpoint import file_digest, write_atomically
from methods.training.loop import Loop, Step
from methods.training.options import Schedule

DONE = "stage.json"
WEIGHTS = "weights.safetensors"


def run_stage(
    context: Context,
    name: str,
    model: nn.Module,
    step: Step,
    schedule: Schedule,
    collate: Collate,
    flops: Callable[[int, int], float],
    settings: dict[str, Any],
    score: Callable[[], float] | None = None,
) -> None:
    """Brings `model` to the state after stage `name`: from its finished weights, from a checkpoint, or from the start.

    `settings` are what the result depends on besides schedule, data and seed; a folder made with others is refused.
    """
    folder = context.folder / name
    train = training_rows(context, schedule)
    fingerprint = {
        "stage": name,
        "schedule": schedule.model_dump(),
        "settings": settings,
        "data": train.digest,
        "seed": context.seed,
        "precision": context.hardware.precision,
    }
    if (folder / DONE).exists():
        record = read_finished(folder, model, fingerprint)
    else:
        data = collate.encode(train)
        loop = Loop(name, model, step, data, collate, schedule, folder, context.seed, context.hardware, flops, fingerprint, score)
        figures = loop.run()
        record = StageRecord(name, int(figures["steps"]), int(figures["examples"]), figures["flops"], figures["seconds"])
        write_finished(folder, model, fingerprint, record)
    model.eval()
    context.record(record)


def training_rows(context: Context, schedule: Schedule) -> Split:
    """The rows of `train` that a stage reads; the same choice in every stage, method and seed."""
    return context.task.limited(schedule.rows, seed=0).split("train")


def write_finished(folder: Path, model: nn.Module, fingerprint: dict[str, Any], record: StageRecord) -> None:
    """The weights, then the mark that they are whole; checkpoints are no longer needed then."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / (WEIGHTS + ".part")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}, aside)
    aside.replace(folder / WEIGHTS)
    mark = {"sha256": file_digest(folder / WEIGHTS), "fingerprint": fingerprint, "record": vars(record)}
    write_atomically(folder / DONE, json.dumps(mark, indent=1, default=str))
    for name in ("a.pt", "b.pt", "checkpoint.json"):
        (folder / name).unlink(missing_ok=True)


def read_finished(folder: Path, model: nn.Module, fingerprint: dict[str, Any]) -> StageRecord:
    """Loads a finished stage into `model`. Raises UserError where it is damaged or was made with other settings."""
    try:
        mark = json.loads((folder / DONE).read_text())
        record = StageRecord(**mark["record"])
        digest = file_digest(folder / WEIGHTS)
        expected, made_with = mark["sha256"], dict(mark["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: the finished stage is damaged ({error}); remove the folder to train it anew") from error
    if digest != expected:
        raise UserError(f"{folder / WEIGHTS}: damaged, its SHA-256 differs from {DONE}; remove the folder to train this stage anew")
    wanted = json.loads(json.dumps(fingerprint, default=str))
    different = [key for key in wanted if made_with.get(key) != wanted[key]]
    if different:
        raise UserError(f"{folder}: was trained with other {', '.join(different)}; choose another run folder, or remove this one")
    model.load_state_dict(load_file(folder / WEIGHTS))
    return record


def epoch_flops(lengths: NDArray[Any], batch_size: int, seed: int, per_batch: Callable[[int, int], float]) -> float:
    """FLOPs of the first epoch's batches, each at its padded length."""
    return sum(per_batch(len(rows), int(lengths[rows].max())) for rows in training_batches(lengths, batch_size, seed, 0))


def training_flops(trained: Sequence[NetworkSpec], teachers: Sequence[NetworkSpec] = ()) -> Callable[[int, int], float]:
    """FLOPs of one batch by its size and padded length: 3 x forward of what is trained, 1 x forward of what teaches."""

    @lru_cache(maxsize=1024)
    def one(length: int) -> float:
        return float(sum(3 * costs(spec, length).flops for spec in trained) + sum(costs(spec, length).flops for spec in teachers))

    return lambda batch, length: batch * one(length)


def training_memory(trained: NetworkSpec, stored: int, teacher: int, batch: int, length: int) -> int:
    """Estimated bytes while training: float32 weights, gradients and two moments of `stored` parameters, `teacher` parameters, and the
    activations of the one graph that is alive (about 4 bytes x (14 H + 4 F) per token and layer, and 3 attention maps a head)."""
    tokens = batch * length
    activations = 0
    for layer in getattr(trained.encoder, "layers", ()):
        attention, feed_forward = getattr(layer, "attention", None), getattr(layer, "feed_forward", None)
        if attention is not None and feed_forward is not None:
            activations += 4 * tokens * (14 * attention.hidden + 4 * feed_forward.neurons) + 12 * tokens * length * attention.heads
    return 16 * stored + 4 * teacher + activations
