"""Denoising losses under random masks, and their expected gradients.

Symbols: x holds m samples as rows, (m, n), and G = XᵀX. M is a mask of independent coins over x,
with mean mu (n,) and second moment S (n, n) of a row; B is a linear map (n, n) that reconstructs, B
= W2W1 with an encoder w1 (p, n) and a decoder w2 (n, p). B° is B with its diagonal set to zero.

1. On dropped entries alone the loss is cubic in the mask. Entry j is dropped with probability 1 −
    μ_j, and is reconstructed from the OTHER entries, since its own is not there. Coins of different
    entries are independent, hence

        E (1 − m_j) (Σ_k B_jk m_k x_k − x_j)² = (1 − μ_j) E (Σ_k B°_jk m_k x_k − x_j)²

    which is quadratic again: the masked autoencoder's expected loss, with B° for B and row j
    weighted by 1 − μ_j.

2. The loss on kept entries is the whole loss less that on the dropped ones, so weights of both need
    nothing new.

3. Inverted dropout, m_j x_j / p, leaves the mean of x as it is and adds the variance x_j² (1 −
    p)/p: a ridge penalty on w, weighted by the size of each feature.

4. The marginalised denoising autoencoder sets the expected gradient of ‖(M∘X)Wᵀ − X‖² to zero,
    W(S∘G) = G diag(μ), and so has its minimiser in closed form.

Sources: 1. K. He et al. 2022, arXiv 2111.06377, sec. 3; 2. P. Vincent et al., *JMLR* 11 (2010)
3371–3408, sec. 3.3 and 4.1; 3. N. Srivastava et al., *JMLR* 15 (2014) 1929–1958, sec. 9.1; 4. M.
Chen et al., ICML 2012, arXiv 1206.4683, eqs. 3–5.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgrad.catalog.autoencoders import feature_probabilities, masked_expected_gradient
from jaxgrad.claims.derivation import Derivation
from jaxgrad.masks import Bernoulli, FeatureBernoulli, Mask

KEEP = 0.8
"""Probability p with which the dropout layer keeps an entry, and by which it divides."""


def hollow(b: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Return B°, that is B with zeros on its diagonal.

    >>> hollow(jnp.ones((2, 2))).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    return jnp.where(np.eye(b.shape[0], dtype=bool), 0, b)


def dropped_loss(
    x: Float[Array, "m n"],
    w1: Float[Array, "p n"],
    w2: Float[Array, "n p"],
    mask: Float[Array, "m n"],
) -> Float[Array, ""]:
    """Return 1/(mn) Σ (1 − M) ∘ ((M∘X)W1ᵀW2ᵀ − X)², the error on what the mask has dropped.

    It is divided by the number of ALL entries. A mean over the dropped ones divides by their
    number, which is random unless the mask fixes it; then it is another loss, a ratio, whose
    expectation has no closed form.

    >>> float(dropped_loss(jnp.ones((1, 2)), jnp.eye(2), jnp.eye(2), jnp.array([[1.0, 0.0]])))
    0.5
    """
    return jnp.mean((1 - mask) * ((mask * x) @ w1.T @ w2.T - x) ** 2)


def dropped_expected_gradient(
    x: Float[Array, "m n"], w1: Float[Array, "p n"], w2: Float[Array, "n p"], mask: Mask
) -> dict[str, Array]:
    """Return the gradients of E[dropped_loss] over a mask of independent coins.

    With A = diag(1 − μ)(B°(S∘G) − G diag(μ)) and A° its hollow part: ∇W1 = 2/(mn) W2ᵀA° and ∇W2 =
    2/(mn) A°W1ᵀ.
    """
    m, n = x.shape
    mu, s, g = mask.mean(n), mask.second_moment(n), x.T @ x
    a = hollow((1 - mu)[:, None] * (hollow(w2 @ w1) @ (s * g) - mu * g))
    return {"w1": 2 / (m * n) * w2.T @ a, "w2": 2 / (m * n) * a @ w1.T}


def emphasised_loss(
    x: Float[Array, "m n"],
    w1: Float[Array, "p n"],
    w2: Float[Array, "n p"],
    alpha: Float[Array, ""],
    beta: Float[Array, ""],
    mask: Float[Array, "m n"],
) -> Float[Array, ""]:
    """Return 1/(mn) Σ (α(1 − M) + βM) ∘ ((M∘X)W1ᵀW2ᵀ − X)².

    Dropped entries have the weight α, kept ones β.

    >>> x, eye = jnp.ones((1, 2)), jnp.eye(2)
    >>> float(emphasised_loss(x, eye, 2 * eye, 3.0, 4.0, mask=jnp.array([[1.0, 0.0]])))
    3.5
    """
    return jnp.mean((alpha * (1 - mask) + beta * mask) * ((mask * x) @ w1.T @ w2.T - x) ** 2)


def emphasised_expected_gradient(
    x: Float[Array, "m n"],
    w1: Float[Array, "p n"],
    w2: Float[Array, "n p"],
    alpha: Float[Array, ""],
    beta: Float[Array, ""],
    mask: Mask,
) -> dict[str, Array]:
    """Return β ∇E[masked_loss] + (α − β) ∇E[dropped_loss], for a mask of independent coins."""
    whole = masked_expected_gradient(x, w1, w2, mask)
    dropped = dropped_expected_gradient(x, w1, w2, mask)
    return {name: beta * whole[name] + (alpha - beta) * dropped[name] for name in whole}


def dropout_loss(
    x: Float[Array, "m n"],
    w: Float[Array, "p n"],
    b: Float[Array, " p"],
    y: Float[Array, "m p"],
    mask: Float[Array, "m n"],
) -> Float[Array, ""]:
    """Return 1/m ‖(M∘X/p)Wᵀ + b − Y‖², a linear layer under inverted dropout.

    An entry is kept with probability p = KEEP.

    >>> float(
    ...     dropout_loss(
    ...         jnp.full((1, 1), 0.8),
    ...         jnp.ones((1, 1)),
    ...         jnp.zeros(1),
    ...         jnp.zeros((1, 1)),
    ...         mask=jnp.ones((1, 1)),
    ...     )
    ... )
    1.0
    """
    return jnp.sum(((mask * x / KEEP) @ w.T + b - y) ** 2) / x.shape[0]


def dropout_expected_gradient(
    x: Float[Array, "m n"],
    w: Float[Array, "p n"],
    b: Float[Array, " p"],
    y: Float[Array, "m p"],
    mask: Bernoulli,
) -> dict[str, Array]:
    """Return the gradients of E[dropout_loss].

    It is 1/m (‖R‖² + (1−p)/p Σ_j ‖X_·j‖² ‖W_·j‖²), with R = XWᵀ + b − Y.

    ∇W = 2/m (RᵀX + (1−p)/p W diag(XᵀX)), ∇b = 2/m Rᵀ1, ∇X = 2/m (RW + (1−p)/p X diag(WᵀW)).
    """
    m, p = x.shape[0], mask.prob
    r, odds = x @ w.T + b - y, (1 - p) / p
    return {
        "w": 2 / m * (r.T @ x + odds * w * jnp.sum(x**2, axis=0)),
        "b": 2 / m * jnp.sum(r, axis=0),
        "x": 2 / m * (r @ w + odds * x * jnp.sum(w**2, axis=0)),
    }


def marginalised_map(x: Float[Array, "m n"], mask: Mask) -> Float[Array, "n n"]:
    """Return W★ = PQ⁻¹ with P = G diag(μ) and Q = S∘G, the minimiser of E ‖(M∘X)Wᵀ − X‖².

    Q has an inverse when every feature is kept with a probability in (0, 1) and is not zero in all
    samples. A feature that is always kept, as the constant one of a bias is, has probability 1;
    then the samples must tell such features apart.

    >>> marginalised_map(jnp.array([[1.0, 0.0], [0.0, 2.0]]), Bernoulli(0.5)).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    n, g = x.shape[1], x.T @ x
    return jnp.linalg.solve(mask.second_moment(n) * g, (mask.mean(n) * g).T).T


