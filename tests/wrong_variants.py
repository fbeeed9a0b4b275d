"""Wrong closed forms for every entry of the catalogue, each a mistake that people make; `verify`
must refute them all.

Shapes and keys are right throughout: what is wrong is the mathematics. Those marked ORIGINAL are
the mistakes of the notebooks that the catalogue restates.
"""

from dataclasses import replace

import jax.numpy as jnp

from jaxgrad import catalog
from jaxgrad.catalog import denoising, layers, surrogates
from tests.changed_claims import (
    Moments,
    all_times,
    b_minus_i,
    but,
    changed_dropped,
    dropout_with,
    independent,
    minimiser,
    misplaced_blocks,
    no_diagonal,
    perceptron_with,
    ridge_slope,
    scalar_loss_for_features,
    times,
    wrong_moments,
)

ORIGINAL = "original: "


def masked(name):
    """The mistakes that every masked autoencoder can make."""
    return [
        (ORIGINAL + "Monte Carlo sum never divided by N", all_times(name, 1000)),
        (
            "no diagonal in S, as if the mask were not its own square",
            wrong_moments(name, second_moment=no_diagonal),
        ),
        ("p² for μ", wrong_moments(name, mean=lambda mu, n: mu**2)),
        (
            "p for S off the diagonal",
            wrong_moments(
                name, second_moment=lambda s, n: jnp.broadcast_to(jnp.diagonal(s), s.shape)
            ),
        ),
        ("no 1/n", all_times(name, lambda x, **_: x.shape[1])),
    ]


