"""Functions as traced programs, and what these contain, nested programs included."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.versions import opened, replaced


def equations(jaxpr: Any) -> Iterator[Any]:
    """Walk over all equations of a jaxpr and of the programs nested in it."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(inner, (core.Jaxpr, core.ClosedJaxpr)):
                    yield from equations(getattr(inner, "jaxpr", inner))


def has_stop_gradient(program: core.ClosedJaxpr) -> bool:
    """Say whether a program uses stop_gradient, so that its gradient need not be the derivative of
    its value.
    """
    return any(eqn.primitive.name == "stop_gradient" for eqn in equations(program.jaxpr))


def is_own_rule(eqn: Any) -> bool:
    """Say whether an equation brings a differentiation rule that is neither a JAX primitive's nor
    shipped with JAX.
    """
    if eqn.primitive.name not in ("custom_jvp_call", "custom_vjp_call"):
        return False
    debug = getattr(getattr(eqn.params.get("call_jaxpr"), "jaxpr", None), "debug_info", None)
    return os.path.dirname(jax.__file__) not in str(getattr(debug, "func_src_info", ""))


def has_rule(eqn: Any) -> bool:
    """Say whether an equation is differentiated by a rule, whatever the program in it says."""
    return eqn.primitive.name.startswith("custom_")


def has_own_rules(program: core.ClosedJaxpr) -> bool:
    """Say whether a program is differentiated by rules that are neither JAX's primitives' nor
    shipped with JAX.
    """
    return any(is_own_rule(eqn) for eqn in equations(program.jaxpr))


def by_jax_alone(program: core.ClosedJaxpr) -> bool:
    """Say whether a program is differentiated by JAX's own rules, and its gradient is meant to be
    the derivative of its value.
    """
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
    """Return the unit roundoff of a floating type, of which so many bits are kept, and 0 of other
    types.
    """
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
    """Walk over all constants of a program and of those nested in it: arrays, and numbers that are
    written down.

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


class Traceable(ABC):
    """A function that is known as a program for each structure, shape and type of its arguments,
    and is evaluated by its jaxpr.

    Unlike an inlined `jax.jit`, it keeps the user's line of every operation.
    """

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Evaluate."""
        closed, shape = self.program(*args, **named)
        return jax.tree.unflatten(
            jax.tree.structure(shape), core.jaxpr_as_fun(closed)(*jax.tree.leaves((args, named)))
        )

    @abstractmethod
    def program(self, *args: Any, **named: Any) -> tuple[core.ClosedJaxpr, Any]:
        """Return the program for such arguments, and its result with shapes in place of arrays."""

    @staticmethod
    def signature(leaves: list[Any], tree: Any) -> Any:
        """Return all of the arguments that a trace may depend on, and the default precision."""
        return tree, jax.numpy.result_type(float), *map(jax.typeof, leaves)


class TracedOnce(Traceable):
    """A function that is traced once for each structure, shape and type of its arguments."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Set up; nothing is traced yet."""
        self.function = function
        self._programs: dict[Any, tuple[core.ClosedJaxpr, Any]] = {}

    def program(self, *args: Any, **named: Any) -> tuple[core.ClosedJaxpr, Any]:
        """Return the program for such arguments, and its result with shapes in place of arrays."""
        signature = self.signature(*jax.tree.flatten((args, named)))
        if signature not in self._programs:
            self._programs[signature] = jax.make_jaxpr(self.function, return_shape=True)(
                *args, **named
            )
        return self._programs[signature]


def _in_default_precision(x: Any) -> Any:
    real = jax.numpy.issubdtype(jax.dtypes.result_type(x), np.floating)
    return (
        x.astype(jax.numpy.result_type(float))
        if real and isinstance(x, (jax.Array, np.ndarray))
        else x
    )


@dataclass(frozen=True, eq=False)
class Unstopped(Traceable):
    """A function without its stop_gradient, which is not traced anew: of the same values, with
    their slope as its gradient.

    Attributes:
        function: the function.

    >>> free = Unstopped(TracedOnce(lambda x: x * jax.lax.stop_gradient(x)))
    >>> float(jax.grad(free)(3.0))
    6.0
    """

    function: Traceable

    def program(self, *args: Any, **named: Any) -> tuple[core.ClosedJaxpr, Any]:
        """Return the program for such arguments, and its result with shapes in place of arrays."""
        closed, shape = self.function.program(*args, **named)
        return _without_stops(closed), shape


