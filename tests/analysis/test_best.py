"""Who is best, and how surely: by hand, for one network and several, for metrics that are no mean, across runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import matthews_corrcoef

from analysis.head_to_head import HeadToHead, head_to_head
from analysis.prices import prices
from analysis.runs import open_runs
from search.archive import Archive
from search.measurement import Measurement
from search.predictions import Predictions
from tests.analysis.corpus_runs import two_tasks
from tests.analysis.runs import LABELS, Folder, architecture, costs, right, small_run


def rows(table: HeadToHead) -> dict[str, object]:
    return {row.row: row for row in table.blocks[0].rows}


def run_of(path: Path, qualities: dict[str, list[tuple[int, ...]]]) -> Path:
    """A budget of 1 GFLOPs; for each method the rows that its network gets wrong, seed by seed."""
    run = Folder(path, [{"name": "small", "max_flops": "1G"}])
    for method, seeds in qualities.items():
        for seed, wrong in enumerate(seeds):
            quality = 1 - len(wrong) / 100
            run.measure(architecture(1, method), quality, "search", cost=costs(0.5), seed=seed)
            run.measure(architecture(1, method), quality, "validation", "finished", costs(0.5), seed=seed, correct=right(*wrong))
    run.archive.close()
    return path


def test_mcnemar_and_holm_by_hand(tmp_path: Path) -> None:
    """Twelve and six examples that the best alone gets right: p = 2/2^12 and 2/2^6, times 2 and 1."""
    found = rows(head_to_head(run_of(tmp_path, {"a": [()], "b": [tuple(range(12))], "c": [tuple(range(6))]})))
    a, b, c = found["a"], found["b"], found["c"]
    assert a.best and a.winner and a.p_value is None and a.why["p_holm"] == "is the best"  # type: ignore[attr-defined]
    assert b.test == c.test == "McNemar, exact"  # type: ignore[attr-defined]
    assert (b.p_value, c.p_value) == (pytest.approx(2 / 2**12), pytest.approx(2 / 2**6))  # type: ignore[attr-defined]
    assert (b.p_holm, c.p_holm) == (pytest.approx(4 / 2**12), pytest.approx(2 / 2**6))  # type: ignore[attr-defined]
    assert b.difference == pytest.approx(-12) and b.difference_low < -12 < b.difference_high < 0  # type: ignore[attr-defined]


def test_one_rival_that_is_not_told_apart_takes_the_bold_away(tmp_path: Path) -> None:
    found = rows(head_to_head(run_of(tmp_path, {"a": [()], "b": [tuple(range(12))], "c": [(1, 2)]})))
    assert found["a"].best and not found["a"].winner  # type: ignore[attr-defined]
    assert found["c"].p_value == pytest.approx(binomtest(2, 2).pvalue)  # type: ignore[attr-defined]


def test_a_seed_in_which_the_best_does_not_lead_takes_the_bold_away(tmp_path: Path) -> None:
    clear = {"a": [(), ()], "b": [tuple(range(20)), tuple(range(20))]}
    assert rows(head_to_head(run_of(tmp_path / "clear", clear)))["a"].winner  # type: ignore[attr-defined]
    torn = {"a": [tuple(range(2)), tuple(range(22))], "b": [tuple(range(40)), tuple(range(20))]}
    found = rows(head_to_head(run_of(tmp_path / "torn", torn)))
    assert found["a"].best and found["b"].p_holm < 0.05 and not found["a"].winner  # type: ignore[attr-defined]


def test_the_same_method_of_another_run_is_a_rival(tmp_path: Path) -> None:
    one, two = run_of(tmp_path / "one", {"a": [()], "b": [tuple(range(40))]}), run_of(tmp_path / "two", {"a": [(1,)]})
    assert rows(head_to_head(one))["a"].winner  # type: ignore[attr-defined]
    (best,) = [row for row in head_to_head([one, two]).rows if row.best]
    assert (best.run, best.winner) == ("one", False)


@pytest.mark.parametrize("wrong", [9, 11])
def test_the_winner_in_8_bit_is_no_rival_of_the_winner(tmp_path: Path, wrong: int) -> None:
    path = run_of(tmp_path, {"a": [tuple(range(10))], "b": [tuple(range(60))]})
    with Archive(path / "archive.db", path) as archive:
        answers = np.where(right(*range(wrong)), LABELS, 1 - LABELS)
        metrics = {"accuracy": 1 - wrong / 100, "file_bytes": 1e6, "float32_file_bytes": 4e6}
        key = (architecture(1, "a"), "sst2", "validation", "digest of validation", "8 bit", "control", 0)
        small = Measurement(*key, "accuracy", metrics, costs(0.5), "int8")
        archive.add(small, Predictions(np.arange(100), np.eye(2, dtype=np.float32)[answers], LABELS))
    (best,) = [row for row in head_to_head(path).rows if row.best]
    assert (best.row, best.winner) == (("int8 (a)", False) if wrong == 9 else ("a", True))


def test_each_of_many_tests_is_drawn_often_enough_for_their_correction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten draws the smallest p-value is 1/11, and three times that says nothing."""
    monkeypatch.setattr("analysis.paired.ROUNDS", 10)
    rng, labels = np.random.default_rng(0), np.arange(40) % 2
    run = Folder(tmp_path, [{"max_flops": 1e9}], task="cola", metric="matthews")
    for number in range(4):
        answers = np.where(rng.random(40) < (0.5 if number else 0), 1 - labels, labels)
        quality, logits = float(matthews_corrcoef(labels, answers)), np.eye(2, dtype=np.float32)[answers]
        run.measure(architecture(1, f"m{number}"), quality, "search", cost=costs(0.5))
        run.measure(architecture(1, f"m{number}"), quality, "validation", "finished", costs(0.5), logits=logits, labels=labels)
    run.archive.close()
    assert rows(head_to_head(tmp_path))["m0"].winner  # type: ignore[attr-defined]


