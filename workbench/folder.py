"""The run folder: where everything of a run lies, and whose it is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from methods.errors import UserError
from methods.recipe import Hardware
from methods.training.checkpoint import file_digest, write_atomically
from workbench import archive_place
from workbench.experiment import Experiment, HardwareOptions
from workbench.loading import check, read_yaml
from workbench.places import notation

if TYPE_CHECKING:
    from search.archive import Archive

_GROWING = {"tasks": "name", "methods": "name", "seeds": "", "budgets": "", "tune": "method"}
_FREE = ("controls", "search.report_all", "search.sampled", "hardware.checkpoint_seconds", "resources")


class RunFolder:
    """`experiment.yaml`, `latency.json` (digests of the latency tables), `environment.json`, `teacher/<task>/`, `augmented/<task>/`,
    `<task>/<method>/seed-<n>/`, `corpus/<name>/<method>/seed-<n>/`, `archive.db`, `predictions/`, `report/`."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.experiment_file = self.path / "experiment.yaml"
        self.latency = self.path / "latency.json"
        self.archive = self.path / "archive.db"
        self.report = self.path / "report"
        self.backbone = self.path / "backbone"
        self.environment = self.path / "environment.json"

    def teacher(self, task: str) -> Path:
        return self.path / "teacher" / task

    def augmented(self, task: str) -> Path:
        """The copies of its training rows."""
        return self.path / "augmented" / task

    def method(self, task: str, method: str, seed: int) -> Path:
        return self.path / task / method / f"seed-{seed}"

    def text(self, corpus: str) -> Path:
        """The corpus's packed tokens."""
        return self.path / "corpus" / corpus / "text"

    def corpus(self, name: str, method: str, seed: int | None = None) -> Path:
        """What a method has of a corpus: for all seeds, or for one."""
        shared = self.path / "corpus" / name / method
        return shared if seed is None else shared / f"seed-{seed}"

    def require(self) -> None:
        """Raises UserError where this is no run folder."""
        if not self.experiment_file.is_file():
            raise UserError(f"{self.path}: no run folder (it has no experiment.yaml); make one with: elastibench run EXPERIMENT.yaml")

    def experiment(self) -> Experiment:
        """The experiment of an existing run. Raises UserError where this is no run folder."""
        self.require()
        return check(read_yaml(self.experiment_file), str(self.experiment_file), self.path)

    def open_archive(self) -> Archive:
        """What the run has measured, to be read, wherever that lies. Raises UserError where there is no run, or no archive."""
        from search.archive import Archive

        self.require()
        place = read_yaml(self.experiment_file).get("archive")
        return Archive(place or self.archive, self.path, create=False)

    def examine(self, experiment: Experiment) -> Experiment:
        """The experiment with device, threads and place of the archive settled, as this folder would take it; nothing is written.

        A run may go on with more tasks, methods, seeds, budgets or other controls. Raises UserError where anything else differs that
        changes numbers, or where the folder holds something else.
        """
        previous = self.experiment() if self.experiment_file.exists() else None
        update: dict[str, Any] = {"hardware": settle(experiment.hardware, previous.hardware if previous else None)}
        if experiment.archive:
            update["archive"] = archive_place.settled(experiment.archive, previous.archive if previous else None, self.path)
        settled = experiment.model_copy(update=update)
        after = _by_content(settled.resolved(), _digest)
        if previous is not None:
            different = differences(_by_content(previous.resolved(), self._noted_digest), after)
            if different:
                raise UserError(
                    f"{self.path}: the run folder of another experiment; different: {', '.join(different)}. "
                    "Choose another folder with --output, or remove this one"
                )
        elif self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: is no folder; choose another with --output")
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise UserError(f"{self.path}: is not empty and no run folder (it has no experiment.yaml); choose another with --output")
        return settled

    def claim(self, settled: Experiment) -> None:
        """Makes the folder where it is not there and writes the experiment into it. Raises UserError where it can't be written to."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK | os.X_OK):
                raise PermissionError(13, "no permission to write")
            resolved, digests = settled.resolved(), dict[str, str]()
            _by_content(resolved, lambda path: digests.setdefault(path, _digest(path)))
            if digests:
                write_atomically(self.latency, json.dumps(digests, indent=1) + "\n")
            text = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
            if not self.experiment_file.exists() or self.experiment_file.read_text() != text:
                write_atomically(self.experiment_file, text)
        except OSError as error:
            raise self._unwritable(error) from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """No other run works in the folder meanwhile; it is made where it is not there, and what a killed run left half done is removed.

        Processes that were launched together hold it together. Where the file system knows no locks nothing is removed. Raises UserError
        where another run works in it.
        """
        from methods.training.processes import by_main_process
        from workbench.holding import locked, remove_leftovers

        with ExitStack() as stack:

            def take() -> None:
                try:
                    self.path.mkdir(parents=True, exist_ok=True)
                    if stack.enter_context(locked(self.path)) and self.experiment_file.exists():
                        remove_leftovers(self.path)
                except OSError as error:
                    raise self._unwritable(error) from error

            by_main_process(take)
            yield

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"{self.path}: can't be written to ({error.strerror or error}); choose another folder with --output")

    def _noted_digest(self, path: str) -> str:
        """Of a latency table as this run has read it; where that was not noted, as it is, or its path."""
        try:
            return str(json.loads(self.latency.read_text())[path])
        except FileNotFoundError:
            return file_digest(Path(path)) if Path(path).is_file() else path
        except KeyError:
            return path
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{self.latency}: damaged ({error}); remove it if the latency tables are as they were") from error

    def give_back(self) -> None:
        """Removes what `claim` and reading the corpus left in a folder that was new or empty."""
        for file in (self.experiment_file, self.latency):
            file.unlink(missing_ok=True)
        for made in (self.path / "corpus", self.backbone):
            shutil.rmtree(made, ignore_errors=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()


def settle(options: HardwareOptions, previous: HardwareOptions | None, present: bool = True) -> HardwareOptions:
    """`auto` and None become what the run has had so far, else what this machine offers.

    Raises UserError where `present` asks for a GPU to be there that can do this, and there is none.
    """
    import torch

    device, threads = options.device, options.threads
    if device == "auto":
        device = previous.device if previous else "cuda" if torch.cuda.is_available() else "cpu"
    if present and device == "cuda" and not torch.cuda.is_available():
        raise UserError("hardware.device: cuda, but torch sees no GPU here; write cpu or auto")
    if present and device == "cuda" and options.precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError("hardware.precision: bf16, but this GPU does not compute in bf16; write fp32")
    threads = threads or (previous and previous.threads) or _cores()
    return options.model_copy(update={"device": device, "threads": threads})


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware(options: HardwareOptions) -> Hardware:
    """Settled options as the recipes take them."""
    device = "cuda" if options.device == "cuda" else "cpu"
    return Hardware(device, options.precision, options.threads or 1, options.checkpoint_seconds)


def _by_content(data: Mapping[str, Any], digest: Callable[[str], str]) -> dict[str, Any]:
    """A resolved experiment with the digest of each latency table in the place of its path: under `devices`, and where an option of a
    method is called `latency`."""

    def options(value: Any, key: str = "") -> Any:
        if isinstance(value, Mapping):
            return {name: options(inner, name) for name, inner in value.items()}
        return digest(value) if key == "latency" and isinstance(value, str) else value

    devices = {device: digest(path) for device, path in data.get("devices", {}).items()}
    return {**data, "devices": devices, "methods": [options(entry) for entry in data["methods"]]}


def _digest(path: str) -> str:
    try:
        return file_digest(Path(path))
    except OSError as error:
        hint = "elastibench latency DEVICE-NAME measures one"
        raise UserError(f"{path}: there is no latency table that can be read ({error.strerror}); {hint}") from error


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The keys in which two resolved experiments differ so that numbers change; what was added to a growing list does not count."""
    found: list[str] = []
    before, after = _with_labels(_tasks_as_list(before)), _with_labels(_tasks_as_list(after))
    if before.get("corpus") is None:
        before["corpus"] = after.get("corpus")  # none was needed so far
    before["devices"], after["devices"] = before.get("devices", {}), after.get("devices", {})
    after["devices"] = {device: path for device, path in after["devices"].items() if device in before["devices"]}
    for key in dict.fromkeys([*before, *after]):
        if key in _GROWING:
            found += _lost(key, before.get(key, []), after.get(key, []))
        else:
            found += _different((key,), before.get(key), after.get(key))
    return [key for key in found if not any(key == free or key.startswith(free + ".") for free in _FREE)]


