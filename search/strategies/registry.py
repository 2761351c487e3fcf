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
        strategy: Strategy = getattr(import_module(module), name)(problem)
        return strategy

    return make


_ENTRIES = {
    "exhaustive": Entry(_lazily("search.strategies.exhaustive", "Exhaustive"), None, reads_budget=False),
    "random": Entry(_lazily("search.strategies.random_", "Random"), 100),
    "tpe": Entry(_lazily("search.strategies.optuna_", "Tpe"), 100),
    "nsga2": Entry(_lazily("search.strategies.optuna_", "Nsga2"), 200),
}


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
        raise UserError(f"search.strategy: {name!r} is unknown; there are {', '.join(_ENTRIES)}")
    return _ENTRIES[name]


def make(name: str, space: SearchSpace, seed: int, budget: Budget, cost_of: CostOf, evaluations: int | None = None) -> Strategy:
    """A fresh strategy. Raises UserError for an unknown name, or a space that it can't search."""
    return entry(name).make(Problem(space, budget, cost_of, seed, evaluations))
