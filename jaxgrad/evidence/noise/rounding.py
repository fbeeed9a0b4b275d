"""How far rounding alone may move each entry of a gradient.

Two formulas for one gradient, evaluated in floating point, differ by rounding. What they may differ
by is measured, entry by entry, in ways that see different things:

* noise of one unit in the last place on every input, some copies of it: sees conditioning and,
  since every rounding falls out anew, the rounding errors themselves;
* the unit roundoff of the entry itself;
* the move between float32 and float64, scaled by the ratio of their units, and the move under
  random rounding of every intermediate value (`jaxgrad.evidence.noise.random_rounding`): the first
  sees long sums, the second what is absorbed always alike, as in (x + 1e8) − 1e8. They take longer
  and are taken only where noise and unit roundoff do not explain a difference.

The bound is SAFETY times the largest. There is no absolute floor and no factor that grows with an
array's size, so scaling a loss by 1e-9 changes nothing. An error within the bound agrees, one
beyond GAP bounds disagrees, and in between nothing is said.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import numpy as np

SAFETY = 64.0
"""Factor from the measured movement, a maximum over a few copies, to the bound."""

GAP = 100.0
"""An error is called a disagreement only beyond this many bounds."""

COPIES = 4
"""Number of noisy copies of every draw."""


class Comparison(NamedTuple):
    """Two arrays compared: their difference, what rounding allows, and the larger magnitude."""

    error: np.ndarray
    bound: np.ndarray
    magnitude: np.ndarray

    @property
    def agrees(self) -> np.ndarray:
        """Where the difference is explained by rounding; nowhere that something is not finite."""
        return self.error <= self.bound

    @property
    def disagrees(self) -> np.ndarray:
        """Where rounding cannot explain the difference."""
        return self.error > GAP * self.bound

    def allowing(self, error: np.ndarray) -> "Comparison":
        """Return the comparison with bounds that are no smaller than some other errors."""
        return self._replace(bound=np.maximum(self.bound, error))

    @property
    def worst(self) -> tuple[int, ...]:
        """Index of the largest error: of those that disagree, else do not agree, else of all."""
        return largest(self.error, self.disagrees, ~self.agrees)

    @property
    def scale(self) -> float:
        """The largest magnitude."""
        return float(np.max(self.magnitude, initial=0.0))


def largest(error: np.ndarray, *among: np.ndarray) -> tuple[int, ...]:
    """Return the index of the largest error among the first choice of entries that is not empty.

    >>> error = np.array([3.0, 1.0, 2.0])
    >>> largest(error), largest(error, error > 5, error < 3)
    ((0,), (2,))
    """
    chosen = next((mask for mask in among if np.any(mask)), np.ones(error.shape, bool))
    return tuple(
        int(i) for i in np.unravel_index(np.argmax(np.where(chosen, error, -1.0)), error.shape)
    )


def roughly_equal(array: np.ndarray, other: np.ndarray, part: float = 1e-6) -> bool:
    """Say whether arrays are finite and apart by at most a part of the entry and the largest.

    >>> (
    ...     roughly_equal(np.array([1.0, 1e-9]), np.array([1.0, 0.0])),
    ...     roughly_equal(np.array([np.nan]), np.array([np.nan])),
    ... )
    (True, False)
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return bool(
            np.all(np.abs(array - other) <= part * (np.abs(other) + np.abs(array).max(initial=0.0)))
        )


def noisy_copies(inputs: Any, unit: float, seed: int, still: Collection[str] = ()) -> Any:
    """Stack a draw with COPIES noisy copies, each real entry times 1 + r·unit, r in −2 … 2.

    The inputs `still` are copied as they are.
    """
    rng = np.random.default_rng(seed)

    def stack(x: Any) -> np.ndarray:
        x = np.asarray(x)
        copies = np.broadcast_to(x, (COPIES + 1, *x.shape)).copy()
        if np.issubdtype(x.dtype, np.floating):
            copies[1:] *= 1 + unit * rng.integers(-2, 3, copies[1:].shape)
        return copies

    copies = jax.tree.map(stack, inputs)
    return (
        {**copies, **{name: jax.tree.map(repeated, inputs[name]) for name in still}}
        if still
        else copies
    )


def repeated(x: Any, times: int = COPIES + 1) -> np.ndarray:
    """Stack an array with copies of itself."""
    return np.repeat(np.asarray(x)[None], times, axis=0)


def compare(claimed: np.ndarray, reference: np.ndarray, unit: float) -> Comparison:
    """Compare two gradients, each given at a draw (index 0) and at noisy copies of it."""
    with np.errstate(invalid="ignore", over="ignore"):
        magnitude = np.maximum(np.abs(claimed[0]), np.abs(reference[0]))
        moves = np.maximum(
            np.abs(claimed[1:] - claimed[0]).max(0, initial=0),
            np.abs(reference[1:] - reference[0]).max(0, initial=0),
        )
        return Comparison(
            np.abs(claimed[0] - reference[0]),
            SAFETY * np.maximum(moves, unit * magnitude),
            magnitude,
        )


def widen(
    comparison: Comparison,
    single: list[np.ndarray],
    double: list[np.ndarray],
    moves: list[np.ndarray],
    unit: float,
) -> Comparison:
    """Widen the bounds by the move between float32 and float64 and by that of random rounding."""
    ratio = unit / float(np.finfo(np.float32).eps)
    with np.errstate(invalid="ignore", over="ignore"):
        move = [
            ratio * np.abs(s.astype(np.float64) - d).max(0)
            for s, d in zip(single, double, strict=True)
        ] + moves
        largest = np.max(np.where(np.isfinite(move), move, 0.0), axis=0)
    return comparison._replace(bound=np.maximum(comparison.bound, SAFETY * largest))
