"""What is not finite, kinks, and kinks that are none."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.corpus.statement import (
    BOYD,
    DLMF,
    GOODFELLOW,
    JAX,
    TORCH,
    Kind,
    interval,
    scaled,
    zeros,
)


def total(f):
    """Return the sum over a function's values."""
    return lambda x: jnp.sum(f(x))


def norm(x):
    return jnp.sqrt(jnp.sum(x**2))


kind = Kind("not finite: at zero")
kind.pair(
    "squares",
    "n",
    total(lambda x: x**2),
    lambda x: 2 * x,
    "0/0 at zero",
    lambda x: 2 * x * x / x,
    at={"x": [0.0]},
)
kind.pair(
    "power 2.5",
    "n",
    total(lambda x: jnp.abs(x) ** 1.5 * x),
    lambda x: 2.5 * jnp.abs(x) ** 1.5,
    "NaN at negative numbers",
    lambda x: 2.5 * x**1.5,
    at={"x": [-1.0]},
)
kind.pair(
    "arctan of a quotient",
    {"x": "n", "y": "n"},
    lambda x, y: jnp.sum(jnp.arctan(x / (1 + y**2))),
    lambda x, y: (1 + y**2) / ((1 + y**2) ** 2 + x**2),
    "divided by x²",
    lambda x, y: 1 / (1 + y**2) / (1 + (x / (1 + y**2)) ** 2) * x / x,
    at={"x": [0.0], "y": [1.0]},
    source=DLMF + ", 4.26",
)
kind.pair(
    "x² log x²",
    "n",
    total(lambda x: jnp.where(x == 0, 0.0, x**2 * jnp.log(jnp.where(x == 0, 1.0, x**2)))),
    lambda x: jnp.where(x == 0, 0.0, 2 * x * (jnp.log(jnp.where(x == 0, 1.0, x**2)) + 1)),
    "log of zero",
    lambda x: 2 * x * (jnp.log(x**2) + 1),
    at={"x": [0.0]},
)
kind.pair(
    "product of all",
    "n",
    lambda x: jnp.prod(x),
    lambda x: jnp.array([jnp.prod(jnp.delete(x, i)) for i in range(x.size)]),
    "the product divided by x",
    lambda x: jnp.prod(x) / x,
    at={"x": [0.0, 2.0]},
    source=JAX + ", jnp.prod",
)

kind = Kind("not finite: overflow")
kind.pair(
    "softmax at a low temperature",
    "n",
    lambda x: jax.nn.logsumexp(300 * x) / 300,
    lambda x: jax.nn.softmax(300 * x),
    "plain exponentials",
    lambda x: jnp.exp(300 * x) / jnp.sum(jnp.exp(300 * x)),
    at={"x": [3.0, 1.0]},
)
kind.pair(
    "logsumexp of a wide domain",
    "n",
    lambda x: jax.nn.logsumexp(x),
    lambda x: jax.nn.softmax(x),
    "plain exponentials",
    lambda x: jnp.exp(x) / jnp.sum(jnp.exp(x)),
    at={"x": [800.0, 1.0]},
    domains=scaled(2000.0),
    source=GOODFELLOW + ", sec. 4.1",
)
kind.pair(
    "softplus of a wide domain",
    "n",
    total(jax.nn.softplus),
    lambda x: jax.nn.sigmoid(x),
    "exp(x)/(1 + exp(x))",
    lambda x: jnp.exp(x) / (1 + jnp.exp(x)),
    at={"x": [1000.0]},
    domains=scaled(2000.0),
    source=JAX + ", jax.nn.softplus",
)
kind.pair(
    "log of cosh",
    "n",
    total(lambda x: jnp.logaddexp(x, -x)),
    lambda x: jnp.tanh(x),
    "sinh/cosh",
    lambda x: jnp.sinh(x) / jnp.cosh(x),
    at={"x": [900.0]},
    domains=scaled(3000.0),
)
kind.pair(
    "norm of large numbers",
    "n",
    lambda x: jnp.max(jnp.abs(x)) * jnp.sqrt(jnp.sum((x / jnp.max(jnp.abs(x))) ** 2)),
    lambda x: (x / jnp.max(jnp.abs(x))) / jnp.sqrt(jnp.sum((x / jnp.max(jnp.abs(x))) ** 2)),
    "squares beyond the range",
    lambda x: x / jnp.sqrt(jnp.sum(x**2)),
    at={"x": [1e200, 2e200]},
    domains=interval(1e199, 1e200),
    truth=lambda x: [x / 1e200 / jnp.sqrt(jnp.sum((x / 1e200) ** 2))],
)

