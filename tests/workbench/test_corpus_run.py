"""A run with a method that is trained on a corpus: what it leaves, that nothing is done twice, and what can be asked of it."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

import workbench
from methods import load_network, registry
from methods.corpus.corpus import Corpus
from methods.errors import UserError
from search.archive import Archive
from tests.conftest import write_text
from tests.workbench import toy_corpus_method
from tests.workbench.toy_corpus_method import ToyCorpusRecipe, trained
from workbench.cli import app
from workbench.loading import load_experiment
from workbench.planning import make_plan
from workbench.predicting import NonePredicted, Predicted

SCHEDULE = {"epochs": 1, "learning_rate": 0.003, "batch_size": 16}


@pytest.fixture(scope="module", autouse=True)
def _toy() -> Iterator[None]:
    registry.register(toy_corpus_method.METHOD)
    yield
    registry.unregister("toycorpus")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tiny_backbone_folder: Path) -> Path:
    """The experiment's file."""
    folder = tmp_path_factory.mktemp("experiment")
    write_text(folder / "text", 60)
    demo = {"name": "demo", "data": "generated", "rows": 64, "max_length": 48}
    experiment = {
        "backbone": str(tiny_backbone_folder),
        "tasks": [demo],
        "corpus": {"name": "tiny", "data": "text/text.txt", "search_share": 0.1, "validation_share": 0.1},
        "teacher": {"schedule": SCHEDULE},
        "methods": [{"name": "toycorpus"}],
        "controls": {"random": 0, "truncated_kd": SCHEDULE, "hand_made": True, "variants": ["small"]},
        "budgets": [{"name": "small", "max_flops": "60K"}, {"name": "all", "max_flops": "1G"}],
        "search": {"sampled": 2},
        "cost": {"length": 32, "batch": 1},
        "hardware": {"device": "cpu", "threads": 1},
    }
    path = folder / "corpus.yaml"
    path.write_text(yaml.safe_dump(experiment))
    return path


@pytest.fixture(scope="module")
def corpus_run(written: Path) -> Path:
    trained.clear()
    workbench.run(written, output=written.parent / "run")
    return written.parent / "run"


@pytest.fixture
def run_copy(corpus_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(corpus_run, tmp_path / "run"))


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "report" / "measurements.csv").open() as file:
        return sorted(csv.DictReader(file), key=lambda row: tuple(row.values()))


def test_what_it_leaves(corpus_run: Path) -> None:
    measured = rows(corpus_run)
    on_corpus = {(row["kind"], row["control"], row["split"]) for row in measured if row["task"] == "tiny"}
    shipped = {("finished", ""), ("control", "hand-made"), ("control", "again"), ("control", "hand-made again")}
    assert on_corpus == {("predicted", "", "search"), ("assembled", "", "search")} | {
        (*each, split) for each in shipped for split in ("search", "validation")
    }
    on_task = {(row["kind"], row["control"]) for row in measured if row["task"] == "demo" and row["method"] == "toycorpus"}
    assert on_task == shipped
    assert (corpus_run / "corpus/tiny/toycorpus/teacher").is_dir() and (corpus_run / "corpus/tiny/toycorpus/seed-0/supernet").is_dir()
    assert "toycorpus" in (corpus_run / "report" / "table.txt").read_text()


def test_the_winner_is_the_likeliest_of_the_candidates(corpus_run: Path) -> None:
    with Archive(corpus_run / "archive.db", create=False) as archive:
        assembled = archive.measurements("tiny", "toycorpus", "assembled")
        finished = {m.architecture for m in archive.measurements("tiny", "toycorpus", "finished")}
        searches = archive.searches("tiny")
    small = [m for m in assembled if m.costs.flops <= 60_000]
    assert small and max(small, key=lambda m: m.quality).architecture in finished
    assert {(s.strategy, s.budget) for s in searches} == {("tables", "small"), ("tables", "all")}
    assert all(s.flops > 0 and 1 <= s.evaluations <= 2 for s in searches)


def test_every_stage_is_recorded_once_and_controls_of_another_way_apart(corpus_run: Path) -> None:
    with Archive(corpus_run / "archive.db", create=False) as archive:
        stages = archive.stages()
    names = [row.stage for row in stages if (row.task, row.method) == ("tiny", "toycorpus")]
    assert names.count("teacher") == names.count("supernet") == names.count("tables") == 1
    assert {row.stage.split("-")[0] for row in stages if row.method == "toycorpus again"} == {"pretrain", "finetune"}
    winners = [row for row in stages if row.method == "toycorpus"]
    cut = sum(row.flops for row in stages if row.method == "truncated-kd")
    assert 0 < cut <= 1.5 * sum(row.flops for row in winners)


