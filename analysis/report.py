"""`report`: one HTML file of one or several runs that needs nothing beside it and no network."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.abstract import abstract
from analysis.asking import questions
from analysis.cells import conventions, parts
from analysis.diagnoses import Diagnosis
from analysis.head_to_head import HeadToHead, head_to_head
from analysis.html import environment, part_data, plain_data
from analysis.prices import WHAT, prices_table
from analysis.published import APART, published
from analysis.ranks import SCORES, ranks_table
from analysis.runs import QUALITY_SPLIT, Run, here, open_runs
from methods.errors import UserError
from methods.training.checkpoint import write_atomically

if TYPE_CHECKING:
    from search.measurement import Measurement

LARGEST = 600_000
"""Bytes of an SVG above which the page shows the PNG."""


@dataclass(frozen=True)
class Figure:
    """A picture in the page: `svg`, zipped, in base64 (the page unpacks it; a sixth of the size), or `url`, a PNG's data URL."""

    title: str
    text: str
    svg: str = ""
    url: str = ""


def report(runs: Sequence[Path | str] | Path | str, path: Path | str | None = None, say: Callable[[str], None] = lambda _: None) -> Path:
    """Writes the page (default: `report/report.html` in the first run's folder) and beside it, in `figures/`, its pictures as PNG and SVG.

    `say` is told what is being made. Returns the page's path. Raises UserError where a folder is no run, nothing was measured, or the
    page can't be written.
    """
    folders = [Path(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    say("tables and tests")
    table = head_to_head(folders)
    target = Path(path) if path is not None else folders[0] / "report" / "report.html"
    figures = list(_figures(table, folders, target.parent / "figures", say))
    opened = open_runs(folders)
    try:
        page = environment().get_template("report.html").render(_page(table, opened, figures))
    finally:
        for run in opened:
            run.close()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, page)
    except OSError as error:
        raise UserError(f"{target}: can't be written ({error.strerror or error})") from error
    return target


def _page(table: HeadToHead, runs: Sequence[Run], figures: Sequence[Figure]) -> dict[str, Any]:
    tasks = list(dict.fromkeys(block.task for block in table.blocks))
    named = len(runs) > 1
    return {
        "title": ", ".join(table.runs),
        "summary": abstract(table),
        "parts": [part_data(part) for part in parts(table)],
        "conventions": conventions(table.blocks),
        "figures": figures,
        "questions": [entry for run in runs for entry in questions(run)],
        "prices": plain_data(*prices_table(table.prices, named), ("run", "method")) if table.prices else None,
        "prices_note": WHAT,
        "ranks": plain_data(*ranks_table(table.ranks, named), ("run", "method", "on", "score", "later score")) if table.ranks else None,
        "ranks_note": SCORES,
        "diagnostics": _diagnostics(table.diagnoses),
        "alarms": sum(d.alarm for d in table.diagnoses),
        "facts": [*table.facts, *table.work],
        "published": [
            (f"{p.source}; GLUE {p.data}", p.metrics, p.sizes, plain_data(*p.cells(tasks), ("model", "parameters"))) for p in published()
        ],
        "published_note": APART,
        "runs": [_how(run) for run in runs],
    }


def _figures(table: HeadToHead, folders: Sequence[Path], into: Path, say: Callable[[str], None]) -> Iterator[Figure]:
    """All pictures that there is something to draw for."""
    for name, title, text, draw in _pictures(table, folders):
        say(f"figure: {title}")
        try:
            png = draw(into / name)
        except UserError:  # of a run in which there is nothing of this kind to draw
            continue
        svg = png.with_suffix(".svg")
        if svg.stat().st_size <= LARGEST:
            yield Figure(title, text, svg=base64.b64encode(gzip.compress(svg.read_bytes(), mtime=0)).decode())
        else:
            yield Figure(title, text, url=f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode()}")


def _pictures(table: HeadToHead, folders: Sequence[Path]) -> Iterator[tuple[str, str, str, Callable[[Path], Path]]]:
    """Name, title, what it shows, and what draws it."""
    from analysis.ablation_figure import ablation
    from analysis.alpha_figure import alpha
    from analysis.anatomy_figure import anatomy
    from analysis.estimates_figure import estimates
    from analysis.figures import LIMITS, pareto
    from analysis.finishing_figure import finishing
    from analysis.forest_figure import forest
    from analysis.hypervolume_figure import hypervolume
    from analysis.latencies_figure import latencies
    from analysis.shrinking_figure import shrinking

    yield "comparison", "Every row under each budget", "Means, single networks and intervals over examples.", lambda to: forest(table, to)
    devices = dict.fromkeys(device for row in table.rows for device in row.latency)
    for cost in [*LIMITS, *(f"latency.{device}" for device in devices)]:
        what = {"flops": "FLOPs", "other_parameters": "parameters outside the embedding"}.get(cost, cost.replace(".", " on "))
        text = "Left what the choice saw, with its front; right what ships, with the controls."
        yield f"pareto-{cost.replace('.', '-')}", f"Quality over {what}", text, lambda to, cost=cost: pareto(folders, to, cost)  # type: ignore[misc]
    for place, folder in enumerate(folders):
        end = f"-{place + 1}" if len(folders) > 1 else ""
        of = f", {table.runs[place]}" if end else ""
        tables = _latency_tables(folder)
        each: list[tuple[str, str, str, Callable[..., Path]]] = [
            ("ablation", "What each change costs", "Labelled rows against the method without a label, in points of quality.", ablation),
            ("anatomy", "What won", "The winner of each method and budget, of the seed that did best on search.", anatomy),
            ("hypervolume", "How fast the search got good", "The share of a box that the front dominates.", hypervolume),
            (
                "finishing",
                "Does the score that chose foresee the finished network?",
                "Shared weights on search, finished on validation.",
                finishing,
            ),
            ("estimates", "Do the tables foresee whole networks?", "Assembled networks over what the tables predict.", estimates),
            ("shrinking", "How the supernet shrank", "Losses and paths alive, block by block.", shrinking),
            ("alpha", "How a differentiable search decided", "Entropies, what was derived, and the terms of the loss.", alpha),
        ]
        for name, title, text, draw in each:
            yield name + end, title + of, text, lambda to, draw=draw, folder=folder: draw(folder, to)  # type: ignore[misc]
        if tables:
            text = "Networks that the table's calibration did not see."
            yield f"latency{end}", f"Latency, predicted and measured{of}", text, lambda to, tables=tables: latencies(tables, to)  # type: ignore[misc]


def _latency_tables(folder: Path) -> list[Path]:
    """The files of the run's devices that are still there."""
    import yaml

    devices = yaml.safe_load((folder / "experiment.yaml").read_text()).get("devices") or {}
    return [Path(file) for file in devices.values() if Path(str(file)).is_file()]


def _diagnostics(found: Sequence[Diagnosis]) -> list[dict[str, Any]]:
    """Alarms first."""
    ordered = sorted(found, key=lambda d: not d.alarm)
    return [{"of": d.of, "name": d.name, "value": _value(d.value), "alarm": d.alarm, "why": d.why} for d in ordered]


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _how(run: Run) -> dict[str, Any]:
    """How a run was made: environment, commands, splits, the experiment as resolved."""
    noted: list[dict[str, Any]] = []
    file = run.path / "environment.json"
    if file.exists():
        try:
            noted = json.loads(file.read_text())
        except ValueError as error:
            raise UserError(f"{file}: damaged ({error})") from error
    dates = sorted(m.created for m in run.measurements if m.created)
    return {
        "name": run.name,
        "environments": [_environment(entry) for entry in noted],
        "commands": [
            f"elastibench run {here(run.path / 'experiment.yaml')} --output {here(run.path)}",
            f"elastibench report {here(run.path)}",
        ],
        "splits": list(_splits(run)),
        "measured": f"{len(run.measurements)} measurements, {dates[0]} to {dates[-1]}" if dates else "",
        "experiment": _experiment(run.path / "experiment.yaml"),
    }


def _experiment(file: Path) -> str:
    """As resolved, with absolute paths as they are seen from here: the page is for others to read."""
    import yaml

    def shown(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shown(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [shown(inner) for inner in value]
        return here(value) if isinstance(value, str) and Path(value).is_absolute() and Path(value).exists() else value

    text: str = yaml.safe_dump(shown(yaml.safe_load(file.read_text())), sort_keys=False, allow_unicode=True)
    return text


def _environment(noted: dict[str, Any]) -> dict[str, str]:
    packages = ", ".join(f"{name} {version}" for name, version in (noted.get("packages") or {}).items() if version)
    plain = {name: noted.get(name) for name in ("python", "platform", "processor", "threads", "revision")}
    return {**{name: str(value) for name, value in plain.items() if value is not None}, "packages": packages}


def _splits(run: Run) -> Iterator[str]:
    for task in dict.fromkeys(m.task for m in run.measurements):
        seen: dict[str, Measurement] = {}
        for m in run.measurements:
            if m.task == task:
                seen.setdefault(m.split, m)
        for split, m in sorted(seen.items()):
            kept = next((p for m in run.measurements if (m.task, m.split) == (task, split) and (p := run.predictions(m))), None)
            rows = f", {len(kept.ids):,} examples" if kept is not None else ""
            use = "reported" if split == QUALITY_SPLIT else "chooses"
            yield f"{task}, {split} ({use}{rows}): digest {m.split_digest[:16]}"