def test_a_network_that_diverged_is_right_nowhere(tmp_path: Path) -> None:
    path = run_of(tmp_path, {"a": [tuple(range(10))]})
    run = Folder(path, [{"name": "small", "max_flops": "1G"}])
    run.measure(architecture(1, "b"), 0.0, "search", cost=costs(0.5))
    logits = np.full((100, 2), np.nan, dtype=np.float32)
    run.measure(architecture(1, "b"), 0.0, "validation", "finished", costs(0.5), logits=logits)
    run.archive.close()
    b = rows(head_to_head(path))["b"]
    assert (b.interval_low, b.interval_high) == (0, 0) and b.p_value == pytest.approx(2 / 2**90)  # type: ignore[attr-defined]
    assert b.difference == pytest.approx(-90) and b.difference_low < -90 < b.difference_high  # type: ignore[attr-defined]


def test_runs_that_measure_a_task_by_other_metrics_are_not_compared(tmp_path: Path) -> None:
    one, other = run_of(tmp_path / "one", {"a": [()]}), Folder(tmp_path / "other", [{"name": "small", "max_flops": "1G"}], metric="f1")
    other.measure(architecture(1, "b"), 0.9, "search", cost=costs(0.5))
    other.measure(architecture(1, "b"), 0.9, "validation", "finished", costs(0.5), correct=right(1))
    other.archive.close()
    assert [(block.metric, any(row.best for row in block.rows)) for block in head_to_head([one, other.path]).blocks] == [
        ("accuracy", False), ("f1", False)]  # fmt: skip


def test_groups_of_different_sizes_under_matthews(tmp_path: Path) -> None:
    labels = np.arange(80) % 2
    run = Folder(tmp_path, [{"max_flops": 1e9}], task="cola", metric="matthews")
    for method, wrong, quality, seeds in (("a", 2, 0.95, 2), ("b", 30, 0.25, 1)):
        answers = labels.copy()
        answers[:wrong] ^= 1
        logits = np.eye(2, dtype=np.float32)[answers]
        for seed in range(seeds):
            run.measure(architecture(1, method), quality, "search", cost=costs(0.5), seed=seed)
            run.measure(architecture(1, method), quality, "validation", "finished", costs(0.5), seed=seed, logits=logits, labels=labels)
    found = rows(head_to_head(tmp_path))["b"]
    assert found.test == "paired bootstrap" and found.p_value < 0.01 and found.difference_high < 0  # type: ignore[attr-defined]


