"""Processes that share the command's work.

Verifying is mostly tracing and lowering, which hold Python's lock, so that threads gain little. A
worker is a new process (``multiprocessing``, "spawn"), so it may be started at any time and on any
system, and it can be killed by itself. Importing JAX takes it a second or two: that is done while
the command imports JAX too.
"""

import contextlib
import importlib.metadata
import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

from jaxgrad.runtime.threads import cores, share_with

MOST = 4
"""The most processes; each compiles anew what they share."""

Tell = Callable[[str, float, str], None]
Serve = Callable[..., Callable[[Any, Tell], Any]]


class WorkerLostError(Exception):
    """The worker has died."""


class Worker:
    """A process that answers questions until it is stopped.

    Args:
        serve: called once in the new process, with the arguments; returns the function that answers
            a question, and is given another one that reports progress. Both are named by a module,
            and what they take and return can be pickled.
        *arguments: of `serve`.
    """

    def __init__(self, serve: Serve, *arguments: Any) -> None:
        """Start the process, in which an interrupt is ignored: its parent is told, and stops it."""
        spawn = multiprocessing.get_context("spawn")
        self._pipe, there = spawn.Pipe()
        self._process = spawn.Process(target=_answer, args=(there, serve, arguments), daemon=True)
        with _uninterrupted():
            self._process.start()
        there.close()

    def ask(self, question: Any, tell: Tell) -> Any:
        """Return the answer; the progress that is reported meanwhile is passed on.

        Raises:
            WorkerLostError: when the worker has died.
        """
        try:
            self._pipe.send(question)
            while (message := self._pipe.recv())[0] == "progress":
                tell(*message[1:])
        except (EOFError, OSError) as error:
            raise WorkerLostError from error
        return message[1]

    def stop(self) -> None:
        """Kill the worker, busy or idle; a thread that waits for it is told that it is lost."""
        self._process.kill()
        self._process.join()


def start(serve: Serve, *arguments: Any) -> list[Worker]:
    """Start one worker for each further core, and share the cores; none where the CPU is not all.

    An accelerator's memory belongs to one process. JAX has not started a backend yet.
    """
    count = min(cores(), MOST) - 1
    elsewhere = importlib.metadata.entry_points(group="jax_plugins")
    if count < 1 or (elsewhere and os.environ.get("JAX_PLATFORMS") != "cpu"):
        return []
    share_with(count)
    return [Worker(serve, *arguments) for _ in range(count)]


@contextlib.contextmanager
def _uninterrupted() -> Any:
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _answer(pipe: Any, serve: Serve, arguments: tuple[Any, ...]) -> None:
    with contextlib.suppress(EOFError, OSError):  # the parent has ended
        answer = serve(*arguments)
        while True:
            question = pipe.recv()
            found = answer(question, lambda *progress: pipe.send(("progress", *progress)))
            pipe.send(("answer", found))
