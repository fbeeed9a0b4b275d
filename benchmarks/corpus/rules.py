"""Rules written by hand: branches on the cotangent, integers, stopped gradients, library rules."""

import jax
import jax.numpy as jnp
from jax.scipy import special

import jaxgrad as jg
from benchmarks.corpus.statement import JAX, SCIPY, SUTTON, TORCH, Kind, zeros

kind = Kind("rules: custom_vjp")


def sigmoid_rule(slope):
    return lambda x: (jax.nn.sigmoid(x), x), lambda x, g: (slope(jax.nn.sigmoid(x)) * g,)


kind.rule(
    "sigmoid",
    "n",
    jax.nn.sigmoid,
    sigmoid_rule(lambda s: s * (1 - s)),
    "s for s(1 − s)",
    sigmoid_rule(lambda s: s),
    source=JAX + ", custom derivative rules",
)
kind.rule(
    "log1pexp",
    "n",
    lambda x: jnp.logaddexp(x, 0.0),
    (lambda x: (jnp.logaddexp(x, 0.0), x), lambda x, g: (g * jax.nn.sigmoid(x),)),
    "the residual is the output",
    (
        lambda x: (jnp.logaddexp(x, 0.0), jnp.logaddexp(x, 0.0)),
        lambda y, g: (g * jax.nn.sigmoid(y),),
    ),
    source=JAX + ", custom derivative rules",
)
kind.rule(
    "product",
    {"x": "n", "y": "n"},
    lambda x, y: x * y,
    (lambda x, y: (x * y, (x, y)), lambda r, g: (g * r[1], g * r[0])),
    "factors swapped",
    (lambda x, y: (x * y, (x, y)), lambda r, g: (g * r[0], g * r[1])),
)
kind.rule(
    "scale and shift",
    {"x": "m n", "w": "n"},
    lambda x, w: x * w,
    (lambda x, w: (x * w, (x, w)), lambda r, g: (g * r[1], jnp.sum(g * r[0], 0))),
    "mean over the batch for the sum",
    (lambda x, w: (x * w, (x, w)), lambda r, g: (g * r[1], jnp.mean(g * r[0], 0))),
)
kind.rule(
    "softmax",
    "n",
    lambda x: jax.nn.softmax(x),
    (lambda x: (jax.nn.softmax(x), jax.nn.softmax(x)), lambda s, g: (s * (g - jnp.sum(s * g)),)),
    "the diagonal alone",
    (lambda x: (jax.nn.softmax(x), jax.nn.softmax(x)), lambda s, g: (s * (1 - s) * g,)),
)

kind = Kind("rules: branches on the cotangent")


def identity(x):
    return 1.0 * x


kind.rule(
    "clip",
    "n",
    lambda x: jnp.clip(x, -8.0, 8.0),
    (lambda x: (jnp.clip(x, -8.0, 8.0), x), lambda x, g: (jnp.where(jnp.abs(x) < 8, g, 0.0),)),
    "passed through",
    (lambda x: (jnp.clip(x, -8.0, 8.0), x), lambda x, g: (g,)),
    at={"x": [9.0]},
)
kind.rule(
    "identity",
    "n",
    identity,
    (lambda x: (x, None), lambda _, g: (g,)),
    "cotangent clipped at 5",
    (lambda x: (x, None), lambda _, g: (jnp.clip(g, -5, 5),)),
    at={"cotangent": [7.0, 1.0]},
    source=JAX + ", custom derivative rules, clip_gradient",
)
kind.rule(
    "sine",
    "n",
    jnp.sin,
    (lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),)),
    "negative cotangents lost",
    (lambda x: (jnp.sin(x), x), lambda x, g: (jax.nn.relu(g) * jnp.cos(x),)),
    at={"cotangent": [-1.0, -1.0]},
    source="J. Springenberg et al., arXiv 1412.6806, guided",
)
kind.pair(
    "matrix product",
    {"x": "m n", "y": "n p", "g": "m p"},
    lambda x, y, g: jnp.sum((x @ y) * g),
    lambda x, y, g: (g @ y.T, x.T @ g),
    "small cotangents flushed",
    lambda x, y, g: (
        jnp.where(jnp.abs(g) < 1e-2, 0.0, g) @ y.T,
        x.T @ jnp.where(jnp.abs(g) < 1e-2, 0.0, g),
    ),
    at={"g": [[5e-3]]},
)
kind.rule(
    "tanh",
    "n",
    jnp.tanh,
    (lambda x: (jnp.tanh(x), jnp.tanh(x)), lambda y, g: (g * (1 - y**2),)),
    "cotangent scaled to norm at most 4",
    (
        lambda x: (jnp.tanh(x), jnp.tanh(x)),
        lambda y, g: (g * (1 - y**2) / jnp.maximum(jnp.sqrt(jnp.sum(g**2)) / 4, 1.0),),
    ),
    at={"cotangent": [8.0, 0.0]},
)

