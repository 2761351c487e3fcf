"""Where the parts of a run are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from methods.space import Architecture
    from search.loop import Evaluate
    from workbench.experiment import Resources
    from workbench.running import MethodRun

Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """Something that any process can compute from the run folder, with its results left there: `call(session, *arguments)`, by the name of
    a function of `workbench.jobs`. `name` says task, method, seed and stage; `about`: the task (or corpus) whose measurements it need not
    make again.
    """

    call: str
    arguments: tuple[Any, ...]
    name: str
    about: str
    resources: Resources


def called(architecture: Architecture, control: str = "") -> str:
    """A network in the name of a job."""
    return f"{architecture.id[:12]} {control}".strip()


class Workers:
    """This process alone: one part after the other, each when it is come to."""

    def start(self, part: Callable[[], Result]) -> Callable[[], Result]:
        """Begins a part of the run. What is returned waits for its end and gives its result; a part may wait for those begun before."""
        result = part()
        return lambda: result

    def ahead(self, jobs: Sequence[Job]) -> None:
        """Does these elsewhere, side by side, so that they are read back here; nothing where there is no elsewhere.

        Waits, so that other parts may go on: not to be called within a `cached_property`, which in Python 3.11 holds a lock of its class.
        """

    @contextmanager
    def evaluator(self, run: MethodRun) -> Iterator[Evaluate | None]:  # noqa: ARG002 (one signature)
        """What evaluates architectures of a trained supernet elsewhere; None where they are evaluated here."""
        yield None

    def join(self) -> None:
        """Waits for the parts. Raises what one of them raised."""
