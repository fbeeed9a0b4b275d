"""Linear algebra of small known matrices in numpy.

It takes less time than compiling a call of LAPACK, or starting its threads.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

SMALL = 32
"""Matrices with more rows are left to JAX."""


def triangular_solve(params: dict[str, Any], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Solve op(A)·X = B or X·op(A) = B as `jax.lax.linalg.triangular_solve` does, row by row."""
    flip = params["transpose_a"] != (not params["left_side"])  # X·M = B is Mᵀ·Xᵀ = Bᵀ
    a, lower = (a.swapaxes(-1, -2), not params["lower"]) if flip else (a, params["lower"])
    x = np.array(b if params["left_side"] else b.swapaxes(-1, -2))
    n = x.shape[-2]
    for i in range(n) if lower else range(n)[::-1]:
        done = slice(0, i) if lower else slice(i + 1, n)
        x[..., i, :] -= (a[..., i, done, None] * x[..., done, :]).sum(-2)
        if not params["unit_diagonal"]:
            x[..., i, :] /= a[..., i, i, None]
    return x if params["left_side"] else x.swapaxes(-1, -2)


def lu(a: np.ndarray) -> list[np.ndarray]:
    """Factorise P·A = L·U with the largest pivots.

    Returns L and U in one matrix, the row swaps, and P as an order of rows.

    >>> factors, swaps, order = lu(np.array([[1.0, 2.0], [4.0, 2.0]]))
    >>> factors.tolist(), swaps.tolist(), order.tolist()
    ([[4.0, 2.0], [0.25, 1.5]], [1, 1], [1, 0])
    """
    a = np.array(a)
    m, n = a.shape
    count = min(m, n)
    order, swaps = np.arange(m), np.zeros(count, np.int32)
    for k in range(count):
        j = k + int(np.argmax(np.abs(a[k:, k])))
        swaps[k] = j
        if j != k:
            a[[k, j]], order[[k, j]] = a[[j, k]], order[[j, k]]
        if a[k, k] != 0:
            a[k + 1 :, k] /= a[k, k]
        a[k + 1 :, k + 1 :] -= a[k + 1 :, k, None] * a[k, k + 1 :]
    return [a, swaps, order.astype(np.int32)]


def ordered(
    keys: Sequence[np.ndarray], operands: Sequence[np.ndarray], axis: int
) -> list[np.ndarray]:
    """Sort operands along an axis by the keys, which are the first of them, one after the other."""
    order = np.lexsort(tuple(keys)[::-1], axis=axis)  # stable, as JAX's is by default
    return [np.take_along_axis(x, order, axis) for x in operands]
