"""The values and rules of one analysis of jaxprs, and how an operation is named to the user."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.extend import core

from jaxgrad.jaxprs.sources import is_own

Value = Any


Rule = Callable[..., Any]


_JAX = os.path.dirname(jax.__file__) + os.sep


INSIDE: ContextVar[tuple[core.JaxprEqn, ...]] = ContextVar("calls", default=())


class UnsupportedError(ValueError):
    """An operation that an analysis has no rule for, by its name and line."""


class DataDependentLoopError(UnsupportedError):
    """A loop whose length depends on unknown values."""


def location(eqn: core.JaxprEqn) -> str:
    """Return ``file:line`` of the user's code that made the equation, or "an unknown line".

    Equations of a program that JAX traced earlier have no line of their own; then it is that of the
    call they stand in.
    """
    for made in (eqn, *reversed(INSIDE.get())):
        traceback = made.source_info.traceback
        for frame in traceback.frames if traceback is not None else ():
            if not is_own(frame.file_name) and not frame.file_name.startswith((_JAX, "<")):
                return f"{frame.file_name}:{frame.line_num}"
    return "an unknown line"


def call_path() -> tuple[int, ...]:
    """Return the identities of the calls that the equation being walked stands in."""
    return tuple(map(id, INSIDE.get()))


def describe(eqn: core.JaxprEqn) -> str:
    """Return "`primitive` at file:line"."""
    return f"`{eqn.primitive.name}` at {location(eqn)}"


class Domain:
    """The values and rules of one analysis; see the module's docstring."""

    rules: Mapping[str, Rule]

    def rule(self, eqn: core.JaxprEqn, operands: Sequence[Value]) -> Rule | None:
        """Return the rule for an equation, or None where there is none."""
        return self.rules.get(eqn.primitive.name)

    def constant(self, array: Any) -> Value:
        """Return the value of a literal, constant or known result; an ndarray stays known."""
        if isinstance(array, np.ndarray):
            return array
        concrete = hasattr(array, "__array__") and not isinstance(array, Tracer)
        return (
            np.asarray(array)
            if concrete and not jax.numpy.issubdtype(array.dtype, jax.dtypes.extended)
            else array
        )

    def computed(self, eqn: core.JaxprEqn, operands: Sequence[np.ndarray], array: Any) -> Value:
        """Return the value of one result of an equation whose operands are all known."""
        return self.constant(array)

    def rearrange(self, operands: Sequence[Value], index: np.ndarray) -> Value:
        """Return entries at `index` of the flattened, joined operands; −1 is outside (NaN)."""
        raise NotImplementedError

    def choose(self, eqn: core.JaxprEqn, which: Value, cases: Sequence[Value]) -> Value:
        """Return the case that an unknown value chooses, of a cond's outputs."""
        select = self.rules.get("select_n")
        if select is None:
            raise UnsupportedError(
                f"{describe(eqn)} is a branch that depends on the data; write it with jnp.where"
            )
        return select(eqn, which, *cases)

    def otherwise(self, eqn: core.JaxprEqn, operands: Sequence[Value]) -> Any:
        """Handle an equation without a rule."""
        raise UnsupportedError(f"{describe(eqn)} has no rule")


def known(value: Value) -> bool:
    """Say whether a value is known, that is, a plain array of numbers."""
    return isinstance(value, np.ndarray)


def has_value(array: Any) -> bool:
    """Say whether a constant has numbers: it is not traced, and holds no PRNG keys."""
    keys = hasattr(array, "dtype") and jax.numpy.issubdtype(array.dtype, jax.dtypes.extended)
    return not (isinstance(array, Tracer) or keys)
