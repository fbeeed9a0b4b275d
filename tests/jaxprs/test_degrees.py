"""Degrees of programs: exact where they must be, and never too small."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad.jaxprs.degree_bounds import Degree
from jaxgrad.jaxprs.degrees import degree, degrees
from jaxgrad.jaxprs.versions import enable_x64

M, X, W = np.ones((3, 4)), np.ones((3, 4)), np.ones((4, 4))


def autoencoder(m, x, w):
    return jnp.mean(((m * x) @ w @ w.T - x) ** 2)


POLYNOMIALS = {
    "a constant": (lambda m, x, w: jnp.exp(x) @ w, 0),
    "linear": (lambda m, x, w: (m * jnp.exp(x)) @ w, 1),
    "masked autoencoder": (autoencoder, 2),
    "its gradient": (lambda m, x, w: jax.grad(autoencoder, 2)(m, x, w), 2),
    "loss on masked entries": (lambda m, x, w: jnp.sum((1 - m) * ((m * x) @ w - x) ** 2), 3),
    "a chosen case": (lambda m, x, w: jnp.where(x > 0, m**3, m), 3),
    "a known branch": (
        lambda m, x, w: jax.lax.cond((x * x).sum() < 0, lambda m: m, lambda m: m * m, m),
        2,
    ),
    "powers": (lambda m, x, w: m**4 * jnp.square(m) * jnp.power(m, 2.0), 8),
    "product of a row": (lambda m, x, w: jnp.prod(m, 1), 4),
    "cumulative product": (lambda m, x, w: jnp.cumprod(m, 0), 3),
    "a recurrence": (lambda m, x, w: jax.lax.scan(lambda c, r: (c * r, c), jnp.ones(4), m)[0], 3),
    "division by data": (lambda m, x, w: m / jnp.sum(x) * jnp.linalg.solve(w, m.T).T, 2),
    "convolution": (lambda m, x, w: jnp.convolve(m[0], m[1]), 2),
    "moves": (lambda m, x, w: jnp.asarray(m)[::-1].at[0].add(m[1] * m[2])[:, np.array([1, 0])], 2),
    "vmap of a square": (lambda m, x, w: jax.vmap(lambda r: r @ r)(m), 2),
}


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_the_degree_of_a_polynomial_is_found(name):
    f, expected = POLYNOMIALS[name]
    found = degree(f, M, X, W)
    assert found.polynomial and not found.obstacle
    assert found.numerator == expected
    assert found.shape == f(M, X, W).shape


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_the_degree_is_no_less_than_that_of_the_values_along_a_line(name):
    """The (d + 1)-th difference of a polynomial of degree d is zero, and its d-th is not."""
    f, expected = POLYNOMIALS[name]
    rng = np.random.default_rng(0)
    x, w, start, step = (rng.standard_normal(a.shape) for a in (X, W, M, M))
    with enable_x64(True):
        values = np.stack([f(start + t * step, x, w) for t in np.arange(expected + 3) / 4])
    scale = np.abs(values).max()
    assert np.abs(np.diff(values, expected + 1, axis=0)).max() < 1e-10 * scale
    if expected:
        assert np.abs(np.diff(values, expected, axis=0)).max() > 1e-6 * scale


OBSTACLES = {
    "exp": lambda m, x, w: jnp.exp(m),
    "max": lambda m, x, w: jax.nn.relu(m),
    "gt": lambda m, x, w: jnp.where(m > 0, x, 0),
    "sqrt": lambda m, x, w: jnp.sqrt(m),
    "floor": lambda m, x, w: jnp.floor(m),
    "convert_element_type": lambda m, x, w: m.astype(int),
    "pow": lambda m, x, w: x**m,
    "sort": lambda m, x, w: jnp.sort(m),
    "cond": lambda m, x, w: jax.lax.cond(m[0, 0] > 0, lambda: x, lambda: x + 1),
    "abs": lambda m, x, w: jnp.abs(m),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_is_no_polynomial_is_named_with_its_line(name):
    found = degree(OBSTACLES[name], M, X, W)
    assert not found.polynomial
    assert "test_degrees.py:" in found.obstacle
    if name not in ("cond", "gt"):
        assert found.obstacle.startswith(f"`{name}` at")


def test_fractions_have_a_numerator_and_a_denominator():
    found = degree(lambda m: m / (1 + m**2), np.ones(()))
    assert (found.numerator, found.denominator) == (1, 2)
    assert not found.polynomial and not found.obstacle


def test_adding_what_was_divided_by_the_same_costs_nothing():
    def f(m):
        total = jnp.sum(m)
        return m / total + m**2 / total

    found = degree(f, M)
    assert (found.numerator, found.denominator) == (2, 1)


def test_other_arguments_may_be_chosen():
    def f(a, b):
        return a**2 * b["x"] ** 3

    b = {"x": np.ones(2)}
    assert degree(f, np.ones(2), b).numerator == 2
    assert degree(f, np.ones(2), b, argnums=1).numerator == 3
    assert degree(f, np.ones(2), b, argnums=(0, 1)).numerator == 5


def test_every_output_has_its_own_degree():
    found = degree(lambda m: {"one": m, "two": (m * m, jnp.exp(m))}, M)
    assert found["one"] == Degree((3, 4), 1)
    assert found["two"][0].numerator == 2
    assert found["two"][1].obstacle


def test_degrees_are_found_while_others_are_traced():
    @jax.jit
    def f(x):
        found = degree(lambda m: jnp.sum((m * x) ** 2), M)
        assert found.polynomial
        return found.numerator * x

    assert f(X)[0, 0] == 2


def test_obstacles_count_as_variables_in_a_bound():
    with enable_x64(True):
        program = jax.make_jaxpr(lambda m: jnp.sqrt(m[0] ** 4) * jnp.exp(m[1]))(np.ones(2))
    (found,) = degrees(program, [True], fresh=True)
    assert not found.obstacle
    assert found.numerator >= 2 + 1


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_of_a_random_fraction_is_no_less_than_its_degree(seed):
    """N/D of degrees (n, d) is fixed by n + d + 1 values; one more value must fit a fraction of the
    bound's degrees.
    """
    rng = np.random.default_rng(seed)
    a, b, c = (int(k) for k in rng.integers(1, 5, 3))

    def f(t):
        s = (t + a) / (t * t + b)
        return s * s / (s + c) + t / (t + 3)

    found = degree(f, np.ones(()))
    n, d = found.numerator, found.denominator
    points = [Fraction(k) for k in range(1, n + d + 4)]
    rows = [[t**k for k in range(n + 1)] + [-f(t) * t**k for k in range(d + 1)] for t in points]
    assert _rank(rows) < n + d + 2  # N(t) − f(t)·D(t) = 0 has a solution


def _rank(rows):
    rows, rank = [list(r) for r in rows], 0
    for column in range(len(rows[0])):
        pivot = next((i for i in range(rank, len(rows)) if rows[i][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        for i in range(rank + 1, len(rows)):
            factor = rows[i][column] / rows[rank][column]
            rows[i] = [x - factor * y for x, y in zip(rows[i], rows[rank], strict=True)]
        rank += 1
    return rank
