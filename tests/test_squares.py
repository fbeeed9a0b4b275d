"""Sums of squares by Gram matrices: the same function and gradient, in fewer operations, and in no fewer digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad.association import associated
from jaxgrad.programs import equations

ROWS, WIDTH, FEATURES, SAMPLES = 9, 12, 5, 7

SQUARED = {
    "a linear autoencoder": lambda w1, w2, x, mask: jnp.mean(((mask * x) @ w1.T @ w2.T - x) ** 2),
    "one with a ReLU": lambda w1, w2, x, mask: jnp.mean((jax.nn.relu((mask * x) @ w1.T) @ w2.T - x) ** 2),
    "a bias, the other sign, a factor": lambda w1, w2, x, mask: (
        3 * jnp.sum(jnp.square(x - jnp.tanh((mask * x) @ w1.T) @ w2.T - w2[:, 0])) / 7
    ),
    "a factor before the sum": lambda w1, w2, x, mask: jnp.sum(jnp.square((mask * x) @ w1.T @ w2.T - x) / 4 * 0.5),
    "rows that are kept apart": lambda w1, w2, x, mask: (
        jnp.sum((jnp.tanh((mask * x) @ w1.T) @ w2.T - x) ** 2, axis=1) @ jnp.arange(ROWS)
    ),
    "matrices from the left": lambda w1, w2, x, mask: jnp.mean((w2 @ jnp.tanh(w1 @ (mask * x).T) - x.T) ** 2),
    "the residual times itself, and used again": lambda w1, w2, x, mask: (lambda e: jnp.mean(e * e) + jnp.mean(jnp.abs(e)))(
        1.0 - jnp.tanh((mask * x) @ w1.T) @ w2.T - x
    ),
    "no offset": lambda w1, w2, x, mask: jnp.sum((jnp.tanh((mask * x) @ w1.T) @ w2.T) ** 2),
    "inside jit": lambda w1, w2, x, mask: jax.jit(lambda e: jnp.mean(e**2))(jnp.tanh((mask * x) @ w1.T) @ w2.T - x),
    "two of them": lambda w1, w2, x, mask: (
        jnp.mean((jnp.tanh((mask * x) @ w1.T) @ w2.T - x) ** 2) + jnp.mean((jnp.sin((mask * x) @ w1.T) @ w2.T + x) ** 2)
    ),
    "a subtracted sum": lambda w1, w2, x, mask: jnp.mean((x - (w2[:, 0] - jnp.tanh((mask * x) @ w1.T) @ w2.T)) ** 2),
}
PLAIN = {
    "the mask in the loss": lambda w1, w2, x, mask: jnp.mean(((1 - mask) * (jnp.tanh((mask * x) @ w1.T) @ w2.T - x)) ** 2),
    "a target that moves": lambda w1, w2, x, mask: jnp.mean((jnp.tanh((mask * x) @ w1.T) @ w2.T - mask) ** 2),
    "a third power": lambda w1, w2, x, mask: jnp.mean((jnp.tanh((mask * x) @ w1.T) @ w2.T - x) ** 3),
    "columns that are kept apart": lambda w1, w2, x, mask: jnp.max(jnp.sum((jnp.tanh((mask * x) @ w1.T) @ w2.T - x) ** 2, axis=0)),
    "a narrow output": lambda w1, w2, x, mask: jnp.mean((jnp.tanh((mask * x) @ w2) @ w1[:, :2] - x[:, :2]) ** 2),
}


def data(scale=1.0):
    rng = np.random.default_rng(3)
    w1, w2 = rng.normal(size=(FEATURES, WIDTH)) / scale, rng.normal(size=(WIDTH, FEATURES)) * scale
    return (w1, w2, rng.normal(size=(ROWS, WIDTH))), (rng.random((SAMPLES, ROWS, WIDTH)) < 0.6).astype(float)


def of_mean(f, draws, rewritten):
    """Return the mean of f over draws, rewritten or as it is, as a function of the other arguments."""

    def mean(args):
        return jnp.mean(jax.vmap(lambda d: associated(f, args, d, draws[0]) if rewritten else f(*args, mask=d))(draws))

    return mean


def widths(f):
    """Return the output width of every product over samples in the gradient in the weights."""
    args, draws = data()
    gradient = jax.grad(lambda w: of_mean(f, draws, True)((*w, args[2])))
    return [
        eqn.outvars[0].aval.shape[-2:]
        for eqn in equations(jax.make_jaxpr(gradient)(args[:2]).jaxpr)
        if eqn.primitive.name == "dot_general" and SAMPLES in eqn.invars[0].aval.shape + eqn.invars[1].aval.shape
    ]


@pytest.mark.parametrize("name", [*SQUARED, *PLAIN])
def test_value_and_gradient_are_those_of_the_function_as_it_stands(name):
    f = {**SQUARED, **PLAIN}[name]
    with jax.enable_x64(True):
        args, draws = data()
        expected = jax.jit(jax.value_and_grad(of_mean(f, draws, False)))(args)
        found = jax.jit(jax.value_and_grad(of_mean(f, draws, True)))(args)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, expected)


@pytest.mark.parametrize("name", SQUARED)
def test_no_product_over_samples_is_as_wide_as_the_output_but_those_of_the_first_layer(name):
    wide = (ROWS, WIDTH) if name != "matrices from the left" else (WIDTH, ROWS)
    rewritten = [shape for shape in widths(SQUARED[name]) if shape == wide]
    assert len(rewritten) == (1 if name == "the residual times itself, and used again" else 0)


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_no_sum_of_squares_of_what_is_linear_in_the_mask_is_left_as_it_is(name):
    args, draws = data()
    programs = [jax.make_jaxpr(of_mean(PLAIN[name], draws, rewritten))(args) for rewritten in (True, False)]
    counts = [sum(eqn.primitive.name == "dot_general" for eqn in equations(program.jaxpr)) for program in programs]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_weights_whose_squares_leave_the_range_of_the_type_do_no_harm(scale):
    (w1, w2, x), draws = data()
    args = tuple(np.float32(a) for a in (w1 / scale, w2 * scale, x))
    f = SQUARED["one with a ReLU"]
    found, expected = (jax.grad(of_mean(f, np.float32(draws), rewritten))(args) for rewritten in (True, False))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * float(jnp.abs(other).max()))


@pytest.mark.parametrize("small", [1.0, 1e-2, 1e-4])
def test_a_small_residual_keeps_its_digits(small):
    """The target is met but for `small`, so that products and offset would cancel where both are multiplied out."""
    (_, w2, x), draws = data()
    features = np.tanh((1 - small * draws[:, :, None, :] * x[:, None, :]).mean(-1) @ np.ones((1, FEATURES)))
    target = features.mean(0) @ w2.T

    def f(w2, mask):
        moved = (1 - small * mask[:, None, :] * x[:, None, :]).mean(-1) @ np.ones((1, FEATURES))
        return jnp.mean((jnp.tanh(moved) @ w2.T - target) ** 2)

    def found(kind, rewritten):
        mean = of_mean(lambda w, mask: f(w, mask).astype(kind), jnp.asarray(draws, kind), rewritten)
        value, (gradient,) = jax.value_and_grad(mean)((jnp.asarray(w2, kind),))
        return np.append(gradient / small, value / small**2)  # of order 1 both

    with jax.enable_x64(True):
        exact = found(np.float64, False)
    errors = [np.abs(found(np.float32, rewritten) - exact).max() for rewritten in (True, False)]
    assert errors[0] <= 4 * errors[1] + 1e-6 and np.abs(exact).min() < 100
