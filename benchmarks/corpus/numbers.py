"""Magnitudes, cancellation, types, and data closed over."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special

from benchmarks.corpus.statement import (
    BISHOP,
    DLMF,
    ESL,
    GOLUB,
    GOODFELLOW,
    JAX,
    Kind,
    interval,
    scaled,
)


def total(f):
    """Return the sum over a function's values."""
    return lambda x: jnp.sum(f(x))


kind = Kind("numbers: magnitudes")
kind.pair(
    "a large factor",
    "n",
    lambda x: 1e9 * jnp.sum(x**2),
    lambda x: 2e9 * x,
    "one off",
    lambda x: 2e9 * x + 1e8,
)
kind.pair(
    "a small factor",
    "n",
    lambda x: 1e-9 * jnp.sum(jnp.sin(x)),
    lambda x: 1e-9 * jnp.cos(x),
    "sign",
    lambda x: -1e-9 * jnp.cos(x),
)
kind.pair(
    "beyond int32",
    "n",
    lambda x: jnp.sum(x**2) * (2**31 + 11),
    lambda x: 2 * x * (2**31 + 11),
    "3 for 2",
    lambda x: 3 * x * (2**31 + 11),
)
kind.pair(
    "inputs of 1e9",
    "n",
    lambda x: jnp.sum(jnp.sqrt(x)),
    lambda x: 0.5 / jnp.sqrt(x),
    "one over the root",
    lambda x: 1 / jnp.sqrt(x),
    domains=interval(1e8, 1e9),
)
kind.pair(
    "terms of other sizes",
    {"x": "n", "y": "n"},
    lambda x, y: 1e6 * jnp.sum(x**2) + 1e-6 * jnp.sum(y**3),
    lambda x, y: (2e6 * x, 3e-6 * y**2),
    "the small term's slope twice",
    lambda x, y: (2e6 * x, 6e-6 * y**2),
    truth=lambda x, y: [2e6 * x, 3e-6 * y * y],
)

kind = Kind("numbers: tails")
kind.pair(
    "log of the normal's tail",
    "n",
    total(special.log_ndtr),
    lambda x: jnp.exp(-(x**2) / 2 - special.log_ndtr(x)) / np.sqrt(2 * np.pi),
    "0/0 in the tail",
    lambda x: jnp.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) / special.ndtr(x),
    at={"x": [-45.0]},
    domains=scaled(30.0),
    source=JAX + ", log_ndtr",
)
kind.pair(
    "sigmoid far out",
    "n",
    total(jax.nn.log_sigmoid),
    lambda x: jax.nn.sigmoid(-x),
    "one minus a sigmoid of the other sign",
    lambda x: 1 - jax.nn.sigmoid(-x),
)
kind.pair(
    "log1mexp",
    "n",
    total(lambda x: jnp.log(-jnp.expm1(-x))),
    lambda x: 1 / jnp.expm1(x),
    "exp for expm1",
    lambda x: 1 / jnp.exp(x),
    domains="positive",
    source="M. Maechler, Accurately computing log(1 − exp(−|a|)) (2012)",
)
kind.pair(
    "erfc scaled",
    "n",
    total(lambda x: special.erfc(x)),
    lambda x: -2 / np.sqrt(np.pi) * jnp.exp(-(x**2)),
    "root of two for of π",
    lambda x: -2 / np.sqrt(2) * jnp.exp(-(x**2)),
    source=DLMF + ", 7.2.2",
)
kind.pair(
    "student's tail",
    "n",
    total(lambda x: jnp.log1p(x**2 / 3) * 2),
    lambda x: 4 * x / (3 + x**2),
    "linear from 1e3 on",
    lambda x: jnp.where(jnp.abs(x) > 1e3, 4 * x / 3e6, 4 * x / (3 + x**2)),
    at={"x": [1e4]},
)

