"""Intervals hold every number that a run gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad.jaxprs.intervals import Interval, anything, run

FUNCTIONS = {
    "polynomials": lambda x: x**3 - 2 * x**2 + x,
    "even powers": lambda x: x**4 + (x - 1) ** 2,
    "quotients": lambda x: x / (x**2 + 1) + 1 / (3 + jnp.abs(x)),
    "exponentials": lambda x: jnp.exp(-x) + jnp.expm1(x) + jnp.exp2(x),
    "logarithms": lambda x: jnp.log(x**2 + 1) + jnp.log1p(jnp.abs(x)),
    "roots": lambda x: jnp.sqrt(x**2 + 2) + jax.lax.rsqrt(1 + x**2),
    "bounded": lambda x: jnp.tanh(x) + jax.nn.sigmoid(x) + jnp.sin(x) * jnp.cos(x),
    "choices": lambda x: jnp.where(x > 0, x, -2.0) + jnp.maximum(x, 0.3) + jnp.clip(x, -1, 1),
    "sums": lambda x: jnp.sum(x) * jnp.max(x) - jnp.min(jnp.abs(x)),
    "steps": lambda x: jnp.floor(x) + jnp.round(x) + jnp.sign(x) + x.astype(int),
    "moves": lambda x: jnp.concatenate([x[::-1], jnp.ones(2)]).reshape(2, -1).T,
    "booleans": lambda x: ((x > 0) & ~(x > 1) | (x < -1)).astype(float),
    "products": lambda x: jnp.outer(x, x) @ x,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("ends", [(-2.0, 3.0), (0.0, 1.0), (-5.0, -1.0), (-np.inf, np.inf)])
def test_no_number_lies_outside(name, ends):
    f, x = FUNCTIONS[name], np.zeros(4)
    program = jax.make_jaxpr(f)(x)
    (held,) = run(program, [Interval(*ends, x.shape)], lambda eqn, operands: None)
    held = held if isinstance(held, Interval) else Interval(held.min(), held.max(), held.shape)
    rng = np.random.default_rng(0)
    low, high = np.clip(ends, -50, 50)
    draws = [rng.uniform(low, high, x.shape) for _ in range(100)] + [
        np.full(4, low),
        np.full(4, high),
    ]
    values = np.array([np.asarray(f(draw)) for draw in draws], float)
    slack = 1e-5 * np.abs(values).max()
    assert held.low - slack <= values.min() and values.max() <= held.high + slack
    assert held.shape == values.shape[1:]


def test_they_are_narrow_where_the_operations_are_bounded():
    program = jax.make_jaxpr(lambda x: jnp.tanh(x) ** 2 + jnp.exp(-(x**2)))(0.0)
    (held,) = run(program, [anything()], lambda eqn, operands: None)
    assert (held.low, held.high) == (0.0, 2.0)


def test_loops_and_unknown_operations_may_give_anything():
    for f in (
        lambda x: jax.lax.fori_loop(0, 3, lambda i, y: y * 2, x),
        lambda x: jax.lax.while_loop(lambda y: y < 9, lambda y: y + 1, x),
        lambda x: jax.scipy.special.digamma(x),
    ):
        (held,) = run(jax.make_jaxpr(f)(0.5), [Interval(0.0, 1.0)], lambda eqn, operands: None)
        assert (held.low, held.high) == (-np.inf, np.inf)
