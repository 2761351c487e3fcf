"""NAS-BERT's selection from tables: the block loss table on disk, and the best networks, fronts and refusals by enumeration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.backbone import BERT_BASE
from methods.budget import LIMITS, Budget
from methods.costs import costs
from methods.errors import UserError
from methods.nasbert.estimate import NasBertEstimates
from methods.nasbert.losses import COLUMNS, BlockLosses
from methods.nasbert.networks import operation
from methods.nasbert.paths import Paths
from methods.nasbert.space import NasBertSpace
from methods.tasks.head import Head
from tests.methods.nasbert_cases import CLASSES, PAPER, TINY, few, small_space
from tests.methods.nasbert_tables import BATCH, CLOCK, KNOWN, LENGTH, LOSSES, SPACE, Known, budget_at, estimates, made_up_losses

SEARCHED = estimates(LOSSES, SPACE, devices={"clock": CLOCK})
shares = st.fixed_dictionaries({}, optional={name: st.sampled_from([0.05, 0.2, 0.4, 0.7, 1.0]) for name in (*LIMITS, "max_latency")})


def fitting(budget: Budget, embedding: int | None = None) -> list[Known]:
    """Within the budget, best first; the same blocks once, with the widest embedding (or the given one)."""
    inside = [one for one in KNOWN if budget.met_by(one.costs) and embedding in (None, one.embedding)]
    widest = {one.rows: one for one in reversed(inside)}
    return sorted(widest.values(), key=lambda one: (one.loss, -one.embedding, one.rows))


@given(shares, st.sampled_from([1, 10, 1000]))
@few
def test_best_is_what_enumeration_finds(limits: dict[str, float], count: int) -> None:
    budget = budget_at(KNOWN, **limits)
    expected = fitting(budget)
    if not expected:
        with pytest.raises(UserError, match="no network of the tables meets it"):
            SEARCHED.best(budget, count)
        return
    found = SEARCHED.best(budget, count)
    assert [(e.architecture, e.loss, e.costs) for e in found] == [(k.architecture, k.loss, k.costs) for k in expected[:count]]


@pytest.mark.parametrize("cost", [*LIMITS, "max_latency.clock"])
def test_the_front_is_whole(cost: str) -> None:
    best, expected = np.inf, []
    for one in sorted(KNOWN, key=lambda k: (k.costs.measured_against()[cost], k.loss)):
        if one.loss < best:
            best = one.loss
            expected.append((one.costs.measured_against()[cost], one.loss))
    found = SEARCHED.front(cost)
    assert [(e.costs.measured_against()[cost], e.loss) for e in found] == expected
    by_architecture = {k.architecture: k for k in KNOWN}
    for e in found:
        assert (e.loss, e.costs) == (by_architecture[e.architecture].loss, by_architecture[e.architecture].costs)
    assert SEARCHED.front(cost, 2) == [found[0], found[-1]]


def test_a_cost_that_nobody_knows_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"'flops' is unknown; there are max_params, max_params_non_embedding, max_flops, max_latency.clock"
    ):
        SEARCHED.front("flops")
    with pytest.raises(UserError, match=r"no cost is known for max_latency.phone"):
        SEARCHED.best(Budget(max_latency={"phone": 1.0}))


def test_losses_of_single_architectures() -> None:
    for one in KNOWN[::29]:
        found = SEARCHED.estimate(one.architecture)
        assert found is not None and SEARCHED.loss(one.architecture) == one.loss
        assert (found.architecture, found.costs) == (one.architecture, one.costs)
    known = {one.architecture for one in KNOWN}
    others = [a for a in SPACE.enumerate() if a not in known]
    assert others and all(SEARCHED.loss(a) is None for a in others[:50])
    assert SEARCHED.loss(small_space(embedding_sizes=(32,)).smallest()) is None
    assert SEARCHED.loss(small_space(sublayers=6, blocks=3).smallest()) is None


HEADS = [Head("classification", 2), Head("classification", 9), Head("regression"), Head("span"), Head("mlm")]


@pytest.mark.parametrize("heads", [HEADS[:1], HEADS[:3], HEADS, HEADS[:4]], ids=["one", "classes", "all", "span"])
def test_costs_are_those_of_the_dearest_head(heads: list[Head]) -> None:
    """Heads change their own costs alone, so the dearest head in a cost is dearest for every network."""
    tables = [SPACE.tables(TINY, head, LENGTH) for head in heads]
    for name in ("stem", "operation", "link"):
        assert all((getattr(table, name) == getattr(tables[0], name)).all() for table in tables)
    for found in estimates(LOSSES, SPACE, heads).best(Budget(), 40):
        single = [costs(SPACE.spec(found.architecture, TINY, head), LENGTH, BATCH) for head in heads]
        for name in ("embedding_parameters", "other_parameters", "flops", "parameters"):
            assert getattr(found.costs, name) == max(getattr(cost, name) for cost in single)
        if heads in (HEADS[:3], HEADS):
            assert found.costs == max(single, key=lambda cost: cost.flops)
    with pytest.raises(ValueError, match="at least one head"):
        estimates(LOSSES, SPACE, [])


def test_what_cannot_be_reached_is_named() -> None:
    costs_of = [one.costs for one in KNOWN]
    least = min(cost.parameters for cost in costs_of)
    with pytest.raises(UserError, match=f"max_params is {least - 1:,} and the smallest achievable {least:,}"):
        SEARCHED.best(Budget(max_params=least - 1))
    assert SEARCHED.best(Budget(max_params=least))[0].costs.parameters == least
    seconds = min(cost.latency["clock"] for cost in costs_of)
    with pytest.raises(UserError, match=f"max_latency.clock is 0.0001 s and the smallest achievable {seconds:.4g} s"):
        SEARCHED.best(Budget(max_latency={"clock": 1e-4}))


def test_what_cannot_be_reached_together_is_named() -> None:
    """Convolutions have the fewest parameters, and are slow."""
    pairs = [(one.costs.parameters, one.costs.latency["clock"]) for one in KNOWN]
    parameters, seconds = (min(column) for column in zip(*pairs, strict=True))
    kept_parameters = min(count for count, time in pairs if time <= seconds)
    kept_seconds = min(time for count, time in pairs if count <= parameters)
    assert kept_parameters > parameters and kept_seconds > seconds
    with pytest.raises(UserError) as raised:
        SEARCHED.best(Budget(max_params=parameters, max_latency={"clock": seconds}, name="tight"))
    assert str(raised.value) == (
        f"budget tight: no network of the tables meets it: max_params is {parameters:,} and the smallest achievable {parameters:,}; "
        f"max_latency.clock is {seconds:.4g} s and the smallest achievable {seconds:.4g} s; each can be met, but not all together; "
        f"with the others kept the smallest is max_params {kept_parameters:,}, or max_latency.clock {kept_seconds:.4g} s"
    )


def paper_estimates(space: NasBertSpace) -> NasBertEstimates:
    """A table of few small paths, so that embeddings make most of the parameters."""
    paths, wide = Paths(space), space.hidden_sizes[-1]
    numbers = np.array([paths.number(space.hidden_sizes[0], ["S3"]), paths.number(wide, ["F"] * 6)])
    losses = BlockLosses(tuple((numbers, np.array([2.0, 1.0]), np.array([0, 1])) for _ in range(space.blocks)))
    return NasBertEstimates(losses, space, BERT_BASE, [CLASSES], 128, 1, {}, "paper")


def test_the_width_of_the_paper_goes_by_the_limit_on_all_parameters() -> None:
    whole = paper_estimates(PAPER)
    wanted = {4e6: 64, 7.5e6: 64, 7.6e6: 128, 22e6: 128, 23e6: 256, 37e6: 256, 38e6: 384, 52e6: 384, 53e6: 512, 1e9: 512}
    for limit, width in wanted.items():
        assert whole.best(Budget(max_params=limit))[0].architecture.choices["embedding"] == width
    assert whole.best(Budget(max_flops=1e9))[0].architecture.choices["embedding"] == 512


def test_a_width_that_is_not_there_gives_way_to_the_next_narrower() -> None:
    gaps = paper_estimates(NasBertSpace(embedding_sizes=(512, 192)))
    assert {limit: gaps.best(Budget(max_params=limit))[0].architecture.choices["embedding"] for limit in (8e6, 45e6, 55e6)} == {
        8e6: 192,
        45e6: 192,
        55e6: 512,
    }


def test_a_width_with_which_nothing_fits_gives_way_to_the_next_narrower() -> None:
    whole = paper_estimates(PAPER)
    for flops, width in ((52e6, 512), (48e6, 384), (37e6, 128)):
        budget = Budget(max_params=60e6, max_flops=flops)
        found = whole.best(budget, 5)
        assert {e.architecture.choices["embedding"] for e in found} == {width}
        assert all(budget.met_by(e.costs) for e in found)
    with pytest.raises(UserError, match="smallest achievable"):
        whole.best(Budget(max_params=60e6, max_flops=1e6))


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_any_number_of_blocks(blocks: int) -> None:
    space = small_space(sublayers=2 * blocks, blocks=blocks)
    found = estimates(made_up_losses(space, rows=5), space).best(Budget(), 1000)
    assert len(found) == 5**blocks
    assert all(e.costs == costs(space.spec(e.architecture, TINY, CLASSES), LENGTH, BATCH) for e in found[::7])


def save(path: Path, losses: BlockLosses = LOSSES, latency: np.ndarray | None = None) -> Path:
    losses.save(path / "losses.csv", SPACE, TINY, LENGTH, latency)
    return path / "losses.csv"


def test_a_table_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rough = BlockLosses(tuple((numbers, rng.lognormal(size=len(loss)) * 1e-3, bins - 1) for numbers, loss, bins in LOSSES.blocks))
    again = BlockLosses.load(save(tmp_path, rough), SPACE)
    for before, after in zip(rough.blocks, again.blocks, strict=True):
        for one, other in zip(before, after, strict=True):
            assert one.dtype == other.dtype and one.tolist() == other.tolist()


def test_people_can_read_the_table(tmp_path: Path) -> None:
    seconds = np.arange(10, dtype=np.float64).reshape(2, 5)
    lines = save(tmp_path, latency=seconds).read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert len(lines) == 1 + 2 * 9
    paths, places = Paths(SPACE), {name: i for i, name in enumerate(SPACE.operations)}
    for line, number, loss in zip(lines[10:], LOSSES.blocks[1][0].tolist(), LOSSES.blocks[1][1].tolist(), strict=True):
        hidden, names = paths[number]
        parts = [operation(name, hidden, TINY.layer_norm_eps, SPACE.settings) for name in names]
        counts = [sum(p.other_parameters() for p in parts), sum(p.flops(LENGTH) for p in parts)]
        slow = (
            sum(seconds[SPACE.hidden_sizes.index(hidden), places[name]] for name in names)
            + (2 - len(names)) * seconds[SPACE.hidden_sizes.index(hidden), 4]
        )
        cells = line.split(",")
        assert cells[:3] == ["2", str(hidden), ".".join(names)]
        assert [int(cells[4]), int(cells[5])] == counts
        assert (float(cells[6]), float(cells[7])) == (slow, loss)


DAMAGES = [
    (3, lambda line: line.replace(",8,", ",12,").replace(",16,", ",12,"), r"line 4: 12:\S+ is no path of this space"),
    (3, lambda line: "3" + line[1:], "line 4: block 3 is none of 1 to 2"),
    (3, lambda line: line.rpartition(",")[0] + ",nan", "line 4: loss nan is no finite number"),
    (3, lambda line: line.rpartition(",")[0] + ",0.x", "line 4: loss: '0.x' is no number"),
    (3, lambda line: line.rpartition(",")[0], "line 4: 8 columns are expected"),
    (3, lambda line: line + "," + line, "line 4: 8 columns are expected"),
    (3, lambda line: f"{line}\n{line}", "line 5: this path of this block was there before"),
    (0, lambda line: line.replace("loss", "quality"), "line 1: no table of block losses"),
]


@pytest.mark.parametrize(("place", "damage", "message"), DAMAGES, ids=[row[2] for row in DAMAGES])
def test_a_damaged_table_is_refused_by_file_and_line(tmp_path: Path, place: int, damage: object, message: str) -> None:
    path = save(tmp_path)
    lines = path.read_text().splitlines()
    lines[place] = damage(lines[place])  # type: ignore[operator]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=rf"losses\.csv: {message}"):
        BlockLosses.load(path, SPACE)


def test_a_table_that_is_missing_cut_off_or_not_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no table of block losses yet"):
        BlockLosses.load(tmp_path / "losses.csv", SPACE)
    path = save(tmp_path)
    whole = path.read_text()
    for text, message in ((whole[:-3], "line 19: cut off"), ("\n".join(whole.splitlines()[:10]) + "\n", "block 2 of 2 is missing")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            BlockLosses.load(path, SPACE)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"losses\.csv: damaged"):
        BlockLosses.load(path, SPACE)
