"""Linear autoencoders, plain and masked, whose gradients have closed forms.

Symbols: x holds m samples as rows, (m, n); the encoder w1 is (p, n) and the decoder w2 is (n, p),
so p need not be n. B is the whole map W2W1, and I the identity (n, n). Of a random mask M over x,
whose rows are independent and alike,

    mu = E[m]      (n,)      the mean of a row
    S  = E[m mᵀ]   (n, n)    its second moment

are all that the expected gradient knows: the loss is quadratic in the mask.

Sources: P. Baldi and K. Hornik, *Neural Networks* 2 (1989) 53–58, for the plain autoencoder; M.
Chen et al., *Marginalized Denoising Autoencoders*, ICML 2012, arXiv 1206.4683, marginalise the
mask; A. Bisulco et al. (2025), arXiv 2508.15404, explain masked autoencoders by it.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgrad.claims.derivation import Derivation
from jaxgrad.masks import Bernoulli, FeatureBernoulli, FixedCount, Mask, Patches

BALDI = "Baldi and Hornik, Neural Networks 2 (1989) 53-58"
CHEN = "Chen et al., ICML 2012, arXiv 1206.4683; Bisulco et al. 2025, arXiv 2508.15404"


def sample_loss(
    y: Float[Array, " n"], w1: Float[Array, "p n"], w2: Float[Array, "n p"]
) -> Float[Array, ""]:
    """Return ‖y − W2W1y‖², the squared reconstruction error of one sample.

    >>> float(sample_loss(jnp.ones(2), jnp.eye(2), 2 * jnp.eye(2)))
    2.0
    """
    return jnp.sum((y - w2 @ (w1 @ y)) ** 2)


def sample_gradient(
    y: Float[Array, " n"], w1: Float[Array, "p n"], w2: Float[Array, "n p"]
) -> dict[str, Array]:
    """Return ∇W1 = 2W2ᵀ(B−I)yyᵀ, ∇W2 = 2(B−I)yyᵀW1ᵀ and ∇y = 2(B−I)ᵀ(B−I)y."""
    r = w2 @ (w1 @ y) - y  # (B − I)y
    return {
        "w1": 2 * jnp.outer(w2.T @ r, y),
        "w2": 2 * jnp.outer(r, w1 @ y),
        "y": 2 * (w1.T @ (w2.T @ r) - r),
    }


def batch_loss(
    x: Float[Array, "m n"], w1: Float[Array, "p n"], w2: Float[Array, "n p"]
) -> Float[Array, ""]:
    """Return 1/m ‖XW1ᵀW2ᵀ − X‖², the squared reconstruction error per sample."""
    return jnp.sum((x @ w1.T @ w2.T - x) ** 2) / x.shape[0]


def batch_mse_loss(
    x: Float[Array, "m n"], w1: Float[Array, "p n"], w2: Float[Array, "n p"]
) -> Float[Array, ""]:
    """Return n · mean (XW1ᵀW2ᵀ − X)²: `batch_loss` again, through the mean over all entries."""
    return x.shape[1] * jnp.mean((x @ w1.T @ w2.T - x) ** 2)


def batch_gradient(
    x: Float[Array, "m n"], w1: Float[Array, "p n"], w2: Float[Array, "n p"]
) -> dict[str, Array]:
    """Return ∇W1 = 2/m W2ᵀ(B−I)XᵀX, ∇W2 = 2/m (B−I)XᵀXW1ᵀ and ∇X = 2/m X(B−I)ᵀ(B−I)."""
    m, n = x.shape
    b_i = w2 @ w1 - jnp.eye(n, dtype=x.dtype)  # B − I
    a = b_i @ (x.T @ x)
    return {"w1": 2 / m * w2.T @ a, "w2": 2 / m * a @ w1.T, "x": 2 / m * x @ b_i.T @ b_i}


def masked_loss(
    x: Float[Array, "m n"],
    w1: Float[Array, "p n"],
    w2: Float[Array, "n p"],
    mask: Float[Array, "m n"],
) -> Float[Array, ""]:
    """Return mean ((M∘X)W1ᵀW2ᵀ − X)²: the whole sample, reconstructed from its masked entries.

    >>> x = jnp.ones((1, 2))
    >>> float(masked_loss(x, jnp.eye(2), jnp.eye(2), jnp.array([[1.0, 0.0]])))
    0.5
    """
    return jnp.mean(((mask * x) @ w1.T @ w2.T - x) ** 2)


def masked_expected_gradient(
    x: Float[Array, "m n"], w1: Float[Array, "p n"], w2: Float[Array, "n p"], mask: Mask
) -> dict[str, Array]:
    """Return the gradients of E[masked_loss] over the distribution `mask`.

    With A = W2W1(S∘XᵀX) − Xᵀ(μ∘X): ∇W1 = 2/(mn) W2ᵀA and ∇W2 = 2/(mn) AW1ᵀ. One form for every
    mask: only μ and S differ.
    """
    m, n = x.shape
    mu, s = mask.mean(n), mask.second_moment(n)
    a = w2 @ w1 @ (s * (x.T @ x)) - x.T @ (mu * x)
    return {"w1": 2 / (m * n) * w2.T @ a, "w2": 2 / (m * n) * a @ w1.T}


def feature_probabilities(n: int) -> np.ndarray:
    """Return n keeping probabilities that rise evenly from 0.3 to 0.9, one for each feature.

    >>> feature_probabilities(3).round(2).tolist()
    [0.3, 0.6, 0.9]
    """
    return np.linspace(0.3, 0.9, n)


def _masked(
    name: str, mask: object, moments: str, columns: str = "n", reference: str = CHEN
) -> Derivation:
    return Derivation(
        name=f"masked_autoencoder_{name}",
        loss=masked_loss,
        gradient=masked_expected_gradient,
        shapes={
            "x": f"m {columns}",
            "w1": f"p {columns}",
            "w2": f"{columns} p",
            "mask": f"m {columns}",
        },
        # a mask or a function that returns one, which Derivation checks
        mask=mask,  # type: ignore[arg-type]
        formula=r"A = W_2 W_1 (S \circ X^\top X) - X^\top (\mu \circ X), \quad"
        r" \nabla_{W_1} \mathbb{E} L = \tfrac{2}{mn} W_2^\top A, \quad"
        rf" \nabla_{{W_2}} \mathbb{{E}} L = \tfrac{{2}}{{mn}} A W_1^\top, \quad {moments}",
        reference=reference,
    )


DERIVATIONS = (
    Derivation(
        name="autoencoder_sample",
        loss=sample_loss,
        gradient=sample_gradient,
        shapes={"y": "n", "w1": "p n", "w2": "n p"},
        formula=r"L = \lVert y - By \rVert^2,\ B = W_2 W_1, \quad \nabla_{W_1} L = 2 W_2^\top (B "
        r"- I) y y^\top, \quad"
        r" \nabla_{W_2} L = 2 (B - I) y y^\top W_1^\top, \quad \nabla_y L = 2 (B - I)^\top (B "
        r"- I) y",
        reference=BALDI,
    ),
    *(
        Derivation(
            name=name,
            loss=loss,
            gradient=batch_gradient,
            shapes={"x": "m n", "w1": "p n", "w2": "n p"},
            formula=rf"L = {equation},\ B = W_2 W_1, \quad \nabla_{{W_1}} L = \tfrac2m W_2^\top "
            rf"(B - I) X^\top X, \quad"
            r" \nabla_{W_2} L = \tfrac2m (B - I) X^\top X W_1^\top, \quad \nabla_X L = \tfrac2m X "
            r"(B - I)^\top (B - I)",
            reference=BALDI,
        )
        for name, loss, equation in (
            ("autoencoder", batch_loss, r"\tfrac1m \lVert X B^\top - X \rVert^2"),
            ("autoencoder_mse", batch_mse_loss, r"n \cdot \operatorname{mean} (X B^\top - X)^2"),
        )
    ),
    _masked("bernoulli", Bernoulli(0.6), r"\mu_j = p,\ S_{jj} = p,\ S_{jk} = p^2"),
    _masked(
        "features",
        lambda n: FeatureBernoulli(feature_probabilities(n)),
        r"\mu_j = p_j,\ S_{jj} = p_j,\ S_{jk} = p_j p_k",
    ),
    _masked(
        "patches",
        Patches(0.6, 2),
        r"\mu_j = p,\ S_{jk} = p \text{ if } \lfloor j/s \rfloor = \lfloor k/s \rfloor \text{ "
        r"else } p^2",
        columns="2*k",
    ),
    _masked(
        "fixed_count",
        lambda n: FixedCount((n + 1) // 2),
        r"\mu_j = S_{jj} = \tfrac kn,\ S_{jk} = \tfrac{k(k-1)}{n(n-1)}",
        reference=f"{CHEN}; keeping exactly k of n: He et al. 2022, arXiv 2111.06377",
    ),
)
"""The claims of this module, in teaching order."""
