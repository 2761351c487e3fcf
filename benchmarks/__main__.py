"""Runs every benchmark that needs no finished run, one after another: `python -m benchmarks`; those of Ray where Ray is installed.

Each in a process of its own: neither its memory nor its caches are those of the one before.
"""

import subprocess
import sys
from importlib.util import find_spec

NAMES = (
    "costs",
    "derivation",
    "dynabert_step",
    "dynabert_networks",
    "dynabert_memory",
    "evaluation",
    "latency",
    "query",
    "search",
    "selection",
    "augmentation",
    "corpus_memory",
    "blockwise",
)
WITH_RAY = ("ray_overhead", "ray_tune")


def main() -> int:
    """How many of them failed."""
    failed = []
    for name in (*NAMES, *(WITH_RAY if find_spec("ray") else ())):
        print(f"\n== python -m benchmarks.{name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
