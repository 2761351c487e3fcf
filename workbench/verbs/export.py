"""`export`: a sub-network of a run as a stand-alone network, with weights of torch or as an ONNX file."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from methods.costs import costs
from methods.errors import UserError
from methods.network import Network, NetworkSpec, save_description, save_network
from methods.space import Architecture
from search.candidates import candidates
from search.columns import RANKED
from search.measurement import Measurement
from workbench.experiment import Experiment, TaskOptions
from workbench.facts import layer_facts
from workbench.folder import RunFolder
from workbench.onnx_files import OnnxFile, check_installed, write_files
from workbench.reading_back import check_trained, finished_on_corpus, task_places, task_teacher
from workbench.session import Member, Session

Format = Literal["torch", "onnx"]


@dataclass(frozen=True)
class Exported:
    """What was written where; `files`: the ONNX files, where that was asked for."""

    folder: Path
    architecture: Architecture
    task: str
    seed: int
    files: tuple[OnnxFile, ...] = ()

    def render(self) -> str:
        return "\n".join([f"{self.architecture.id} written to {self.folder}", *(file.render() for file in self.files)])


def export(
    run: Path | str,
    architecture: str,
    directory: Path | str,
    task: str | None = None,
    seed: int | None = None,
    form: Format = "torch",
    int8: bool = False,
) -> Exported:
    """Writes weights, tokenizer and config of an architecture (its id, or a unique beginning) into a new or empty directory.

    `seed`: the one with the best score on `search` unless named. `form`: `torch` for safetensors, `onnx` for an ONNX file whose logits
    are checked against torch's; `int8`: a second such file with weights of 8 bit, its quality measured on the task. Raises UserError where
    no such architecture was measured, the id is not unique, the directory holds something, or the ONNX file's logits differ.
    """
    if form not in get_args(Format):
        raise UserError(f"--format {form}: there is no such format; there are {', '.join(get_args(Format))}")
    if int8 and form != "onnx":
        raise UserError("--int8: goes with --format onnx")
    if form == "onnx":
        check_installed("--format onnx")
    folder, target = RunFolder(run), Path(directory).resolve()
    experiment = folder.experiment()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: is not empty; name a new or empty directory")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{target}: no directory can be made there ({error.strerror})") from error
    with folder.open_archive() as archive:
        measured, stages = archive.measurements(), archive.stages()
    options = _task(experiment, task)
    labels = {entry.label for entry in experiment.methods}
    found = _find(measured, labels, architecture, options.name, str(folder.path))
    mine = [m for m in measured if m.task == options.name and m.architecture.method == found.method]
    chosen = _seed(mine, found, seed)
    session = Session(_here(experiment), folder, str(folder.path))
    member = next((member for member in session.members if member.name == found.method), None)
    if member is None:
        raise UserError(f"{session.name}: architecture {found.id[:12]} is of {found.method}, which the experiment does not have")
    if member.on_corpus:
        network = finished_on_corpus(session, options, member, found, chosen, stages)
    else:
        check_trained(stages, task_places(session, options, found, chosen))
        network = _finished(session, options, member, found, chosen)
    about = _about(session, options, member, found, [m for m in mine if m.architecture == found], chosen, network.spec)
    files: tuple[OnnxFile, ...] = ()
    with _aside(target) as place:
        if form == "onnx":
            files = write_files(session, options, member, network, place, int8)
            described = {"onnx": {file.name: file.data() for file in files}}
            save_description(network.spec, place, session.backbone.tokenizer, **about, **described)
        else:
            save_network(network.cpu(), place, session.backbone.tokenizer, **about)
    return Exported(target, found, options.name, chosen, files)


def _here(experiment: Experiment) -> Experiment:
    """The experiment of a run made on a GPU can be read back on the CPU."""
    import torch

    if experiment.hardware.device == "cpu" or torch.cuda.is_available():
        return experiment
    return experiment.model_copy(update={"hardware": experiment.hardware.model_copy(update={"device": "cpu"})})


def _finished(session: Session, options: TaskOptions, member: Member, found: Architecture, seed: int) -> Network:
    """Of a method whose supernet is trained on the task."""
    recipe = member.on_task
    if recipe is None:
        raise TypeError(f"{member.name} is trained on no task")
    folder = session.folder.method(options.name, member.name, seed)
    context = session.context(options, folder, seed, member.name, task_teacher(session, options), recipe.reads)
    return recipe.finish(context, recipe.train(context), found)


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A folder beside the target that becomes it at the end, so that the target is whole or not there."""
    aside = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
        aside.chmod(0o777 & ~_umask())
        yield aside
        if target.exists():
            target.rmdir()
        aside.rename(target)
    except OSError as error:
        raise UserError(f"{target}: can't be written to ({error.strerror or error})") from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _about(
    session: Session, options: TaskOptions, member: Member, found: Architecture, mine: list[Measurement], seed: int, spec: NetworkSpec
) -> dict[str, Any]:
    cost, layers, task = session.experiment.cost, layer_facts(spec), options.spec
    used = costs(spec, cost.length, cost.batch)
    windows = vars(options.windows) if options.windows else {}
    return {
        "method": member.method.name,
        **({"label": member.name} if member.name != member.method.name else {}),
        "architecture": {"id": found.id, "choices": found.choices},
        "kept_layers": [layer["backbone_layer"] for layer in layers],
        "layers": layers,
        "task": {"name": task.name, "labels": list(task.labels), "metric": task.metric, "max_length": options.max_length, **windows},
        "seed": seed,
        "metrics": {f"{m.kind} on {m.split}": dict(m.metrics) for m in mine if m.seed == seed and m.kind != "control"},
        "costs": {
            "embedding_parameters": used.embedding_parameters,
            "other_parameters": used.other_parameters,
            "flops": used.flops,
            "length": used.length,
            "batch": used.batch,
        },
    }


def _task(experiment: Experiment, name: str | None) -> TaskOptions:
    """The task of that name, or the only one."""
    tasks = {task.name: task for task in experiment.all_tasks}
    if name is None and len(tasks) == 1:
        return next(iter(tasks.values()))
    if name is None or name not in tasks:
        raise UserError(f"--task {name or '(none given)'}: the run has the tasks {', '.join(tasks)}; name one of them")
    return tasks[name]


def _find(measured: list[Measurement], labels: set[str], prefix: str, task: str, run: str) -> Architecture:
    of_methods = {m.architecture for m in measured if m.task == task and m.architecture.method in labels}
    matching = sorted((a for a in of_methods if prefix and a.id.startswith(prefix.lower())), key=lambda a: a.id)
    if not matching:
        hint = f"elastibench query {run} names the best one"
        raise UserError(f"{run}: no architecture of task {task} has an id that begins with {prefix!r}; {hint}")
    if len(matching) > 1:
        some = ", ".join(a.id[: len(prefix) + 6] for a in matching[:5])
        raise UserError(f"{run}: {len(matching)} architectures begin with {prefix!r} ({some}, ...); give more of the id")
    return matching[0]


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _seed(mine: list[Measurement], found: Architecture, seed: int | None) -> int:
    seeds = sorted({m.seed for m in mine if m.architecture == found})
    if seed is None:
        ranked = [c for kind in RANKED for c in candidates(mine, kind) if c.architecture == found]
        return ranked[0].best_seed if ranked else seeds[0]
    if seed not in seeds:
        raise UserError(f"--seed {seed}: the architecture was measured with seed {', '.join(map(str, seeds))}")
    return seed
