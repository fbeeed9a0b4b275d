"""Where gather reads and scatter writes, as arrays of places.

Both primitives put windows on an operand. The start of a window is a row of `indices`;
`gather_places` and `scatter_places` return, for each entry of gather's result or of scatter's
updates, its place in the flattened operand, −1 where it falls outside.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.lax import GatherScatterMode


def gather_places(
    params: dict[str, Any], shape: Sequence[int], indices: np.ndarray, out: Sequence[int]
) -> np.ndarray:
    """Return the place each entry of a gather's result comes from.

    An axis of a window that is collapsed has size 1.
    """
    d = params["dimension_numbers"]
    removed = (*d.collapsed_slice_dims, *d.operand_batching_dims)
    steer = d.start_index_map, d.operand_batching_dims, d.start_indices_batching_dims
    return _places(
        params["mode"], shape, indices, out, d.offset_dims, removed, *steer, params["slice_sizes"]
    )


def scatter_places(
    params: dict[str, Any], shape: Sequence[int], indices: np.ndarray, out: Sequence[int]
) -> np.ndarray:
    """Return the place each entry of a scatter's updates goes to."""
    d = params["dimension_numbers"]
    removed = (*d.inserted_window_dims, *d.operand_batching_dims)
    sizes, window = [], iter(d.update_window_dims)
    for axis in range(len(shape)):
        sizes.append(1 if axis in removed else out[next(window)])
    steer = d.scatter_dims_to_operand_dims, d.operand_batching_dims, d.scatter_indices_batching_dims
    return _places(
        params["mode"], shape, indices, out, d.update_window_dims, removed, *steer, sizes
    )


def _places(
    mode: Any,
    shape: Sequence[int],
    indices: np.ndarray,
    out: Sequence[int],
    window_axes: Sequence[int],
    removed: Sequence[int],
    targets: Sequence[int],
    batch: Sequence[int],
    indices_batch: Sequence[int],
    sizes: Sequence[int],
) -> np.ndarray:
    at = np.indices(out).reshape(
        len(out), math.prod(out)
    )  # one column for each entry of the result or of the updates
    lookup = at[[axis for axis in range(len(out)) if axis not in window_axes]]
    starts = np.zeros((len(shape), at.shape[1]), np.int64)
    rows = np.broadcast_to(indices.astype(np.int64)[tuple(lookup)], (at.shape[1], len(targets)))
    for column, axis in enumerate(targets):
        starts[axis] = rows[:, column]
    room = np.array([n - s for n, s in zip(shape, sizes, strict=True)]).reshape(-1, 1)
    inside = np.ones(at.shape[1], bool)
    if GatherScatterMode.from_any(mode) == GatherScatterMode.CLIP:
        starts = np.clip(starts, 0, room)
    else:
        inside = ((starts >= 0) & (starts <= room)).all(0)
    for axis, other in zip(batch, indices_batch, strict=True):
        starts[axis] = lookup[other]
    for axis, row in zip(
        (a for a in range(len(shape)) if a not in removed), window_axes, strict=True
    ):
        starts[axis] += at[row]
    strides = np.array([math.prod(shape[i + 1 :]) for i in range(len(shape))]).reshape(-1, 1)
    return np.where(inside, (starts * strides).sum(0), -1).reshape(out)