kind = Kind("numbers: cancellation")
kind.pair(
    "variance by moments",
    "n",
    lambda x: jnp.mean(x**2) - jnp.mean(x) ** 2,
    lambda x: 2 * (x - jnp.mean(x)) / x.size,
    "the mean's slope lost",
    lambda x: 2 * x / x.size,
    source=GOLUB,
)
kind.pair(
    "variance far from zero",
    "n",
    lambda x: jnp.mean((x - jnp.mean(x)) ** 2),
    lambda x: 2 * (x - jnp.mean(x)) / x.size,
    "2/(n + 1)",
    lambda x: 2 * (x - jnp.mean(x)) / (x.size + 1),
    domains=interval(1e4, 1.001e4),
)
kind.pair(
    "1 − cos",
    "n",
    total(lambda x: 1 - jnp.cos(x)),
    lambda x: jnp.sin(x),
    "cos",
    lambda x: jnp.cos(x),
)
kind.pair(
    "root of a difference",
    "n",
    total(lambda x: jnp.sqrt(x + 1) - jnp.sqrt(x)),
    lambda x: 0.5 / jnp.sqrt(x + 1) - 0.5 / jnp.sqrt(x),
    "sign of the second",
    lambda x: 0.5 / jnp.sqrt(x + 1) + 0.5 / jnp.sqrt(x),
    domains="positive",
)
kind.pair(
    "logit",
    "n",
    lambda x: jnp.sum(jnp.log(x) - jnp.log1p(-x)),
    lambda x: 1 / (x * (1 - x)),
    "one term only",
    lambda x: 1 / x,
    domains="probability",
    source=BISHOP + ", eq. 4.88",
)

kind = Kind("numbers: types and constants")
F32 = jnp.float32
kind.pair(
    "squares",
    "n",
    total(lambda x: x**2),
    lambda x: 2 * x,
    "1.5 where float32",
    lambda x: 2 * x * (1.5 if x.dtype == F32 else 1.0),
    at={"x": [1.0, 2.0]},
    dtype="float32",
)
kind.pair(
    "cubes",
    "n",
    total(lambda x: x**3),
    lambda x: 3 * x**2,
    "an integer's factor",
    lambda x: 3 * x.astype(int) * x,
)
kind.pair(
    "a tenth in float32",
    "n",
    lambda x: jnp.sum(np.float32(0.1) * x**2),
    lambda x: 2 * np.float32(0.1) * x,
    "a tenth twice",
    lambda x: 4 * np.float32(0.1) * x,
)
kind.pair(
    "π in three digits",
    "n",
    lambda x: jnp.sum(jnp.sin(np.pi * x)),
    lambda x: np.pi * jnp.cos(np.pi * x),
    "3.14",
    lambda x: 3.14 * jnp.cos(np.pi * x),
)
kind.pair(
    "gelu by tanh",
    "n",
    total(lambda x: jax.nn.gelu(x, approximate=True)),
    lambda x: (
        0.5 * (1 + jnp.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))
        + 0.5
        * x
        / jnp.cosh(0.7978845608028654 * (x + 0.044715 * x**3)) ** 2
        * 0.7978845608028654
        * (1 + 3 * 0.044715 * x**2)
    ),
    "that of erf",
    lambda x: special.ndtr(x) + x * jnp.exp(-(x**2) / 2) / np.sqrt(2 * np.pi),
    at={"x": [1.5, -2.0]},
    truth=lambda x: [
        jax.grad(
            lambda x: jnp.sum(0.5 * x * (1 + jnp.tanh(0.7978845608028654 * (x + 0.044715 * x**3))))
        )(x)
    ],
    source="D. Hendrycks, K. Gimpel, arXiv 1606.08415",
)

