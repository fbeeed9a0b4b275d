"""Losses that are polynomials of the mask, of known degrees, within each row and across rows."""

import jax.numpy as jnp
import numpy as np


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def quadratic(x, mask):
    return jnp.mean(((mask * x) @ normal(x.shape[-1], 4) - 1) ** 2)


def quadratic_across_rows(x, mask):
    return jnp.sum((mask * x).sum(axis=0) ** 2) + jnp.sum(mask * x) * jnp.sum(mask)


def cubic(x, mask):
    return jnp.mean((1 - mask) * (jnp.cumsum(mask * x, axis=-1) - x) ** 2)


def cubic_across_rows(x, mask):
    return jnp.sum(mask) * quadratic(x, mask)


def quartic(x, mask):
    return jnp.sum((mask * x).sum(axis=-1) ** 4)


def quintic_across_rows(x, mask):
    return jnp.sum(mask[..., 0]) * jnp.sum((mask * x).sum(axis=-1) ** 4)


def affine(x, mask):
    return jnp.sum(mask * x) + 1
