"""Losses that are likelihoods, divergences and contrasts."""

import jax
import jax.numpy as jnp
from jax.scipy import special

from benchmarks.corpus.statement import (
    BISHOP,
    GOODFELLOW,
    MURPHY,
    OPTAX,
    SUTTON,
    TORCH,
    Kind,
)

ONE_HOT = {"y": "one_hot"}
kind = Kind("likelihoods: continuous")
kind.pair(
    "gaussian",
    {"m": "", "s": "", "x": "n"},
    lambda m, s, x: jnp.sum((x - m) ** 2 / (2 * s**2) + jnp.log(s)),
    lambda m, s, x: (jnp.sum(m - x) / s**2, x.size / s - jnp.sum((x - m) ** 2) / s**3),
    "one over s for n over s",
    lambda m, s, x: (jnp.sum(m - x) / s**2, 1 / s - jnp.sum((x - m) ** 2) / s**3),
    domains={"s": "positive"},
    source=BISHOP + ", eq. 1.54",
)
kind.pair(
    "gaussian by log-variance",
    {"v": "n", "e": "n"},
    lambda v, e: 0.5 * jnp.sum(v + e**2 * jnp.exp(-v)),
    lambda v, e: (0.5 * (1 - e**2 * jnp.exp(-v)), e * jnp.exp(-v)),
    "exp(−2v)",
    lambda v, e: (0.5 * (1 - e**2 * jnp.exp(-2 * v)), e * jnp.exp(-v)),
    source="A. Kendall, Y. Gal, arXiv 1703.04977, eq. 8",
)
kind.pair(
    "student",
    {"m": "", "x": "n"},
    lambda m, x: 2.5 * jnp.sum(jnp.log1p((x - m) ** 2 / 4)),
    lambda m, x: -5 * jnp.sum((x - m) / (4 + (x - m) ** 2)),
    "the gaussian's",
    lambda m, x: -5 * jnp.sum((x - m) / 4),
    source=BISHOP + ", eq. 2.159",
)
kind.pair(
    "gamma",
    {"a": "", "x": "n"},
    lambda a, x: jnp.sum(special.gammaln(a) - (a - 1) * jnp.log(x) + x),
    lambda a, x: {"a": x.size * special.digamma(a) - jnp.sum(jnp.log(x))},
    "log for digamma",
    lambda a, x: {"a": x.size * jnp.log(a) - jnp.sum(jnp.log(x))},
    domains={"a": "positive", "x": "positive"},
    source=BISHOP + ", eq. 2.146",
)
kind.pair(
    "multivariate gaussian",
    {"m": "n", "s": "n n", "x": "n"},
    lambda m, s, x: 0.5 * (x - m) @ jnp.linalg.solve(s, x - m) + 0.5 * jnp.linalg.slogdet(s)[1],
    lambda m, s, x: {
        "m": -jnp.linalg.solve(s, x - m),
        "s": 0.5
        * (jnp.linalg.inv(s) - jnp.outer(jnp.linalg.solve(s, x - m), jnp.linalg.solve(s, x - m))),
    },
    "no log-determinant",
    lambda m, s, x: {
        "m": -jnp.linalg.solve(s, x - m),
        "s": -0.5 * jnp.outer(jnp.linalg.solve(s, x - m), jnp.linalg.solve(s, x - m)),
    },
    domains={"s": "spd"},
    source=BISHOP + ", eq. 2.118",
)

