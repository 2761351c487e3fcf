"""The page: what is in it, and in a real browser that it renders, answers as `query` does, and runs nothing that a name smuggles in."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from shlex import quote

import pytest

from analysis.abstract import abstract
from analysis.head_to_head import head_to_head
from analysis.report import report
from analysis.runs import here
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
