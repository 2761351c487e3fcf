"""The command line. Each command calls the verb of its name; a user's mistake is one message on stderr and exit code 2."""

from __future__ import annotations

import sys
from enum import StrEnum
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from methods.errors import UserError

if TYPE_CHECKING:
    from workbench.verbs.run import Outcome


class _Commands(TyperGroup):
    """Turns a user's mistake and an interruption into one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            if _speaks():
                typer.echo(f"elastibench: {error}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            typer.echo("elastibench: stopped; the same command again goes on from here", err=True)
            raise typer.Exit(130) from error


def _speaks() -> bool:
    """Of processes that were launched together the main one alone."""
    processes = sys.modules.get("methods.training.processes")
    return processes is None or bool(processes.is_main_process())


app = typer.Typer(
    cls=_Commands,
    help="Train DynaBERT, NAS-BERT and AdaBERT, search each under a budget, and compare them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

ExperimentFile = Annotated[Path, typer.Argument(metavar="EXPERIMENT.yaml", help="The experiment file.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, such as runs/demo.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replaces one value of the file; may be given several times. The value is YAML."),
]


class TableFormat(StrEnum):
    """The forms in which a table can be printed."""

    TABLE = "table"
    MD = "md"
    TEX = "tex"
    CSV = "csv"
    JSON = "json"


class NetworkFormat(StrEnum):
    """The forms in which a network can be written."""

    TORCH = "torch"
    ONNX = "onnx"


class By(StrEnum):
    """By what a query ranks, where not by what was measured."""

    PREDICTED = "predicted"


def _examples(*lines: str) -> str:
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(f"  {line}" for line in lines)


@app.command(
    epilog=_examples(
        "elastibench run examples/demo.yaml", "elastibench run examples/demo.yaml --output runs/two-seeds --set 'seeds=\\[0, 1]'"
    )
)
def run(
    experiment: ExperimentFile,
    output: Annotated[Path | None, typer.Option(help="The run folder (default: runs/<name of the file>).")] = None,
    overrides: Overrides = None,
    ray: Annotated[
        str | None, typer.Option("--ray", metavar="ADDRESS", help="Compute on Ray: local, auto (this cluster) or ray://HOST:PORT.")
    ] = None,
) -> None:
    """Train, search, measure and report. Run again, it goes on where it stopped."""
    from workbench.verbs.run import run as verb

    outcome = verb(experiment, output, overrides or (), ray)
    if _speaks():
        _tell(outcome)
    if outcome.failed:
        raise typer.Exit(1)


def _tell(outcome: Outcome) -> None:
    typer.echo(outcome.table.render("table"))
    typer.echo(f"run folder {outcome.folder}; table and picture in {outcome.folder / 'report'}")
    for line in outcome.failed:
        typer.echo(line, err=True)


@app.command(epilog=_examples("elastibench plan examples/demo.yaml", "elastibench plan examples/paper-dynabert.yaml"))
def plan(
    experiment: ExperimentFile,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say before anything is trained: stages, steps, FLOPs, memory, estimated time, and which budgets can be met."""
    from workbench.verbs.plan import plan as verb

    planned = verb(experiment, overrides or ())
    typer.echo(planned.render("json" if as_json else "table"))


