"""NAS-BERT's options that cannot work out, said before anything is trained; and that plan and run count the same paths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from methods.backbone import BERT_BASE, BackboneConfig
from methods.errors import UserError
from methods.latency import LatencyTable, key_of
from methods.nasbert.checks import check_options
from methods.nasbert.networks import operation
from methods.nasbert.options import NasBertOptions
from methods.nasbert.paths import Paths
from methods.nasbert.plan import block_costs, occupancy_of
from methods.nasbert.space import NasBertSpace, space_of
from methods.nasbert.survivors import Survivors, bins_of
from tests.methods.nasbert_cases import TINY

SIZES = {"sublayers": 6, "blocks": 2, "hidden_sizes": [8, 16], "operations": ["M", "F", "S3"], "embedding_sizes": [8, 24], "head_size": 8}
INHERIT = {"start": "inherit"}


def options_of(**parts: Any) -> NasBertOptions:
    return NasBertOptions.model_validate({**SIZES, **parts})


def check(options: NasBertOptions, backbone: BackboneConfig = TINY, variants: tuple[str, ...] = ()) -> None:
    check_options(options, space_of(options, backbone), backbone, variants)


def save_times(path: Path, space: NasBertSpace, seed: int = 0) -> Path:
    """Made-up times of all operations: anything between 1 and 9 ms."""
    rng = np.random.default_rng(seed)
    parts = [operation(name, hidden, TINY.layer_norm_eps, space.settings) for name in space.operations for hidden in space.hidden_sizes]
    timing = {"std": 0.0, "p10": 1e-3, "p50": 1e-3, "p90": 1e-3, "n": 1}
    made_with = {"processor": "x", "cores": 1, "system": "x", "torch": "x", "backend": "torch", "threads": 1, "dtype": "float32"}
    about = {"name": "clock", "measured_at": "x", "scale": 1.0, "fixed": 0.0, "calibrated_on": 0, "held_out": None}
    times = {key_of(piece): {**timing, "mean": float(rng.integers(1, 9)) * 1e-3} for part in parts for piece in part.pieces(0)}
    LatencyTable.model_validate({**about, "fingerprint": {**made_with, "batch": 1, "length": 12}, "parts": times}).save(path)
    return path


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"embedding_sizes": [8, 32], "retrain": INHERIT}, r"embedding_sizes: 32 is wider than the teacher's embedding \(24\)"),
        ({"sublayers": 30}, "sublayers: 30 in 2 blocks; .*43,046,718 paths.*choose more blocks"),
        (
            {"shrinking": {"unit": "operation", "kept": 78, "bins": 1}, "supernet": {"warmup_epochs": 0}},
            r"supernet.warmup_epochs: 0 .* shrinking.kept: 78",
        ),
    ],
)
def test_what_cannot_work_out_is_named_by_its_key(parts: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check(options_of(**parts))


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"embedding_sizes": [8, 32]},
        {"retrain": INHERIT},
        {"shrinking": {"kept": 78}, "supernet": {"warmup_epochs": 1}},
        {"shrinking": {"kept": 78}, "supernet": {"warmup_epochs": 0, "epochs": 2}},
    ],
)
def test_what_can_work_out_passes(parts: dict[str, Any]) -> None:
    check(options_of(**parts))


@pytest.mark.parametrize("bins", [1, 3])
def test_without_a_warm_up_there_has_to_be_something_to_shrink(bins: int) -> None:
    def without(kept: int) -> NasBertOptions:
        return options_of(shrinking={"bins": bins, "kept": kept}, supernet={"warmup_epochs": 0})

    fullest = max(occupancy_of(without(1), space_of(without(1), TINY), TINY))
    check(without(fullest - 1))
    said = rf"warmup_epochs: 0 makes no training step.*kept: {fullest} .*fullest of {bins} bins has {fullest} paths.*warmup_epochs: 1"
    with pytest.raises(UserError, match=said):
        check(without(fullest))


def test_the_paper_passes() -> None:
    check(NasBertOptions(), BERT_BASE, ("inherit",))


def test_a_wide_embedding_is_refused_where_a_variant_inherits() -> None:
    with pytest.raises(UserError, match="embedding_sizes: 32"):
        check(options_of(embedding_sizes=[8, 32]), variants=("inherit",))


def test_tables_too_large_for_the_exact_search_are_refused_with_their_numbers() -> None:
    """Twelve blocks: half of them have rows^6 combinations, at most 10,000,000."""
    many = {"sublayers": 24, "blocks": 12}
    with pytest.raises(UserError, match=r"kept: 10 in shrinking.bins: 10 leaves \d\d paths of each of 12 blocks.*10,000,000: 14 paths"):
        check(NasBertOptions.model_validate(many), BERT_BASE)
    check(NasBertOptions.model_validate({**many, "shrinking": {"bins": 7, "kept": 2}}), BERT_BASE)


@pytest.mark.parametrize("damage", ["missing", "no JSON", "another format", "an operation less"])
def test_a_latency_table_is_read_at_the_start(tmp_path: Path, damage: str) -> None:
    path, options = tmp_path / "clock.json", options_of(shrinking={"latency": str(tmp_path / "clock.json")})
    save_times(path, space_of(options, TINY))
    check(options)
    held = json.loads(path.read_text())
    if damage == "missing":
        path.unlink()
    elif damage == "no JSON":
        path.write_text("{")
    elif damage == "another format":
        path.write_text(json.dumps({**held, "format": 99}))
    else:
        held["parts"].popitem()
        path.write_text(json.dumps(held))
    with pytest.raises(UserError, match=r"nasbert: shrinking\.latency: .*(clock|measured)"):
        check(options)


def test_a_latency_condition_that_drops_every_path_is_refused(tmp_path: Path) -> None:
    """Two paths, the smaller one slow: `both` wants size and time in the same bin."""
    sizes = {"sublayers": 2, "hidden_sizes": [8], "operations": ["M", "F"]}
    options = options_of(**sizes, shrinking={"latency": str(tmp_path / "clock.json"), "latency_bound": "both", "bins": 8})
    held = json.loads(save_times(tmp_path / "clock.json", space_of(options, TINY)).read_text())
    for key, timing in held["parts"].items():
        timing["mean"] = 1e-3 if "feed" in key else 9e-3
    (tmp_path / "clock.json").write_text(json.dumps(held))
    with pytest.raises(UserError, match="latency_bound: both drops every path"):
        check(options)


@pytest.mark.parametrize("probes", [0, 12])
@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("bound", ["upper", "both", "none"])
@pytest.mark.parametrize("policy", ["equal_width", "quantile"])
def test_the_plan_counts_the_paths_that_the_run_trains(policy: str, bound: str, measured: bool, probes: int, tmp_path: Path) -> None:
    shrinking: dict[str, Any] = {"bins": 5, "kept": 3, "sample": 0, "bin_policy": policy, "latency_bound": bound}
    if measured:
        shrinking["latency"] = str(save_times(tmp_path / "clock.json", space_of(options_of(), TINY)))
    options = options_of(shrinking=shrinking, supernet={"probe_paths": probes})
    space = space_of(options, TINY)
    paths = Paths(space)
    survivors = Survivors(paths, bins_of(options.shrinking, space, TINY, paths), 5, space.blocks, probes)
    planned = occupancy_of(options, space, TINY)
    assert planned == survivors.at_start(0) == survivors.count(1)
    assert block_costs(options, space, TINY).shrinking.kept == sum(min(3, n) for n in planned)
    assert bound != "none" or sum(planned) + len(survivors.probes[0]) == len(paths)
