"""Chunks of samples spread over devices, and over the devices of other processes.

The devices form a mesh of one axis, along which the numbers of a round's chunks are split by `jax.shard_map`; each device runs
its own chunks one after another. A chunk draws from ``fold_in(key, i)`` and is computed by the same program wherever it runs, so
its mean does not depend, to the last bit, on how many devices there are. Where a round does not divide evenly, a few chunks beyond
its end are run and thrown away. Under `jax.distributed` every process receives all means, and goes on alike.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from jaxgrad import machines
from jaxgrad.compilation import compiled

AXIS = "samples"


def devices() -> list[Any]:
    """Return the devices that samples are spread over: all, or the one that `jax.default_device` names."""
    return jax.devices() if getattr(jax.config, "jax_default_device", None) is None else jax.local_devices()[:1]


def spread(run: Callable[..., Array], chunks: int, options: dict[str, Any] | None) -> Callable[..., np.ndarray]:
    """Compile a function of chunk numbers so that the devices share the chunks.

    Args:
        run: ``(key, numbers, *rest)`` to one row for each number, of shape (chunks, size).
        chunks: how many numbers.
        options: compiler options.

    Returns:
        A function ``(key, first, *rest)`` to the rows of the chunks first … first + chunks − 1.
    """
    all_devices = devices()
    count = len(all_devices)
    mesh = Mesh(np.array(all_devices), (AXIS,))
    apart = jax.process_count() > 1
    everywhere, split = PartitionSpec(), PartitionSpec(AXIS)

    def mine(numbers: Array, rest: tuple[Any, ...]) -> Array:
        data, *others = rest
        rows = run(jax.random.wrap_key_data(data), numbers, *others)
        return jax.lax.all_gather(rows, AXIS, tiled=True) if apart else rows

    shared = jax.shard_map(mine, mesh=mesh, in_specs=(split, everywhere), out_specs=everywhere if apart else split, check_vma=False)
    programs: list[Callable[..., Array]] = []

    def together(key: Array, first: int, *rest: Any) -> np.ndarray:
        rest = jax.tree.map(np.asarray, (jax.random.key_data(key), *rest))
        if not apart:
            rest = jax.device_put(rest, NamedSharding(mesh, everywhere))
        numbers = np.uint32(first) + np.arange(-(-chunks // count) * count, dtype=np.uint32)
        with machines.together():
            if not programs:
                programs.append(compiled(shared, options, numbers, rest))
            return np.asarray(programs[0](numbers, rest))[:chunks]

    return together
