"""Layers of networks: normalisations, attention, convolutions, pooling, recurrences, embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.corpus.statement import CS231N, GOODFELLOW, JAX, TORCH, Kind

kind = Kind("layers: normalisations")
XG = {"x": "m n", "g": "m n"}
EPS = 1e-5


def standard(x, axis=-1):
    """Return the standardised array and its inverse deviation."""
    r = lax.rsqrt(jnp.var(x, axis, keepdims=True) + EPS)
    return (x - jnp.mean(x, axis, keepdims=True)) * r, r


def slope(x, g, axis=-1, mean=True, second=True):
    """Return the VJP of `standard`, or of what forgets its statistics' slopes."""
    z, r = standard(x, axis)
    g = (
        g
        - (jnp.mean(g, axis, keepdims=True) if mean else 0)
        - (z * jnp.mean(g * z, axis, keepdims=True) if second else 0)
    )
    return r * g


kind.pair(
    "layer norm",
    XG,
    lambda x, g: jnp.sum(standard(x)[0] * g),
    lambda x, g: slope(x, g),
    "the variance held still",
    lambda x, g: slope(x, g, second=False),
    source="J. Ba et al., arXiv 1607.06450",
)
kind.pair(
    "batch norm",
    XG,
    lambda x, g: jnp.sum(standard(x, 0)[0] * g),
    lambda x, g: slope(x, g, 0),
    "the mean held still",
    lambda x, g: slope(x, g, 0, mean=False),
    source="S. Ioffe, C. Szegedy, arXiv 1502.03167",
)
kind.pair(
    "rms norm",
    {"x": "m n", "w": "n", "g": "m n"},
    lambda x, w, g: jnp.sum(x * lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + EPS) * w * g),
    lambda x, w, g: (
        lambda r: (
            r * w * g - x * r**3 * jnp.mean(g * w * x, -1, keepdims=True),
            jnp.sum(g * x * r, 0),
        )
    )(lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + EPS)),
    "sum for mean",
    lambda x, w, g: (
        lambda r: (
            r * w * g - x * r**3 * jnp.sum(g * w * x, -1, keepdims=True),
            jnp.sum(g * x * r, 0),
        )
    )(lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + EPS)),
    source="B. Zhang, R. Sennrich, arXiv 1910.07467",
)
kind.pair(
    "instance norm",
    {"x": "b c n", "g": "b c n"},
    lambda x, g: jnp.sum(standard(x)[0] * g),
    lambda x, g: slope(x, g),
    "statistics over channels",
    lambda x, g: slope(x, g, (-2, -1)),
    source="D. Ulyanov et al., arXiv 1607.08022",
)
kind.pair(
    "weight norm",
    {"v": "n", "s": "", "x": "n"},
    lambda v, s, x: jnp.tanh(s * v @ x / jnp.sqrt(v @ v)),
    lambda v, s, x: (lambda u, d: (d * s * (x - u * (u @ x)) / jnp.sqrt(v @ v), d * u @ x))(
        v / jnp.sqrt(v @ v), 1 / jnp.cosh(s * v @ x / jnp.sqrt(v @ v)) ** 2
    ),
    "not projected",
    lambda v, s, x: (lambda u, d: (d * s * x / jnp.sqrt(v @ v), d * u @ x))(
        v / jnp.sqrt(v @ v), 1 / jnp.cosh(s * v @ x / jnp.sqrt(v @ v)) ** 2
    ),
    domains={"v": "positive"},
    source="T. Salimans, D. Kingma, arXiv 1602.07868, eq. 3",
)

kind = Kind("layers: attention")
QKV = {"q": "t d", "k": "s d", "v": "s e", "c": "t e"}


def attended(q, k, v, c, mask=None, scale=None):
    """Return the weights, and the slope in the scores."""
    scale = 1 / np.sqrt(q.shape[1]) if scale is None else scale
    scores = q @ k.T * scale
    p = jax.nn.softmax(scores if mask is None else jnp.where(mask, scores, -1e30))
    d = c @ v.T
    return p, p * (d - jnp.sum(p * d, 1, keepdims=True)), scale


def attention(q, k, v, c):
    return jnp.sum(c * (attended(q, k, v, c)[0] @ v))


