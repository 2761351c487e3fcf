"""The rows that AdaBERT's stages read, with what the teacher says of them: probes trained, signals computed once and recorded."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from methods.adabert.options import ProbeOptions
from methods.adabert.probes import BATCH, Probes, teacher_of, train_probes
from methods.adabert.teacher_signals import FILE, TeacherSignals, teacher_signals, training_split
from methods.errors import UserError
from methods.recipe import Context, StageRecord
from methods.tasks.batches import evaluation_batches, joint
from methods.tasks.split import Split
from methods.training.checkpoint import file_digest, write_atomically
from methods.training.processes import by_main_process
from methods.training.stage import training_flops

STAGE = "signals"
RECORD = "signals.json"


@dataclass(frozen=True)
class Rows:
    """A split, and the teacher's signals of its rows and perhaps of copies behind them."""

    split: Split
    signals: TeacherSignals


def taught_signals(context: Context, options: ProbeOptions) -> TeacherSignals:
    """Of the training rows and their copies; runs stage `probes` before."""
    probes = train_probes(context, options)
    by_main_process(lambda: _compute_once(context, options, probes))
    context.record(_read(context))
    return teacher_signals(context, options, probes)


def rows_of(context: Context, signals: TeacherSignals, augmented: bool) -> Rows:
    """The rows of a stage that reads copies or not."""
    return Rows(training_split(context, augmented), signals)


def _compute_once(context: Context, options: ProbeOptions, probes: Probes) -> None:
    if not (context.folder / FILE).exists():
        started = time.monotonic()
        teacher_signals(context, options, probes)
        _write(context, time.monotonic() - started)
    elif not (context.folder / RECORD).exists():
        _write(context, 0.0)


def _write(context: Context, seconds: float) -> None:
    lengths = joint(context.backbone.tokenizer, context.max_length).encode(training_split(context, augmented=True)).lengths
    per_batch = training_flops([], [teacher_of(context).spec])
    flops = sum(per_batch(len(rows), int(lengths[rows].max())) for rows in evaluation_batches(lengths, BATCH))
    record = {"examples": len(lengths), "flops": flops, "seconds": seconds, "sha256": file_digest(context.folder / FILE)}
    write_atomically(context.folder / RECORD, json.dumps(record) + "\n")


def _read(context: Context) -> StageRecord:
    path, data = context.folder / FILE, json.loads((context.folder / RECORD).read_text())
    digest = file_digest(path)
    if data.get("sha256", digest) != digest:
        raise UserError(f"{path}: damaged, its SHA-256 differs from {RECORD}; remove both to have them computed anew")
    return StageRecord(STAGE, 0, int(data["examples"]), float(data["flops"]), float(data["seconds"]))
