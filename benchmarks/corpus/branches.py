"""Functions with branches: a branch that is missing, or that has the wrong slope."""

import jax
import jax.numpy as jnp

from benchmarks.corpus.statement import (
    CS231N,
    ESL,
    GOODFELLOW,
    HUBER,
    JAX,
    OPTAX,
    TORCH,
    Kind,
)


def total(f):
    """Return the sum over a function's values."""
    return lambda x: jnp.sum(f(x))


kind = Kind("branches: bounded activations")
kind.pair(
    "relu6",
    "n",
    total(jax.nn.relu6),
    lambda x: ((x > 0) & (x < 6)) * 1.0,
    "no upper bound",
    lambda x: (x > 0) * 1.0,
    at={"x": [7.0]},
    source=JAX + ", jax.nn.relu6",
)
kind.pair(
    "hard tanh",
    "n",
    total(jax.nn.hard_tanh),
    lambda x: (jnp.abs(x) < 1) * 1.0,
    "no lower bound",
    lambda x: (x < 1) * 1.0,
    at={"x": [-3.0]},
    source=JAX + ", hard_tanh",
)
kind.pair(
    "hard sigmoid",
    "n",
    total(lambda x: jnp.clip(x / 6 + 0.5, 0, 1)),
    lambda x: (jnp.abs(x) < 3) / 6,
    "bounds of ±2.5, as of another definition",
    lambda x: (jnp.abs(x) < 2.5) / 6,
    at={"x": [2.7]},
    source=TORCH + ", Hardsigmoid",
)
kind.pair(
    "hard swish",
    "n",
    total(lambda x: x * jnp.clip(x + 3, 0, 6) / 6),
    lambda x: jnp.where(x <= -3, 0.0, jnp.where(x >= 3, 1.0, (2 * x + 3) / 6)),
    "the middle's slope up to infinity",
    lambda x: jnp.where(x <= -3, 0.0, (2 * x + 3) / 6),
    at={"x": [4.0]},
    source=TORCH + ", Hardswish",
)
kind.pair(
    "celu",
    "n",
    total(lambda x: jnp.where(x > 0, x, 2 * jnp.expm1(jnp.minimum(x, 0) / 2))),
    lambda x: jnp.where(x > 0, 1.0, jnp.exp(jnp.minimum(x, 0) / 2)),
    "the slope of elu, without its scale",
    lambda x: jnp.where(x > 0, 1.0, jnp.exp(jnp.minimum(x, 0))),
    source=TORCH + ", CELU",
)

kind = Kind("branches: clips and clamps")
kind.pair(
    "norm clipped",
    "n",
    lambda x: jnp.minimum(jnp.sqrt(jnp.sum(x**2) + 1e-3), 10.0),
    lambda x: jnp.where(jnp.sum(x**2) + 1e-3 < 100, x / jnp.sqrt(jnp.sum(x**2) + 1e-3), 0.0),
    "never clipped",
    lambda x: x / jnp.sqrt(jnp.sum(x**2) + 1e-3),
    at={"x": [9.0, 9.0]},
)
kind.pair(
    "gradient clipping by global norm",
    "n",
    lambda x: jnp.sum(
        x * jnp.arange(1.0, x.size + 1) / jnp.maximum(jnp.sqrt(jnp.sum(x**2) + 1e-12) / 5, 1.0)
    ),
    lambda x: jnp.where(
        jnp.sum(x**2) + 1e-12 < 25,
        jnp.arange(1.0, x.size + 1),
        5
        * (
            jnp.arange(1.0, x.size + 1) / jnp.sqrt(jnp.sum(x**2) + 1e-12)
            - x * jnp.sum(x * jnp.arange(1.0, x.size + 1)) / (jnp.sum(x**2) + 1e-12) ** 1.5
        ),
    ),
    "the norm taken for a constant",
    lambda x: jnp.arange(1.0, x.size + 1) / jnp.maximum(jnp.sqrt(jnp.sum(x**2) + 1e-12) / 5, 1.0),
    at={"x": [4.0, 7.0]},
    source=OPTAX + ", clip_by_global_norm",
)
kind.pair(
    "probability clipped",
    {"p": "n", "y": "n"},
    lambda p, y: -jnp.sum(y * jnp.log(jnp.clip(p, 1e-7, 1.0))),
    lambda p, y: -jnp.where(p > 1e-7, y / p, 0.0),
    "not clipped",
    lambda p, y: -y / p,
    at={"p": [1e-9], "y": [1.0]},
    domains={"p": "probability", "y": "binary"},
)
kind.pair(
    "ratio clipped, ppo",
    {"r": "n", "a": "n"},
    lambda r, a: -jnp.mean(jnp.minimum(r * a, jnp.clip(r, 0.8, 1.2) * a)),
    lambda r, a: -a / r.size * jnp.where(a > 0, r < 1.2, r > 0.8),
    "both sides gated alike",
    lambda r, a: -a / r.size * ((r > 0.8) & (r < 1.2)),
    at={"r": [0.5], "a": [1.0]},
    domains={"r": "positive"},
    source="J. Schulman et al., arXiv 1707.06347, eq. 7",
)
kind.pair(
    "clip of a computed value",
    "n",
    lambda x: jnp.sum(jnp.clip(x**2, 0.0, 16.0) * x),
    lambda x: jnp.where(x**2 < 16, 3 * x**2, 16.0),
    "no slope beyond the clip",
    lambda x: jnp.where(x**2 < 16, 3 * x**2, 0.0),
    at={"x": [5.0]},
)

