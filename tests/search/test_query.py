"""The query, case by case."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from methods.budget import Budget
from methods.costs import Costs
from methods.errors import UserError
from search.archive import Archive
from search.candidates import candidates, pareto_front
from search.columns import Columns
from search.measurement import Kind, Measurement
from search.query import Answer, NothingFits, best, fronts
from search.timings import Timed, keep_timed, timed_in
from tests.search.made import answer, made


def test_finished_networks_are_ranked_before_shared_weights() -> None:
    found = [made(2, 0.95), made(1, 0.9), made(2, 0.6, "finished"), made(3, 0.7, "finished"), made(4, 0.99, "control")]
    found.append(made(5, 1.0, "predicted"))
    assert (answer(found, Budget()).architecture.choices["width"], answer(found, Budget()).kind) == (3, "finished")
    below = answer(found, Budget(max_flops=1500))
    assert (below.architecture.choices["width"], below.kind, below.quality) == (1, "shared", 0.9)


def test_a_budget_that_nobody_finished_for_is_answered_by_shared_weights() -> None:
    """The winner of a smaller budget is finished; a better one fits between the budgets."""
    found = [made(1, 0.6), made(2, 0.8), made(3, 0.9), made(1, 0.65, "finished"), made(3, 0.92, "finished")]
    between = answer(found, Budget(max_flops=2500))
    assert (between.architecture.choices["width"], between.kind) == (2, "shared")
    assert answer(found, Budget(max_flops=1500)).kind == answer(found, Budget()).kind == "finished"


def test_validation_is_shown_and_never_ranked_by() -> None:
    found = [made(1, 0.6), made(2, 0.5), made(2, 0.9, split="validation"), made(1, 0.3, split="validation")]
    result = answer(found, Budget())
    assert result.architecture.choices == {"width": 1}
    assert (result.validation, result.validation_kind) == ({"accuracy": 0.3, "f1": 0.15}, "shared")
    finished = answer([*found, made(1, 0.4, "finished", split="validation")], Budget())
    assert (finished.validation, finished.validation_kind) == ({"accuracy": 0.4, "f1": 0.2}, "finished")
    assert answer([made(3)], Budget()).validation is None


def test_what_was_finished_from_a_former_supernet_does_not_count() -> None:
    old = [made(1, 0.9, weights_digest="old"), made(2, 0.8, weights_digest="old"), made(1, 0.95, "finished", weights_digest="cut of old")]
    new = [made(1, 0.5, weights_digest="new"), made(2, 0.6, weights_digest="new"), made(2, 0.7, "finished", weights_digest="cut of new")]
    found = answer([*old, *new], Budget())
    assert (found.architecture.choices["width"], found.kind, found.quality) == (2, "finished", 0.7)
    assert (answer([*old, *new[:2]], Budget()).kind, answer([*old, *new[:2]], Budget()).quality) == ("shared", 0.6)


def test_equals_go_to_the_cheaper() -> None:
    same = {"quality": 0.5}
    a = made(1, **same, costs=Costs(100, 50, 2000))
    b = made(2, **same, costs=Costs(100, 60, 1000))
    c = made(3, **same, costs=Costs(100, 55, 1000))
    d = made(4, **same, costs=Costs(105, 50, 1000))
    assert answer([a, b], Budget()).architecture == b.architecture
    assert answer([a, b, c], Budget()).architecture == c.architecture
    assert answer([d, c, b], Budget()).architecture == min((c, d), key=lambda m: m.architecture.id).architecture


def test_rounding_is_no_difference_in_quality() -> None:
    cheap = [made(1, 0.1, seed=0), made(1, 0.2, seed=1)]
    dear = [made(2, 0.15, seed=0), made(2, math.nextafter(0.15, 1), seed=1)]
    assert answer([*dear, *cheap], Budget()).architecture.choices == {"width": 1}


def test_seeds_are_averaged() -> None:
    lucky = [made(1, q, seed=s) for s, q in ((2, 0.4), (0, 0.9), (1, 0.5))]
    steady = [made(2, q, seed=s) for s, q in enumerate((0.7, 0.71, 0.69))]
    result = answer([*lucky, *steady], Budget())
    assert result.architecture.choices == {"width": 2}
    assert result.quality == pytest.approx(0.7) and result.metrics["f1"] == pytest.approx(0.35)
    assert result.spread == pytest.approx(0.01)
    assert (result.seeds, result.seed) == ((0, 1, 2), 1)
    alone = answer(lucky[:1], Budget())
    assert (alone.spread, alone.seeds, alone.seed) == (0.0, (2,), 2)


def test_a_retrained_supernet_replaces_its_old_scores() -> None:
    found = [made(1, 0.9, weights_digest="old"), made(2, 0.6, weights_digest="new"), made(1, 0.5, weights_digest="new")]
    assert answer(found, Budget()).architecture.choices == {"width": 2}


def test_of_a_retrained_supernet_no_score_of_its_predecessor_competes() -> None:
    old = [made(w, 0.9, weights_digest="old") for w in (1, 2)] + [made(5, 0.95, weights_digest="old", split="validation")]
    new = [made(3, 0.5, weights_digest="new"), made(4, 0.95, seed=1), made(5, 0.4, weights_digest="new")]
    assert {c.architecture.choices["width"] for c in candidates([*old, *new], "shared")} == {3, 4, 5}
    assert answer([*old, new[0]], Budget()).architecture.choices == {"width": 3}
    told = [*old, new[2], made(3, 0.3, weights_digest="new", split="validation")]
    assert answer(told, Budget()).validation is None


def test_a_finished_network_of_a_lucky_seed_does_not_beat_one_of_all_seeds() -> None:
    shared = [made(w, q, seed=s) for w, q in ((1, 0.8), (2, 0.7)) for s in (0, 1)]
    lucky = [made(1, 0.7, "finished", seed=0), made(1, 0.7, "finished", seed=1), made(2, 0.9, "finished", seed=1)]
    result = answer([*shared, *lucky], Budget())
    assert (result.architecture.choices["width"], result.kind, result.seeds) == (1, "finished", (0, 1))
    both = answer([*shared, *lucky, made(2, 0.8, "finished", seed=0)], Budget())
    assert (both.architecture.choices["width"], both.kind) == (2, "finished")
    assert answer(lucky, Budget()).kind == "finished"


@pytest.mark.parametrize("kind", ["shared", "finished"])
def test_networks_that_lack_seeds_are_compared_in_those_that_they_have(kind: Kind) -> None:
    """Seed 0 is kind to all: what was measured there alone is worse there than what was measured in all three."""
    steady = [made(1, quality, kind, seed) for seed, quality in enumerate((0.9, 0.7, 0.7))]
    below = answer([*steady, made(2, 0.85, kind, 0)], Budget())
    assert (below.architecture.choices["width"], below.seeds) == (1, (0, 1, 2)), "better in the seed that both have"
    above = answer([*steady, made(2, 0.95, kind, 0)], Budget())
    assert above.architecture.choices["width"] == 1, "two of three seeds know nothing better"
    others = [made(width, 0.8, kind, seed) for seed, width in enumerate((2, 3, 4))]
    poor = [made(1, 0.6, kind, seed) for seed in range(3)]
    found = answer([*poor, *others], Budget())
    assert (found.architecture.choices["width"], found.seeds) == (2, (0,)), "what every seed knows a better one than does not win"


def test_seeds_that_finished_what_they_found_are_answered_with_what_most_of_them_name() -> None:
    """Three seeds, each of which finished its own winner and that of a smaller budget."""
    shared = [made(w, q, seed=s) for s, row in enumerate([(0.5, 0.8, 0.7), (0.5, 0.7, 0.8), (0.5, 0.8, 0.6)]) for w, q in enumerate(row, 1)]
    small = [made(1, 0.85, "finished", seed=s) for s in range(3)]
    own = [made(2, 0.90, "finished", seed=0), made(3, 0.95, "finished", seed=1), made(2, 0.91, "finished", seed=2)]
    result = answer([*shared, *small, *own], Budget())
    assert (result.architecture.choices["width"], result.kind, result.seeds, result.seed) == (2, "finished", (0, 2), 2)
    assert result.quality == pytest.approx(0.905)
    apart = answer([*shared, *small, *own[:2]], Budget())
    assert (apart.architecture.choices["width"], apart.kind) == (2, "shared"), "the third seed has not finished its best"
    under = answer([*shared, *small, *own], Budget(max_flops=1500))
    assert (under.architecture.choices["width"], under.kind, under.seeds) == (1, "finished", (0, 1, 2))


def test_every_method_decides_for_itself() -> None:
    one = [made(1, 0.9), made(1, 0.7, "finished")]
    other = [made(2, 0.8, method="other"), made(2, 0.75, "finished", method="other")]
    found = answer([*one, *other], Budget())
    assert (found.architecture.method, found.kind) == ("other", "finished")
    found = answer([*one, *other, made(3, 0.85, method="other")], Budget())
    assert (found.architecture.method, found.kind) == ("toy", "shared")


def test_several_runs_are_one_query() -> None:
    runs = {
        "a": [made(1, 0.9), made(2, 0.8), made(1, 0.7, "finished")],
        "b": [made(1, 0.6), made(2, 0.85), made(2, 0.75, "finished"), made(2, 0.7, "finished", split="validation")],
    }
    both = Columns.joined({name: Columns.of(found) for name, found in runs.items()})
    result = best(both, Budget())
    assert isinstance(result, Answer)
    assert (result.run, result.architecture.choices["width"], result.quality, result.kind) == ("b", 2, 0.75, "finished")
    assert (result.validation or {})["accuracy"] == 0.7
    cheap = best(both, Budget(max_flops=1000))
    assert isinstance(cheap, Answer) and (cheap.run, cheap.quality, cheap.kind) == ("a", 0.9, "shared")
    other = Columns.joined({"a": Columns.of(runs["a"]), "c": Columns.of([replace(m, split_digest="other rows") for m in runs["b"]])})
    with pytest.raises(UserError, match="different rows"):
        best(other, Budget())


def test_a_lucky_seed_does_not_beat_a_mean_over_several() -> None:
    steady = [made(2, quality, "finished", seed) for seed, quality in enumerate((0.8, 0.7, 0.6))]
    assert widths_on_front([*steady, made(3, 0.75, "finished", 0)]) == [2], "worse in the seed that both have"
    assert widths_on_front([*steady, made(3, 0.85, "finished", 0)]) == [2, 3], "better in that seed"
    assert widths_on_front([*steady, made(1, 0.85, "finished", 0)]) == [1, 2], "better at less, but in one seed"
    assert widths_on_front([*steady, *(made(1, 0.7, "finished", seed) for seed in range(3))]) == [1], "as good at less"
    assert widths_on_front([*steady, made(3, 0.9, "finished", 5)]) == [2, 3], "no seed in common"


def widths_on_front(found: Sequence[Measurement]) -> list[int]:
    (front,) = fronts(found, "max_flops", Budget())
    return [c.architecture.choices["width"] for c in front.points]


@pytest.mark.parametrize(
    ("limit", "said"),
    [(800, "25.00% over"), (101, "890.10% over"), (80, "12.5 times the limit"), (0.07928, "12,600 times the limit"),
     (1 / 1261.823, "1.26 million times the limit"), (1e-6, "1,000 million times the limit")],
)  # fmt: skip
def test_how_far_a_network_is_over_a_limit_can_be_read(limit: float, said: str) -> None:
    nothing = best([made(1)], Budget(max_flops=limit))
    assert isinstance(nothing, NothingFits) and f"max_flops {said})" in nothing.message()


def test_what_an_archive_loads_is_gathered_before_the_first_query(tmp_path: Path) -> None:
    with Archive(tmp_path / "archive.db") as archive:
        archive.add(made(1))
        columns = archive.columns()
    gathered = [columns._kept["groups", kind, "search"] for kind in ("finished", "shared")]
    for same in (columns.only("sst2", "toy"), columns.timed({}), Columns.joined({"one": columns})):
        assert [len(same._kept["groups", kind, "search"]) for kind in ("finished", "shared")] == [0, 1]
    assert columns.timed({}).groups("shared") is gathered[1]


def test_measured_latency_counts_where_a_network_was_timed(tmp_path: Path) -> None:
    found = [made(w, w / 10, costs=Costs(1, 1, 1, latency={"phone": 0.1 * w})) for w in (1, 2, 3)]
    timed = Timed("sst2", "toy", found[2].architecture.id, "phone", 0.3, measured=0.15)
    with Archive(tmp_path / "archive.db") as archive:
        for m in found:
            archive.add(m)
        keep_timed(archive, timed)
        result = best(archive.columns().timed(timed_in(archive)), Budget(max_latency={"phone": 0.2}))
    assert isinstance(result, Answer) and result.architecture == found[2].architecture
    assert result.slack["max_latency.phone"] == pytest.approx(0.05)
    assert answer(found, Budget(max_latency={"phone": 0.2})).architecture == found[1].architecture


def test_what_comes_nearest_is_named() -> None:
    result = best([made(3, 0.1), made(2, 0.9), made(4, kind="finished")], Budget(max_params=105, max_flops=1500))
    assert isinstance(result, NothingFits) and result.nearest is not None
    assert result.nearest.architecture.choices == {"width": 2}
    assert result.nearest.excess == pytest.approx({"max_params": 15 / 105, "max_flops": 1 / 3})
    assert "max_flops 33.33% over" in result.message()
    assert json.loads(json.dumps(result.to_dict()))["nearest"]["id"] == result.nearest.architecture.id


def test_a_quality_that_is_no_number_never_wins() -> None:
    for none in (math.nan, math.inf, -math.inf):
        assert answer([made(1, none), made(2, 0.0)], Budget()).architecture.choices == {"width": 2}
    assert [m.architecture.choices["width"] for m in pareto_front([made(1, math.nan), made(2, 0.0)])] == [2]


def test_an_answer_of_no_number_is_still_json() -> None:
    told = answer([made(1, math.nan), made(1, math.inf, seed=1)], Budget()).to_dict()
    assert json.loads(json.dumps(told, allow_nan=False))["metrics"] == {"accuracy": None, "f1": None}


def test_runs_that_were_ranked_by_other_metrics_are_not_compared() -> None:
    other = replace(made(2), metric="f1", metrics={"f1": 0.9})
    both = Columns.joined({"a": Columns.of([made(1)]), "b": Columns.of([other])})
    with pytest.raises(UserError, match="accuracy and f1"):
        best(both, Budget())


def test_what_is_left_of_each_limit() -> None:
    result = answer([made(3)], Budget(max_params=200, max_flops=3000))
    assert result.slack == {"max_params": 70, "max_flops": 0}


def test_a_limit_that_nothing_meets_is_named_with_what_exists() -> None:
    result = best([made(3), made(2), made(4, kind="finished")], Budget(max_params=500, max_flops=1500))
    assert isinstance(result, NothingFits)
    assert (result.binding, result.smallest, result.jointly) == (("max_flops",), {"max_params": 120, "max_flops": 2000}, False)
    assert result.message().startswith("nothing fits max_params 500, max_flops 1.5K: the smallest that exists is max_flops 2,000; nearest")


def test_limits_that_can_not_be_met_together_are_named() -> None:
    found = [made(1, costs=Costs(0, 10, 9000)), made(2, costs=Costs(0, 90, 1000)), made(3, costs=Costs(500, 90, 9000))]
    budget = Budget(max_params=600, max_params_non_embedding=50, max_flops=5000)
    result = best(found, budget)
    assert isinstance(result, NothingFits)
    assert result.jointly and result.binding == ("max_params_non_embedding", "max_flops")
    assert "not all at once" in result.message() and "max_flops 1,000" in result.message()


def test_latency_counts_where_it_was_measured() -> None:
    slow = made(1, 0.9, costs=Costs(1, 1, 1, latency={"phone": 0.5}))
    fast = made(2, 0.5, costs=Costs(1, 1, 1, latency={"phone": 0.1}))
    budget = Budget(max_latency={"phone": 0.2})
    assert answer([slow, fast, made(3, 1.0)], budget).architecture == fast.architecture
    with pytest.raises(UserError, match=r"no cost is known for max_latency\.phone"):
        best([made(3)], budget)
    nothing = best([slow], budget)
    assert isinstance(nothing, NothingFits) and "0.5 s" in nothing.message()


def test_tasks_and_methods_are_asked_one_by_one() -> None:
    found = [made(1, 0.5), made(2, 0.6, method="other"), made(3, 0.9, task="rte")]
    assert answer(found, Budget(), task="sst2").architecture.method == "other"
    assert answer(found, Budget(), task="sst2", method="toy").architecture.choices == {"width": 1}
    with pytest.raises(UserError, match="tasks rte, sst2"):
        best(found, Budget())
    with pytest.raises(UserError, match="nothing of method none of task rte"):
        best(found, Budget(), method="none", task="rte")


def test_flops_of_different_lengths_are_not_compared() -> None:
    found = [made(1), made(2, costs=Costs(1, 1, 1, length=64))]
    with pytest.raises(UserError, match="different lengths"):
        best(found, Budget(max_flops=5000))
    assert answer(found, Budget(max_params=5)).architecture.choices == {"width": 2}


def test_an_archive_is_asked_like_a_list(tmp_path: Path) -> None:
    found = [made(w, w / 10, seed=s, weights_digest=f"{s}") for w in range(1, 6) for s in range(2)]
    with Archive(tmp_path / "archive.db") as archive:
        for m in found:
            archive.add(m)
        for budget in (Budget(), Budget(max_flops=3500), Budget(max_flops=10)):
            assert best(archive, budget, method="toy", task="sst2") == best(found, budget)


@pytest.mark.parametrize("budget", [Budget(max_flops=9000), Budget(max_flops=10)])
def test_answers_are_plain_data(budget: Budget) -> None:
    result = best([made(1), made(1, split="validation")], budget).to_dict()
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_front_of_candidates_by_a_cost_of_ones_own() -> None:
    found = [made(w, q, seed=s) for w, q in ((1, 0.3), (2, 0.2), (3, 0.5)) for s in (0, 1)]
    front = pareto_front(candidates(found, "shared"), lambda costs: -costs.flops)
    assert [c.architecture.choices["width"] for c in front] == [3]
    assert pareto_front([]) == []


def test_many_measurements_are_few_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [made(i, (i * 7919 % 10007) / 10007) for i in range(1, 4001)]
    calls = 0
    true = Costs.measured_against

    def counted(costs: Costs) -> dict[str, float]:
        nonlocal calls
        calls += 1
        return true(costs)

    monkeypatch.setattr(Costs, "measured_against", counted)
    result = answer(found, Budget(max_flops=2_000_000))
    assert result.architecture.choices["width"] <= 2000
    assert calls < 5 * len(found)
