"""Running mean and spread of chunk means, in float64.

Blocks of chunk means are merged by Chan, Golub & LeVeque's pairwise update (1983, eq. 2.1), part by part, by all cores.
"""

from dataclasses import dataclass

import numpy as np

from jaxgrad.threads import for_each

MERGED_AT_ONCE = 2**17
"""Entries of chunk means that are converted to float64 and merged at once: they stay in the cache."""


@dataclass
class Moments:
    """Running count, mean and sum of squared deviations of chunk means, in float64."""

    count: int
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def empty(cls, size: int) -> "Moments":
        """Start with nothing seen."""
        return cls(0, np.zeros(size), np.zeros(size))

    def add(self, chunk_means: np.ndarray) -> None:
        """Merge a block of chunk means, of shape (chunks, size)."""
        count, size = chunk_means.shape
        total, width = self.count + count, max(1, MERGED_AT_ONCE // count)

        def merge(begin: int) -> None:
            part = slice(begin, begin + width)
            block = chunk_means[:, part].astype(np.float64)
            mean = block.mean(axis=0)
            block -= mean
            delta = mean - self.mean[part]
            self.squares[part] += np.einsum("ij,ij->j", block, block) + delta**2 * (self.count * count / total)
            self.mean[part] += delta * (count / total)

        for_each(merge, range(0, size, width))
        self.count = total

    def standard_error(self) -> np.ndarray:
        """Return the standard error of the mean; infinite before two chunks are in."""
        if self.count < 2:
            return np.full_like(self.mean, np.inf)
        return np.sqrt(self.squares / (self.count * (self.count - 1)))
