"""The value and gradient of a function, and a function without its own derivative rules."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxgrad.jaxprs.programs import has_own_rules, is_own_rule
from jaxgrad.jaxprs.versions import bound

_BODY = {
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}


def value_and_gradient(
    loss: Callable[[dict[str, Any]], Any], inputs: dict[str, Any], wrt: tuple[str, ...]
) -> tuple[Any, dict[str, Any]]:
    """Return a loss of all inputs, and its gradient or Jacobian in some of them by reverse mode."""
    fixed = {name: x for name, x in inputs.items() if name not in wrt}
    moving = {name: inputs[name] for name in wrt}
    value, pull_back = jax.vjp(lambda moving: jnp.asarray(loss({**moving, **fixed})), moving)
    if value.shape == ():
        return value, pull_back(jnp.ones_like(value))[0]
    basis = jnp.eye(value.size, dtype=value.dtype).reshape(value.size, *value.shape)
    rows = jax.vmap(pull_back)(basis)[0]
    return value, jax.tree.map(lambda row: row.reshape(*value.shape, *row.shape[1:]), rows)


def without_rules(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function with its own custom rules replaced by what they stand for.

    Rules that ship with JAX stay, since they choose derivatives at kinks; so do rules inside of
    loops.

    >>> import jax.numpy as jnp
    >>> @jax.custom_jvp
    ... def straight(x):
    ...     return jnp.round(x)
    >>> _ = straight.defjvp(lambda x, t: (straight(x[0]), t[0]))
    >>> float(jax.grad(straight)(0.3)), float(jax.grad(without_rules(straight))(0.3))
    (1.0, 0.0)
    """

    def stripped(*args: Any) -> Any:
        program, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        outputs = _run(program.jaxpr, program.consts, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return stripped


def _run(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    env: dict[Any, Any] = dict(
        zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True)
    )

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        name = eqn.primitive.name
        if is_own_rule(eqn):
            outputs = _inside(eqn.params[_BODY[name]], operands)
        elif name in _CALLS and has_own_rules(inner := _closed(eqn.params[_CALLS[name]])):
            outputs = _inside(inner, operands)
        else:
            outputs = bound(eqn, operands)
            outputs = outputs if eqn.primitive.multiple_results else [outputs]
        env.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _inside(program: Any, operands: Sequence[Any]) -> list[Any]:
    closed = _closed(program)
    return _run(closed.jaxpr, closed.consts, operands)


def _closed(program: Any) -> core.ClosedJaxpr:
    return program if isinstance(program, core.ClosedJaxpr) else core.ClosedJaxpr(program, ())
