"""A run of all three methods that two processes do together, as `accelerate launch` starts them."""

from __future__ import annotations

import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workbench
from search.archive import Archive
from search.measurement import Measurement
from tests.apart import printed_by_several
from tests.conftest import make_tiny_backbone
from tests.workbench.interrupted import ADABERT, DYNABERT, FAST, NASBERT, write_experiment

CODE = "from workbench.cli import app; app(standalone_mode=False)"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without dropout, whose masks are every process's own."""
    folder = tmp_path_factory.mktemp("processes")
    backbone = make_tiny_backbone(folder / "backbone", hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    controls = {"random": 1, "untrained": True, "truncated_kd": FAST, "equal_flops": False}
    return write_experiment(folder, backbone, DYNABERT, ADABERT, NASBERT, controls=controls)


@pytest.fixture(scope="module")
def printed(experiment: Path) -> list[str]:
    """What each of the two prints; the run folder is `two` beside the file."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "LOCAL_WORLD_SIZE": "2"}
    environments = [shared | {"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    return printed_by_several(CODE, "run", str(experiment), "--output", str(experiment.parent / "two"), environments=environments)


def test_the_main_process_alone_writes(experiment: Path, printed: list[str]) -> None:
    assert "dynabert" in printed[0] and printed[1] == ""
    run = experiment.parent / "two"
    events = Counter(path.parent for path in run.rglob("events.out.tfevents.*"))
    assert len(events) > 10 and set(events.values()) == {1}
    with Archive(run / "archive.db", create=False) as archive:
        keys = [(m.task, m.architecture.id, m.kind, m.control, m.split, m.seed) for m in archive.measurements()]
        assert len(keys) == len(set(keys))
        assert {m.architecture.method for m in archive.measurements()} >= {"teacher", "dynabert", "adabert", "nasbert", "truncated-kd"}
        stages = [(row.task, row.method, row.seed, row.stage) for row in archive.stages()]
        assert len(stages) == len(set(stages))
        assert sum(row.evaluations for row in archive.searches() if row.method == "dynabert") == 3
        assert not [about for about in archive.notes() if "failed" in about]


def test_they_end_with_the_rows_of_one(experiment: Path, printed: list[str]) -> None:
    """DynaBERT's, the teacher's and the truncated one's; others draw masks of words, or take batch statistics, each for its own rows."""
    one = experiment.parent / "one"
    workbench.run(experiment, output=one, set=[f"methods={json.dumps([DYNABERT])}"])
    alone, together = (rows_of(folder) for folder in (one, experiment.parent / "two"))
    assert len(alone) > 10 and alone.keys() == together.keys()
    for key, (measurement, logits) in alone.items():
        same, other = together[key]
        tolerance = 1e-3 if "truncated-kd" in key else 1e-5  # it begins as its own teacher: what Adam steps by is rounding errors
        assert abs(logits - other).max() < tolerance, key
        assert abs(measurement.quality - same.quality) < 0.03 and measurement.costs == same.costs


def rows_of(run: Path) -> dict[tuple[Any, ...], tuple[Measurement, Any]]:
    with Archive(run / "archive.db", create=False) as archive:
        found = {}
        for m in archive.measurements("single"):
            if m.architecture.method in ("dynabert", "teacher", "truncated-kd"):
                predictions = archive.predictions(m.key)
                assert predictions is not None
                order = np.argsort(predictions.ids)
                found[m.architecture.id, m.kind, m.control, m.split] = m, predictions.logits[order]
        return found
