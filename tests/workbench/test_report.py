"""The pictures beside a run's table: those alone that the run has something for."""

from __future__ import annotations

from pathlib import Path

from tests.analysis.corpus_runs import logs, sampled, two_tasks
from workbench.folder import RunFolder
from workbench.report import write_report


def pictures(run: Path) -> set[str]:
    return {path.name for path in (run / "report").iterdir() if path.suffix in (".png", ".svg")}


def test_a_corpus_has_pictures_of_its_estimates_and_its_shrinking(tmp_path: Path) -> None:
    run = two_tasks(tmp_path, tasks=("sst2",))
    sampled(run, 5, 0.01)
    logs(tmp_path, blocks=2, epochs=6)
    run.archive.note("wikipedia, nasbert, teacher", "output layer for masked words trained on frozen features")
    run.archive.close()
    text = write_report(RunFolder(tmp_path)).render()
    assert pictures(tmp_path) == {f"{name}.{form}" for name in ("pareto", "estimates", "shrinking") for form in ("png", "svg")}
    assert "wikipedia, nasbert, teacher: output layer for masked words trained on frozen features." in text
