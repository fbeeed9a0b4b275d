"""Derivatives at kinks and ties: torch takes one side, JAX another, or a mean of both."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxgrad.jaxprs.taps import bind
from jaxgrad.parity.rewriting.module_block import Attempt, ModuleBlock, at


def bounds(case: ModuleBlock) -> Iterator[Attempt]:
    """At a bound, the derivative of max, min and clip that torch takes: 1, or 0."""
    found = list(case.each("max", "min", "clip"))
    for slope in (1.0, 0.0):
        words = f"a derivative of {slope:g} where the bound is met"
        if len(found) > 1:
            yield Attempt(
                {i: _one_sided(eqn, slope) for i, eqn in found}, f"{words} restores parity"
            )
        for i, eqn in found:
            yield Attempt({i: _one_sided(eqn, slope)}, f"{words}{at(eqn)} restores parity")


def _one_sided(
    eqn: core.JaxprEqn, slope: float
) -> Callable[[core.JaxprEqn, Sequence[Any]], list[Any]]:
    moving = next((k for k, atom in enumerate(eqn.invars) if isinstance(atom, core.Var)), 0)

    def run(eqn: core.JaxprEqn, xs: Sequence[Any]) -> list[Any]:
        (value,) = bind(eqn, xs)
        x, fixed = xs[moving], [b for k, b in enumerate(xs) if k != moving]
        met = functools.reduce(
            jnp.logical_or, [value == b for b in fixed], jnp.zeros(value.shape, bool)
        )
        passes = (value == x) if slope else (value == x) & ~met
        return [jnp.where(passes, x, jax.lax.stop_gradient(value))]

    return run


def absolutes(case: ModuleBlock) -> Iterator[Attempt]:
    """The derivative of abs at 0 is 0."""
    for i, eqn in case.each("abs"):
        yield Attempt(
            {i: lambda eqn, xs: [xs[0] * jax.lax.stop_gradient(jnp.sign(xs[0]))]},
            f"abs'(0) = 0{at(eqn)} restores parity",
        )


def maxima(case: ModuleBlock) -> Iterator[Attempt]:
    """Ties of a maximum: the derivative goes to the first entry, or to the last."""
    for i, eqn in case.each("reduce_max", "reduce_min"):
        for which in ("first", "last"):
            text = f"the whole derivative to the {which} of equal entries{at(eqn)} restores parity"
            yield Attempt({i: _single(which)}, text)


def _single(which: str) -> Callable[[core.JaxprEqn, Sequence[Any]], list[Any]]:
    def run(eqn: core.JaxprEqn, xs: Sequence[Any]) -> list[Any]:
        (x,), axes = xs, tuple(eqn.params["axes"])
        rest = [a for a in range(x.ndim) if a not in axes]
        flat = jnp.transpose(x, (*rest, *axes)).reshape(*(x.shape[a] for a in rest), -1)
        flat = flat if which == "first" else flat[..., ::-1]
        at = (jnp.argmax if eqn.primitive.name == "reduce_max" else jnp.argmin)(flat, -1)
        return [jnp.take_along_axis(flat, at[..., None], -1)[..., 0]]

    return run


_OTHER = {
    "ge": (jax.lax.gt_p, ">"),
    "gt": (jax.lax.ge_p, ">="),
    "le": (jax.lax.lt_p, "<"),
    "lt": (jax.lax.le_p, "<="),
}


def comparisons(case: ModuleBlock) -> Iterator[Attempt]:
    """A comparison that counts equality, or does not."""
    found = list(case.each(*_OTHER))
    every = {i: _other(eqn)[0] for i, eqn in found}
    if len(every) > 1:
        signs = " and ".join(dict.fromkeys(_other(eqn)[1] for _, eqn in found))
        yield Attempt(every, f"{signs} as the comparisons{at(found[0][1])} restores parity")
    for i, eqn in found:
        run, sign = _other(eqn)
        yield Attempt({i: run}, f"{sign} as the comparison{at(eqn)} restores parity")


def _other(eqn: core.JaxprEqn) -> tuple[Any, str]:
    primitive, sign = _OTHER[eqn.primitive.name]
    return (lambda eqn, xs: [primitive.bind(*xs, **eqn.params)]), sign


def roots(case: ModuleBlock) -> Iterator[Attempt]:
    """A root whose derivative at 0 is 0."""

    def safe(eqn: core.JaxprEqn, xs: Sequence[Any]) -> list[Any]:
        zero = xs[0] == 0
        return [jnp.where(zero, 0.0, bind(eqn, [jnp.where(zero, 1.0, xs[0])])[0])]

    for i, eqn in case.each("sqrt"):
        yield Attempt({i: safe}, f"a gradient of 0 where the norm is 0{at(eqn)} restores parity")


def powers(case: ModuleBlock) -> Iterator[Attempt]:
    """A power whose derivative is 0 where the exponent is."""

    def safe(eqn: core.JaxprEqn, xs: Sequence[Any]) -> list[Any]:
        x, y = xs
        none = y == 0
        return [
            jnp.where(
                none, 1.0, bind(eqn, [jnp.where(none, 1.0, x), jnp.broadcast_to(y, x.shape)])[0]
            )
        ]

    for i, eqn in case.each("pow"):
        yield Attempt(
            {i: safe}, f"a gradient of 0 where the exponent is 0{at(eqn)} restores parity"
        )