def causal(q, k, v, c):
    mask = jnp.tril(jnp.ones((len(q), len(k)), bool))
    return jnp.sum(c * (attended(q, k, v, c, mask)[0] @ v))


kind.pair(
    "query",
    QKV,
    attention,
    lambda q, k, v, c: (lambda p, s, r: r * s @ k)(*attended(q, k, v, c)),
    "no scale",
    lambda q, k, v, c: attended(q, k, v, c)[1] @ k,
    source="A. Vaswani et al., arXiv 1706.03762",
)
kind.pair(
    "key",
    {name: QKV[name] for name in "kqvc"},
    attention,
    lambda k, q, v, c: (lambda p, s, r: r * s.T @ q)(*attended(q, k, v, c)),
    "the softmax's diagonal alone",
    lambda k, q, v, c: (lambda p, s, r: r * (p * (1 - p) * (c @ v.T)).T @ q)(*attended(q, k, v, c)),
    source="T. Dao et al., arXiv 2205.14135",
)
kind.pair(
    "value",
    {name: QKV[name] for name in "vqkc"},
    attention,
    lambda v, q, k, c: attended(q, k, v, c)[0].T @ c,
    "normalised along queries",
    lambda v, q, k, c: jax.nn.softmax(q @ k.T / np.sqrt(q.shape[1]), 0).T @ c,
    source="T. Dao et al., arXiv 2205.14135, app. B.2",
)
kind.pair(
    "causal",
    QKV,
    causal,
    lambda q, k, v, c: (lambda p, s, r: r * s @ k)(
        *attended(q, k, v, c, jnp.tril(jnp.ones((len(q), len(k)), bool)))
    ),
    "aligned at the end",
    lambda q, k, v, c: (lambda p, s, r: r * s @ k)(
        *attended(q, k, v, c, jnp.tril(jnp.ones((len(q), len(k)), bool), max(len(k) - len(q), 0)))
    ),
    sizes={"t": 2, "s": 4, "d": 3, "e": 2},
    source=TORCH,
)
kind.pair(
    "linear attention",
    QKV,
    lambda q, k, v, c: jnp.sum(c * (q @ (k.T @ v))),
    lambda q, k, v, c: {"q": c @ v.T @ k, "k": v @ c.T @ q, "v": k @ q.T @ c},
    "key and query exchanged",
    lambda q, k, v, c: {"q": c @ v.T @ k, "k": v @ c.T @ q, "v": k @ (q**2).T @ c},
    source="A. Katharopoulos et al., arXiv 2006.16236",
)

kind = Kind("layers: convolutions")
kind.pair(
    "full, one axis",
    {"x": "n", "k": "3", "g": "n"},
    lambda x, k, g: (
        jnp.sum(jnp.convolve(x, k, "same")[: x.size] * g)
        if x.size >= 3
        else jnp.sum(jnp.convolve(x, k)[1:-1] * g)
    ),
    lambda x, k, g: jnp.convolve(g, k[::-1])[1:-1],
    "kernel not reversed",
    lambda x, k, g: jnp.convolve(g, k)[1:-1],
    source=JAX + ", jnp.convolve",
)
kind.pair(
    "circular",
    {"x": "n", "k": "n"},
    lambda x, k: jnp.sum(
        jnp.tanh(jnp.array([jnp.sum(jnp.roll(x[::-1], i + 1) * k) for i in range(x.size)]))
    ),
    lambda x, k: (lambda s: jnp.array([jnp.sum(s * jnp.roll(k, j)) for j in range(x.size)]))(
        1 / jnp.cosh(jnp.array([jnp.sum(jnp.roll(x[::-1], i + 1) * k) for i in range(x.size)])) ** 2
    ),
    "rolled the other way",
    lambda x, k: (lambda s: jnp.array([jnp.sum(s * jnp.roll(k, -j)) for j in range(x.size)]))(
        1 / jnp.cosh(jnp.array([jnp.sum(jnp.roll(x[::-1], i + 1) * k) for i in range(x.size)])) ** 2
    ),
    source=GOODFELLOW + ", sec. 9.1",
)


def conv(x, k, stride=1):
    return lax.conv_general_dilated(x, k, (stride, stride), "SAME")


