"""Whether two traces are one program: keys that are equal only where the programs are."""

from typing import Any

import jax
import numpy as np
from jax.extend import core

_RULES = {"custom_jvp_call", "custom_vjp_call"}
"""Operations that run the program under "call_jaxpr"; the rest of them, new in each trace, is for
differentiation, and nothing differentiates here."""


def same(jaxpr: core.Jaxpr) -> tuple[Any, ...] | None:
    """Return a key of a program without its constants; None where it holds what cannot be compared.

    A key holds the operations and functions themselves, so none of them can be gone while a new one
    has its address.

    >>> double, again, treble = (jax.make_jaxpr(lambda x, k=k: k * x)(1.0).jaxpr for k in (2, 2, 3))
    >>> same(double) == same(again) != same(treble)
    True
    """
    try:
        hash(key := _program(jaxpr))
    except TypeError:
        return None
    return None if jaxpr.effects else key


def _program(jaxpr: core.Jaxpr) -> tuple[Any, ...]:
    numbers: dict[core.Var, int] = {}

    def name(x: core.Var | core.Literal) -> tuple[Any, ...]:
        value = _value(np.asarray(x.val)) if isinstance(x, core.Literal) else None
        return str(x.aval), value or numbers.setdefault(x, len(numbers))  # type: ignore[arg-type]

    def names(variables: Any) -> tuple[Any, ...]:
        return tuple([name(x) for x in variables])

    words: list[Any] = [names(jaxpr.constvars), names(jaxpr.invars)]
    for eqn in jaxpr.eqns:
        kept = ("call_jaxpr",) if eqn.primitive.name in _RULES else sorted(eqn.params)
        params = [(key, _value(eqn.params[key])) for key in kept if key in eqn.params]
        words.append((eqn.primitive, names(eqn.invars), names(eqn.outvars), str(eqn.ctx), *params))
    return (*words, names(jaxpr.outvars))


def _value(value: Any) -> Any:
    """Return what stands for a parameter: of its kind too, since 1, 1.0 and True are equal."""
    if isinstance(value, (tuple, list)):
        return (type(value), *map(_value, value))
    if isinstance(value, core.ClosedJaxpr):
        return _program(value.jaxpr), _value(value.consts)
    if isinstance(value, core.Jaxpr):
        return _program(value)
    if isinstance(value, (np.ndarray, jax.Array)):
        array = np.asarray(value)
        if array.dtype == object:
            raise TypeError("objects have no bytes to compare")
        return str(array.dtype), array.shape, array.tobytes()
    return type(value), repr(value) if isinstance(value, (float, complex)) else value
