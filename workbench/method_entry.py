"""A method of the experiment: its name, its options, what it is run on and what it takes of a cluster."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from methods.registry import get
from methods.training.options import Options
from workbench.fields import Count, Quantity, Seeds


class Resources(Options):
    """What a stage takes of a Ray cluster (`run --ray`); no number depends on it.

    `cpus` (None: `hardware.threads`), `gpus` (None: one where `hardware.device` is cuda; 0.25: four stages share one), `memory` (bytes,
    with K, M or G behind the number) that a node must have free. `workers`: so many processes at most evaluate for one search (None: as
    many as `search.generation`).
    """

    cpus: Annotated[float, Field(ge=0)] | None = None
    gpus: Annotated[float, Field(ge=0)] | None = None
    memory: Quantity = None
    workers: Count | None = None


class MethodEntry(BaseModel):
    """A method's name with its options, as the method's own model.

    `label` among the options: what the entry is called where one method is there several times. `tasks`, `seeds`: those of the
    experiment's that it is run on (None: all). `controls: false`: it gets no control rows. `resources`: other ones than the experiment's.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    tasks: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    seeds: Seeds | None = None
    controls: bool = True
    resources: Resources | None = None

    @property
    def label(self) -> str:
        """What tables, folders and the archive call it."""
        return str((self.model_extra or {}).get("label") or self.name)

    def runs(self, task: str, seed: int | None = None) -> bool:
        """Whether it is run on a task (with a seed)."""
        return (self.tasks is None or task in self.tasks) and (seed is None or self.seeds is None or seed in self.seeds)

    @property
    def options(self) -> BaseModel:
        """The options, checked. Raises pydantic's ValidationError."""
        return get(self.name).options.model_validate(self.model_extra or {})

    def resolved(self) -> dict[str, Any]:
        """Name and every option; a label, tasks, seeds and controls where they say something."""
        options = self.options.model_dump(mode="json")
        if not options.get("label", True):
            del options["label"]
        limits = self.model_dump(mode="json", include={"tasks", "seeds", "controls", "resources"}, exclude_defaults=True)
        return {"name": self.name, **options, **limits}
