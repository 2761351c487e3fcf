"""How well early scores order the networks, against numbers computed by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from analysis.head_to_head import head_to_head
from analysis.ranks import Correlation, RankCorrelation, correlation, rank_correlations
from analysis.rendering import ranks_markdown
from analysis.runs import open_runs
from analysis.statistics import spearman
from tests.analysis.corpus_runs import CORPUS, GIGAFLOPS, LARGE, METHOD, SMALL, corpus_folder, estimated, sampled, two_tasks, words
from tests.analysis.runs import Folder, architecture, costs


def correlations(path: Path, method: str = METHOD) -> dict[tuple[str, str, str], RankCorrelation]:
    (run,) = open_runs([path])
    found = rank_correlations(run, method)
    run.close()
    return {(c.task, c.before, c.after): c for c in found}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
@settings(max_examples=50, deadline=None)
def test_spearman_is_scipys(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs).T
    if len(set(a)) > 1 and len(set(b)) > 1:
        assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    else:
        assert math.isnan(spearman(a, b))


def test_by_hand() -> None:
    assert spearman([1, 2, 3, 4], [10, 30, 20, 40]) == pytest.approx(1 - 6 * 2 / (4 * 15))


def test_few_architectures_have_no_interval() -> None:
    assert correlation([1, 2, 3], [3, 2, 1]) == Correlation(pytest.approx(-1))
    assert correlation([1, 1, 1], [3, 2, 1]).words == "undefined (a score is the same for all)"
    xs = np.arange(40.0)
    found = correlation(xs.tolist(), (xs + 30 * np.sin(xs * 7)).tolist())
    assert found.low is not None and found.high is not None and -1 < found.low < found.spearman < found.high < 1  # type: ignore[operator]
    assert "95 % interval" in found.words


def test_shared_weights_against_finished_networks(tmp_path: Path) -> None:
    """Random networks count; the supernet before the last one does not, nor what was measured on one side alone."""
    run = Folder(tmp_path, [{"max_flops": 1e9}])
    for heads, quality in ((1, 0.9), (2, 0.8), (3, 0.7), (4, 0.6), (5, 0.5)):
        run.measure(architecture(heads), quality, "search", cost=costs(heads / 10))
    run.trained = 1
    for heads, on_search in ((1, 0.5), (2, 0.6), (3, 0.7), (4, 0.8)):
        run.measure(architecture(heads), on_search, "search", cost=costs(heads / 10))
    run.measure(architecture(1), 0.60, "validation", "finished", costs(0.1))
    run.measure(architecture(3), 0.80, "validation", "finished", costs(0.3))
    run.measure(architecture(5), 0.10, "validation", "finished", costs(0.5))
    run.control("random", architecture(2), 0.85, costs(0.2))
    run.control("random", architecture(4), 0.90, costs(0.4))
    run.control("scratch", architecture(1), 0.99, costs(0.1))
    (found,) = correlations(tmp_path, "dynabert").values()
    assert (found.before, found.after, found.task, found.architectures) == ("shared", "finished", "sst2", 4)
    assert found.spearman == pytest.approx(0.8)


def test_scores_are_means_over_the_seeds_of_both(tmp_path: Path) -> None:
    run = Folder(tmp_path, [{"max_flops": 1e9}])
    for seed, shift in ((0, 0.0), (1, 0.1), (2, 5.0)):
        for heads in (1, 2, 3):
            if seed < 2 or heads == 1:
                run.measure(architecture(heads), heads / 10 + shift, "search", cost=costs(heads / 10), seed=seed)
    for seed in (0, 1):
        for heads in (1, 2, 3):
            run.measure(architecture(heads), heads / 10, "validation", "finished", costs(heads / 10), seed=seed)
    (found,) = correlations(tmp_path, "dynabert").values()
    assert found.spearman == pytest.approx(1), "the third seed, in which one network was scored and none finished, is left out"


def test_every_step_of_a_corpus_method(tmp_path: Path) -> None:
    run = two_tasks(tmp_path)
    with run.on(CORPUS, "log_likelihood"):
        for i, which in enumerate(w for w in GIGAFLOPS if w not in (SMALL, LARGE)):
            estimated(run, which, -1 - i, -3.0 + i, GIGAFLOPS[which])
    found = correlations(tmp_path)
    corpus = [("predicted", "assembled"), ("predicted", "pre-trained"), ("assembled", "pre-trained")]
    finished = [(name, "finished") for name in ("predicted", "assembled", "pre-trained")]
    assert list(found) == [(CORPUS, *pair) for pair in corpus] + [(task, *pair) for task in ("sst2", "trec6") for pair in finished]
    assert {c.architectures for c in found.values()} == {6}
    assert found["sst2", "pre-trained", "finished"].spearman == pytest.approx(1)


def test_one_supernet_is_set_against_every_seed(tmp_path: Path) -> None:
    run = corpus_folder(tmp_path, ("sst2",), corpus_seed=5)
    with run.on(CORPUS, "log_likelihood"):
        for i, which in enumerate(GIGAFLOPS):
            words(run, which, -4.0 + i / 10, -3.0 + i / 10, seed=5)
    for i, which in enumerate(GIGAFLOPS):
        for seed in (0, 1):
            run.measure(which, 0.9 - i / 20, "validation", "finished", costs(GIGAFLOPS[which]), seed=seed)
    found = correlations(tmp_path)["sst2", "predicted", "finished"]
    assert (found.architectures, found.spearman) == (6, pytest.approx(-1))


def test_two_networks_say_nothing_about_an_order(tmp_path: Path) -> None:
    two_tasks(tmp_path)
    assert (CORPUS, "predicted", "assembled") not in correlations(tmp_path)


def test_a_small_markdown_table(tmp_path: Path) -> None:
    sampled(two_tasks(tmp_path), 30, 0.2)
    table = head_to_head(tmp_path)
    lines = ranks_markdown(table.ranks).splitlines()
    assert len(lines) == 2 + len(table.ranks) and len({line.count("|") for line in lines}) == 1
    assert "| predicted" in lines[2] and "95 % interval" in lines[2] and " 32 " in lines[2]
    assert "### Rank correlations" in table.render("md")