kind = Kind("not finite: logarithms and entropies")
kind.pair(
    "dropped epsilon",
    "n",
    total(lambda x: jnp.sqrt(x**2 + 1e-4)),
    lambda x: x / jnp.sqrt(x**2 + 1e-4),
    "no epsilon",
    lambda x: x / jnp.sqrt(x**2),
    at={"x": [0.0]},
)
kind.pair(
    "binary cross-entropy",
    {"p": "n", "y": "n"},
    lambda p, y: -jnp.sum(y * jnp.log(p) + (1 - y) * jnp.log1p(-p)),
    lambda p, y: (p - y) / (p * (1 - p)),
    "p(1 + p) below",
    lambda p, y: (p - y) / (p * (1 + p)),
    domains={"p": "probability", "y": "binary"},
    source=GOODFELLOW + ", sec. 3.9.1",
)
kind.pair(
    "entropy of clipped weights",
    "n",
    lambda x: -jnp.sum(x * jnp.log(jnp.clip(x, 1e-12, 1.0))),
    lambda x: -jnp.log(jnp.clip(x, 1e-12, 1.0)) - (x > 1e-12),
    "clip without its slope",
    lambda x: -jnp.log(jnp.clip(x, 1e-12, 1.0)),
    domains="probability",
)
kind.pair(
    "log of a sigmoid",
    "n",
    total(jax.nn.log_sigmoid),
    lambda x: jax.nn.sigmoid(-x),
    "0/0 far out",
    lambda x: jax.nn.sigmoid(x) * jax.nn.sigmoid(-x) / jax.nn.sigmoid(x),
    at={"x": [-800.0]},
    domains=scaled(1000.0),
    source=TORCH + ", LogSigmoid",
)
kind.pair(
    "divergence with a guard",
    {"p": "n", "q": "n"},
    lambda p, q: jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0) / q), 0.0)),
    lambda p, q: {"q": -p / q},
    "0 · log 0 in the slope",
    lambda p, q: {"q": -p / q + 0 * jnp.log(p)},
    at={"p": [0.0, 1.0], "q": [0.5, 0.5]},
    domains={"p": "binary", "q": "simplex"},
    source="T. Cover, J. Thomas, Elements of Information Theory (2006), eq. 2.26",
)

kind = Kind("kinks: ties and zeros")
kind.pair(
    "absolute value",
    "n",
    total(jnp.abs),
    lambda x: jnp.sign(x),
    "two at zero",
    lambda x: jnp.where(x == 0, 2.0, jnp.sign(x)),
    at={"x": [0.0]},
    source=BOYD,
)
kind.pair(
    "maximum",
    "n",
    lambda x: jnp.max(x),
    lambda x: (x == jnp.max(x)) / jnp.sum(x == jnp.max(x)),
    "ones at all ties",
    lambda x: (x == jnp.max(x)) * 1.0,
    at={"x": [1.0, 1.0]},
    source=JAX + ", jnp.max",
)
kind.pair(
    "norm",
    "n",
    norm,
    lambda x: x / norm(x),
    "ones at zero",
    lambda x: jnp.where(norm(x) == 0, 1.0, x / jnp.where(norm(x) == 0, 1.0, norm(x))),
    at={"x": [0.0, 0.0, 0.0]},
    source=BOYD + ", subgradients",
)
kind.pair(
    "relu",
    "n",
    total(jax.nn.relu),
    lambda x: (x > 0) * 1.0,
    "minus one at zero",
    lambda x: jnp.where(x == 0, -1.0, x > 0),
    at={"x": [0.0]},
)
kind.pair(
    "leaky relu",
    "n",
    total(lambda x: jax.nn.leaky_relu(x, 0.1)),
    lambda x: jnp.where(x >= 0, 1.0, 0.1),
    "0.1 + 1 at zero",
    lambda x: 1.0 * (x >= 0) + 0.1 * (x <= 0),
    at={"x": [0.0]},
    source=TORCH + ", LeakyReLU",
)

