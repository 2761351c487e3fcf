"""DynaBERT's elastic space: it holds the grid, counts and costs are exact, steps are small, samples are spread."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from methods.backbone import BERT_BASE, BackboneConfig
from methods.costs import costs
from methods.dynabert.elastic import ElasticSpace
from methods.dynabert.options import DynaBertOptions
from methods.dynabert.recipe import DynaBertRecipe
from methods.dynabert.space import DynaBertSpace, architecture_of, kept_heads, kept_neurons
from methods.errors import UserError
from methods.registry import get
from methods.space import Architecture
from methods.tasks.head import Head
from tests.conformance.cases import TINY

TWO = Head("classification", 2)
some = settings(max_examples=25, deadline=None, derandomize=True)


def backbone(layers: int, heads: int, intermediate: int = 0) -> BackboneConfig:
    return replace(TINY, layers=layers, heads=heads, hidden=4 * heads, intermediate=intermediate or 5 * heads)


def elastic(shape: BackboneConfig, label: str = "dynabert") -> ElasticSpace:
    return ElasticSpace(DynaBertSpace(shape, (1.0,), (1.0,), method=label))


SHAPES = st.builds(backbone, st.integers(1, 8), st.integers(1, 26), st.integers(26, 130))
"""Neurons that the heads divide, and such that they do not."""
MULTIPLIERS = st.lists(st.integers(1, 20).map(lambda n: n / 20), min_size=1, max_size=5)


@given(SHAPES, MULTIPLIERS, MULTIPLIERS, st.sampled_from(["floor", "keep_top"]), st.sampled_from(["dynabert", "again"]))
@some
def test_the_grid_lies_inside(shape: BackboneConfig, widths: list[float], depths: list[float], rule: str, label: str) -> None:
    assume(all(kept_heads(shape.heads, w) for w in widths) and all(round(shape.layers * d) for d in depths))
    try:
        grid = DynaBertSpace(shape, widths, depths, rule, label)  # type: ignore[arg-type]
    except UserError:
        assume(False)
    space = ElasticSpace(grid)
    for architecture in grid.enumerate():
        assert space.contains(architecture) and architecture in space.anchors()
        again = space.decode(space.encode(architecture))
        assert again == architecture and again.id == architecture.id
        assert space.spec(again, shape, TWO) == grid.spec(architecture, shape, TWO)
    full = space.full_depth()
    assert all(full.contains(a) and space.contains(a) for a in grid.full_depth().enumerate())


def test_the_papers_grid_lies_inside() -> None:
    for rule in ("floor", "keep_top"):
        grid = DynaBertSpace(BERT_BASE, depth_rule=rule)  # type: ignore[arg-type]
        space = ElasticSpace(grid)
        assert grid.size() == 12 and all(space.contains(a) for a in grid.enumerate())
        assert set(space.anchors()) == {*grid.enumerate(), space.smallest(), space.largest()}
    assert space.size() == 145**12 - 1


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (1, 3), (2, 2), (3, 2), (2, 4)])
def test_size_is_exact(layers: int, heads: int) -> None:
    space = elastic(backbone(layers, heads))
    for one in (space, space.full_depth()):
        listed = list(one.enumerate())
        assert len(listed) == len({a.id for a in listed}) == one.size()
        assert all(one.contains(a) for a in listed)
    assert set(space.full_depth().enumerate()) == {a for a in space.enumerate() if len(a.choices["layers"]) == layers}
    shape = space.backbone
    pairs = {(a, kept_neurons(shape.intermediate, heads, k)) for a in range(1, heads + 1) for k in range(1, heads + 1)}
    assert {(a.choices["heads"][0], a.choices["neurons"][0]) for a in space.enumerate()} == pairs


@given(st.integers(0, 2**30))
@some
def test_genes_of_dropped_layers_do_not_exist(seed: int) -> None:
    rng, space = random.Random(seed), elastic(backbone(4, 3))
    assignment = {c.name: rng.choice(c.values) for c in space.choices}
    dropped = [i for i in range(4) if not assignment[f"layer{i}.kept"]]
    other = dict(assignment)
    for i in dropped:
        other |= {f"layer{i}.heads": rng.choice(space.heads), f"layer{i}.neurons": rng.choice(space.neurons)}
    decoded = space.decode(assignment)
    assert decoded == space.decode(other) and space.contains(decoded)
    assert decoded.choices["layers"] == [i for i in range(4) if i not in dropped] or len(dropped) == 4


def test_an_assignment_that_keeps_nothing_is_the_smallest_network() -> None:
    space = elastic(backbone(3, 2))
    nothing = {c.name: False if c.name.endswith("kept") else c.values[-1] for c in space.choices}
    assert space.decode(nothing) == space.smallest() == architecture_of([0], [1], [space.neurons[0]])


@pytest.mark.parametrize(
    "genes",
    [
        {"layers": [], "heads": [], "neurons": []},
        {"layers": [0, 3], "heads": [1, 1], "neurons": [5, 5]},
        {"layers": [1, 0], "heads": [1, 1], "neurons": [5, 5]},
        {"layers": [0, 0], "heads": [1, 1], "neurons": [5, 5]},
        {"layers": [0], "heads": [3], "neurons": [5]},
        {"layers": [0], "heads": [1], "neurons": [6]},
        {"layers": [0], "heads": [1, 1], "neurons": [5]},
        {"layers": [0], "heads": [True], "neurons": [5]},
        {"layers": [0], "heads": [1]},
    ],
)
def test_what_is_not_in_the_space_is_refused(genes: dict[str, list[int]]) -> None:
    space, known = elastic(backbone(3, 2)), {"layers": [0], "heads": [1], "neurons": [5]}
    assert space.contains(Architecture.of("dynabert", known)) and not space.contains(Architecture.of("other", known))
    with pytest.raises(ValueError, match="not in the space"):
        space.encode(Architecture.of("dynabert", genes))
    assert not space.full_depth().contains(Architecture.of("dynabert", known))


@pytest.mark.parametrize("full_depth", [False, True])
def test_the_range_of_costs_is_that_of_the_list(full_depth: bool) -> None:
    shape = backbone(3, 2)
    space = elastic(shape).full_depth() if full_depth else elastic(shape)
    found = [costs(space.spec(a, shape, TWO), 9, 2).measured_against() for a in space.enumerate()]
    expected = {name: (min(c[name] for c in found), max(c[name] for c in found)) for name in found[0]}
    assert space.cost_range(shape, TWO, 9, 2) == expected


@given(SHAPES, st.integers(0, 2**30), st.booleans(), st.sampled_from([TWO, Head("mlm"), Head("span")]))
@some
def test_costs_of_many_are_the_costs_of_each(shape: BackboneConfig, seed: int, full_depth: bool, head: Head) -> None:
    space = elastic(shape).full_depth() if full_depth else elastic(shape)
    rng = random.Random(seed)
    places = [{c.name: rng.randrange(len(c.values)) for c in space.choices} for _ in range(4)]
    places.append(dict.fromkeys(places[0], 0))  # where layers can be dropped: all of them
    table = space.batch_costs({c.name: np.array([p[c.name] for p in places]) for c in space.choices}, shape, head, 17, 3)
    for i, place in enumerate(places):
        architecture = space.decode({c.name: c.values[place[c.name]] for c in space.choices})
        assert table[i] == costs(space.spec(architecture, shape, head), 17, 3)


def moved(before: Architecture, after: Architecture, space: ElasticSpace) -> str:
    """What a step of mutation was; fails where it was none of those that there are."""
    pairs = []
    for genes in (before.choices, after.choices):
        pairs.append(dict(zip(genes["layers"], zip(genes["heads"], genes["neurons"], strict=True), strict=True)))
    old, new = pairs
    if set(old) != set(new):
        (layer,) = set(old) ^ set(new)
        assert all(old[i] == new[i] for i in set(old) & set(new))
        if layer in old:
            return "dropped"
        distances = {abs(i - layer) for i in old if old[i] == new[layer]}
        assert min(distances) == min(abs(i - layer) for i in old), "the nearest layer's sizes"
        return "inserted"
    ((a, f), (b, g)) = next((old[i], new[i]) for i in old if old[i] != new[i])
    assert sum(old[i] != new[i] for i in old) == 1
    step = abs(a - b), abs(space.neurons.index(f) - space.neurons.index(g))
    assert step in ((1, 0), (0, 1))
    return "heads" if step == (1, 0) else "neurons"


@pytest.mark.parametrize("full_depth", [False, True])
def test_a_mutation_is_one_small_step(full_depth: bool) -> None:
    space = elastic(TINY).full_depth() if full_depth else elastic(TINY)
    rng = random.Random(0)
    seen = set()
    for start in [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(100))]:
        after = space.mutate(start, rng)
        assert after != start and space.contains(after)
        seen.add(moved(start, after, space))
    assert seen == ({"heads", "neurons"} if full_depth else {"heads", "neurons", "dropped", "inserted"})


def test_the_only_network_there_is_stays_what_it_is() -> None:
    space = elastic(backbone(1, 1))
    assert space.mutate(space.smallest(), random.Random(0)) == space.smallest() == space.largest()


def test_samples_are_spread_over_depth_and_widths() -> None:
    """Depths, and mean heads and neurons of a network, fill their ranges evenly; uniform assignments give no large network at all."""
    space, rng, n = ElasticSpace(DynaBertSpace(BERT_BASE)), random.Random(0), 1200
    drawn = [space.sample(rng).choices for _ in range(n)]
    depths = np.bincount([len(g["layers"]) for g in drawn], minlength=13)[1:]
    assert depths.min() > 0.6 * n / 12 and depths.max() < 1.4 * n / 12
    for gene, most in (("heads", 12), ("neurons", 3072)):
        shares = np.array([np.mean(g[gene]) / most for g in drawn])
        fifths = np.histogram(shares, 5, (1 / 12, 1))[0] / n
        assert fifths.min() > 0.12 and fifths.max() < 0.28
    assert len({str(g) for g in drawn}) > 0.99 * n
    assert any(len(set(g["heads"])) > 3 and g["heads"] != g["neurons"] for g in drawn)

    def thirds(architectures: list[Architecture]) -> np.ndarray:
        low, high = space.cost_range(BERT_BASE, TWO)["max_flops"]
        flops = [costs(space.spec(a, BERT_BASE, TWO)).flops for a in architectures]
        return np.histogram(flops, 3, (low, high))[0] / len(flops)

    uniform = [space.decode({c.name: rng.choice(c.values) for c in space.choices}) for _ in range(400)]
    sampled = [Architecture.of("dynabert", g) for g in drawn[:400]]
    assert thirds(uniform)[2] == 0 and thirds(sampled)[2] > 0.03


@pytest.mark.parametrize("full_depth", [False, True])
def test_the_mean_of_the_samples_is_known(full_depth: bool) -> None:
    space, rng = elastic(TINY).full_depth() if full_depth else elastic(TINY), random.Random(1)
    found = np.array([costs(space.spec(space.sample(rng), TINY, TWO), 12).flops for _ in range(2000)])
    expected = space.mean_flops(TINY, TWO, 12)
    assert abs(found.mean() - expected) < 4 * found.std() / len(found) ** 0.5
    assert found.std() / len(found) ** 0.5 < 0.02 * expected, "the comparison can tell"


def test_more_neurons_than_heads_are_needed() -> None:
    with pytest.raises(UserError, match=r"space: elastic .* has 3 for 4 heads; write grid"):
        elastic(backbone(2, 4, 3))


def test_an_elastic_space_carries_its_label() -> None:
    method = get("dynabert")
    spaces = [method.space(method.options.model_validate({"space": kind, "label": "wide"}), TINY) for kind in ("grid", "elastic")]
    grid, space = spaces
    rng = random.Random(0)
    found = [
        *space.anchors(),
        *(space.sample(rng) for _ in range(5)),
        space.mutate(space.smallest(), rng),
        space.decode(space.encode(space.largest())),
    ]
    assert isinstance(space, ElasticSpace) and {a.method for a in found} == {"wide"} == {space.full_depth().largest().method}
    assert {a.id for a in grid.enumerate()} <= {a.id for a in space.anchors()}
    assert not elastic(TINY).contains(space.smallest())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"width": {"sampler": "all"}}, r"width\.sampler: all .*write sandwich or uniform"),
        ({"depth": {"sampler": "all"}}, r"depth\.sampler: all"),
        ({"final": {"sampler": "all"}}, r"final\.sampler: all"),
        ({"teacher_width": "matched"}, r"teacher_width: matched .*write full"),
    ],
)
def test_what_needs_a_grid_is_refused(options: dict[str, object], said: str) -> None:
    DynaBertOptions.model_validate(options)
    with pytest.raises(ValidationError, match=said):
        DynaBertOptions.model_validate({"space": "elastic", **options})


def test_another_methods_space_is_no_space_of_the_recipe() -> None:
    space = get("adabert").space(get("adabert").options(), TINY)
    with pytest.raises(TypeError, match="AdaBertSpace"):
        DynaBertRecipe(DynaBertOptions()).plan(space, TINY, TWO, 10, 8)
