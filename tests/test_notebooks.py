"""Every notebook runs from top to bottom, offline, and is kept without outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
WIDGETS = "application/vnd.jupyter.widget-state+json"


def executed(name: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> NotebookNode:
    """The notebook with its outputs, of that run folder. Raises where a cell does."""
    monkeypatch.setenv("ELASTIBENCH_RUN", str(run))
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    return notebook


def outputs_of(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def text_of(outputs: list[NotebookNode]) -> str:
    """All that was printed or shows itself as HTML."""
    return "".join(output.get("text", "") + output.get("data", {}).get("text/html", "") for output in outputs)


def pictures_in(notebook: NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs_of(notebook))


def widget_states(notebook: NotebookNode, kind: str) -> list[dict[str, Any]]:
    return [m["state"] for m in notebook.metadata["widgets"][WIDGETS]["state"].values() if m["model_name"] == kind]


def test_every_notebook_is_kept_without_outputs() -> None:
    paths = sorted(NOTEBOOKS.glob("*.ipynb"))
    assert len(paths) == 5
    for path in paths:
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        assert cells
        assert not [cell.source for cell in cells if cell.outputs or cell.execution_count is not None]


def test_the_readme_lists_every_notebook() -> None:
    readme = (NOTEBOOKS.parent / "README.md").read_text()
    assert not [path.name for path in NOTEBOOKS.glob("*.ipynb") if f"(notebooks/{path.name})" not in readme]


def test_the_quickstart_runs_on_a_finished_run(demo_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = executed("01_quickstart.ipynb", demo_run, monkeypatch)
    shown = text_of(outputs_of(notebook))
    for words in ("nothing fits", "2 FLOPs per multiply-add", "parameters, as the query said", "class 1:"):
        assert words in shown
    assert pictures_in(notebook) == 1


def test_fronts_slider_and_comparison_of_a_finished_run(demo_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = executed("02_fronts.ipynb", demo_run, monkeypatch)
    shown = text_of(outputs_of(notebook))
    for words in ("4 architectures were compared", "<b>front of ", "truncated-kd", "training_flops", r"\toprule"):
        assert words in shown
    assert pictures_in(notebook) == 2
    (slider,) = widget_states(notebook, "SelectionSliderModel")
    assert len(slider["_options_labels"]) == 4 and slider["index"] == 3
    (answered,) = widget_states(notebook, "OutputModel")
    assert "accuracy on search" in text_of(answered["outputs"])


def test_inside_the_supernets_what_is_extracted_is_what_was_searched(demo_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = executed("03_inside_the_supernets.ipynb", demo_run, monkeypatch)
    shown = text_of(outputs_of(notebook))
    for method in ("dynabert", "nasbert", "adabert"):
        assert f"{method}: 8 architectures, logits at most " in shown
    assert pictures_in(notebook) == 1


def test_a_task_and_a_backbone_of_ones_own(demo_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = executed("04_your_own_task_and_backbone.ipynb", demo_run, monkeypatch)
    shown = text_of(outputs_of(notebook))
    for words in ("methods[0].widths", "departments", "allowed: 0 to 1, or billing, delivery", "truncated-kd", "my parcel is late again"):
        assert words in shown


def test_a_method_of_ones_own_in_60_lines(demo_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = executed("05_your_own_method.ipynb", demo_run, monkeypatch)
    marks = ("class Narrow", "registry.register(")
    written = [cell.source for cell in notebook.cells if cell.cell_type == "code" and any(mark in cell.source for mark in marks)]
    assert len(written) == 4
    assert sum(bool(line.strip()) for source in written for line in source.splitlines()) <= 60
    shown = text_of(outputs_of(notebook))
    for words in ("adabert, narrow", "random (narrow)", "<b>narrow ", "parameters, as the query said"):
        assert words in shown