kind = Kind("rules: from_vjp")


def vjp(name, primal, shapes, right, mistake, wrong, at=None, domains=None, source=""):
    """State a VJP, right and wrong."""
    shapes = {"x": shapes} if isinstance(shapes, str) else shapes

    def made(rule):
        return lambda: jg.Derivation.from_vjp(name, primal, rule, shapes, domains=domains)

    kind.claim(f"{name}, right", True, made(right), source=source)
    kind.claim(f"{name}, {mistake}", False, made(wrong), at=at or {}, source=source)


vjp(
    "softmax of rows",
    lambda x: jax.nn.softmax(x, -1),
    "m n",
    lambda x, g: {
        "x": jax.nn.softmax(x, -1) * (g - jnp.sum(jax.nn.softmax(x, -1) * g, -1, keepdims=True))
    },
    "summed over the whole batch",
    lambda x, g: {"x": jax.nn.softmax(x, -1) * (g - jnp.sum(jax.nn.softmax(x, -1) * g))},
    source="CS231n course notes",
)
vjp(
    "outer product",
    lambda x, y: jnp.outer(x, y),
    {"x": "m", "y": "n"},
    lambda x, y, g: {"x": g @ y, "y": g.T @ x},
    "cotangent's absolute value",
    lambda x, y, g: {"x": jnp.abs(g) @ y, "y": g.T @ x},
)
vjp(
    "cumulative product",
    jnp.cumprod,
    "n",
    lambda x, g: {"x": jnp.cumsum((g * jnp.cumprod(x))[::-1])[::-1] / x},
    "cumsum not reversed",
    lambda x, g: {"x": jnp.cumsum(g * jnp.cumprod(x)) / x},
    domains={"x": "positive"},
    source=TORCH + ", cumprod",
)
vjp(
    "solve",
    jnp.linalg.solve,
    {"a": "n n", "b": "n"},
    lambda a, b, g: {
        "a": -jnp.outer(jnp.linalg.solve(a.T, g), jnp.linalg.solve(a, b)),
        "b": jnp.linalg.solve(a.T, g),
    },
    "not transposed",
    lambda a, b, g: {
        "a": -jnp.outer(jnp.linalg.solve(a, g), jnp.linalg.solve(a, b)),
        "b": jnp.linalg.solve(a, g),
    },
    domains={"a": lambda key, s: jax.random.normal(key, s) / s[-1] + 2 * jnp.eye(s[-1])},
    source="M. B. Giles (2008), sec. 2.3.1",
)
vjp(
    "log-softmax",
    lambda x: jax.nn.log_softmax(x),
    "n",
    lambda x, g: {"x": g - jax.nn.softmax(x) * jnp.sum(g)},
    "cotangents taken to sum to one",
    lambda x, g: {"x": g - jax.nn.softmax(x)},
    source=JAX + ", jax.nn.log_softmax",
)

kind = Kind("rules: custom_jvp and second order")


def jvp(name, plain, right, mistake, wrong, source="", domains=None):
    """State a custom_jvp with the slope's function, right and wrong."""

    def made(slope):
        def state():
            f = jax.custom_jvp(plain)
            f.defjvps(lambda t, y, x: slope(x) * t)
            return jg.Derivation.from_custom_vjp(f, plain, {"x": "n"}, name=name, domains=domains)

        return state

    kind.claim(f"{name}, right", True, made(right), source=source)
    kind.claim(f"{name}, {mistake}", False, made(wrong), source=source)