def marginalised_loss(
    x: Float[Array, "m n"], w: Float[Array, "n n"], mask: Float[Array, "m n"]
) -> Float[Array, ""]:
    """Return 1/m ‖(M∘X)Wᵀ − X‖²."""
    return jnp.sum(((mask * x) @ w.T - x) ** 2) / x.shape[0]


def marginalised_gradient(
    x: Float[Array, "m n"], w: Float[Array, "n n"], mask: Mask
) -> dict[str, Array]:
    """Return ∇W E[marginalised_loss] = 2/m (W − W★)(S∘G), which is 0 at W = W★ and nowhere else."""
    m, n = x.shape
    return {"w": 2 / m * (w - marginalised_map(x, mask)) @ (mask.second_moment(n) * (x.T @ x))}


def _coins(n: int) -> FeatureBernoulli:
    return FeatureBernoulli(feature_probabilities(n))


AUTOENCODER = {"x": "m n", "w1": "p n", "w2": "n p"}

DERIVATIONS = (
    Derivation(
        name="masked_autoencoder_dropped_loss",
        loss=dropped_loss,
        gradient=dropped_expected_gradient,
        shapes={**AUTOENCODER, "mask": "m n"},
        mask=_coins,
        formula=r"L = \tfrac{1}{mn} \sum (1 - M) \circ ((M \circ X) B^\top - X)^2,\ B = W_2 W_1, "
        r"\quad"
        r" A = \operatorname{diag}(1 - \mu) (B^\circ (S \circ X^\top X) - X^\top X "
        r"\operatorname{diag} \mu), \quad"
        r" \nabla_{W_1} \mathbb{E} L = \tfrac{2}{mn} W_2^\top A^\circ, \quad"
        r" \nabla_{W_2} \mathbb{E} L = \tfrac{2}{mn} A^\circ W_1^\top",
        reference="the loss: He et al. 2022, arXiv 2111.06377, sec. 3; marginalised as in Chen et "
        "al., ICML 2012, arXiv 1206.4683",
    ),
    Derivation(
        name="emphasised_denoising",
        loss=emphasised_loss,
        gradient=emphasised_expected_gradient,
        shapes={**AUTOENCODER, "alpha": "", "beta": "", "mask": "m n"},
        domains={"alpha": "positive", "beta": "positive"},
        mask=_coins,
        formula=r"\nabla \mathbb{E} L = \beta\, \nabla \mathbb{E} L_{\text{all}}"
        r" + (\alpha - \beta) \nabla \mathbb{E} L_{\text{dropped}}",
        reference="Vincent et al., JMLR 11 (2010) 3371-3408, sec. 4.1",
    ),
    Derivation(
        name="inverted_dropout",
        loss=dropout_loss,
        gradient=dropout_expected_gradient,
        shapes={"x": "m n", "w": "p n", "b": "p", "y": "m p", "mask": "m n"},
        mask=Bernoulli(KEEP),
        formula=r"R = X W^\top + b - Y, \quad \nabla_W \mathbb{E} L = \tfrac2m \left(R^\top X + "
        r"\tfrac{1-p}{p} W"
        r" \operatorname{diag}(X^\top X)\right), \quad \nabla_b \mathbb{E} L = \tfrac2m R^\top 1, "
        r"\quad"
        r" \nabla_X \mathbb{E} L = \tfrac2m \left(R W + \tfrac{1-p}{p} X "
        r"\operatorname{diag}(W^\top W)\right)",
        reference="Srivastava et al., JMLR 15 (2014) 1929-1958, sec. 9.1; Wager et al., NIPS "
        "2013, arXiv 1307.1493",
    ),
    Derivation(
        name="marginalised_denoising",
        loss=marginalised_loss,
        gradient=marginalised_gradient,
        shapes={"x": "m n", "w": "n n", "mask": "m n"},
        mask=_coins,
        formula=r"W_\star = (X^\top X \operatorname{diag} \mu)(S \circ X^\top X)^{-1}, \quad"
        r" \nabla_W \mathbb{E} \tfrac1m \lVert (M \circ X) W^\top - X \rVert^2 = \tfrac2m (W - "
        r"W_\star)(S \circ X^\top X)",
        reference="Chen et al., ICML 2012, arXiv 1206.4683, eqs. 3-5",
    ),
)
"""The claims of this module, in teaching order."""
