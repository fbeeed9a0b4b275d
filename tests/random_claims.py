"""Random networks with their gradients, right and wrong: the gradient is taken in forward mode,
which the evidence does not use.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad import Derivation, masks

LAYERS = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "softplus": jax.nn.softplus,
    "square": jnp.square,
    "sine": jnp.sin,
    "abs": jnp.abs,
    "softmax": lambda v: jax.nn.softmax(v, -1),
    "layer norm": lambda v: (
        (v - v.mean(-1, keepdims=True)) / jnp.sqrt(v.var(-1, keepdims=True) + 1e-5)
    ),
    "bell": lambda v: jnp.exp(-v * v),
    "sort": lambda v: jnp.sort(v, -1),
    "cumulative sum": lambda v: jnp.cumsum(v, -1),
    "leaky relu": lambda v: jnp.maximum(v, 0.1 * v),
    "clip": lambda v: jnp.clip(v, -1, 1),
    "elu": lambda v: jnp.where(v > 0, v, jnp.expm1(v)),
    "softsign": lambda v: v / (1 + jnp.abs(v)),
    "log of 1 plus a square": lambda v: jnp.log1p(v * v),
    "flip": lambda v: jnp.flip(v, -1),
    "attention": lambda v: jax.nn.softmax(v @ v.T) @ v,
    "roll": lambda v: jnp.roll(v, 1, 0),
    "cube": lambda v: v**3,
    "arctan": jnp.arctan,
    "erf": jax.scipy.special.erf,
    "log softmax": lambda v: v - jax.nn.logsumexp(v, -1, keepdims=True),
    "root": lambda v: jnp.sqrt(v * v + 0.1),
}
JOINS = {
    "sum": jnp.add,
    "product": jnp.multiply,
    "larger": jnp.maximum,
    "gate": lambda a, b: a * jax.nn.sigmoid(b),
    "ratio": lambda a, b: a / (1 + b * b),
}
LOSSES = {
    "sum of squares": lambda v: jnp.sum(v**2),
    "mean square": lambda v: jnp.mean(v**2),
    "sum of sines": lambda v: jnp.sum(jnp.sin(v)),
    "log-sum-exp": jax.nn.logsumexp,
    "norm": lambda v: jnp.sqrt(jnp.sum(v**2) + 1),
    "largest": jnp.max,
    "sum of absolute values": lambda v: jnp.sum(jnp.abs(v)),
    "variance": jnp.var,
    "product": lambda v: jnp.prod(1 + 0.1 * v),
}
LABELS = {
    "gated": ("binary", "m", lambda h, y: h * y[:, None]),
    "switched": ("binary", "m", lambda h, y: jnp.where(y[:, None] == 1, h, h * jnp.abs(h))),
    "logistic": ("sign", "m", lambda h, y: jnp.log1p(jnp.exp(-y[:, None] * jnp.tanh(h)))),
    "hinge": ("sign", "m", lambda h, y: jnp.maximum(0, 1 - y[:, None] * h)),
    "one hot": ("one_hot", "m n", lambda h, y: y * jax.nn.log_softmax(h)),
    "class": (
        "index n",
        "m",
        lambda h, y: jnp.take_along_axis(jax.nn.log_softmax(h), y[:, None], 1),
    ),
    "rows": ("index m", "2", lambda h, y: h[y]),
    "whole": ("integer", "m", lambda h, y: h * y[:, None]),
}
"""Labels: their domain, their shape, and what a network does with them."""
DATA = np.random.default_rng(0).standard_normal(8)
"""What a network closes over: its first n numbers are multiplied into its columns."""
SCALES = (1e-6, 1e-2, 1.0, 1e2, 1e6)
MASKS = (masks.Bernoulli(0.4), masks.FeatureBernoulli(np.array([0.3, 0.5, 0.8])))
RIGHT = "right"
CHANGES = {
    RIGHT: lambda g, x: g,
    "twice": lambda g, x: 2 * g,
    "sign": lambda g, x: -g,
    "0.1%": lambda g, x: 1.001 * g,
    "a row by 5%": lambda g, x: g * (1 + 0.05 * (jnp.arange(g.shape[0]) == 0))[:, None],
    "a thousandth added": lambda g, x: g + 1e-3 * jnp.max(jnp.abs(g)) * (1 + jnp.abs(jnp.cos(x))),
}
"""What is made of the right gradient; each differs from it wherever that is not zero, but for the
row, which may be.
"""
AT_A_LABEL = "at one label by 5%"
"""A further change, of networks with labels: wrong where the first label has one of its values."""


class Network(NamedTuple):
    """loss = scale · reduce(join(layers(x W …), layer(x))), with a mask, labels or data or without,
    and a claimed gradient.
    """

    layers: tuple[str, ...]
    join: str | None
    loss: str
    scale: float
    mask: int | None
    change: str
    label: str | None = None
    data: bool = False

    def __call__(self, x, w, y=None):
        """Return the loss."""
        h = x @ w * DATA[: x.shape[1]] if self.data else x @ w
        for name in self.layers:
            h = LAYERS[name](h)
        h = h if self.join is None else JOINS[self.join](h, LAYERS[self.layers[0]](x))
        return self.scale * LOSSES[self.loss](
            h if self.label is None else LABELS[self.label][2](h, y)
        )

    def altered(self, gradient, w, y):
        """Return what is claimed where this is the gradient."""
        if self.change == AT_A_LABEL:
            return gradient * (1 + 0.05 * (y.ravel()[0] == 1))
        return CHANGES[self.change](gradient, w)


def drawn(rng: np.random.Generator, *, right: float = 0.4) -> Network:
    """Draw a network; with this probability its gradient is right."""
    layers = tuple(str(name) for name in rng.choice(list(LAYERS), rng.integers(1, 4)))
    join = str(rng.choice(list(JOINS))) if rng.random() < 0.5 else None
    change = RIGHT if rng.random() < right else str(rng.choice(list(CHANGES)[1:]))
    mask = int(rng.integers(len(MASKS))) if rng.random() < 0.3 else None
    label = str(rng.choice(list(LABELS))) if rng.random() < 0.4 else None
    if label is not None and change != RIGHT and rng.random() < 0.4:
        change = AT_A_LABEL
    loss, scale, data = (
        str(rng.choice(list(LOSSES))),
        float(rng.choice(SCALES)),
        bool(rng.random() < 0.3),
    )
    return Network(layers, join, loss, scale, mask, change, label, data)


def forward(f, w):
    """Return the gradient of f by forward mode, along each direction."""
    directions = jnp.eye(w.size, dtype=w.dtype).reshape(w.size, *w.shape)
    return jax.vmap(lambda v: jax.jvp(f, (w,), (v,))[1])(directions).reshape(w.shape)


def claim(network: Network) -> Derivation:
    """Make the derivation; with a mask, the gradient of the expectation that is summed up over all
    masks.
    """
    shapes, domains = {"x": "m n", "w": "n n"}, {}
    if network.label is not None:
        domains["y"], shapes["y"], _ = LABELS[network.label]
    if network.mask is None:
        gradient = lambda x, w, y=None: {
            "w": network.altered(forward(lambda w: network(x, w, y), w), w, y)
        }
        return Derivation(
            name="random", loss=network, gradient=gradient, shapes=shapes, domains=domains
        )

    def expected(x, w, mask, y=None):
        draws, chances = mask.support(x.shape)
        mean = lambda w: jnp.sum(
            jnp.asarray(chances)
            * jax.vmap(lambda draw: network(draw * x, w, y))(jnp.asarray(draws))
        )
        return {"w": network.altered(forward(mean, w), w, y)}

    return Derivation(
        name="random", loss=lambda x, w, mask, y=None: network(mask * x, w, y), gradient=expected,
        shapes={**shapes, "mask": "m n"}, mask=MASKS[network.mask], domains=domains,
    )  # fmt: skip
