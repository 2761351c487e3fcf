"""AdaBERT's search as a stage: what it finds, what it leaves, that it goes on bit-equal, and how its levels share data."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.planted import PLANTED, kept_operations, planted_options, small_backbone
from methods.adabert import levels
from methods.adabert.derivation import derive
from methods.adabert.options import ArchitectureOptimiser, Optimiser, SearchOptions
from methods.adabert.sampling import SAMPLERS
from methods.adabert.search_data import divide, search_rows
from methods.adabert.search_diagnostics import agreement, collapsed, curvature, drift, loss_shares, starved, undecided
from methods.adabert.search_step import SearchStep
from methods.adabert.steppers import SearchStepper, WeightStepper, learning_rate
from methods.adabert.supernet import AdaBertSupernet
from methods.backbone import Backbone
from methods.errors import UserError
from methods.evaluation import weights_digest
from methods.recipe import Context, Hardware
from methods.supernet import inputs
from methods.tasks.batches import separate
from tests.methods.adabert_search_cases import context_of, options_of, searched, signals_of, task_of

BUDGET = {"efficiency": "budget", "limits": {"max_flops": 6e4, "length": 16}}
EVERYTHING = {
    "eigenvalue_stop": {"every_epochs": 1},
    "parameter_free_cap": 0,
    "operation_stop": 0.0,
    "operation_stop_every": 2,
    "entropy": 0.1,
    "beta_decay": 0.1,
    "auxiliary_skip": True,
    "operation_dropout": 0.2,
    "perturbation": "random",
    "edge_normalisation": True,
    "partial_channels": 2,
    "cell_alignment": 0.1,
}


class StoppedError(Exception):
    pass


def all_of(supernet: AdaBertSupernet, folder: Path) -> tuple[str, str, str]:
    return weights_digest(supernet), (folder / "search/alpha.csv").read_text(), (folder / "search/diagnostics.json").read_text()


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"samples_per_step": 2, "execution": "chosen", "weights": {"name": "adamw"}, "architecture": {"warm_up": 0.4}},
        {"level": "bilevel1", "loss": BUDGET, "sampler": "dirichlet", "remedies": EVERYTHING},
        {"level": "unrolled", "sampler": "softmax", "loss": {"distillation": "split"}},
    ],
    ids=["paper", "chosen", "everything", "unrolled"],
)
def test_a_stopped_search_goes_on_bit_equal(
    tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    options, saving_always = options_of(**change), Hardware(checkpoint_seconds=0.0)
    whole, parts = (replace(context_of(tiny_backbone, tmp_path / name, "pairs"), hardware=saving_always) for name in ("whole", "parts"))
    signals = signals_of(whole, options)
    expected = all_of(searched(whole, options, signals), whole.folder)
    run = SearchStep.__call__

    def stopped(self: SearchStep, *inputs: Any) -> dict[str, float]:
        if self.step == 3:
            raise StoppedError
        return run(self, *inputs)

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(SearchStep, "__call__", stopped)
        searched(parts, options, signals)
    torch.manual_seed(99)
    assert all_of(searched(parts, options, signals), parts.folder) == expected
    assert weights_digest(searched(parts, options, signals)) == expected[0], "a finished search is read back"


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_searches_and_the_evaluated_network_is_the_derived_one(tiny_backbone: Backbone, tmp_path: Path, sampler: str) -> None:
    context = context_of(tiny_backbone, tmp_path)
    options = options_of(sampler=sampler, steps=2)
    supernet = searched(context, options)
    start = torch.zeros(5, 4)
    assert supernet.edge_logits.isfinite().all() and (supernet.edge_logits.softmax(1) - start.softmax(1)).abs().max() > 1e-3
    architecture = derive(supernet.space, supernet.edge_logits, supernet.depth_logits)
    collate = separate(tiny_backbone.tokenizer, 16)
    batch = collate(collate.encode(context.task.split("search")), [0, 1, 2])
    supernet.eval()
    with torch.no_grad():
        torch.testing.assert_close(supernet.extract(architecture)(**inputs(batch))["logits"], supernet(batch, architecture)["logits"])


@pytest.mark.parametrize("kind", ["classes", "pairs", "regression"])
def test_a_search_leaves_its_log_and_diagnostics(tiny_backbone: Backbone, tmp_path: Path, kind: str) -> None:
    task = task_of(kind, rows=50)  # the last batch has two rows
    context, records = context_of(tiny_backbone, tmp_path, kind, task=task), list[Any]()
    context = Context(**{**vars(context), "record": records.append})
    supernet = searched(context, options_of(steps=None, epochs=2))
    assert (records[-1].stage, records[-1].steps, records[-1].examples) == ("search", 8, 100) and records[-1].flops > 0
    rows = list(csv.DictReader((tmp_path / "search/alpha.csv").open()))
    assert [float(row["step"]) for row in rows] == list(range(9)) and float(rows[0]["tau"]) == 1.0
    for edge, (node, source) in enumerate(supernet.space.edges):
        found = [float(rows[-1][f"node{node}.{source}.{name}"]) for name in supernet.space.columns]
        assert found == pytest.approx(supernet.edge_logits[edge].tolist(), rel=1e-6)
    architecture = derive(supernet.space, supernet.edge_logits, supernet.depth_logits)
    assert float(rows[-1]["derived.K"]) == architecture.choices["K"] and float(rows[-1]["labels"]) > 0
    with torch.no_grad():
        expected = supernet.expected_costs(supernet.probabilities(), 128)
    assert float(rows[-1]["flops"]) == pytest.approx(float(expected.flops)) and float(rows[-1]["params"]) == pytest.approx(
        float(expected.parameters)
    )
    diagnostics = json.loads((tmp_path / "search/diagnostics.json").read_text())
    assert set(diagnostics) == {"D1", "D2", "D6", "D8", "D10", "D12"}
    assert all(set(found) == {"value", "alarm", "why"} and isinstance(found["alarm"], bool) for found in diagnostics.values())
    shares = diagnostics["D6"]["value"]
    for of in ("edges", "depth"):
        assert sum(value for name, value in shares.items() if name.endswith(of)) == pytest.approx(1.0)
        assert shares[f"efficiency.{of}"] > 0 and shares[f"distillation.{of}"] > 0
    assert sum(diagnostics["D10"]["value"]["drawn"]) == pytest.approx(8)


def test_the_architecture_rests_during_the_warm_up(tiny_backbone: Backbone, tmp_path: Path) -> None:
    context = context_of(tiny_backbone, tmp_path)
    for level in ("single", "bilevel1"):
        options = options_of(level=level, architecture={"warm_up": 0.5, "learning_rate": 0.05}, loss={"beta": 50.0})
        own = Context(**{**vars(context), "folder": tmp_path / level})
        searched(own, options)
        rows = list(csv.DictReader((tmp_path / level / "search/alpha.csv").open()))
        logits = [[value for name, value in row.items() if name.startswith(("K=", "node"))] for row in rows]
        assert logits[0] == logits[3] and len({tuple(row) for row in logits[3:]}) == 4


def test_another_supernet_or_other_options_do_not_continue_a_search(tiny_backbone: Backbone, tmp_path: Path) -> None:
    context, options = context_of(tiny_backbone, tmp_path), options_of(steps=1)
    signals = signals_of(context, options)
    supernet = searched(context, options, signals)
    with pytest.raises(UserError, match="other settings"):
        searched(context, options_of(steps=1, sampler="gdas"), signals)
    from methods.adabert.search_stage import search

    with pytest.raises(UserError, match="other settings"):
        search(context, options, supernet, signals)


def test_a_planted_operation_is_found(tmp_path: Path) -> None:
    """`python -m benchmarks.planted` counts over more seeds."""
    kept = kept_operations(tmp_path, small_backbone(tmp_path / "backbone"), 1, planted_options())
    assert kept.count(PLANTED) >= 2


def test_a_trap_is_recognised(tiny_backbone: Backbone, tmp_path: Path) -> None:
    """Words alone decide, so operations without parameters do, and they cost nothing: D2 says that the search has collapsed."""
    context = context_of(tiny_backbone, tmp_path)
    loss = {"normaliser": "max", "beta": 8.0}
    options = options_of(loss=loss, steps=25, execution="chosen", architecture={"learning_rate": 0.2})
    searched(context, options)
    found = json.loads((tmp_path / "search/diagnostics.json").read_text())["D2"]
    assert found["value"] == 1.0 and found["alarm"] and "collapsed" in found["why"]


# --- data ---


def test_held_out_rows_are_apart_and_copies_stay_with_their_row(tiny_backbone: Backbone) -> None:
    ids = np.array([*range(100), *range(0, 100, 3)])
    trained, held_out = divide(ids, 0.5, seed=3)
    assert sorted([*trained, *held_out]) == list(range(len(ids))) and not set(ids[trained]) & set(ids[held_out])
    assert len(set(ids[held_out])) == 50 and not np.array_equal(divide(ids, 0.5, seed=4)[1], held_out)
    split, collate = task_of().split("train"), separate(tiny_backbone.tokenizer, 16)
    for options, share in (({}, 0), ({"level": "bilevel1"}, 24), ({"remedies": {"operation_stop": 0.1}}, 5)):
        rows, others = search_rows(split, collate, SearchOptions(**options), 0)
        assert len(rows) == 48 - share and (others is None) == (share == 0)
        if others is not None:
            seen = [others.numbered(number, 10, seed=1)["example_id"].tolist() for number in range(3)]
            assert not set(rows.batch(range(len(rows)))["example_id"].tolist()) & {row for batch in seen for row in batch}
            assert others.numbered(1, 10, seed=1)["example_id"].tolist() == seen[1]


# --- levels and steppers ---


def toy() -> tuple[nn.Parameter, nn.Parameter, levels.Loss]:
    """Loss 1/2 |w|^2 s(batch) + a . w, with a free or not."""
    w, a = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64)), nn.Parameter(torch.tensor([0.5, 3.0], dtype=torch.float64))

    def loss(batch: dict[str, Tensor], free: bool) -> Tensor:
        return w.square().sum() / 2 * batch["scale"] + ((a if free else a.detach()) * w).sum() * batch["tilt"]

    return w, a, loss


TRAIN = {"scale": torch.tensor(1.0), "tilt": torch.tensor(2.0)}
HELD_OUT = {"scale": torch.tensor(3.0), "tilt": torch.tensor(5.0)}


def test_levels_take_each_gradient_where_they_say() -> None:
    w, a, loss = toy()
    descent = w.detach() + 2 * a.detach()
    levels.single([loss, loss], TRAIN, Tensor.backward)
    assert w.grad is not None and a.grad is not None
    assert torch.equal(w.grad, descent) and torch.equal(a.grad, 2 * w.detach())
    w, a, loss = toy()
    levels.bilevel([loss], TRAIN, HELD_OUT, Tensor.backward, [a])
    assert w.grad is not None and a.grad is not None
    assert torch.equal(w.grad, descent) and torch.equal(a.grad, 5 * w.detach())
    w, a, loss = toy()
    levels.single([loss], TRAIN, Tensor.backward, free=False)
    assert a.grad is None


def test_the_unrolled_gradient_is_that_of_the_step_ahead() -> None:
    w, a, loss = toy()
    rate = 0.1
    ahead = w - rate * torch.autograd.grad(loss(TRAIN, True), w, create_graph=True)[0]
    held_out = ahead.square().sum() / 2 * 3 + (a * ahead).sum() * 5
    (exact,) = torch.autograd.grad(held_out, a)
    before = w.detach().clone()
    levels.unrolled([loss], TRAIN, HELD_OUT, Tensor.backward, [a], [w], rate)
    assert torch.equal(w, before) and a.grad is not None and w.grad is not None
    torch.testing.assert_close(a.grad, exact, rtol=1e-8, atol=1e-8)
    assert torch.equal(w.grad, w.detach() + 2 * a.detach())
    assert not torch.allclose(exact, 5 * before), "the step ahead matters"


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_table_of_words_is_stepped_as_any_parameter_also_where_others_had_no_gradient_yet(name: str) -> None:
    options = Optimiser.model_validate({"name": name, "weight_decay": 0.01, "clip": 1e9})
    g = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=g) for shape in ((1001, 1000), (3,), (2, 2))]
    ours, theirs = ([torch.nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    how = {"momentum": options.beta1} if name == "sgd" else {"betas": (options.beta1, options.beta2)}
    plain, stepper = kinds[name](theirs, options.learning_rate, weight_decay=0.01, **how), WeightStepper(ours, options, 4)
    for step in range(4):
        for own, their in zip(ours, theirs, strict=True):
            resting = own.shape == (3,) and step < 2
            own.grad = their.grad = None if resting else torch.randn(own.shape, generator=g)
        plain.param_groups[0]["lr"] = stepper.rate
        stepper.step()
        plain.step()
    for own, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, their, rtol=1e-5, atol=1e-6)


def test_learning_rates_and_clipping_are_each_their_own() -> None:
    o = Optimiser(learning_rate=1.0, final_learning_rate=0.2)
    assert [learning_rate(o, step, 5) for step in (0, 2, 4)] == pytest.approx([1.0, 0.6, 0.2])
    assert learning_rate(o.model_copy(update={"schedule": "linear"}), 1, 5) == pytest.approx(0.8)
    assert learning_rate(o.model_copy(update={"schedule": "constant"}), 4, 5) == 1.0
    w, a = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    own = Optimiser(learning_rate=1.0, schedule="constant", beta1=0.0, weight_decay=0.0, clip=0.5)
    stepper = SearchStepper([w], [a], own, ArchitectureOptimiser(learning_rate=0.1, weight_decay=0.0, clip=1e-3), 3)
    w.grad, a.grad = torch.ones(1), torch.full((1,), 40.0)
    stepper.step()
    assert w.item() == pytest.approx(-0.5) and a.item() == pytest.approx(-0.1, rel=1e-3) and a.grad.item() == pytest.approx(1e-3, rel=1e-3)
    rested = a.item()
    w.grad, a.grad = torch.ones(1), None
    stepper.step()
    assert a.item() == rested and w.item() == pytest.approx(-1.0)


# --- diagnostics ---


def rows_of(entropies: list[tuple[float, float, float]]) -> list[dict[str, float]]:
    """One row per step: the entropies of two edges and of the depth."""
    names = ("entropy.node0.0", "entropy.node0.1", "entropy.K")
    return [{"step": float(i), "K=1": 0.0, "K=2": 0.0, **dict(zip(names, row, strict=True))} for i, row in enumerate(entropies)]


def test_diagnostics_by_hand() -> None:
    assert undecided(rows_of([(1.0, 1.0, 1.0)] * 9 + [(0.9, 0.8, 0.5)]), 10)["alarm"] is False
    late = undecided(rows_of([(1.0, 1.0, 1.0)] * 9 + [(0.97, 0.96, 0.5)]), 10)
    assert late["alarm"] and "operations undecided" in late["why"] and late["value"]["edges"] == pytest.approx(0.965)
    early = undecided(rows_of([(1.0, 1.0, 1.0), (1.0, 0.1, 1.0), *[(0.5, 0.1, 0.5)] * 8]), 10)
    assert early["alarm"] and early["why"].endswith("node0.1")
    assert [collapsed(free, 4)["alarm"] for free in (0, 1, 2, 4)] == [False, False, True, True]
    first = {"K=1": 0.0, "K=2": 0.0, "node0.0.a": 1.0}
    found = [drift(first, {"K=1": k, "K=2": 0.0, "node0.0.a": 1.0 + a}) for k, a in ((0.3, 0.3), (0.3, 0.1), (0.1, 0.3))]
    assert [d["alarm"] for d in found] == [False, True, True] and found[1]["value"] == pytest.approx({"max": 0.1, "median": 0.1, "K": 0.3})
    assert found[1]["why"].endswith("the selection of operations is noise") and found[2]["why"].endswith("of depth is noise")
    assert starved([80.0, 10.0, 10.0], 3)["value"]["reached"] == pytest.approx([1.0, 0.2, 0.1])
    assert [starved([80.0, 10.0, 10.0], cells)["alarm"] for cells in (1, 2, 3)] == [False, False, True]
    assert [agreement([{"cosine": 1.0, "cells": 2.0}, {"cosine": x, "cells": 2.0}])["alarm"] for x in (0.0, -0.9)] == [False, True]
    assert agreement([{"cosine": -1.0, "cells": 2.0}, {"cosine": 1.0, "cells": 1.0}])["value"] is None, "one cell disagrees with none"
    shares = {
        "step": 0.0,
        "cells": 2.0,
        "cosine": 0.0,
        "labels.edges": 0.5,
        "labels.depth": 0.1,
        "efficiency.edges": 0.5,
        "efficiency.depth": 0.9,
    }
    assert loss_shares([shares])["alarm"] and "0.900 of that of depth" in loss_shares([shares])["why"]
    assert not loss_shares([{**shares, "efficiency.depth": 0.3}])["alarm"]
    assert [curvature([1.0, 2.0], fired)["alarm"] for fired in (0, 1)] == [False, True]
