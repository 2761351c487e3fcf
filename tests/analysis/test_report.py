"""The page: what is in it, and in a real browser that it renders, answers as `query` does, and runs nothing that a name smuggles in."""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
from itertools import product
from pathlib import Path
from shlex import quote

import numpy as np
import pytest

from analysis.abstract import abstract
from analysis.head_to_head import HeadToHead, head_to_head
from analysis.html import environment
from analysis.report import _page, report
from analysis.runs import here, open_runs
from methods import Architecture, Budget, UserError
from methods.budget import parse_quantity
from search.archive import Archive
from search.query import Answer, best
from tests.analysis.browser import browser
from tests.analysis.corpus_runs import two_tasks
from tests.analysis.runs import Folder, costs, right, small_run

TOO_WIDE = """[...document.querySelectorAll('body *')]
    .filter((e) => !e.closest('.scroll *, pre, svg') && e.getBoundingClientRect().right > 390).map((e) => e.outerHTML.slice(0, 80))"""
"""Elements that stick out of a narrow page, but for what scrolls by itself."""
EVIL = "</script><img src=x onerror=alert(1)>&$x_1$"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run with a second method, whose name is hostile, and whose finished networks do not stand for all."""
    path = small_run(tmp_path_factory.mktemp("runs") / "one")
    folder = Folder(path, [{"name": "small", "max_flops": "1G"}, {"name": f"b {EVIL}", "max_flops": 1e8}])
    for size, (gigaflops, on_search) in enumerate(((0.2, 0.66), (0.4, 0.85), (0.9, 0.83))):
        which = Architecture.of(EVIL, {"size": size})
        folder.measure(which, on_search, "search", cost=costs(gigaflops))
        if size != 1:
            folder.measure(which, on_search, "search", "finished", costs(gigaflops))
            folder.measure(which, on_search, "validation", "finished", costs(gigaflops), correct=right(*range(17)))
    folder.archive.note(f"sst2, {EVIL}", EVIL)
    folder.archive.close()
    return path


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    return report(run)


def test_everything_is_in_one_file(page: Path, run: Path) -> None:
    text = page.read_text()
    assert page == run / "report" / "report.html"
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text), "nothing is fetched"
    for words in ("Head to head", "What fits?", "How it was run", "dense product", "elastibench run", "Cost of n tasks", "max_flops: 1G"):
        assert words in text
    packed = [gzip.decompress(base64.b64decode(svg)) for svg in re.findall('data-svg="([^"]+)"', text)]
    files = {path.read_bytes() for path in (page.parent / "figures").glob("*.svg")}
    assert set(packed) == files and len(packed) == len(files) >= 6


def test_names_are_text(page: Path) -> None:
    text = page.read_text()
    assert EVIL not in text and "<img src=x" not in text and "&lt;img src=x onerror=alert(1)&gt;" in text


def test_the_summary_has_five_sentences(run: Path, tmp_path: Path) -> None:
    two_tasks(tmp_path / "two").archive.close()
    bare = Folder(tmp_path / "bare", [{"max_flops": 1e9}])
    bare.measure(Architecture.of("m", {}), 0.5, "search", cost=costs(0.2))
    bare.archive.close()
    for path in (run, tmp_path / "two", tmp_path / "bare"):
        said = abstract(head_to_head(path))
        assert len(said) == 5 and all(sentence.endswith(".") and "None" not in sentence and "nan" not in sentence for sentence in said)
    assert said[1] == "No budget has two rows with a quality that could be set against each other."
    assert "was not recorded" in said[4]


def summary_of(path: Path, qualities: dict[str, float], teacher: float | None, limit: str = "1G", metric: str = "accuracy") -> list[str]:
    """Of networks of 0.5 GFLOPs, and a teacher of as many; the first is measured without predictions."""
    folder = Folder(path, [{"name": "small", "max_flops": limit}], metric=metric)
    for method, quality in qualities.items():
        folder.measure(Architecture.of(method, {}), quality, "search", cost=costs(0.5))
        folder.measure(Architecture.of(method, {}), quality, "validation", "finished", costs(0.5))
        folder.stage(method, "train", 10, 1e12 if quality else 1e9)
    if teacher is not None:
        folder.control("teacher", Architecture.of("teacher", {}), teacher, costs(0.5))
    folder.archive.close()
    return abstract(head_to_head(path))


def test_the_summary_is_true_of_poor_runs(tmp_path: Path) -> None:
    alone = summary_of(tmp_path / "alone", {"a": 0.9}, 0.95)
    assert alone[2] == "The only row with a quality keeps 94.7 % of the teacher's quality with 100 % of its FLOPs."
    assert alone[3].startswith("Whether the search beats random architectures of the same size can't be said in the only case")
    level = summary_of(tmp_path / "level", {"a": 0.0, "b": 0.0}, 0.0, metric="matthews")
    assert "not above 0" in level[2] and "not measured" not in level[2]
    none = summary_of(tmp_path / "none", {"a": 0.9, "b": 0.8}, None)
    assert "the teacher was not measured on validation" in none[2]
    many = summary_of(tmp_path / "many", {"a": 0.9, "b": 0.8}, 0.9)
    assert many[2] == "This row keeps 100.0 % of the teacher's quality with 100 % of its FLOPs."
    lost = summary_of(tmp_path / "lost", {"a": 0.9, "b": math.nan}, 0.9)
    assert "with a, 1T FLOPs" in lost[4], "what has no quality is not the cheapest"
    bare = Folder(tmp_path / "bare", [{"max_flops": 1e9}])
    bare.measure(Architecture.of("m", {}), 0.5, "search", cost=costs(0.2))
    bare.archive.close()
    said = abstract(head_to_head(bare.path))
    assert "none of its networks was measured on the split validation yet" in said[0] and "0 seeds" not in said[0]
    assert said[2] == "No row has a quality that could be set against the teacher's."
    assert summary_of(tmp_path / "other", {"a": 0.7, "b": 0.6}, None, "2G")
    both = abstract(head_to_head([tmp_path / "many", tmp_path / "other"]))
    assert "2 budgets (small: max_flops 1G, small: max_flops 2G)" in both[0]
    assert "a of many (small: max_flops 1G, 0.9000) and a of other (small: max_flops 2G, 0.7000)" in both[1]
    assert "; for 1 of 2 that can't be said (the teacher was not measured on validation)" in both[2]


def test_in_a_browser(page: Path, run: Path, tmp_path: Path) -> None:
    with Archive(run / "archive.db", create=False) as archive:
        measured = archive.measurements(task="sst2")
    with browser(tmp_path / "profile") as opened:
        opened.open(page)
        assert opened.run("document.querySelectorAll('h2').length") >= 7
        opened.wait("document.images.length >= 6 && [...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        assert opened.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), "nothing sticks out"
        assert opened.run("document.querySelectorAll('img[onerror]').length") == 0
        answers = []
        for cost in ("max_flops", "max_params_non_embedding"):
            opened.run(
                f"(() => {{ const s = document.getElementById('cost'); s.value = {cost!r}; s.dispatchEvent(new Event('change')) }})()"
            )
            for step in (0, 90, 150, 260, 330, 400):
                move = f"const s = document.getElementById('limit'); s.value = {step}; s.dispatchEvent(new Event('input'))"
                opened.run(f"(() => {{ {move} }})()")
                told = json.loads(opened.run("JSON.stringify([{...document.getElementById('answer').dataset}, shown.textContent])"))
                limit, shown = float(told[0]["limit"]), told[1].split()[0]
                assert parse_quantity(shown) == pytest.approx(limit, rel=1e-12), "what is shown can be given to query"
                answer = best(measured, Budget(**{cost: limit}))
                answers.append(answer.architecture.id if isinstance(answer, Answer) else "")
                assert told[0]["id"] == answers[-1]
        assert f"elastibench query {quote(here(run))} --task sst2 --max-" in opened.run("document.getElementById('answer').textContent")
        assert len(set(answers)) >= 4 and "" in answers, "the slider changes the answer"
        opened.ask("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
        assert opened.run(TOO_WIDE) == [], "it fits a phone"
        assert opened.complaints == []
        assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))] == []


ASK = """(() => {
    const answers = [];
    for (let task = 0; task < TASKS; task += 1) {
        const select = document.getElementById("task"), slider = document.getElementById("limit");
        select.value = String(task);
        select.dispatchEvent(new Event("change"));
        for (const step of [0, 100, 200, 300, 400]) {
            slider.value = String(step);
            slider.dispatchEvent(new Event("input"));
            const box = document.getElementById("answer");
            answers.push([task, box.dataset.limit, box.dataset.id, box.textContent]);
        }
    }
    return JSON.stringify(answers);
})()"""


def test_the_slider_answers_as_query_does_where_seeds_are_missing(tmp_path: Path) -> None:
    """Two methods, shared and finished, each network measured in some of three seeds; some qualities are no number."""
    rng, tasks = np.random.default_rng(0), 12
    folder = Folder(tmp_path / "seeds", [{"max_flops": "1G"}])
    for task in range(tasks):
        with folder.on(f"task{task}"):
            for method, size, kind, seed in product(("a", "b"), range(1, 5), ("shared", "finished"), range(3)):
                if rng.random() < 0.6:
                    quality = rng.choice([0.7, 0.8, 0.8, 0.9, math.nan] if task % 3 == 0 else [0.6, 0.7, 0.8, 0.9])
                    for split in ("search", "validation"):
                        which = Architecture.of(method, {"size": size})
                        folder.measure(which, float(quality), split, kind, costs(size * (0.2 if method == "a" else 0.25)), seed=seed)
    folder.archive.close()
    (run,) = open_runs([folder.path])
    page, measured = tmp_path / "page.html", run.measurements
    page.write_text(environment().get_template("report.html").render(_page(HeadToHead((), (run.name,)), [run], [])))
    run.close()
    with browser(tmp_path / "profile") as opened:
        opened.open(page)
        answers = json.loads(opened.run(ASK.replace("TASKS", str(tasks))))
    kinds = set()
    for task, limit, found, text in answers:
        answer = best(measured, Budget(max_flops=float(limit)), task=f"task{task}")
        assert found == (answer.architecture.id if isinstance(answer, Answer) else ""), (task, limit)
        if isinstance(answer, Answer):
            kinds.add(answer.kind)
            assert f"({answer.kind}; {len(answer.seeds)} seed" in text and f"({answer.validation_kind})" in text
    assert kinds == {"shared", "finished"}


def test_several_runs_and_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        small = Folder(tmp_path / name, [{"max_flops": 1e9}])
        small.measure(Architecture.of(name, {}), 0.5, "search", cost=costs(0.2))
        small.archive.close()
        with (tmp_path / name / "experiment.yaml").open("a") as experiment:
            experiment.write(f"corpus: {{data: {tmp_path / name}}}\n")
    text = report([tmp_path / "one", tmp_path / "two"], tmp_path / "both.html").read_text()
    assert "<h1>one, two</h1>" in text and text.count("elastibench report") >= 2
    assert "data: one\n" in text and str(tmp_path) not in text, "paths are as seen from here"
    with pytest.raises(UserError, match="no run folder"):
        report(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        report(tmp_path / "one", tmp_path / "file" / "page.html")
