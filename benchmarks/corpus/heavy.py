"""Claims of ordinary use that take long: data, trees, expectations and loops of a real size."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl

import jaxgrad as jg
from benchmarks.corpus.statement import ESL, GOODFELLOW, TORCH, Kind
from jaxgrad import masks

kind = Kind("heavy: data, trees and expectations")
RNG = np.random.default_rng(0)
DIGITS = RNG.random((1797, 64)).astype(np.float32)
ODD = RNG.integers(0, 2, 1797).astype(np.float32)
kind.pair(
    "logistic regression on 1797 × 64",
    {"w": "64"},
    lambda w: jnp.mean(jnp.logaddexp(0.0, DIGITS @ w) - ODD * (DIGITS @ w)),
    lambda w: DIGITS.T @ (jax.nn.sigmoid(DIGITS @ w) - ODD) / len(ODD),
    "over the features' number",
    lambda w: DIGITS.T @ (jax.nn.sigmoid(DIGITS @ w) - ODD) / 64,
    source=ESL + ", eq. 4.21",
)


def masked_slope(w, x, y, mask, diagonal):
    """Return the slope by moments p, p² and what stands on the second one's diagonal."""
    p = mask.mean(700)[0]
    second = jnp.where(jnp.eye(700) > 0, diagonal(p), p**2)
    return 2 / len(y) * (second * (x.T @ x) @ w - p * (x.T @ y))


kind.pair(
    "masked regression at 256 × 700",
    {"w": "700", "x": "256 700", "y": "256", "mask": "256 700"},
    lambda w, x, y, mask: jnp.mean(((mask * x) @ w - y) ** 2),
    lambda w, x, y, mask: masked_slope(w, x, y, mask, lambda p: p),
    "p² on the diagonal",
    lambda w, x, y, mask: masked_slope(w, x, y, mask, lambda p: p**2),
    mask=masks.Bernoulli(0.8),
    truth=lambda w, x, y: [
        (2 * 0.64 * x.T @ (x @ w) + 2 * 0.16 * jnp.sum(x**2, 0) * w - 1.6 * x.T @ y) / 256
    ],
)
SIXTY = {"x": "m n", "p": {f"w{i}": "n n" for i in range(60)}}


def deep(x, p):
    for i in range(60):
        x = jnp.tanh(x @ p[f"w{i}"] / 2)
    return jnp.sum(x)


def deep_slope(x, p, wrong=-1):
    states = [x]
    for i in range(60):
        states.append(jnp.tanh(states[-1] @ p[f"w{i}"] / 2))
    d, found = jnp.ones_like(x), {}
    for i in range(59, -1, -1):
        d = d * (1 - states[i + 1] ** 2) / 2
        found[f"w{i}"] = states[i].T @ d * (2 if i == wrong else 1)
        d = d @ p[f"w{i}"].T
    return {"p": found}


kind.pair(
    "sixty arrays",
    SIXTY,
    deep,
    lambda x, p: deep_slope(x, p),
    "one of them doubled",
    lambda x, p: deep_slope(x, p, 52),
    truth=lambda x, p: jax.tree.leaves(jax.grad(deep, 1)(x, p)),
    source=GOODFELLOW + ", alg. 6.4",
)
kind.pair(
    "wide regression",
    {"w": "p", "x": "200 p", "y": "200"},
    lambda w, x, y: jnp.mean((x @ w - y) ** 2),
    lambda w, x, y: 2 * x.T @ (x @ w - y) / 200,
    "a row lost",
    lambda w, x, y: 2 * x[1:].T @ (x[1:] @ w - y[1:]) / 200,
    source=ESL + ", eq. 3.4",
)
kind.pair(
    "pairs of 150 points",
    {"x": "150 2"},
    lambda x: jnp.sum(jnp.exp(-jnp.sum((x[:, None] - x) ** 2, -1))),
    lambda x: (
        -4 * jnp.einsum("ij,ijd->id", jnp.exp(-jnp.sum((x[:, None] - x) ** 2, -1)), x[:, None] - x)
    ),
    "each pair once",
    lambda x: (
        -2 * jnp.einsum("ij,ijd->id", jnp.exp(-jnp.sum((x[:, None] - x) ** 2, -1)), x[:, None] - x)
    ),
)

kind = Kind("heavy: loops, convolutions and kernels")
kind.pair(
    "four hundred steps",
    {"x": "n"},
    lambda x: jnp.sum(lax.fori_loop(0, 400, lambda i, s: s * 0.995, x) ** 2),
    lambda x: 2 * x * 0.995**800,
    "half the steps",
    lambda x: 2 * x * 0.995**400,
)
kind.pair(
    "three hundred steps of descent",
    {"a": "n"},
    lambda a: jnp.sum(lax.scan(lambda w, _: (w - 0.1 * (w - a), None), 0 * a, None, 300)[0] ** 2),
    lambda a: 2 * a * (1 - 0.9**300) ** 2,
    "at its start",
    lambda a: 2 * a * (1 - 0.9) ** 2,
    source="D. Maclaurin et al., arXiv 1502.03492",
)


def strided(x, k):
    return lax.conv_general_dilated(x, k, (2, 2), "SAME")


def strided_claim(factor):
    def vjp(x, k, g):
        dx, dk = jax.vjp(strided, x, k)[1](g)
        return {"x": dx, "k": dk * factor}

    return lambda: jg.Derivation.from_vjp("conv", strided, vjp, {"x": "n c 5 6", "k": "f c 3 3"})


kind.claim("strided convolution, right", True, strided_claim(1.0), source=TORCH + ", Conv2d")
kind.claim(
    "strided convolution, kernel's slope off", False, strided_claim(0.99), source=TORCH + ", Conv2d"
)


def rms_norm(wrong):
    def forward_kernel(x_ref, w_ref, o_ref):
        x = x_ref[...]
        o_ref[...] = x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * w_ref[...]

    def value(x, w):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pl.pallas_call(forward_kernel, out_shape=shape, interpret=True)(x, w[None])

    def forward(x, w):
        return value(x, w), (x, w)

    def backward(kept, g):
        x, w = kept
        r = lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)
        dx = r * g * w - x * r**3 * jnp.mean(g * w * x, -1, keepdims=True)
        return dx, jnp.sum(g * x * r, 0) * (1.01 if wrong else 1)

    def plain(x, w):
        return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * w

    def state():
        rule = jax.custom_vjp(value)
        rule.defvjp(forward, backward)
        return jg.Derivation.from_custom_vjp(
            rule, plain, {"x": "m n", "w": "n"}, name="rms norm", second_order=False
        )

    return state


kind.claim("kernel of rms norm, right", True, rms_norm(False), source="arXiv 1910.07467")
kind.claim("kernel of rms norm, a hundredth off", False, rms_norm(True), source="arXiv 1910.07467")


def long_product(a, x):
    return jnp.sum(lax.scan(lambda h, _: (jnp.tanh(a * h + x), None), 0 * x, None, 200)[0])


kind.pair(
    "two hundred steps of a contraction",
    {"x": "n"},
    lambda x: long_product(0.5, x),
    lambda x: (lambda h: (1 - h**2) / (1 - 0.5 * (1 - h**2)))(
        lax.fori_loop(0, 200, lambda i, h: jnp.tanh(0.5 * h + x), 0 * x)
    ),
    "one step for the limit",
    lambda x: (lambda h: 1 - h**2)(
        lax.fori_loop(0, 200, lambda i, h: jnp.tanh(0.5 * h + x), 0 * x)
    ),
    source="S. Bai et al., arXiv 1909.01377",
)
