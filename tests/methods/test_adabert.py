"""AdaBERT: golden numbers, its space, options, plan and registration."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from methods import UserError, registry
from methods.adabert.options import OPERATIONS, AdaBertOptions
from methods.adabert.plan import Plan
from methods.adabert.recipe import AdaBertRecipe
from methods.adabert.relaxation import relaxed
from methods.adabert.space import AdaBertSpace, operation_part
from methods.adabert.supernet import AdaBertSupernet
from methods.backbone import BERT_BASE
from methods.costs import costs
from methods.dynabert.space import full_spec
from methods.space import Architecture
from methods.tasks.head import Head
from tests.conformance.cases import TINY
from tests.methods.adabert_cases import FEW, PAIR, SINGLE, SMALL, batch_of, supernet_of


def test_golden_numbers_of_the_paper() -> None:
    space = AdaBertSpace()
    assert space.size() == 76_527_504 == 8 * 18 * 9**6
    hosted = {name: operation_part(name, space.options).other_parameters() for name in OPERATIONS}
    expected = dict.fromkeys(OPERATIONS, 0)
    for prefix in ("conv", "dilated_conv"):
        expected |= {f"{prefix}_3": 49_408, f"{prefix}_5": 82_176, f"{prefix}_7": 114_944}
    assert hosted == expected
    assert operation_part("conv_5", space.options).flops(128) == 2 * 10_485_760
    deployed = costs(space.spec(space.smallest(), BERT_BASE, SINGLE))
    assert deployed.embedding_parameters == 3_972_352
    six = costs(space.spec(space.uniform(3, "conv_5"), BERT_BASE, SINGLE, "hosted"))
    assert six.flops == 2 * (3 * 6 * 10_485_760 + 128 * 768 * 128 + 3 * 128)


@pytest.mark.parametrize("form", ["hosted", "deployed"])
def test_costs_are_the_closed_form_of_the_specification(form: str) -> None:
    space, d, h = AdaBertSpace(SMALL), 12, TINY.hidden
    nodes = [[(0, "conv_3"), (1, "identity")], [(1, "dilated_conv_7"), (2, "average_pool_3")]]
    cost = costs(space.spec(space.architecture(2, nodes), TINY, PAIR, form), length=10, batch=2)  # type: ignore[arg-type]
    affine = 2 * d if form == "hosted" else d
    tables, projection = ((50 + 40) * h, h * d) if form == "hosted" else ((50 + 40) * d, 0)
    assert cost.embedding_parameters == tables
    assert cost.other_parameters == projection + 2 * d + 2 * ((3 + 7) * d * d + 2 * affine + 2) + 3 + 3 * (d + 1)
    texts = 2 * 10 * projection
    assert cost.flops == 2 * 2 * (texts + 2 * 10 * (3 + 7) * d * d + 3 * d)


def test_enumeration_counts_what_size_says() -> None:
    space = AdaBertSpace(FEW)
    listed = list(space.enumerate())
    assert len(listed) == len(set(listed)) == space.size() == 2 * 3 * 2**4
    wide = AdaBertSpace(FEW.model_copy(update={"in_edges": 4}))
    assert wide.size() == len(set(wide.enumerate())) == 2 * 2**5


def test_batch_costs_of_the_paper_space_are_the_costs() -> None:
    space, rng = AdaBertSpace(), random.Random(3)
    drawn = [space.sample(rng) for _ in range(60)]
    places = [space.place(space.encode(a)) for a in drawn]
    columns = {c.name: np.array([place[c.name] for place in places]) for c in space.choices}
    for head in (SINGLE, PAIR):
        table = space.batch_costs(columns, BERT_BASE, head, length=64, batch=3)
        for i, architecture in enumerate(drawn):
            assert table[i] == costs(space.spec(architecture, BERT_BASE, head), length=64, batch=3)


@pytest.mark.parametrize(
    "change",
    [
        {"K": 0},
        {"K": 4},
        {"K": True},
        {"schema": 2},
        {"nodes": [[[0, "conv_3"], [1, "conv_3"]]]},
        {"nodes": [[[1, "conv_3"], [0, "conv_3"]], [[0, "conv_3"], [1, "conv_3"]]]},
        {"nodes": [[[0, "zero"], [1, "conv_3"]], [[0, "conv_3"], [1, "conv_3"]]]},
        {"nodes": [[[0, "conv_3"], [1, "conv_3"]], [[0, "conv_3"], [3, "conv_3"]]]},
        {"nodes": [[[0, "conv_3"], [1, "conv_3"]], [[0, "conv_3"], [1, "conv_3"], [2, "conv_3"]]]},
        {"extra": 1},
    ],
)
def test_what_is_no_canonical_architecture_is_not_in_the_space(change: dict[str, object]) -> None:
    space = AdaBertSpace(SMALL)
    genes = {"schema": 1, "K": 2, "nodes": [[[0, "conv_3"], [1, "conv_3"]], [[0, "conv_3"], [1, "identity"]]]}
    assert space.contains(Architecture.of("adabert", genes))
    assert not space.contains(Architecture.of("adabert", {**genes, **change}))


def test_edges_are_put_in_order() -> None:
    space = AdaBertSpace(SMALL)
    ordered = space.architecture(1, [[(0, "conv_3"), (1, "identity")], [(0, "conv_5"), (2, "conv_7")]])
    assert space.architecture(1, [[(1, "identity"), (0, "conv_3")], [(2, "conv_7"), (0, "conv_5")]]) == ordered
    with pytest.raises(ValueError, match=r"node0\.opa is 'zero'"):
        space.architecture(1, [[(0, "zero"), (1, "identity")], [(0, "conv_5"), (2, "conv_7")]])


@pytest.mark.parametrize("kind", ["span", "mlm", "none"])
def test_heads_that_cannot_be_hosted_are_refused(kind: str) -> None:
    space, head = AdaBertSpace(SMALL), Head(kind)  # type: ignore[arg-type]
    for call in (
        lambda: space.spec(space.smallest(), TINY, head),
        lambda: AdaBertSupernet(space, TINY, head),
        lambda: AdaBertRecipe(AdaBertOptions()).plan(space, TINY, head, 100, 16),
    ):
        with pytest.raises(UserError, match=f"'{kind}'.*classification and regression only"):
            call()


def test_options_hold_the_paper_values_and_refuse_what_they_do_not_know() -> None:
    o = AdaBertOptions()
    assert (o.cells, o.nodes, o.width, o.in_edges) == (8, 3, 128, 2)
    assert (o.search.loss.gamma, o.search.loss.beta, o.search.loss.temperature, o.search.epochs, o.search.batch_size) == (0.8, 4, 1, 80, 64)
    assert AdaBertOptions(**o.model_dump()) == o
    for wrong in ({"nope": 1}, {"search": {"sampler": "magic"}}, {"operations": ["zero"]}, {"operations": ["conv_3"] * 2}, {"cells": 0}):
        with pytest.raises(ValidationError):
            AdaBertOptions(**wrong)


def test_plan_counts_rows_steps_and_flops() -> None:
    options = AdaBertOptions(**SMALL.model_dump(), search={"epochs": 4, "batch_size": 10})
    space = AdaBertSpace(options)
    probes, search, derivation, finish = AdaBertRecipe(options).plan(space, TINY, PAIR, 100, 16, 2)
    assert [stage.name for stage in (probes, search, derivation, finish)] == ["probes", "search", "derive", "finish"]
    assert (search.steps, search.examples) == (4 * 30, 4 * 300)
    teacher = costs(full_spec(TINY, PAIR), 16).flops
    assert probes.flops == 100 * teacher + 3 * probes.examples * 7 * 2 * TINY.hidden * 3
    supernet, batch = supernet_of(), batch_of(length=16)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        relaxed(supernet, batch, supernet.probabilities())
    assert search.flops == 300 * teacher + 3 * search.examples * counter.get_total_flops() / 4
    assert derivation.steps == 0 and derivation.flops == 0
    assert finish.flops == 3 * finish.examples * costs(space.spec(space.largest(), TINY, PAIR, "hosted"), 16).flops
    assert min(stage.memory for stage in (probes, search, derivation, finish)) > 0
    chosen = options.model_copy(update={"search": options.search.model_copy(update={"execution": "chosen"})})
    less = AdaBertRecipe(chosen).plan(space, TINY, PAIR, 100, 16, 2)[1]
    assert less.flops < search.flops and less.memory < search.memory
    with pytest.raises(UserError, match="41 tokens"):
        AdaBertRecipe(options).plan(space, TINY, PAIR, 100, 41)


@pytest.mark.parametrize("shared", [False, True])
def test_plan_knows_the_paper_supernet_built_on_meta(shared: bool) -> None:
    options = AdaBertOptions(shared_classifier=shared)
    space = AdaBertSpace(options)
    with torch.device("meta"):
        supernet = AdaBertSupernet(space, BERT_BASE, PAIR)
    plan = Plan(options, space, BERT_BASE, PAIR, 1000, 128)
    assert plan.supernet_parameters() == sum(p.numel() for p in supernet.parameters())
    assert sum(p.numel() for p in supernet.architecture_parameters()) == 98
    convolutions = sum(m.weight.numel() for m in supernet.modules() if isinstance(m, nn.Conv1d))
    assert convolutions == 8 * 9 * 30 * 128 * 128 == 35_389_440


def test_the_method_is_registered_and_light_to_import() -> None:
    method = registry.get("adabert")
    space = method.space(method.options(cells=2, nodes=2, width=8), TINY)
    assert space.size() == 2 * 3 * 9**4
    assert isinstance(method.recipe(method.options()), AdaBertRecipe)
    code = "import sys, methods.adabert; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sampling_is_uniform_and_mutation_changes_one_choice() -> None:
    space, rng = AdaBertSpace(FEW), random.Random(0)
    drawn = [space.sample(rng) for _ in range(4000)]
    assert len(set(drawn)) == space.size()
    for name, value in product(("K",), (1, 2)):
        assert sum(space.encode(a)[name] == value for a in drawn) == pytest.approx(2000, abs=200)
    for architecture in drawn[:50]:
        before, after = space.encode(architecture), space.encode(space.mutate(architecture, rng))
        assert sum(before[name] != after[name] for name in before) == 1
    assert {space.smallest(), space.largest()} <= set(space.anchors())
