"""The strategies by name. A new one is a class and one call of `register`, and one line in tests/search/test_strategies.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from methods.budget import Budget
from methods.errors import UserError
from methods.space import SearchSpace
from search.strategies.strategy import CostOf, Problem, Strategy


@dataclass(frozen=True)
class Entry:
    """How a strategy is made, how many architectures it measures unless told (None: all), and whether it looks at the budget."""

    make: Callable[[Problem], Strategy]
    evaluations: int | None
    reads_budget: bool = True


def _lazily(module: str, name: str) -> Callable[[Problem], Strategy]:
    def make(problem: Problem) -> Strategy:
        try:
            strategy: Strategy = getattr(import_module(module), name)(problem)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "ray":
                raise
            raise UserError("search.strategy: ray_tune needs Ray; install it with: pip install 'elastibench[ray]'") from error
        return strategy

    return make


_ENTRIES = {
    "exhaustive": Entry(_lazily("search.strategies.exhaustive", "Exhaustive"), None, reads_budget=False),
    "random": Entry(_lazily("search.strategies.random_", "Random"), 100),
    "tpe": Entry(_lazily("search.strategies.optuna_", "Tpe"), 100),
    "gp": Entry(_lazily("search.strategies.optuna_", "Gp"), 100),
    "nsga2": Entry(_lazily("search.strategies.optuna_", "Nsga2"), 200),
    "ray_tune": Entry(_lazily("search.ray_.strategy", "RayTune"), 100),
    "evolution": Entry(_lazily("search.strategies.evolution", "Evolution"), 200),
    "predictor": Entry(_lazily("search.strategies.predictor", "Predictor"), 100),
}
AUTO, DEFAULT = "auto", "predictor"
"""`auto` is exhaustive where that measures no more, else the default: the best of `python -m benchmarks.search`."""


def register(name: str, entry: Entry) -> None:
    """Makes a strategy known. A name can be taken once."""
    if _ENTRIES.get(name, entry) != entry:
        raise ValueError(f"a strategy named {name!r} is registered already")
    _ENTRIES[name] = entry


def names() -> list[str]:
    return list(_ENTRIES)


def entry(name: str) -> Entry:
    """The strategy of that name. Raises UserError where there is none."""
    if name not in _ENTRIES:
        raise UserError(f"search.strategy: {name!r} is unknown; there are {', '.join((AUTO, *_ENTRIES))}")
    return _ENTRIES[name]


def resolve(name: str, size: int, evaluations: int | None = None) -> str:
    """What `auto` is for a space of that size and so many evaluations (None: the default's own number); any other name is itself."""
    if name != AUTO:
        return name
    return "exhaustive" if size <= (evaluations or entry(DEFAULT).evaluations or 0) else DEFAULT


def make(
    name: str,
    space: SearchSpace,
    seed: int,
    budget: Budget,
    cost_of: CostOf,
    evaluations: int | None = None,
    objectives: tuple[str, ...] = (),
) -> Strategy:
    """A fresh strategy. Raises UserError for an unknown name, or a space that it can't search."""
    found = entry(resolve(name, space.size(), evaluations))
    return found.make(Problem(space, budget, cost_of, seed, evaluations, objectives))
