"""Losses at scales and shifts from 1e-30 to 1e30, with their gradients, right and wrong, for JAX
and for torch alike.

Each is written once, over an adapter of either framework; c is the scale or shift. What is hidden
by rounding, saturated, or out of range at some c is what a checker is most easily wrong about.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad import Derivation, masks

SCALES = [1e-30, 1e-12, 1e-8, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e8, 1e12, 1e30]
PROBABILITY = 0.3


class InJax:
    """The functions that the losses are made of, in JAX."""

    sum, mean, exp, log, cos, sqrt, tanh, abs, max, prod = (
        jnp.sum,
        jnp.mean,
        jnp.exp,
        jnp.log,
        jnp.cos,
        jnp.sqrt,
        jnp.tanh,
        jnp.abs,
        jnp.max,
        jnp.prod,
    )
    sigmoid, softplus, relu, lse, var = (
        jax.nn.sigmoid,
        jax.nn.softplus,
        jax.nn.relu,
        jax.nn.logsumexp,
        jnp.var,
    )

    @staticmethod
    def places(x):
        """Return 0, 1, 2 … in the shape and type of x."""
        return jnp.arange(x.size, dtype=x.dtype)


def _layernorm(x, c):
    w, centred, spread = jnp.arange(x.size) * 1.0, x - jnp.mean(x), jnp.sqrt(jnp.var(x) + c)
    return (w - jnp.mean(w) - centred * jnp.mean(w * centred) / spread**2) / spread


LOSSES = {
    "a shift undone, squared": (lambda o, x, c: o.sum((x + c - c) ** 2), lambda x, c: 2 * x),
    "a shift undone, cubed": (lambda o, x, c: o.sum(((x + c) - c) ** 3), lambda x, c: 3 * x**2),
    "scaled squares": (lambda o, x, c: o.sum((c * x) ** 2), lambda x, c: 2 * c * c * x),
    "naive variance": (
        lambda o, x, c: o.mean((x + c) ** 2) - o.mean(x + c) ** 2,
        lambda x, c: 2 * (x - jnp.mean(x)) / x.size,
    ),
    "exp minus 1": (lambda o, x, c: o.sum(o.exp(c * x) - 1) / c, lambda x, c: jnp.exp(c * x)),
    "log of 1 plus": (lambda o, x, c: o.sum(o.log(1 + c * x)) / c, lambda x, c: 1 / (1 + c * x)),
    "1 minus cos": (
        lambda o, x, c: o.sum(1 - o.cos(c * x)) / c**2,
        lambda x, c: jnp.sin(c * x) / c,
    ),
    "root of a sum": (
        lambda o, x, c: o.sqrt(o.sum(x**2) + c),
        lambda x, c: x / jnp.sqrt(jnp.sum(x**2) + c),
    ),
    "norm": (
        lambda o, x, c: o.sqrt(o.sum((c * x) ** 2)),
        lambda x, c: c * x / jnp.sqrt(jnp.sum(x**2)),
    ),
    "logsumexp shifted": (lambda o, x, c: o.lse(x + c), lambda x, c: jax.nn.softmax(x)),
    "logsumexp scaled": (lambda o, x, c: o.lse(c * x) / c, lambda x, c: jax.nn.softmax(c * x)),
    "sigmoid": (
        lambda o, x, c: o.sum(o.sigmoid(c * x)),
        lambda x, c: c * jax.nn.sigmoid(c * x) * jax.nn.sigmoid(-c * x),
    ),
    "tanh": (lambda o, x, c: o.sum(o.tanh(c * x)) / c, lambda x, c: 1 / jnp.cosh(c * x) ** 2),
    "softplus": (lambda o, x, c: o.sum(o.softplus(c * x)) / c, lambda x, c: jax.nn.sigmoid(c * x)),
    "ratio": (lambda o, x, c: o.sum(x / (x + c)), lambda x, c: c / (x + c) ** 2),
    "reciprocal": (lambda o, x, c: c * o.sum(1 / x), lambda x, c: -c / x**2),
    "power": (lambda o, x, c: o.sum((1 + c * x) ** 3) / c, lambda x, c: 3 * (1 + c * x) ** 2),
    "relu shifted": (lambda o, x, c: o.sum(o.relu(x - c)), lambda x, c: (x > c) * 1.0),
    "relu squared": (
        lambda o, x, c: o.sum(o.relu(c * x) ** 2),
        lambda x, c: 2 * c * c * jax.nn.relu(x),
    ),
    "abs": (lambda o, x, c: o.sum(o.abs(c * x)), lambda x, c: c * jnp.sign(x)),
    "difference of logs": (
        lambda o, x, c: o.sum(o.log(x + c) - o.log(x)),
        lambda x, c: 1 / (x + c) - 1 / x,
    ),
    "a large linear term": (lambda o, x, c: o.sum(x**3) + c * o.sum(x), lambda x, c: 3 * x**2 + c),
    "layer norm": (
        lambda o, x, c: o.sum(o.places(x) * (x - o.mean(x)) / o.sqrt(o.var(x) + c)),
        _layernorm,
    ),
    "two terms": (lambda o, x, c: o.sum(x**2) + c * o.sum(x**4), lambda x, c: 2 * x + 4 * c * x**3),
    "entropy": (
        lambda o, x, c: -o.sum(c * x * o.log(c * x)),
        lambda x, c: -c * (jnp.log(c * x) + 1),
    ),
    "product": (lambda o, x, c: c * o.prod(x), lambda x, c: c * jnp.prod(x) / x),
    "max": (lambda o, x, c: c * o.max(x), lambda x, c: c * (x == jnp.max(x))),
}
"""{name: (loss(functions, x, c), gradient(x, c))}."""

POSITIVE = {"log of 1 plus", "ratio", "difference of logs", "entropy"}
"""Losses whose x must be positive."""

INSIDE = {
    "squares": (
        lambda v, mask, c: jnp.sum((mask * v + c - c) ** 2),
        lambda v, p, k, c: 2 * k * p * v,
    ),
    "scaled squares": (
        lambda v, mask, c: jnp.sum((c * mask * v) ** 2),
        lambda v, p, k, c: 2 * c * c * k * p * v,
    ),
    "a large constant": (
        lambda v, mask, c: c + jnp.sum((mask * v) ** 2),
        lambda v, p, k, c: 2 * k * p * v,
    ),
    "squares of sums": (
        lambda v, mask, c: c * jnp.sum((mask @ v) ** 2),
        lambda v, p, k, c: 2 * c * k * (p * p * v.sum() + p * (1 - p) * v),
    ),
    "fourth powers": (
        lambda v, mask, c: c * jnp.sum((mask * v) ** 4),
        lambda v, p, k, c: 4 * c * k * p * v**3,
    ),
    "exp": (
        lambda v, mask, c: jnp.sum(jnp.exp(c * mask * v)) / c,
        lambda v, p, k, c: k * p * jnp.exp(c * v),
    ),
    "relu": (
        lambda v, mask, c: jnp.sum(jax.nn.relu(c * mask * v)),
        lambda v, p, k, c: c * k * p * (v > 0),
    ),
}
"""The same with the mask inside: {name: (loss(v, mask, c), gradient(v, p, rows, c))}."""

RIGHT = "right"
CHANGES = {
    RIGHT: lambda g, x: g,
    "twice": lambda g, x: 2 * g,
    "1%": lambda g, x: 1.01 * g,
    "sign": lambda g, x: -g,
    "zero": lambda g, x: 0 * g,
    "one entry by 5%": lambda g, x: g.at[0].multiply(1.05),
    "x added": lambda g, x: g + x * jnp.max(jnp.abs(g)),
}
"""What is made of the right gradient."""

ROWS = 3


def names():
    """Return all claims: (kind, loss, c, change)."""
    plain = [
        (kind, name, c, change)
        for kind in ("plain", "weighted")
        for name in LOSSES
        for c in SCALES
        for change in CHANGES
    ]
    return plain + [
        ("inside", name, c, change) for name in INSIDE for c in SCALES for change in CHANGES
    ]


def chosen(seed, count):
    """Choose so many of them."""
    everything = names()
    return [
        everything[i]
        for i in np.random.default_rng(seed).choice(len(everything), count, replace=False)
    ]


def claim(kind, name, c, change):
    """Make the derivation: without a mask, with the loss weighted by a mask of mean 1, or with the
    mask inside.
    """
    alter = CHANGES[change]
    if kind == "inside":
        loss, gradient = INSIDE[name]
        return Derivation(
            name="extreme", loss=lambda x, mask: loss(x, mask, c),
            gradient=lambda x, mask: {"x": alter(gradient(x, mask.prob, ROWS, c), x)},
            shapes={"x": "n", "mask": f"{ROWS} n"}, mask=masks.Bernoulli(PROBABILITY),
        )  # fmt: skip
    loss, gradient = LOSSES[name]
    domains = {"x": "positive" if name in POSITIVE else "real"}
    closed = lambda x, **_: {"x": alter(gradient(x, c), x)}
    if kind == "plain":
        return Derivation(
            name="extreme",
            loss=lambda x: loss(InJax, x, c),
            gradient=closed,
            shapes={"x": "n"},
            domains=domains,
        )
    return Derivation(
        name="extreme",
        loss=lambda x, mask: loss(InJax, x, c) * jnp.mean(mask) / PROBABILITY,
        gradient=lambda x, mask: closed(x),
        shapes={"x": "n", "mask": "k n"},
        domains=domains,
        mask=masks.Bernoulli(PROBABILITY),
    )
