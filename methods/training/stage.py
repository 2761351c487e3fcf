"""A stage of a recipe: trained once, its weights kept under a digest, read back when the run is started again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from methods.costs import costs
from methods.errors import UserError
from methods.network import NetworkSpec
from methods.recipe import Context, Hardware, StageRecord, Watch
from methods.tasks.batches import Collate, training_batches
from methods.tasks.task import AUGMENTED, Split
from methods.training.checkpoint import CHECKPOINTS, file_digest, write_atomically, written_aside
from methods.training.loop import Companion, Loop, MakeStepper, Rows, Step
from methods.training.options import Pace, Schedule
from methods.training.processes import by_main_process, is_main_process, join_processes, of_main_process

DONE = "stage.json"
WEIGHTS = "weights.safetensors"


class DigestedRows(Rows, Protocol):
    """Rows with a digest of their content, such as a `Packed` corpus."""

    @property
    def digest(self) -> str: ...


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
    stepper: MakeStepper | None = None,
    *,
    companion: StageCompanion | None = None,
    augmented: bool = False,
) -> None:
    """Brings `model` to the state after stage `name`: from its finished weights, from a checkpoint, or from the start.

    `settings` are what the result depends on besides schedule, data and seed; a folder made with others is refused.
    `augmented`: the rows' copies are read too, where there are any.
    """
    train = training_rows(context, schedule, augmented)
    # the data's digest says whether copies are among them, the settings which sub-networks are trained
    fingerprint = {"settings": settings, "schedule": schedule.model_dump(exclude={"augmented", "sampler", "samples"})}
    schedule = schedule.model_copy(update={"rows": None})  # it limits the originals, not their copies
    stage = _Stage(context.folder, name, model, context.seed, context.hardware, context.record)
    more: dict[str, Any] = {"score": score, "stepper": stepper, "companion": companion, "watch": context.watch}
    stage.run(lambda: collate.encode(train), train.digest, step, collate, schedule, flops, fingerprint, **more)


def train_stage(
    folder: Path,
    name: str,
    model: nn.Module,
    step: Step,
    data: DigestedRows,
    collate: Callable[[Any, Sequence[int]], dict[str, Tensor]],
    schedule: Pace,
    *,
    seed: int,
    hardware: Hardware,
    flops: Callable[[int, int], float],
    settings: dict[str, Any],
    record: Callable[[StageRecord], None],
    companion: StageCompanion | None = None,
    clipped: Sequence[nn.Module] = (),
    seeded_as: str = "",
    stepper: MakeStepper | None = None,
    watch: Watch | None = None,
    shown: nn.Module | None = None,
) -> None:
    """`run_stage` on any rows: brings `model` to the state after stage `name` of a recipe whose folder is `folder`.

    `companion.write` leaves what else the stage has found beside the weights. The rest: see `Loop`.
    """
    stage = _Stage(folder, name, model, seed, hardware, record)
    more: dict[str, Any] = {"companion": companion, "clipped": clipped, "seeded_as": seeded_as, "stepper": stepper}
    more |= {"watch": watch, "shown": shown}
    stage.run(lambda: data, data.digest, step, collate, schedule, flops, {"settings": settings}, **more)


class StageCompanion(Companion, Protocol):
    """A companion with results of its own."""

    def write(self, folder: Path) -> Sequence[str]:
        """Writes them into the stage's folder; called once, before the stage is marked as finished. Returns the names of the files that
        are read back: the mark covers them as it does the weights."""


@dataclass(frozen=True)
class _Stage:
    """One stage in its folder: read back, gone on with, or begun."""

    folder: Path
    name: str
    model: nn.Module
    seed: int
    hardware: Hardware
    record: Callable[[StageRecord], None]

    def run(
        self,
        data: Callable[[], Any],
        digest: str,
        step: Step,
        collate: Callable[[Any, Sequence[int]], dict[str, Tensor]],
        schedule: Pace,
        flops: Callable[[int, int], float],
        settings: dict[str, Any],
        *,
        companion: StageCompanion | None = None,
        **more: Any,
    ) -> None:
        join_processes(self.hardware)
        folder = self.folder / self.name
        fingerprint = {
            "stage": self.name,
            "schedule": schedule.model_dump(),  # type: ignore[attr-defined]
            **settings,
            "data": digest,
            "seed": self.seed,
            "precision": self.hardware.precision,
        }
        if of_main_process((folder / DONE).exists()):
            record = read_finished(folder, self.model, fingerprint)
        else:
            where = (folder, self.seed, self.hardware)
            loop = Loop(self.name, self.model, step, data(), collate, schedule, *where, flops, fingerprint, companion=companion, **more)
            figures = loop.run()
            steps, examples, subnetworks = (int(figures[name]) for name in ("steps", "examples", "subnetwork_steps"))
            record = StageRecord(self.name, steps, examples, figures["flops"], figures["seconds"], subnetworks)
            by_main_process(lambda: write_finished(folder, self.model, fingerprint, record, companion.write(folder) if companion else ()))
            if not is_main_process():  # its batch norms have seen other rows
                record = read_finished(folder, self.model, {})
        self.model.eval()
        self.record(record)


def training_rows(context: Context, schedule: Schedule, augmented: bool = False) -> Split:
    """The rows of `train` that a stage reads, the same choice in every stage, method and seed; `augmented`: and their copies, if any."""
    task = context.task.limited(schedule.rows, seed=0)
    return task.split(AUGMENTED if augmented and AUGMENTED in task.split_names else "train")


def write_finished(folder: Path, model: nn.Module, fingerprint: dict[str, Any], record: StageRecord, results: Sequence[str] = ()) -> None:
    """The weights, then the mark that they and the other `results` are whole; checkpoints are no longer needed then."""
    folder.mkdir(parents=True, exist_ok=True)
    with written_aside(folder / WEIGHTS) as aside:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}, aside)
    write_mark(folder, fingerprint, record, results, sha256=file_digest(folder / WEIGHTS))
    for name in CHECKPOINTS:
        (folder / name).unlink(missing_ok=True)


def write_mark(folder: Path, fingerprint: dict[str, Any], record: StageRecord, results: Sequence[str] = (), **more: str) -> None:
    """The mark that a stage is finished, with the digests of its other results than weights."""
    files = {name: file_digest(folder / name) for name in results}
    mark = {**more, "files": files, "fingerprint": fingerprint, "record": vars(record)}
    write_atomically(folder / DONE, json.dumps(mark, indent=1, default=str))


def read_finished(folder: Path, model: nn.Module, fingerprint: dict[str, Any]) -> StageRecord:
    """Loads a finished stage into `model`. Raises UserError where it is damaged or was made with other settings."""
    mark, record = read_mark(folder)
    _check_digest(folder / WEIGHTS, mark.get("sha256"))
    made_with, wanted = mark["fingerprint"], json.loads(json.dumps(fingerprint, default=str))
    different = [key for key in wanted if made_with.get(key) != wanted[key]]
    if different:
        raise UserError(f"{folder}: was trained with other {', '.join(different)}; choose another run folder, or remove this one")
    model.load_state_dict(load_file(folder / WEIGHTS))
    return record


def read_mark(folder: Path) -> tuple[dict[str, Any], StageRecord]:
    """The mark of a finished stage, and its record. Raises UserError where the mark or one of the results that it covers, weights left
    out, is missing or damaged."""
    path = folder / DONE
    try:
        mark: dict[str, Any] = json.loads(path.read_text())
        record = StageRecord(**mark["record"])
        mark["fingerprint"] = dict(mark["fingerprint"])
        files = dict(mark.get("files", {}))
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing, so that the stage does not count as finished; run it first") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); {_remedy(folder)}") from error
    for name, digest in files.items():
        _check_digest(folder / name, digest)
    return mark, record


def _check_digest(path: Path, digest: Any) -> None:
    try:
        found = file_digest(path)
    except OSError as error:
        raise UserError(f"{path}: missing or damaged ({error.strerror}); {_remedy(path.parent)}") from error
    if found != digest:
        raise UserError(f"{path}: damaged, its SHA-256 differs from {DONE}; {_remedy(path.parent)}")


def _remedy(folder: Path) -> str:
    return f"remove the folder {folder} to have this stage done anew"


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