@app.command(
    epilog=_examples(
        "elastibench query runs/demo --max-flops 20M",
        "elastibench query runs/sst2-minilm --max-params 18M --max-flops 0.75G --method dynabert --json",
        "elastibench query runs/nasbert --max-flops 0.4G --max-latency laptop=12ms --by predicted",
        "elastibench query runs/nasbert --front",
        "elastibench query runs/sst2-minilm runs/nasbert --pareto --cost max_params",
    )
)
def query(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="A run folder, such as runs/demo, or several.")],
    max_params: Annotated[str | None, typer.Option(metavar="N", help="All parameters, such as 8M.")] = None,
    max_params_non_embedding: Annotated[str | None, typer.Option(metavar="N", help="Parameters outside the embedding tables.")] = None,
    max_flops: Annotated[str | None, typer.Option(metavar="N", help="FLOPs at the run's length and batch, such as 1.2G.")] = None,
    max_latency: Annotated[
        list[str] | None,
        typer.Option("--max-latency", metavar="DEVICE=TIME", help="Latency on a device of the run, such as laptop=12ms."),
    ] = None,
    method: Annotated[str | None, typer.Option(metavar="NAME", help="Only sub-networks of this method.")] = None,
    task: Annotated[str | None, typer.Option(metavar="NAME", help="The task, where the run has several.")] = None,
    by: Annotated[
        By | None, typer.Option(help="Ask the tables of a method trained on a corpus, under any limits, not the archive.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="With --by predicted or --front: the supernet's seed.")] = None,
    front: Annotated[bool, typer.Option("--front", help="The whole Pareto front of the tables; limits have no part in it.")] = False,
    pareto: Annotated[bool, typer.Option("--pareto", help="The Pareto front of what was measured, within the limits.")] = False,
    cost: Annotated[str | None, typer.Option(metavar="LIMIT", help="With --pareto or --front: its cost, by its limit's name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find the best sub-network under a budget. Where nothing fits, say which limit binds; exit code 1."""
    from search.query import NothingFits
    from workbench.predicting import NonePredicted
    from workbench.verbs import query as verbs

    form = "json" if as_json else "table"
    given = [max_params, max_params_non_embedding, max_flops, max_latency]
    if cost and not (front or pareto):
        raise UserError("--cost: goes with --pareto or --front")
    if front and (pareto or len(runs) > 1):
        raise UserError("--front: is of the tables of one run; --pareto lists what was measured")
    if front:
        if any(given):
            raise UserError("--front: lists all that the tables have; leave the limits out, or ask for one network with --by predicted")
        typer.echo(verbs.render(verbs.front(runs[0], cost or "max_flops", method, task, seed), form))
        return
    latency = _latency(max_latency or [])
    limits = (max_params, max_params_non_embedding, max_flops)
    if pareto:
        if by or seed is not None:
            raise UserError("--pareto: lists what was measured; --front is the tables'")
        measured = verbs.pareto(runs, cost or "max_flops", *limits, method, task, max_latency=latency)
        typer.echo(verbs.render(measured, form))
        if not measured.fronts:
            raise typer.Exit(1)
        return
    answer = verbs.query(runs, *limits, method, task, max_latency=latency, by="predicted" if by else None, seed=seed)
    typer.echo(verbs.render(answer, form, runs))
    if isinstance(answer, NothingFits | NonePredicted):
        raise typer.Exit(1)


def _latency(texts: list[str]) -> dict[str, str]:
    """`laptop=12ms` as device and time."""
    pairs = [text.partition("=") for text in texts]
    wrong = next((text for text, (device, _, seconds) in zip(texts, pairs, strict=True) if not (device and seconds)), None)
    if wrong is not None:
        raise UserError(f"--max-latency {wrong}: write DEVICE=TIME, such as laptop=12ms")
    return {device: seconds for device, _, seconds in pairs}


@app.command(epilog=_examples("elastibench compare runs/demo", "elastibench compare runs/demo runs/two-seeds --format md --published"))
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    form: Annotated[TableFormat, typer.Option("--format", help="How to print the table.")] = TableFormat.TABLE,
    published: Annotated[bool, typer.Option("--published", help="Below, as tables of their own, what the papers print.")] = False,
) -> None:
    """Print the head-to-head table of one or several runs."""
    from workbench.verbs.compare import compare as verb

    if published and form.value not in ("table", "md"):
        raise UserError(f"--published: goes with --format table or md, not with {form.value}")
    table = verb(runs)
    typer.echo(table.render(form.value))
    if published:
        from analysis.published import render

        typer.echo("\n" + render(form.value, [block.task for block in table.blocks]))


@app.command(epilog=_examples("elastibench report runs/demo", "elastibench report runs/demo runs/two-seeds --output both.html"))
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    output: Annotated[Path | None, typer.Option(help="The page (default: report/report.html in the first run's folder).")] = None,
) -> None:
    """Write one HTML page: summary, tables, figures, diagnostics, and the budget query as a slider; it needs no network."""
    from workbench.verbs.report import report as verb

    typer.echo(verb(runs, output, lambda what: typer.echo(f"{what} ...", err=True)))


@app.command(
    epilog=_examples(
        "elastibench dashboard runs/demo", "elastibench dashboard runs/demo --port 8090", "elastibench dashboard runs/demo --no-serve"
    )
)
def dashboard(
    run: RunArgument,
    port: Annotated[int, typer.Option(min=1, max=65535, metavar="N", help="Where to answer on this machine.")] = 8080,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="A database of Optuna's (default: optuna.log in the run folder).")
    ] = None,
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Open optuna-dashboard on the studies.")] = True,
) -> None:
    """Write the searches of a run as Optuna studies and open optuna-dashboard on them."""
    from workbench.verbs.dashboard import check_installed
    from workbench.verbs.dashboard import dashboard as verb

    if serve:
        check_installed()
    written = verb(run, storage)
    typer.echo(written.render())
    if serve:
        written.serve(port)


