"""Running mean and spread of chunk means, in float64.

Blocks of chunk means are merged by Chan, Golub & LeVeque's pairwise update (1983, eq. 2.1), part by
part, by all cores. Entries whose squares float64 does not hold are squared in units of their own,
powers of two.
"""

from dataclasses import dataclass

import numpy as np

from jaxgrad.runtime.threads import for_each, workers

MERGED_AT_ONCE = 2**17
"""Entries of chunk means that are converted to float64 and merged at once: they stay in the
cache.
"""

HELD = 1e-250, 1e250
"""Sums of squares between these are held with all digits."""


def unit_of(largest: np.ndarray) -> np.ndarray:
    """Return powers of two in which such magnitudes are of the order of 1.

    >>> unit_of(np.array([3.0, 0.5])).tolist()
    [4.0, 1.0]
    """
    return np.ldexp(1.0, np.frexp(largest)[1].clip(-1000, 1000))


@dataclass
class Moments:
    """Running count, mean and sum of squared deviations of chunk means, in float64.

    Attributes:
        count: number of chunk means.
        mean: of shape (size,).
        squares: of shape (size,), in squares of the unit.
        unit: of shape (size,), 1 for nearly all entries.
    """

    count: int
    mean: np.ndarray
    squares: np.ndarray
    unit: np.ndarray

    @classmethod
    def empty(cls, size: int) -> "Moments":
        """Start with nothing seen."""
        return cls(0, np.zeros(size), np.zeros(size), np.ones(size))

    def add(self, chunk_means: np.ndarray) -> None:
        """Merge a block of chunk means, of shape (chunks, size)."""
        count, size = chunk_means.shape
        if count == 0:
            return
        total, width = self.count + count, max(1, MERGED_AT_ONCE // count)
        weight, begins = self.count * count / total, range(0, size, width)
        share = -(-len(begins) // workers())

        @np.errstate(over="ignore", under="ignore", invalid="ignore")
        def merge(begins: range) -> None:
            room = np.empty((count, width))
            for begin in begins:
                part = slice(begin, min(begin + width, size))
                block = room[:, : part.stop - begin]
                np.copyto(block, chunk_means[:, part])
                mean = np.add.reduce(block, axis=0)
                mean /= count
                block -= mean
                delta = np.subtract(mean, self.mean[part], out=mean)
                gain = np.einsum("ij,ij->j", block, block)
                gain += delta**2 * weight
                held, plain = (
                    HELD[0] < gain.min() and gain.max() < HELD[1],
                    (self.unit[part] == 1).all(),
                )
                if not (held and plain):
                    odd = (self.unit[part] != 1) | ~((gain > HELD[0]) & (gain < HELD[1]))
                    gain[odd] = self._in_units(
                        begin + np.flatnonzero(odd), block[:, odd], delta[odd], weight
                    )
                self.squares[part] += gain
                delta *= count / total
                self.mean[part] += delta

        for_each(merge, [begins[i : i + share] for i in range(0, len(begins), max(1, share))])
        self.count = total

    def _in_units(
        self, entries: np.ndarray, block: np.ndarray, delta: np.ndarray, weight: float
    ) -> np.ndarray:
        """Give entries a unit that holds their squares; return what a block adds to these."""
        largest = np.maximum(np.abs(block).max(axis=0), np.abs(delta) if weight else 0.0)
        old, fresh = self.unit[entries], self.squares[entries] == 0
        fitting = unit_of(largest)
        unit = np.where(
            (largest > 0) & np.isfinite(largest),
            np.where(fresh, fitting, np.maximum(old, fitting)),
            old,
        )
        self.unit[entries] = unit
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            self.squares[entries] *= np.where(fresh, 1.0, old / unit) ** 2
            block = block / unit
            return np.einsum("ij,ij->j", block, block) + (
                (delta / unit) ** 2 * weight if weight else 0.0
            )

    def standard_error(self) -> np.ndarray:
        """Return the standard error of the mean; infinite before two chunks are in."""
        if self.count < 2:
            return np.full_like(self.mean, np.inf)
        return self.unit * np.sqrt(self.squares / (self.count * (self.count - 1)))
