"""Methods trained on a corpus: their control rows, what their networks cost, and how well they find masked words."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from analysis.head_to_head import HeadToHead, head_to_head
from analysis.rows import Row
from methods import Budget, UserError
from methods.recipe import stage_of
from tests.analysis.corpus_runs import (
    BUDGETS,
    CORPUS,
    GIGAFLOPS,
    HAND_LARGE,
    HAND_SMALL,
    LARGE,
    METHOD,
    SMALL,
    corpus_folder,
    finish,
    two_tasks,
)
from tests.analysis.runs import Folder, costs, small_run


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> HeadToHead:
    path = tmp_path_factory.mktemp("runs") / "corpus"
    two_tasks(path)
    return head_to_head(path)


def row(table: HeadToHead, name: str, budget: str = "small", task: str = "sst2") -> Row:
    return next(r for r in table.rows if (r.row, r.budget, r.task) == (name, budget, task))


def test_the_corpus_is_no_task(table: HeadToHead) -> None:
    assert [(b.task, b.budget.name) for b in table.blocks] == [(t, b) for t in ("sst2", "trec6") for b in ("small", "large")]
    assert [(b.task, b.budget.name, b.metric) for b in table.corpora] == [(CORPUS, b, "log_likelihood") for b in ("small", "large")]


def test_rows_of_a_block_and_their_order(table: HeadToHead) -> None:
    small, large = ([r.row for r in block.rows] for block in table.blocks[:2])
    own = [f"{name} ({METHOD})" for name in ("random", "hand-made", "scratch", "hand-made scratch")]
    assert small == [METHOD, *own, "truncated-kd", "teacher"]
    assert large == [METHOD, *own[:2], "truncated-kd", "teacher"], "the other way was asked for under the small budget alone"


def test_the_hand_made_network_is_the_costliest_that_fits(table: HeadToHead) -> None:
    """Not the best: that would be chosen by what it is compared in."""
    assert row(table, f"hand-made ({METHOD})").architecture_id == HAND_SMALL.id
    found = row(table, f"hand-made ({METHOD})", "large")
    assert (found.architecture_id, found.quality, found.gap) == (HAND_LARGE.id, 0.85, pytest.approx(-10))
    assert row(table, f"hand-made scratch ({METHOD})").architecture_id == HAND_SMALL.id


def test_hand_made_networks_of_several_seeds(tmp_path: Path) -> None:
    run = two_tasks(tmp_path, corpus_seed=0)
    finish(run, "sst2", seed=1)
    with run.on("sst2"):
        run.control("hand-made", HAND_LARGE, 0.75, costs(0.96), seed=2)
        run.control("hand-made", HAND_SMALL, 0.99, costs(0.42), seed=2)
    found = row(head_to_head(tmp_path), f"hand-made ({METHOD})", "large")
    assert found.networks == 3 and found.quality == pytest.approx((0.85 + 0.85 + 0.75) / 3)


def test_no_hand_made_network_fits(tmp_path: Path) -> None:
    two_tasks(tmp_path)
    table = head_to_head(tmp_path, [Budget(max_flops=4.1e8, name="tight")])
    found = row(table, f"hand-made ({METHOD})", "tight")
    assert found.quality is None and found.why["quality"] == "none fits: smallest max_flops 420M" == found.why["training_flops"]
    assert row(table, f"scratch ({METHOD})", "tight").architecture_id == SMALL.id
    assert not [r for r in table.rows if r.row.startswith("hand-made scratch")]


def test_a_network_in_another_way_is_the_winners_shape(table: HeadToHead) -> None:
    found = row(table, f"scratch ({METHOD})")
    assert (found.architecture_id, found.quality) == (SMALL.id, 0.7)


def test_what_a_winner_cost(table: HeadToHead) -> None:
    """8e12 for all networks of 2 tasks x 2 budgets, its own pre-training for 2 tasks, its own fine-tuning."""
    found = row(table, METHOD)
    assert found.training_flops == pytest.approx(8e12 / 4 + 1e12 / 2 + 1e10)
    assert found.training_steps == pytest.approx(35 / 4 + 40 / 2 + 30)
    assert found.training_subnetwork_steps == pytest.approx(3 * found.training_steps)
    assert found.training_seconds == pytest.approx(17.5 / 4 + 20 / 2 + 15)
    assert (found.corpus_flops, found.corpus_seconds) == (9e12, 17.5 + 20)
    large = row(table, METHOD, "large")
    assert (large.training_flops, large.corpus_flops) == (pytest.approx(8e12 / 4 + 2e12 / 2 + 2e10), 10e12)


def test_what_controls_cost(table: HeadToHead) -> None:
    """Their own pre-training and fine-tuning alone; in another way those of that way."""
    for name, corpus in (("hand-made", 3e12), ("random", 5e12), ("scratch", 7e12), ("hand-made scratch", 8e12)):
        found = row(table, f"{name} ({METHOD})")
        assert (found.training_flops, found.corpus_flops) == (pytest.approx(corpus / 2 + corpus / 100), corpus), name
    assert row(table, "teacher").why["corpus_flops"] == "no training recorded"


def test_the_search_was_on_the_corpus(table: HeadToHead) -> None:
    assert [row(table, METHOD, b, "trec6").search_seconds for b in ("small", "large")] == [3, 5]
    assert row(table, METHOD).search_evaluations == 20


def test_every_empty_cell_says_why(table: HeadToHead) -> None:
    rows = [*table.rows, *(r for block in table.corpora for r in block.rows)]
    values = [(r, name, value) for r in rows for name, value in r.data().items()]
    assert not [(r.row, name) for r, name, value in values if value is None and name != "chosen_by" and not r.why.get(name)]
    assert not [(r.row, name) for r, name, value in values if value is not None and name in r.why]


def test_one_supernet_serves_all_seeds(tmp_path: Path) -> None:
    """Its work, recorded under its own seed, counts for the networks of every seed; the teacher's, recorded under another, too."""
    run = corpus_folder(tmp_path, ("sst2",), corpus_seed=5)
    with run.on(CORPUS, "log_likelihood"):
        run.measure(SMALL, -2.5, "search", "finished", costs(0.4), seed=5)
        run.stage(METHOD, "teacher", 10, 1e12, seed=0)
        run.stage(METHOD, "supernet", 10, 4e12, seed=5)
        run.stage(METHOD, stage_of("retrain", SMALL), 10, 2e12, seed=5)
    with run.on("sst2"):
        for seed in (0, 1):
            run.measure(SMALL, 0.8 + seed / 10, "search", "finished", costs(0.4), seed=seed)
            run.stage(METHOD, stage_of("finetune", SMALL), 10, (1 + seed) * 1e10, seed=seed)
    found = row(head_to_head(tmp_path), METHOD)
    assert (found.corpus_flops, found.training_flops) == (7e12, pytest.approx(5e12 / 2 + 2e12 + 1.5e10))


