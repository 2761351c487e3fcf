"""With what a run was made: versions, platform, threads, revision."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from methods.training.checkpoint import write_atomically

PACKAGES = ("elastibench", "torch", "transformers", "accelerate", "datasets", "safetensors", "optuna", "sqlalchemy", "numpy")


def describe(threads: int) -> dict[str, Any]:
    """Versions of what computes numbers, the platform, the threads used, and the source's git revision where there is one."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "threads": threads,
        "packages": {name: _version(name) for name in PACKAGES},
        "revision": _revision(Path(__file__).parent),
    }


def record(path: Path, threads: int) -> None:
    """Adds this environment to the file unless it is the one that was noted last."""
    seen: Any = []
    if path.exists():
        try:
            seen = json.loads(path.read_text())
        except ValueError:
            seen = []
    if not isinstance(seen, list):
        seen = []
    here = describe(threads)
    if not seen or seen[-1] != here:
        write_atomically(path, json.dumps([*seen, here], indent=1) + "\n")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _revision(folder: Path) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
