"""Primitives that only rearrange elements, and those that do nothing to a real number.

`REARRANGEMENTS` lists them and says which operands hold the elements; the others say where they go.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jax.extend import core

IDENTITIES = frozenset(
    {
        "copy",
        "copy_p",
        "name",
        "stop_gradient",
        "optimization_barrier",
        "device_put",
        "sharding_constraint",
        "reduce_precision",
    }
)
"""Primitives that return their operands as real numbers, shape and order unchanged."""


def _first(eqn: core.JaxprEqn, operands: Sequence[Any]) -> Sequence[int]:
    return (0,)


def _all(eqn: core.JaxprEqn, operands: Sequence[Any]) -> Sequence[int]:
    return range(len(operands))


def _sorted_data(eqn: core.JaxprEqn, operands: Sequence[Any]) -> Sequence[int]:
    return range(eqn.params["num_keys"], len(operands))


REARRANGEMENTS: dict[str, Callable[[core.JaxprEqn, Sequence[Any]], Sequence[int]]] = {
    "transpose": _first,
    "reshape": _first,
    "broadcast_in_dim": _first,
    "squeeze": _first,
    "expand_dims": _first,
    "slice": _first,
    "rev": _first,
    "split": _first,
    "dynamic_slice": _first,
    "tile": _first,
    "gather": _first,
    "concatenate": _all,
    "stack": _all,
    "unstack": _first,
    "pad": _all,
    "dynamic_update_slice": lambda eqn, operands: (0, 1),
    "scatter": lambda eqn, operands: (0, 2),
    "select_n": lambda eqn, operands: range(1, len(operands)),
    "sort": _sorted_data,
}
"""Primitives that only move elements, and which operands are moved; the others say whereto and must
be known.
"""