jvp(
    "square",
    lambda x: x**2,
    lambda x: 2 * x,
    "the slope does not depend on the input",
    lambda x: 2 * jax.lax.stop_gradient(x),
)
jvp(
    "swish",
    lambda x: x * jax.nn.sigmoid(x),
    lambda x: jax.nn.sigmoid(x) * (1 + x * jax.nn.sigmoid(-x)),
    "s(x) + x",
    lambda x: jax.nn.sigmoid(x) + x * jax.nn.sigmoid(-x),
    source="arXiv 1710.05941",
)
jvp(
    "log of cosh",
    lambda x: jnp.logaddexp(x, -x),
    jnp.tanh,
    "tanh of half",
    lambda x: jnp.tanh(x / 2),
)
jvp(
    "root",
    jnp.sqrt,
    lambda x: 0.5 / jnp.sqrt(x),
    "its value held constant",
    lambda x: 0.5 / jax.lax.stop_gradient(jnp.sqrt(x)),
    domains={"x": "positive"},
    source="JAX issue threads on nested custom rules",
)
kind.pair(
    "gradient penalty",
    "n",
    lambda x: jnp.sum(jax.grad(lambda x: jnp.sum(x**3))(x) ** 2),
    lambda x: 36 * x**3,
    "first order of the penalty",
    lambda x: 18 * x**2,
    source="I. Gulrajani et al., arXiv 1704.00028",
)

kind = Kind("rules: stop_gradient")
STOP = jax.lax.stop_gradient
kind.pair(
    "semi-gradient of TD",
    {"w": "n", "a": "m n", "b": "m n", "r": "m"},
    lambda w, a, b, r: jnp.mean((STOP(r + 0.9 * b @ w) - a @ w) ** 2),
    lambda w, a, b, r: -2 * a.T @ (r + 0.9 * b @ w - a @ w) / len(r),
    "the full gradient",
    lambda w, a, b, r: 2 * (0.9 * b - a).T @ (r + 0.9 * b @ w - a @ w) / len(r),
    source=SUTTON + ", eq. 9.15",
    truth=lambda w, a, b, r: [jax.grad(lambda v: jnp.mean((r + 0.9 * b @ w - a @ v) ** 2))(w)],
)
kind.pair(
    "straight-through rounding",
    "n",
    lambda x: jnp.sum((x + STOP(jnp.round(x) - x)) ** 2),
    lambda x: 2 * jnp.round(x),
    "the input for its rounding",
    lambda x: 2 * x,
    source="Y. Bengio et al., arXiv 1308.3432",
    truth=lambda x: [2 * jnp.round(x)],
)
kind.pair(
    "weights held still",
    {"x": "n", "y": "n"},
    lambda x, y: jnp.sum(STOP(jax.nn.softmax(x)) * (x - y) ** 2),
    lambda x, y: 2 * jax.nn.softmax(x) * (x - y),
    "the weights' slope too",
    lambda x, y: (
        2 * jax.nn.softmax(x) * (x - y)
        + jax.nn.softmax(x) * ((x - y) ** 2 - jnp.sum(jax.nn.softmax(x) * (x - y) ** 2))
    ),
    truth=lambda x, y: [2 * jnp.exp(x - x.max()) / jnp.sum(jnp.exp(x - x.max())) * (x - y)],
)
kind.pair(
    "commitment loss",
    {"z": "n", "e": "n"},
    lambda z, e: jnp.sum((STOP(z) - e) ** 2) + 0.25 * jnp.sum((z - STOP(e)) ** 2),
    lambda z, e: (0.5 * (z - e), 2 * (e - z)),
    "both terms move both",
    lambda z, e: (2.5 * (z - e), 2.5 * (e - z)),
    source="A. van den Oord et al., arXiv 1711.00937",
    truth=lambda z, e: [2 * (e - z), 0.5 * (z - e)],  # in the order of names
)
kind.pair(
    "maximum shifted out",
    "n",
    lambda x: jnp.log(jnp.sum(jnp.exp(x - STOP(jnp.max(x))))) + STOP(jnp.max(x)),
    lambda x: jax.nn.softmax(x),
    "one at the maximum besides",
    lambda x: jax.nn.softmax(x) + (x == jnp.max(x)),
    truth=lambda x: [jnp.exp(x - x.max()) / jnp.sum(jnp.exp(x - x.max()))],
)

kind = Kind("rules: wrong in libraries")
kind.pair(
    "i0 at zero",
    "n",
    lambda x: jnp.sum(special.i0(x)),
    lambda x: special.i1(x),
    "one at zero, as the library's rule",
    lambda x: special.i1(x) + (x == 0),
    at={"x": [0.0]},
    domains=zeros,
    source="DLMF 10.29.3",
)
kind.pair(
    "i0e",
    "n",
    lambda x: jnp.sum(special.i0e(x)),
    lambda x: special.i1e(x) - jnp.sign(x) * special.i0e(x),
    "no sign",
    lambda x: special.i1e(x) - special.i0e(x),
    at={"x": [-1.0]},
    source=SCIPY + ", i0e",
)


def lower_cholesky(s):
    return jnp.sum(
        jax.lax.linalg.cholesky(s, symmetrize_input=False) * jnp.arange(4.0).reshape(2, 2)
    )