def test_supernets_of_two_seeds_share_the_teacher(tmp_path: Path) -> None:
    run = corpus_folder(tmp_path, ("sst2",))
    for seed, which in ((0, SMALL), (1, LARGE)):
        with run.on(CORPUS, "log_likelihood"):
            run.measure(which, -2.5, "search", "finished", costs(0.4), seed=seed)
            run.stage(METHOD, "supernet", 10, (4 + 2 * seed) * 1e12, seed=seed)
        run.measure(which, 0.8, "search", "finished", costs(0.4), seed=seed)
    run.task = CORPUS
    run.stage(METHOD, "teacher", 10, 1e12)
    table = head_to_head(tmp_path)
    assert row(table, METHOD).corpus_flops == pytest.approx((4e12 + 6e12) / 2 + 1e12)
    assert "6T FLOPs (10 s) per supernet serve all networks of 1 task under 2 budgets" in table.work[0]


def test_a_stage_for_one_network_is_no_cost_of_another(tmp_path: Path) -> None:
    """Methods trained on the task may have such stages too; random networks then have a cost of their own."""
    path = small_run(tmp_path / "one")
    table = head_to_head(path)
    assert row(table, "random (dynabert)").why["training_flops"] == "the method's supernet, trained once for all rows"
    run = Folder(path, [{"name": "small", "max_flops": "1G"}])
    chosen = [m for m in run.archive.measurements("sst2", "dynabert") if m.control == "random"]
    for i, m in enumerate(chosen):
        run.stage("dynabert", stage_of("finish", m.architecture), 10, (i + 1) * 1e11)
    table = head_to_head(path)
    assert row(table, "random (dynabert)").training_flops == pytest.approx(1.5e11), "the third is not in the window"
    assert row(table, "dynabert").training_flops == 6e12


