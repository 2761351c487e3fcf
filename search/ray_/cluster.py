"""The connection to a cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from methods.errors import UserError


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Ray at `local` (this machine alone, until the end), `auto` (the cluster that this machine belongs to) or `ray://HOST:PORT`.

    A connection that is there already is used and left. Raises UserError where there is no cluster.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, num_cpus=_cores() if address == "local" else None, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        hint = "start one with `ray start --head`, or write --ray local" if address == "auto" else "is `ray start --head` done there?"
        raise UserError(f"--ray {address}: no cluster answers ({_first_line(error)}); {hint}") from error
    except Exception as error:  # Ray raises this very class where its processes do not come up in time
        raise UserError(f"--ray {address}: Ray does not start here ({_first_line(error)})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
