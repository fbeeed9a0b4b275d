"""Distances, kernels, spectra of signals, and trees of inputs."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.corpus.statement import BISHOP, ESL, GOODFELLOW, RASMUSSEN, Kind

kind = Kind("geometry: distances")


def squared(x, y):
    return jnp.sum((x[:, None] - y) ** 2, -1)


XY = {"x": "m d", "y": "n d"}
kind.pair(
    "chamfer-like sum",
    XY,
    lambda x, y: jnp.sum(jnp.exp(-squared(x, y))),
    lambda x, y: -2 * jnp.einsum("mn,mnd->md", jnp.exp(-squared(x, y)), x[:, None] - y),
    "summed over the wrong points",
    lambda x, y: -2 * jnp.exp(-squared(x, y)).sum(1)[:, None] * (x - y.mean(0)),
)
kind.pair(
    "cosine similarity",
    {"x": "n", "y": "n"},
    lambda x, y: x @ y / jnp.sqrt(x @ x * (y @ y)),
    lambda x, y: y / jnp.sqrt(x @ x * (y @ y)) - x * (x @ y) / (x @ x) ** 1.5 / jnp.sqrt(y @ y),
    "norms held still",
    lambda x, y: y / jnp.sqrt(x @ x * (y @ y)),
    domains={"x": "positive", "y": "positive"},
    source="PyTorch, CosineSimilarity",
)
kind.pair(
    "k-means",
    XY,
    lambda x, y: jnp.sum(jnp.min(squared(x, y), 1)),
    lambda x, y: {
        "y": jnp.zeros_like(y)
        .at[jnp.argmin(squared(x, y), 1)]
        .add(2 * (y[jnp.argmin(squared(x, y), 1)] - x))
    },
    "a mean of each cluster",
    lambda x, y: {"y": 2 * (y - x.mean(0))},
    source=BISHOP + ", eq. 9.1",
    options={
        "inputs": {
            "x": np.array([[0.0, 1.0], [2.0, 2.5], [-1.0, 0.3]]),
            "y": np.array([[0.2, 0.7], [1.8, 2.0]]),
        }
    },
)
kind.pair(
    "stress of an embedding",
    {"x": "n d", "t": "n n"},
    lambda x, t: jnp.sum((squared(x, x) - t) ** 2),
    lambda x, t: 4 * jnp.einsum("ij,ijd->id", 2 * squared(x, x) - t - t.T, x[:, None] - x),
    "the target taken for symmetric",
    lambda x, t: 8 * jnp.einsum("ij,ijd->id", squared(x, x) - t, x[:, None] - x),
    source=ESL + ", eq. 14.98",
)
kind.pair(
    "sinkhorn-like soft minimum",
    XY,
    lambda x, y: -jnp.sum(jax.nn.logsumexp(-squared(x, y), 1)),
    lambda x, y: 2 * jnp.einsum("mn,mnd->md", jax.nn.softmax(-squared(x, y), 1), x[:, None] - y),
    "softmax along the other axis",
    lambda x, y: 2 * jnp.einsum("mn,mnd->md", jax.nn.softmax(-squared(x, y), 0), x[:, None] - y),
    source="M. Cuturi, arXiv 1306.0895",
)

kind = Kind("geometry: kernels and processes")


def rbf(x, r):
    return jnp.exp(-((x[:, None] - x) ** 2) / (2 * r**2))


def evidence(r, x, y):
    k = rbf(x, r) + 0.1 * jnp.eye(x.size)
    return 0.5 * y @ jnp.linalg.solve(k, y) + 0.5 * jnp.linalg.slogdet(k)[1]


def evidence_slope(r, x, y, determinant):
    k = rbf(x, r) + 0.1 * jnp.eye(x.size)
    dk = rbf(x, r) * (x[:, None] - x) ** 2 / r**3
    a = jnp.linalg.solve(k, y)
    return 0.5 * jnp.trace((determinant * jnp.linalg.inv(k) - jnp.outer(a, a)) @ dk)


kind.pair(
    "marginal likelihood",
    {"r": "", "x": "n", "y": "n"},
    evidence,
    lambda r, x, y: evidence_slope(r, x, y, 1),
    "no determinant",
    lambda r, x, y: evidence_slope(r, x, y, 0),
    domains={"r": "positive"},
    source=RASMUSSEN + ", eq. 5.9",
)
kind.pair(
    "rbf in its length",
    {"r": "", "x": "n"},
    lambda r, x: jnp.sum(rbf(x, r)),
    lambda r, x: jnp.sum(rbf(x, r) * (x[:, None] - x) ** 2) / r**3,
    "r² for r³",
    lambda r, x: jnp.sum(rbf(x, r) * (x[:, None] - x) ** 2) / r**2,
    domains={"r": "positive"},
    source=RASMUSSEN + ", eq. 5.1",
)
kind.pair(
    "matérn 3/2",
    {"r": "", "d": "n"},
    lambda r, d: jnp.sum((1 + np.sqrt(3) * d / r) * jnp.exp(-np.sqrt(3) * d / r)),
    lambda r, d: (
        jnp.sum(3 * d**2 / r**3 * jnp.exp(-np.sqrt(3) * d / r)),
        -3 * d / r**2 * jnp.exp(-np.sqrt(3) * d / r),
    ),
    "the exponent's slope alone",
    lambda r, d: (
        jnp.sum(3 * d**2 / r**3 * jnp.exp(-np.sqrt(3) * d / r)),
        -np.sqrt(3) / r * (1 + np.sqrt(3) * d / r) * jnp.exp(-np.sqrt(3) * d / r),
    ),
    domains={"r": "positive", "d": "positive"},
    source=RASMUSSEN + ", eq. 4.17",
)
kind.pair(
    "kernel ridge",
    {"a": "n", "k": "n n", "y": "n"},
    lambda a, k, y: jnp.sum((y - k @ a) ** 2) + 0.1 * a @ k @ a,
    lambda a, k, y: -2 * k @ (y - k @ a) + 0.2 * k @ a,
    "penalty's half",
    lambda a, k, y: -2 * k @ (y - k @ a) + 0.1 * k @ a,
    domains={"k": "spd"},
    source=ESL + ", eq. 5.52",
)
kind.pair(
    "mmd",
    {"x": "m d", "y": "n d"},
    lambda x, y: jnp.mean(jnp.exp(-squared(x, x))) - 2 * jnp.mean(jnp.exp(-squared(x, y))),
    lambda x, y: (
        -4 * jnp.einsum("ij,ijd->id", jnp.exp(-squared(x, x)), x[:, None] - x) / len(x) ** 2
        + 4 * jnp.einsum("ij,ijd->id", jnp.exp(-squared(x, y)), x[:, None] - y) / (len(x) * len(y))
    ),
    "the first term once",
    lambda x, y: (
        -2 * jnp.einsum("ij,ijd->id", jnp.exp(-squared(x, x)), x[:, None] - x) / len(x) ** 2
        + 4 * jnp.einsum("ij,ijd->id", jnp.exp(-squared(x, y)), x[:, None] - y) / (len(x) * len(y))
    ),
    source="A. Gretton et al., JMLR 13 (2012), eq. 3",
)

kind = Kind("signals: spectra")
kind.pair(
    "power spectrum",
    {"x": "n", "w": "n"},
    lambda x, w: jnp.sum(w * jnp.abs(jnp.fft.fft(x)) ** 2),
    lambda x, w: 2 * x.size * jnp.real(jnp.fft.ifft(w * jnp.fft.fft(x))),
    "no n",
    lambda x, w: 2 * jnp.real(jnp.fft.ifft(w * jnp.fft.fft(x))),
    sizes={"n": 4},
    source="A. Oppenheim, R. Schafer, Discrete-Time Signal Processing (2009)",
)
kind.pair(
    "real part of a transform",
    {"x": "n", "w": "n"},
    lambda x, w: jnp.sum(w * jnp.real(jnp.fft.fft(x))),
    lambda x, w: jnp.real(jnp.fft.fft(w)),
    "inverse for forward",
    lambda x, w: jnp.real(jnp.fft.ifft(w)),
    sizes={"n": 4},
)
kind.pair(
    "parseval",
    {"x": "n"},
    lambda x: jnp.sum(jnp.abs(jnp.fft.fft(x)) ** 2),
    lambda x: 2 * x.size * x,
    "2x",
    lambda x: 2 * x,
    sizes={"n": 4},
    source="A. Oppenheim, R. Schafer (2009), eq. 2.157",
)
kind.pair(
    "half spectrum",
    {"x": "2*n"},
    lambda x: jnp.sum(jnp.abs(jnp.fft.rfft(x)) ** 2),
    lambda x: (
        x.size * x
        + jnp.sum(x)
        + (-1.0) ** jnp.arange(x.size) * jnp.sum((-1.0) ** jnp.arange(x.size) * x)
    ),
    "as the whole spectrum",
    lambda x: 2 * x.size * x,
    sizes={"n": 3},
    source="JAX documentation, jnp.fft.rfft",
)
kind.pair(
    "cosine series",
    {"a": "n", "t": "m"},
    lambda a, t: jnp.sum((jnp.cos(jnp.outer(t, jnp.arange(a.size))) @ a) ** 2),
    lambda a, t: {
        "a": 2
        * jnp.cos(jnp.outer(t, jnp.arange(a.size))).T
        @ (jnp.cos(jnp.outer(t, jnp.arange(a.size))) @ a)
    },
    "diagonal alone, as if orthogonal",
    lambda a, t: {"a": 2 * a * jnp.sum(jnp.cos(jnp.outer(t, jnp.arange(a.size))) ** 2, 0)},
    source=GOODFELLOW + ", sec. 2.6",
)

kind = Kind("trees of inputs")
NET = {"p": {"w": "n h", "b": "h", "v": "h"}, "x": "m n"}


def net(p, x):
    return jnp.sum(jnp.tanh(x @ p["w"] + p["b"]) @ p["v"])


def net_slope(p, x, bias=jnp.sum, gate=lambda h: 1 - h**2):
    h = jnp.tanh(x @ p["w"] + p["b"])
    d = gate(h) * p["v"]
    return {"p": {"w": x.T @ d, "b": bias(d, axis=0), "v": jnp.sum(h, 0)}}


kind.pair(
    "perceptron",
    NET,
    net,
    lambda p, x: net_slope(p, x),
    "the bias a mean",
    lambda p, x: net_slope(p, x, jnp.mean),
    source=GOODFELLOW + ", sec. 6.5",
)
kind.pair(
    "perceptron, its gate",
    NET,
    lambda p, x: net(p, x) / len(x),
    lambda p, x: jax.tree.map(lambda g: g / len(x), net_slope(p, x)),
    "1 − h for 1 − h²",
    lambda p, x: jax.tree.map(lambda g: g / len(x), net_slope(p, x, gate=lambda h: 1 - h)),
)
kind.pair(
    "a list of layers",
    {"p": ["n", "n", "n"]},
    lambda p: jnp.sum(p[0] * p[1] * jnp.sin(p[2])),
    lambda p: {"p": [p[1] * jnp.sin(p[2]), p[0] * jnp.sin(p[2]), p[0] * p[1] * jnp.cos(p[2])]},
    "two of them exchanged",
    lambda p: {"p": [p[0] * jnp.sin(p[2]), p[1] * jnp.sin(p[2]), p[0] * p[1] * jnp.cos(p[2])]},
)
kind.pair(
    "weight decay without biases",
    {"p": {"w": "n m", "b": "m"}},
    lambda p: jnp.sum(p["w"] ** 2) / 2 + jnp.sum(p["b"]),
    lambda p: {"p": {"w": p["w"], "b": jnp.ones_like(p["b"])}},
    "biases decay too",
    lambda p: {"p": {"w": p["w"], "b": 1 + p["b"]}},
    source="optax, add_decayed_weights",
)
kind.pair(
    "shared weights",
    {"p": {"w": "n n"}, "x": "n"},
    lambda p, x: jnp.sum(p["w"] @ jnp.tanh(p["w"] @ x)),
    lambda p, x: {
        "p": {
            "w": jnp.outer(jnp.ones_like(x), jnp.tanh(p["w"] @ x))
            + jnp.outer(p["w"].sum(0) * (1 - jnp.tanh(p["w"] @ x) ** 2), x)
        }
    },
    "the outer use alone",
    lambda p, x: {"p": {"w": jnp.outer(jnp.ones_like(x), jnp.tanh(p["w"] @ x)) + 0 * p["w"]}},
    source="Flax documentation, shared modules",
)
