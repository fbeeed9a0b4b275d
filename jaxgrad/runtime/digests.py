"""Digests of programs: which compiled program is this one's.

A digest is one of what is lowered, the jaxpr: its operations with their parameters, the types of
its variables, its literals, and all that JAX and XLA are set to. Constants are arguments and not
part of it. A program that holds anything whose meaning a digest cannot know, such as a callback or
an operation that is not JAX's own, has none.
"""

import enum
import functools
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
from jax.extend import core

from jaxgrad.runtime.threads import cores

FORMAT = "3"
"""Version of what is digested and of what is stored."""

_RULES = {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}
"""Operations that are lowered as the program in one of their parameters; the others are for
differentiation.
"""


class _UnknownError(Exception):
    """Something in a program of which its digest would not tell all."""


def digest(jaxpr: core.Jaxpr, options: dict[str, Any] | None = None) -> str | None:
    """Return a digest of a program without constants and of all that decides how it is compiled;
    None where there can be none.

    >>> first, again = (jax.make_jaxpr(lambda x: 2 * x)(1.0).jaxpr for _ in range(2))
    >>> digest(first) == digest(again) != digest(jax.make_jaxpr(lambda x: 3 * x)(1.0).jaxpr)
    True
    """
    try:
        words = "\n".join(_program(jaxpr, []))
    except _UnknownError:
        return None
    return hashlib.sha256(
        f"{_surroundings(str(jnp.result_type(float)))}\n{sorted((options or {}).items())}\n{words}".encode()
    ).hexdigest()


def _surroundings(default: str) -> str:
    settings = {
        k: v
        for k, v in sorted(jax.config.values.items())
        if "cache" not in k and "traceback" not in k
    }
    around = os.environ.get("XLA_FLAGS", ""), os.environ.get("NPROC", ""), cores()
    return repr((FORMAT, jax.__version__, jaxlib.version.__version__, default, settings, *around))


@functools.cache
def _own() -> frozenset[int]:
    """Return the identities of the operations that JAX itself brings."""
    return frozenset(
        id(p)
        for module in (core.primitives, jax.lax)
        for name, p in vars(module).items()
        if name.endswith("_p")
    )


@functools.lru_cache(2**12)
def _kind(aval: Any) -> str:
    return str(aval)


def _program(jaxpr: core.Jaxpr, words: list[str]) -> list[str]:
    """Spell out a program, after what was spelled out before; variables are numbered in the order
    in which they appear.
    """
    if jaxpr.effects:
        raise _UnknownError
    numbers: dict[core.Var, int] = {}
    context, told, own = None, "", _own()

    def bind(variables: Sequence[Any]) -> str:
        for var in variables:
            numbers[var] = len(numbers)
        return " ".join([_kind(var.aval) for var in variables])

    def read(atoms: Sequence[Any]) -> str:
        return " ".join(
            [_literal(x) if isinstance(x, core.Literal) else str(numbers[x]) for x in atoms]
        )

    words.append(f"({bind((*jaxpr.constvars, *jaxpr.invars))}")
    for eqn in jaxpr.eqns:
        if id(eqn.primitive) not in own or eqn.effects:
            raise _UnknownError
        name, params = eqn.primitive.name, eqn.params
        kept = (
            {_RULES[name]: params[_RULES[name]]}
            if name in _RULES and _RULES[name] in params
            else params
        )
        if eqn.ctx is not context:
            context, told = eqn.ctx, repr(eqn.ctx)
        operands = read(eqn.invars)
        words.append(f"{name} {operands} -> {bind(eqn.outvars)} {told}")
        for key in sorted(kept):
            words.append(key)
            _parameter(kept[key], words)
    words.append(f"{read(jaxpr.outvars)})")
    return words


def _literal(x: Any) -> str:
    value = np.asarray(x.val)
    if value.dtype == object:
        raise _UnknownError
    return f"{_kind(x.aval)}={value.dtype.str}:{value.tobytes().hex()}"


def _parameter(value: Any, words: list[str]) -> None:
    kind = type(value)
    if kind in _SIMPLE or isinstance(
        value, (bool, int, float, complex, str, bytes, np.dtype, np.generic)
    ):
        words.append(f"{kind.__name__} {value!r}")
    elif isinstance(value, (tuple, list)):
        words.append(f"{kind.__name__} {len(value)}")
        for item in value:
            _parameter(item, words)
    elif isinstance(value, core.ClosedJaxpr):
        _program(value.jaxpr, words)
        for const in value.consts:
            _parameter(const, words)
    elif isinstance(value, core.Jaxpr):
        _program(value, words)
    elif isinstance(value, jax.sharding.Mesh) and value.empty:
        words.append("no mesh")
    elif isinstance(value, jax.Array) and not jnp.issubdtype(value.dtype, jax.dtypes.extended):
        _parameter(np.asarray(value), words)
    elif isinstance(value, np.ndarray) and value.dtype != object:
        words.append(f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}")
    elif isinstance(value, enum.Enum) or (
        kind.__module__.startswith("jax.") and kind.__qualname__ in _PLAIN
    ):
        words.append(f"{kind.__qualname__} {value!r}")
    else:
        raise _UnknownError


_SIMPLE = frozenset({type(None), bool, int, float, str})
"""Types whose representations tell all, of those that most parameters have."""

_PLAIN = frozenset({"UnspecifiedValue"})
"""JAX's types of parameters whose representations tell all."""
