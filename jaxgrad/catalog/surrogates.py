"""Linear maps that stand in for a gated layer, and the experiment that compares them.

A gated layer sends the rows of g, (b, d), through w, (d, h), multiplies by gates r, (b, h), and
sends the result through w2, (h, e): gp = ((g w) ∘ r) w2. Three linear maps m, (d, e), are asked to
do the same by gp ≈ g m:

    ridge map         M2 = (GᵀG + δI)⁻¹ GᵀGp, which fits one batch
    mean-gate map     M3 = W diag(r̄) W2, which puts the mean r̄ of the gates in their place
    least-squares map M = YXᵀ(XXᵀ)⁻¹, which fits the columns of Y ≈ M X

Each is the solution of something, and so becomes a claim on a gradient. M2
and M are where a quadratic is smallest: the gradient at ANY point is the Hessian times the way from
the solution, which vanishes at the solution and nowhere else. M3 is an expectation: the expected
gradients of the randomly gated map are those of the linear map M3.

Sources: A. Hoerl and R. Kennard, *Technometrics* 12 (1970) 55–67, eq. 2.1; the dual form: C.
Saunders, A. Gammerman and V. Vovk, ICML 1998; least squares: R. Penrose, *Proc. Camb. Phil. Soc.*
52 (1956) 17–19; mean gates: N. Srivastava et al., *JMLR* 15 (2014) 1929–1958.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgrad.catalog.autoencoders import feature_probabilities
from jaxgrad.claims.derivation import Derivation
from jaxgrad.masks import FeatureBernoulli, Mask


def gated_map(
    g: Float[Array, "b d"],
    w: Float[Array, "d h"],
    w2: Float[Array, "h e"],
    gates: Float[Array, "b h"],
) -> Float[Array, "b e"]:
    """Return ((g w) ∘ gates) w2."""
    return ((g @ w) * gates) @ w2


def mean_gate_map(
    w: Float[Array, "d h"], w2: Float[Array, "h e"], mean: Float[Array, " h"]
) -> Float[Array, "d e"]:
    """Return M3 = W diag(r̄) W2, r̄ being the `mean` of the gates.

    >>> mean_gate_map(jnp.ones((1, 2)), jnp.eye(2), jnp.array([0.5, 1.0])).tolist()
    [[0.5, 1.0]]
    """
    return (w * mean) @ w2


def gated_loss(
    g: Float[Array, "b d"],
    w: Float[Array, "d h"],
    w2: Float[Array, "h e"],
    c: Float[Array, "b e"],
    mask: Float[Array, "b h"],
) -> Float[Array, ""]:
    """Return ⟨gated_map, C⟩, with the mask as gates and any direction C."""
    return jnp.sum(gated_map(g, w, w2, mask) * c)


def mean_gate_gradient(
    g: Float[Array, "b d"],
    w: Float[Array, "d h"],
    w2: Float[Array, "h e"],
    c: Float[Array, "b e"],
    mask: Mask,
) -> dict[str, Array]:
    """Return the expected gradients of `gated_loss`, which are those of ⟨G M3, C⟩.

    ∇C = G M3 (the expectation of the map itself), ∇G = C M3ᵀ, ∇W = GᵀCW2ᵀ diag(r̄), ∇W2 =
    diag(r̄)WᵀGᵀC.
    """
    mean = mask.mean(w.shape[1])
    m3 = mean_gate_map(w, w2, mean)
    gc = g.T @ c
    return {"c": g @ m3, "g": c @ m3.T, "w": gc @ w2.T * mean, "w2": mean[:, None] * (w.T @ gc)}


def ridge_map(
    g: Float[Array, "b d"], gp: Float[Array, "b e"], delta: Float[Array, ""]
) -> Float[Array, "d e"]:
    """Return M2 = (GᵀG + δI)⁻¹GᵀGp or, where b < d, the smaller system Gᵀ(GGᵀ + δI)⁻¹Gp.

    Args:
        g: inputs, one sample a row.
        gp: what they are to be mapped to.
        delta: weight δ > 0 of the penalty on the map.

    >>> ridge_map(jnp.eye(2), jnp.eye(2), 1.0).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    b, d = g.shape
    if b < d:
        return g.T @ jnp.linalg.solve(g @ g.T + delta * jnp.eye(b, dtype=g.dtype), gp)
    return jnp.linalg.solve(g.T @ g + delta * jnp.eye(d, dtype=g.dtype), g.T @ gp)


