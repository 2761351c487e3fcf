"""Published numbers: sourced, consistent in themselves, and apart from ours."""

from __future__ import annotations

from statistics import fmean

import pytest

from analysis.published import APART, TASKS, frame, published, render


def test_every_number_has_a_source_and_is_a_percentage() -> None:
    found = frame()
    assert len(found) > 100 and found["source"].str.contains(r"\(.+ 20\d\d\)").all()
    assert found["score"].between(0, 100).all() and set(found["task"]) == set(TASKS)


@pytest.mark.parametrize("table", published(), ids=lambda table: table.source)
def test_averages_are_those_of_the_columns(table: object) -> None:
    """A digit mistyped shows in the average, which the papers print too."""
    for row in table.rows:  # type: ignore[attr-defined]
        if "average" in row:
            assert row["average"] == pytest.approx(fmean(row[task] for task in TASKS if task in row), abs=0.065), row["model"]


def test_tables_of_their_own_with_conventions() -> None:
    assert published()[0].cells(["cola"])[0][:4] == ["model", "parameters", "FLOPs", "CoLA"], "the tasks of the run first"
    for form in ("table", "md"):
        text = render(form)
        assert APART in text and "dense product" in text and "Published numbers" in text
