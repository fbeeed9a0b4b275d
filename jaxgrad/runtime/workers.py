"""Copies of this process that share its work.

Verifying is mostly tracing and lowering, which hold Python's lock, so that threads gain little. A
twin is forked before JAX has started its backend, and so before there are threads that a fork would
break; it holds everything that was loaded, lambdas included, and is asked by number. Where a twin
cannot be had, threads do the work.
"""

import contextlib
import importlib.metadata
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax

Tell = Callable[[str, float, str], None]
Answer = Callable[[int, Tell], Any]


class TwinLostError(Exception):
    """The twin has died."""


def can_fork() -> bool:
    """Say whether a fork is safe here, and whether each twin may have a backend of its own:
    accelerators' memory is not shared.
    """
    if not sys.platform.startswith("linux") or threading.active_count() > 1:
        return False
    only_cpu = jax.config.values["jax_platforms"] == "cpu" or not importlib.metadata.entry_points(
        group="jax_plugins"
    )
    return only_cpu and not _backend_started()


def _backend_started() -> bool:
    try:
        from jax._src.xla_bridge import backends_are_initialized  # no public name tells
    except ImportError:
        return True
    return backends_are_initialized()


class Twin:
    """A forked copy of this process that answers questions until it is stopped.

    Args:
        answer: called in the twin with a number and a function that reports progress; its result
            must be picklable.
    """

    def __init__(self, answer: Answer) -> None:
        """Fork."""
        self._pipe, there = multiprocessing.Pipe()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        self._pid = os.fork()
        if self._pid == 0:
            self._pipe.close()
            _serve(there, answer)
        there.close()

    def ask(self, number: int, tell: Tell) -> Any:
        """Return the twin's answer; what it prints and reports meanwhile is passed on.

        Raises:
            TwinLostError: when the twin has died.
        """
        self.begin(number)
        return self.answer(tell)

    def begin(self, number: int) -> None:
        """Ask, and do not wait.

        Raises:
            TwinLostError: when the twin has died.
        """
        try:
            self._pipe.send(number)
        except OSError as error:
            raise TwinLostError from error

    def answer(self, tell: Tell) -> Any:
        """Return the answer to what was asked; what the twin prints and reports is passed on from
        now.

        Raises:
            TwinLostError: when the twin has died.
        """
        try:
            while True:
                kind, *content = self._pipe.recv()
                if kind == "answer":
                    return content[0]
                if kind == "progress":
                    tell(*content)
                else:
                    getattr(sys, kind).write(*content)
        except (EOFError, OSError) as error:
            raise TwinLostError from error

    def stop(self) -> None:
        """Kill the twin, busy or idle; a thread that waits for it is told that it is lost."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


class _Stream:
    """A text stream whose text the parent writes."""

    encoding, errors = "utf-8", "strict"

    def __init__(self, pipe: Any, name: str) -> None:
        self._pipe, self._name = pipe, name

    def write(self, text: str) -> int:
        self._pipe.send((self._name, text))
        return len(text)

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def isatty(self) -> bool:
        return False


def _serve(pipe: Any, answer: Answer) -> None:
    """Answer until the pipe closes; never return."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and stops its twins
    status = 1
    try:
        sys.stdout, sys.stderr = _Stream(pipe, "stdout"), _Stream(pipe, "stderr")
        while True:
            number = pipe.recv()
            pipe.send(
                ("answer", answer(number, lambda *progress: pipe.send(("progress", *progress))))
            )
    except (EOFError, BrokenPipeError):
        status = 0
    finally:
        os._exit(status)