@app.command(
    epilog=_examples(
        "elastibench export runs/demo 3f2a networks/small", "elastibench export runs/demo 3f2a networks/onnx --format onnx --int8"
    )
)
def export(
    run: RunArgument,
    architecture: Annotated[str, typer.Argument(metavar="ARCHITECTURE-ID", help="The id, or a unique beginning of it.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty directory.")],
    task: Annotated[str | None, typer.Option(metavar="NAME", help="The task, where the run has several.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="The seed (default: the one with the best score on search).")] = None,
    form: Annotated[
        NetworkFormat, typer.Option("--format", help="torch: what methods.load_network(DIR) reads; onnx: an ONNX file.")
    ] = NetworkFormat.TORCH,
    int8: Annotated[bool, typer.Option("--int8", help="With --format onnx: also with weights of 8 bit, its quality measured.")] = False,
) -> None:
    """Write a sub-network as a stand-alone network with its tokenizer."""
    from workbench.verbs.export import export as verb

    typer.echo(verb(run, architecture, directory, task=task, seed=seed, form=form.value, int8=int8).render())


@app.command(
    epilog=_examples(
        "elastibench latency laptop --experiment examples/demo.yaml --seconds 60",
        "elastibench latency pi5 --experiment examples/sst2-minilm.yaml --length 64 --threads 4 --output devices/pi5.json",
    )
)
def latency(
    device: Annotated[str, typer.Argument(metavar="DEVICE-NAME", help="What budgets are to call this machine.")],
    experiment: Annotated[
        Path | None,
        typer.Option(metavar="EXPERIMENT.yaml", help="The experiment whose networks are timed (default: all methods on BERT-base)."),
    ] = None,
    backend: Annotated[str, typer.Option(metavar="NAME", help="What runs the networks: torch, torch-compile, onnxruntime.")] = "torch",
    scenario: Annotated[str | None, typer.Option(metavar="NAME", help="A published setting: paper-cpu, paper-gpu.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Texts at a time (default: the experiment's cost.batch).")] = None,
    length: Annotated[int | None, typer.Option(min=1, help="Tokens of a text (default: the experiment's cost.length).")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads within an operation.")] = 1,
    seconds: Annotated[float, typer.Option("--seconds", "--time-limit", min=1, help="For about how long to measure.")] = 300.0,
    held_out: Annotated[int, typer.Option(min=0, help="So many networks test the table.")] = 50,
    output: Annotated[Path | None, typer.Option(help="The table's file (default: latency/DEVICE-NAME.json).")] = None,
    overrides: Overrides = None,
) -> None:
    """Measure on this machine how long the parts of an experiment's networks take; budgets read the table (max_latency)."""
    from workbench.verbs.latency import latency as verb

    measured = verb(device, experiment, backend, batch, length, threads, seconds, output, overrides or (), scenario, held_out)
    typer.echo(measured.render())


@app.command(epilog=_examples("elastibench methods"))
def methods() -> None:
    """List the methods."""
    from methods.registry import get, names

    for name in names():
        typer.echo(f"{name:10} {get(name).summary}")


@app.command(epilog=_examples("elastibench tasks"))
def tasks() -> None:
    """List the tasks that are known by name."""
    from methods.tasks.task import task_names

    for name, summary in task_names().items():
        typer.echo(f"{name:10} {summary}")


@app.command(epilog=_examples("elastibench version"))
def version() -> None:
    """Print the version."""
    typer.echo(f"elastibench {installed_version('elastibench')}")


def main() -> None:
    """The entry point of the console script."""
    app()
