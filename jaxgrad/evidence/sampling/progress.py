"""The line that tells how far sampling is."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

EVERY = 0.1
"""Seconds between two states of the line on a terminal."""


class Pace:
    """How fast samples come in.

    Args:
        samples: drawn before the clock starts.
        clock: seconds, from any origin.
    """

    def __init__(self, samples: int, clock: Callable[[], float] = time.perf_counter) -> None:
        """Start the clock."""
        self.samples, self.clock, self.start = samples, clock, clock()

    def line(self, samples: int, widest: float, needed: float) -> str:
        """Return the line: samples, rate, widest interval against the resolution, time left.

        Args:
            samples: drawn so far.
            widest: widest interval in units of the resolution; infinite where it is not known.
            needed: samples at which the verdict is expected; infinite where it is not known.

        >>> times = iter([0.0, 2.0])
        >>> Pace(0, lambda: next(times)).line(4096, 3.0, 8192.0)
        '4096 samples, 2.0e+03/s, widest interval 3 × resolution, 2 s left'
        """
        return self.tell(
            samples,
            f"widest interval {widest:.2g} × resolution" if math.isfinite(widest) else "",
            needed,
        )

    def tell(self, samples: int, width: str, needed: float) -> str:
        """Return the line with the precision reached put into words, or left out where it is "".

        >>> times = iter([0.0, 2.0])
        >>> Pace(0, lambda: next(times)).tell(4096, "standard errors up to 3e-03", 8192.0)
        '4096 samples, 2.0e+03/s, standard errors up to 3e-03, 2 s left'
        """
        spent = self.clock() - self.start
        parts = [f"{samples} samples"]
        rate = (samples - self.samples) / spent if spent > 0 else 0.0
        if rate:
            parts.append(f"{rate:.1e}/s")
        if width:
            parts.append(width)
        if rate and math.isfinite(needed):
            parts.append(f"{duration(max(needed - samples, 0.0) / rate)} left")
        return ", ".join(parts)


@contextlib.contextmanager
def shown(stream: TextIO | None = None) -> Iterator[Callable[[float, str], None] | None]:
    """Show a line that is written over while the context lasts.

    Yields None where the stream, by default stderr, is no terminal.
    """
    out: TextIO = sys.stderr if stream is None else stream
    if not out.isatty():
        yield None
        return
    last = -math.inf

    def tell(_: float, line: str) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= EVERY:
            out.write(f"\r\x1b[2K{line}")
            out.flush()
            last = now

    try:
        yield tell
    finally:
        out.write("\r\x1b[2K")
        out.flush()


def duration(seconds: float) -> str:
    """Write a duration to the precision of a guess.

    >>> [duration(s) for s in (0.2, 8.0, 150.0, 7200.0, 4e5)]
    ['0 s', '8 s', '2 min', '2 h', '5 days']
    """
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
