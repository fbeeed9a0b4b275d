"""Pairs of functions that are equal: how many are certified, and why the others are not."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import erf

from jaxgrad import Verdict, certify
from tests.formulas import (
    attention,
    attention_vjp,
    expected_autoencoder,
    expected_autoencoder_gradient,
    grad,
    layer_norm,
    layer_norm_vjp,
    mlp,
    mlp_gradient,
)

v, u = np.ones(3), np.ones(3)
x, y, c = np.ones((4, 3)), np.ones((4, 2)), np.ones((4, 3))
w, b = np.ones((3, 2)), np.ones(2)
a3, a2 = np.ones((3, 3)), np.ones((2, 2))
s = np.ones(())
labels = np.array([0, 2, 1, 2])
onehot = np.eye(3)[labels]
keep = np.array([[True, True, False], [True, False, True], [False, True, True], [True, True, True]])


class Pair(NamedTuple):
    name: str
    f: Callable[..., Any]
    g: Callable[..., Any]
    args: tuple[Any, ...]
    undecided: str = ""  # a part of the reason, where the pair is equal but cannot be certified


def cross_entropy(x, t):
    return -jnp.sum(t * jax.nn.log_softmax(x), -1)


def rms_norm(x):
    return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def rms_norm_vjp(x, c):
    r = 1 / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    return r * c - x * r**3 * (x * c).mean(-1, keepdims=True)


def masked_scores(x):
    return jnp.where(keep, x, -jnp.inf)


def masked_autoencoder(x, w1, w2, m):
    return jnp.mean(((m * x) @ w1.T @ w2.T - x) ** 2)


def spd(a):
    return a @ a.T + jnp.eye(len(a))


def gaussian(y, a):
    factor = jnp.linalg.cholesky(spd(a))
    z = solve_triangular(factor, y, lower=True)
    return -0.5 * z @ z - jnp.sum(jnp.log(jnp.diag(factor))) - len(y) / 2 * np.log(2 * np.pi)


def gaussian_gradient_a(y, a):
    inverse = jnp.linalg.inv(spd(a))
    z = inverse @ y
    return (jnp.outer(z, z) - inverse) @ a


def convolve(x, k):
    return jax.lax.conv_general_dilated(x[None, None], k[None, None], (1, 1), "VALID")[0, 0]


def shifts(x, k):
    return sum(k[i, j] * x[i : i + 4, j : j + 3] for i in range(2) for j in range(2))


def rnn(w, x):
    return jax.lax.scan(lambda h, row: (w * h + row,) * 2, jnp.zeros(3), x)[0]


def welford(x):
    def step(carry, value):
        n, mean, spread = carry
        n, delta = n + 1, value - mean
        mean = mean + delta / n
        return (n, mean, spread + delta * (value - mean)), None

    return jax.lax.scan(step, (0.0, jnp.zeros(3), jnp.zeros(3)), x)[0][2] / len(x)


def gelu_gradient(x):
    return 0.5 * (1 + erf(x / np.sqrt(2))) + x * jnp.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


def tanh_gelu_gradient(x):
    t = jnp.tanh(jnp.sqrt(2 / jnp.pi) * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * jnp.sqrt(2 / jnp.pi) * (1 + 3 * 0.044715 * x**2)


sigmoid = jax.nn.sigmoid

EQUAL = [
    Pair("half square", grad(lambda w: w**2 / 2), lambda w: w, (w,)),
    Pair("decimal constants", lambda x: 0.1 * x + 0.2 * x, lambda x: 0.3 * x, (v,)),
    Pair("decimal constant squared", lambda x: 0.6**2 * x, lambda x: 9 * x / 25, (v,)),
    Pair("division chain", lambda x: x * (2 / 50 / 10), lambda x: x / 250, (v,)),
    Pair("cancelled factor", lambda x, y: x * y / y, lambda x, y: x, (v, u)),
    Pair("binomial", lambda x, y: (x + y) ** 2, lambda x, y: x**2 + 2 * x * y + y**2, (v, u)),
    Pair("partial fractions", lambda x: 1 / (x * (x + 1)), lambda x: 1 / x - 1 / (x + 1), (v,)),
    Pair("negative power", lambda x: x**-2, lambda x: 1 / (x * x), (v,)),
    Pair("bilinear form", grad(lambda x, a: x @ a @ x), lambda x, a: (a + a.T) @ x, (v, a3)),
    Pair(
        "bilinear form in the matrix",
        grad(lambda a, x: x @ a @ x),
        lambda a, x: jnp.outer(x, x),
        (a3, v),
    ),
    Pair("Frobenius norm", grad(lambda a: jnp.trace(a.T @ a)), lambda a: 2 * a, (a3,)),
    Pair("trace of a power", grad(lambda a: jnp.trace(a @ a @ a)), lambda a: 3 * (a @ a).T, (a3,)),
    Pair(
        "least squares",
        grad(lambda w, x, y: jnp.mean((x @ w - y) ** 2)),
        lambda w, x, y: x.T @ (x @ w - y) / 4,
        (w, x, y),
    ),
    Pair(
        "Hessian of least squares",
        jax.hessian(lambda v, x: jnp.sum((x @ v) ** 2) / 2),
        lambda v, x: x.T @ x,
        (v, x),
    ),
    Pair(
        "jvp",
        lambda x, t: jax.jvp(lambda x: x**3, (x,), (t,))[1],
        lambda x, t: 3 * x**2 * t,
        (v, u),
    ),
    Pair("vmap of grad", jax.vmap(jax.grad(lambda r: r @ r)), lambda x: 2 * x, (x,)),
    Pair("jit of grad", jax.jit(grad(lambda x: x**4)), lambda x: 4 * x**3, (v,)),
    Pair("product", grad(jnp.prod), lambda x: jnp.prod(x) / x, (v,)),
    Pair(
        "cumulative sum",
        grad(lambda x, c: c * jnp.cumsum(x)),
        lambda x, c: jnp.cumsum(c[::-1])[::-1],
        (v, u),
    ),
    Pair("norm", grad(jnp.linalg.norm), lambda x: x / jnp.sqrt(jnp.sum(x**2)), (v,)),
    Pair("root of a square", lambda x: jnp.sqrt(x**2), jnp.abs, (v,)),
    Pair(
        "roots multiply",
        lambda x, y: jnp.sqrt(x) * jnp.sqrt(y),
        lambda x, y: jnp.sqrt(x) * y / jnp.sqrt(y),
        (v, u),
    ),
    Pair("fractional power", grad(lambda x: x**2.5), lambda x: 2.5 * x**1.5, (v,)),
    Pair("variable power", grad(lambda y, x: x**y), lambda y, x: jnp.log(x) * x**y, (v, u)),
    Pair(
        "cosine similarity",
        grad(lambda x, y: x @ y / jnp.sqrt(x @ x) / jnp.sqrt(y @ y)),
        lambda x, y: (y - (x @ y) / (x @ x) * x) / jnp.sqrt(x @ x) / jnp.sqrt(y @ y),
        (v, u),
    ),
    Pair(
        "exponential of a sum",
        lambda x, y: jnp.exp(x + y),
        lambda x, y: jnp.exp(x) * jnp.exp(y),
        (v, u),
    ),
    Pair("expm1", jnp.expm1, lambda x: jnp.exp(x) - 1, (v,)),
    Pair("tanh", grad(jnp.tanh), lambda x: 1 - jnp.tanh(x) ** 2, (v,)),
    Pair("tanh as a sigmoid", jnp.tanh, lambda x: 2 * sigmoid(2 * x) - 1, (v,)),
    Pair("sigmoid", grad(sigmoid), lambda x: sigmoid(x) * sigmoid(-x), (v,)),
    Pair("SiLU", grad(jax.nn.silu), lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))), (v,)),
    Pair("sinh and cosh", lambda x: jnp.cosh(x) ** 2 - jnp.sinh(x) ** 2, jnp.ones_like, (v,)),
    Pair("sine", grad(jnp.sin), jnp.cos, (v,)),
    Pair(
        "sine of a double angle",
        lambda x: jnp.sin(2 * x),
        lambda x: 2 * jnp.sin(x) * jnp.cos(x),
        (v,),
    ),
    Pair("circle", lambda x: jnp.sin(x) ** 2, lambda x: 1 - jnp.cos(x) ** 2, (v,)),
    Pair(
        "error function",
        grad(lambda x: erf(x)),
        lambda x: 2 / np.sqrt(np.pi) * jnp.exp(-(x**2)),
        (v,),
    ),
    Pair("GELU", grad(lambda x: jax.nn.gelu(x, approximate=False)), gelu_gradient, (v,)),
    Pair("softplus", grad(jax.nn.softplus), sigmoid, (v,)),
    Pair("log sigmoid", grad(jax.nn.log_sigmoid), lambda x: sigmoid(-x), (v,)),
    Pair(
        "logistic loss from logits",
        grad(lambda x, t: jnp.logaddexp(x, 0) - t * x),
        lambda x, t: sigmoid(x) - t,
        (v, u),
    ),
    Pair(
        "logistic loss from probabilities",
        grad(lambda x, t: -t * jnp.log(sigmoid(x)) - (1 - t) * jnp.log(1 - sigmoid(x))),
        lambda x, t: sigmoid(x) - t,
        (v, u),
    ),
    Pair("logit", lambda x: jnp.log(sigmoid(x) / (1 - sigmoid(x))), lambda x: x, (v,)),
    Pair(
        "softmax cross-entropy",
        grad(cross_entropy),
        lambda x, t: jax.nn.softmax(x) * t.sum(-1, keepdims=True) - t,
        (x, c),
    ),
    Pair(
        "softmax cross-entropy of labels",
        grad(lambda x, i: -jnp.take_along_axis(jax.nn.log_softmax(x), i[:, None], 1)),
        lambda x, i: jax.nn.softmax(x) - onehot,
        (x, labels),
    ),
    Pair("log-sum-exp", grad(lambda x: jax.nn.logsumexp(x, -1)), jax.nn.softmax, (x,)),
    Pair(
        "log-sum-exp without the shift",
        lambda x: jax.nn.logsumexp(x),
        lambda x: jnp.log(jnp.sum(jnp.exp(x))),
        (v,),
    ),
    Pair(
        "softmax without the shift",
        jax.nn.softmax,
        lambda x: jnp.exp(x) / jnp.sum(jnp.exp(x), -1, keepdims=True),
        (x,),
    ),
    Pair(
        "softmax vjp",
        lambda x, c: jax.vjp(jax.nn.softmax, x)[1](c)[0],
        lambda x, c: jax.nn.softmax(x) * (c - jnp.sum(c * jax.nn.softmax(x), -1, keepdims=True)),
        (x, c),
    ),
    Pair("exp of log-softmax", lambda x: jnp.exp(jax.nn.log_softmax(x)), jax.nn.softmax, (v,)),
    Pair("entropy", grad(lambda x: -jnp.sum(x * jnp.log(x))), lambda x: -jnp.log(x) - 1, (v,)),
    Pair(
        "focal loss",
        grad(lambda x: -((1 - sigmoid(x)) ** 2) * jnp.log(sigmoid(x))),
        lambda x: (1 - sigmoid(x)) ** 2 * (2 * sigmoid(x) * jnp.log(sigmoid(x)) - (1 - sigmoid(x))),
        (v,),
    ),
    Pair("LayerNorm", lambda x, c: grad(lambda x: c * layer_norm(x))(x), layer_norm_vjp, (x, c)),
    Pair("RMSNorm", lambda x, c: grad(lambda x: c * rms_norm(x))(x), rms_norm_vjp, (x, c)),
    Pair(
        "BatchNorm",
        lambda x, c: grad(lambda x: c.T * layer_norm(x.T))(x),
        lambda x, c: layer_norm_vjp(x, c, 0),
        (x, c),
    ),
    Pair(
        "standard deviation",
        grad(lambda x: jnp.std(x)),
        lambda x: (x - x.mean()) / 3 / jnp.std(x),
        (v,),
    ),
    Pair(
        "attention",
        lambda q, k, v, c: jax.vjp(attention, q, k, v)[1](c),
        attention_vjp,
        (x, x, x, c),
    ),
    Pair(
        "masked softmax",
        lambda x: jax.nn.softmax(masked_scores(x)),
        lambda x: keep * jnp.exp(x) / jnp.sum(keep * jnp.exp(x), -1, keepdims=True),
        (x,),
    ),
    Pair("ReLU", grad(jax.nn.relu), lambda x: jnp.where(x > 0, 1.0, 0.0), (v,)),
    Pair("ReLU as half of |x| + x", jax.nn.relu, lambda x: (jnp.abs(x) + x) / 2, (v,)),
    Pair("leaky ReLU", grad(jax.nn.leaky_relu), lambda x: jnp.where(x >= 0, 1.0, 0.01), (v,)),
    Pair("absolute value", grad(jnp.abs), jnp.sign, (v,)),
    Pair("sign times value", lambda x: x * jnp.sign(x), jnp.abs, (v,)),
    Pair("maximum", grad(lambda x, y: jnp.maximum(x, y)), lambda x, y: (x > y) * 1.0, (v, u)),
    Pair("maximum of negatives", lambda x, y: -jnp.maximum(-x, -y), jnp.minimum, (v, u)),
    Pair(
        "clip",
        grad(lambda x: jnp.clip(x, -1, 1)),
        lambda x: jnp.where((x > -1) & (x < 1), 1.0, 0.0),
        (v,),
    ),
    Pair(
        "hinge", grad(lambda x: jnp.maximum(0, 1 - x)), lambda x: jnp.where(x < 1, -1.0, 0.0), (v,)
    ),
    Pair(
        "Huber",
        grad(lambda x: jnp.where(jnp.abs(x) < 1, x**2 / 2, jnp.abs(x) - 0.5)),
        lambda x: jnp.where(jnp.abs(x) < 1, x, jnp.sign(x)),
        (v,),
    ),
    Pair(
        "Huber, clipped",
        grad(lambda x: jnp.where(jnp.abs(x) < 1.345, x**2 / 2, 1.345 * jnp.abs(x) - 1.345**2 / 2)),
        lambda x: jnp.clip(x, -1.345, 1.345),
        (v,),
    ),
    Pair(
        "Huber's regression",
        grad(
            lambda w, x, y: jnp.where(
                jnp.abs(x @ w - y) <= 1, (x @ w - y) ** 2 / 2, jnp.abs(x @ w - y) - 0.5
            )
        ),
        lambda w, x, y: x.T @ jnp.clip(x @ w - y, -1, 1),
        (np.ones(3), np.ones((2, 3)), np.ones(2)),
    ),
    Pair("hard tanh", grad(jax.nn.hard_tanh), lambda x: jnp.where(jnp.abs(x) < 1, 1.0, 0.0), (v,)),
    Pair(
        "ReLU6",
        grad(lambda x: jnp.minimum(jax.nn.relu(x), 6)),
        lambda x: jnp.where(jnp.abs(x - 3) < 3, 1.0, 0.0),
        (v,),
    ),
    Pair(
        "dead zone",
        lambda x: jax.nn.relu(x - 0.5) - jax.nn.relu(-x - 0.5),
        lambda x: x - jnp.clip(x, -0.5, 0.5),
        (v,),
    ),
    Pair(
        "a piecewise function of a number",
        lambda x: jnp.clip(x, -1, 1),
        lambda x: jnp.where(jnp.abs(x) > 1, jnp.sign(x), x),
        (1.5,),
    ),
    Pair("scaled comparison", lambda x: jnp.where(2 * x > 0, x, 0), jax.nn.relu, (v,)),
    Pair("largest entry", grad(jnp.max), lambda x: (x == jnp.max(x)) * 1.0, (v,)),
    Pair(
        "two-layer MLP",
        jax.grad(mlp, (0, 1)),
        mlp_gradient,
        (np.ones((3, 5)), np.ones((5, 2)), x, y),
    ),
    Pair(
        "masked autoencoder",
        jax.grad(masked_autoencoder, 1),
        lambda x, w1, w2, m: 2 / x.size * w2.T @ ((m * x) @ w1.T @ w2.T - x).T @ (m * x),
        (x, w.T, w, c),
    ),
    Pair(
        "expected masked autoencoder",
        jax.grad(expected_autoencoder, (1, 2)),
        expected_autoencoder_gradient,
        (x, w.T, w, s),
    ),
    Pair(
        "ridge",
        lambda x, y: (
            grad(lambda w: (x @ w - y) ** 2 / 2 + 0.05 * jnp.sum(w**2) / 4)(
                jnp.linalg.solve(x.T @ x + 0.1 / 4 * 4 * jnp.eye(3), x.T @ y)
            )
            * 0
        ),
        lambda x, y: jnp.zeros(3),
        (x, np.ones(4)),
    ),
    Pair(
        "normal equations",
        lambda x, y: x.T @ (x @ jnp.linalg.solve(x.T @ x, x.T @ y) - y),
        lambda x, y: jnp.zeros(3),
        (x, np.ones(4)),
    ),
    Pair("linear solve", lambda a, b: a @ jnp.linalg.solve(a, b), lambda a, b: b, (a3, v)),
    Pair(
        "gradient of a linear solve",
        grad(jnp.linalg.solve),
        lambda a, b: -jnp.outer(jnp.linalg.solve(a.T, jnp.ones(3)), jnp.linalg.solve(a, b)),
        (a3, v),
    ),
    Pair("inverse", lambda a, b: jnp.linalg.inv(a) @ b, jnp.linalg.solve, (a3, v)),
    Pair(
        "gradient of an inverse",
        grad(jnp.linalg.inv),
        lambda a: -jnp.linalg.inv(a).T @ jnp.ones((3, 3)) @ jnp.linalg.inv(a).T,
        (a3,),
    ),
    Pair(
        "log-determinant",
        grad(lambda a: jnp.linalg.slogdet(a)[1]),
        lambda a: jnp.linalg.inv(a).T,
        (a3,),
    ),
    Pair(
        "determinant",
        grad(jnp.linalg.det),
        lambda a: jnp.linalg.det(a) * jnp.linalg.inv(a).T,
        (a3,),
    ),
    Pair(
        "log-determinant of two by two",
        lambda a: jnp.linalg.slogdet(a)[1],
        lambda a: jnp.log(jnp.abs(a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0])),
        (a2,),
    ),
    Pair("Cholesky", lambda a: (lambda f: f @ f.T)(jnp.linalg.cholesky(spd(a))), spd, (a3,)),
    Pair(
        "Gaussian log-density in the data",
        grad(gaussian),
        lambda y, a: -jnp.linalg.solve(spd(a), y),
        (v, a3),
    ),
    Pair("Gaussian log-density in the covariance", grad(gaussian, 1), gaussian_gradient_a, (v, a3)),
    Pair(
        "Mahalanobis distance",
        grad(lambda x, a: x @ jnp.linalg.solve(spd(a), x)),
        lambda x, a: 2 * jnp.linalg.solve(spd(a), x),
        (v, a3),
    ),
    Pair(
        "Sherman-Morrison",
        lambda x, y: jnp.linalg.inv(jnp.eye(3) + jnp.outer(x, y)),
        lambda x, y: jnp.eye(3) - jnp.outer(x, y) / (1 + x @ y),
        (v, u),
    ),
    Pair("convolution", convolve, shifts, (np.ones((5, 4)), a2)),
    Pair(
        "gradient of a convolution",
        grad(convolve, 1),
        lambda x, k: jnp.array(
            [[x[i : i + 4, j : j + 3].sum() for j in range(2)] for i in range(2)]
        ),
        (np.ones((5, 4)), a2),
    ),
    Pair("recurrence", rnn, lambda w, x: x[3] + w * (x[2] + w * (x[1] + w * x[0])), (v, x)),
    Pair("Welford's variance", welford, lambda x: jnp.var(x, 0), (x,)),
    Pair("GELU with tanh", grad(jax.nn.gelu), tanh_gelu_gradient, (v,)),
    Pair(
        "logistic regression",
        grad(lambda w, x, y: jnp.logaddexp(0, x @ w) - y * (x @ w)),
        lambda w, x, y: x.T @ (sigmoid(x @ w) - y),
        (np.ones(3), np.ones((2, 3)), np.ones(2)),
    ),
    Pair(
        "checkpoint",
        grad(jax.checkpoint(lambda x: jnp.tanh(x) ** 2)),
        lambda x: 2 * jnp.tanh(x) * (1 - jnp.tanh(x) ** 2),
        (v,),
    ),
    Pair(
        "gather",
        grad(lambda x: x[jnp.array([0, 2, 2])] ** 2),
        lambda x: 2 * x * jnp.array([1.0, 0, 2]),
        (v,),
    ),
    Pair(
        "average pooling",
        grad(lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (2,), (2,), "VALID") ** 2),
        lambda x: 2 * jnp.repeat(x.reshape(2, 2).sum(1), 2),
        (np.ones(4),),
    ),
    Pair(
        "quadratic of a KL divergence",
        grad(lambda m, t: (jnp.exp(2 * t) + m**2) / 2 - t, (0, 1)),
        lambda m, t: (m, jnp.exp(t) ** 2 - 1),
        (v, u),
    ),
    Pair(
        "contrastive loss",
        grad(lambda x: jax.nn.logsumexp(x @ x.T, -1) - jnp.sum(x * x, -1)),
        lambda x: (lambda p: (p + p.T) @ x - 2 * x)(jax.nn.softmax(x @ x.T)),
        (x,),
    ),
    Pair("sine, shifted", lambda x: jnp.sin(x + jnp.pi / 2), jnp.cos, (v,), "uninterpreted"),
    Pair(
        "lgamma",
        lambda x: jax.lax.lgamma(x + 1),
        lambda x: jax.lax.lgamma(x) + jnp.log(x),
        (v,),
        "uninterpreted",
    ),
    Pair(
        "largest of three in another order",
        lambda x: jnp.maximum(jnp.maximum(x[0], x[1]), x[2]),
        lambda x: jnp.maximum(x[0], jnp.maximum(x[1], x[2])),
        (v,),
        "comparisons",
    ),
    Pair(
        "eigenvalues",
        lambda a: jnp.sum(jnp.linalg.eigvalsh(a + a.T)),
        lambda a: 2 * jnp.trace(a),
        (a3,),
        "eigh",
    ),
    Pair("sorted", lambda x: jnp.sum(jnp.sort(x)), jnp.sum, (v,), "sort"),
    Pair("rounding", lambda x: jnp.floor(x + 1), lambda x: jnp.floor(x) + 1, (v,), "floor"),
]


DATA = np.random.default_rng(0).standard_normal((5, 3))


@pytest.mark.parametrize("factor", [2.0, -1.0, -0.125, 1024.0])
def test_data_that_a_function_closes_over_stay_in_proportion_to_what_numpy_makes_of_them(factor):
    f = jax.grad(lambda v: jnp.sum((DATA @ v) ** 2) / 2)
    scaled = factor * DATA  # before anything is traced
    assert certify(f, lambda v: scaled.T @ (scaled @ v) / factor**2, v).verdict == Verdict.CONFIRMED
    assert certify(f, lambda v: scaled.T @ (scaled @ v) / factor, v).verdict == Verdict.REFUTED
    other = DATA.copy()
    other[2, 1] *= 1 + 1e-3
    assert certify(f, lambda v: DATA.T @ (other @ v), v).verdict == Verdict.REFUTED


@pytest.mark.parametrize("pair", EQUAL, ids=lambda pair: pair.name)
def test_equal_functions_are_certified_or_say_why_not(pair):
    certificate = certify(pair.f, pair.g, *pair.args)
    if pair.undecided:
        assert certificate.verdict == Verdict.UNDECIDED
        assert pair.undecided in certificate.reason
    else:
        assert certificate.verdict == Verdict.CONFIRMED, certificate.reason
        assert 0 < certificate.error_probability <= 2**-100
        assert not certificate.mismatches


def test_most_equal_pairs_are_certified():
    assert len({pair.name for pair in EQUAL}) == len(EQUAL)
    assert sum(not pair.undecided for pair in EQUAL) >= 60
    assert sum(bool(pair.undecided) for pair in EQUAL) < 10
