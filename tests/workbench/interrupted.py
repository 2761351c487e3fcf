"""A tiny experiment with every method and every kind of stage, run in a process of its own that can be killed, and what it leaves."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.torch import load_file

import workbench
from methods.training.stage import DONE
from search.archive import Archive
from tests.conftest import write_text
from tests.workbench.test_adabert_run import write_data

COUNT = "count.json"
FAST = {"epochs": 1, "batch_size": 32, "learning_rate": 0.003}
STEPS = {"batch_size": 8, "length": 8, "optimiser": {"learning_rate": 0.003, "warmup_steps": 2}}
DYNABERT = {
    "name": "dynabert", "widths": [0.5, 1.0], "depths": [0.5, 1.0], "importance_batch_size": 8, "final": FAST,
    "width": {**FAST, "accumulation": 2}, "depth": {**FAST, "sampler": "sandwich", "samples": 1, "select_every": 2},
}  # fmt: skip
ADABERT = {
    "name": "adabert", "cells": 2, "nodes": 2, "width": 8, "operations": ["conv_3", "max_pool_3", "identity"], "dropout": 0.1,
    "probes": {"epochs": 1},
    "search": {"steps": 6, "weights": {"learning_rate": 0.05}, "batch_size": 32},
    "derivation": {"rule": "sample_best", "candidates": 2, "batch_norm_batches": 2, "diagnosed_draws": 2, "diagnosed_rows": 8},
    "finish": {"epochs": 1, "batch_size": 32},
}  # fmt: skip
NASBERT = {
    "name": "nasbert", "sublayers": 4, "blocks": 2, "hidden_sizes": [8, 16], "operations": ["M", "F"], "embedding_sizes": [16],
    "head_size": 8, "dropout": 0.1,
    "teacher": {"source": "pretrain", "steps": 3, **STEPS},
    "supernet": {"warmup_epochs": 1, "epoch_steps": 3, **STEPS},
    "shrinking": {"bins": 2, "kept": 2, "sample": 0, "dev_batches": 2},
    "selection": {"candidates": 2},
    "retrain": {"steps": 3, **STEPS},
    "finetune": {"learning_rates": [0.001, 0.003], "batch_sizes": [32], "epochs": [1]},
}  # fmt: skip


def write_experiment(folder: Path, backbone: Path, *methods: dict[str, Any], **changes: Any) -> Path:
    """Checkpoints are saved after every step."""
    write_text(folder / "text")
    data = {
        "backbone": str(backbone),
        "task": write_data(folder / "single", False),
        "corpus": {"name": "tiny", "data": "text/text.txt", "search_share": 0.1, "validation_share": 0.1},
        "teacher": {"schedule": FAST},
        "augmentation": {"copies": 1, "candidates": 3},
        "methods": list(methods),
        "search": {"strategy": "random", "evaluations": 3, "sampled": 2},
        "controls": {"random": 1, "untrained": True, "truncated_kd": FAST},
        "budgets": [{"name": "all", "max_flops": "1G"}],
        "cost": {"length": 16, "batch": 1},
        "hardware": {"device": "cpu", "threads": 1, "checkpoint_seconds": 0},
        **changes,
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def main() -> None:
    """Runs the experiment; kills this process right before its n-th renaming of a file in the run folder, or after so many seconds."""
    file, folder, at, seconds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    count = 0

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "os.rename" and str(arguments[1]).startswith(str(folder)):
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(heard)
    if seconds:
        threading.Thread(target=lambda: (time.sleep(seconds), os.kill(os.getpid(), signal.SIGKILL)), daemon=True).start()
    started = time.monotonic()
    workbench.run(file, output=folder)
    (folder.parent / COUNT).write_text(json.dumps({"renames": count, "seconds": time.monotonic() - started}))


def left(folder: Path) -> dict[str, Any]:
    """All that a run leaves but seconds, times of day and versions: tensors, marks, rows of the archive, predictions, tables."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            tensors = sorted(load_file(path).items())
            found[name] = [(key, hashlib.sha256(np.ascontiguousarray(t.numpy()).tobytes()).hexdigest()) for key, t in tensors]
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                found[name] = {key: arrays[key].tolist() for key in arrays.files}
        elif path.suffix == ".json":
            data = json.loads(path.read_text())
            if path.name == "table.json":
                data = {key: data[key] for key in ("rows", "rank_correlations", "diagnostics", "facts")}
            elif path.name == DONE:
                del data["files"]  # digests of files with seconds in them; they are compared themselves
            found[name] = _untimed(data)
        elif path.suffix in (".csv", ".tsv", ".yaml") and path.name != "table.csv":
            found[name] = path.read_text()
    with Archive(folder / "archive.db", create=False) as archive:
        for rows in (archive.measurements(), archive.stages(), archive.searches()):
            found[type(rows[0]).__name__] = sorted(json.dumps(_untimed(vars(row)), sort_keys=True, default=str) for row in rows)
        found["notes"] = archive.notes()
    return found


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(inner) for key, inner in value.items() if not any(word in key for word in ("seconds", "created"))}
    return [_untimed(inner) for inner in value] if isinstance(value, list) else value
