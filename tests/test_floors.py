"""The house: a floor imports from the floors below it alone, and looking at it loads nothing heavy."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("methods", "search", "analysis", "workbench")
HEAVY = ("torch", "transformers", "datasets", "accelerate", "pandas", "sklearn", "optuna", "seaborn", "matplotlib", "ray", "scipy")


def imported(source: str, package: str) -> Iterator[str]:
    """The top-level names that a file imports anywhere, functions included; relative imports belong to its own package."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield package if node.level else (node.module or "").split(".")[0]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module" and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield name.value.split(".")[0]


def upward(floor: str, source: str) -> set[str]:
    """The floors above `floor` that a source imports."""
    above = FLOORS[FLOORS.index(floor) + 1 :]
    return {name for name in imported(source, floor) if name in above or name in ("tests", "notebooks", "benchmarks")}


@pytest.mark.parametrize("floor", FLOORS)
def test_floor_imports_downwards_only(floor: str) -> None:
    files = sorted((ROOT / floor).rglob("*.py"))
    assert files
    climbing = {str(file.relative_to(ROOT)): names for file in files if (names := upward(floor, file.read_text()))}
    assert not climbing


def test_a_lazy_import_upwards_is_seen() -> None:
    lines = ("from analysis.table import Table", "import workbench", "import_module('analysis.figures')", "from methods import get")
    source = "def f():\n" + "".join(f"    {line}\n" for line in lines)
    assert upward("search", source) == {"analysis", "workbench"}
    assert upward("workbench", source) == set()


def loaded(code: str) -> set[str]:
    """The heavy libraries that a fresh process has loaded after `code`."""
    report = f"{code}\nimport json, sys\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(done.stderr.strip().splitlines()[-1]))


@pytest.mark.parametrize("floor", FLOORS)
def test_importing_a_floor_is_light(floor: str) -> None:
    assert loaded(f"import {floor}") == set()


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["query", "--help"], ["version"]])
def test_help_is_light(arguments: list[str]) -> None:
    code = f"from workbench.cli import app\ntry:\n    app({arguments!r})\nexcept SystemExit as end:\n    assert not end.code, end.code"
    assert loaded(code) == set()