kind = Kind("branches: robust losses")
kind.pair(
    "huber",
    "n",
    total(lambda x: jnp.where(jnp.abs(x) < 1, x**2 / 2, jnp.abs(x) - 0.5)),
    lambda x: jnp.clip(x, -1, 1),
    "sign lost in the tails",
    lambda x: jnp.where(jnp.abs(x) < 1, x, 1.0),
    at={"x": [-2.0]},
    source=HUBER,
)
kind.pair(
    "pseudo-huber with a wide delta",
    "n",
    total(lambda x: jnp.where(jnp.abs(x) <= 9, x**2 / 2, 9 * (jnp.abs(x) - 4.5))),
    lambda x: jnp.where(jnp.abs(x) <= 9, x, 9 * jnp.sign(x)),
    "delta lost in the tails",
    lambda x: jnp.where(jnp.abs(x) <= 9, x, jnp.sign(x)),
    at={"x": [12.0]},
    source=OPTAX + ", huber_loss",
)
kind.pair(
    "tukey's biweight",
    "n",
    total(lambda x: jnp.where(jnp.abs(x) < 4.685, 1 - (1 - (x / 4.685) ** 2) ** 3, 1.0)),
    lambda x: jnp.where(jnp.abs(x) < 4.685, 6 * x / 4.685**2 * (1 - (x / 4.685) ** 2) ** 2, 0.0),
    "not redescending to zero",
    lambda x: 6 * x / 4.685**2 * (1 - (x / 4.685) ** 2) ** 2,
    at={"x": [6.0]},
    source=ESL + ", ch. 10; A. Beaton, J. Tukey (1974)",
)
kind.pair(
    "epsilon-insensitive",
    {"x": "n", "y": "n"},
    lambda x, y: jnp.sum(jax.nn.relu(jnp.abs(x - y) - 0.1)),
    lambda x, y: jnp.sign(x - y) * (jnp.abs(x - y) > 0.1),
    "no insensitive zone",
    lambda x, y: jnp.sign(x - y),
    at={"x": [0.05], "y": [0.0]},
    source=ESL + ", eq. 12.37",
)
kind.pair(
    "hinge",
    {"x": "n", "y": "n"},
    lambda x, y: jnp.sum(jax.nn.relu(1 - y * x)),
    lambda x, y: -y * (y * x < 1),
    "the margin at zero",
    lambda x, y: -y * (y * x < 0),
    at={"x": [0.5], "y": [1.0]},
    domains={"y": "sign"},
    source=CS231N + ", linear classification",
)

