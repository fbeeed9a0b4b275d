"""Slopes of a function's value by extrapolated differences, each with an estimate of its error.

Along one coordinate, with steps h_k = s/4^(k+1) that span six decades, the central quotients

    D_k = (f(x + h_k e) − f(x − h_k e)) / 2h_k

and the one-sided ones are extrapolated twice (Richardson 1911; Ridders 1982). Each extrapolation
has an error estimate made of two distinct differences in the tableau and of the loss's own measured
rounding over the finest step it used; the step with the smallest estimate is taken. A coordinate
whose left and right derivatives differ stands at a kink and is told apart.

Nothing of this holds where the loss varies over less than the finest step, as sin(1e9 x) does:
there quotients are small, and say nothing. So steps count only where the loss's change shrinks with
them, or is down to its rounding; a coordinate without such steps has no derivative here, and
neither has one along which rounding is all of the change.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgrad.evidence.problem import Tree
from jaxgrad.runtime.compiled import Program
from jaxgrad.runtime.options import check_options

STEPS = 10
AGREE = 10.0
"""An error within this many error estimates agrees."""
SHRINKS = 2.0
"""From one step to the next, a quarter of it, the loss's change becomes smaller by this factor at
least.
"""
NOISE = 8.0
"""So many times its rounding the loss may change by rounding alone."""
DROWNED, INEXACT = 1e-3, 1e-6
"""Rounding beyond this part of the largest change, and of the loss itself, leaves no derivative to
be seen.
"""
BATCH_BYTES = 2**25


class Slope(NamedTuple):
    """Derivatives with error estimates, of shape (coordinates, *shape of f)."""

    central: np.ndarray
    central_error: np.ndarray
    right: np.ndarray
    left: np.ndarray
    side_error: np.ndarray

    def blur(self, rounding: np.ndarray, step: float) -> "Slope":
        """Widen the error estimates by a rounding error of the value over the smallest steps."""
        more = 4 * rounding / step
        return self._replace(
            central_error=self.central_error + more, side_error=self.side_error + 2 * more
        )

    def coarser(self, rounding: float) -> "Slope":
        """Widen the error estimates by the rounding of what the derivatives are compared with."""
        return self._replace(
            central_error=self.central_error + rounding, side_error=self.side_error + rounding
        )

    def without(self, unseen: np.ndarray) -> "Slope":
        """Give up some derivatives: the loss may vary over less than the finest step."""
        return self._replace(central_error=np.where(unseen, np.inf, self.central_error))

    @property
    def kink(self) -> np.ndarray:
        """Where the left and right derivatives differ by more than they are uncertain."""
        return np.abs(self.right - self.left) > AGREE * self.side_error


class Prober:
    """A function's value along coordinates and directions of some inputs, compiled once a shape."""

    def __init__(self, function: Callable[[dict[str, Tree]], Any], wrt: tuple[str, ...]) -> None:
        """Set up; nothing is compiled yet."""
        self.wrt = wrt
        at_each = jax.vmap(lambda moving, fixed: function({**moving, **fixed}), in_axes=(0, None))
        self._values = Program(at_each, check_options())

    def _along(
        self, moving: Any, fixed: Any, index: np.ndarray, steps: np.ndarray, directions: np.ndarray
    ) -> np.ndarray:
        """Evaluate after each step along its coordinate or direction, in batches."""
        leaves, tree = jax.tree.flatten(moving)
        leaves = [np.asarray(leaf) for leaf in leaves]
        flat, ends = (
            np.concatenate([np.ravel(leaf) for leaf in leaves]).astype(np.float64),
            np.cumsum([leaf.size for leaf in leaves]),
        )
        size = flat.size + sum(np.size(leaf) for leaf in jax.tree.leaves(fixed))
        batch = int(np.clip(BATCH_BYTES // (8 * size), 1, len(index)))
        batch = -(
            -len(index) // -(-len(index) // batch)
        )  # all batches alike, so that one program serves
        index, steps = (
            np.concatenate([x, np.repeat(x[-1:], -len(x) % batch)]) for x in (index, steps)
        )
        values = []
        for begin in range(0, len(index), batch):
            i, h = index[begin : begin + batch], steps[begin : begin + batch]
            points = np.tile(flat, (batch, 1))
            points[i < 0] += h[i < 0, None] * directions[-1 - i[i < 0]]
            points[np.flatnonzero(i >= 0), i[i >= 0]] += h[i >= 0]
            parts = np.split(points, ends[:-1], axis=1)
            moved = [
                part.reshape(batch, *leaf.shape).astype(leaf.dtype)
                for part, leaf in zip(parts, leaves, strict=True)
            ]
            values.append(np.asarray(self._values(tree.unflatten(moved), fixed)))
        return np.concatenate(values)

    def slopes(
        self,
        inputs: dict[str, Tree],
        index: np.ndarray,
        directions: np.ndarray,
        unit: float,
        seed: int = 0,
    ) -> Slope:
        """Differentiate along coordinates `index` of the flattened `wrt`.

        A negative index, −1 − i, means `directions[i]`.
        """
        moving = {name: inputs[name] for name in self.wrt}
        fixed = {name: x for name, x in inputs.items() if name not in self.wrt}
        flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(moving)]).astype(
            np.float64
        )
        scale = step_scales(moving)
        rng = np.random.default_rng(seed)
        noise = flat * unit * rng.integers(-2, 3, (4, flat.size))
        directions = np.concatenate([noise, directions.reshape(-1, flat.size)])
        index = np.where(index < 0, index - len(noise), index)
        with np.errstate(over="ignore"):
            reach = np.where(index >= 0, scale[np.maximum(index, 0)], np.median(scale))
        steps = reach[:, None] * 4.0 ** -np.arange(1, STEPS + 1)
        probes = np.concatenate(
            [np.zeros(1), *[np.full(1, 1.0)] * len(noise), steps.ravel(), -steps.ravel()]
        )
        which = np.concatenate([[-1], -1 - np.arange(len(noise)), *[np.repeat(index, STEPS)] * 2])
        values = self._along(moving, fixed, which, probes, directions)[: len(which)]
        base, noisy, rest = values[0], values[1 : 1 + len(noise)], values[1 + len(noise) :]
        shape = (len(index), STEPS, *base.shape)
        plus, minus = rest[: len(rest) // 2].reshape(shape), rest[len(rest) // 2 :].reshape(shape)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            rounding = np.abs(noisy - base).max(0) + 4 * unit * np.abs(values).max(0)
            return _extrapolate(plus, minus, base, steps, rounding)


def step_scales(moving: Any) -> np.ndarray:
    """Return the size of a step in each coordinate.

    It is at most a quarter of the entry, or of the array's size where the entry is 0.

    Where the entries differ by far less than they are large, it is what they differ by that a loss
    will feel.
    """
    scales = []
    for leaf in jax.tree.leaves(moving):
        array = np.asarray(leaf, np.float64)
        largest = np.abs(array).max(initial=0.0) or 1.0
        array = array / largest  # whose squares neither overflow nor underflow
        x = np.abs(array).ravel()
        typical = np.sqrt(np.mean(x**2)) if x.any() else 1.0
        spreads = (
            [np.std(array), *(np.max(np.std(array, axis=a)) for a in range(array.ndim))]
            if x.size
            else []
        )
        spread = min((s for s in spreads if s > 1e-9 * typical), default=typical)
        typical = spread if spread < typical / 10 else typical
        scales.append(
            largest * np.where(x > typical * 1e-3, np.minimum(x, typical), typical * 1e-1)
        )
    return np.concatenate(scales)


def _extrapolate(
    plus: np.ndarray, minus: np.ndarray, base: np.ndarray, steps: np.ndarray, rounding: np.ndarray
) -> Slope:
    h = steps.reshape(*steps.shape, *[1] * base.ndim)
    resolved = _resolved(
        np.maximum(np.abs(plus - base), np.abs(minus - base)), rounding, np.abs(base)
    )
    central, central_error = _richardson(
        (plus - minus) / (2 * h), h, rounding, 16.0, 16.0, resolved
    )
    right, right_error = _richardson((plus - base) / h, h, 2 * rounding, 4.0, 4.0, resolved)
    left, left_error = _richardson((base - minus) / h, h, 2 * rounding, 4.0, 4.0, resolved)
    return Slope(central, central_error, right, left, right_error + left_error)


def _resolved(change: np.ndarray, rounding: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Say for each four steps in a row (axis 1) whether the loss is smooth on their scale."""
    shrinks = change[:, 1:] <= np.maximum(change[:, :-1] / SHRINKS, NOISE * rounding)
    drowned = (rounding > DROWNED * change.max(axis=1)) & (rounding > INEXACT * size)
    return shrinks[:, :-2] & shrinks[:, 1:-1] & shrinks[:, 2:] & ~drowned[:, None]


def _richardson(
    quotient: np.ndarray,
    h: np.ndarray,
    rounding: np.ndarray,
    ratio: float,
    growth: float,
    resolved: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Extrapolate quotients whose error falls by `ratio`, then `ratio·growth`, a step (axis 1)."""
    first = quotient[:, 1:] + (quotient[:, 1:] - quotient[:, :-1]) / (ratio - 1)
    second = first[:, 1:] + (first[:, 1:] - first[:, :-1]) / (ratio * growth - 1)
    error = (
        np.abs(second[:, 1:] - first[:, 2:])
        + np.abs(second[:, 1:] - second[:, :-1])
        + 4 * rounding / h[:, 3:]
    )
    error = np.where(np.isfinite(error) & resolved, error, np.inf)
    best = np.argmin(error, axis=1)[:, None]
    value, estimate = (np.take_along_axis(a, best, axis=1) for a in (second[:, 1:], error))
    finer = np.arange(error.shape[1]).reshape(1, -1, *[1] * (error.ndim - 2)) > best
    with np.errstate(invalid="ignore"):
        against = (
            np.abs(second[:, 1:] - value) - 3 * error
        )  # a finer step that contradicts: what looked converged was flat
    against = np.where(finer & np.isfinite(against), against, 0.0)
    return value[:, 0], np.maximum(estimate[:, 0], against.max(axis=1))
