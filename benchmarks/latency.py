"""How well the sum of timed parts tells how long a whole network takes: NAS-BERT's space over a 6-layer backbone, one thread.

The backbone in backbones/minilm-l6 where it is there, else a BERT of its shape. Weights are random: they do not matter for time.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from methods.backbone import BackboneConfig
from methods.nasbert.space import NasBertSpace
from methods.tasks.head import Head
from search.latency.apart import Setting
from search.latency.parts import Served
from search.latency.profile import build_profile

FOLDER = Path("backbones/minilm-l6")
SHAPE = BackboneConfig(vocabulary=30522, positions=512, types=2, hidden=384, layers=6, heads=12, intermediate=1536)
SECONDS = 90.0


def main() -> None:
    space = NasBertSpace(sublayers=12, blocks=3, hidden_sizes=(128, 192, 256), embedding_sizes=(384,), backbone=backbone())
    started = time.perf_counter()
    table = build_profile("benchmark", [Served(space, backbone(), Head("classification", 2))], Setting(seconds=SECONDS), 20, 20)
    taken, seen, error = time.perf_counter() - started, table.fingerprint, table.held_out
    assert error is not None
    runs = sorted(timing.n for timing in table.parts.values())
    print(f"{seen.processor}, {seen.threads} thread, batch {seen.batch}, length {seen.length}, torch {seen.torch}, {seen.clock} time")
    line = f"scale {table.scale:.3f}, fixed {1e3 * table.fixed:.3f} ms"
    print(f"{len(table.parts)} parts, {runs[0]} to {runs[-1]} runs each, {taken:.0f} s; {line}")
    print(f"{'held-out networks':>18}{'fastest':>10}{'slowest':>10}{'MAPE':>8}{'Spearman':>10}{'Kendall':>9}")
    fastest, slowest = 1e3 * min(error.measured), 1e3 * max(error.measured)
    print(f"{error.n:>18}{fastest:>7.2f} ms{slowest:>7.2f} ms{error.mape:>8.1%}{error.spearman:>10.3f}{error.kendall:>9.3f}")
    for warning in table.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def backbone() -> BackboneConfig:
    """The shape of the backbone at hand."""
    if not (FOLDER / "config.json").exists():
        return SHAPE
    from transformers import AutoConfig

    return BackboneConfig.from_transformers(AutoConfig.from_pretrained(str(FOLDER)), str(FOLDER))


if __name__ == "__main__":
    main()