kind = Kind("branches: thresholds far out")
kind.pair(
    "softplus with threshold",
    "n",
    total(lambda x: jnp.where(x > 20, x, jnp.log1p(jnp.exp(jnp.minimum(x, 20.0))))),
    lambda x: jnp.where(x > 20, 1.0, jax.nn.sigmoid(x)),
    "zero beyond",
    lambda x: jnp.where(x > 20, 0.0, jax.nn.sigmoid(x)),
    at={"x": [25.0]},
    source=TORCH + ", Softplus",
)
kind.pair(
    "elu squared below −30",
    "n",
    total(lambda x: jnp.where(x < -30, -x - 30.0, 0.0) + x**2 / 2),
    lambda x: x - (x < -30),
    "the far branch forgotten",
    lambda x: x,
    at={"x": [-40.0]},
)
kind.pair(
    "cond on a sum",
    "n",
    lambda x: jax.lax.cond(jnp.sum(x) > 9, lambda x: 3 * jnp.sum(x), jnp.sum, x),
    lambda x: jnp.where(jnp.sum(x) > 9, 3.0, 1.0) * jnp.ones_like(x),
    "one branch only",
    lambda x: jnp.ones_like(x),
    at={"x": [5.0, 6.0]},
)
kind.pair(
    "saturating count",
    "n",
    total(lambda x: jnp.where(x > 100, 10 * jnp.sqrt(jnp.abs(x)), x)),
    lambda x: jnp.where(x > 100, 5 / jnp.sqrt(jnp.abs(x) + (x == 0)), 1.0),
    "10 for 5",
    lambda x: jnp.where(x > 100, 10 / jnp.sqrt(jnp.abs(x) + (x == 0)), 1.0),
    at={"x": [144.0]},
)
kind.pair(
    "log barrier extended",
    "n",
    total(
        lambda x: jnp.where(
            x > 1e-2, -jnp.log(jnp.maximum(x, 1e-2)), 4.605170185988091 - (x - 1e-2) * 100
        )
    ),
    lambda x: jnp.where(x > 1e-2, -1 / jnp.maximum(x, 1e-2), -100.0),
    "−1/x everywhere",
    lambda x: -1 / jnp.where(x == 0, 1.0, x),
    at={"x": [-0.5]},
)

kind = Kind("branches: tiny regions")
kind.pair(
    "around zero",
    "n",
    total(lambda x: x**2),
    lambda x: 2 * x,
    "1.5 within a thousandth",
    lambda x: 2 * x * jnp.where(jnp.abs(x) < 1e-3, 1.5, 1.0),
    at={"x": [5e-4]},
)
kind.pair(
    "around one",
    "n",
    total(jnp.sin),
    lambda x: jnp.cos(x),
    "a series that is off within 1e-4 of one",
    lambda x: jnp.where(jnp.abs(x - 1) < 1e-4, 1 - x**2 / 2, jnp.cos(x)),
    at={"x": [1.00005]},
)
kind.pair(
    "close neighbours",
    "n",
    lambda x: jnp.sum((x[:, None] - x) ** 2) / 4,
    lambda x: x.size * x - jnp.sum(x),
    "pairs closer than 1e-3 pushed apart",
    lambda x: jnp.sum((x[:, None] - x) * jnp.where(jnp.abs(x[:, None] - x) < 1e-3, -1.0, 1.0), 1),
    at={"x": [1.0, 1.0005]},
)
kind.pair(
    "small norm",
    "n",
    lambda x: jnp.sqrt(1 + jnp.sum(x**2)),
    lambda x: x / jnp.sqrt(1 + jnp.sum(x**2)),
    "zero where the norm is below 0.01",
    lambda x: jnp.where(jnp.sum(x**2) < 1e-4, 0.0, x / jnp.sqrt(1 + jnp.sum(x**2))),
    at={"x": [3e-3, 4e-3]},
)
kind.pair(
    "series of expm1(x)/x near zero",
    "n",
    total(
        lambda x: jnp.where(jnp.abs(x) < 1e-5, 1 + x / 2, jnp.expm1(x) / jnp.where(x == 0, 1.0, x))
    ),
    lambda x: jnp.where(
        jnp.abs(x) < 1e-4,
        0.5 + x / 3,
        jnp.exp(x) / jnp.where(x == 0, 1, x) - jnp.expm1(x) / jnp.where(x == 0, 1, x) ** 2,
    ),
    "a half forgotten there",
    lambda x: jnp.where(
        jnp.abs(x) < 1e-3,
        1.0 + x / 3,
        jnp.exp(x) / jnp.where(x == 0, 1, x) - jnp.expm1(x) / jnp.where(x == 0, 1, x) ** 2,
    ),
    at={"x": [5e-4]},
)

