"""Winners, controls, gaps and costs, against hand-made archives."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from analysis.head_to_head import HeadToHead, head_to_head
from analysis.rows import Row
from methods import Budget, UserError
from methods.space import Architecture
from tests.analysis.runs import Folder, architecture, costs, right, small_run


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> HeadToHead:
    return head_to_head(small_run(tmp_path_factory.mktemp("runs") / "one"))


def row(table: HeadToHead, name: str, budget: str = "small") -> Row:
    return next(r for r in table.rows if (r.row, r.budget) == (name, budget))


def test_the_winner_is_the_best_on_search_within_the_limit(small: HeadToHead) -> None:
    found = row(small, "dynabert")
    assert found.architecture_id == architecture(3).id
    assert found.architecture == "layers 0-1, heads 3, neurons 12"
    assert (found.quality, found.search_quality, found.chosen_by) == (0.90, 0.86, "shared")
    assert found.gap == pytest.approx(100 * (0.90 - 0.96))
    assert found.retention == pytest.approx(0.90 / 0.96)
    assert (found.embedding_parameters, found.other_parameters, found.flops) == (1e6, 2e6, 1e9)
    assert found.spread is None and found.why["spread"] == "one network"


def test_what_it_cost(small: HeadToHead) -> None:
    found = row(small, "dynabert")
    assert (found.search_evaluations, found.search_seconds) == (4, 12)
    assert (found.training_steps, found.training_examples, found.training_flops, found.training_seconds) == (400, 4000, 6e12, 200)
    assert (found.training_subnetwork_steps, row(small, "teacher").training_subnetwork_steps) == (1200, 150)
    assert row(small, "teacher").training_flops == 1e12
    assert row(small, "truncated-kd").training_flops == 5e11


@pytest.mark.parametrize(("subnetworks", "steps"), [((3, 0), 300), ((3, None), None), ((None, None), None)])
def test_sub_network_steps_are_summed_where_every_stage_counted_them(
    subnetworks: tuple[int | None, ...], steps: float | None, tmp_path: Path
) -> None:
    run = one_winner(tmp_path, quality=0.9)
    for count, name in zip(subnetworks, ("width", "tables"), strict=True):
        run.stage("dynabert", name, 100, 1e12, subnetworks=count)
        run.stage("teacher", name, 100, 1e12, subnetworks=count)
    run.stage("dynabert", "loaded", 0, 0.0, subnetworks=None)
    table = head_to_head(tmp_path)
    for name in ("dynabert", "teacher"):
        found = row(table, name, "max_flops 1G")
        assert (found.training_steps, found.training_subnetwork_steps) == (200, steps)
        assert ("not counted" in found.why.get("training_subnetwork_steps", "")) == (steps is None)
    text = table.render()
    assert " passes " in text and ("not counted when this was trained" in text) == (steps is None)


def test_random_architectures_count_between_90_and_100_percent(small: HeadToHead) -> None:
    found = row(small, "random (dynabert)")
    assert (found.networks, found.lowest, found.highest) == (2, 0.80, 0.84)
    assert found.quality == pytest.approx(0.82)
    assert found.spread == pytest.approx(math.sqrt(2) * 0.02)
    assert found.gap == pytest.approx(-14)


def test_untrained_weights_in_the_winners_shape(small: HeadToHead) -> None:
    assert row(small, "rewired-cut (dynabert)").quality == 0.55


def test_untrained_weights_that_know_no_seed_stand_for_every_winner(tmp_path: Path) -> None:
    """Two winners of one shape and one of another: the shared measurement counts twice, as one network."""
    run = Folder(tmp_path, [{"max_flops": 1e9}])
    for seed, heads in ((0, 3), (1, 3), (2, 2)):
        run.measure(architecture(heads), 0.9, "search", cost=costs(1.0), seed=seed)
    run.control("rewired-cut", architecture(3), 0.6, costs(1.0), seed=0)
    run.control("rewired-cut", architecture(2), 0.3, costs(1.0), seed=2)
    found, _ = only(tmp_path, "rewired-cut (dynabert)")
    assert found.quality == pytest.approx(0.5) and found.networks == 2
    run.control("rewired-cut", architecture(3), 0.9, costs(1.0), seed=1)
    assert only(tmp_path, "rewired-cut (dynabert)")[0].quality == pytest.approx(0.6)


def test_one_untrained_network_of_all_seeds_has_no_spread(tmp_path: Path) -> None:
    run = Folder(tmp_path, [{"max_flops": 1e9}])
    for seed in (0, 1):
        run.measure(architecture(3), 0.9, "search", cost=costs(1.0), seed=seed)
    run.control("rewired-cut", architecture(3), 0.6, costs(1.0), seed=0)
    found, _ = only(tmp_path, "rewired-cut (dynabert)")
    assert (found.quality, found.networks, found.spread) == (0.6, 1, None)


def test_the_truncated_teacher_that_fits(small: HeadToHead) -> None:
    assert row(small, "truncated-kd").quality == 0.82
    assert row(small, "truncated-kd", "tiny").why["quality"] == "none fits: smallest max_flops 750M"


def test_an_interval_over_examples(small: HeadToHead) -> None:
    found = row(small, "dynabert")
    assert found.interval_low == pytest.approx(0.9 - 1.96 * 0.03, abs=0.015)
    assert found.interval_high == pytest.approx(0.9 + 1.96 * 0.03, abs=0.015)


def test_every_empty_cell_says_why(small: HeadToHead) -> None:
    values = [(r, name, value) for r in small.rows for name, value in r.data().items()]
    empty = [(r, name) for r, name, value in values if value is None and name != "chosen_by"]
    assert empty
    assert not [(r.row, r.budget, name) for r, name in empty if not r.why.get(name)]
    assert not [(r.row, name) for r, name, value in values if value is not None and name in r.why]
    assert "nothing fits" in row(small, "dynabert", "tiny").why["quality"]


def test_the_verdict_is_tested(small: HeadToHead) -> None:
    sentence = small.blocks[0].sentences[0]
    assert "8.0 points above the mean of 2 random networks" in sentence
    assert "6.0 points above the best of them on validation (0.8400; McNemar, exact, p = 0.031, n = 100)" in sentence
    assert sentence.endswith("So the search helped, even against the best of them.")
    assert "no winner" in small.blocks[1].sentences[0]


def one_winner(path: Path, **winner: object) -> Folder:
    run = Folder(path, [{"max_flops": 1e9}])
    run.measure(architecture(3), 0.9, "search", cost=costs(1.0))
    if winner:
        run.measure(architecture(3), split="validation", kind="finished", **winner)  # type: ignore[arg-type]
    return run


def only(path: Path, name: str = "dynabert") -> tuple[Row, str]:
    table = head_to_head(path)
    return next(r for r in table.rows if r.row == name), table.blocks[0].sentences[0]


def test_not_yet_measured_on_validation(tmp_path: Path) -> None:
    one_winner(tmp_path)
    found, sentence = only(tmp_path)
    assert found.quality is None and found.why["quality"] == "not measured on validation"
    assert "1 winner not measured on validation" in sentence
    assert found.why["search_evaluations"] == "no search recorded" and found.why["training_flops"] == "no training recorded"


def test_without_a_teacher_there_is_no_gap(tmp_path: Path) -> None:
    one_winner(tmp_path, quality=0.9)
    found, _ = only(tmp_path)
    assert found.quality == 0.9 and found.gap is None
    assert found.why["gap"] == "the teacher was not measured on validation"
    assert only(tmp_path, "teacher")[0].why["quality"] == "not measured on validation"


def test_a_teacher_at_zero_has_a_gap_but_no_retention(tmp_path: Path) -> None:
    one_winner(tmp_path, quality=0.9).control("teacher", Architecture.of("teacher", {}), 0.0, costs(2))
    found, _ = only(tmp_path)
    assert found.gap == pytest.approx(90) and found.retention is None and "not above 0" in found.why["retention"]


def test_a_difference_that_may_be_chance_is_not_claimed(tmp_path: Path) -> None:
    run = one_winner(tmp_path, quality=0.9, correct=right(*range(10)))
    run.control("random", architecture(7), 0.89, costs(0.95), correct=right(*range(10, 21)))
    assert only(tmp_path)[1].endswith("So the search did not help measurably.")


def test_the_same_architecture_is_no_rival(tmp_path: Path) -> None:
    run = one_winner(tmp_path, quality=0.9, correct=right(*range(10)))
    run.control("random", architecture(3), 0.9, costs(1.0), correct=right(*range(10)))
    assert "level with the best of them on search (0.9000; which is the same architecture)" in only(tmp_path)[1]


def test_the_best_random_network_is_chosen_on_search_where_all_were_measured_there(tmp_path: Path) -> None:
    run = one_winner(tmp_path, quality=0.9, correct=right(*range(10)))
    for heads, on_search, on_validation in ((5, 0.85, 0.70), (6, 0.80, 0.88)):
        run.control("random", architecture(heads), on_validation, costs(0.95), correct=right(*range(round(100 - 100 * on_validation))))
        run.control("random", architecture(heads), on_search, costs(0.95), split="search")
    assert "20.0 points above the best of them on search (0.7000;" in only(tmp_path)[1]


def test_without_predictions_there_is_no_test(tmp_path: Path) -> None:
    run = one_winner(tmp_path, quality=0.9)
    run.control("random", architecture(7), 0.8, costs(0.95))
    sentence = only(tmp_path)[1]
    assert "no test: per-example predictions were not kept" in sentence and "not known" in sentence


def test_without_random_architectures_nothing_is_claimed(tmp_path: Path) -> None:
    one_winner(tmp_path, quality=0.9)
    assert "no random architecture with 90 % to 100 % of the limit was measured" in only(tmp_path)[1]
    assert only(tmp_path, "random (dynabert)")[0].why["quality"] == "none measured with 90 % to 100 % of the limit"


def test_finished_networks_are_ranked_before_shared_weights(tmp_path: Path) -> None:
    run = one_winner(tmp_path, quality=0.9)
    run.measure(architecture(2), 0.5, "search", "finished", costs(0.8))
    assert only(tmp_path)[0].architecture_id == architecture(3).id, "the best by shared weights was not finished"
    run.measure(architecture(3), 0.4, "search", "finished", costs(1.0))
    run.measure(architecture(2), 0.6, "validation", "finished", costs(0.8))
    found, _ = only(tmp_path)
    assert (found.architecture_id, found.chosen_by, found.quality) == (architecture(2).id, "finished", 0.6)


def test_validation_never_chooses(tmp_path: Path) -> None:
    run = one_winner(tmp_path, quality=0.7)
    run.measure(architecture(2), 0.8, "search", cost=costs(0.8))
    run.measure(architecture(2), 0.99, "validation", "finished", costs(0.8))
    assert only(tmp_path)[0].architecture_id == architecture(3).id


def test_what_was_finished_from_a_former_supernet_is_not_reported(tmp_path: Path) -> None:
    run = Folder(tmp_path, [{"max_flops": 1e9}])
    run.measure(architecture(1), 0.9, "search", cost=costs(0.5))
    run.measure(architecture(1), 0.9, "validation", "finished", costs(0.5))
    run.trained += 1
    run.measure(architecture(1), 0.5, "search", cost=costs(0.5))
    assert head_to_head(tmp_path).rows[0].quality is None
    run.measure(architecture(1), 0.6, "validation", "finished", costs(0.5))
    run.archive.close()
    assert head_to_head(tmp_path).rows[0].quality == 0.6


def test_scores_of_different_kinds_have_no_mean(tmp_path: Path) -> None:
    """Seed 0 has finished its winner, seed 1 has not."""
    run = Folder(tmp_path, [{"max_flops": 1e9}])
    for seed in (0, 1):
        run.measure(architecture(1), 0.6, "search", cost=costs(0.5), seed=seed)
    run.measure(architecture(1), 0.9, "search", "finished", costs(0.5))
    run.archive.close()
    row = head_to_head(tmp_path).rows[0]
    assert (row.search_quality, row.chosen_by) == (None, "finished/shared") and "others" in row.why["search_quality"]


def test_the_best_random_network_is_chosen_in_one_way_for_all_seeds(tmp_path: Path) -> None:
    """Only seed 0 has scores on search: what the sentence says holds for both."""
    run = Folder(tmp_path, [{"max_flops": 1e9}])
    for seed in (0, 1):
        run.measure(architecture(1), 0.9, "search", cost=costs(0.5), seed=seed)
        run.measure(architecture(1), 0.9, "validation", "finished", costs(0.5), seed=seed)
        for heads, quality in ((2, 0.7), (3, 0.8)):
            run.control("random", architecture(heads), quality, costs(0.95), seed=seed)
    for heads, quality in ((2, 0.9), (3, 0.1)):
        run.control("random", architecture(heads), quality, costs(0.95), "search")
    run.archive.close()
    assert "10.0 points above the best of them on validation (0.8000" in head_to_head(tmp_path).blocks[0].sentences[0]


def test_a_diverged_network_is_empty_not_nan(tmp_path: Path) -> None:
    one_winner(tmp_path, quality=math.nan)
    found, _ = only(tmp_path)
    assert found.quality is None and "not a finite number" in found.why["quality"]


def two_seeds(path: Path) -> Path:
    run = Folder(path, [{"max_flops": 1e9}])
    for seed, heads, quality, wrong in ((0, 3, 0.90, range(10)), (1, 2, 0.86, range(14))):
        run.measure(architecture(3), 0.9 - seed / 10, "search", cost=costs(1.0), seed=seed)
        run.measure(architecture(2), 0.85, "search", cost=costs(0.6), seed=seed)
        run.measure(
            architecture(heads), quality, "validation", "finished", costs(1.0 if heads == 3 else 0.6), seed=seed, correct=right(*wrong)
        )
        run.control("random", architecture(7), 0.7, costs(0.95), seed=seed, correct=right(*range(30)))
        run.stage("dynabert", "width", 100 + 100 * seed, 1e12 + seed * 1e12, seed)
        run.searched("dynabert", "max_flops 1G", 10 + 20 * seed, 5.0, seed)
    run.control("teacher", Architecture.of("teacher", {}), 0.95, costs(2))
    return path


def test_seeds_are_chosen_apart_and_averaged(tmp_path: Path) -> None:
    found, sentence = only(two_seeds(tmp_path))
    assert found.quality == pytest.approx(0.88) and found.spread == pytest.approx(0.02 * math.sqrt(2))
    assert (found.networks, found.seeds) == (2, 2)
    assert found.gap == pytest.approx(-7)
    assert found.search_quality == pytest.approx((0.9 + 0.85) / 2)
    assert found.flops == pytest.approx(0.8e9)
    assert found.architecture_id == f"{architecture(3).id} {architecture(2).id}"
    assert (found.training_steps, found.training_flops, found.search_evaluations) == (150, 1.5e12, 20)
    assert "a mean over 2 seeds of 0.8800 accuracy, 18.0 points above the mean of 2 random networks" in sentence
    assert "paired permutation, p < 0.001, n = 100" in sentence


def test_metrics_that_are_no_mean_over_examples(tmp_path: Path) -> None:
    labels = np.arange(60) % 2
    run = Folder(tmp_path, [{"max_flops": 1e9}], task="cola", metric="matthews")

    def logits(*wrong: int) -> np.ndarray:
        answers = labels.copy()
        answers[list(wrong)] ^= 1
        return np.eye(2, dtype=np.float32)[answers]

    run.measure(architecture(3), 0.9, "search", cost=costs(1.0))
    run.measure(architecture(3), 0.9, "validation", "finished", costs(1.0), logits=logits(0, 1, 2), labels=labels)
    run.control("random", architecture(7), 0.2, costs(0.95), logits=logits(*range(0, 24)), labels=labels)
    found, sentence = only(tmp_path)
    assert found.metric == "matthews" and found.interval_low is not None and 0.7 < found.interval_low < 0.9
    assert "95 % interval over examples" in sentence and "paired permutation, p = 0.002, n = 60" in sentence
    assert sentence.endswith("even against the best of them.")


def test_other_budgets_than_the_runs_own(tmp_path: Path) -> None:
    table = head_to_head([small_run(tmp_path / "one")], [Budget(max_params_non_embedding=1.3e6, name="mine")])
    assert [b.budget.name for b in table.blocks] == ["mine"]
    assert row(table, "dynabert", "mine").architecture_id == architecture(2).id


def test_runs_under_one_budget_share_a_block(tmp_path: Path) -> None:
    second = Folder(tmp_path / "two", [{"name": "small", "max_flops": "1G"}])
    second.measure(architecture(3, "other"), 0.5, "search", cost=costs(0.9))
    table = head_to_head([small_run(tmp_path / "one"), tmp_path / "two"])
    assert [b.budget.name for b in table.blocks] == ["small", "tiny"]
    assert {(r.run, r.row) for r in table.blocks[0].rows if r.kind == "method"} == {("one", "dynabert"), ("two", "other")}
    assert "run  " in table.render("table").splitlines()[1]
    assert [sentence.split(":")[0] for sentence in table.blocks[0].sentences] == ["one, sst2, small, dynabert", "two, sst2, small, other"]


def test_a_latency_that_was_not_measured_is_said(tmp_path: Path) -> None:
    table = head_to_head(small_run(tmp_path), [Budget(max_latency={"phone": 0.1}, name="fast")])
    assert "no cost is known for max_latency.phone" in row(table, "dynabert", "fast").why["quality"]


def test_no_run_is_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder"):
        head_to_head(tmp_path)
    Folder(tmp_path / "fresh", [{"max_flops": 1e9}])
    with pytest.raises(UserError, match="nothing was measured yet"):
        head_to_head(tmp_path / "fresh")
    (tmp_path / "fresh" / "archive.db").unlink()
    with pytest.raises(UserError, match="archive"):
        head_to_head(tmp_path / "fresh")
    for damaged in ("[]", "budgets: 3", "cost: {length: long}"):
        (tmp_path / "fresh" / "experiment.yaml").write_text(damaged)
        with pytest.raises(UserError, match=r"experiment\.yaml: is no experiment"):
            head_to_head(tmp_path / "fresh")
    (tmp_path / "fresh" / "experiment.yaml").write_text("budgets: [{max_latency: 3}]")
    with pytest.raises(UserError, match=r"budgets\[0\]\.max_latency: 3 is no mapping"):
        head_to_head(tmp_path / "fresh")
    (tmp_path / "fresh" / "experiment.yaml").write_text("{")
    with pytest.raises(UserError, match=r"experiment\.yaml"):
        head_to_head(tmp_path / "fresh")
