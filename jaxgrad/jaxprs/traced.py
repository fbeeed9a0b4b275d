"""Functions as traced programs: filled in, joined, or without stop_gradient, and traced once.

A `Traceable` gives its program, a closed jaxpr, for arguments of any shapes. Those made of another
are made of its program. `jaxgrad.jaxprs.programs` tells what a program contains.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.programs import has_rule
from jaxgrad.jaxprs.versions import opened, replaced


class Traceable(ABC):
    """A function that is known as a program for each structure, shape and type of arguments.

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
    """A function without its stop_gradient: the same values, with their slope as its gradient.

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
    """Return a program, or any parameter of an equation, without stop_gradient."""
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
        """Return the program for such first arguments, and its result with shapes for arrays."""
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
    """Some functions of the same arguments as one, whose result is the tuple of theirs."""

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