kind = Kind("branches: conjunctions")
SQUARES = total(lambda x: x**2)
kind.pair(
    "three conditions at once",
    "3",
    SQUARES,
    lambda x: 2 * x,
    "1.5 where all hold",
    lambda x: 2 * x * jnp.where((x[0] > 1) & (x[1] < -1) & (x[2] > 1), 1.5, 1.0),
    at={"x": [2.0, -2.0, 2.0]},
)
kind.pair(
    "a product of three conditions",
    "3",
    total(lambda x: x**4),
    lambda x: 4 * x**3,
    "half more where all hold",
    lambda x: 4 * x**3 * (1 + 0.5 * (x[0] > 2.2) * (x[1] < -2.2) * (x[2] > 2.2)),
    at={"x": [3.0, -3.0, 3.0]},
)
kind.pair(
    "three nested selects",
    "3",
    total(lambda x: x**2 / 2),
    lambda x: x,
    "2.5 at the innermost",
    lambda x: x * jnp.where(x[0] > 2, jnp.where(x[1] > 2, jnp.where(x[2] > 2, 2.5, 1.0), 1.0), 1.0),
    at={"x": [3.0, 3.0, 3.0]},
)
kind.pair(
    "two gates in one loss",
    {"x": "n", "y": "n"},
    lambda x, y: jnp.sum(jax.nn.relu(x - 2) * jax.nn.relu(y - 2)),
    lambda x, y: ((x > 2) * jax.nn.relu(y - 2), (y > 2) * jax.nn.relu(x - 2)),
    "the gate of the other forgotten",
    lambda x, y: ((x > 2) * jax.nn.relu(y - 2), (y > 2) * (x - 2)),
    at={"x": [1.0], "y": [4.0]},
)
kind.pair(
    "inside and far out",
    "n",
    lambda x: jnp.sum(x**3) * jnp.where((jnp.max(x) > 3) & (jnp.min(x) < -3), 2.0, 1.0),
    lambda x: 3 * x**2 * jnp.where((jnp.max(x) > 3) & (jnp.min(x) < -3), 2.0, 1.0),
    "or for and",
    lambda x: 3 * x**2 * jnp.where((jnp.max(x) > 3) | (jnp.min(x) < -3), 2.0, 1.0),
    at={"x": [4.0, 1.0]},
)

kind = Kind("branches: tables")
TABLE = jnp.array([1.0, 2.0, 4.0, 8.0])


