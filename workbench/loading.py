"""An experiment file, with `--set key=value` laid over it, as a checked `Experiment`."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from methods.errors import UserError
from methods.registry import get, names
from workbench.experiment import Experiment, MethodEntry
from workbench.places import mistakes, suggestion
from workbench.tune_options import TuneEntry


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader; a key that is written twice is an error, not the last one, and so is a date or number that is none."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            hint = "put it in quotes if it is text"
            raise yaml.constructor.ConstructorError(None, None, f"{node.value!r}: {error}; {hint}", node.start_mark) from error


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Hashable] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key is a list or a mapping; write a word", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is there twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment of a YAML file. Raises one UserError that names every mistake by its place."""
    path = Path(path)
    data = read_yaml(path)
    for override in overrides:
        apply_override(data, override)
    experiment = check(data, str(path), path.parent)
    if _looks_like_path(experiment.backbone) and not Path(experiment.backbone).is_dir():
        raise UserError(f"{path}: backbone: there is no directory {experiment.backbone}")
    return experiment


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises UserError with the line of a syntax error."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read ({error})") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: no valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: no valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: an experiment is a mapping (backbone: ..., task: ..., methods: ..., budgets: ...)")
    try:
        copied: dict[str, Any] = _unshared(data)
    except RecursionError as error:
        raise UserError(f"{path}: an anchor (&) holds an alias (*) of itself; a value can't lie within itself") from error
    return copied


def _unshared(value: Any) -> Any:
    """A copy in which a YAML anchor and its aliases are values of their own, so that one can be replaced without the others."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def check(data: Mapping[str, Any], name: str, folder: Path | None = None) -> Experiment:
    """Plain data as an Experiment; `name` is how messages call it, `folder` where relative paths may start as well."""
    if isinstance(data.get("archive"), str):
        _check_archive(data["archive"], name)
    try:
        experiment = Experiment.model_validate(data)
    except ValidationError as error:
        raise _refusal(name, mistakes(error, Experiment)) from error
    lines: list[str] = []
    for index, entry in enumerate(experiment.methods):
        lines += _method_mistakes(entry, index)
    if lines:
        raise _refusal(name, lines)
    unserved = [f"methods[{i}] ({entry.name})" for i, entry in enumerate(experiment.methods) if get(entry.name).scope == "corpus"]
    if unserved and experiment.corpus is None:
        hint = "write corpus: {name: NAME, data: FILE or DIRECTORY}"
        raise UserError(f"{name}: corpus: missing; {unserved[0]} is trained on unlabelled text: {hint}")
    for task in experiment.all_tasks:
        try:
            task.spec  # noqa: B018 (looked at for its errors)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
    return _with_paths(experiment, folder)


def _check_archive(url: str, name: str) -> None:
    """Before all else, whose messages show values: this one may hold a password."""
    from workbench.archive_place import check_url

    try:
        check_url(url)
    except UserError as error:
        raise UserError(f"{name}: archive: {error}") from None


def _method_mistakes(entry: MethodEntry, index: int) -> list[str]:
    if entry.name not in names():
        return [f"methods[{index}].name: there is no method {entry.name!r}{suggestion(entry.name, names())}"]
    try:
        entry.options  # noqa: B018 (looked at for its errors)
    except ValidationError as error:
        return mistakes(error, get(entry.name).options, ("methods", index))
    return []


def _refusal(name: str, lines: list[str]) -> UserError:
    if len(lines) == 1:
        return UserError(f"{name}: {lines[0]}")
    return UserError(f"{name}: {len(lines)} mistakes\n" + "\n".join(f"  {line}" for line in lines))


def _with_paths(experiment: Experiment, folder: Path | None) -> Experiment:
    """Directories as absolute paths; what is no directory stays a name."""
    changes: dict[str, Any] = {"backbone": _directory(experiment.backbone, folder, experiment.backbone == "demo")}
    tasks = []
    for task in experiment.all_tasks:
        named = task.data in ("hub", "generated") or task.data.startswith("hub:")
        tasks.append(task.model_copy(update={"data": _directory(task.data, folder, named)}))
    changes |= {"task": tasks[0]} if experiment.task else {"tasks": tuple(tasks)}
    if experiment.corpus:
        data = experiment.corpus.data
        named = data == "generated" or data.startswith("hub:")
        changes["corpus"] = experiment.corpus.model_copy(update={"data": _place(data, folder, named)})
    source = experiment.augmentation
    changes["augmentation"] = source.model_copy(update={"backbone": source.backbone and _directory(source.backbone, folder, False)})
    changes["methods"] = tuple(_with_checkpoint(entry, folder) for entry in experiment.methods)
    changes["tune"] = tuple(_with_storage(entry) for entry in experiment.tune)
    changes["devices"] = {device: _place(path, folder, False) for device, path in experiment.devices.items()}
    return experiment.model_copy(update=changes)


def _with_checkpoint(entry: MethodEntry, folder: Path | None) -> MethodEntry:
    checkpoint = (entry.model_extra or {}).get("checkpoint")
    return entry.model_copy(update={"checkpoint": _directory(checkpoint, folder, False)}) if checkpoint else entry


def _with_storage(entry: TuneEntry) -> TuneEntry:
    local = entry.storage is not None and "://" not in entry.storage
    return entry.model_copy(update={"storage": str(Path(entry.storage or "").absolute())}) if local else entry


def _place(text: str, folder: Path | None, is_name: bool) -> str:
    """`_directory` for what may also be a file."""
    if is_name:
        return text
    found = next((start / text for start in (Path(), folder or Path()) if (start / text).exists()), None)
    return text if found is None else str(found.resolve())


def _directory(text: str, folder: Path | None, is_name: bool) -> str:
    if is_name:
        return text
    for start in (Path(), folder or Path()):
        if (start / text).is_dir():
            return str((start / text).resolve())
    return text


def _looks_like_path(text: str) -> bool:
    """A hub id is `name` or `owner/name`; anything else can only be a directory."""
    return not re.fullmatch(r"[\w][\w.-]*(/[\w.-]+)?", text)


_STEP = re.compile(r"\.?([A-Za-z_][\w-]*)|\[(\d+)\]|\.(\d+)(?=\.|\[|$)")


def apply_override(data: dict[str, Any], override: str) -> None:
    """Lays `methods[0].epochs=1` over the data; the value is read as YAML. Raises UserError where the path leads nowhere."""
    key, equals, text = override.partition("=")
    steps = _steps(key.strip())
    if not equals or not steps:
        raise UserError(f"--set {override}: write KEY=VALUE, such as seeds=[0,1] or methods[0].widths=[0.5,1.0]")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: {text!r} is no YAML value ({getattr(error, 'problem', error)})") from error
    place: Any = data
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        if isinstance(step, int) and (not isinstance(place, list) or step >= len(place)):
            length = len(place) if isinstance(place, list) else 0
            raise UserError(f"--set {override}: there is no entry [{step}]; there are {length} at that place")
        if isinstance(step, str) and not isinstance(place, dict):
            raise UserError(f"--set {override}: {step!r} is no key there; the place holds {place!r}")
        if following is None:
            place[step] = value
        else:
            if isinstance(step, str) and place.get(step) is None:
                place[step] = {} if isinstance(following, str) else []
            place = place[step]


def _steps(key: str) -> list[str | int]:
    steps: list[str | int] = []
    place = 0
    while place < len(key):
        match = _STEP.match(key, place)
        if not match or (place == 0 and not match[1]):
            return []
        steps.append(match[1] if match[1] else int(match[2] or match[3]))
        place = match.end()
    return steps
