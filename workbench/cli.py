"""The command line. Each command calls the verb of its name; a user's mistake is one message on stderr and exit code 2."""

from __future__ import annotations

from enum import StrEnum
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from methods.errors import UserError


class _Commands(TyperGroup):
    """Turns a user's mistake and an interruption into one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            typer.echo(f"elastibench: {error}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            typer.echo("elastibench: stopped; the same command again goes on from here", err=True)
            raise typer.Exit(130) from error


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
) -> None:
    """Train, search, measure and report. Run again, it goes on where it stopped."""
    from workbench.verbs.run import run as verb

    outcome = verb(experiment, output, overrides or ())
    typer.echo(outcome.table.render("table"))
    typer.echo(f"run folder {outcome.folder}; table and picture in {outcome.folder / 'report'}")


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
    )
)
def query(
    run: RunArgument,
    max_params: Annotated[str | None, typer.Option(metavar="N", help="All parameters, such as 8M.")] = None,
    max_params_non_embedding: Annotated[str | None, typer.Option(metavar="N", help="Parameters outside the embedding tables.")] = None,
    max_flops: Annotated[str | None, typer.Option(metavar="N", help="FLOPs at the run's length and batch, such as 1.2G.")] = None,
    method: Annotated[str | None, typer.Option(metavar="NAME", help="Only sub-networks of this method.")] = None,
    task: Annotated[str | None, typer.Option(metavar="NAME", help="The task, where the run has several.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find the best sub-network under a budget. Where nothing fits, say which limit binds; exit code 1."""
    from search.query import NothingFits
    from workbench.verbs.query import query as verb
    from workbench.verbs.query import render

    answer = verb(run, max_params, max_params_non_embedding, max_flops, method=method, task=task)
    typer.echo(render(answer, "json" if as_json else "table"))
    if isinstance(answer, NothingFits):
        raise typer.Exit(1)


@app.command(epilog=_examples("elastibench compare runs/demo", "elastibench compare runs/demo runs/two-seeds --format md"))
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    form: Annotated[TableFormat, typer.Option("--format", help="How to print the table.")] = TableFormat.TABLE,
) -> None:
    """Print the head-to-head table of one or several runs."""
    from workbench.verbs.compare import compare as verb

    typer.echo(verb(runs).render(form.value))


@app.command(epilog=_examples("elastibench export runs/demo 3f2a networks/small"))
def export(
    run: RunArgument,
    architecture: Annotated[str, typer.Argument(metavar="ARCHITECTURE-ID", help="The id, or a unique beginning of it.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty directory.")],
    task: Annotated[str | None, typer.Option(metavar="NAME", help="The task, where the run has several.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="The seed (default: the one with the best score on search).")] = None,
) -> None:
    """Write a sub-network as a stand-alone network with its tokenizer; methods.load_network(DIR) reads it."""
    from workbench.verbs.export import export as verb

    exported = verb(run, architecture, directory, task=task, seed=seed)
    typer.echo(f"{exported.architecture.id} written to {exported.folder}")


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
