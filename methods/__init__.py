"""What is trained and what a sub-network is: spaces, networks, costs, budgets, supernets, recipes, tasks.

Importing this package imports neither torch nor transformers; what needs them is loaded when used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from methods.budget import Budget
from methods.costs import Costs, costs
from methods.errors import UserError
from methods.registry import Method, get, names, register
from methods.space import Architecture, Choice, SearchSpace

if TYPE_CHECKING:
    from methods.network import Network, NetworkSpec, load_network
    from methods.supernet import Supernet

__all__ = [
    "Architecture",
    "Budget",
    "Choice",
    "Costs",
    "Method",
    "Network",
    "NetworkSpec",
    "SearchSpace",
    "Supernet",
    "UserError",
    "costs",
    "get",
    "load_network",
    "names",
    "register",
]

_LAZY = {"Network": "methods.network", "NetworkSpec": "methods.network", "load_network": "methods.network", "Supernet": "methods.supernet"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'methods' has no attribute {name!r}")