def test_run_again_does_nothing(written: Path, run_copy: Path) -> None:
    before = rows(run_copy)
    trained.clear()
    workbench.run(written, output=run_copy)
    assert trained == [] and rows(run_copy) == before


def test_what_was_lost_is_made_again_with_the_same_numbers(written: Path, run_copy: Path) -> None:
    before = rows(run_copy)
    for file in run_copy.glob("archive.db*"):
        file.unlink()
    lost = next((run_copy / "corpus/tiny/toycorpus/seed-0").glob("pretrain-*"))
    shutil.rmtree(lost)
    shutil.rmtree(run_copy / "corpus/tiny/toycorpus/seed-0/tables")
    trained.clear()
    workbench.run(written, output=run_copy)
    assert trained == ["tables", lost.name] and rows(run_copy) == before


def test_a_run_that_is_stopped_between_stages_goes_on(
    written: Path, corpus_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain = ToyCorpusRecipe.pretrain

    def stopped(*arguments: Any, **more: Any) -> Any:
        pretrain(*arguments, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(ToyCorpusRecipe, "pretrain", stopped)
    with pytest.raises(KeyboardInterrupt):
        workbench.run(written, output=tmp_path / "run")
    monkeypatch.undo()
    trained.clear()
    workbench.run(written, output=tmp_path / "run")
    assert not {"teacher", "supernet", "tables"} & set(trained)
    assert rows(tmp_path / "run") == rows(corpus_run)


def test_growing_by_seeds_and_a_task_trains_only_what_is_new(written: Path, run_copy: Path) -> None:
    before = {tuple(row.values()) for row in rows(run_copy)}
    experiment = yaml.safe_load(written.read_text())
    first = {**experiment["tasks"][0], "seeds": [0, 1]}
    folder = run_copy.parent / "opinions"
    folder.mkdir()
    text = "sentence\tlabel\n" + "".join(f"a fine film number {i}\t{i % 2}\n" for i in range(40))
    for name in ("train", "validation"):
        (folder / f"{name}.tsv").write_text(text)
    second = {"name": "sst2", "data": str(folder), "max_length": 48, "seeds": [0]}
    grown = run_copy.parent / "grown.yaml"
    corpus = {**experiment["corpus"], "data": str(written.parent / "text" / "text.txt")}
    controls = {**experiment["controls"], "truncated_kd": False}
    grown.write_text(yaml.safe_dump({**experiment, "corpus": corpus, "tasks": [first, second], "seeds": [0, 1], "controls": controls}))
    trained.clear()
    workbench.run(grown, output=run_copy)
    assert trained.count("supernet") == 1 and "teacher" not in trained
    after = rows(run_copy)
    assert before <= {tuple(row.values()) for row in after}
    assert {row["seed"] for row in after if row["task"] == "sst2" and row["method"] == "toycorpus"} == {"0"}
    assert {row["seed"] for row in after if row["task"] == "demo" and row["method"] == "toycorpus"} == {"0", "1"}
    with pytest.raises(UserError, match=r"different: tasks\[0\]\.seeds"):
        workbench.run(grown, output=run_copy, set=["tasks[0].seeds=[1]"])
    with pytest.raises(UserError, match=r"different: corpus\.search_share"):
        workbench.run(grown, output=run_copy, set=["corpus.search_share=0.2"])


def test_one_supernet_serves_all_seeds(written: Path, tmp_path: Path) -> None:
    trained.clear()
    some = ["corpus.seed=5", "seeds=[0, 1]", "controls.truncated_kd=false", "controls.hand_made=false", "controls.variants=[]"]
    workbench.run(written, output=tmp_path / "run", set=some)
    assert trained.count("supernet") == 1
    found = rows(tmp_path / "run")
    assert {row["seed"] for row in found if row["task"] == "tiny"} == {"5"}
    assert {row["seed"] for row in found if row["task"] == "demo" and row["kind"] == "finished"} == {"0", "1"}
    assert workbench.query(tmp_path / "run", by="predicted").source.seed == 5


def test_a_task_starts_from_another(written: Path, tmp_path: Path) -> None:
    experiment = yaml.safe_load(written.read_text())
    folder = tmp_path / "data"
    folder.mkdir()
    text = "sentence\tlabel\n" + "".join(f"a fine film number {i}\t{i % 2}\n" for i in range(40))
    for name in ("train", "validation"):
        (folder / f"{name}.tsv").write_text(text)
    tasks = [{"name": "sst2", "data": str(folder), "max_length": 48}, *experiment["tasks"]]
    corpus = {**experiment["corpus"], "data": str(written.parent / "text" / "text.txt")}
    methods = [{"name": "toycorpus", "init_from": {"sst2": "demo"}}]
    changes = {"tasks": tasks, "corpus": corpus, "methods": methods, "controls": {"random": 0, "truncated_kd": False}}
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump({**experiment, **changes, "budgets": [{"max_flops": "1G"}]}))
    trained.clear()
    workbench.run(path, output=tmp_path / "run")
    with Archive(tmp_path / "run" / "archive.db", create=False) as archive:
        order = list(dict.fromkeys(m.task for m in archive.measurements(kind="finished")))
    assert order == ["tiny", "demo", "sst2"]
    with pytest.raises(UserError, match="task sst2 starts from mnli, which is no task"):
        workbench.run(path, output=tmp_path / "other", set=["methods[0].init_from={sst2: mnli}"])
    with pytest.raises(UserError, match="which starts from"):
        workbench.run(path, output=tmp_path / "other", set=["methods[0].init_from={sst2: demo, demo: sst2}"])
    with pytest.raises(UserError, match="not run with seed 0; add it to the seeds of demo"):
        workbench.run(path, output=tmp_path / "other", set=["seeds=[0, 1]", "tasks[1].seeds=[1]"])
    assert not (tmp_path / "other").exists()


def test_stages_see_no_validation(written: Path, corpus_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, opened = [False], set()
    packed, steps = Corpus.packed, ("train", "assemble", "pretrain")

    def watched(self: Corpus, split: str, length: int) -> Any:
        opened.add((inside[-1], split))
        return packed(self, split, length)

    def during(name: str) -> None:
        original = getattr(ToyCorpusRecipe, name)

        def wrapped(*arguments: Any, **more: Any) -> Any:
            inside.append(True)
            try:
                return original(*arguments, **more)
            finally:
                inside.pop()

        monkeypatch.setattr(ToyCorpusRecipe, name, wrapped)

    monkeypatch.setattr(Corpus, "packed", watched)
    for name in steps:
        during(name)
    workbench.run(written, output=tmp_path / "run", set=["controls.truncated_kd=false", "controls.variants=[]"])
    assert {(True, "train"), (True, "search"), (False, "validation")} <= opened and (True, "validation") not in opened


def test_the_tables_answer_without_weights_or_archive(corpus_run: Path, run_copy: Path) -> None:
    answer = workbench.query(run_copy, max_flops="60K", by="predicted")
    assert isinstance(answer, Predicted) and answer.estimate.costs.flops <= 60_000 and answer.slack["max_flops"] >= 0
    for kept in run_copy.rglob("*"):
        if kept.is_file() and kept.name not in ("experiment.yaml", "losses.csv"):
            kept.unlink()
    again = workbench.query(run_copy, max_flops="60K", by="predicted", method="toycorpus", task="demo")
    assert isinstance(again, Predicted) and again.estimate.architecture == answer.estimate.architecture
    front = workbench.front(run_copy)
    assert [e.costs.flops for e in front.estimates] == sorted(e.costs.flops for e in front.estimates)
    assert [e.loss for e in front.estimates] == sorted((e.loss for e in front.estimates), reverse=True)
    nothing = workbench.query(run_copy, max_flops=10, by="predicted")
    assert isinstance(nothing, NonePredicted) and "smallest achievable" in nothing.message()
    for wrong, said in (({"seed": 3}, "--seed 3"), ({"task": "rte"}, "--task rte"), ({"method": "dynabert"}, "--method dynabert")):
        with pytest.raises(UserError, match=said):
            workbench.query(run_copy, by="predicted", **wrong)
    with pytest.raises(UserError, match=r"max_latency\.phone"):
        workbench.query(run_copy, by="predicted", max_latency={"phone": "12ms"})


def test_query_by_what_was_measured_is_on_the_task(corpus_run: Path) -> None:
    answer = workbench.query(corpus_run, max_flops="60K")
    assert answer.task == "demo" and answer.kind == "finished"
    assert workbench.query(corpus_run, task="tiny").metric == "log_likelihood"


def test_the_command_line_asks_the_tables(corpus_run: Path) -> None:
    def call(*words: str) -> Any:
        return CliRunner().invoke(app, ["query", str(corpus_run), *words])

    assert "predicted loss" in call("--max-flops", "60K", "--by", "predicted").stdout
    assert json.loads(call("--max-flops", "60K", "--by", "predicted", "--json").stdout)["kind"] == "predicted"
    assert call("--max-flops", "10", "--by", "predicted").exit_code == 1
    assert json.loads(call("--front", "--json").stdout)["front"] and "none of which" in call("--front", "--cost", "max_params").stdout
    for words in (("--front", "--max-flops", "1G"), ("--cost", "max_flops"), ("--by", "luck"), ("--max-latency", "12ms"), ("--seed", "1")):
        assert call(*words).exit_code == 2


def test_export_gives_the_finished_network(corpus_run: Path, run_copy: Path, tmp_path: Path) -> None:
    answer = workbench.query(corpus_run, max_flops="60K")
    trained.clear()
    exported = workbench.export(corpus_run, answer.architecture.id[:12], tmp_path / "network")
    assert exported.architecture == answer.architecture and trained == []
    network = load_network(tmp_path / "network")
    from methods.evaluation import weights_digest

    with Archive(corpus_run / "archive.db", create=False) as archive:
        shipped = {m.weights_digest for m in archive.measurements("demo", kind="finished") if m.architecture == answer.architecture}
    assert {weights_digest(network)} == shipped
    assert network(torch.tensor([[2, 5, 3]])).logits.shape == (1, 2)
    lost = next((run_copy / "corpus/tiny/toycorpus/seed-0").glob(f"pretrain-{answer.architecture.id[:12]}"))
    shutil.rmtree(lost)
    with pytest.raises(UserError, match="not finished"):
        workbench.export(run_copy, answer.architecture.id, tmp_path / "other")


def test_the_plan_lists_the_corpus_once(written: Path) -> None:
    plan = make_plan(load_experiment(written, ["seeds=[0, 1]", "tasks[0].seeds=[0]", "corpus.seed=null"]), "e")
    rows = {(row.task, row.stage): row for row in plan.stages if row.who == "toycorpus"}
    assert set(rows) == {("tiny", s) for s in ("teacher", "supernet", "select", "sampled", "pretrain")} | {("demo", "finetune")}
    assert {s: rows["tiny", s].times for s in ("teacher", "supernet", "select")} == {"teacher": 1, "supernet": 1, "select": 2}
    assert rows["tiny", "pretrain"].times == rows["demo", "finetune"].times == 2 * 2 + 1 * 1 * 2
    equal = next(row for row in plan.stages if row.who == "truncated-kd")
    assert equal.flops == 2 * 5e5 + 1e6 + 3e6 + 2 * 1e6 + 2 * 2e6
    two = make_plan(load_experiment(written, ["seeds=[0, 1]"]), "e")
    assert next(row for row in two.stages if row.stage == "supernet").times == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("corpus=null", r"corpus: missing; methods\[0\] \(toycorpus\)"),
        ("corpus.data=none.txt", "corpus.data"),
        ("corpus.name=demo", "corpus.name: demo is also a task's name"),
        ("methods[0].length=65", "reads texts of 65 tokens"),
        ("budgets[0].max_flops=10", r"budgets\[0\]: no method can meet it"),
        ("budgets[0].max_latency={phone: 12ms}", r"budgets\[0\].max_latency: there is no device 'phone'"),
        ("budgets[0].max_latency={phone: soon}", "no time above 0"),
        ("tasks[0].seeds=[4]", r"seeds: 4 is none of the experiment's seeds \[0\]"),
        ("controls.variants=[tiny]", "controls.variants: there is no budget 'tiny'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(written: Path, tmp_path: Path, change: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        workbench.run(written, output=tmp_path / "run", set=[change])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["", "good film\n\nbad plot\n\nfine\n"])
def test_a_corpus_that_is_empty_or_too_short_leaves_no_run(written: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "short.txt").write_text(text)
    with pytest.raises(UserError, match="corpus"):
        workbench.run(written, output=tmp_path / "run", set=[f"corpus.data={tmp_path / 'short.txt'}"])
    assert not (tmp_path / "run").exists()
