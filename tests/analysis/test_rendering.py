"""Every format can be read by what it is made for, and says how its numbers are meant."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path

import pytest

from analysis.description import describe
from analysis.head_to_head import HeadToHead, head_to_head
from analysis.latex import escaped
from methods import UserError
from methods.costs import Costs
from methods.space import Architecture
from search.timings import Timed, keep_timed
from tests.analysis.runs import Folder, architecture, costs, small_run

FORMATS = ("table", "md", "tex", "csv", "json")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> HeadToHead:
    return head_to_head(small_run(tmp_path_factory.mktemp("runs") / "one"))


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_states_its_conventions(small: HeadToHead, format: str) -> None:
    text = small.render(format)
    flat = re.sub(r"\s+", " ", text)
    assert "2 FLOPs per multiply-add" in flat
    for word in ("length", "batch" if format == "csv" else "text", "search", "validation", "seed"):
        assert word in flat


def test_a_task_of_two_metrics_shows_both(tmp_path: Path) -> None:
    run = Folder(tmp_path / "run", [{"max_flops": 1e9}], task="squad", metric="answer_f1")
    which = architecture(3)
    for seed, (f1, exact) in enumerate(((0.8, 0.6), (0.7, 0.5))):
        run.measure(which, f1, "search", seed=seed)
        for split in ("search", "validation"):
            run.measure(which, f1, split, "finished", seed=seed, also={"exact_match": exact, "file_bytes": 1e6})
    run.control("teacher", architecture(12), 0.9, costs(3.0))
    run.archive.close()
    table = head_to_head(tmp_path / "run")
    found = {row.row: row for row in table.rows}
    assert found["dynabert"].also == {"exact_match": pytest.approx(0.55)} and found["teacher"].also == {}
    lines = [line.split() for line in table.render().splitlines()]
    assert lines[1][2:5] == ["answer_f1", "exact_match", "search"]
    shown = next(line for line in lines if line[:1] == ["dynabert"])
    assert "0.5500" in shown and max(map(len, table.render().splitlines())) <= 120
    assert json.loads(table.render("json"))["rows"][0]["also.exact_match"] == pytest.approx(0.55)
    assert r"exact\_match" in table.render("tex") and "also.exact_match" in table.render("csv").splitlines()[0]


def test_the_terminal_table_fits_120_columns(small: HeadToHead) -> None:
    lines = small.render().splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[0] == "sst2, budget small (max_flops 1G)"
    assert lines[1].split() == ["row", "architecture", "accuracy", "search", "gap", "kept", "to", "the", "best", "p"]
    winner, costs = (line.split() for line in lines if line.startswith("dynabert *"))
    for cell in ("0.9000", "*", "0.8600", "-6.0", "93.8%", "best"):
        assert cell in winner
    for cell in ("1M+2M", "1G", "4", "12", "6T", "200", "400", "4K"):
        assert cell in costs
    assert next(line.split() for line in lines if line.startswith("random ("))[-5:] == ["85.4%", "-8.0", "[-13.0,", "-3.5]", ".004"]


@pytest.fixture
def timed(tmp_path: Path) -> HeadToHead:
    """A winner that was timed on two devices, and a control on neither."""
    devices = {"a-phone-with-a-name": 0.02, "another-device": 0.03}
    run = Folder(tmp_path, [{"name": "small", "max_latency": {"another-device": 0.1}}])
    known = Costs(10, 20, 3_000_000_000, latency=devices)
    run.measure(architecture(3), 0.9, "search", cost=known)
    run.measure(architecture(3), 0.9, "validation", "finished", cost=known)
    run.control("teacher", Architecture.of("teacher", {}), 0.95, costs(4.0))
    run.stage("dynabert", "width", 123_456, 2e12)
    for device, seconds in devices.items():
        keep_timed(run.archive, Timed("sst2", "dynabert", architecture(3).id, device, seconds, 0.01 + seconds, 5, finished=True))
    return head_to_head(tmp_path)


def test_columns_beyond_120_stand_below_with_the_rows_names(timed: HeadToHead) -> None:
    lines = timed.render().splitlines()
    assert max(map(len, lines)) <= 120 and "…" not in "".join(lines)
    first, second, _ = (line.split("  ") for line in lines if line.startswith("dynabert") and "0.9000" not in line)
    cells = [cell.strip() for cell in (*first, *second) if cell.strip()]
    assert cells.count("dynabert") == 2, "the third is what n tasks x b budgets cost"
    for cell in ("10+20", "3G", "20", "30", "40", "2T", "123.5K", "370.4K"):
        assert cell in cells, cell


def test_a_row_without_a_devices_latency_says_why(timed: HeadToHead) -> None:
    text, teacher = "the device's table does not know all of its parts", timed.frame.set_index("row").loc["teacher"]
    assert math.isnan(teacher["latency.another-device"]) and f"latency.another-device: {text}" in teacher["why_empty"].replace(
        "latency.a-phone-with-a-name, ", ""
    )
    rows = {row["row"]: row for row in json.loads(timed.render("json"))["rows"]}
    assert rows["dynabert"]["latency_measured.another-device"] == 0.04
    assert rows["teacher"]["latency_measured.another-device"] is None
    assert rows["teacher"]["why"]["latency_measured.another-device"] == "of whole networks what ships is timed, no control"


def test_the_winner_is_bold_everywhere(small: HeadToHead) -> None:
    assert r"\textbf{0.9000}" in small.render("tex") and small.render("tex").count(r"\textbf{0.") == 1
    assert "| **dynabert**" in small.render("md") and small.render("md").count("**0.") == 1
    html = small._repr_html_()
    assert "<strong>0.9000</strong>" in html and html.count("<strong>0.") == 1


def test_empty_cells_point_to_reasons(small: HeadToHead) -> None:
    text = small.render()
    marks = set(re.findall(r"–(\[\d+\])", text))
    assert marks and all(re.search(rf"^–{re.escape(mark)} \S", text, re.MULTILINE) for mark in marks)
    assert "nothing fits tiny" in text


def test_csv_is_csv(small: HeadToHead) -> None:
    rows = list(csv.DictReader(io.StringIO(small.render("csv"))))
    assert len(rows) == len(small.rows)
    first = rows[0]
    assert (first["row"], float(first["quality"]), float(first["gap"]), first["spread"]) == ("dynabert", 0.9, -6.0, "")
    assert (first["length"], first["batch"], first["chosen_on"], first["quality_on"]) == ("64", "1", "search", "validation")
    assert "spread: one network" in first["why_empty"]


def test_json_is_strict(small: HeadToHead) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    data = json.loads(small.render("json"), parse_constant=refuse)
    assert data["rows"][0]["quality"] == 0.9 and data["rows"][0]["spread"] is None
    assert data["rows"][0]["why"]["spread"] == "one network"
    assert len(data["sentences"]) == 2


def test_tex_is_balanced_and_escaped(small: HeadToHead) -> None:
    text = small.render("tex")
    plain = re.sub(r"\\textbackslash\{\}|\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert text.count(r"\begin{") == text.count(r"\end{") == 10, "quality and costs of two budgets, tasks x budgets"
    tables = re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL)
    for columns, body in tables:
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert lines and {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(columns) - 1}
    body = "".join(body for _, body in tables)
    assert not re.search(r"(?<!\\)[%#_]", body)
    assert escaped("50 % of a_b & {c} \\ ± 1") == r"50 \% of a\_b \& \{c\} \textbackslash{} $\pm$ 1"


def test_markdown_has_one_cell_per_column(small: HeadToHead) -> None:
    tables = [table.splitlines() for table in small.render("md").split("\n\n") if table.startswith("|")]
    assert len(tables) == 6, "quality and costs of two budgets, tasks x budgets, rank correlations"
    assert all(len(table) > 2 and len({line.count("|") for line in table}) == 1 for table in tables)


def test_the_frame_holds_the_rows(small: HeadToHead) -> None:
    frame = small.frame
    assert len(frame) == len(small.rows)
    assert frame.loc[0, "quality"] == 0.9 and frame["quality"].isna().sum() == sum(r.quality is None for r in small.rows)
    assert frame["max_flops"].tolist()[0] == 1e9


def test_an_unknown_format_is_named(small: HeadToHead) -> None:
    with pytest.raises(UserError, match="'html' is unknown; there are table, md, tex, csv, json"):
        small.render("html")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ({"heads": [3, 3], "layers": [0, 1]}, "layers 0-1, heads 3"),
        ({"layers": [0, 2, 5], "heads": [2, 2, 1]}, "layers 0 2 5, heads 2×2 1"),
        ({"layers": []}, "layers none"),
        ({"width": 8, "kind": "x"}, "kind x, width 8"),
        ({"blocks": [["a", 1], ["a", 1], {"b": 2}]}, "blocks a 1×2 (b=2)"),
        ({"blocks": [{"h": 8, "ops": ["S3", "M"]}, {"h": 8, "ops": ["F"]}, {"h": 8, "ops": ["F"]}]}, "blocks (8:S3.M) (8:F)×2"),
    ],
)
def test_architectures_in_words(choices: dict[str, object], text: str) -> None:
    assert describe(Architecture.of("m", choices)) == text


def test_long_descriptions_are_cut(tmp_path: Path) -> None:
    assert describe(Architecture.of("m", {"widths": [3, 1, 4, 1, 5, 9]}), width=12) == "widths 3 1…"