kind = Kind("kinks: removable")
kind.pair(
    "relu(x) − relu(−x)",
    "n",
    total(lambda x: jax.nn.relu(x) - jax.nn.relu(-x)),
    lambda x: jnp.ones_like(x),
    "zero at zero",
    lambda x: jnp.where(x == 0, 0.0, 1.0),
    at={"x": [0.0]},
)
kind.pair(
    "x |x|",
    "n",
    total(lambda x: x * jnp.abs(x)),
    lambda x: 2 * jnp.abs(x),
    "one at zero",
    lambda x: jnp.where(x == 0, 1.0, 2 * jnp.abs(x)),
    at={"x": [0.0]},
)
kind.pair(
    "|x|³",
    "n",
    total(lambda x: jnp.abs(x) ** 3),
    lambda x: 3 * x * jnp.abs(x),
    "a sign lost",
    lambda x: 3 * x**2,
    at={"x": [-1.0]},
)
kind.pair(
    "expm1(x)/x",
    "n",
    total(lambda x: jnp.where(x == 0, 1.0, jnp.expm1(x) / jnp.where(x == 0, 1.0, x))),
    lambda x: jnp.where(
        jnp.abs(x) < 1e-2,
        0.5 + x / 3 + x**2 / 8 + x**3 / 30 + x**4 / 144 + x**5 / 840,
        (jnp.exp(x) * (x - 1) + 1) / jnp.where(x == 0, 1.0, x) ** 2,
    ),
    "no limit",
    lambda x: (jnp.exp(x) * (x - 1) + 1) / x**2,
    at={"x": [0.0]},
)
kind.pair(
    "max(x, y) + min(x, y)",
    {"x": "n", "y": "n"},
    lambda x, y: jnp.sum(jnp.maximum(x, y) + jnp.minimum(x, y)),
    lambda x, y: (jnp.ones_like(x), jnp.ones_like(y)),
    "both gates closed at a tie",
    lambda x, y: ((x > y) * 1.0 + (x < y), (y > x) * 1.0 + (y < x)),
    at={"x": [1.0], "y": [1.0]},
)

kind = Kind("kinks: at given data and draws")
kind.pair(
    "relu at data",
    "n",
    total(jax.nn.relu),
    lambda x: (x > 0) * 1.0,
    "no gate at all",
    lambda x: jnp.ones_like(x),
    at={"x": [-1.0, 2.0, 3.0]},
    options={"inputs": {"x": np.array([-1.0, 2.0, 3.0])}},
)
kind.pair(
    "relu at positive data",
    "n",
    total(jax.nn.relu),
    lambda x: jnp.ones_like(x),
    "half",
    lambda x: 0.5 * jnp.ones_like(x),
    at={"x": [1.0, 2.0]},
    options={"inputs": {"x": np.array([1.0, 2.0])}},
)
kind.pair(
    "abs of a positive domain",
    "n",
    total(jnp.abs),
    lambda x: jnp.ones_like(x),
    "minus one below a tenth",
    lambda x: jnp.where(x < 0.1, -1.0, 1.0),
    at={"x": [0.05]},
    domains="positive",
)
kind.pair(
    "norm at zeros",
    "n",
    lambda x: jnp.sum(x) + jnp.sum(x**2),
    lambda x: 1 + 2 * x,
    "an error that the domain draws",
    lambda x: 1 + 2 * x + (x == 0),
    domains=zeros,
)
kind.pair(
    "softsign",
    "n",
    total(lambda x: x / (1 + jnp.abs(x))),
    lambda x: 1 / (1 + jnp.abs(x)) ** 2,
    "the square forgotten",
    lambda x: 1 / (1 + jnp.abs(x)),
    source=JAX + ", jax.nn.soft_sign",
)

kind = Kind("fast wiggles and steps")
WAVE = 1e10


def wiggle(x):
    return jnp.sum(x**2 + jnp.sin(WAVE * x) / WAVE)


def cosines(x):
    return [2 * x + jnp.cos(WAVE * x)]


kind.pair(
    "x² + sin(1e10 x)/1e10",
    "n",
    wiggle,
    lambda x: 2 * x + jnp.cos(WAVE * x),
    "2x",
    lambda x: 2 * x,
    at={"x": [0.3, 0.7]},
    truth=cosines,
)
kind.pair(
    "sum of sines of many rates",
    "n",
    lambda x: jnp.sum(jnp.sin(x[:, None] * 3.0 ** jnp.arange(8)) / 3.0 ** jnp.arange(8)),
    lambda x: jnp.sum(jnp.cos(x[:, None] * 3.0 ** jnp.arange(8)), 1),
    "the last rate lost",
    lambda x: jnp.sum(jnp.cos(x[:, None] * 3.0 ** jnp.arange(7)), 1),
    source="K. Weierstrass (1872)",
)
kind.pair(
    "staircase",
    "n",
    total(lambda x: x**2 + jnp.floor(x)),
    lambda x: 2 * x,
    "one for each step",
    lambda x: 2 * x + 1,
)
kind.pair(
    "saw",
    "n",
    total(lambda x: x - jnp.floor(x)),
    lambda x: jnp.ones_like(x),
    "zero on the average",
    lambda x: jnp.zeros_like(x),
)
kind.pair(
    "remainder",
    "n",
    total(lambda x: jnp.fmod(x, 2.5) ** 2 / 2),
    lambda x: jnp.fmod(x, 2.5),
    "mod for rem",
    lambda x: jnp.mod(x, 2.5),
    at={"x": [-1.0]},
    source=JAX + ", jnp.fmod",
)
