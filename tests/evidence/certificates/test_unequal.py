"""Pairs of functions that are not equal, and must never be certified."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import Verdict, certify

v, u = np.ones(3), np.ones(3)
x, y, c = np.ones((4, 3)), np.ones((4, 2)), np.ones((4, 3))
w, a3, s = np.ones((3, 2)), np.ones((3, 3)), np.ones(())
sigmoid = jax.nn.sigmoid


class Pair(NamedTuple):
    name: str
    f: Callable[..., Any]
    g: Callable[..., Any]
    args: tuple[Any, ...]
    undecided: bool = (
        False  # different, but in a way that neither the field nor float64 shows beyond doubt
    )


def grad(f, argnums=0):
    return jax.grad(lambda *args: jnp.sum(f(*args)), argnums)


def layer_norm(x, eps=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + eps)


def mean_squares(w, x, y):
    return jnp.mean((x @ w - y) ** 2)


def expected_autoencoder(x, w1, w2, p):
    second = jnp.where(np.eye(3, dtype=bool), p, p * p)
    core = w1.T @ w2.T
    return (
        jnp.sum((core @ core.T) * second * (x.T @ x))
        - 2 * p * jnp.sum((x @ core) * x)
        + jnp.sum(x * x)
    ) / x.size


def half_only(x, w1, w2, p):  # S is p² off the diagonal and p on it; both are right for p = 1/2
    n = x.shape[1]
    second = (1 - p) ** 2 + (p - (1 - p) ** 2) * jnp.eye(n)
    inner = w2 @ w1 @ (second * (x.T @ x)) - p * x.T @ x
    return 2 / x.size * w2.T @ inner, 2 / x.size * inner @ w1.T


def spd(a):
    return a @ a.T + jnp.eye(3)


def parity(n):
    """A function that is 1 at even integers, and its continuation."""
    return jnp.cos(np.pi * n) ** 2


UNEQUAL = [
    Pair("a factor 1 + 1e-9", grad(lambda x: x**2), lambda x: (1 + 1e-9) * 2 * x, (v,)),
    Pair(
        "a factor 1 − 1e-7 on one entry",
        grad(lambda x: x**3),
        lambda x: 3 * x**2 * jnp.array([1, 1, 1 - 1e-7]),
        (v,),
    ),
    Pair("a factor of the size", grad(lambda x: jnp.mean(x**2)), lambda x: 2 * x, (x,)),
    Pair("a wrong sign", grad(lambda x: -(x**2)), lambda x: 2 * x, (v,)),
    Pair("a forgotten half", grad(lambda x: x**2 / 2), lambda x: 2 * x, (v,)),
    Pair("a constant added", lambda x: x**2, lambda x: x**2 + 1e-3, (v,)),
    Pair("a tiny constant added", lambda x: x + 1e-30, lambda x: x, (v,), True),
    Pair(
        "one last digit of a constant",
        lambda x: 0.1 * x,
        lambda x: 0.1000000000000001 * x,
        (v,),
        True,
    ),
    Pair("pi and twenty-two sevenths", lambda x: np.pi * x, lambda x: 22 / 7 * x, (v,)),
    Pair("x and |x|", lambda x: x, jnp.abs, (v,)),
    Pair("the root of a square and its base", lambda x: jnp.sqrt(x**2), lambda x: x, (v,)),
    Pair("the root of a square and minus its base", lambda x: jnp.sqrt(x**2), lambda x: -x, (v,)),
    Pair("the square of a root and its base", lambda x: jnp.sqrt(x) ** 2, lambda x: x, (v,), True),
    Pair(
        "roots of a product with negative factors",
        lambda x, y: jnp.sqrt(x * y),
        lambda x, y: jnp.sqrt(x) * jnp.sqrt(y),
        (v, u),
        True,
    ),
    Pair("half power of a square", lambda x: (x**2) ** 0.5, lambda x: x, (v,)),
    Pair(
        "a root of v w²",
        lambda x, y: jnp.sqrt(x**2 + 1) * y,
        lambda x, y: jnp.sqrt((x**2 + 1) * y**2),
        (v, u),
    ),
    Pair("ReLU and the identity", jax.nn.relu, lambda x: x, (v,)),
    Pair("ReLU and zero", jax.nn.relu, jnp.zeros_like, (v,)),
    Pair("ReLU and leaky ReLU", jax.nn.relu, jax.nn.leaky_relu, (v,)),
    Pair(
        "the gate of the wrong side", grad(jax.nn.relu), lambda x: jnp.where(x < 0, 1.0, 0.0), (v,)
    ),
    Pair("a gate at one", grad(jax.nn.relu), lambda x: jnp.where(x > 1, 1.0, 0.0), (v,)),
    Pair(
        "signs of a sum",
        lambda x, y: jnp.where((x > 0) & (y > 0), jnp.where(x + y > 0, 1.0, 2.0), 0.0) + x,
        lambda x, y: jnp.where((x > 0) & (y > 0), 2.0, 0.0) + x,
        (v, u),
    ),
    Pair(
        "maximum of three and of two",
        lambda x: jnp.maximum(jnp.maximum(x[0], x[1]), x[2]),
        lambda x: jnp.maximum(x[0], x[1]),
        (v,),
    ),
    Pair(
        "a corner of five conditions",
        lambda x: jnp.where(
            (x[0] > 0) & (x[1] > 0) & (x[2] > 0) & (x[3] > 0) & (x[4] > 0), x[0], 0.0
        ),
        lambda x: 0 * x[0],
        (np.ones(5),),
    ),
    Pair(
        "Huber clipped at another bound",
        grad(lambda x: jnp.where(jnp.abs(x) < 1, x**2 / 2, jnp.abs(x) - 0.5)),
        lambda x: jnp.clip(x, -1.5, 1.5),
        (v,),
    ),
    Pair(
        "a value between two numbers that lie close together",
        lambda x: x,
        lambda x: jnp.where((x > 0.3) & (x < 0.3 + 1e-9), 7.0, x),
        (v,),
        True,
    ),
    Pair(
        "a value between a number and a half",
        lambda x: x,
        lambda x: jnp.where((x > 0.3) & (2 * x < 0.6 + 1e-9), 7.0, x),
        (v,),
        True,
    ),
    Pair(
        "a value between bounds that clip makes",
        lambda x: x,
        lambda x: jnp.where(jnp.clip(x, -1, 1) * (jnp.abs(x) < 0.5) > 0.499999, 7.0, x),
        (v,),
        True,
    ),
    Pair("a value far out", lambda x: x, lambda x: jnp.where(jnp.abs(x) > 1e6, 7.0, x), (v,), True),
    Pair(
        "pieces of a number",
        lambda x: jnp.where(x > 0, x, 2 * x),
        lambda x: jnp.where(x > 0, x + 1, 2 * x + 1),
        (1.5,),
    ),
    Pair(
        "clip and its wrong bound",
        lambda x: jnp.clip(x, -1, 1),
        lambda x: jnp.clip(x, -1, 1.001),
        (v,),
        True,
    ),
    Pair(
        "gates that cover all but the tie region",
        lambda x: jnp.where(jax.nn.relu(x) > 0, 1.0, 0.0) + jnp.where(jax.nn.relu(x) < 0, 1.0, 0.0),
        jnp.ones_like,
        (v,),
    ),
    Pair(
        "a tie on a region",
        lambda x: jnp.where(jnp.maximum(x, 0) == x, 1.0, 0.0),
        jnp.zeros_like,
        (v,),
    ),
    Pair(
        "a tie of floors",
        lambda x, y: jnp.where(jnp.floor(x / 9) == jnp.floor(y / 9), 1.0, 0.0),
        lambda x, y: 0 * x,
        (v, u),
    ),
    Pair(
        "a tie of logarithms",
        lambda x, y: jnp.where(jnp.log(x * x * y * y) == jnp.log(x * x) + jnp.log(y * y), 1.0, 0.0),
        lambda x, y: 0 * x,
        (v, u),
        True,
    ),
    Pair(
        "a tie of an exponential",
        lambda x: jnp.where(jnp.exp(jnp.log(x * x)) == x * x, 1.0, 0.0),
        lambda x: 0 * x,
        (v,),
        True,
    ),
    Pair(
        "small integers that wrap around",
        lambda x: ((x > 0).astype(jnp.uint8) - jnp.uint8(1)).astype(float),
        lambda x: (x > 0) - 1.0,
        (v,),
    ),
    Pair(
        "a switch by a rounded number",
        lambda x: jax.lax.switch(x[0].astype(int), [lambda x: x, lambda x: 2 * x], x),
        lambda x: x + x * jnp.trunc(x[0]),
        (v,),
        True,
    ),
    Pair(
        "a guarded root",
        lambda x: jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0),
        lambda x: jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), x),
        (v,),
    ),
    Pair(
        "an unguarded root",
        lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0),
        lambda x: jnp.where(x > 0, jnp.sqrt(x), x),
        (v,),
    ),
    Pair(
        "whether a logarithm is finite",
        lambda x: jnp.where(jnp.isfinite(jnp.log(x)), 1.0, 0.0),
        jnp.ones_like,
        (v,),
        True,
    ),
    Pair(
        "exp of a sum and a sum of exps",
        lambda x, y: jnp.exp(x + y),
        lambda x, y: jnp.exp(x) + jnp.exp(y),
        (v, u),
    ),
    Pair(
        "exp of a product",
        lambda x, y: jnp.exp(x * y),
        lambda x, y: jnp.exp(x) * jnp.exp(y),
        (v, u),
    ),
    Pair(
        "exp and its Taylor polynomial",
        jnp.exp,
        lambda x: 1 + x + x**2 / 2 + x**3 / 6 + x**4 / 24,
        (v,),
    ),
    Pair("exp and two to the power", jnp.exp, jnp.exp2, (v,)),
    Pair("log of a sum", lambda x, y: jnp.log(jnp.exp(x) + jnp.exp(y)), lambda x, y: x + y, (v, u)),
    Pair("log of a square", lambda x: jnp.log(x**2), lambda x: jnp.log(jnp.abs(x)), (v,)),
    Pair("log and log of the absolute value", jnp.log, lambda x: jnp.log(jnp.abs(x)), (v,), True),
    Pair("exp of a log", lambda x: jnp.exp(jnp.log(x)), lambda x: x, (v,), True),
    Pair("tanh and sigmoid", jnp.tanh, sigmoid, (v,)),
    Pair("the derivative of tanh from its input", grad(jnp.tanh), lambda x: 1 - x**2, (v,)),
    Pair(
        "GELU with erf and with tanh",
        lambda x: jax.nn.gelu(x, approximate=False),
        lambda x: jax.nn.gelu(x, approximate=True),
        (v,),
    ),
    Pair(
        "GELU with another constant",
        grad(jax.nn.gelu),
        grad(lambda x: 0.5 * x * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi) * (x + 0.044714 * x**3)))),
        (v,),
        True,
    ),
    Pair(
        "logistic regression with another sign",
        grad(lambda w, x, y: jnp.logaddexp(0, x @ w) - y * (x @ w)),
        lambda w, x, y: x.T @ (sigmoid(-x @ w) - y),
        (np.ones(3), np.ones((2, 3)), np.ones(2)),
    ),
    Pair(
        "GELU and SiLU",
        lambda x: jax.nn.gelu(x, approximate=False),
        lambda x: x * sigmoid(1.702 * x),
        (v,),
    ),
    Pair("SiLU without its second term", grad(jax.nn.silu), sigmoid, (v,)),
    Pair("softplus and ReLU", jax.nn.softplus, jax.nn.relu, (v,)),
    Pair("sine and its argument", jnp.sin, lambda x: x, (v,)),
    Pair("a wrong derivative of cosine", grad(jnp.cos), jnp.sin, (v,)),
    Pair("erf and tanh", lambda x: jax.scipy.special.erf(x), jnp.tanh, (v,)),
    Pair("floor and the identity", jnp.floor, lambda x: x, (v,)),
    Pair("a cast to integers", lambda x: x.astype(int) * 1.0, lambda x: x, (v,)),
    Pair("a remainder", lambda x: jnp.fmod(x, 10.0), lambda x: x, (v,), True),
    Pair("an even function of integers", parity, jnp.ones_like, (v,)),
    Pair(
        "division of integers",
        lambda x, n: x * (n // 2),
        lambda x, n: x * n / 2,
        (v, np.array([1, 2, 3])),
    ),
    Pair(
        "a transpose in a bilinear form",
        grad(lambda x, a: x @ a @ x),
        lambda x, a: 2 * a @ x,
        (v, a3),
    ),
    Pair("a transpose of a trace", grad(lambda a: jnp.trace(a @ a)), lambda a: 2 * a, (a3,)),
    Pair(
        "a transposed log-determinant",
        grad(lambda a: jnp.linalg.slogdet(a)[1]),
        jnp.linalg.inv,
        (a3,),
    ),
    Pair(
        "a transposed solve",
        grad(jnp.linalg.solve, 1),
        lambda a, b: jnp.linalg.solve(a, jnp.ones(3)),
        (a3, v),
    ),
    Pair("m for n", jax.grad(mean_squares), lambda w, x, y: x.T @ (x @ w - y) * 2 / 4, (w, x, y)),
    Pair(
        "softmax gradient of a mask that sums to one",
        grad(lambda x, t: -t * jax.nn.log_softmax(x)),
        lambda x, t: jax.nn.softmax(x) - t,
        (x, c),
    ),
    Pair("softmax without normalising", jax.nn.softmax, jnp.exp, (x,)),
    Pair("softmax over the wrong axis", jax.nn.softmax, lambda x: jax.nn.softmax(x, 0), (a3,)),
    Pair(
        "softmax vjp without the projection",
        lambda x, c: jax.vjp(jax.nn.softmax, x)[1](c)[0],
        lambda x, c: jax.nn.softmax(x) * (c - jnp.sum(c, -1, keepdims=True)),
        (x, c),
    ),
    Pair("LayerNorm with another epsilon", layer_norm, lambda x: layer_norm(x, 1e-6), (x,), True),
    Pair(
        "LayerNorm vjp without the second projection",
        lambda x, c: grad(lambda x: c * layer_norm(x))(x),
        lambda x, c: (c - c.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5),
        (x, c),
    ),
    Pair("LayerNorm over the wrong axis", layer_norm, lambda x: layer_norm(x.T).T, (a3,)),
    Pair("variance by n and by n − 1", lambda x: jnp.var(x), lambda x: jnp.var(x, ddof=1), (v,)),
    Pair(
        "attention without its scale",
        lambda q, k, v: jax.nn.softmax(q @ k.T / 3**0.5) @ v,
        lambda q, k, v: jax.nn.softmax(q @ k.T) @ v,
        (x, x, x),
    ),
    Pair(
        "a mask formula right only for p = ½",
        jax.grad(expected_autoencoder, (1, 2)),
        half_only,
        (x, w.T, w, s),
    ),
    Pair(
        "a masked autoencoder without the mask's square",
        jax.grad(lambda w1, w2, x, m: jnp.mean(((m * x) @ w1.T @ w2.T - x) ** 2), 1),
        lambda w1, w2, x, m: 2 / x.size * ((x @ w1.T @ w2.T - x).T @ (m * x) @ w1.T),
        (w.T, w, x, c),
    ),
    Pair(
        "an MLP whose gate is forgotten",
        grad(lambda w1, w2, x: (jax.nn.relu(x @ w1) @ w2) ** 2),
        lambda w1, w2, x: x.T @ ((2 * jax.nn.relu(x @ w1) @ w2) @ w2.T),
        (np.ones((3, 5)), np.ones((5, 2)), x),
    ),
    Pair(
        "a Gaussian without its half",
        grad(lambda y, a: -0.5 * y @ jnp.linalg.solve(spd(a), y)),
        lambda y, a: -2 * jnp.linalg.solve(spd(a), y),
        (v, a3),
    ),
    Pair(
        "a Cholesky factor and its transpose",
        lambda a: jnp.linalg.cholesky(spd(a)),
        lambda a: jnp.linalg.cholesky(spd(a)).T,
        (a3,),
    ),
    Pair(
        "a convolution and a correlation",
        lambda x, k: jnp.convolve(x, k, "valid"),
        lambda x, k: jnp.correlate(x, k, "valid"),
        (np.ones(5), np.ones(2)),
    ),
    Pair(
        "an LU factor without pivoting",
        lambda a: jax.scipy.linalg.lu(a)[2],
        lambda a: a.at[1:].add(-a[1:, :1] * a[:1] / a[0, 0]),
        (np.ones((2, 2)),),
    ),
    Pair(
        "a scan and its reverse",
        lambda x: jax.lax.scan(lambda h, r: (2 * h + r,) * 2, jnp.zeros(3), x)[0],
        lambda x: jax.lax.scan(lambda h, r: (2 * h + r,) * 2, jnp.zeros(3), x, reverse=True)[0],
        (x,),
    ),
    Pair("NaN and NaN", lambda x: x * jnp.nan, lambda x: x * jnp.nan, (v,), True),
    Pair(
        "zero divided by zero", lambda x: (x - x) / (x - x), lambda x: (x - x) / (x - x), (v,), True
    ),
    Pair("infinity and infinity", lambda x: x + jnp.inf, lambda x: x + jnp.inf, (v,), True),
    Pair(
        "a logarithm that is never defined",
        lambda x: jnp.log(-(x**2) - 1),
        lambda x: jnp.log(-(x**2) - 1),
        (v,),
        True,
    ),
    Pair(
        "a product with a hidden sign",
        lambda x, y: jnp.abs(x * y),
        lambda x, y: x * jnp.abs(y),
        (v, u),
    ),
    Pair("fifty-three times a number", lambda x: jnp.sign(53 * x), lambda x: -jnp.sign(x), (v,)),
    Pair("a stray element", lambda x: x**2, lambda x: (x**2).at[3, 2].set(0.0), (x,)),
    Pair("two entries swapped", lambda x: x, lambda x: x[jnp.array([1, 0, 2])], (v,)),
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("pair", UNEQUAL, ids=lambda pair: pair.name)
def test_unequal_functions_are_never_certified(pair, seed):
    certificate = certify(pair.f, pair.g, *pair.args, seed=seed)
    assert certificate.verdict != Verdict.CONFIRMED
    if pair.undecided:
        assert certificate.reason
    else:
        assert certificate.verdict == Verdict.REFUTED, certificate.reason
        assert certificate.mismatches


def test_the_list_is_long_and_most_of_it_is_refuted():
    assert len({pair.name for pair in UNEQUAL}) == len(UNEQUAL)
    assert sum(not pair.undecided for pair in UNEQUAL) >= 60


@pytest.mark.parametrize(
    "factor",
    [Fraction(2), Fraction(-1), Fraction(1, 60), Fraction(7, 3), Fraction(1_000_000_001, 10**9)],
)
def test_a_refuted_factor_is_rebuilt_as_a_fraction(factor):
    certificate = certify(jax.grad(lambda w: jnp.sum(w**3)), lambda w: float(factor) * 3 * w**2, w)
    assert certificate.verdict == Verdict.REFUTED
    assert certificate.ratio == factor


def test_the_ratio_is_absent_where_entries_differ_by_different_factors():
    certificate = certify(lambda x: x, lambda x: x * jnp.array([2.0, 3.0, 2.0]), v)
    assert certificate.verdict == Verdict.REFUTED
    assert certificate.ratio is None


@pytest.mark.parametrize(
    ("f", "g", "ratio"),
    [
        (jax.grad(lambda x: jnp.sum(math.e * x**2)), lambda x: 2 * 2.71828 * x, None),
        (jax.grad(lambda x: jnp.sum(jnp.log10(x))), lambda x: 0.4343 / x, None),
        (jax.grad(lambda x: jnp.sum(jnp.exp(x))), lambda x: jnp.exp(x) / math.e, None),
        (jax.grad(lambda x: jnp.sum(math.e * x**2)), lambda x: math.e * x, Fraction(1, 2)),
        (
            jax.grad(lambda x: jnp.sum(math.log(10) * jnp.log(x))),
            lambda x: -7 * (math.log(10) / x) / 3,
            Fraction(-7, 3),
        ),
    ],
)
def test_an_irrational_ratio_is_not_told_as_a_fraction_and_one_beside_irrational_constants_is(
    f, g, ratio
):
    assert certify(f, g, v).ratio == ratio


def test_a_mismatch_names_the_output_and_the_entry():
    certificate = certify(
        lambda x: {"a": x, "b": x}, lambda x: {"a": x, "b": x.at[1, 2].mul(2.0)}, x
    )
    (mismatch,) = certificate.mismatches
    assert (mismatch.output, mismatch.entries, mismatch.size, mismatch.index) == (
        "['b']",
        1,
        12,
        (1, 2),
    )
    assert mismatch.values[1] == 2 * mismatch.values[0]


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_scale_of_the_functions_changes_no_verdict(scale):
    for f, g in ((lambda x: x**2, lambda x: x * x), (lambda x: x**2, lambda x: x * jnp.abs(x))):
        plain = certify(f, g, v)
        scaled = certify(lambda x, f=f: scale * f(x), lambda x, g=g: scale * g(x), v)
        assert plain.verdict == scaled.verdict
