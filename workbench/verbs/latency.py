"""`latency`: a latency table of this machine for the networks of an experiment."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods.errors import UserError
from methods.latency import LatencyTable
from methods.training.progress import progress_bar
from search.latency.apart import Setting
from search.latency.parts import Served
from search.latency.profile import build_profile
from workbench.experiment import Experiment
from workbench.loading import load_experiment
from workbench.session import members_of
from workbench.sizes import backbone_config
from workbench.text import columns

SHOWN = 8
STEPS = 1000


@dataclass(frozen=True)
class Profiled:
    """A table that was measured and written to `path`."""

    table: LatencyTable
    path: Path

    def render(self) -> str:
        """The fastest and slowest parts, the calibration, and the error on networks that it did not see."""
        t, f = self.table, self.table.fingerprint
        parts = sorted(t.parts, key=lambda key: -t.parts[key].mean)
        shown = parts if len(parts) <= 2 * SHOWN else [*parts[:SHOWN], "", *parts[-SHOWN:]]
        body = [self._row(key) if key else ["..."] + 5 * [""] for key in shown]
        return "\n".join(
            [
                f"{t.name}: {f.processor}, {f.cores} cores; {f.backend} ({f.torch}), {f.dtype}, threads {f.threads}, batch {f.batch},"
                f" length {f.length}, {f.clock} time",
                "",
                *columns(["part", "mean ms", "std", "10 %", "90 %", "runs"], body),
                "",
                f"a network takes {t.scale:.4g} x the sum of its parts + {_ms(t.fixed)} ms (from {t.calibrated_on} networks)",
                self._error(),
                *[f"warning: {warning}" for warning in t.warnings],
                f"{len(parts)} parts written to {self.path}",
            ]
        )

    def _row(self, key: str) -> list[str]:
        timing = self.table.parts[key]
        return [label(key), *(_ms(value) for value in (timing.mean, timing.std, timing.p10, timing.p90)), str(timing.n)]

    def _error(self) -> str:
        error = self.table.held_out
        if error is None:
            return "no network was left to test it on"
        ranks = [f"{name} {value:.3f}" for name, value in (("Kendall", error.kendall), ("Spearman", error.spearman)) if value is not None]
        return ", ".join([f"on {error.n} other networks: mean error {error.mape:.1%}", *ranks])


def latency(
    device: str,
    experiment: Path | str,
    backend: str = "torch",
    batch: int | None = None,
    length: int | None = None,
    threads: int = 1,
    seconds: float = 300.0,
    output: Path | str | None = None,
    overrides: Sequence[str] = (),
) -> Profiled:
    """Measures, writes and returns the table of all parts that the experiment's methods have under its tasks' heads.

    `batch` and `length` are the experiment's `cost` where they are None. Raises UserError.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", device):
        raise UserError(f"DEVICE-NAME {device!r}: letters, digits, '_' and '-' are allowed")
    path = Path(output or Path("latency") / f"{device}.json")
    if path.is_dir():
        raise UserError(f"--output {path}: is a directory; name a file")
    loaded = load_experiment(experiment, overrides)
    setting = Setting(backend, batch or loaded.cost.batch, length or loaded.cost.length, threads, seconds)
    served = served_by(loaded, str(experiment))
    bar = progress_bar(STEPS, f"latency of {device}")
    try:
        table = build_profile(device, served, setting, heard=lambda share: bar.update(round(STEPS * share) - bar.n))
        bar.update(STEPS - bar.n)
    finally:
        bar.close()
    table.save(path)
    return Profiled(table, path)


def served_by(experiment: Experiment, name: str) -> list[Served]:
    """The experiment's spaces under each head that its tasks ask for. Raises UserError."""
    backbone, _ = backbone_config(experiment.backbone)
    heads = dict.fromkeys(options.spec.head for options in experiment.all_tasks)
    return [Served(member.space, backbone, head) for member in members_of(experiment, backbone, name) for head in heads]


def label(key: str) -> str:
    """A part's key in short: its kind and its plain sizes."""
    data: dict[str, Any] = json.loads(key)
    kind = str(data.pop("kind")).replace("_", " ")
    sizes = [f"{name} {value}" for name, value in data.items() if isinstance(value, int | str) and value is not False]
    return f"{kind}: {', '.join(sizes)}" if sizes else kind


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3f}"
