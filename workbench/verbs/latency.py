"""`latency`: a latency table of this machine for the networks of an experiment."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods.backbone import BERT_BASE
from methods.errors import UserError
from methods.latency import LatencyTable
from methods.registry import get, names
from methods.tasks.head import Head
from methods.training.progress import progress_bar
from search.latency.apart import Setting
from search.latency.parts import Served
from search.latency.profile import build_profile
from search.latency.scenarios import scenario as find_scenario
from workbench.experiment import CostOptions, Experiment
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
        less = f", each less {_ms(t.call)} ms for the call," if t.call else ""
        between = f" and {len(t.interpolated)} interpolated" if t.interpolated else ""
        body = [self._row(key) if key else ["..."] + 5 * [""] for key in shown]
        return "\n".join(
            [
                f"{t.name}: {f.processor}, {f.cores} cores; {f.backend} ({f.runtime}), {f.device}, {f.dtype}, threads {f.threads},"
                f" batch {f.batch}, length {f.length}, {f.clock} time",
                "",
                *columns(["part", "mean ms", "std", "10 %", "90 %", "runs"], body),
                "",
                f"a network takes {t.scale:.4g} x the sum of its parts{less} + {_ms(t.fixed)} ms (from {t.calibrated_on} networks)",
                self._error(),
                *[f"warning: {warning}" for warning in t.warnings],
                f"{len(parts)} parts measured{between}, written to {self.path}",
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
        return ", ".join([f"on {error.n} other networks: mean absolute error {error.mape:.1%}", *ranks])


def latency(
    device: str,
    experiment: Path | str | None = None,
    backend: str = "torch",
    batch: int | None = None,
    length: int | None = None,
    threads: int = 1,
    seconds: float = 300.0,
    output: Path | str | None = None,
    overrides: Sequence[str] = (),
    scenario: str | None = None,
    held_out: int = 50,
) -> Profiled:
    """Measures, writes and returns the table of all parts that the experiment's methods have under its tasks' heads.

    Without an experiment: every method as it comes, on BERT-base. `batch` and `length` are the experiment's `cost` where they are None;
    `scenario` sets them both. `held_out`: so many networks test the table. Raises UserError.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", device):
        raise UserError(f"DEVICE-NAME {device!r}: letters, digits, '_' and '-' are allowed")
    path = Path(output or Path("latency") / f"{device}.json")
    if path.is_dir():
        raise UserError(f"--output {path}: is a directory; name a file")
    if experiment is None and overrides:
        raise UserError("--set: changes an experiment, and none is given; name one with --experiment")
    loaded = None if experiment is None else load_experiment(experiment, overrides)
    setting = setting_of(loaded, backend, batch, length, threads, seconds, scenario)
    served = served_by_default() if loaded is None else served_by(loaded, str(experiment))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {path}: no file can be written there ({error.strerror})") from error
    bar = progress_bar(STEPS, f"latency of {device}")
    try:
        table = build_profile(device, served, setting, held_out=held_out, heard=lambda share: bar.update(round(STEPS * share) - bar.n))
        bar.update(STEPS - bar.n)
    finally:
        bar.close()
    table.save(path)
    return Profiled(table, path)


def setting_of(
    experiment: Experiment | None, backend: str, batch: int | None, length: int | None, threads: int, seconds: float, name: str | None
) -> Setting:
    """How to measure. Raises UserError where a scenario is asked for that is not there, or that would be changed."""
    if name is None:
        cost = experiment.cost if experiment else CostOptions()
        return Setting(backend=backend, batch=batch or cost.batch, length=length or cost.length, threads=threads, seconds=seconds)
    chosen, changed = find_scenario(name), {"--batch": batch, "--length": length}
    given = next((option for option, value in changed.items() if value is not None), None)
    if given:
        raise UserError(f"{given}: --scenario {name} says it already ({chosen.batch} x {chosen.length} tokens); leave one of the two out")
    same = {field: getattr(chosen, field) for field in ("device", "batch", "length", "runs")}
    return Setting(backend=backend, threads=threads, seconds=seconds, **same)


def served_by_default() -> list[Served]:
    """Every method that needs no options to be given, on BERT-base, for one text and for pairs."""
    ready = [get(name) for name in names() if not any(field.is_required() for field in get(name).options.model_fields.values())]
    spaces = [method.space(method.options(), BERT_BASE) for method in ready]
    return [Served(space, BERT_BASE, Head("classification", 2, pair=pair)) for space in spaces for pair in (False, True)]


def served_by(experiment: Experiment, name: str) -> list[Served]:
    """The experiment's spaces under each head that its tasks ask for. Raises UserError."""
    backbone, _ = backbone_config(experiment.backbone)
    found: dict[Served, None] = {}
    for member in members_of(experiment, backbone, name):
        for options in experiment.tasks_of(member.entry):
            found[Served(member.space, backbone, options.spec.head)] = None
    return list(found)


def label(key: str) -> str:
    """A part's key in short: its kind and its plain sizes."""
    data: dict[str, Any] = json.loads(key)
    kind = str(data.pop("kind")).replace("_", " ")
    sizes = [f"{name} {value}" for name, value in data.items() if isinstance(value, int | str) and value is not False]
    return f"{kind}: {', '.join(sizes)}" if sizes else kind


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3f}"
