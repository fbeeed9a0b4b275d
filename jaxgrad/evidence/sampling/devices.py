"""Chunks of samples dealt out to devices, and to the devices of other processes.

Every device runs chunks of its own, one after another, by a program that is compiled for it alone;
how many chunks it runs is an argument. So nothing has to be compiled anew for the last, shorter
round, and operations that LAPACK does never run on two devices at once. Under `jax.distributed`
every process then receives all means, by a program that gathers them along a mesh of one axis.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgrad.evidence.sampling import processes

AXIS = "samples"


def devices() -> list[Any]:
    """Return the devices that share the work: all, or the one `jax.default_device` names."""
    return (
        jax.devices()
        if getattr(jax.config, "jax_default_device", None) is None
        else jax.local_devices()[:1]
    )


def shares(chunks: int, several: int) -> list[tuple[int, int]]:
    """Divide chunks into contiguous parts; return beginning and length of each.

    All but the last ones have the same length.

    >>> shares(10, 4)
    [(0, 3), (3, 3), (6, 3), (9, 1)]
    """
    length = -(-chunks // several)
    return [
        (begin, max(0, min(length, chunks - begin))) for begin in range(0, several * length, length)
    ]


def gathered(rows: Sequence[Any]) -> np.ndarray:
    """Return the rows that all devices of all processes hold, one after another.

    Args:
        rows: of each device of this process, in their order, an array on it; all are of one shape
            (length, size).
    """
    if jax.process_count() == 1:
        return np.concatenate([np.asarray(row) for row in rows])
    mesh = Mesh(np.array(jax.devices()), (AXIS,))
    length, size = rows[0].shape
    split = NamedSharding(mesh, PartitionSpec(AXIS))
    with processes.together():
        everything = jax.make_array_from_single_device_arrays(
            (len(jax.devices()) * length, size), split, list(rows)
        )
        return np.asarray(_gathering(mesh)(everything))


@functools.cache
def _gathering(mesh: Mesh) -> Any:
    def all_of_them(rows: jax.Array) -> jax.Array:
        return jax.lax.all_gather(rows, AXIS, tiled=True)

    gather = jax.shard_map(
        all_of_them,
        mesh=mesh,
        in_specs=PartitionSpec(AXIS),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    return jax.jit(gather)
