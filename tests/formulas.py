"""Functions whose gradients are well known, and those gradients by hand."""

import jax
import jax.numpy as jnp
import numpy as np


def grad(f, argnums=0):
    return jax.grad(lambda *args: jnp.sum(f(*args)), argnums)


def layer_norm(x, eps=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + eps)


def layer_norm_vjp(x, c, axis=-1, eps=1e-5):
    scale = jax.lax.rsqrt(x.var(axis, keepdims=True) + eps)
    z = (x - x.mean(axis, keepdims=True)) * scale
    return scale * (c - c.mean(axis, keepdims=True) - z * (c * z).mean(axis, keepdims=True))


def attention(q, k, v):
    return jax.nn.softmax(q @ k.T / jnp.sqrt(3.0)) @ v


def attention_vjp(q, k, v, c):
    p = jax.nn.softmax(q @ k.T / 3**0.5)
    dp = c @ v.T
    ds = p * (dp - jnp.sum(p * dp, -1, keepdims=True)) / 3**0.5
    return ds @ k, ds.T @ q, p.T @ c


def mlp(w1, w2, x, y):
    return jnp.mean((jax.nn.relu(x @ w1) @ w2 - y) ** 2)


def mlp_gradient(w1, w2, x, y):
    h = x @ w1
    r = 2 * (jnp.maximum(h, 0) @ w2 - y) / y.size
    return x.T @ ((r @ w2.T) * (h > 0)), jnp.maximum(h, 0).T @ r


def expected_autoencoder(x, w1, w2, p):
    n = x.shape[1]
    second = jnp.where(np.eye(n, dtype=bool), p, p * p)
    core = w1.T @ w2.T
    square = jnp.sum((core @ core.T) * second * (x.T @ x))
    return (square - 2 * p * jnp.sum((x @ core) * x) + jnp.sum(x * x)) / x.size


def expected_autoencoder_gradient(x, w1, w2, p):
    m, n = x.shape
    second = p * p + (p - p * p) * jnp.eye(n)
    inner = w2 @ w1 @ (second * (x.T @ x)) - p * x.T @ x
    return 2 / (m * n) * w2.T @ inner, 2 / (m * n) * inner @ w1.T
