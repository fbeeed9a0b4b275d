"""The layers that networks are made of, each with its vector-Jacobian product written by hand.

Symbols: x is the layer's input, w and b its weight and bias, and `cotangent` is ∂E/∂(output) of
whatever scalar E comes after the layer; it has the output's shape. A VJP turns it into ∂E/∂(input)
for every input.

Sources: the products are those of reverse-mode differentiation, as in A. Griewank and A. Walther,
*Evaluating Derivatives* (2008), ch. 3; the linear layer keeps torch's convention, w being (out,
in).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgrad.claims.derivation import Derivation

GRIEWANK = "Griewank and Walther, Evaluating Derivatives (2008), ch. 3"


def with_zeros(key: Array, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """Draw standard normals with every third set to exactly 0, where the kink lies.

    >>> with_zeros(jax.random.key(0), (7,)).tolist().count(0.0)
    2
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    place = np.arange(math.prod(shape)).reshape(shape)
    return np.where(place % 3 == 2, 0.0, rng.standard_normal(shape))


def matmul(x: Float[Array, "m n"], y: Float[Array, "n p"]) -> Float[Array, "m p"]:
    """Return Z = XY."""
    return x @ y


def matmul_vjp(
    x: Float[Array, "m n"], y: Float[Array, "n p"], cotangent: Float[Array, "m p"]
) -> dict[str, Array]:
    """Return ∂E/∂X = Z̄Yᵀ and ∂E/∂Y = XᵀZ̄, Z̄ the cotangent."""
    return {"x": cotangent @ y.T, "y": x.T @ cotangent}


def add_bias(x: Float[Array, "n m p"], b: Float[Array, " m"]) -> Float[Array, "n m p"]:
    """Return Z with Zᵢⱼₖ = Xᵢⱼₖ + bⱼ: one bias for each place on the middle axis.

    >>> add_bias(jnp.zeros((1, 2, 1)), jnp.array([1.0, 2.0])).ravel().tolist()
    [1.0, 2.0]
    """
    return x + b[None, :, None]


def add_bias_vjp(
    x: Float[Array, "n m p"], b: Float[Array, " m"], cotangent: Float[Array, "n m p"]
) -> dict[str, Array]:
    """Return ∂E/∂X = Z̄ and ∂E/∂bⱼ = Σᵢₖ Z̄ᵢⱼₖ: what was broadcast forward is summed backward."""
    return {"x": cotangent, "b": jnp.sum(cotangent, axis=(0, 2))}


def linear(
    x: Float[Array, "m n"], w: Float[Array, "p n"], b: Float[Array, " p"]
) -> Float[Array, "m p"]:
    """Return Y = XWᵀ + b, the fully connected layer.

    >>> linear(jnp.ones((1, 2)), jnp.array([[1.0, 2.0]]), jnp.array([0.5])).tolist()
    [[3.5]]
    """
    return x @ w.T + b


def linear_vjp(
    x: Float[Array, "m n"],
    w: Float[Array, "p n"],
    b: Float[Array, " p"],
    cotangent: Float[Array, "m p"],
) -> dict[str, Array]:
    """Return ∂E/∂X = ȲW, ∂E/∂W = ȲᵀX and ∂E/∂bⱼ = Σᵢ Ȳᵢⱼ, Ȳ the cotangent."""
    return {"x": cotangent @ w, "w": cotangent.T @ x, "b": jnp.sum(cotangent, axis=0)}


def vsum(x: Float[Array, "n m p"]) -> Float[Array, ""]:
    """Return the sum of all entries.

    >>> float(vsum(jnp.ones((2, 3, 4))))
    24.0
    """
    return jnp.sum(x)


def vsum_vjp(x: Float[Array, "n m p"], cotangent: Float[Array, ""]) -> dict[str, Array]:
    """Return ∂E/∂X = ȳ·1: the scalar cotangent, at every entry."""
    return {"x": cotangent * jnp.ones_like(x)}


def relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return max(x, 0); its derivative at the kink x = 0 is 0, as in torch and JAX.

    >>> relu(jnp.array([-1.0, 0.0, 2.0])).tolist()
    [0.0, 0.0, 2.0]
    """
    return jax.nn.relu(x)


def relu_gate(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the derivative of `relu`: 1 where x > 0, and 0 elsewhere, at x = 0 too.

    >>> relu_gate(jnp.array([-1.0, 0.0, 2.0])).tolist()
    [0.0, 0.0, 1.0]
    """
    return (x > 0).astype(x.dtype)


def relu_vjp(x: Float[Array, "*shape"], cotangent: Float[Array, "*shape"]) -> dict[str, Array]:
    """Return ∂E/∂x = ȳ ∘ [x > 0]."""
    return {"x": cotangent * relu_gate(x)}


DERIVATIONS = (
    Derivation.from_vjp(
        "matmul",
        matmul,
        matmul_vjp,
        {"x": "m n", "y": "n p"},
        cotangent="m p",
        formula=r"Z = XY, \quad \bar X = \bar Z Y^\top, \quad \bar Y = X^\top \bar Z",
        reference=GRIEWANK,
    ),
    Derivation.from_vjp(
        "add_bias",
        add_bias,
        add_bias_vjp,
        {"x": "n m p", "b": "m"},
        cotangent="n m p",
        formula=r"Z_{ijk} = X_{ijk} + b_j, \quad \bar X = \bar Z, \quad \bar b_j = \sum_{ik} \bar "
        r"Z_{ijk}",
        reference=GRIEWANK,
    ),
    Derivation.from_vjp(
        "linear",
        linear,
        linear_vjp,
        {"x": "m n", "w": "p n", "b": "p"},
        cotangent="m p",
        formula=r"Y = XW^\top + b, \quad \bar X = \bar Y W, \quad \bar W = \bar Y^\top X, \quad "
        r"\bar b_j = \sum_i \bar Y_{ij}",
        reference=GRIEWANK,
    ),
    Derivation.from_vjp(
        "vsum",
        vsum,
        vsum_vjp,
        {"x": "n m p"},
        cotangent="",
        formula=r"y = \sum_{ijk} X_{ijk}, \quad \bar X_{ijk} = \bar y",
        reference=GRIEWANK,
    ),
    Derivation.from_vjp(
        "relu",
        relu,
        relu_vjp,
        {"x": "m n"},
        cotangent="m n",
        domains={"x": with_zeros},
        formula=r"y = \max(x, 0), \quad \bar x = \bar y \, [x > 0], \quad \text{so } 0 \text{ at "
        r"} x = 0",
        reference="Nair and Hinton, ICML 2010; the derivative 0 at x = 0 is the choice of torch "
        "and of JAX",
    ),
)
"""The claims of this module, in teaching order."""