def conv_kernel(x, k, g):
    """Return the kernel's slope by a patch for each of its places."""
    p = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    h, w = x.shape[2:]
    rows = [
        [jnp.einsum("nchw,nfhw->fc", p[:, :, i : i + h, j : j + w], g) for j in range(3)]
        for i in range(3)
    ]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


IMAGES = {"k": "f c 3 3", "x": "n c 4 5", "g": "n f 4 5"}
kind.pair(
    "kernel of two axes",
    IMAGES,
    lambda k, x, g: jnp.sum(conv(x, k) * g),
    lambda k, x, g: conv_kernel(x, k, g),
    "the kernel's axes exchanged",
    lambda k, x, g: jnp.swapaxes(conv_kernel(x, k, g), 2, 3),
    source=GOODFELLOW + ", eq. 9.11",
)
kind.pair(
    "input of two axes",
    {name: IMAGES[name] for name in "xkg"},
    lambda x, k, g: jnp.sum(conv(x, k) * g),
    lambda x, k, g: conv(g, jnp.swapaxes(k, 0, 1)[:, :, ::-1, ::-1]),
    "kernel not reversed",
    lambda x, k, g: conv(g, jnp.swapaxes(k, 0, 1)),
    source=GOODFELLOW + ", eq. 9.13",
)
kind.pair(
    "bias",
    {"b": "f", "x": "n c 4 4", "k": "f c 3 3"},
    lambda b, x, k: jnp.sum((conv(x, k, 2) + b[:, None, None]) ** 2),
    lambda b, x, k: 2 * jnp.sum(conv(x, k, 2) + b[:, None, None], (0, 2, 3)),
    "mean over places",
    lambda b, x, k: 2 * jnp.sum(jnp.mean(conv(x, k, 2) + b[:, None, None], (2, 3)), 0),
    source=TORCH + ", Conv2d",
)

kind = Kind("layers: pooling and resizing")
ROWS = {"x": "m 2*n"}
kind.pair(
    "average pooling",
    ROWS,
    lambda x: jnp.sum(jnp.mean(x.reshape(len(x), -1, 2), 2) ** 2),
    lambda x: jnp.repeat(jnp.mean(x.reshape(len(x), -1, 2), 2), 2, 1),
    "half of it",
    lambda x: jnp.repeat(jnp.mean(x.reshape(len(x), -1, 2), 2), 2, 1) / 2,
    source=TORCH + ", AvgPool1d",
)
kind.pair(
    "max pooling",
    ROWS,
    lambda x: jnp.sum(jnp.max(x.reshape(len(x), -1, 2), 2) ** 2),
    lambda x: (
        lambda y, m: (2 * m * (y == m) / jnp.sum(y == m, 2, keepdims=True)).reshape(x.shape)
    )(x.reshape(len(x), -1, 2), jnp.max(x.reshape(len(x), -1, 2), 2, keepdims=True)),
    "to the first of a window",
    lambda x: jnp.stack(
        [2 * jnp.max(x.reshape(len(x), -1, 2), 2), 0 * jnp.max(x.reshape(len(x), -1, 2), 2)], 2
    ).reshape(x.shape),
    at={"x": [[1.0, 2.0]]},
    source=CS231N,
)
kind.pair(
    "nearest upsampling",
    {"x": "m n"},
    lambda x: jnp.sum(jnp.repeat(x, 3, 1) * jnp.arange(3 * x.shape[1])),
    lambda x: jnp.broadcast_to(jnp.arange(3.0 * x.shape[1]).reshape(-1, 3).sum(1), x.shape),
    "tiled for repeated",
    lambda x: jnp.broadcast_to(jnp.arange(3.0 * x.shape[1]).reshape(3, -1).sum(0), x.shape),
    sizes={"m": 2, "n": 3},
    source=TORCH + ", Upsample",
)
kind.pair(
    "padding by reflection",
    "n",
    lambda x: jnp.sum(jnp.pad(x, 1, "edge") ** 2),
    lambda x: (
        2 * x + 2 * x * (jnp.arange(x.size) == 0) + 2 * x * (jnp.arange(x.size) == x.size - 1)
    ),
    "padded by zeros",
    lambda x: 2 * x,
    source=JAX + ", jnp.pad",
)
kind.pair(
    "l2 pooling",
    ROWS,
    lambda x: jnp.sum(jnp.sqrt(jnp.sum(x.reshape(len(x), -1, 2) ** 2, 2) + 1e-2)),
    lambda x: x / jnp.repeat(jnp.sqrt(jnp.sum(x.reshape(len(x), -1, 2) ** 2, 2) + 1e-2), 2, 1),
    "the windows' squares",
    lambda x: x / jnp.repeat(jnp.sum(x.reshape(len(x), -1, 2) ** 2, 2) + 1e-2, 2, 1),
)

