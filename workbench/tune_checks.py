"""What can be known to be wrong with a section `tune` before anything is trained."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from methods.backbone import BackboneConfig
from methods.errors import UserError
from methods.registry import get
from methods.space import SearchSpace
from workbench.experiment import Experiment
from workbench.places import mistakes
from workbench.session import Member, member_of
from workbench.tune_options import Domain, TuneEntry, with_values
from workbench.tuned import entry_of, pending, planned_flops, task_of, with_values_of

LOOKED_AT = 20
"""So many drawn architectures of two spaces are compared."""


def check_tuning(experiment: Experiment, backbone: BackboneConfig, name: str) -> None:
    """Raises UserError, by its place, for parameters that are none of the method's, values that its options refuse, and methods and
    options that can't be tuned."""
    for tune in pending(experiment):
        index, entry = entry_of(experiment, tune)
        place = f"{name}: tune[{experiment.tune.index(tune)}]"
        member = member_of(entry, index, backbone, name)
        head = task_of(experiment, tune).spec.head
        if member.on_task is None:
            why = "its supernet is trained on a corpus, which is too long for a trial; tuned are methods that are trained on the task"
            raise UserError(f"{place}.method: {tune.method} can't be tuned: {why}")
        if not planned_flops(member, backbone, head):
            raise UserError(f"{place}.method: {tune.method} trains nothing with these options (methods[{index}])")
        for path, domain in tune.parameters.items():
            _check_path(member, path, f"{place}.parameters.{path}", index)
            for value in domain.looked_at:
                found = _with_value(member, path, domain, value, f"{place}.parameters", tune, index, backbone)
                if not _alike(found.space, member.space):
                    why = f"changes the search space (with {value!r}); the trials must train the same networks"
                    raise UserError(f"{place}.parameters.{path}: {why}; compare spaces as methods of their own")


def _check_path(member: Member, path: str, place: str, index: int) -> None:
    """Every section on the way must be there."""
    if path == "label":
        raise UserError(f"{place}: is a name, which nothing depends on; take it out")
    section: Any = member.options.model_dump(mode="json")
    steps = path.split(".")
    for depth, step in enumerate(steps[:-1]):
        if not isinstance(section, Mapping) or step not in section:
            return  # the options say what they have instead
        section = section[step]
        if not isinstance(section, Mapping):
            there = ".".join(steps[: depth + 1])
            hint = "write it there, so that the untuned row has it too" if section is None else "it has no options of its own"
            raise UserError(f"{place}: {there} is {'null' if section is None else repr(section)} in methods[{index}]; {hint}")


def _with_value(
    member: Member, path: str, domain: Domain, value: Any, place: str, tune: TuneEntry, index: int, backbone: BackboneConfig
) -> Member:
    options = with_values(member.options.model_dump(mode="json"), {path: value})
    try:
        get(member.entry.name).options.model_validate(options)
    except ValidationError as error:
        hint = ""
        if domain.kind in ("uniform", "loguniform") and any(detail["type"] == "int_from_float" for detail in error.errors()):
            hint = "; write integer: [LOW, HIGH]"
        lines = mistakes(error, get(member.entry.name).options)
        raise UserError(f"{place}.{lines[0]}{hint}") from error
    return member_of(with_values_of(member.entry, {path: value}, tune.label), index, backbone, place.partition(":")[0])


def _alike(space: SearchSpace, other: SearchSpace) -> bool:
    """Whether two spaces have the same choices, as far as their corners and some draws tell."""

    def drawn(of: SearchSpace) -> list[dict[str, Any]]:
        rng = random.Random(0)
        return [found.choices for found in (of.smallest(), of.largest(), *(of.sample(rng) for _ in range(LOOKED_AT)))]

    return space.size() == other.size() and drawn(space) == drawn(other)
