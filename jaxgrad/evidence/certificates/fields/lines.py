"""Numbers that differ by constants, in their order on the real line.

A finite field knows signs, but no order: there x − 1 may be positive where x is not. So that
clip(x, −1, 1) is what it is where |x| < 1, comparisons have a third reading. In each draw a number
d that is compared with 0 lies on a *line* with those that differ from it by a constant of the
program: d = a + c or d = c − a, where a is the first of them. Such constants cut the line. In each
draw one of the intervals is chosen at random, and every comparison on the line follows from it.

Where a line is cut is learned in a run of its own, in which coins halve the intervals as they are
asked for. After it, each of the m + 1 intervals that m cuts leave is met by one in m + 1 draws,
where m coins would meet it in 2⁻ᵐ of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from jaxgrad.evidence.certificates.fields.modular import Draws

LINES, CONSTANTS = 48, 16
"""So many lines are kept apart, and so many constants of a program cut them, with their sums and
differences.
"""

Name = tuple[int, int]
"""Of a line: which comparison of the program, and which of its entries, met it first."""


@dataclass
class _Line:
    """A line: its first number in each draw, and the interval this lies in.

    The number is −1 in draws in which it lies on another line.
    """

    name: Name
    first: np.ndarray
    low: np.ndarray
    high: np.ndarray
    cuts: set[int] = field(default_factory=set)


def differences(constants: Sequence[Fraction]) -> list[Fraction] | None:
    """Return, in order, how far apart numbers may lie of which constants were taken.

    None where there are too many constants.

    >>> [str(x) for x in differences([Fraction(1, 2)])]
    ['-1', '-1/2', '0', '1/2', '1']
    """
    known = {Fraction(0), *constants}
    if len(known) > CONSTANTS + 1:
        return None
    return sorted({s * a + t * b for a in known for b in known for s in (1, -1) for t in (1, -1)})


class Lines:
    """The lines of one run.

    Args:
        draws: the fields.
        steps: what `differences` returns.
        cuts: where each line is cut, as a run before has learned it; None in the run that learns.

    Attributes:
        comparisons: how many arrays were compared so far.
        pairs: how many numbers were held against the first of a line.
    """

    def __init__(
        self,
        draws: Draws,
        steps: Sequence[Fraction],
        cuts: Mapping[Name, Sequence[int]] | None = None,
    ) -> None:
        """Know of zero alone, on whose line all constants lie."""
        self.draws, self.steps, self.learned = draws, steps, cuts
        self.comparisons = self.pairs = 0
        self.random = np.random.default_rng([draws.seed, 3])
        remainders = np.stack([draws.p.fraction(x.numerator, x.denominator) for x in steps], 1)
        keys = (draws.which[:, None].astype(np.int64) << 32 | remainders).ravel()
        self._keys, first = np.unique(keys, return_index=True)
        self._ranks = first % len(steps)
        self.zero = list(steps).index(Fraction(0))
        here = np.full(draws.count, self.zero)
        self.lines = [_Line((-1, 0), np.zeros(draws.count, np.int64), here, here.copy())]

    @property
    def cuts(self) -> dict[Name, list[int]]:
        """Where each line was cut."""
        return {line.name: sorted(line.cuts) for line in self.lines[1:]}

    def weight(self, name: Name) -> float:
        """Return the base-2 logarithm of how many intervals a line has."""
        return math.log2(len((self.learned or {}).get(name, ())) + 1)

    def positive(self, name: Name, d: np.ndarray) -> tuple[np.ndarray, set[Name], bool]:
        """Say where a number is positive, on which lines it lies, and if all cuts are known."""
        truth, open_, names, known = np.zeros(len(d), bool), np.ones(len(d), bool), set(), True
        firsts = np.stack([line.first for line in self.lines])
        self.pairs += 2 * len(firsts)
        apart, together = (
            np.where(firsts < 0, -1, self._rank(self.draws.p.of, d, sign * firsts))
            for sign in (-1, 1)
        )
        for line, plus, minus in zip(self.lines, apart, together, strict=True):
            for ranks, upwards in ((plus, True), (minus, False)):
                here = open_ & (ranks >= 0)
                if not here.any():
                    continue
                cut = (
                    len(self.steps) - 1 - ranks[here] if upwards else ranks[here]
                )  # a + c > 0 where a > −c, and c − a > 0 where a < c
                above, sure = self._above(line, here, cut)
                truth[here], open_[here] = above if upwards else ~above, False
                known &= sure
                names |= {line.name} if line is not self.lines[0] else set()
        if open_.any():
            if len(self.lines) > LINES:
                return truth, names, False
            line = self._begin(name, np.where(open_, d, -1))
            truth[open_], sure = self._above(line, open_, np.full(int(open_.sum()), self.zero))
            names, known = names | {name}, known and sure
        return truth, names, known

    def _rank(self, moduli: np.ndarray, d: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return which constant d + others is, (line, draw), and −1 where it is none."""
        keys = self.draws.which.astype(np.int64) << 32 | (d + others) % moduli
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._ranks[at], -1)

    def _begin(self, name: Name, first: np.ndarray) -> _Line:
        count, ends = len(first), (-1, len(self.steps))
        low, high = (np.full(count, end) for end in ends)
        if self.learned is not None:
            bounds = np.array([ends[0], *self.learned.get(name, ()), ends[1]])
            cell = self.random.integers(0, len(bounds) - 1, count)
            low, high = bounds[cell], bounds[cell + 1]
        self.lines.append(_Line(name, first, low, high))
        return self.lines[-1]

    def _above(self, line: _Line, here: np.ndarray, cut: np.ndarray) -> tuple[np.ndarray, bool]:
        """Say where a line's first number lies above a cut, and whether that was known."""
        low, high = line.low[here], line.high[here]
        asked = (cut > low) & (cut < high)
        above = cut <= low
        if line is self.lines[0]:
            return above, True
        line.cuts.update(np.unique(cut).tolist())
        if asked.any():
            above = np.where(asked, self.random.random(len(cut)) < 0.5, above)
            line.low[here] = np.where(asked & above, cut, low)
            line.high[here] = np.where(asked & ~above, cut, high)
        return above, self.learned is None or not asked.any()
