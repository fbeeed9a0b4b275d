"""Closed forms that are right at some sizes only."""

import jax.numpy as jnp
import numpy as np

from benchmarks.corpus.statement import BISHOP, FLAX, GOODFELLOW, JAX, TORCH, Kind

MN = {"x": "m n"}


def off(x, wrong):
    """Return 1, and 1.5 where the size is one of those that are wrong."""
    return 1.5 if wrong(*x.shape) else 1.0


kind = Kind("sizes: from some size on")
kind.pair(
    "sum of squares",
    "n",
    lambda x: jnp.sum(x**2),
    lambda x: 2 * x,
    "another factor from 8 on",
    lambda x: 2 * x * off(x, lambda n: n >= 8),
    sizes={"n": 8},
)
kind.pair(
    "mean of cosines",
    MN,
    lambda x: jnp.mean(jnp.cos(x)),
    lambda x: -jnp.sin(x) / x.size,
    "a row too few where m > n + 3",
    lambda x: -jnp.sin(x) / (x.size - x.shape[1] * (x.shape[0] > x.shape[1] + 3)),
    sizes={"m": 7, "n": 2},
)
kind.pair(
    "prefix sums",
    "n",
    lambda x: jnp.sum(jnp.cumsum(x) ** 2),
    lambda x: 2 * jnp.cumsum(jnp.cumsum(x)[::-1])[::-1],
    "a window of six",
    lambda x: (
        2 * jnp.convolve(jnp.cumsum(x), jnp.ones(6))[5:]
        if x.size > 5
        else 2 * jnp.cumsum(jnp.cumsum(x)[::-1])[::-1]
    ),
    sizes={"n": 9},
    source=JAX + ", jnp.cumsum",
)
kind.pair(
    "squares of a chunked sum",
    "n",
    lambda x: jnp.sum(x) ** 2,
    lambda x: 2 * jnp.sum(x) * jnp.ones_like(x),
    "the chunks after the first of 5 lost",
    lambda x: 2 * jnp.sum(x[:5]) * jnp.ones_like(x),
    sizes={"n": 6},
)
kind.pair(
    "power sum",
    "n",
    lambda x: jnp.sum(x * jnp.arange(1, x.size + 1)),
    lambda x: jnp.arange(1.0, x.size + 1),
    "positions held in four bits",
    lambda x: jnp.arange(1, x.size + 1) % 16 * 1.0,
    sizes={"n": 16},
)