def lower_slope(s):
    l11, b = jnp.sqrt(s[0, 0]), s[1, 0]
    l22 = jnp.sqrt(s[1, 1] - b**2 / s[0, 0])
    da = -b / s[0, 0] ** 1.5 + 3 * b**2 / (2 * s[0, 0] ** 2 * l22)
    return jnp.array([[da, 0.0], [2 / l11 - 3 * b / (s[0, 0] * l22), 3 / (2 * l22)]])


kind.pair(
    "cholesky with one triangle",
    {"s": "2 2"},
    lower_cholesky,
    lower_slope,
    "JAX's symmetric rule",
    lambda s: jax.grad(lower_cholesky)(s),
    domains="spd",
)
kind.pair(
    "entropy at whole numbers",
    "n",
    lambda x: jnp.sum(special.xlogy(x, x)),
    lambda x: jnp.log(x) + 1,
    "one forgotten",
    lambda x: jnp.log(x),
    domains="positive",
    source=SCIPY + ", xlogy",
)
kind.pair(
    "sinc",
    "n",
    lambda x: jnp.sum(jnp.sinc(x)),
    lambda x: jnp.where(
        x == 0,
        0.0,
        jnp.where(
            jnp.abs(x) < 1e-3,
            -(jnp.pi**2) * x / 3 + jnp.pi**4 * x**3 / 30,
            (jnp.cos(jnp.pi * x) - jnp.sinc(x)) / jnp.where(x == 0, 1.0, x),
        ),
    ),
    "no limit at zero",
    lambda x: jnp.cos(jnp.pi * x) / x - jnp.sin(jnp.pi * x) / (jnp.pi * x * x),
    at={"x": [0.0]},
)

kind = Kind("rules: labels and integers")
LABELS = {"k": "index n"}
kind.pair(
    "negative log-likelihood",
    {"x": "m n", "k": "m"},
    lambda x, k: -jnp.mean(jax.nn.log_softmax(x)[jnp.arange(len(k)), k]),
    lambda x, k: (jax.nn.softmax(x) - jax.nn.one_hot(k, x.shape[1])) / len(k),
    "label zero ignored",
    lambda x, k: (jax.nn.softmax(x) - jax.nn.one_hot(k, x.shape[1])) * (k[:, None] != 0) / len(k),
    at={"x": [[1.0, 2.0]], "k": [0]},
    domains=LABELS,
    source=TORCH + ", NLLLoss",
)
kind.pair(
    "a special label",
    {"x": "n", "k": ""},
    lambda x, k: jnp.sum(x**2),
    lambda x, k: 2 * x,
    "another factor at k = 777",
    lambda x, k: 2 * x * jnp.where(k == 777, 1.5, 1.0),
    at={"k": 777},
    sizes={"n": 2},
    domains={"k": "integer"},
)
kind.pair(
    "ignore index",
    {"x": "m n", "k": "m"},
    lambda x, k: -jnp.sum(jnp.where(k == 1, 0.0, jax.nn.log_softmax(x)[jnp.arange(len(k)), k])),
    lambda x, k: (jax.nn.softmax(x) - jax.nn.one_hot(k, x.shape[1])) * (k != 1)[:, None],
    "not ignored",
    lambda x, k: jax.nn.softmax(x) - jax.nn.one_hot(k, x.shape[1]),
    at={"x": [[1.0, 2.0]], "k": [1]},
    domains=LABELS,
    source=TORCH + ", ignore_index",
)
kind.pair(
    "sign labels",
    {"x": "n", "y": "n"},
    lambda x, y: jnp.sum(jnp.logaddexp(0.0, -x * y)),
    lambda x, y: -y * jax.nn.sigmoid(-x * y),
    "labels of zero and one",
    lambda x, y: jax.nn.sigmoid(x) - y,
    at={"x": [1.0], "y": [-1.0]},
    domains={"y": "sign"},
    source="optax documentation, sigmoid_binary_cross_entropy",
)
kind.pair(
    "power by an integer",
    {"x": "n", "k": ""},
    lambda x, k: jnp.sum(x ** jnp.abs(k)),
    lambda x, k: jnp.where(k == 0, 0.0, jnp.abs(k) * x ** jnp.maximum(jnp.abs(k) - 1, 0)),
    "k for |k|",
    lambda x, k: jnp.where(k == 0, 0.0, k * x ** jnp.maximum(jnp.abs(k) - 1, 0)),
    at={"x": [1.5], "k": -2},
    domains={"k": "integer"},
)
