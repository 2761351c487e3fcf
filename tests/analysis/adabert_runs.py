"""A run folder, made by hand, of a method with a rule of its own: three seeds, what alpha and a strategy found, floors, diagnostics."""

from __future__ import annotations

import json
from pathlib import Path

from methods.adabert.options import AdaBertOptions
from methods.adabert.space import AdaBertSpace
from methods.recipe import stage_of
from methods.space import Architecture
from search.selections import Selection, keep_selection
from tests.analysis.runs import Folder, costs

OPTIONS = {"name": "adabert", "cells": 3, "nodes": 2, "width": 8, "operations": ["conv_3", "max_pool_3", "identity"]}
SPACE = AdaBertSpace(AdaBertOptions.model_validate({key: OPTIONS[key] for key in OPTIONS if key != "name"}))
LIMITS = {"max_flops": 1e9}
RANDOM = (0.80, 0.82, 0.84, 0.86, 0.88)


def cell(cells: int, *operations: str) -> Architecture:
    """Both nodes on the cell's inputs, with these four operations."""
    a, b, c, d = operations
    return SPACE.architecture(cells, [[[0, a], [1, b]], [[0, c], [1, d]]])


ALPHA, STRATEGY = cell(2, *["conv_3"] * 4), cell(1, *["max_pool_3"] * 4)
CNN = SPACE.uniform(2, "conv_3")
_SHAPES = ((1, "conv_3"), (2, "conv_3"), (3, "conv_3"), (1, "identity"), (2, "identity"))
DRAWN = [cell(k, "identity", "conv_3", name, "identity") for k, name in _SHAPES]


def own_rule_run(path: Path, alarm: bool = True) -> Folder:
    """alpha: 0.90, 0.91, 0.92 over the seeds; the strategy 0.80, and nothing in seed 1; in seed 0 the fixed CNN has 0.95."""
    run = Folder(path, [{"name": "small", **LIMITS}], seeds=[0, 1, 2], tasks=[{"name": "sst2"}], methods=[OPTIONS])
    for seed in range(3):
        for which, shared, finished in ((ALPHA, 0.85, 0.90 + seed / 100), (STRATEGY, 0.80, 0.80)):
            run.measure(which, shared, "search", cost=costs(0.6), seed=seed)
            run.measure(which, finished - 0.05, "search", "finished", costs(0.6), seed=seed)
            run.measure(which, finished, "validation", "finished", costs(0.6), seed=seed)
        for by, limits, found in (("alpha", {}, ALPHA), ("alpha", LIMITS, ALPHA), ("tpe", LIMITS, None if seed == 1 else STRATEGY)):
            keep_selection(run.archive, Selection("sst2", "adabert", seed, by, limits, found))
        run.stage("adabert", "search", 10, 1e12, seed)
        for which, flops in ((ALPHA, 2e12), (STRATEGY, 3e12)):
            run.stage("adabert", stage_of("finish", which), 5, flops, seed)
        run.searched("adabert", "small", 40, 8.0, seed, "tpe")
        run.searched("adabert", "small", 1, 1.0, seed, "alpha")
        diagnosed(path, seed, alarm)
    for which, quality in zip(DRAWN, RANDOM, strict=True):
        run.control("random", which, quality, costs(0.57))
        run.measure(which, 1 - quality, "search", cost=costs(0.57))
    run.control("bag-of-embeddings", Architecture.of("bag-of-embeddings", {"width": 8}), 0.70, costs(0.1))
    run.control("fixed-cnn", CNN, 0.95, costs(0.9))
    run.stage("adabert floor", "bag-of-embeddings", 5, 7e11)
    run.stage("adabert floor", stage_of("finish", CNN), 5, 9e11)
    run.archive.note("sst2, adabert, probes", "on the first token")
    return run


def diagnosed(path: Path, seed: int, alarm: bool) -> None:
    """What stages `search` and `derive` leave."""
    for stage, entries in (
        ("search", {"D1": {"value": {"edges": 0.99, "K": 0.5}, "alarm": alarm, "why": "operations undecided"}}),
        ("derive", {"D3": {"value": {"sampled": 0.80, "derived": 0.79, "gap": 0.01}, "alarm": False, "why": "a gap"}, "supernet": "0a"}),
    ):
        folder = path / "sst2" / "adabert" / f"seed-{seed}" / stage
        folder.mkdir(parents=True)
        (folder / "diagnostics.json").write_text(json.dumps(entries))


def search_log(path: Path, seed: int = 0, steps: int = 60, penalties: float = 0.0) -> Path:
    """A log of two edges with two operations and zero: the first decides for its convolution, the second for nothing; K for 2."""
    rows = ["step,tau,labels,distillation,efficiency,penalties,derived.K,entropy.K,entropy.node0.0,entropy.node0.1,K=1,K=2,"
            "node0.0.conv_3,node0.0.identity,node0.0.zero,node0.1.conv_3,node0.1.identity,node0.1.zero"]  # fmt: skip
    for step in range(0, steps + 1):
        loss = "nan,nan,nan,nan" if step == 0 else f"{1 / step},{0.5 + 1 / step},0.1,{penalties}"
        done = step / steps
        rows.append(f"{step},{1 - 0.8 * done},{loss},2,{1 - 0.6 * done},{1 - 0.9 * done},1,0,{done},{3 * done},0,0,0,0,0")
    folder = path / "sst2" / "adabert" / f"seed-{seed}" / "search"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "alpha.csv").write_text("\n".join(rows) + "\n")
    return folder / "alpha.csv"