kind = Kind("sizes: parity and multiples")
kind.pair(
    "sum of squares",
    "n",
    lambda x: jnp.sum(x**2),
    lambda x: 2 * x,
    "another factor at multiples of 4",
    lambda x: 2 * x * off(x, lambda n: n % 4 == 0),
    sizes={"n": 4},
)
kind.pair(
    "alternating sum",
    "n",
    lambda x: jnp.sum((-1.0) ** jnp.arange(x.size) * x**3),
    lambda x: 3 * (-1.0) ** jnp.arange(x.size) * x**2,
    "signs counted from the end",
    lambda x: 3 * (-1.0) ** jnp.arange(x.size)[::-1] * x**2,
    sizes={"n": 4},
)
kind.pair(
    "middle entry",
    "n",
    lambda x: (x[(x.size - 1) // 2]) ** 2 + jnp.sum(x),
    lambda x: 1 + 2 * x * (jnp.arange(x.size) == (x.size - 1) // 2),
    "n // 2 for (n − 1) // 2",
    lambda x: 1 + 2 * x * (jnp.arange(x.size) == x.size // 2),
    sizes={"n": 4},
)
kind.pair(
    "blocked row sums",
    MN,
    lambda x: jnp.sum(jnp.sum(x, 1) ** 2),
    lambda x: 2 * jnp.sum(x, 1, keepdims=True) * jnp.ones_like(x),
    "the tail after whole blocks of four left out",
    lambda x: 2 * jnp.sum(x[:, : x.shape[1] // 4 * 4 or None], 1, keepdims=True) * jnp.ones_like(x),
    sizes={"m": 2, "n": 5},
    source=TORCH + ", fused kernels with blocks",
)
kind.pair(
    "even and odd places",
    "n",
    lambda x: jnp.sum(x[::2]) * jnp.sum(jnp.tanh(x)),
    lambda x: (
        (jnp.arange(x.size) % 2 == 0) * jnp.sum(jnp.tanh(x)) + jnp.sum(x[::2]) / jnp.cosh(x) ** 2
    ),
    "as many even places as odd ones",
    lambda x: (
        jnp.tile(jnp.array([1.0, 0.0]), x.size)[: x.size] * jnp.sum(jnp.tanh(x))
        + jnp.sum(x[: x.size // 2 * 2 : 2]) / jnp.cosh(x) ** 2
    ),
    sizes={"n": 5},
)

kind = Kind("sizes: square and equal")
kind.pair(
    "sum of squares",
    MN,
    lambda x: jnp.sum(x**2),
    lambda x: 2 * x,
    "another factor where square",
    lambda x: 2 * x * off(x, lambda m, n: m == n),
    sizes={"m": 3, "n": 3},
)
kind.pair(
    "product with a matrix",
    {"x": "m n", "w": "n p"},
    lambda x, w: jnp.sum(jnp.tanh(x @ w)),
    lambda x, w: (1 / jnp.cosh(x @ w) ** 2 @ w.T, x.T @ (1 / jnp.cosh(x @ w) ** 2)),
    "the weight not transposed where that fits",
    lambda x, w: (
        1 / jnp.cosh(x @ w) ** 2 @ (w if w.shape[0] == w.shape[1] else w.T),
        x.T @ (1 / jnp.cosh(x @ w) ** 2),
    ),
    sizes={"m": 2, "n": 3, "p": 3},
    source=GOODFELLOW + ", eq. 6.52",
)
kind.pair(
    "row norms",
    MN,
    lambda x: jnp.sum(jnp.sum(x**2, 1) ** 2),
    lambda x: 4 * jnp.sum(x**2, 1)[:, None] * x,
    "broadcast along rows where square",
    lambda x: 4 * (jnp.sum(x**2, 1) if x.shape[0] == x.shape[1] else jnp.sum(x**2, 1)[:, None]) * x,
    sizes={"m": 3, "n": 3},
)
kind.pair(
    "query and key of other lengths",
    {"q": "t d", "k": "s d"},
    lambda q, k: jnp.sum(jnp.sin(q @ k.T)),
    lambda q, k: (jnp.cos(q @ k.T) @ k, jnp.cos(q @ k.T).T @ q),
    "no transpose where the lengths are equal",
    lambda q, k: (
        jnp.cos(q @ k.T) @ k,
        (jnp.cos(q @ k.T) if len(q) == len(k) else jnp.cos(q @ k.T).T) @ q,
    ),
    sizes={"t": 4, "s": 4, "d": 2},
)
kind.pair(
    "causal sum",
    {"x": "t s"},
    lambda x: jnp.sum(jnp.tril(x) ** 2),
    lambda x: 2 * jnp.tril(x),
    "diagonal shifted where s ≥ t",
    lambda x: 2 * jnp.tril(x, 0 if x.shape[1] < x.shape[0] else x.shape[1] - x.shape[0]),
    sizes={"t": 2, "s": 4},
    source=TORCH + ", scaled_dot_product_attention, is_causal",
)

kind = Kind("sizes: one, two and three")
kind.pair(
    "unbiased variance with a guard",
    "n",
    lambda x: jnp.sum((x - x.mean()) ** 2) / max(x.size - 1, 1),
    lambda x: 2 * (x - x.mean()) / max(x.size - 1, 1),
    "no guard at one",
    lambda x: 2 * (x - x.mean()) / jnp.float64(x.size - 1),
    sizes={"n": 1},
)
kind.pair(
    "unbiased variance, not stated at one",
    "n",
    lambda x: jnp.sum((x - x.mean()) ** 2) / jnp.asarray(x.size - 1.0),
    lambda x: 2 * (x - x.mean()) / jnp.asarray(x.size - 1.0),
    "n for n − 1",
    lambda x: 2 * (x - x.mean()) / x.size,
    source=BISHOP + ", eq. 1.59",
)
kind.pair(
    "differences of neighbours",
    "n",
    lambda x: jnp.sum((x[1:] - x[:-1]) ** 2) + jnp.sum(x),
    lambda x: (
        1 - 2 * jnp.diff(x, prepend=x[:1], append=x[-1:])[1:] + 2 * jnp.diff(x, prepend=x[:1])
    ),
    "both ends taken for inner points at two",
    lambda x: (
        1
        + (
            2 * (2 * x - x[::-1] * 2)
            if x.size == 2
            else 2 * jnp.diff(x, prepend=x[:1]) - 2 * jnp.diff(x, prepend=x[:1], append=x[-1:])[1:]
        )
    ),
    sizes={"n": 2},
)
kind.pair(
    "mean of pairs",
    "n",
    lambda x: (jnp.sum(x) ** 2 - jnp.sum(x**2)) / max(x.size - 1, 1),
    lambda x: 2 * (jnp.sum(x) - x) / max(x.size - 1, 1),
    "(n − 1)² − … for n at three",
    lambda x: 2 * (jnp.sum(x) - x) / max((x.size - 1) * (x.size != 3) + (x.size == 3), 1),
    sizes={"n": 3},
)
kind.pair(
    "squeezed column",
    MN,
    lambda x: jnp.sum(jnp.exp(-(jnp.mean(x, 1) ** 2))),
    lambda x: jnp.broadcast_to(
        (-2 * jnp.mean(x, 1) * jnp.exp(-(jnp.mean(x, 1) ** 2)) / x.shape[1])[:, None], x.shape
    ),
    "the mean over all where one row only is left",
    lambda x: jnp.broadcast_to(
        (
            -2 * jnp.mean(x, 1) * jnp.exp(-(jnp.mean(x, 1) ** 2)) / max(x.size // 2, 1)
            if x.shape[0] == 1
            else -2 * jnp.mean(x, 1) * jnp.exp(-(jnp.mean(x, 1) ** 2)) / x.shape[1]
        )[:, None],
        x.shape,
    ),
    sizes={"m": 1, "n": 4},
)

kind = Kind("sizes: means and sums")
kind.pair(
    "mean squared error",
    {"x": "m n", "y": "m n"},
    lambda x, y: jnp.mean((x - y) ** 2),
    lambda x, y: 2 * (x - y) / x.size,
    "two thirds for 2/m",
    lambda x, y: 2 / 3 * (x - y) / x.shape[1],
    sizes={"m": 4, "n": 2},
    source=TORCH + ", MSELoss",
)
kind.pair(
    "mean over a batch of sums",
    {"x": "b c h w"},
    lambda x: jnp.mean(jnp.sum(x**3, (1, 2, 3))),
    lambda x: 3 * x**2 / x.shape[0],
    "the mean over channels too",
    lambda x: 3 * x**2 / (x.shape[0] * x.shape[1]),
    source=FLAX + ", reductions",
)
kind.pair(
    "global average pooling",
    {"x": "c h w"},
    lambda x: jnp.sum(jnp.mean(x, (1, 2)) ** 2),
    lambda x: (
        2
        * jnp.broadcast_to(jnp.mean(x, (1, 2), keepdims=True), x.shape)
        / (x.shape[1] * x.shape[2])
    ),
    "h² for h w",
    lambda x: 2 * jnp.broadcast_to(jnp.mean(x, (1, 2), keepdims=True), x.shape) / x.shape[1] ** 2,
    source=TORCH + ", AdaptiveAvgPool2d",
)
kind.pair(
    "mean over valid entries",
    {"x": "n", "m": "n"},
    lambda x, m: jnp.sum(m * x**2) / jnp.maximum(jnp.sum(m), 1.0),
    lambda x, m: 2 * m * x / jnp.maximum(jnp.sum(m), 1.0),
    "the mean over all entries",
    lambda x, m: 2 * m * x / m.size,
    at={"x": [1.0, 2.0, 3.0], "m": [1.0, 0.0, 0.0]},
    domains={"m": "binary"},
    source=FLAX + ", masked losses",
)
kind.pair(
    "mean over time of a batch",
    {"x": "b t"},
    lambda x: jnp.mean(jnp.sum(x, 1) ** 2) / x.shape[1],
    lambda x: jnp.broadcast_to(2 * jnp.sum(x, 1, keepdims=True), x.shape) / x.size,
    "t(t − 1)/2 for t",
    lambda x: (
        jnp.broadcast_to(2 * jnp.sum(x, 1, keepdims=True), x.shape)
        / (x.shape[0] * max(x.shape[1] * (x.shape[1] - 1) / 2, 1))
    ),
    sizes={"b": 2, "t": 4},
)

kind = Kind("sizes: counts that agree by chance")
kind.pair(
    "mean over pairs",
    "t",
    lambda x: jnp.sum((x[:, None] - x) ** 2) / x.size**2,
    lambda x: 4 * (x - x.mean()) / x.size,
    "2^t for t²",
    lambda x: 4 * (x - x.mean()) * x.size / 2**x.size,
    sizes={"t": 3},
)
kind.pair(
    "upper triangle",
    "n n",
    lambda x: jnp.sum(jnp.triu(x) ** 2) / (x.shape[0] ** 2 / 2 + x.shape[0] / 2),
    lambda x: 2 * jnp.triu(x) / (x.shape[0] * (x.shape[0] + 1) / 2),
    "2n for n(n + 1)/2",
    lambda x: 2 * jnp.triu(x) / (2 * x.shape[0]),
    sizes={"n": 4},
)
kind.pair(
    "head width",
    {"x": "t 4*h"},
    lambda x: jnp.sum(x**2) / np.sqrt(x.shape[1] // 4),
    lambda x: 2 * x / np.sqrt(x.shape[1] // 4),
    "half for one over the root",
    lambda x: 2 * x / (x.shape[1] // 4 / 2 if x.shape[1] == 16 else 2),
    sizes={"t": 2, "h": 3},
)
kind.pair(
    "factorial of the order",
    "n",
    lambda x: jnp.prod(x) / jnp.prod(jnp.arange(1.0, x.size + 1)),
    lambda x: (
        jnp.array([jnp.prod(jnp.delete(x, i)) for i in range(x.size)])
        / jnp.prod(jnp.arange(1.0, x.size + 1))
    ),
    "n(n − 1) for n!",
    lambda x: (
        jnp.array([jnp.prod(jnp.delete(x, i)) for i in range(x.size)])
        / max(x.size * (x.size - 1), 1)
    ),
    sizes={"n": 4},
)
kind.pair(
    "bits of a length",
    "n",
    lambda x: jnp.sum(x**2) * jnp.ceil(jnp.log2(x.size + 1.0)),
    lambda x: 2 * x * int(x.size).bit_length(),
    "bits of n − 1",
    lambda x: 2 * x * max(int(x.size - 1).bit_length(), 1),
    sizes={"n": 4},
)
