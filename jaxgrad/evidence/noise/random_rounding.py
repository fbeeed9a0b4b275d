"""Random rounding: a program run with every intermediate value moved by one unit roundoff.

What floating point does to a result is estimated by doing more of it (Monte Carlo arithmetic:
Parker 1997). Each arithmetic operation's result v becomes v·(1 + u·s), with signs s that differ
from entry to entry and from run to run. The result's movement over some runs is its rounding error
to first order. Unlike noise on the inputs it also sees what floating point absorbs alike every
time, as in (x + 1e8) − 1e8. Operations that only move or choose values add nothing.

Most programs run in numpy, which costs less than compiling them. One that numpy would take long
for, or that has operations which are only JAX's, is compiled; there a loop is one operation.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.cost import estimate
from jaxgrad.jaxprs.numpy_run import EXACT, floating
from jaxgrad.jaxprs.programs import CALLS
from jaxgrad.jaxprs.rewrite import evaluate
from jaxgrad.jaxprs.taps import bind
from jaxgrad.jaxprs.traced import Traceable, TracedOnce
from jaxgrad.jaxprs.versions import opened
from jaxgrad.runtime.compiled import Program

RUNS, FEW_RUNS = 24, 4
"""Runs where a verdict may hang on one entry's movement, and where the movements of several draws
are added up.

Two roundings may undo each other: of (1 − t)(1 + t) with t = −1 every second run leaves 0.
"""
_LONGEST = 2**28
"""The most work of a run in numpy, in the units of `jaxgrad.jaxprs.cost`: about a quarter of a
second. Long runs are fewer.
"""


def randomly_rounded(function: Callable[..., Any], unit: float) -> Callable[..., Any]:
    """Return ``(run, *args) -> result``: run 0 is the function, others are rounded at random.

    >>> lost = lambda x: (x + 1e8) - 1e8
    >>> from jaxgrad.jaxprs.versions import enable_x64
    >>> with enable_x64(True):
    ...     runs = [float(randomly_rounded(lost, 2.0**-52)(run, 0.3)) for run in range(3)]
    >>> max(runs) - min(runs) > 1e-8
    True
    """

    def run(number: Any, *args: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        number, count = jnp.asarray(number, jnp.int32), itertools.count(1)

        def step(_: core.Jaxpr, eqn: core.JaxprEqn, operands: Sequence[Any]) -> Sequence[Any]:
            inner, consts = opened(eqn.params.get(CALLS.get(eqn.primitive.name, "")))
            if inner is not None:
                return evaluate(inner, consts, operands, step)
            outputs = bind(eqn, operands)
            if eqn.primitive.name in EXACT:
                return outputs
            return [_rounded(out, number, unit, count) for out in outputs]

        flat = [jnp.asarray(x) for x in jax.tree.leaves(args)]
        outputs = evaluate(closed.jaxpr, closed.consts, flat, step)
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return run


def movement(
    function: Callable[..., Any],
    unit: float,
    *args: Any,
    options: dict[str, Any] | None = None,
    runs: int = RUNS,
) -> Any:
    """Return how far each entry of a function's result moves under random rounding, in numpy.

    Where it is compiled, FEW_RUNS are done at once, and `runs` is a multiple of that.
    """
    traced = function if isinstance(function, Traceable) else TracedOnce(function)
    found = movement_in_numpy(traced, unit, *args, runs=runs)
    if found is not None:
        return found
    program = Program(
        lambda numbers, args: jax.vmap(lambda k: randomly_rounded(traced, unit)(k, *args))(numbers),
        options,
    )
    several = [
        program(np.append(0, few).astype(np.int32), args)
        for few in np.arange(1, runs + 1).reshape(-1, FEW_RUNS)
    ]
    leaves = [list(map(np.asarray, jax.tree.leaves(results))) for results in several]
    plain = [leaf[0] for leaf in leaves[0]]
    moves = [np.zeros(leaf.shape) for leaf in plain]
    for some, i in itertools.product(leaves, range(1, FEW_RUNS + 1)):
        moves = _further(moves, plain, [leaf[i] for leaf in some])
    return jax.tree.unflatten(jax.tree.structure(several[0]), moves)


def movement_in_numpy(traced: Traceable, unit: float, *args: Any, runs: int = RUNS) -> Any:
    """Return the same, or None where numpy would take long for it, or has not all operations."""
    closed, shape = traced.program(*args)
    work = estimate(closed.jaxpr, 1)
    plain = floating(closed, jax.tree.leaves(args)) if work <= _LONGEST else None
    if plain is None:
        return None
    rng = np.random.default_rng(0)

    def rounded(eqn: core.JaxprEqn, value: np.ndarray) -> np.ndarray:
        if eqn.primitive.name in EXACT:
            return value
        return value * np.where(rng.random(value.shape) < 0.5, 1 - unit, 1 + unit).astype(
            value.dtype
        )

    moves = [np.zeros(leaf.shape) for leaf in plain]
    for _ in range(min(runs, max(FEW_RUNS, int(FEW_RUNS * _LONGEST / max(work, 1))))):
        run = floating(closed, jax.tree.leaves(args), rounded)
        if run is None:
            return None
        moves = _further(moves, plain, run)
    return jax.tree.unflatten(jax.tree.structure(shape), moves)


def _further(
    moves: Sequence[np.ndarray], plain: Sequence[np.ndarray], run: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Return how far each entry is from the plain run, in this run or in those before it."""
    return [np.maximum(*pair) for pair in zip(moves, map(_move, plain, run), strict=True)]


def _move(plain: np.ndarray, run: np.ndarray) -> np.ndarray:
    if plain.dtype.kind != "f":
        return np.where(run != plain, np.inf, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.abs(run - plain)


def _rounded(value: Any, number: Any, unit: float, count: Iterator[int]) -> Any:
    """Multiply by 1 ± unit; the signs are a hash of run, operation and position."""
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        return value
    position = jax.lax.iota(jnp.uint32, int(np.prod(jnp.shape(value), dtype=int))).reshape(
        jnp.shape(value)
    )
    word = (position + jnp.uint32(next(count)) * jnp.uint32(0x9E3779B9)) ^ (
        number.astype(jnp.uint32) * jnp.uint32(0x85EBCA6B)
    )
    word = (word ^ (word >> 16)) * jnp.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * jnp.uint32(0x846CA68B)
    sign = 1.0 - 2.0 * (word >> 31).astype(value.dtype)
    return jnp.where(number == 0, value, value * (1 + unit * sign).astype(value.dtype))
