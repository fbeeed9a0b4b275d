"""What a traced program contains, nested programs included.

Here stand its equations and constants, the derivative rules it brings along, the precision it
rounds to, and which outputs depend on which inputs.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core


def equations(jaxpr: Any) -> Iterator[Any]:
    """Walk over all equations of a jaxpr and of the programs nested in it."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(inner, (core.Jaxpr, core.ClosedJaxpr)):
                    yield from equations(getattr(inner, "jaxpr", inner))


def has_stop_gradient(program: core.ClosedJaxpr) -> bool:
    """Say whether a program uses stop_gradient: its gradient need not be the slope."""
    return any(eqn.primitive.name == "stop_gradient" for eqn in equations(program.jaxpr))


def is_own_rule(eqn: Any) -> bool:
    """Say whether an equation brings a differentiation rule that is not JAX's."""
    if eqn.primitive.name not in ("custom_jvp_call", "custom_vjp_call"):
        return False
    debug = getattr(getattr(eqn.params.get("call_jaxpr"), "jaxpr", None), "debug_info", None)
    return os.path.dirname(jax.__file__) not in str(getattr(debug, "func_src_info", ""))


def has_rule(eqn: Any) -> bool:
    """Say whether an equation is differentiated by a rule, whatever the program in it says."""
    return eqn.primitive.name.startswith("custom_")


def has_own_rules(program: core.ClosedJaxpr) -> bool:
    """Say whether a program is differentiated by rules that are not JAX's."""
    return any(is_own_rule(eqn) for eqn in equations(program.jaxpr))


def by_jax_alone(program: core.ClosedJaxpr) -> bool:
    """Say whether JAX's own rules give a program's gradient, and that is meant to be the slope."""
    return not has_own_rules(program) and not has_stop_gradient(program)


_EXACT = frozenset(
    "abs broadcast_in_dim clamp concatenate copy dynamic_slice dynamic_update_slice expand_dims "
    "gather max min neg pad reduce_max "
    "reduce_min reshape rev select_n sign slice sort split squeeze stop_gradient transpose".split()
)
"""Operations that return numbers that they were given, or such with another sign."""


def working_unit(program: core.ClosedJaxpr) -> float:
    """Return the unit roundoff of the coarsest floating type that a program rounds to.

    >>> from jaxgrad.jaxprs.versions import enable_x64
    >>> half = np.float32([[0.5, 0.25]])
    >>> with enable_x64(True):
    ...     exact = jax.make_jaxpr(lambda x: jax.numpy.asarray(half).T * x)(half.astype(float))
    ...     rounding = jax.make_jaxpr(lambda x: half.T * x.astype(half.dtype))(half.astype(float))
    >>> working_unit(exact), working_unit(rounding)
    (2.220446049250313e-16, 1.1920928955078125e-07)
    """
    units = (
        _unit_of(out.aval, eqn.params.get("mantissa_bits"))
        for eqn in equations(program.jaxpr)
        if _rounds(eqn)
        for out in eqn.outvars
    )
    return max(units, default=0.0) or float(np.finfo(np.float64).eps)


def _unit_of(aval: Any, bits: int | None = None) -> float:
    """Return the unit roundoff of a floating type, of which so many bits are kept; else 0."""
    dtype = getattr(aval, "dtype", np.dtype(int))
    if not jax.numpy.issubdtype(dtype, np.floating):
        return 0.0
    return max(float(jax.numpy.finfo(dtype).eps), 0.0 if bits is None else 2.0**-bits)


def _rounds(eqn: Any) -> bool:
    """Say whether an operation may round by itself, be it in a program that is nested in it."""
    name = eqn.primitive.name
    if name == "convert_element_type":
        before = eqn.invars[0].aval
        whole = not jax.numpy.issubdtype(before.dtype, np.floating)
        return bool(whole and before.dtype != bool) or 0 < _unit_of(before) < _unit_of(
            eqn.outvars[0].aval
        )
    return name not in _EXACT and name not in CALLS


def constants(program: core.ClosedJaxpr) -> Iterator[Any]:
    """Walk over all constants of a program and of those nested in it: arrays and literals.

    >>> [float(x) for x in constants(jax.make_jaxpr(lambda x: 2 * x + 0.5)(1.0))]
    [2.0, 0.5]
    """
    return _constants(program.jaxpr, program.consts)


def _constants(jaxpr: core.Jaxpr, consts: Sequence[Any] = ()) -> Iterator[Any]:
    yield from consts
    for eqn in jaxpr.eqns:
        yield from (atom.val for atom in eqn.invars if isinstance(atom, core.Literal))
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(inner, core.ClosedJaxpr):
                    yield from _constants(inner.jaxpr, inner.consts)
                elif isinstance(inner, core.Jaxpr):
                    yield from _constants(inner)


CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
"""Operations that do what the program in one of their parameters does."""


def reached(jaxpr: core.Jaxpr, inputs: Sequence[bool]) -> list[bool]:
    """Say which outputs of a program may depend on the inputs that are marked.

    >>> reached(jax.make_jaxpr(lambda x, y: (x * y, y + 1))(1.0, 2.0).jaxpr, [True, False])
    [True, False]
    """
    moved = {var for var, marked in zip(jaxpr.invars, inputs, strict=True) if marked}
    for eqn in jaxpr.eqns:
        marked = [not isinstance(atom, core.Literal) and atom in moved for atom in eqn.invars]
        inner = eqn.params.get(CALLS.get(eqn.primitive.name, ""))
        inner = getattr(inner, "jaxpr", inner)
        if inner is not None and len(inner.invars) == len(marked):
            moved.update(
                var
                for var, marked in zip(eqn.outvars, reached(inner, marked), strict=True)
                if marked
            )
        elif any(marked):
            moved.update(eqn.outvars)
    return [not isinstance(atom, core.Literal) and atom in moved for atom in jaxpr.outvars]