def test_held_out_masked_words(table: HeadToHead) -> None:
    small = table.corpora[0].rows
    assert [(r.row, r.quality) for r in small] == [
        (METHOD, -2.6), (f"random ({METHOD})", -2.9), (f"hand-made ({METHOD})", -2.8),
        (f"scratch ({METHOD})", -3.3), (f"hand-made scratch ({METHOD})", -3.4),
    ]  # fmt: skip
    assert small[0].search_quality == -2.5 and small[0].training_flops == 9e12 and small[0].flops == GIGAFLOPS[SMALL] * 1e9


def test_the_text_holds_words_work_and_ranks(table: HeadToHead) -> None:
    text = table.render()
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120
    start = lines.index(f"{CORPUS}: held-out masked words (nats per word, larger is better)")
    assert lines[start + 1].split() == ["budget", "row", "architecture", "validation", "emb.+other", "FLOPs", "corpus"]
    flat = " ".join(text.split())
    assert "corpus work listed whole (`corpus`) and, in `train`, divided by the tasks and budgets it serves: 8T FLOPs (17.5 s)" in flat
    assert "serve all networks of 2 tasks under 2 budgets; a network's own pre-training serves 2 tasks." in flat
    assert "sst2, nasbert: rank correlation of pre-trained with finished 1.00, n = 6." in flat
    costs = next(i for i, line in enumerate(lines) if line.endswith(": costs"))
    assert lines[costs + 1].split()[-2:] == ["examples", "corpus"]


def test_other_forms_hold_the_corpus_too(table: HeadToHead) -> None:
    rows = list(csv.DictReader(io.StringIO(table.render("csv"))))
    assert [r["task"] for r in rows][-8:] == [CORPUS] * 8 and len(rows) == len(table.rows) + 8
    assert float(rows[0]["corpus_flops"]) == 9e12
    data = json.loads(table.render("json"))
    ranked = [(c["before"], c["after"], c["task"]) for c in data["rank_correlations"]]
    assert ranked == [("pre-trained", "finished", task) for task in ("sst2", "trec6")]
    assert any("corpus work listed whole" in sentence for sentence in data["sentences"])
    for form in ("md", "tex"):
        assert "held-out masked words" in table.render(form)  # type: ignore[arg-type]
    tex = table.render("tex")
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 10 and "`" not in tex, (
        "two for each task and budget, one for the corpus, one for tasks x budgets"
    )


def test_a_run_without_corpus_has_no_such_column(tmp_path: Path) -> None:
    table = head_to_head(small_run(tmp_path / "one"))
    text = table.render()
    assert table.corpora == () and table.work == () and "corpus" not in text.replace("on the corpus, with", "").replace("a corpus", "")


def test_a_corpus_that_is_asked_for_is_a_block(tmp_path: Path) -> None:
    two_tasks(tmp_path)
    table = head_to_head(tmp_path, tasks=[CORPUS])
    assert [b.task for b in table.blocks] == [CORPUS] * len(BUDGETS) and table.corpora == ()
    assert row(table, METHOD, task=CORPUS).training_flops == 9e12
    with pytest.raises(UserError, match="'mnli' was not measured; there are sst2, trec6, wikipedia"):
        head_to_head(tmp_path, tasks=["mnli"])


def test_a_run_that_has_finished_nothing_yet(tmp_path: Path) -> None:
    run = corpus_folder(tmp_path, ("sst2",))
    with run.on(CORPUS, "log_likelihood"):
        run.measure(SMALL, -2.5, "search", "finished", costs(0.4))
    table = head_to_head(tmp_path)
    assert table.blocks == () and table.corpora[0].rows[0].search_quality == -2.5
    assert table.corpora[0].rows[0].why["quality"] == "not measured on validation"
    assert all(table.render(form) for form in ("table", "md", "tex", "csv", "json"))  # type: ignore[arg-type]
