"""Expected gradients over random masks, with each distribution's moments."""

import jax.numpy as jnp

from benchmarks.corpus.statement import BISHOP, SRIVASTAVA, Kind
from jaxgrad import masks

SHAPES = {"w": "n", "x": "m n", "y": "m", "mask": "m n"}


def squares(w, x, y, mask):
    """Return the mean squared error on masked data."""
    return jnp.mean(((mask * x) @ w - y) ** 2)


def by_moments(mean, second):
    """Return the expected gradient with a mean and a second moment."""
    return lambda w, x, y, mask: (
        2 / len(y) * (second(mask, x.shape[1]) * (x.T @ x) @ w - mean(mask, x.shape[1]) * (x.T @ y))
    )


def mean(mask, n):
    return mask.mean(n)


def second(mask, n):
    return mask.second_moment(n)


def outer(mask, n):
    return jnp.outer(mask.mean(n), mask.mean(n))


def full(mask, n):
    return jnp.full((n, n), mask.mean(n)[0])


RIGHT = by_moments(mean, second)
DISTRIBUTIONS = {
    "Bernoulli": masks.Bernoulli(0.8),
    "patches": masks.Patches(0.7, 2),
    "fixed count": masks.FixedCount(2),
    "gaussian": masks.MultiplicativeGaussian(0.5),
    "random ratio": masks.RandomRatio(0.2, 0.9),
}
PATCHED = {"w": "2*n", "x": "m 2*n", "y": "m", "mask": "m 2*n"}

kind = Kind("expectations: second moments")
WRONG = {
    "Bernoulli": ("p² on the diagonal", by_moments(mean, outer)),
    "patches": (
        "coins of single entries",
        by_moments(mean, lambda m, n: jnp.where(jnp.eye(n) > 0, m.mean(n)[0], m.mean(n)[0] ** 2)),
    ),
    "fixed count": (
        "independent coins",
        by_moments(mean, lambda m, n: jnp.where(jnp.eye(n) > 0, m.mean(n)[0], m.mean(n)[0] ** 2)),
    ),
    "gaussian": (
        "variance off the diagonal too",
        by_moments(mean, lambda m, n: jnp.full((n, n), 1.5)),
    ),
    "random ratio": (
        "the mean's square off the diagonal",
        by_moments(mean, lambda m, n: jnp.where(jnp.eye(n) > 0, m.mean(n)[0], m.mean(n)[0] ** 2)),
    ),
}
for label, distribution in DISTRIBUTIONS.items():
    kind.pair(
        label,
        PATCHED if label == "patches" else SHAPES,
        squares,
        RIGHT,
        *WRONG[label],
        mask=distribution,
        sizes=None if label == "patches" else {"m": 1, "n": 4},
        source=SRIVASTAVA + ", sec. 9.1" if label == "Bernoulli" else "",
    )

kind = Kind("expectations: first moments and factors")
FACTORS = {
    "Bernoulli": ("p for p off the diagonal", by_moments(mean, full)),
    "patches": ("μ² for μ", by_moments(lambda m, n: m.mean(n) ** 2, second)),
    "fixed count": ("k for k/n", by_moments(lambda m, n: m.mean(n) * n, second)),
    "gaussian": ("mean zero", by_moments(lambda m, n: 0 * m.mean(n), second)),
    "random ratio": (
        "the lower end for the mean",
        by_moments(lambda m, n: m.low + 0 * m.mean(n), second),
    ),
}
for label, distribution in DISTRIBUTIONS.items():
    kind.pair(
        f"{label}, sum of squares",
        PATCHED if label == "patches" else SHAPES,
        lambda w, x, y, mask: jnp.sum(((mask * x) @ w - y) ** 2),
        lambda w, x, y, mask: len(y) * RIGHT(w, x, y, mask),
        FACTORS[label][0],
        lambda w, x, y, mask, f=FACTORS[label][1]: len(y) * f(w, x, y, mask),
        mask=distribution,
    )

