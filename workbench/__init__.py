"""The command line, the experiment file and the verbs `run`, `plan`, `query`, `compare`, `dashboard`, `export`, `latency`, `report`.

Importing this package imports neither torch nor transformers; a verb is loaded when it is called for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.experiment import Experiment
    from workbench.folder import open_archive
    from workbench.loading import load_experiment
    from workbench.verbs.compare import compare
    from workbench.verbs.dashboard import dashboard
    from workbench.verbs.export import export
    from workbench.verbs.latency import latency
    from workbench.verbs.plan import plan
    from workbench.verbs.query import front, pareto, query
    from workbench.verbs.report import report
    from workbench.verbs.run import run

__all__ = [
    "Experiment",
    "compare",
    "dashboard",
    "export",
    "front",
    "latency",
    "load_experiment",
    "open_archive",
    "pareto",
    "plan",
    "query",
    "report",
    "run",
]

_HOMES = {
    "Experiment": "workbench.experiment",
    "load_experiment": "workbench.loading",
    "open_archive": "workbench.folder",
    "front": "workbench.verbs.query",
    "pareto": "workbench.verbs.query",
    **{verb: f"workbench.verbs.{verb}" for verb in ("run", "plan", "query", "compare", "dashboard", "export", "latency", "report")},
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'workbench' has no attribute {name!r}")