kind = Kind("layers: recurrences and embeddings")


def rolled(w, x):
    """Return all states of h ← tanh(w h + x)."""
    return lax.scan(lambda h, v: (jnp.tanh(w @ h + v),) * 2, jnp.zeros(len(w)), x)[1]


def through_time(w, x, cut):
    """Return the slope of the last state's sum, back through time, or cut after one step."""
    states = jnp.concatenate([jnp.zeros((1, len(w))), rolled(w, x)])

    def back(carry, both):
        d, total = carry
        before, now = both
        a = d * (1 - now**2)
        return (w.T @ a * (1 - cut), total + jnp.outer(a, before)), None

    start = (jnp.ones(len(w)), jnp.zeros_like(w))
    return lax.scan(back, start, (states[:-1], states[1:]), reverse=True)[0][1]


kind.pair(
    "recurrent network",
    {"w": "n n", "x": "t n"},
    lambda w, x: jnp.sum(rolled(w, x)[-1]),
    lambda w, x: through_time(w, x, 0),
    "cut after a step",
    lambda w, x: through_time(w, x, 1),
    source=GOODFELLOW + ", eq. 10.26",
)
kind.pair(
    "embedding",
    {"e": "v d", "k": "t"},
    lambda e, k: jnp.sum(jnp.sin(e[k])),
    lambda e, k: jnp.zeros_like(e).at[k].add(jnp.cos(e[k])),
    "repeated tokens once",
    lambda e, k: jnp.zeros_like(e).at[k].set(jnp.cos(e[k])),
    at={"k": [1, 1, 0]},
    sizes={"v": 3, "d": 2},
    domains={"k": "index v"},
    source=TORCH + ", Embedding",
)
kind.pair(
    "embedding with padding",
    {"e": "v d", "k": "t"},
    lambda e, k: jnp.sum(e[k] ** 2 * (k != 0)[:, None]),
    lambda e, k: jnp.zeros_like(e).at[k].add(2 * e[k] * (k != 0)[:, None]),
    "padding not left out",
    lambda e, k: jnp.zeros_like(e).at[k].add(2 * e[k]),
    at={"k": [0, 1]},
    sizes={"v": 2, "d": 2},
    domains={"k": "index v"},
    source=TORCH + ", padding_idx",
)
kind.pair(
    "gated unit",
    {"h": "n", "z": "n", "c": "n"},
    lambda h, z, c: jnp.sum(((1 - jax.nn.sigmoid(z)) * h + jax.nn.sigmoid(z) * c) ** 2),
    lambda h, z, c: (lambda s, o: (2 * o * (1 - s), 2 * o * s * (1 - s) * (c - h), 2 * o * s))(
        jax.nn.sigmoid(z), (1 - jax.nn.sigmoid(z)) * h + jax.nn.sigmoid(z) * c
    ),
    "gates exchanged",
    lambda h, z, c: (lambda s, o: (2 * o * s, 2 * o * s * (1 - s) * (c - h), 2 * o * (1 - s)))(
        jax.nn.sigmoid(z), (1 - jax.nn.sigmoid(z)) * h + jax.nn.sigmoid(z) * c
    ),
    source="K. Cho et al., arXiv 1406.1078",
)
kind.pair(
    "glu",
    {"x": "m n", "y": "m n"},
    lambda x, y: jnp.sum(x * jax.nn.sigmoid(y)),
    lambda x, y: (jax.nn.sigmoid(y), x * jax.nn.sigmoid(y) * jax.nn.sigmoid(-y)),
    "x lost",
    lambda x, y: (jax.nn.sigmoid(y), jax.nn.sigmoid(y) * jax.nn.sigmoid(-y)),
    source="Y. Dauphin et al., arXiv 1612.08083",
)
