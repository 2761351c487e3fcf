"""Early stop with a supernet's weights: what is read, what it costs, and what is refused; no training is needed for any of it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from methods import registry
from methods.backbone import Backbone
from methods.budget import Budget
from methods.errors import UserError
from methods.evaluation import evaluate, evaluate_in_parts
from methods.recipe import Context, Hardware, TaskRecipe
from methods.space import Architecture
from methods.tasks.batches import joint
from methods.tasks.task import Task
from search.archive import Archive
from search.limits import CostFunction
from search.loop import Evaluated, SearchResult
from search.query import Answer, best
from search.stopping import Race, Stopped
from tests.conformance.cases import randomise
from tests.conftest import make_split, make_tiny_backbone, make_tiny_task
from workbench.experiment import CostOptions, SearchOptions
from workbench.folder import RunFolder
from workbench.loading import check
from workbench.measuring import Measurer
from workbench.session import Session
from workbench.shared_scores import SharedScores

ROWS = 240
OPTIONS = {"strategy": "evolution", "evaluations": 24, "generation": 4}
BUDGETS = [Budget(max_flops=180_000), Budget(max_flops=1e9)]


def scores_in(folder: Path) -> SharedScores:
    """A random supernet on rows whose labels are what its largest network says, so that the others are the worse the less they have."""
    method = registry.get("dynabert")
    backbone = Backbone.load(str(make_tiny_backbone(folder / "backbone", num_hidden_layers=3, num_attention_heads=4)))
    options = method.options(space="elastic", widths=[0.25, 0.5, 1.0], depths=[0.5, 1.0], teacher_width="full")
    recipe, space = method.recipe(options), method.space(options, backbone.config)
    assert isinstance(recipe, TaskRecipe)
    task, collate = make_tiny_task(), joint(backbone.tokenizer, 32)
    torch.manual_seed(0)
    supernet = method.supernet(space, backbone.config, task.head).eval()
    randomise(supernet, 0)
    split = make_split("search", ROWS, 1)
    whole = evaluate(lambda batch: supernet.forward_logits(batch, space.largest()), collate, split, task.spec).logits
    supernet.get_parameter("head.classifier.bias").data -= torch.from_numpy(np.median(whole, axis=0))
    labels = (whole - np.median(whole, axis=0)).argmax(axis=1)
    task = Task(task.spec, {"train": task.split("train"), "search": replace(split, labels=labels)})
    measurer = Measurer(Archive(folder / "archive.db"), task, collate, 0, CostOptions(length=16), Hardware())
    return SharedScores(recipe, Context(folder, backbone, task, 0), supernet, measurer, CostFunction(space, backbone.config, task.head, 16))


@pytest.fixture
def scores(tmp_path: Path) -> Iterator[SharedScores]:
    made = scores_in(tmp_path)
    yield made
    made.measurer.archive.close()


def with_archive(scores: SharedScores, archive: Archive) -> SharedScores:
    return replace(scores, measurer=replace(scores.measurer, archive=archive))


def told(result: SearchResult) -> list[Any]:
    """Of every pass, without seconds."""
    parts = [[replace(one, seconds=0.0) for one in (*part.measurements, *part.hopeless)] for part in result.passes]
    return [[(one.architecture, getattr(one, "metrics", None), getattr(one, "estimate", None)) for one in part] for part in parts]


def test_parts_give_the_logits_of_the_whole(scores: SharedScores) -> None:
    measurer, split = scores.measurer, scores.measurer.task.split("search")
    run = scores.recipe.score(scores.context, scores.supernet, scores.supernet.space.smallest())
    order = np.random.default_rng(0).permutation(ROWS)
    whole = evaluate(run, measurer.collate, split, measurer.task.spec)
    found = list(evaluate_in_parts(run, measurer.collate, split, np.split(order, [30, 100])))
    assert [len(rows) for rows, _ in found] == [30, 100, ROWS]
    for rows, logits in found:
        assert set(rows) == set(order[: len(rows)])
        np.testing.assert_allclose(logits, whole.logits[rows], atol=1e-5)


def test_a_search_reads_fewer_rows_finds_the_same_and_says_what_it_cost(scores: SharedScores, tmp_path: Path) -> None:
    whole = scores.search(BUDGETS, SearchOptions(**OPTIONS))
    assert all(not part.hopeless for part in whole.passes) and scores.measurer.archive.stopped() == []
    with Archive(tmp_path / "early" / "archive.db") as archive:
        early = with_archive(scores, archive)
        result = early.search(BUDGETS, SearchOptions(**OPTIONS, early_stop=0.1))
        stopped = archive.stopped()
        assert stopped and {one.architecture for one in stopped}.isdisjoint(m.architecture for m in archive.measurements())
        assert all(one.rows < ROWS and one.p <= 0.1 / (24 * 3) for one in stopped)
        for budget in BUDGETS:
            one, other = best(scores.measurer.archive, budget), best(archive, budget)
            assert isinstance(one, Answer) and isinstance(other, Answer) and one.quality == other.quality
        again = early.search(BUDGETS, SearchOptions(**OPTIONS, early_stop=0.1))
        assert [part.evaluated for part in again.passes] == [0, 0] and told(again) == told(result)
        part = result.passes[1]
        row = early.cost(part.strategy, part.label, part.measurements, part.hopeless)
        least = scores.cost(part.strategy, part.label, part.measurements)
        assert row.evaluations == len(part.measurements) + len(part.hopeless) == 24 > least.evaluations
        all_whole = scores.cost(part.strategy, part.label, [scores.keep(one.architecture) for one in part.hopeless])
        shares = [one.rows / ROWS for one in part.hopeless]
        assert min(shares) * all_whole.flops <= row.flops - least.flops <= max(shares) * all_whole.flops


def test_a_pool_of_other_processes_finds_the_same_bit_for_bit(scores: SharedScores, tmp_path: Path) -> None:
    def elsewhere(asked: Sequence[Architecture | Race]) -> Iterator[Evaluated | Stopped]:
        return iter([scores.answer(pickle.loads(pickle.dumps(one))) for one in reversed(asked)])

    here = scores.search(BUDGETS, SearchOptions(**OPTIONS, early_stop=0.1))
    with Archive(tmp_path / "pool" / "archive.db") as archive:
        there = replace(with_archive(scores, archive), elsewhere=elsewhere).search(BUDGETS, SearchOptions(**OPTIONS, early_stop=0.1))
        assert told(here) == told(there) and any(part.hopeless for part in there.passes)
        for m in archive.measurements():
            one, other = archive.predictions(m.key), scores.measurer.archive.predictions(m.key)
            assert one is not None and other is not None
            np.testing.assert_array_equal(one.logits, other.logits)


def experiment(**search: Any) -> dict[str, Any]:
    return {
        "backbone": "demo",
        "task": {"name": "demo", "data": "generated", "rows": 60},
        "methods": [{"name": "dynabert"}],
        "budgets": [{"max_flops": "1G"}],
        "search": search,
    }


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"early_stop": 0}, "my.yaml: search.early_stop: .*greater than 0"),
        ({"early_stop": 1}, "my.yaml: search.early_stop: .*less than 1"),
        ({"early_stop": 0.05, "objectives": ["max_flops"]}, "my.yaml: search: early_stop: a front has no one best"),
        ({"early_stop": 0.05, "report_all": True}, "my.yaml: search: early_stop: report_all shows every architecture"),
    ],
)
def test_where_it_makes_no_sense_it_is_refused(search: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check(experiment(**search), "my.yaml")


def test_a_metric_that_is_no_mean_of_right_answers_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    from workbench.checking import check as look

    asked = {**experiment(early_stop=0.05), "task": {"name": "likeness", "data": "generated", "rows": 60}}
    session = Session(check(asked, "my.yaml"), RunFolder(tmp_path), "my.yaml")
    with pytest.raises(UserError, match=r"my.yaml: search.early_stop: task likeness is ranked by spearman"):
        look(session)
    look(Session(check(experiment(early_stop=0.05), "my.yaml"), RunFolder(tmp_path), "my.yaml"))