def ridge_loss(
    g: Float[Array, "b d"], gp: Float[Array, "b e"], m: Float[Array, "d e"], delta: Float[Array, ""]
) -> Float[Array, ""]:
    """Return ‖Gp − GM‖² + δ‖M‖²."""
    return jnp.sum((gp - g @ m) ** 2) + delta * jnp.sum(m**2)


def ridge_gradient(
    g: Float[Array, "b d"], gp: Float[Array, "b e"], m: Float[Array, "d e"], delta: Float[Array, ""]
) -> dict[str, Array]:
    """Return ∇M = 2(GᵀG + δI)(M − M2), which is 0 at M = M2 and nowhere else."""
    away = m - ridge_map(g, gp, delta)
    return {"m": 2 * (g.T @ (g @ away) + delta * away)}


def least_squares_map(x: Float[Array, "d k"], y: Float[Array, "e k"]) -> Float[Array, "e d"]:
    """Return M = YXᵀ(XXᵀ)⁻¹, the best linear map from columns of X to columns of Y.

    X needs full row rank.

    >>> x = jnp.array([[1.0, -1.0, 2.0, 1.0], [2.0, 2.0, -1.0, -2.0]])
    >>> least_squares_map(x, jnp.array([[1.0, 1.0], [-1.0, -1.0]]) @ jnp.maximum(x, 0)).round(
    ...     2
    ... ).tolist()
    [[1.36..., 0.87...], [-1.36..., -0.87...]]
    """
    return jnp.linalg.solve(x @ x.T, x @ y.T).T


def least_squares_loss(
    x: Float[Array, "d k"], y: Float[Array, "e k"], m: Float[Array, "e d"]
) -> Float[Array, ""]:
    """Return ‖MX − Y‖²."""
    return jnp.sum((m @ x - y) ** 2)


def least_squares_gradient(
    x: Float[Array, "d k"], y: Float[Array, "e k"], m: Float[Array, "e d"]
) -> dict[str, Array]:
    """Return ∇M = 2(M − YXᵀ(XXᵀ)⁻¹)XXᵀ, which is 0 at the least-squares map and nowhere else."""
    return {"m": 2 * (m - least_squares_map(x, y)) @ x @ x.T}


class SurrogateErrors(NamedTuple):
    """Errors ‖Gp − GM‖ of the two maps in Frobenius norm; relative ones are over ‖Gp‖.

    Attributes:
        ridge_fitted: error of M2 on the batch it was fitted to.
        ridge_fresh: error of M2 on a batch it has not seen.
        mean_gate_fitted: error of M3 on the batch whose gates were averaged.
        mean_gate_fresh: error of M3 on the other batch.
        ridge_fitted_relative: `ridge_fitted` over ‖Gp‖ of that batch; the others likewise.
        ridge_fresh_relative: see above.
        mean_gate_fitted_relative: see above.
        mean_gate_fresh_relative: see above.
    """

    ridge_fitted: Array
    ridge_fresh: Array
    mean_gate_fitted: Array
    mean_gate_fresh: Array
    ridge_fitted_relative: Array
    ridge_fresh_relative: Array
    mean_gate_fitted_relative: Array
    mean_gate_fresh_relative: Array


