"""How far the mean of chunk means may lie from the expectation, without taking them for normal.

Let Y_1 … Y_C be independent chunk means with expectation μ, variance v and fourth central moment at
most K v². With A = 1/C Σ (Y_i − μ)², and each of two inequalities failing with a probability of at
most e^(−L),

    v ≤ A / (1 − √(2LK/C))                                                                      (1)
    |Ȳ − μ| ≤ L/(λC) + λ (A/6 + v/3)    for a λ > 0, twice e^(−L) for both signs                 (2)

(1) is Markov's inequality for exp(−λ(Y − μ)²), since e^(−z) ≤ 1 − z + z²/2 for z ≥ 0. (2) is
Markov's for exp(λ Σ(Y_i − μ) − λ² Σ(Y_i − μ)²/6), whose expectation is at most exp(C λ² v/3), since
e^(x − x²/6) ≤ 1 + x + x²/3 for every x (Delyon, *Electron. J. Probab.* 14, 2009, ex. 2). Neither
bounds Y or its skewness, and with the best λ (2) is √(2L (A/3 + 2v/3)/C): what a normal law would
give, but for the place of A and v. The best λ depends on A; one of `GRID` values, a factor 2 apart
from √(2L/(Cv)) down, is within √2 of it while A < 4^GRID v, and costs a factor `STEP` and ln GRID
in L.

Last, A is about μ and what is measured is A − (Ȳ − μ)². With q = STEP² · 2(L + ln GRID)(1/3 +
2/(3(1 − √(2LK/C))))/C,

    |Ȳ − μ| ≤ √(q/(1 − q) · (measured A))

so that all that is taken on trust from the sample is the kurtosis K, of which the excess over the
normal 3 is doubled. What no sample shows, an event too rare to have happened, is the business of
`jaxgrad.evidence.sampling.rare_events`.
"""

import math
from dataclasses import dataclass

import numpy as np

from jaxgrad.evidence.sampling.moments import unit_of

GRID = 8
"""Values of λ; see above."""
STEP = (2**0.5 + 0.5**0.5) / 2
"""What being off the best λ by √2 costs."""
NORMAL = 3.0
"""Kurtosis of the normal law, and the least that is assumed."""


def log_odds(false_alarm: float, looks: int, entries: int) -> float:
    """Return L for which all events together have at most the probability `false_alarm`.

    There are four at each: (1), (2) with either sign, and a rare event that was not seen.

    >>> round(log_odds(4e-6, 1, 1) / math.log(10), 3)
    6.0
    """
    return math.log(4 * looks * max(entries, 1) / false_alarm)


@dataclass
class Tails:
    """Power sums of chunk means, entry by entry, about a pivot that is the mean of the first block.

    Attributes:
        count: number C of chunks.
        pivot: of shape (size,).
        unit: of shape (size,), powers of two; by them fourth powers are kept from overflow and
            underflow.
        sums: of shape (4, size), Σ ((Y − pivot)/unit)^k for k = 1 … 4.
    """

    count: int
    pivot: np.ndarray
    unit: np.ndarray
    sums: np.ndarray

    @classmethod
    def empty(cls, size: int) -> "Tails":
        """Start with nothing seen."""
        return cls(0, np.zeros(size), np.ones(size), np.zeros((4, size)))

    def add(self, chunk_means: np.ndarray) -> None:
        """Take in a block of chunk means, of shape (chunks, size)."""
        block = chunk_means.astype(np.float64)
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # what is not finite stays so, and is told
            if self.count == 0:
                self.pivot = block.mean(axis=0)
            block -= self.pivot
            largest = np.abs(block).max(axis=0, initial=0.0)
            begins = (
                (self.sums[1] == 0) & (largest > 0) & np.isfinite(largest)
            )  # what has not varied so far adds up to 0 in any unit
            self.unit = np.where(begins, unit_of(largest), self.unit)
            block /= self.unit
            squares = block * block
            self.sums[0] += block.sum(axis=0)
            self.sums[1] += squares.sum(axis=0)
            self.sums[2] += np.einsum("ij,ij->j", block, squares)
            self.sums[3] += np.einsum("ij,ij->j", squares, squares)
        self.count += len(block)

    @property
    def mean(self) -> np.ndarray:
        """The mean of all chunk means."""
        return self.pivot + self.unit * (self.sums[0] / max(self.count, 1))

    @property
    def variance(self) -> np.ndarray:
        """The mean squared deviation from that mean, A, in squares of the unit."""
        off = self.sums[0] / max(self.count, 1)
        return np.maximum(self.sums[1] / max(self.count, 1) - off**2, 0.0)

    def standard_error(self) -> np.ndarray:
        """Return the standard error of the mean; infinite before two chunks are in."""
        return (
            self.unit * np.sqrt(self.variance / (self.count - 1))
            if self.count > 1
            else np.full_like(self.pivot, np.inf)
        )

    def kurtosis(self) -> np.ndarray:
        """Return the sampled E(Y − μ)⁴/v², its excess over 3 doubled; 3 where nothing varies."""
        s1, s2, s3, s4 = self.sums / max(self.count, 1)
        with np.errstate(all="ignore"):
            fourth = s4 - 4 * s1 * s3 + 6 * s1**2 * s2 - 3 * s1**4
            found = fourth / self.variance**2
        excess = np.where(self.variance > 0, np.maximum(found - NORMAL, 0.0), 0.0)
        return NORMAL + 2 * np.nan_to_num(excess, nan=np.inf)

    def half_width(self, odds: float, *, times: float = 1.0) -> np.ndarray:
        """Return what |mean − expectation| exceeds with probability 3e^(−odds) at most.

        Args:
            odds: L.
            times: answer for this many times as many chunks with the same moments.

        Returns:
            Half widths of shape (size,), infinite where there are too few chunks for the kurtosis.
        """
        count = self.count * times
        if count < 2:
            return np.full_like(self.pivot, np.inf)
        lost = np.sqrt(2 * odds * self.kurtosis() / count)
        with np.errstate(divide="ignore", invalid="ignore"):
            inflation = np.where(lost < 1, 1 / (1 - lost), np.inf)
            q = STEP**2 * 2 * (odds + math.log(GRID)) * (1 / 3 + 2 / 3 * inflation) / count
            width = self.unit * np.sqrt(np.where(q < 1, q / (1 - q), np.inf) * self.variance)
        return np.where(self.variance > 0, width, 0.0)
