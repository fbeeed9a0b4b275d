"""Random rounding: a program run with every intermediate value moved by about one unit in the last place.

What floating point does to a result is estimated by doing more of it (Monte Carlo arithmetic: Parker 1997): each arithmetic
operation's result v becomes v·(1 + u·s), with signs s that differ from entry to entry and from run to run, and the result's
movement over some runs is its rounding error to first order. Unlike noise on the inputs it also sees what floating point
absorbs alike every time, as in (x + 1e8) − 1e8. Operations that only move or choose values add nothing; a loop is one
operation.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.executables import Program

RUNS = 4

EXACT = frozenset(
    "abs argmax argmin broadcast_in_dim ceil clamp concatenate convert_element_type copy copy_p cummax cummin device_put "
    "dynamic_slice dynamic_update_slice eq expand_dims floor gather ge gt imag is_finite le lt max min ne neg not pad real "
    "reduce_max reduce_min reduce_precision reshape rev round scatter select_n sign slice sort split squeeze stop_gradient "
    "transpose".split()
)
"""Operations that only move or choose values."""
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr", "checkpoint": "jaxpr",
          "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}  # fmt: skip


def jittered(function: Callable[..., Any], unit: float) -> Callable[..., Any]:
    """Return ``(run, *args) -> result``, where run 0 is the function itself and others are rounded at random.

    >>> lost = lambda x: (x + 1e8) - 1e8
    >>> with jax.enable_x64(True):
    ...     runs = [float(jittered(lost, 2.0**-52)(run, 0.3)) for run in range(3)]
    >>> max(runs) - min(runs) > 1e-8
    True
    """

    def run(number: Any, *args: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        flat = [jnp.asarray(x) for x in jax.tree.leaves(args)]
        outputs = _evaluate(closed.jaxpr, closed.consts, flat, jnp.asarray(number, jnp.int32), unit, [0])
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return run


def movement(function: Callable[..., Any], unit: float, *args: Any, options: dict[str, Any] | None = None) -> Any:
    """Return how far each entry of a function's result moves over RUNS runs of random rounding, as numpy arrays."""
    program = Program(lambda numbers, args: jax.vmap(lambda k: jittered(function, unit)(k, *args))(numbers), options)
    runs = jax.tree.map(np.asarray, program(np.arange(RUNS + 1, dtype=np.int32), args))
    return jax.tree.map(lambda x: np.abs(x[1:] - x[0]).max(0), runs)


def _evaluate(jaxpr: Any, consts: Any, args: Any, number: Any, unit: float, count: list[int]) -> list[Any]:
    env: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
    for eqn in jaxpr.eqns:
        values = [v.val if isinstance(v, core.Literal) else env[v] for v in eqn.invars]
        name = eqn.primitive.name
        if name in _CALLS and _CALLS[name] in eqn.params:
            inner = eqn.params[_CALLS[name]]
            consts = inner.consts if hasattr(inner, "consts") else ()
            outputs = _evaluate(getattr(inner, "jaxpr", inner), consts, values, number, unit, count)
        else:
            outputs = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
            outputs = list(outputs) if eqn.primitive.multiple_results else [outputs]
            if name not in EXACT:
                outputs = [_shake(out, number, unit, count) for out in outputs]
        env.update(zip(eqn.outvars, outputs, strict=True))
    return [v.val if isinstance(v, core.Literal) else env[v] for v in jaxpr.outvars]


def _shake(value: Any, number: Any, unit: float, count: list[int]) -> Any:
    """Multiply by 1 ± unit; the signs are the bits of a multiplicative hash of run, operation and position."""
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        return value
    count[0] += 1
    position = jax.lax.iota(jnp.uint32, int(np.prod(jnp.shape(value), dtype=int))).reshape(jnp.shape(value))
    word = (position + jnp.uint32(count[0]) * jnp.uint32(0x9E3779B9)) ^ (number.astype(jnp.uint32) * jnp.uint32(0x85EBCA6B))
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    sign = 1.0 - 2.0 * (word >> 31).astype(value.dtype)
    return jnp.where(number == 0, value, value * (1 + unit * sign).astype(value.dtype))
