"""Loops and recurrences, solvers, and quantiles."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.corpus.statement import (
    BISHOP,
    GOLUB,
    JAX,
    SUTTON,
    Kind,
)

kind = Kind("loops: fori and scan")
kind.pair(
    "geometric growth",
    {"x": "n", "r": ""},
    lambda x, r: jnp.sum(lax.fori_loop(0, 5, lambda i, s: s * r, x)),
    lambda x, r: (jnp.full_like(x, r**5), 5 * r**4 * jnp.sum(x)),
    "a step too few",
    lambda x, r: (jnp.full_like(x, r**4), 5 * r**4 * jnp.sum(x)),
)
kind.pair(
    "discounted return",
    {"r": "n"},
    lambda r: lax.scan(lambda c, r: (r + 0.9 * c, None), 0.0, r[::-1])[0],
    lambda r: 0.9 ** jnp.arange(r.size),
    "the discount from the end",
    lambda r: 0.9 ** jnp.arange(r.size)[::-1],
    source=SUTTON + ", eq. 3.8",
)
kind.pair(
    "horner's rule",
    {"c": "n", "t": ""},
    lambda c, t: lax.scan(lambda s, a: (s * t + a, None), 0.0, c)[0],
    lambda c, t: {"c": t ** jnp.arange(c.size)[::-1]},
    "powers upwards",
    lambda c, t: {"c": t ** jnp.arange(c.size)},
    source=GOLUB,
)
kind.pair(
    "running maximum",
    "n",
    lambda x: lax.scan(lambda m, v: (jnp.maximum(m, v), None), x[0], x)[0] ** 2,
    lambda x: 2 * jnp.max(x) * (x == jnp.max(x)),
    "the last entry",
    lambda x: 2 * jnp.max(x) * (jnp.arange(x.size) == x.size - 1),
    at={"x": [3.0, 1.0]},
    options={"inputs": {"x": np.array([0.5, 2.5, 1.0, -1.0])}},
)
kind.pair(
    "exponential average",
    {"x": "n"},
    lambda x: lax.scan(lambda m, v: (0.9 * m + 0.1 * v, None), 0.0, x)[0] ** 2,
    lambda x: (
        2
        * jnp.sum(0.1 * 0.9 ** jnp.arange(x.size)[::-1] * x)
        * 0.1
        * 0.9 ** jnp.arange(x.size)[::-1]
    ),
    "corrected for its start",
    lambda x: (
        2
        * jnp.sum(0.1 * 0.9 ** jnp.arange(x.size)[::-1] * x)
        * 0.1
        * 0.9 ** jnp.arange(x.size)[::-1]
        / (1 - 0.9**x.size)
    ),
    source="D. Kingma, J. Ba, arXiv 1412.6980, sec. 3",
)

kind = Kind("loops: length by the data")


def newton_root(a):
    return lax.while_loop(
        lambda s: jnp.any(jnp.abs(s * s - a) > 8 * jnp.finfo(a.dtype).eps * a),
        lambda s: 0.5 * (s + a / s),
        a,
    )


def cube_root(a):
    return lax.fori_loop(0, 60, lambda i, s: (2 * s + a / s**2) / 3, a / 3 + 1)


kind.pair(
    "root by newton in the closed form",
    {"a": "n"},
    lambda a: jnp.sum(jnp.sqrt(a)),
    lambda a: 0.5 / newton_root(a),
    "a quarter",
    lambda a: 0.25 / newton_root(a),
    domains="positive",
)
kind.pair(
    "cube root, iterations capped",
    {"a": "n"},
    lambda a: jnp.sum(jnp.cbrt(a)),
    lambda a: 1 / (3 * cube_root(a) ** 2),
    "the cap far too low",
    lambda a: 1 / (3 * lax.fori_loop(0, 4, lambda i, s: (2 * s + a / s**2) / 3, a / 3 + 1) ** 2),
    at={"a": [1e6]},
    domains="positive",
    source=GOLUB,
)
kind.pair(
    "capped solver with a test",
    {"a": "n"},
    lambda a: jnp.sum(a**2),
    lambda a: (
        2
        * lax.while_loop(
            lambda s: (s[0] < 200) & jnp.any(jnp.abs(s[1] ** 2 - a * a) > 1e-13 * a * a),
            lambda s: (s[0] + 1, 0.5 * (s[1] + a * a / s[1])),
            (0, a + 1),
        )[1]
    ),
    "without its square",
    lambda a: lax.while_loop(
        lambda s: (s[0] < 200) & jnp.any(jnp.abs(s[1] ** 2 - a) > 1e-13 * a),
        lambda s: (s[0] + 1, 0.5 * (s[1] + a / s[1])),
        (0, a + 1),
    )[1],
    domains="positive",
)
kind.pair(
    "kepler's equation",
    {"m": "n"},
    lambda m: jnp.sum(
        jnp.sin(
            lax.fori_loop(
                0, 40, lambda i, e: e - (e - 0.3 * jnp.sin(e) - m) / (1 - 0.3 * jnp.cos(e)), m
            )
        )
    ),
    lambda m: (lambda e: jnp.cos(e) / (1 - 0.3 * jnp.cos(e)))(
        lax.fori_loop(0, 60, lambda i, e: m + 0.3 * jnp.sin(e), m)
    ),
    "unrolled once",
    lambda m: (lambda e: jnp.cos(e) / (1 - 0.3 * jnp.cos(m)))(
        lax.fori_loop(0, 60, lambda i, e: m + 0.3 * jnp.sin(e), m)
    ),
    source="J. Meeus, Astronomical Algorithms",
)
kind.pair(
    "count of halvings",
    {"a": "n"},
    lambda a: jnp.sum(a * lax.while_loop(lambda s: jnp.any(s > 1), lambda s: s / 2, a) / 2),
    None,
    "the slope at no halving",
    lambda a: a * 1.0,
    at={"a": [5.0]},
    domains="positive",
)

kind = Kind("loops: implicit functions")
kind.pair(
    "fixed point of a contraction",
    {"x": "n"},
    lambda x: jnp.sum(lax.fori_loop(0, 60, lambda i, z: 0.5 * jnp.tanh(z) + x, x)),
    lambda x: (lambda z: 1 / (1 - 0.5 / jnp.cosh(z) ** 2))(
        lax.fori_loop(0, 80, lambda i, z: 0.5 * jnp.tanh(z) + x, x)
    ),
    "one step for the limit",
    lambda x: (lambda z: 1 + 0.5 / jnp.cosh(z) ** 2)(
        lax.fori_loop(0, 80, lambda i, z: 0.5 * jnp.tanh(z) + x, x)
    ),
    source="S. Bai et al., arXiv 1909.01377",
)
kind.pair(
    "ridge solution",
    {"b": "n", "a": "m n", "y": "m"},
    lambda b, a, y: jnp.sum(b * jnp.linalg.solve(a.T @ a + jnp.eye(b.size), a.T @ y)),
    lambda b, a, y: {
        "b": jnp.linalg.solve(a.T @ a + jnp.eye(b.size), a.T @ y),
        "y": a @ jnp.linalg.solve(a.T @ a + jnp.eye(b.size), b),
    },
    "no ridge in the adjoint",
    lambda b, a, y: {
        "b": jnp.linalg.solve(a.T @ a + jnp.eye(b.size), a.T @ y),
        "y": a @ jnp.linalg.solve(a.T @ a + 2 * jnp.eye(b.size), b),
    },
    source=BISHOP + ", 3.28",
)
kind.pair(
    "bisection's root",
    {"c": "n"},
    lambda c: jnp.sum(lax.fori_loop(0, 60, lambda i, z: z - (z**3 + z - c) / (3 * z**2 + 1), c)),
    lambda c: (lambda z: 1 / (3 * z**2 + 1))(
        lax.fori_loop(0, 60, lambda i, z: z - (z**3 + z - c) / (3 * z**2 + 1), c)
    ),
    "evaluated at c",
    lambda c: 1 / (3 * c**2 + 1),
    source="S. Krantz, H. Parks, Implicit Function Theorem",
)
kind.pair(
    "lambert's function",
    {"x": "n"},
    lambda x: jnp.sum(
        lax.fori_loop(
            0, 50, lambda i, w: w - (w * jnp.exp(w) - x) / (jnp.exp(w) * (w + 1)), jnp.log1p(x)
        )
    ),
    lambda x: (lambda w: w / (x * (1 + w)))(
        lax.fori_loop(
            0, 50, lambda i, w: w - (w * jnp.exp(w) - x) / (jnp.exp(w) * (w + 1)), jnp.log1p(x)
        )
    ),
    "w/x",
    lambda x: (lambda w: w / x)(
        lax.fori_loop(
            0, 50, lambda i, w: w - (w * jnp.exp(w) - x) / (jnp.exp(w) * (w + 1)), jnp.log1p(x)
        )
    ),
    domains="positive",
    source="R. Corless et al., On the Lambert W Function (1996)",
)
kind.pair(
    "adjoint of Euler's method",
    {"x": "n", "k": ""},
    lambda x, k: jnp.sum(lax.fori_loop(0, 8, lambda i, x: x - 0.1 * k * x, x)),
    lambda x, k: (jnp.full_like(x, (1 - 0.1 * k) ** 8), -0.8 * (1 - 0.1 * k) ** 7 * jnp.sum(x)),
    "the continuous adjoint",
    lambda x, k: (jnp.full_like(x, jnp.exp(-0.8 * k)), -0.8 * jnp.exp(-0.8 * k) * jnp.sum(x)),
    at={"k": 1.5, "x": [1.0, 2.0]},
    source="R. Chen et al., arXiv 1806.07366",
)

kind = Kind("medians and quantiles")
kind.pair(
    "median of an odd number",
    "5",
    lambda x: jnp.median(x) ** 2,
    lambda x: 2 * x * (x == jnp.median(x)) / jnp.sum(x == jnp.median(x)),
    "the mean's slope",
    lambda x: 2 * jnp.median(x) * jnp.ones_like(x) / 5,
    source="P. J. Huber, Robust Statistics (1981)",
)
kind.pair(
    "median of an even number",
    "4",
    lambda x: jnp.median(x),
    lambda x: jnp.zeros(4).at[jnp.argsort(x)[1:3]].set(0.5),
    "the lower middle alone",
    lambda x: jnp.zeros(4).at[jnp.argsort(x)[1]].set(1.0),
    source=JAX + ", jnp.median",
)
kind.pair(
    "upper quartile",
    "5",
    lambda x: jnp.quantile(x, 0.75),
    lambda x: jnp.zeros(5).at[jnp.argsort(x)[3]].set(1.0),
    "at the fourth place given",
    lambda x: jnp.zeros(5).at[3].set(1.0),
    at={"x": [4.0, 1.0, 3.0, 0.0, 2.0]},
    source=JAX + ", jnp.quantile",
)
kind.pair(
    "pinball loss",
    {"q": "", "y": "n"},
    lambda q, y: jnp.mean(jnp.where(y > q, 0.9 * (y - q), 0.1 * (q - y))),
    lambda q, y: jnp.mean(jnp.where(y > q, -0.9, 0.1)),
    "sides exchanged",
    lambda q, y: jnp.mean(jnp.where(y > q, -0.1, 0.9)),
    source="R. Koenker, G. Bassett, Regression Quantiles (1978)",
)
kind.pair(
    "trimmed mean",
    "5",
    lambda x: jnp.mean(jnp.sort(x)[1:-1]),
    lambda x: jnp.zeros(5).at[jnp.argsort(x)[1:-1]].set(1 / 3),
    "all over n",
    lambda x: jnp.zeros(5).at[jnp.argsort(x)[1:-1]].set(1 / 5),
    source="P. J. Huber, Robust Statistics (1981)",
)