VARIANTS = {
    "inner_product": [
        ("w and x swapped", but("inner_product", w=lambda _, w, x: w, x=lambda _, w, x: x)),
        ("factor 2 in w, as of wᵀw", but("inner_product", w=times(2))),
        ("sign", but("inner_product", x=times(-1))),
    ],
    "matvec": [
        (
            "1xᵀ in every slice instead of δ",
            but("matvec", w=lambda _, w, x: jnp.ones((len(w), len(w), 1)) * x),
        ),
        ("the outputs in reverse order", but("matvec", w=lambda right, w, x: right[::-1])),
        ("factor 2 in x", but("matvec", x=times(2))),
    ],
    "mse": [
        ("factor 2 forgotten", all_times("mse", 0.5)),
        ("no 1/m", all_times("mse", lambda pred, **_: len(pred))),
        ("sign", but("mse", pred=times(-1))),
        ("one entry doubled", but("mse", y=lambda right, pred, y: right.at[0].multiply(2))),
    ],
    "mse_matvec": [
        ("no 1/m", all_times("mse_matvec", lambda y, **_: len(y))),
        ("1/n for 1/m", all_times("mse_matvec", lambda x, y, **_: len(y) / len(x))),
        ("sign in y", but("mse_matvec", y=times(-1))),
        (
            "the target forgotten in the error",
            but("mse_matvec", w=lambda _, x, y, w: 2 / len(y) * jnp.outer(w @ x, x)),
        ),
    ],
    "two_layer_linear": [
        ("no 1/m", all_times("two_layer_linear", lambda y, **_: len(y))),
        (
            "the data in the place of the hidden layer's error",
            but("two_layer_linear", w1=lambda right, x, y, w1, w2: jnp.outer(w1 @ x, x)),
        ),
        ("sign in w2", but("two_layer_linear", w2=times(-1))),
        ("factor 2 forgotten in x", but("two_layer_linear", x=times(0.5))),
    ],
    "matmul": [
        (
            "mean over the rows instead of their sum",
            but("matmul", y=lambda right, x, **_: right / len(x)),
        ),
        (
            "cotangent squared, which one-hot cotangents do not show",
            but("matmul", x=lambda _, y, cotangent, **__: cotangent**2 @ y.T),
        ),
        (
            "cotangent taken for ones",
            but("matmul", x=lambda _, y, cotangent, **__: jnp.ones_like(cotangent) @ y.T),
        ),
    ],
    "add_bias": [
        (
            "mean instead of sum",
            but("add_bias", b=lambda _, cotangent, **__: cotangent.mean((0, 2))),
        ),
        (
            "no sum over the last axis",
            but("add_bias", b=lambda _, cotangent, **__: cotangent[:, :, 0].sum(0)),
        ),
        ("sign", but("add_bias", x=times(-1))),
    ],
    "linear": [
        ("no sum over the rows in b", but("linear", b=lambda _, cotangent, **__: cotangent[0])),
        ("mean over the rows in w", but("linear", w=lambda right, x, **_: right / len(x))),
        ("sign in x", but("linear", x=times(-1))),
    ],
    "vsum": [
        ("mean instead of sum", but("vsum", x=lambda right, x, **_: right / x.size)),
        ("cotangent lost", but("vsum", x=lambda _, x, **__: jnp.ones_like(x))),
    ],
    "relu": [
        (ORIGINAL + "gate 1 at 0", but("relu", x=lambda _, x, cotangent: cotangent * (x >= 0))),
        ("gate ½ at 0", but("relu", x=lambda _, x, cotangent: cotangent * jnp.heaviside(x, 0.5))),
        ("leaky", but("relu", x=lambda _, x, cotangent: cotangent * jnp.where(x > 0, 1, 0.01))),
        (
            "gate of the cotangent",
            but("relu", x=lambda _, x, cotangent: cotangent * layers.relu_gate(cotangent)),
        ),
    ],
    "relu_mlp": [
        (ORIGINAL + "gate 1 at 0", perceptron_with(gate=lambda z: z >= 0)),
        ("no gates", perceptron_with(gate=jnp.ones_like)),
        ("2/m for 2/(mk)", perceptron_with(delta=lambda d, y: d * y.shape[1])),
        ("no sum in the biases", perceptron_with(bias=lambda d: d[0])),
        ("sign in one bias", but("relu_mlp", b2=times(-1))),
    ],
    "autoencoder_sample": [
        ("factor 2 forgotten", all_times("autoencoder_sample", 0.5)),
        (
            "B for B − I",
            but("autoencoder_sample", w1=lambda _, y, w1, w2: 2 * w2.T @ w2 @ w1 @ jnp.outer(y, y)),
        ),
        (
            "(B − I)ᵀ for B − I",
            but(
                "autoencoder_sample",
                w2=lambda _, **i: 2 * b_minus_i(**i).T @ jnp.outer(i["y"], i["w1"] @ i["y"]),
            ),
        ),
    ],
    "autoencoder": [
        ("no 1/m", all_times("autoencoder", lambda x, **_: len(x))),
        ("1/n for 1/m", all_times("autoencoder", lambda x, **_: x.shape[0] / x.shape[1])),
        (
            "B for B − I",
            but("autoencoder", w2=lambda _, x, w1, w2: 2 / len(x) * w2 @ w1 @ x.T @ x @ w1.T),
        ),
        (
            "only half of the product rule in x",
            but("autoencoder", x=lambda _, x, **i: 2 / len(x) * x @ b_minus_i(**i).T),
        ),
    ],
    "autoencoder_mse": [
        (
            "1/(mn), the factor n of the loss forgotten",
            all_times("autoencoder_mse", lambda x, **_: 1 / x.shape[1]),
        ),
        (
            "(B − I)ᵀ for B − I",
            but(
                "autoencoder_mse",
                w1=lambda _, x, w1, w2: 2 / len(x) * w2.T @ b_minus_i(w1, w2).T @ x.T @ x,
            ),
        ),
        ("sign in w2", but("autoencoder_mse", w2=times(-1))),
    ],
    "masked_autoencoder_bernoulli": masked("masked_autoencoder_bernoulli"),
    "masked_autoencoder_features": [
        (
            ORIGINAL + "scalar probability in the loss, per-feature closed form",
            scalar_loss_for_features(),
        ),
        (
            "the mean probability for every feature",
            wrong_moments(
                "masked_autoencoder_features", mean=lambda mu, n: jnp.full_like(mu, mu.mean())
            ),
        ),
        *masked("masked_autoencoder_features"),
    ],
    "masked_autoencoder_patches": [
        (
            ORIGINAL + "patch blocks misplaced",
            wrong_moments("masked_autoencoder_patches", second_moment=misplaced_blocks),
        ),
        (
            "entries of a patch taken for independent",
            wrong_moments("masked_autoencoder_patches", second_moment=independent),
        ),
        *masked("masked_autoencoder_patches"),
    ],
    "masked_autoencoder_fixed_count": [
        (
            "entries taken for independent",
            wrong_moments("masked_autoencoder_fixed_count", second_moment=independent),
        ),
        *masked("masked_autoencoder_fixed_count"),
    ],
    "masked_autoencoder_dropped_loss": [
        ("entries that see themselves: B for B°", changed_dropped(hollow=lambda b: b)),
        ("weight μ of the kept for 1 − μ of the dropped", changed_dropped(weight=lambda mu: mu)),
        ("weight of the dropped forgotten", changed_dropped(weight=jnp.ones_like)),
        (
            "divided by how many are dropped, not by all",
            all_times(
                "masked_autoencoder_dropped_loss",
                lambda x, mask, **_: 1 / jnp.mean(1 - mask.mean(x.shape[1])),
            ),
        ),
        (
            "p² for the diagonal of S",
            wrong_moments("masked_autoencoder_dropped_loss", second_moment=no_diagonal),
        ),
    ],
    "emphasised_denoising": [
        (
            "weights swapped",
            replace(
                catalog.get("emphasised_denoising"),
                gradient=lambda alpha, beta, **i: denoising.emphasised_expected_gradient(
                    alpha=beta, beta=alpha, **i
                ),
            ),
        ),
        (
            "α on everything, and β more on the kept",
            replace(
                catalog.get("emphasised_denoising"),
                gradient=lambda alpha, beta, **i: denoising.emphasised_expected_gradient(
                    alpha=alpha, beta=alpha + beta, **i
                ),
            ),
        ),
        (
            "emphasis squared",
            replace(
                catalog.get("emphasised_denoising"),
                gradient=lambda alpha, beta, **i: denoising.emphasised_expected_gradient(
                    alpha=alpha**2, beta=beta**2, **i
                ),
            ),
        ),
        ("sign in w2", but("emphasised_denoising", w2=times(-1))),
    ],
    "inverted_dropout": [
        ("no penalty, as if dropout did nothing on average", dropout_with(lambda p: 0.0)),
        ("penalty of dropout without 1/p", dropout_with(lambda p: p * (1 - p))),
        ("odds upside down", dropout_with(lambda p: p / (1 - p))),
        (
            "mean over the rows in b",
            but("inverted_dropout", b=lambda right, x, **_: right / len(x)),
        ),
        ("sign in x", but("inverted_dropout", x=times(-1))),
    ],
    "marginalised_denoising": [
        (
            "the identity, which is best without noise",
            minimiser(lambda x, mask: jnp.eye(x.shape[1])),
        ),
        (
            "mask forgotten in P",
            minimiser(
                lambda x, mask: (
                    jnp.linalg.solve(mask.second_moment(x.shape[1]) * (x.T @ x), x.T @ x).T
                )
            ),
        ),
        (
            "the minimiser transposed",
            minimiser(lambda x, mask: denoising.marginalised_map(x, mask).T),
        ),
        (
            "the minimiser of noise that is not its own square",
            minimiser(
                lambda x, mask: denoising.marginalised_map(
                    x, Moments(mask, second_moment=no_diagonal)
                )
            ),
        ),
        (
            "Q left out",
            but(
                "marginalised_denoising",
                w=lambda _, x, w, mask: 2 / len(x) * (w - denoising.marginalised_map(x, mask)),
            ),
        ),
    ],
    "mean_gate": [
        ("gates left out", but("mean_gate", c=lambda _, g, w, w2, **__: g @ w @ w2)),
        (
            "r̄² for r̄",
            but(
                "mean_gate",
                g=lambda _, c, w, w2, mask, **__: c @ ((w * mask.mean(w.shape[1]) ** 2) @ w2).T,
            ),
        ),
        (
            "one mean for all gates",
            but(
                "mean_gate",
                w2=lambda _, g, w, c, mask, **__: mask.mean(w.shape[1]).mean() * w.T @ g.T @ c,
            ),
        ),
        ("r̄ forgotten in w", but("mean_gate", w=lambda _, g, w2, c, **__: g.T @ c @ w2.T)),
    ],
    "ridge_map": [
        ("factor 2 forgotten", all_times("ridge_map", 0.5)),
        (
            "the map of 2δ",
            but(
                "ridge_map",
                m=lambda _, g, gp, m, delta: ridge_slope(
                    g, m, delta, surrogates.ridge_map(g, gp, 2 * delta)
                ),
            ),
        ),
        (
            "δ left out of the Hessian",
            but(
                "ridge_map",
                m=lambda _, g, gp, m, delta: ridge_slope(
                    g, m, 0, surrogates.ridge_map(g, gp, delta)
                ),
            ),
        ),
        (
            "sign of the penalty",
            but("ridge_map", m=lambda right, m, delta, **_: right - 4 * delta * m),
        ),
    ],
    "least_squares_map": [
        ("factor 2 forgotten", all_times("least_squares_map", 0.5)),
        (
            "a map shrunk by a ridge of 1",
            but(
                "least_squares_map",
                m=lambda _, x, y, m: 2 * (m - surrogates.ridge_map(x.T, y.T, 1.0).T) @ x @ x.T,
            ),
        ),
        (
            "XXᵀ left out",
            but(
                "least_squares_map",
                m=lambda _, x, y, m: 2 * (m - surrogates.least_squares_map(x, y)),
            ),
        ),
        (
            "(XXᵀ)⁻¹ left out of the map",
            but("least_squares_map", m=lambda _, x, y, m: 2 * (m - y @ x.T) @ x @ x.T),
        ),
    ],
}
"""{name of the entry: [(what is wrong, the wrong claim), …]}."""


CASES = [(name, label, claim) for name, variants in VARIANTS.items() for label, claim in variants]
"""All of them in one list."""
