"""Which functions of a mask are sums over its rows: the analysis against mixed differences of the
function itself.

Rows do not meet in f exactly when f(a, b) − f(a, b') − f(a', b) + f(a', b') = 0 for any two rows.
What the analysis calls a sum must be one; what is one and is not seen to be is listed, so that the
analysis does not grow blind unnoticed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad.jaxprs.separability import dependence
from jaxgrad.jaxprs.versions import enable_x64
from tests.draws import fast

SHAPE = (3, 4)
X = np.random.default_rng(0).standard_normal(SHAPE)
W = np.random.default_rng(1).standard_normal((4, 2))


def network(m):
    return jax.nn.softmax(jnp.tanh((m * X) @ W), axis=-1) @ np.ones(2) + jnp.max(
        m, axis=1
    ) * jnp.prod(m + 2, axis=-1)


def scanned(m):
    total, each = jax.lax.scan(lambda c, row: (c + jnp.sum(row) ** 2, jnp.exp(row)), 0.0, m)
    return total + jnp.sum(each)


def scanned_product(m):
    return jax.lax.scan(lambda c, row: (c * jnp.sum(row), None), 1.0, m)[0]


def convolved(m):
    out = jax.lax.conv_general_dilated(m[:, None, :], jnp.ones((1, 1, 2)), (1,), "SAME")
    return jnp.sum(out**2)


def scattered(m):
    return jnp.sum(jnp.zeros(3).at[np.array([0, 0, 2])].add(jnp.exp(m).sum(1)))


SUMS = {
    "linear": lambda m: jnp.sum(m * X),
    "a network on each row": lambda m: jnp.sum(network(m)),
    "a vector over rows": network,
    "contraction over rows": lambda m: m.T @ (m * X),
    "contraction over everything": lambda m: jnp.vdot(m, jnp.sin(m)),
    "rows swapped, then one row with itself": lambda m: jnp.sum(
        m[::-1] * m[np.array([2, 1, 0])] * X
    ),
    "different rows added, not multiplied": lambda m: jnp.sum(m**2 - jnp.roll(m, 1, axis=0)),
    "the square of one row": lambda m: jnp.sum(m[1]) ** 2 + jnp.sum(m[2]),
    "cumulative sums": lambda m: jnp.sum(jnp.cumsum(m, axis=1) ** 2) + jnp.cumsum(m, axis=0)[-1, 0],
    "a constant times a sum": lambda m: jnp.sum(m**2) * jnp.exp(X.sum()) / X.sum(),
    "a branch of each row": lambda m: jnp.sum(jnp.where(m > 0.5, jnp.exp(m), m * X)),
    "powers": lambda m: jnp.sum(jnp.abs(m) ** 1.5),
    "a scan over rows": scanned,
    "a convolution of each row": convolved,
    "scattered sums": scattered,
    "vmap": lambda m: jnp.sum(jax.vmap(lambda row, x: jnp.linalg.norm(row - x))(m, X)),
    "a gradient by rows": jax.grad(lambda m: jnp.sum(network(m))),
    "dynamic places": lambda m: jnp.sum(jax.lax.dynamic_slice(m, (1, 0), (1, 4)) ** 2),
    "a cond that a row steers for itself": lambda m: (
        jax.lax.cond(m[1, 0] > 0.5, lambda: jnp.sum(m[1] ** 3), lambda: X[0, 0]) + m.sum()
    ),
    "integers of each row": lambda m: jnp.sum((m * 3).astype(int).astype(float) ** 2),
}

MIXTURES = {
    "the square of the sum": lambda m: jnp.sum(m) ** 2,
    "a product of rows": lambda m: jnp.sum(m[0] * m[1]),
    "all pairs of rows": lambda m: jnp.sum(m @ m.T),
    "a function of the mean": lambda m: jnp.exp(jnp.mean(m)),
    "a ratio of sums": lambda m: jnp.sum(m * X) / jnp.sum(m),
    "divided by a sum": lambda m: 1 / (1 + jnp.sum(m**2)),
    "batch statistics": lambda m: jnp.sum((m - m.mean(0)) ** 2 / (1 + m.var(0))),
    "the largest of all rows": lambda m: jnp.max(jnp.sum(m, axis=1)),
    "softmax over rows": lambda m: jnp.sum(jax.nn.softmax(m * X, axis=0) * X),
    "a branch steered by another row": lambda m: jnp.sum(jnp.where(m[0] > 0.5, m[1], m[2])),
    "a branch steered by a sum": lambda m: jnp.where(jnp.sum(m) > 10, jnp.sum(m), 0.0),
    "a cond steered by another row": lambda m: jax.lax.cond(
        m[0, 0] > 0.5, lambda: jnp.sum(m[1]), lambda: jnp.sum(m[2])
    ),
    "a product through a scan": scanned_product,
    "cumulative products over rows": lambda m: jnp.sum(jnp.cumprod(m + 1, axis=0)),
    "sorted over rows": lambda m: jnp.sum(jnp.sort(m * X, axis=0)[0]),
    "a determinant": lambda m: jnp.linalg.det(m[:, :3] + 2 * np.eye(3)),
    "a solve": lambda m: jnp.sum(jnp.linalg.solve(m[:, :3] + 5 * np.eye(3), np.ones(3))),
    "a convolution across rows": lambda m: jnp.sum(
        jax.lax.conv_general_dilated(m[None, None], jnp.ones((1, 1, 2, 2)), (1, 1), "SAME") ** 2
    ),
    "a round of a sum": lambda m: jnp.round(3 * jnp.sum(m * X)),
    "integers of a sum": lambda m: (3 * jnp.sum(m * X)).astype(int).astype(float),
    "products scattered": lambda m: jnp.sum(jnp.ones(2).at[np.array([0, 0, 1])].multiply(m.sum(1))),
    "sums scattered, then squared": lambda m: jnp.sum(
        jnp.zeros(2).at[np.array([0, 0, 1])].add(m.sum(1)) ** 2
    ),
    "a gradient across rows": jax.grad(lambda m: jnp.sum(m) ** 3),
    "a place that another row steers": lambda m: m[1][jnp.argmax(m[0])],
}

UNSEEN = {
    "what cancels": lambda m: (jnp.sum(m) + 1) ** 2 - jnp.sum(m) ** 2 - 2 * jnp.sum(m),
    "a logarithm of a product": lambda m: jnp.log(jnp.prod(1 + m)),
}


def traced(f):
    with enable_x64(True):
        return jax.make_jaxpr(f)(jnp.ones(SHAPE))


def mixed_difference(f):
    """The largest mixed difference over pairs of rows and several draws, relative to the values."""
    rng = np.random.default_rng(5)
    stack = []
    for _ in range(6):
        one, other = rng.uniform(0.2, 1.5, (2, *SHAPE))
        for pair in ((0, 1), (0, 2), (1, 2)):
            for chosen in ((), pair[:1], pair[1:], pair):
                stack.append(np.where(np.isin(np.arange(3), chosen)[:, None], other, one))
    with enable_x64(True):
        values = fast(jax.vmap(f))(np.array(stack))
    values = np.asarray(values, float).reshape(len(stack) // 4, 4, -1)
    scale = np.abs(values).max(axis=(1, 2)) + np.finfo(float).tiny
    mixed = values[:, 0] - values[:, 1] - values[:, 2] + values[:, 3]
    return float((np.abs(mixed).max(axis=1) / scale).max())


@pytest.mark.parametrize("name", SUMS)
def test_a_sum_over_rows_is_seen_to_be_one_and_is_one(name):
    assert all(d.separable and not d.meeting for d in dependence(traced(SUMS[name]), 0))
    assert mixed_difference(SUMS[name]) < 1e-13


@pytest.mark.parametrize("name", MIXTURES)
def test_where_rows_meet_the_line_is_named(name):
    found = [d for d in dependence(traced(MIXTURES[name]), 0) if not d.separable]
    assert found
    assert all("test_separability.py:" in d.meeting for d in found)
    assert mixed_difference(MIXTURES[name]) > 1e-6, "the example itself is a sum"


@pytest.mark.parametrize("name", UNSEEN)
def test_what_the_analysis_does_not_see_errs_on_the_safe_side(name):
    assert mixed_difference(UNSEEN[name]) < 1e-12
    assert not all(d.separable for d in dependence(traced(UNSEEN[name]), 0))


def test_the_row_of_each_entry_is_known():
    (found,) = dependence(traced(lambda m: jnp.exp(m).sum(axis=1)[::-1]), 0)
    assert found.rows.tolist() == [2, 1, 0]
    assert not found.constant
    (found,) = dependence(traced(lambda m: jnp.ones(2) + jnp.zeros_like(m)[0, :2] * 0), 0)
    assert found.constant


@pytest.mark.slow
def test_random_expressions_are_never_called_sums_wrongly():
    """A hundred random programs over the rows; each that is called a sum must have no mixed
    difference.
    """
    rng = np.random.default_rng(7)
    unary = [
        jnp.tanh,
        jnp.square,
        lambda a: a[::-1],
        lambda a: jnp.cumsum(a, axis=1),
        lambda a: a + a.mean(axis=1, keepdims=True),
    ]
    binary = [
        jnp.add,
        jnp.subtract,
        jnp.multiply,
        lambda a, b: a @ (b.T @ X) / 9,
        lambda a, b: jnp.where(a > 0.7, b, X),
    ]
    sums = 0
    for _ in range(100):
        steps = [(rng.integers(2), rng.integers(5), rng.integers(100, size=2)) for _ in range(4)]

        def program(m, steps=steps):
            values = [m, m * X, jnp.asarray(X)]
            for kind, op, at in steps:
                a, b = (values[i % len(values)] for i in at)
                values.append(unary[op](a) if kind else binary[op](a, b))
            return jnp.sum(values[-1], axis=0)

        if dependence(traced(program), 0)[0].separable:
            sums += 1
            assert mixed_difference(program) < 1e-12
    assert 20 <= sums <= 95, "the programs are of both kinds"


def test_a_reshape_that_transposes_first_moves_the_rows_with_it():
    (found,) = dependence(traced(lambda m: jax.lax.reshape(m, (4, 3), dimensions=(1, 0))), 0)
    assert found.rows.tolist() == [[0, 1, 2]] * 4