def _tasks_as_list(data: Mapping[str, Any]) -> dict[str, Any]:
    """With each task's seeds apart, as they are when null stands for all."""
    rest = {key: value for key, value in data.items() if key != "task"}
    tasks = [data["task"]] if "task" in data else rest.get("tasks", [])
    return {**rest, "tasks": [{**task, "seeds": sorted(task.get("seeds") or data.get("seeds", []))} for task in tasks]}


def _with_labels(data: dict[str, Any]) -> dict[str, Any]:
    """With each method under the name that the run folder knows it by; on which tasks and seeds it runs changes no number, nor
    where trials of tuning are stored and how many run side by side."""
    extra = ("label", "tasks", "seeds", "controls", "resources")
    methods = [{"method": e["name"], **e, "name": e.get("label") or e["name"]} for e in data.get("methods", [])]
    tune = [{key: e[key] for key in e if key not in ("concurrent", "storage")} for e in data.get("tune", [])]
    return {**data, "tune": tune, "methods": [{key: e[key] for key in e if key not in extra} for e in methods]}


def _lost(key: str, before: list[Any], after: list[Any]) -> list[str]:
    name = _GROWING[key]
    if not name:
        return [] if all(entry in after for entry in before) else [key]
    there = {entry[name]: entry for entry in after}
    found = []
    for index, entry in enumerate(before):
        if entry[name] not in there:
            found.append(f"{key}[{index}] ({entry[name]} is missing)")
        else:
            found += _different((key, index), *_without_seeds_that_stay(entry, there[entry[name]]))
    return found


def _without_seeds_that_stay(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Of a task that goes on with all the seeds that it had, both without seeds."""
    if "seeds" in before and set(before["seeds"]) <= set(after["seeds"]):
        return {**before, "seeds": None}, {**after, "seeds": None}
    return before, after


def _different(place: tuple[str | int, ...], before: Any, after: Any) -> list[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = dict.fromkeys([*before, *after])
        return [line for key in keys for line in _different((*place, key), before.get(key), after.get(key))]
    return [] if before == after else [notation(place)]


def open_archive(run: Path | str) -> Archive:
    """The archive of a run folder, to be read, wherever it lies. Raises UserError where there is no run, or no archive."""
    return RunFolder(run).open_archive()
