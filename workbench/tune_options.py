"""What an experiment says of tuning: whose options, from which domains, with how many trials."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod, sqrt
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, model_serializer, model_validator

from methods.training.options import Options
from workbench.fields import Count

Kind = Literal["uniform", "loguniform", "integer", "choice"]
TUNED = "-tuned"
"""Behind a method's label: the row of the comparison with the tuned options."""


def _number(value: Any) -> Any:
    """YAML reads 1e-5 as a word."""
    if isinstance(value, list | dict):
        raise ValueError(f"one of several values is a number, a word, true, false or null, got {value}")
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Value = Annotated[bool | int | float | str | None, BeforeValidator(_number)]
Ends = tuple[float, float]


class Domain(Options):
    """The values of one option: one of `uniform` [low, high], `loguniform` [low, high], `integer` [low, high] with both ends, and `choice`
    [value, ...]."""

    uniform: Ends | None = None
    loguniform: Ends | None = None
    integer: tuple[int, int] | None = None
    choice: Annotated[tuple[Value, ...], Field(min_length=2)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Domain:
        if sum(value is not None for value in dict(self).values()) != 1:
            raise ValueError(f"write one of {', '.join(type(self).model_fields)}")
        if self.kind != "choice" and not self.values[0] < self.values[1]:
            raise ValueError(f"{self.kind}: the first value must be below the second, got {list(self.values)}")
        if self.kind == "loguniform" and self.values[0] <= 0:
            raise ValueError(f"loguniform: values must be above 0, got {list(self.values)}")
        if self.choice is not None and len(set(self.choice)) < len(self.choice):
            raise ValueError(f"choice: values must be distinct, got {list(self.choice)}")
        return self

    @model_serializer
    def _written(self) -> dict[str, Any]:
        return {self.kind: list(self.values)}

    @property
    def kind(self) -> Kind:
        return next(cast(Kind, name) for name, value in self if value is not None)

    @property
    def values(self) -> tuple[Any, ...]:
        """Both ends, or all choices."""
        found: tuple[Any, ...] = getattr(self, self.kind)
        return found

    @property
    def looked_at(self) -> tuple[Any, ...]:
        """Values that stand for all: of an interval both ends, and one between them that is no whole number."""
        if self.kind in ("integer", "choice"):
            return self.values
        low, high = self.values
        return low, low + (high - low) / sqrt(2), high

    @property
    def count(self) -> int | None:
        """So many values; None: more than can be counted."""
        if self.kind == "choice":
            return len(self.values)
        return self.values[1] - self.values[0] + 1 if self.kind == "integer" else None


class Halving(Options):
    """ASHA (asynchronous successive halving): when a trial has done `grace` of its training, or `reduction` times that, and so on, it ends
    there unless it is among the best 1 / `reduction` of those that came so far. `grace: 1`: every trial goes to its end."""

    grace: Annotated[float, Field(gt=0, le=1)] = 0.25
    reduction: Annotated[float, Field(gt=1)] = 3.0


class TuneEntry(Options):
    """Tuning of one entry of `methods`, by its name or label. Its row with the best options is called `<label>-tuned`.

    `task` (None: the only one), `seed`: what the trials train on; they are rated on its split `search`. `samples`: trials at most.
    `parameters`: by their dotted names in the method's options. `reports`: so many times in each stage a trial is rated. `concurrent`:
    trials side by side at most (None: as many as there is room for). `storage`: a directory or URL where Ray Tune keeps its state and the
    trials' checkpoints (None: the run folder). No number depends on `storage`; with more than one trial side by side the trials depend
    on which of them ends first.
    """

    method: Annotated[str, Field(min_length=1)]
    task: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    samples: Count = 16
    parameters: Annotated[dict[str, Domain], Field(min_length=1)]
    scheduler: Halving = Field(default_factory=Halving)
    reports: Count = 4
    concurrent: Count | None = None
    storage: Annotated[str, Field(min_length=1)] | None = None

    @property
    def label(self) -> str:
        """What tables, folders and the archive call the tuned row."""
        return f"{self.method}{TUNED}"

    @property
    def combinations(self) -> int | None:
        """Of values, where there are finitely many."""
        counts = [domain.count for domain in self.parameters.values()]
        return None if None in counts else prod(count for count in counts if count)

    @property
    def trials(self) -> int:
        """At most; no combination of finitely many is tried twice."""
        return min(self.samples, self.combinations or self.samples)

    @property
    def exhaustive(self) -> bool:
        """Whether each combination is tried once."""
        return self.combinations is not None and self.combinations <= self.samples


def with_values(options: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Options with others at dotted names."""
    found = dict(options)
    for path, value in values.items():
        first, _, rest = path.partition(".")
        found[first] = with_values(found.get(first) or {}, {rest: value}) if rest else value
    return found
