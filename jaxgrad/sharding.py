"""Chunks of samples spread over devices, and over the devices of other processes.

The devices form a mesh of one axis, along which the numbers of a round's chunks are split by `jax.shard_map`; each device runs
its own chunks one after another. A chunk draws from ``fold_in(key, i)`` and is computed by the same program wherever it runs, so
its mean does not depend, to the last bit, on how many devices there are. Where a round does not divide evenly, a few chunks beyond
its end are run and thrown away. Under `jax.distributed` every process receives all means, and goes on alike.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from jaxgrad import machines

AXIS = "samples"
_MANY = 2**30


def devices() -> list[Any]:
    """Return the devices that samples are spread over: all, or the one that `jax.default_device` names."""
    return jax.devices() if jax.config.values["jax_default_device"] is None else jax.local_devices()[:1]


def block_size(jaxpr: Any, samples: int) -> int:
    """Return how many samples may be summed in one matrix product for its last bits not to depend on the number of threads.

    The gradient in a weight is one product whose sum runs over the samples of a chunk. On the CPU such a sum is cut into as many
    pieces as there are threads once it is long, unless the result is large. A chunk is therefore added up in blocks; they are
    short enough where the product has fewer than 2.5e5 terms, 5.5e5 for a result of 256 entries or more (measured with 1, 2 and
    8 threads).

    Args:
        jaxpr: of the mean over a chunk, traced.
        samples: in that chunk, a large prime.
    """
    if jax.default_backend() != "cpu":
        return _MANY
    return min((_samples_in(eqn, samples) for eqn in _products(jaxpr.jaxpr)), default=_MANY)


def _samples_in(product: Any, samples: int) -> int:
    left, right = (v.aval for v in product.invars[:2])
    contracted = math.prod(left.shape[i] for i in product.params["dimension_numbers"][0][0])
    entries = product.outvars[0].aval.size
    if contracted % samples or left.size == 0 or right.size == 0:
        return _MANY
    one = contracted // samples * entries
    most = 2.5e5 if entries < 256 else 5.5e5
    return int(most // one) if one <= most else _MANY


def _products(jaxpr: Any) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            yield eqn
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _products(inner)


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
    compiled = jax.jit(shared, compiler_options=options)

    def together(key: Array, first: int, *rest: Any) -> np.ndarray:
        rest = jax.tree.map(np.asarray, (jax.random.key_data(key), *rest))
        if not apart:
            rest = jax.device_put(rest, NamedSharding(mesh, everywhere))
        numbers = np.uint32(first) + np.arange(-(-chunks // count) * count, dtype=np.uint32)
        with machines.together():
            return np.asarray(compiled(numbers, rest))[:chunks]

    return together
