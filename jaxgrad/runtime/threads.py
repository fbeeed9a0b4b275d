"""Work dealt out to the cores of one machine."""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

XLA_THREADS = "NPROC"
"""The number of threads XLA may have, which it reads when a backend starts on the CPU."""


def workers() -> int:
    """Return how many compiled programs to run at once: one a core on the CPU, else one."""
    import jax  # here: the command counts cores before it imports JAX

    if jax.default_backend() != "cpu":
        return 1
    share = os.environ.get(XLA_THREADS, "")
    return max(1, min(cores(), int(share))) if share.isdecimal() else cores()


def share_with(others: int) -> None:
    """Leave cores to so many other processes, before a backend has started.

    Where several processes take all cores each, their threads wait for each other, and spin while
    they do. A process that is started from now on takes as many as this one.
    """
    os.environ.setdefault(XLA_THREADS, str(max(1, cores() // (others + 1))))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _pool(pid: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, workers() - 1), thread_name_prefix="jaxgrad")


def for_each(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Return ``[work(item) for item in items]``, done by all cores.

    JAX's settings are those of the caller in the first alone.

    >>> for_each(lambda x: x * x, range(4))
    [0, 1, 4, 9]
    """
    if len(items) < 2 or workers() == 1:
        return [work(item) for item in items]
    rest = [_pool(os.getpid()).submit(work, item) for item in items[1:]]
    return [work(items[0]), *(future.result() for future in rest)]


def ahead(work: Callable[[], Any]) -> Callable[[], Any]:
    """Let a thread do some work, where there is a core for it; return what waits for the result.

    >>> ahead(lambda: 3)()
    3
    """
    return functools.cache(work) if workers() == 1 else _pool(os.getpid()).submit(work).result