kind = Kind("likelihoods: counts and labels")
kind.pair(
    "poisson",
    {"r": "n", "k": "n"},
    lambda r, k: jnp.sum(jnp.exp(r) - jnp.abs(k) * r),
    lambda r, k: jnp.exp(r) - jnp.abs(k),
    "the rate for its log",
    lambda r, k: 1 - jnp.abs(k) * jnp.exp(-r),
    domains={"k": "integer"},
    source=TORCH + ", PoissonNLLLoss",
)
kind.pair(
    "softmax cross-entropy",
    {"x": "m n", "y": "m n"},
    lambda x, y: -jnp.mean(jnp.sum(y * jax.nn.log_softmax(x), 1)),
    lambda x, y: (jax.nn.softmax(x) - y) / len(x),
    "softmax over the batch",
    lambda x, y: (jax.nn.softmax(x, 0) - y) / len(x),
    domains=ONE_HOT,
    source=BISHOP + ", eq. 4.109",
)
kind.pair(
    "label smoothing",
    {"x": "m n", "y": "m n"},
    lambda x, y: -jnp.sum((0.9 * y + 0.1 / x.shape[1]) * jax.nn.log_softmax(x)),
    lambda x, y: jax.nn.softmax(x) - 0.9 * y - 0.1 / x.shape[1],
    "spread over n − 1",
    lambda x, y: jax.nn.softmax(x) - 0.9 * y - 0.1 * (1 - y) / max(x.shape[1] - 1, 1),
    domains=ONE_HOT,
    source=OPTAX + ", smooth_labels",
)
kind.pair(
    "focal",
    {"x": "n"},
    lambda x: -jnp.sum(jax.nn.sigmoid(-x) ** 2 * jax.nn.log_sigmoid(x)),
    lambda x: (
        jax.nn.sigmoid(-x) ** 2
        * (2 * jax.nn.sigmoid(x) * jax.nn.log_sigmoid(x) - jax.nn.sigmoid(-x))
    ),
    "the weight held still",
    lambda x: -(jax.nn.sigmoid(-x) ** 3),
    source="T.-Y. Lin et al., arXiv 1708.02002, eq. 4",
)
kind.pair(
    "negative binomial",
    {"r": "n", "k": "n"},
    lambda r, k: jnp.sum((jnp.abs(k) + 3) * jnp.log1p(jnp.exp(r)) - jnp.abs(k) * r),
    lambda r, k: (jnp.abs(k) + 3) * jax.nn.sigmoid(r) - jnp.abs(k),
    "no dispersion",
    lambda r, k: jnp.abs(k) * jax.nn.sigmoid(r) - jnp.abs(k),
    domains={"k": "integer"},
    source=MURPHY + ", sec. 2.5",
)

kind = Kind("likelihoods: divergences")
kind.pair(
    "kl of categorical, by logits",
    {"x": "n", "q": "n"},
    lambda x, q: jnp.sum(jax.nn.softmax(x) * (jax.nn.log_softmax(x) - jnp.log(q))),
    lambda x, q: {
        "x": jax.nn.softmax(x)
        * (
            jax.nn.log_softmax(x)
            - jnp.log(q)
            - jnp.sum(jax.nn.softmax(x) * (jax.nn.log_softmax(x) - jnp.log(q)))
        )
    },
    "of the reverse divergence",
    lambda x, q: {"x": jax.nn.softmax(x) - q},
    domains={"q": "simplex"},
    source=TORCH + ", KLDivLoss",
)
kind.pair(
    "kl of gaussians",
    {"m": "n", "v": "n"},
    lambda m, v: -0.5 * jnp.sum(1 + v - m**2 - jnp.exp(v)),
    lambda m, v: (m, 0.5 * (jnp.exp(v) - 1)),
    "deviation for variance",
    lambda m, v: (m, 0.5 * (jnp.exp(v / 2) - 1)),
    source="D. Kingma, M. Welling, arXiv 1312.6114, app. B",
)
kind.pair(
    "entropy of a softmax",
    {"x": "n"},
    lambda x: -jnp.sum(jax.nn.softmax(x) * jax.nn.log_softmax(x)),
    lambda x: (
        -jax.nn.softmax(x)
        * (jax.nn.log_softmax(x) - jnp.sum(jax.nn.softmax(x) * jax.nn.log_softmax(x)))
    ),
    "entropy not subtracted",
    lambda x: -jax.nn.softmax(x) * (jax.nn.log_softmax(x) + 1),
    source=SUTTON,
)
kind.pair(
    "jensen and shannon",
    {"p": "n", "q": "n"},
    lambda p, q: jnp.sum(p * jnp.log(2 * p / (p + q)) + q * jnp.log(2 * q / (p + q))) / 2,
    lambda p, q: (jnp.log(2 * p / (p + q)) / 2, jnp.log(2 * q / (p + q)) / 2),
    "two for one half",
    lambda p, q: (jnp.log(2 * p / (p + q)), jnp.log(2 * q / (p + q)) / 2),
    domains={"p": "positive", "q": "positive"},
    source="I. Goodfellow et al., arXiv 1406.2661",
)
kind.pair(
    "cross-entropy on the simplex",
    {"p": "n", "q": "n"},
    lambda p, q: -jnp.sum(q * jnp.log(p)),
    lambda p, q: (-q / p, -jnp.log(p)),
    "projected on the simplex",
    lambda p, q: (-q / p + jnp.mean(q / p), -jnp.log(p)),
    domains={"p": "simplex", "q": "simplex"},
    source=GOODFELLOW + ", eq. 3.51",
)

