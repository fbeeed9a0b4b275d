"""Numbers in place of a fresh module's zeros and ones, at which half of all mistakes do not show.

A bias of zero hides that it is missing, a scale of one that it is not applied, a running variance
of one that its root was forgotten. Every parameter gets numbers of its own size; a buffer does only
where it is a running statistic, since other buffers are tables that the formula fixes.
"""

import numpy as np


def randomized(
    name: str, array: np.ndarray, rng: np.random.Generator, *, buffer: bool
) -> np.ndarray:
    """Return numbers to test a parameter or buffer at, exact in float32.

    Args:
        name: its name in the state dict.
        array: its present value, of any shape.
        rng: where the numbers come from.
        buffer: whether it is a buffer.

    >>> randomized("bias", np.zeros(3), np.random.default_rng(0), buffer=False).round(2).tolist()
    [0.04, -0.04, 0.19]
    """
    if not np.issubdtype(array.dtype, np.floating) or not np.all(np.isfinite(array)):
        return array
    draw = rng.standard_normal(array.shape)
    last = name.rpartition(".")[2]
    if buffer:
        if last == "running_var":
            return _exact(np.abs(array) * np.exp(0.5 * draw) + (array == 0))
        return _exact(array + 0.5 * draw) if last == "running_mean" else array
    spread = float(np.std(array)) if array.size > 1 else 0.0
    if spread > 0:
        return _exact(draw * np.sqrt(np.mean(array.astype(np.float64) ** 2)))
    level = float(array.flat[0]) if array.size else 0.0
    if level == 0 and array.ndim >= 2:
        return _exact(draw / np.sqrt(array[0].size))
    return _exact(level + 0.3 * max(abs(level), 1.0) * draw)


def _exact(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32).astype(np.float64)
