"""Functions as traced programs, and what these contain, nested programs included."""

import os
from collections.abc import Callable, Iterator
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
    """Say whether a program uses stop_gradient, so that its gradient need not be the derivative of its value."""
    return any(eqn.primitive.name == "stop_gradient" for eqn in equations(program.jaxpr))


def is_own_rule(eqn: Any) -> bool:
    """Say whether an equation brings a differentiation rule that is neither a JAX primitive's nor shipped with JAX."""
    if eqn.primitive.name not in ("custom_jvp_call", "custom_vjp_call"):
        return False
    debug = getattr(getattr(eqn.params.get("call_jaxpr"), "jaxpr", None), "debug_info", None)
    return os.path.dirname(jax.__file__) not in str(getattr(debug, "func_src_info", ""))


def has_own_rules(program: core.ClosedJaxpr) -> bool:
    """Say whether a program is differentiated by rules that are neither JAX's primitives' nor shipped with JAX."""
    return any(is_own_rule(eqn) for eqn in equations(program.jaxpr))


def working_unit(program: core.ClosedJaxpr) -> float:
    """Return the unit roundoff of the coarsest floating type that a program computes in."""
    dtypes = (getattr(out.aval, "dtype", None) for eqn in equations(program.jaxpr) for out in eqn.outvars)
    units = (float(jax.numpy.finfo(d).eps) for d in dtypes if d is not None and jax.numpy.issubdtype(d, np.floating))
    return max(units, default=float(np.finfo(np.float64).eps))


class TracedOnce:
    """A function that is traced once for each structure, shape and type of its arguments, and from then on evaluates its jaxpr.

    Unlike an inlined `jax.jit`, it keeps the user's line of every operation.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        """Set up; nothing is traced yet."""
        self._function = function
        self._programs: dict[Any, tuple[core.ClosedJaxpr, Any]] = {}

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Evaluate."""
        closed, shape = self.program(*args, **named)
        return jax.tree.unflatten(jax.tree.structure(shape), core.jaxpr_as_fun(closed)(*jax.tree.leaves((args, named))))

    def program(self, *args: Any, **named: Any) -> tuple[core.ClosedJaxpr, Any]:
        """Return the program for such arguments, and its result with shapes in place of arrays."""
        signature = self.signature(*jax.tree.flatten((args, named)))
        if signature not in self._programs:
            self._programs[signature] = jax.make_jaxpr(self._function, return_shape=True)(*args, **named)
        return self._programs[signature]

    @staticmethod
    def signature(leaves: list[Any], tree: Any) -> Any:
        """Return all of the arguments that a trace may depend on, and the default precision."""
        return tree, jax.numpy.result_type(float), *map(jax.typeof, leaves)