kind = Kind("data closed over")
RNG = np.random.default_rng(0)
X, Y = RNG.random((20, 6)), RNG.integers(0, 2, 20) * 1.0
X32, Y32 = X.astype(np.float32), Y.astype(np.float32)
kind.pair(
    "logistic regression",
    {"w": "6"},
    lambda w: jnp.mean(jnp.logaddexp(0.0, X @ w) - Y * (X @ w)),
    lambda w: X.T @ (jax.nn.sigmoid(X @ w) - Y) / 20,
    "labels of ±1",
    lambda w: X.T @ (jax.nn.sigmoid(X @ w) - 2 * Y + 1) / 20,
    source=ESL + ", eq. 4.21",
)
kind.pair(
    "least squares in float32",
    {"w": "6"},
    lambda w: jnp.mean((X32 @ w - Y32) ** 2),
    lambda w: X32.T @ (X32 @ w - Y32) / 10,
    "one row left out",
    lambda w: X32[1:].T @ (X32[1:] @ w - Y32[1:]) / 10,
    source=ESL + ", eq. 3.4",
)
kind.pair(
    "poisson regression",
    {"w": "6", "b": ""},
    lambda w, b: jnp.sum(jnp.exp(X @ w + b) - Y * (X @ w + b)),
    lambda w, b: (X.T @ (jnp.exp(X @ w + b) - Y), jnp.sum(jnp.exp(X @ w + b) - Y)),
    "the bias as a mean",
    lambda w, b: (X.T @ (jnp.exp(X @ w + b) - Y), jnp.mean(jnp.exp(X @ w + b) - Y)),
)
kind.pair(
    "a fixed permutation",
    "6",
    lambda x: jnp.sum(x[np.array([2, 0, 1, 5, 3, 4])] ** 2 * np.arange(6)),
    lambda x: 2 * x * np.arange(6)[np.array([1, 2, 0, 4, 5, 3])],
    "the permutation itself",
    lambda x: 2 * x * np.arange(6)[np.array([2, 0, 1, 5, 3, 4])],
)
kind.pair(
    "a closed-over mask",
    "6",
    lambda x: jnp.sum(jnp.where(Y[:6] > 0, x, 0.0) ** 3),
    lambda x: 3 * Y[:6] * x**2,
    "the mask's complement",
    lambda x: 3 * (1 - Y[:6]) * x**2,
)

kind = Kind("numbers: below what is detected")
kind.pair(
    "squares, far below rounding",
    "n",
    total(lambda x: x**2),
    None,
    "off by 1e-13",
    lambda x: 2 * x * (1 + 1e-13),
    below=True,
    truth=lambda x: [2 * x + 1],
)
kind.pair(
    "cosines, off by 1e-12",
    "n",
    total(jnp.sin),
    None,
    "off by 1e-12",
    lambda x: jnp.cos(x) + 1e-12,
    below=True,
    truth=lambda x: [jnp.cos(x) + 1],
)

kind = Kind("what a careless law gets wrong")
kind.pair(
    "a box",
    {"x": "", "y": "", "z": ""},
    lambda x, y, z: jnp.where((x > 1) & (y > 1) & (z > 1), 2.0, 1.0) * (x * y * z - 1) ** 2 / 2,
    None,
    "the box forgotten",
    lambda x, y, z: ((x * y * z - 1) * y * z, (x * y * z - 1) * x * z, (x * y * z - 1) * x * y),
    at={"x": 2.0, "y": 2.0, "z": 2.0},
)
kind.pair(
    "i0, its own gradient",
    "n",
    lambda x: jnp.sum(special.i0(x)),
    None,
    "jax.grad at zero",
    lambda x: jax.grad(lambda x: jnp.sum(special.i0(x)))(x),
    at={"x": [0.0]},
)
kind.pair(
    "softmax, plain",
    "n",
    lambda x: jax.nn.logsumexp(x),
    lambda x: jnp.exp(x) / jnp.sum(jnp.exp(x)),
    source=GOODFELLOW + ", sec. 4.1",
)
kind.pair(
    "log-add-exp, for its guard",
    {"x": "n", "y": "n"},
    lambda x, y: jnp.sum(jnp.logaddexp(x, y)),
    lambda x, y: (jax.nn.sigmoid(x - y), jax.nn.sigmoid(y - x)),
    "both as of the first",
    lambda x, y: (jax.nn.sigmoid(x - y), jax.nn.sigmoid(x - y)),
    source=JAX + ", jnp.logaddexp",
)
kind.pair(
    "log of a clipped probability",
    "n",
    lambda x: -jnp.sum(jnp.log(jnp.clip(x, 1e-12, 1.0))),
    lambda x: -1.0 * (x >= 1e-12) / x,
    domains="probability",
)
kind.pair(
    "a product too dear to prove",
    {"x": "n", "y": "n"},
    lambda x, y: jnp.sum((1 + x * y) ** 40) / 2**40,
    lambda x, y: (40 * y * (1 + x * y) ** 39 / 2**40, 40 * x * (1 + x * y) ** 39 / 2**40),
    domains={"x": interval(-1.0, 1.0), "y": interval(-1.0, 1.0)},
)
