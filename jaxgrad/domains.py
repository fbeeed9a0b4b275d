"""Where the inputs of a claim live, and how one is drawn from each place.

Every domain is a function ``(key, shape) -> array``. The default is signed: a rule that is right only for positive numbers
must not pass because nobody drew another.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

Draw = Callable[[Array, Sequence[int]], Array]


def _real(key: Array, shape: Sequence[int]) -> Array:
    return jax.random.normal(key, shape)


def _positive(key: Array, shape: Sequence[int]) -> Array:
    return jnp.exp(jax.random.normal(key, shape))


def _probability(key: Array, shape: Sequence[int]) -> Array:
    return jax.random.uniform(key, shape, minval=0.05, maxval=0.95)


def _binary(key: Array, shape: Sequence[int]) -> Array:
    return jax.random.bernoulli(key, 0.5, shape).astype(float)


def _integer(key: Array, shape: Sequence[int]) -> Array:
    return jax.random.randint(key, shape, -4, 5)


def _simplex(key: Array, shape: Sequence[int]) -> Array:
    if not shape:
        raise ValueError("`domains`: a simplex needs at least one axis, but the shape is that of a scalar")
    return jax.nn.softmax(jax.random.normal(key, shape), axis=-1)


def _spd(key: Array, shape: Sequence[int]) -> Array:
    _square(shape, "spd")
    a = jax.random.normal(key, shape)
    return a @ jnp.swapaxes(a, -1, -2) / shape[-1] + 0.5 * jnp.eye(shape[-1])


def _orthogonal(key: Array, shape: Sequence[int]) -> Array:
    _square(shape, "orthogonal")
    q, r = jnp.linalg.qr(jax.random.normal(key, shape))
    return q * jnp.sign(jnp.diagonal(r, axis1=-2, axis2=-1))[..., None, :]


def _square(shape: Sequence[int], domain: str) -> None:
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ValueError(f"`domains`: {domain!r} needs a square matrix such as 'n n', but the shape is {tuple(shape)}")


DOMAINS: dict[str, Draw] = {
    "real": _real,
    "positive": _positive,
    "probability": _probability,
    "spd": _spd,
    "binary": _binary,
    "integer": _integer,
    "simplex": _simplex,
    "orthogonal": _orthogonal,
}
"""The named domains; "real" is standard normal, "positive" log-normal, "integer" uniform on −4 … 4."""
