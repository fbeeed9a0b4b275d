"""Random networks with their gradients, right and wrong: the gradient is taken in forward mode, which the evidence does not use."""

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
    "layer norm": lambda v: (v - v.mean(-1, keepdims=True)) / jnp.sqrt(v.var(-1, keepdims=True) + 1e-5),
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
"""What is made of the right gradient; each differs from it wherever that is not zero, but for the row, which may be."""


class Network(NamedTuple):
    """loss = scale · reduce(join(layers(x W …), layer(x))), with a mask over x or without, and what is claimed of its gradient in W."""

    layers: tuple[str, ...]
    join: str | None
    loss: str
    scale: float
    mask: int | None
    change: str

    def __call__(self, x, w):
        """Return the loss."""
        h = x @ w
        for name in self.layers:
            h = LAYERS[name](h)
        return self.scale * LOSSES[self.loss](h if self.join is None else JOINS[self.join](h, LAYERS[self.layers[0]](x)))


def drawn(rng: np.random.Generator, *, right: float = 0.4) -> Network:
    """Draw a network; with this probability its gradient is right."""
    layers = tuple(str(name) for name in rng.choice(list(LAYERS), rng.integers(1, 4)))
    join = str(rng.choice(list(JOINS))) if rng.random() < 0.5 else None
    change = RIGHT if rng.random() < right else str(rng.choice(list(CHANGES)[1:]))
    mask = int(rng.integers(len(MASKS))) if rng.random() < 0.3 else None
    return Network(layers, join, str(rng.choice(list(LOSSES))), float(rng.choice(SCALES)), mask, change)


def forward(f, w):
    """Return the gradient of f by forward mode, along each direction."""
    directions = jnp.eye(w.size, dtype=w.dtype).reshape(w.size, *w.shape)
    return jax.vmap(lambda v: jax.jvp(f, (w,), (v,))[1])(directions).reshape(w.shape)


def claim(network: Network) -> Derivation:
    """Make the derivation; with a mask, the gradient of the expectation that is summed up over all masks."""
    alter = CHANGES[network.change]
    if network.mask is None:
        gradient = lambda x, w: {"w": alter(forward(lambda w: network(x, w), w), w)}
        return Derivation(name="random", loss=network, gradient=gradient, shapes={"x": "m n", "w": "n n"})

    def expected(x, w, mask):
        draws, chances = mask.support(x.shape)
        mean = lambda w: jnp.sum(jnp.asarray(chances) * jax.vmap(lambda draw: network(draw * x, w))(jnp.asarray(draws)))
        return {"w": alter(forward(mean, w), w)}

    return Derivation(
        name="random", loss=lambda x, w, mask: network(mask * x, w), gradient=expected,
        shapes={"x": "m n", "w": "n n", "mask": "m n"}, mask=MASKS[network.mask],
    )  # fmt: skip
