"""The value and gradient of a function, and a function without its own derivative rules."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxgrad.jaxprs.programs import CALLS, equations, has_rule, is_own_rule
from jaxgrad.jaxprs.rewrite import evaluate
from jaxgrad.jaxprs.taps import bind
from jaxgrad.jaxprs.versions import opened


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

    def step(_: core.Jaxpr, eqn: core.JaxprEqn, operands: Sequence[Any]) -> Sequence[Any]:
        inner, consts = opened(eqn.params.get(CALLS.get(eqn.primitive.name, "")))
        if inner is not None and (
            is_own_rule(eqn) if has_rule(eqn) else any(map(is_own_rule, equations(inner)))
        ):
            return evaluate(inner, consts, operands, step)
        return bind(eqn, operands)

    def stripped(*args: Any) -> Any:
        program, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        outputs = evaluate(program.jaxpr, program.consts, jax.tree.leaves(args), step)
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return stripped