def level(x, width, top=3):
    """Return which of the steps of a width a number lies in."""
    return jnp.clip(jnp.abs(x) // width, 0, top).astype(int)


kind.pair(
    "loss of squares",
    "n",
    SQUARES,
    lambda x: 2 * x,
    "a factor read from a table",
    lambda x: 2 * x * jnp.array([1.0, 1.0, 1.5, 2.0])[level(x, 20)],
    at={"x": [50.0]},
)
kind.pair(
    "tariff by steps",
    "n",
    lambda x: jnp.sum(jnp.array([1.0, 2.0, 4.0, 8.0])[level(x, 4)] * x),
    lambda x: jnp.array([1.0, 2.0, 4.0, 8.0])[level(x, 4)],
    "the last step left out",
    lambda x: jnp.array([1.0, 2.0, 4.0, 4.0])[level(x, 4)],
    at={"x": [14.0]},
)
kind.pair(
    "piecewise linear by searchsorted",
    "n",
    lambda x: jnp.sum(jnp.interp(x, jnp.array([-8.0, 0.0, 8.0]), jnp.array([0.0, 1.0, 5.0]))),
    lambda x: jnp.where(x <= -8, 0.0, jnp.where(x < 0, 1 / 8, jnp.where(x < 8, 0.5, 0.0))),
    "no flat end above",
    lambda x: jnp.where(x <= -8, 0.0, jnp.where(x < 0, 1 / 8, 0.5)),
    at={"x": [9.0]},
    source=JAX + ", jnp.interp",
)
kind.pair(
    "switch over rounded values",
    "",
    lambda x: jax.lax.switch(
        jnp.clip(jnp.round(x), 0, 2).astype(int), [lambda x: x, lambda x: x**2, lambda x: x**3], x
    ),
    lambda x: jnp.where(jnp.round(x) <= 0, 1.0, jnp.where(jnp.round(x) == 1, 2 * x, 3 * x**2)),
    "the last of the three lost",
    lambda x: jnp.where(jnp.round(x) <= 0, 1.0, 2 * x),
    at={"x": 4.0},
    source=JAX + ", lax.switch",
)
kind.pair(
    "quadratic b-spline",
    "n",
    total(
        lambda x: jnp.where(
            jnp.abs(x) < 0.5,
            0.75 - x**2,
            jnp.where(jnp.abs(x) < 1.5, (1.5 - jnp.abs(x)) ** 2 / 2, 0.0),
        )
    ),
    lambda x: jnp.where(
        jnp.abs(x) < 0.5,
        -2 * x,
        jnp.where(jnp.abs(x) < 1.5, -jnp.sign(x) * (1.5 - jnp.abs(x)), 0.0),
    ),
    "the middle's slope in the outer pieces",
    lambda x: jnp.where(jnp.abs(x) < 1.5, -2 * x, 0.0),
    at={"x": [1.0]},
    source="C. de Boor, A Practical Guide to Splines (1978)",
)

kind = Kind("branches: counts and equalities")
kind.pair(
    "three equal entries",
    "n",
    SQUARES,
    lambda x: 2 * x,
    "1.5 where three are equal to the first",
    lambda x: 2 * x * jnp.where(jnp.sum(x == x[0]) >= 3, 1.5, 1.0),
    at={"x": [1.0, 1.0, 1.0]},
)
kind.pair(
    "count of large entries",
    "n",
    lambda x: jnp.sum(x) * (1 + jnp.sum(x > 3)),
    lambda x: jnp.ones_like(x) * (1 + jnp.sum(x > 3)),
    "any for the count",
    lambda x: jnp.ones_like(x) * (1 + jnp.any(x > 3)),
    at={"x": [4.0, 5.0]},
)
kind.pair(
    "majority of signs",
    "n",
    lambda x: jnp.where(jnp.sum(x > 0) * 2 > x.size, jnp.sum(x), jnp.sum(x**2)),
    lambda x: jnp.where(jnp.sum(x > 0) * 2 > x.size, jnp.ones_like(x), 2 * x),
    "the sum's sign for the majority",
    lambda x: jnp.where(jnp.sum(x) > 0, jnp.ones_like(x), 2 * x),
    at={"x": [5.0, -1.0, -1.0]},
)
kind.pair(
    "all entries beyond two",
    "n",
    lambda x: jnp.where(jnp.all(x > 2), 2.0, 1.0) * jnp.sum(x**2),
    lambda x: jnp.where(jnp.all(x > 2), 4.0, 2.0) * x,
    "never all",
    lambda x: 2 * x,
    at={"x": [3.0, 3.0, 3.0]},
)
kind.pair(
    "zeros counted",
    "n",
    lambda x: jnp.sum(x**3) / 3,
    lambda x: x**2,
    "doubled where two entries vanish",
    lambda x: x**2 * jnp.where(jnp.sum(x == 0) >= 2, 2.0, 1.0),
    at={"x": [0.0, 0.0, 2.0]},
)

kind = Kind("branches: order")
kind.pair(
    "sorted, weighted",
    "n",
    lambda x: jnp.sum(jnp.sort(x) * jnp.arange(x.size)),
    lambda x: jnp.argsort(jnp.argsort(x)) * 1.0,
    "argsort for the rank",
    lambda x: jnp.argsort(x) * 1.0,
    at={"x": [3.0, 1.0, 2.0]},
    source=JAX + ", jnp.sort",
)
kind.pair(
    "mean of the top two",
    "n",
    lambda x: jnp.sum(jax.lax.top_k(x, min(2, x.size))[0]) / 2,
    lambda x: jnp.zeros_like(x).at[jax.lax.top_k(x, min(2, x.size))[1]].set(0.5),
    "the top one twice",
    lambda x: jnp.zeros_like(x).at[jnp.argmax(x)].set(1.0),
    source=JAX + ", lax.top_k",
)
kind.pair(
    "entry at the largest of another",
    {"x": "n", "y": "n"},
    lambda x, y: x[jnp.argmax(y)] ** 2,
    lambda x, y: 2 * x * (jnp.arange(x.size) == jnp.argmax(y)),
    "argmin for argmax",
    lambda x, y: 2 * x * (jnp.arange(x.size) == jnp.argmin(y)),
    at={"x": [1.0, 2.0], "y": [1.0, 0.0]},
)
kind.pair(
    "range",
    "n",
    lambda x: jnp.max(x) - jnp.min(x),
    lambda x: (x == x.max()) / jnp.sum(x == x.max()) - (x == x.min()) / jnp.sum(x == x.min()),
    "one at the first and last entry",
    lambda x: 1.0 * (jnp.arange(x.size) == jnp.argmax(x)) - (jnp.arange(x.size) == x.size - 1),
    at={"x": [1.0, 0.0, 3.0, 2.0]},
)
kind.pair(
    "maxout",
    {"x": "m k n"},
    lambda x: jnp.sum(jnp.max(x, 1) ** 2),
    lambda x: (
        2
        * jnp.max(x, 1, keepdims=True)
        * (x == jnp.max(x, 1, keepdims=True))
        / jnp.sum(x == jnp.max(x, 1, keepdims=True), 1, keepdims=True)
    ),
    "the largest in size",
    lambda x: (
        2 * jnp.max(x, 1, keepdims=True) * (jnp.abs(x) == jnp.max(jnp.abs(x), 1, keepdims=True))
    ),
    at={"x": [[[-3.0], [1.0]]]},
    source=GOODFELLOW + ", sec. 6.3.1",
)