def test_rows_of_two_runs_meet_on_the_same_examples_or_not_at_all(tmp_path: Path) -> None:
    one, two = run_of(tmp_path / "one", {"a": [()]}), run_of(tmp_path / "two", {"b": [tuple(range(15))]})
    assert rows(head_to_head([one, two]))["b"].p_value == pytest.approx(2 / 2**15)  # type: ignore[attr-defined]
    other = Folder(tmp_path / "three", [{"name": "small", "max_flops": "1G"}])
    other.measure(architecture(1, "c"), 0.5, "search", cost=costs(0.5))
    other.measure(architecture(1, "c"), 0.5, "validation", "finished", costs(0.5), correct=right(1, n=30), labels=np.arange(30) % 2)
    c = rows(head_to_head([one, other.path]))["c"]
    assert c.p_value is None and "different examples" in c.why["p_value"] and c.difference == pytest.approx(-50)  # type: ignore[attr-defined]


def test_poor_archives_still_give_a_table(tmp_path: Path) -> None:
    """One method alone; a quality that is no number; predictions that were not kept."""
    alone = rows(head_to_head(run_of(tmp_path / "alone", {"a": [()]})))["a"]
    assert not alone.best and alone.why["difference"] == "no other row to compare with"  # type: ignore[attr-defined]
    run = Folder(tmp_path / "nan", [{"max_flops": 1e9}])
    for method, quality in (("a", float("nan")), ("b", 0.7), ("c", 0.8)):
        run.measure(architecture(1, method), quality, "search", cost=costs(0.5))
        run.measure(architecture(1, method), quality, "validation", "finished", costs(0.5))
    table = head_to_head(tmp_path / "nan")
    found = rows(table)
    assert found["c"].best and not found["c"].winner and found["b"].difference == pytest.approx(-10)  # type: ignore[attr-defined]
    assert "not kept" in found["b"].why["p_value"] and "diverged" in found["a"].why["difference"]  # type: ignore[attr-defined]
    for form in ("table", "md", "tex", "csv", "json"):
        assert "diverged" in table.render(form) or form == "csv"  # type: ignore[arg-type]


def test_prices_of_tasks_and_budgets_by_hand(tmp_path: Path) -> None:
    """DynaBERT: 6 TFLOPs a task, 1 a search. NAS-BERT: 8 for all, 1 or 4 to pre-train a winner, 10 or 40 GFLOPs to fine-tune it."""
    (small,) = open_runs([small_run(tmp_path / "small")])
    dynabert, teacher = prices(small)
    assert dynabert.of(1, 1) == (7e12, 212) and dynabert.of(8, 3) == (8 * 6e12 + 24 * 1e12, 8 * 200 + 24 * 12)
    assert teacher.of(3, 8) == (3e12, 75)
    two_tasks(tmp_path / "two").archive.close()
    (corpus,) = open_runs([tmp_path / "two"])
    nasbert = prices(corpus)[0]
    assert nasbert.once[0] == 8e12 and nasbert.per_task == (0, 0)
    own = nasbert.per_budget[0]
    assert nasbert.of(8, 3)[0] == pytest.approx(8e12 + 3 * own + 24 * nasbert.per_both[0])
    assert nasbert.per_both[0] == pytest.approx((1e10 + 2e10) / 2)
    for run in (small, corpus):
        run.close()


def test_what_tuning_and_augmentation_cost(tmp_path: Path) -> None:
    """Tuning is done once for all tasks; copies of training rows are made for each, in two stages."""
    run = Folder(tmp_path, [{"max_flops": 1e9}])
    for task in ("sst2", "rte"):
        with run.on(task):
            run.measure(architecture(1), 0.5, "search", cost=costs(0.5))
            run.stage("dynabert", "tune", 10, 5e12)
            run.stage("dynabert", "width", 10, 1e12)
            run.stage("augmentation", "augment", 0, 3e11)
            run.stage("augmentation", "soft-labels", 0, 2e11)
    run.archive.close()
    (opened,) = open_runs([tmp_path])
    dynabert, copies = prices(opened)
    assert dynabert.of(1, 1)[0] == 6e12 and dynabert.of(8, 3)[0] == 13e12
    assert copies.method == "augmentation" and copies.of(3, 8)[0] == pytest.approx(15e11)
    opened.close()