kind = Kind("likelihoods: contrasts and policies")
kind.pair(
    "info-nce",
    {"s": "n n"},
    lambda s: -jnp.mean(jnp.diagonal(jax.nn.log_softmax(s, 1))),
    lambda s: (jax.nn.softmax(s, 1) - jnp.eye(len(s))) / len(s),
    "softmax along columns",
    lambda s: (jax.nn.softmax(s, 0) - jnp.eye(len(s))) / len(s),
    source="A. van den Oord et al., arXiv 1807.03748",
)
kind.pair(
    "clip's two-sided contrast",
    {"s": "n n"},
    lambda s: -jnp.mean(jnp.diagonal(jax.nn.log_softmax(s, 1) + jax.nn.log_softmax(s, 0))) / 2,
    lambda s: ((jax.nn.softmax(s, 1) + jax.nn.softmax(s, 0)) / 2 - jnp.eye(len(s))) / len(s),
    "one side twice",
    lambda s: (jax.nn.softmax(s, 1) - jnp.eye(len(s))) / len(s),
    source="A. Radford et al., arXiv 2103.00020",
)
kind.pair(
    "triplet",
    {"a": "n", "p": "n", "q": "n"},
    lambda a, p, q: jax.nn.relu(jnp.sum((a - p) ** 2) - jnp.sum((a - q) ** 2) + 0.2),
    lambda a, p, q: {"a": 2 * (q - p) * (jnp.sum((a - p) ** 2) - jnp.sum((a - q) ** 2) + 0.2 > 0)},
    "no gate",
    lambda a, p, q: {"a": 2 * (q - p)},
    at={"a": [0.0], "p": [0.0], "q": [2.0]},
    source="F. Schroff et al., arXiv 1503.03832",
)
kind.pair(
    "bradley and terry",
    {"r": "n", "s": "n"},
    lambda r, s: -jnp.mean(jax.nn.log_sigmoid(0.1 * (r - s))),
    lambda r, s: (
        -0.1 * jax.nn.sigmoid(0.1 * (s - r)) / r.size,
        0.1 * jax.nn.sigmoid(0.1 * (s - r)) / r.size,
    ),
    "β only once",
    lambda r, s: (
        -jax.nn.sigmoid(0.1 * (s - r)) / r.size,
        0.1 * jax.nn.sigmoid(0.1 * (s - r)) / r.size,
    ),
    source="R. Rafailov, arXiv 2305.18290",
)
kind.pair(
    "expected reward of a softmax policy",
    {"x": "n", "r": "n"},
    lambda x, r: jnp.sum(jax.nn.softmax(x) * r),
    lambda x, r: jax.nn.softmax(x) * (r - jnp.sum(jax.nn.softmax(x) * r)),
    "the mean reward as baseline",
    lambda x, r: jax.nn.softmax(x) * (r - jnp.mean(r)),
    source=SUTTON + ", sec. 2.8",
)