def _without_stops(program: Any) -> Any:
    """Return a program, or whatever else an equation has as a parameter, without stop_gradient in
    it and in what is nested in it.
    """
    if type(program) in (tuple, list):
        return type(program)(map(_without_stops, program))
    if not isinstance(program, (core.Jaxpr, core.ClosedJaxpr)):
        return program
    jaxpr, consts = opened(program)
    passed: dict[Any, Any] = {}
    eqns = []

    def after(atom: Any) -> Any:
        return atom if isinstance(atom, core.Literal) else passed.get(atom, atom)

    for eqn in jaxpr.eqns:
        operands = list(map(after, eqn.invars))
        if eqn.primitive.name == "stop_gradient":
            passed[eqn.outvars[0]] = operands[0]
        elif has_rule(eqn):
            eqns.append(eqn.replace(invars=operands))
        else:
            eqns.append(
                eqn.replace(
                    invars=operands, params={k: _without_stops(v) for k, v in eqn.params.items()}
                )
            )
    free = replaced(jaxpr, eqns=eqns, outvars=list(map(after, jaxpr.outvars)))
    return core.ClosedJaxpr(free, consts) if isinstance(program, core.ClosedJaxpr) else free


@dataclass(frozen=True, eq=False)
class Filled(Traceable):
    """A function whose last arguments are filled in, as constants of its programs.

    Attributes:
        function: the function, which is not traced anew.
        more: its last arguments.
    """

    function: Traceable
    more: tuple[Any, ...] = ()

    def program(self, *args: Any) -> tuple[core.ClosedJaxpr, Any]:
        """Return the program for such first arguments, and its result with shapes in place of
        arrays.
        """
        more = jax.tree.map(_in_default_precision, self.more)
        closed, shape = self.function.program(*args, *more)
        leaves = jax.tree.leaves(more)
        if not leaves:
            return closed, shape
        free, filled = closed.jaxpr.invars[: -len(leaves)], closed.jaxpr.invars[-len(leaves) :]
        jaxpr = replaced(closed.jaxpr, constvars=[*closed.jaxpr.constvars, *filled], invars=free)
        return core.ClosedJaxpr(jaxpr, [*closed.consts, *leaves]), shape


@dataclass(frozen=True, eq=False)
class Together(Traceable):
    """Some functions of the same arguments as one, whose result is the tuple of theirs; they are
    not traced anew.
    """

    functions: tuple[Traceable, ...]

    def program(self, *args: Any) -> tuple[core.ClosedJaxpr, Any]:
        """Return the program for such arguments, and its result with shapes in place of arrays."""
        programs, shapes = zip(
            *(function.program(*args) for function in self.functions), strict=True
        )
        return joined(programs), shapes


@dataclass(frozen=True, eq=False)
class Picked(Traceable):
    """A part of another function's result; that is not traced anew.

    Attributes:
        function: the other function.
        pick: returns the part of a tree like the result.
    """

    function: Traceable
    pick: Callable[[Any], Any]

    def program(self, *args: Any) -> tuple[core.ClosedJaxpr, Any]:
        """Return the program for such arguments, and its result with shapes in place of arrays."""
        closed, shape = self.function.program(*args)
        outvars = self.pick(jax.tree.unflatten(jax.tree.structure(shape), closed.jaxpr.outvars))
        jaxpr = replaced(closed.jaxpr, outvars=jax.tree.leaves(outvars))
        return core.ClosedJaxpr(jaxpr, closed.consts), self.pick(shape)


def joined(programs: Sequence[core.ClosedJaxpr]) -> core.ClosedJaxpr:
    """Return programs of the same inputs as one, that returns the outputs of all of them in turn.

    >>> square, double = (jax.make_jaxpr(f)(3.0) for f in (lambda x: x * x, lambda x: x + x))
    >>> [float(x) for x in core.jaxpr_as_fun(joined([square, double]))(3.0)]
    [9.0, 6.0]
    """
    first = programs[0].jaxpr
    constvars, eqns, outvars, consts = [], [], [], []
    for i, closed in enumerate(programs):
        known: dict[Any, Any] = dict(zip(closed.jaxpr.invars, first.invars, strict=True))

        def read(atom: Any, known: dict[Any, Any] = known) -> Any:
            return atom if isinstance(atom, core.Literal) else known.get(atom, atom)

        def bind(var: Any, known: dict[Any, Any] = known, again: bool = i > 0) -> Any:
            if again:  # one program may stand here twice, and a variable is bound once
                known[var] = type(var)(var.aval)
            return read(var, known)

        constvars += map(bind, closed.jaxpr.constvars)
        for eqn in closed.jaxpr.eqns:
            invars = [read(v) for v in eqn.invars]
            eqns.append(eqn.replace(invars=invars, outvars=[bind(v) for v in eqn.outvars]))
        outvars += map(read, closed.jaxpr.outvars)
        consts += closed.consts
    effects = frozenset().union(*(closed.jaxpr.effects for closed in programs))
    whole = replaced(first, constvars=constvars, eqns=eqns, outvars=outvars, effects=effects)
    return core.ClosedJaxpr(whole, consts)
