"""Resizing as torch does it: no antialiasing, its own cubic kernel, the entry to the left."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.primitives import shape_of
from jaxgrad.parity.rewriting.module_block import Attempt, ModuleBlock, at


def resizes(case: ModuleBlock) -> Iterator[Attempt]:
    """A resize without antialiasing, and torch's own kernels."""
    for i, eqn in case.each("_resize"):
        for method in ("linear", "cubic"):

            def plain(eqn: core.JaxprEqn, xs: Sequence[Any], method: str = method) -> list[Any]:
                return [jax.image.resize(xs[0], shape_of(eqn.outvars[0]), method, antialias=False)]

            yield Attempt(
                {i: plain},
                f"jax.image.resize(…, {method!r}, antialias=False){at(eqn)} restores parity",
            )
        for weights, words in (
            (
                cubic,
                "cubic interpolation with a = −0.75 and no antialiasing, in place of "
                "jax.image.resize's a = −0.5,",
            ),
            (
                nearest,
                "taking entry ⌊i n/m⌋ of n, in place of jax.image.resize's nearest ⌊(i + ½) n/m⌋,",
            ),
        ):

            def across(eqn: core.JaxprEqn, xs: Sequence[Any], weights: Any = weights) -> list[Any]:
                return [_across(weights, xs, shape_of(eqn.outvars[0]))]

            yield Attempt({i: across}, f"{words}{at(eqn)} restores parity")


def _across(weights: Any, xs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Apply a matrix of weights (out, in) along each axis whose length changes."""
    y = xs[0]
    for axis, (n, m) in enumerate(zip(y.shape, shape, strict=True)):
        if n != m:
            y = jnp.moveaxis(
                jnp.tensordot(jnp.asarray(weights(n, m), y.dtype), y, (1, axis)), 0, axis
            )
    return y


def nearest(n: int, m: int) -> np.ndarray:
    """Return torch's nearest neighbours from n entries to m: entry ⌊i n/m⌋.

    >>> nearest(4, 2).tolist()
    [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    """
    weights = np.zeros((m, n))
    weights[np.arange(m), np.arange(m) * n // m] = 1
    return weights


def cubic(n: int, m: int, a: float = -0.75) -> np.ndarray:
    """Return the weights of bicubic interpolation from n entries to m, with Keys' a.

    In torch a is −0.75.

    >>> cubic(4, 4).round(3).tolist() == np.eye(4).tolist()
    True

    Source: R. Keys, Cubic convolution interpolation for digital image processing, 1981, equation 4.
    """
    place = (np.arange(m) + 0.5) * n / m - 0.5
    first, weights = np.floor(place).astype(int), np.zeros((m, n))
    for k in range(-1, 3):
        d = np.abs(place - first - k)
        near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4)
        np.add.at(
            weights, (np.arange(m), np.clip(first + k, 0, n - 1)), np.where(d <= 1, near, far)
        )
    return weights
