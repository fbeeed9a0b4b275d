"""Rewriting of programs: evaluated equation by equation, some are computed in another way."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax.extend import core

from jaxgrad.jaxprs.versions import replaced

Step = Callable[[core.Jaxpr, core.JaxprEqn, Sequence[Any]], Sequence[Any]]
"""Computes one equation of a program from its operands, such as `apply`."""

_INLINED = ("jit", "pjit")


def evaluated_equations(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    """Walk over the equations for which `evaluate` calls its step, in that order."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in _INLINED:
            yield from evaluated_equations(eqn.params["jaxpr"].jaxpr)
        else:
            yield eqn


def evaluate(
    jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Any], step: Step
) -> list[Any]:
    """Evaluate a program, and the jitted ones in it, with `step` for every other equation.

    >>> import jax
    >>> program = jax.make_jaxpr(jax.jit(lambda x: 2 * x + 1))(1.0)
    >>> [float(x) for x in evaluate(program.jaxpr, program.consts, [3.0], apply)]
    [7.0]
    """
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        if eqn.primitive.name in _INLINED:
            inner = eqn.params["jaxpr"]
            outputs = evaluate(inner.jaxpr, inner.consts, operands, step)
        else:
            outputs = step(jaxpr, eqn, operands)
        env.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def apply(jaxpr: core.Jaxpr, eqn: core.JaxprEqn, operands: Sequence[Any]) -> Sequence[Any]:
    """Compute one equation of a program."""
    variables = [atom for atom in eqn.invars if isinstance(atom, core.Var)]
    values = [x for atom, x in zip(eqn.invars, operands, strict=True) if isinstance(atom, core.Var)]
    alone = replaced(jaxpr, constvars=[], invars=variables, outvars=eqn.outvars, eqns=[eqn])
    return core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*values)