def abstraction_experiment(
    key: Array,
    *,
    b: int = 128,
    d_in: int = 512,
    hidden: int = 256,
    d_out: int = 128,
    delta: float = 1e-9,
) -> SurrogateErrors:
    """Fit M2 and M3 to a randomly gated layer on one batch; measure there and on a fresh batch.

    Data and weights are uniform on [0, 1), gates are fair coins. With b < d_in the ridge map
    reproduces the batch it saw to rounding, gates and all; what it learned of the gates is gone on
    fresh data, where the mean-gate map does better.

    Args:
        key: PRNG key.
        b: samples in a batch.
        d_in: width of the input.
        hidden: number of gates.
        d_out: width of the output.
        delta: weight of the ridge penalty.

    >>> errors = abstraction_experiment(jax.random.key(0), b=8, d_in=32, hidden=16, d_out=4)
    >>> (
    ...     bool(errors.ridge_fitted < errors.mean_gate_fitted),
    ...     bool(errors.ridge_fresh > errors.mean_gate_fresh),
    ... )
    (True, True)
    """
    k_w, k_w2, *batches = jax.random.split(key, 4)
    w, w2 = jax.random.uniform(k_w, (d_in, hidden)), jax.random.uniform(k_w2, (hidden, d_out))

    def batch(key: Array) -> tuple[Array, Array, Array]:
        k_g, k_r = jax.random.split(key)
        g = jax.random.uniform(k_g, (b, d_in))
        r = jax.random.bernoulli(k_r, 0.5, (b, hidden)).astype(g.dtype)
        return g, r, gated_map(g, w, w2, r)

    (g, r, gp), (g_fresh, _, gp_fresh) = map(batch, batches)
    m2, m3 = (
        ridge_map(g, gp, jnp.asarray(delta, g.dtype)),
        mean_gate_map(w, w2, jnp.mean(r, axis=0)),
    )
    errors = [
        jnp.linalg.norm(p - x @ m) for m in (m2, m3) for x, p in ((g, gp), (g_fresh, gp_fresh))
    ]
    scales = [jnp.linalg.norm(gp), jnp.linalg.norm(gp_fresh)] * 2
    return SurrogateErrors(
        *errors, *(error / scale for error, scale in zip(errors, scales, strict=True))
    )


DERIVATIONS = (
    Derivation(
        name="mean_gate",
        loss=gated_loss,
        gradient=mean_gate_gradient,
        shapes={
            "mask": "b h",
            "g": "b d",
            "w": "d h",
            "w2": "h e",
            "c": "b e",
        },  # sizes grow from the left: few masks to list
        mask=lambda h: FeatureBernoulli(feature_probabilities(h)),
        formula=r"M_3 = W \operatorname{diag}(\bar r) W_2, \quad \mathbb{E}[((GW) \circ R) W_2] = "
        r"G M_3, \quad"
        r" \mathbb{E} \nabla_G \langle ((GW) \circ R) W_2, C \rangle = C M_3^\top",
        reference="Srivastava et al., JMLR 15 (2014) 1929-1958",
    ),
    Derivation(
        name="ridge_map",
        loss=ridge_loss,
        gradient=ridge_gradient,
        shapes={"g": "b d", "gp": "b e", "m": "d e", "delta": ""},
        domains={"delta": "positive"},
        formula=r"M_2 = (G^\top G + \delta I)^{-1} G^\top G_p, \quad"
        r" \nabla_M (\lVert G_p - GM \rVert^2 + \delta \lVert M \rVert^2) = 2 (G^\top G + \delta "
        r"I)(M - M_2)",
        reference="Hoerl and Kennard, Technometrics 12 (1970) 55-67, eq. 2.1; dual form: Saunders "
        "et al., ICML 1998",
    ),
    Derivation(
        name="least_squares_map",
        loss=least_squares_loss,
        gradient=least_squares_gradient,
        shapes={"x": "d 2*d", "y": "e 2*d", "m": "e d"},
        formula=r"M_\star = Y X^\top (X X^\top)^{-1}, \quad \nabla_M \lVert MX - Y \rVert^2 = 2 "
        r"(M - M_\star) X X^\top",
        reference="Penrose, Proc. Camb. Phil. Soc. 52 (1956) 17-19",
    ),
)
"""The claims of this module, in teaching order."""