kind = Kind("expectations: other losses")
P = masks.Bernoulli(0.6)
kind.pair(
    "inverted dropout",
    SHAPES,
    lambda w, x, y, mask: jnp.mean(((mask * x / 0.6) @ w - y) ** 2),
    lambda w, x, y, mask: 2 / len(y) * (x.T @ (x @ w - y) + 0.4 / 0.6 * jnp.sum(x**2, 0) * w),
    "no penalty",
    lambda w, x, y, mask: 2 / len(y) * x.T @ (x @ w - y),
    mask=P,
    source=SRIVASTAVA + ", sec. 9.1",
)
kind.pair(
    "linear in the mask",
    {"x": "m n", "mask": "m n"},
    lambda x, mask: jnp.sum(mask * jnp.sin(x)),
    lambda x, mask: mask.prob * jnp.cos(x),
    "one minus p",
    lambda x, mask: (1 - mask.prob) * jnp.cos(x),
    mask=P,
)
kind.pair(
    "product of two coins",
    {"x": "m 2", "mask": "m 2"},
    lambda x, mask: jnp.sum(jnp.prod(mask * x, 1)),
    lambda x, mask: mask.prob**2 * x[:, ::-1],
    "p for p²",
    lambda x, mask: mask.prob * x[:, ::-1],
    mask=P,
)
kind.pair(
    "cube of a masked sum",
    {"x": "m n", "mask": "m n"},
    lambda x, mask: jnp.sum(jnp.sum(mask * x, 1) ** 2),
    lambda x, mask: (
        2 * (mask.prob**2 * jnp.sum(x, 1, keepdims=True) + mask.prob * (1 - mask.prob) * x)
    ),
    "no variance",
    lambda x, mask: 2 * mask.prob**2 * jnp.sum(x, 1, keepdims=True) + 0 * x,
    mask=P,
)
kind.pair(
    "masked sum over time",
    {"w": "n", "x": "b t n", "mask": "b t n"},
    lambda w, x, mask: jnp.sum(jnp.sum((mask * x) @ w, 1) ** 2) / (len(x) * x.shape[1]),
    lambda w, x, mask: (
        2
        / (len(x) * x.shape[1])
        * (
            mask.prob**2 * (x.sum(1).T @ x.sum(1)) @ w
            + mask.prob * (1 - mask.prob) * jnp.sum(x**2, (0, 1)) * w
        )
    ),
    "t(t − 1)/2 for t",
    lambda w, x, mask: (
        2
        / (len(x) * max(x.shape[1] * (x.shape[1] - 1) / 2, 1))
        * (
            mask.prob**2 * (x.sum(1).T @ x.sum(1)) @ w
            + mask.prob * (1 - mask.prob) * jnp.sum(x**2, (0, 1)) * w
        )
    ),
    sizes={"b": 1, "t": 2, "n": 2},
    mask=P,
)

kind = Kind("expectations: autoencoders")
kind.pair(
    "tied weights, one layer",
    {"w": "n n", "x": "m n", "mask": "m n"},
    lambda w, x, mask: jnp.sum(((mask * x) @ w - x) ** 2),
    lambda w, x, mask: (
        2
        * (
            mask.second_moment(x.shape[1]) * (x.T @ x) @ w
            - mask.mean(x.shape[1])[:, None] * (x.T @ x)
        )
    ),
    "μ on the other side",
    lambda w, x, mask: (
        2
        * (mask.second_moment(x.shape[1]) * (x.T @ x) @ w - mask.mean(x.shape[1]) ** 2 * (x.T @ x))
    ),
    mask=masks.Bernoulli(0.7),
    source="M. Chen et al. (2012), marginalized denoising autoencoders",
)
kind.pair(
    "masked targets",
    {"w": "n", "x": "m n", "mask": "m n"},
    lambda w, x, mask: jnp.sum(mask * (x - w) ** 2),
    lambda w, x, mask: -2 * mask.mean(x.shape[1]) * jnp.sum(x - w, 0),
    "kept for dropped",
    lambda w, x, mask: -2 * (1 - mask.mean(x.shape[1])) * jnp.sum(x - w, 0),
    mask=masks.FixedCount(2),
    source="K. He et al., arXiv 2111.06377",
)
kind.pair(
    "dropped targets",
    {"w": "n", "x": "m n", "mask": "m n"},
    lambda w, x, mask: jnp.sum((1 - mask) * (x - w) ** 2),
    lambda w, x, mask: -2 * (1 - mask.mean(x.shape[1])) * jnp.sum(x - w, 0),
    "dropped for kept",
    lambda w, x, mask: -2 * mask.mean(x.shape[1]) * jnp.sum(x - w, 0),
    mask=masks.Bernoulli(0.3),
    source="K. He et al., arXiv 2111.06377",
)
kind.pair(
    "noisy regression",
    SHAPES,
    squares,
    lambda w, x, y, mask: 2 / len(y) * (x.T @ (x @ w - y) + mask.variance * jnp.sum(x**2, 0) * w),
    "deviation for variance",
    lambda w, x, y, mask: (
        2 / len(y) * (x.T @ (x @ w - y) + jnp.sqrt(mask.variance) * jnp.sum(x**2, 0) * w)
    ),
    mask=masks.MultiplicativeGaussian(0.25),
    source="C. M. Bishop, Training with noise (1995)",
)
kind.pair(
    "input and mask as targets",
    {"w": "n", "x": "m n", "mask": "m n"},
    lambda w, x, mask: jnp.sum((mask - w * x) ** 2),
    lambda w, x, mask: 2 * jnp.sum(x * (w * x - mask.mean(x.shape[1])), 0),
    "half",
    lambda w, x, mask: jnp.sum(x * (w * x - mask.mean(x.shape[1])), 0),
    mask=masks.RandomRatio(0.1, 0.5),
    source=BISHOP + ", sec. 1.5.5",
)
