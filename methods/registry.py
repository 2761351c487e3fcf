"""The methods that there are, by name. A fourth one is a new folder and one call of `register`, or a package that names it as an entry
point of the group `elastibench.methods`, which every process finds by itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

from methods.errors import UserError
from methods.recipe import Recipe, Scope
from methods.space import SearchSpace

if TYPE_CHECKING:
    from pydantic import BaseModel
    from transformers import PreTrainedTokenizerBase

    from methods.backbone import BackboneConfig
    from methods.supernet import Supernet
    from methods.tasks.batches import Collate
    from methods.tasks.head import Head


@dataclass(frozen=True)
class Method:
    """Everything that the floors above know of a method.

    `options` is the pydantic model of its knobs (an entry of `methods:` in the experiment file, without its `name`).
    """

    name: str
    summary: str
    scope: Scope
    options: type[BaseModel]
    space: Callable[[Any, BackboneConfig], SearchSpace]
    supernet: Callable[[SearchSpace, BackboneConfig, Head], Supernet]
    recipe: Callable[[Any], Recipe]
    collate: Callable[[PreTrainedTokenizerBase, int], Collate]


def lazily(place: str) -> Callable[..., Any]:
    """The callable at `module:name`, imported when it is first called: a method is listed without loading torch."""
    module, _, name = place.partition(":")

    def call(*arguments: Any) -> Any:
        return getattr(import_module(module), name)(*arguments)

    return call


_BUILT_IN = {"dynabert": "methods.dynabert", "nasbert": "methods.nasbert", "adabert": "methods.adabert"}
_PARTS = ("methods.layers.encoder", "methods.layers.heads", "methods.layers.convolution", "methods.layers.cell")
_REGISTERED: dict[str, Method] = {}
GROUP = "elastibench.methods"


@cache
def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def register(method: Method) -> None:
    """Makes a method known. A name can be taken once."""
    if method.name in _BUILT_IN or _REGISTERED.get(method.name, method) != method:
        raise ValueError(f"a method named {method.name!r} is registered already")
    _REGISTERED[method.name] = method


def unregister(name: str) -> None:
    """Forgets a method that `register` made known."""
    _REGISTERED.pop(name, None)


def names() -> list[str]:
    return list(dict.fromkeys((*_BUILT_IN, *_REGISTERED, *_installed())))


def get(name: str) -> Method:
    """The method of that name; its modules are imported now. Raises UserError where there is none."""
    if name in _BUILT_IN:
        method: Method = import_module(_BUILT_IN[name]).METHOD
        return method
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name in _installed():
        return _loaded(_installed()[name])
    raise UserError(f"method {name!r} is unknown; there are {', '.join(names())}")


def _loaded(point: EntryPoint) -> Method:
    """Raises UserError where a package promises a method and has none."""
    try:
        method = point.load()
    except Exception as error:
        why = f"({type(error).__name__}: {error}); mend or uninstall its package"
        raise UserError(f"the entry point {point.name} = {point.value} of {GROUP} can't be loaded {why}") from error
    if not isinstance(method, Method) or method.name != point.name:
        raise UserError(f"the entry point {point.name} = {point.value} of {GROUP} is no Method named {point.name!r}")
    return method


def import_plugins(modules: Iterable[str]) -> None:
    """Imports modules that call `register`: installed ones, or files of the current directory. Raises UserError where one can't be
    imported."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    for module in modules:
        try:
            import_module(module)
        except (Exception, SystemExit) as error:
            if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
                raise UserError(f"there is no module {module!r}; install its package, or start in the directory that it lies in") from error
            last = extract_tb(error.__traceback__)[-1]
            file, line = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (last.filename, last.lineno)
            raise UserError(f"module {module!r}: {type(error).__name__}: {error} ({file}, line {line})") from error


def import_parts() -> None:
    """Imports every built-in part, so that specs can be read from JSON."""
    for module in _PARTS:
        import_module(module)
