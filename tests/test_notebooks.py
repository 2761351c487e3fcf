"""The notebook runs from top to bottom on a finished run, and is kept without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

QUICKSTART = Path(__file__).parents[1] / "notebooks" / "01_quickstart.ipynb"


def test_every_notebook_is_kept_without_outputs() -> None:
    for path in sorted(QUICKSTART.parent.glob("*.ipynb")):
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        assert cells
        assert not [cell.source for cell in cells if cell.outputs or cell.execution_count is not None]


def test_the_quickstart_runs_on_a_finished_run(demo_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELASTIBENCH_RUN", str(demo_run))
    notebook = nbformat.read(QUICKSTART, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(QUICKSTART.parent)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    for words in ("nothing fits", "2 FLOPs per multiply-add", "parameters, as the query said", "class 1:"):
        assert words in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
