"""Time of a certificate, cold (tracing included) and warm, for losses of several kinds.

Run `python -m benchmarks.certificates`. Every row is one gradient against its closed form, at the
sizes stated. Warm is the median of five runs with five seeds; the time that tracing takes of it
stands beside it.
"""

import time
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxgrad import certify
from jaxgrad.jaxprs.joint import trace
from tests.formulas import (
    attention,
    attention_vjp,
    expected_autoencoder,
    expected_autoencoder_gradient,
    grad,
    layer_norm,
    layer_norm_vjp,
    mlp,
    mlp_gradient,
)


def ridge_residual(x, y):
    w = jnp.linalg.solve(x.T @ x + 0.1 * jnp.eye(x.shape[1]), x.T @ y)
    return jax.grad(lambda w: jnp.sum((x @ w - y) ** 2) / 2 + 0.05 * jnp.sum(w**2))(w)


def ones(*shape):
    return np.ones(shape)


ROWS = {
    "least squares 5×4×3": (
        grad(lambda w, x, y: jnp.mean((x @ w - y) ** 2)),
        lambda w, x, y: 2 * x.T @ (x @ w - y) / y.shape[1] / len(x),
        ones(4, 3),
        ones(5, 4),
        ones(5, 3),
    ),
    "expected masked autoencoder 5×4, 3": (
        jax.grad(expected_autoencoder, (1, 2)),
        expected_autoencoder_gradient,
        ones(5, 4),
        ones(3, 4),
        ones(4, 3),
        np.ones(()),
    ),
    "ReLU MLP 5×4×6×2": (
        jax.grad(mlp, (0, 1)),
        mlp_gradient,
        ones(4, 6),
        ones(6, 2),
        ones(5, 4),
        ones(5, 2),
    ),
    "softmax cross-entropy 5×4": (
        grad(lambda x, t: -t * jax.nn.log_softmax(x)),
        lambda x, t: jax.nn.softmax(x) * t.sum(-1, keepdims=True) - t,
        ones(5, 4),
        ones(5, 4),
    ),
    "logistic loss 12": (
        grad(lambda x, t: jnp.logaddexp(x, 0) - t * x),
        lambda x, t: jax.nn.sigmoid(x) - t,
        ones(12),
        ones(12),
    ),
    "SiLU 12": (
        grad(jax.nn.silu),
        lambda x: jax.nn.sigmoid(x) * (1 + x * (1 - jax.nn.sigmoid(x))),
        ones(12),
    ),
    "LayerNorm 3×4": (
        lambda x, c: grad(lambda x: c * layer_norm(x))(x),
        layer_norm_vjp,
        ones(3, 4),
        ones(3, 4),
    ),
    "attention 4×3": (
        lambda q, k, v, c: jax.vjp(attention, q, k, v)[1](c),
        attention_vjp,
        *[ones(4, 3)] * 4,
    ),
    "ridge regression 5×3": (ridge_residual, lambda x, y: jnp.zeros(3), ones(5, 3), ones(5)),
    "inverse 3×3": (
        grad(jnp.linalg.inv),
        lambda a: -(jnp.linalg.inv(a).T @ ones(3, 3) @ jnp.linalg.inv(a).T),
        ones(3, 3),
    ),
    "log-determinant 4×4": (
        grad(lambda a: jnp.linalg.slogdet(a)[1]),
        lambda a: jnp.linalg.inv(a).T,
        ones(4, 4),
    ),
    "a factor 1 + 1e-9, refuted": (grad(lambda x: x**2), lambda x: (1 + 1e-9) * 2 * x, ones(4, 3)),
}


def timed(run):
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def main():
    table = Table(
        "gradient", "verdict", "error ≤", "draws", "cold ms", "warm ms", "of it tracing ms"
    )
    total = [0.0, 0.0]
    for name, (f, g, *args) in ROWS.items():
        cold, _ = timed(lambda f=f, g=g, args=args: certify(f, g, *args))
        runs = [
            timed(lambda s=s, f=f, g=g, args=args: certify(f, g, *args, seed=s))
            for s in range(1, 6)
        ]
        warm, certificate = median(t for t, _ in runs), runs[-1][1]
        tracing, _ = timed(lambda f=f, g=g, args=args: trace(f, g, args))
        error = f"{certificate.error_probability:.0e}"
        row = (
            name,
            certificate.verdict,
            error,
            str(certificate.draws),
            *(f"{1e3 * t:.0f}" for t in (cold, warm, tracing)),
        )
        table.add_row(*row)
        total = [total[0] + cold, total[1] + warm]
    table.add_section()
    table.add_row("sum", "", "", "", *(f"{1e3 * t:.0f}" for t in total), "")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
