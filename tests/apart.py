"""Code in processes of their own, which know nothing of the caller's: other hashes of strings, nothing of this package imported.

They are forked from one process that holds the libraries that take seconds to import, and nothing else.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from contextlib import redirect_stdout
from io import StringIO
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext

import pytest

LIBRARIES = ["torch.distributed.tensor", "transformers.models.bert.modeling_bert", "accelerate"]
FLOORS = ("methods", "search", "analysis", "workbench")
SECONDS = 300
"""A process that takes longer hangs."""


def printed_apart(code: str, *words: str) -> str:
    """What the code prints; `words` are its `sys.argv[1:]`. A mistake in it is a failed assertion."""
    return printed_by_several(code, *words, environments=[{}])[0]


def printed_by_several(code: str, *words: str, environments: list[dict[str, str]]) -> list[str]:
    """The same in several processes at once, one for every set of additional environment variables."""
    context, receivers = _context(), []
    for environment in environments:
        receiver, sender = context.Pipe(duplex=False)
        context.Process(target=_print, args=(code, words, environment, sender), daemon=True).start()
        sender.close()
        receivers.append(receiver)
    outcomes = [receiver.recv() if receiver.poll(SECONDS) else ("", f"no end after {SECONDS} s") for receiver in receivers]
    mistakes = [mistake for _, mistake in outcomes if mistake]
    assert not mistakes, "\n".join(mistakes)
    return [text for text, _ in outcomes]


def exit_code_apart(code: str, *words: str) -> int:
    """How a process ends that runs the code, `words` being its `sys.argv[1:]`: 0, 1 after a mistake, -9 where it was killed."""
    process = _context().Process(target=_run, args=(code, words), daemon=True)
    process.start()
    process.join(SECONDS)
    assert process.exitcode is not None, f"no end after {SECONDS} s"
    return process.exitcode


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONHASHSEED", "8" if os.environ.get("PYTHONHASHSEED") == "7" else "7")
        forkserver.ensure_running()
    return context


def _run(code: str, words: tuple[str, ...]) -> None:
    sys.argv = ["-c", *words]
    exec(compile(code, "<apart>", "exec"), {"__name__": "__main__"})


def _print(code: str, words: tuple[str, ...], environment: dict[str, str], sender: Connection) -> None:
    os.environ.update(environment)
    sys.argv = ["-c", *words]
    mistake = ", ".join(f"{name} is imported already" for name in FLOORS if name in sys.modules)
    with redirect_stdout(StringIO()) as out:
        try:
            exec(compile(code, "<apart>", "exec"), {"__name__": "__main__"})
        except BaseException:
            mistake += traceback.format_exc()
    sender.send((out.getvalue(), mistake))
