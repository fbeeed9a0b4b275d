"""Matrix calculus from the inner product to a two-layer linear network, one sample at a time.

Symbols: x is a data vector (n,), y a target (m,), w, w1, w2 weights with one row per output, `pred`
a prediction; e is the error signal ∂L/∂pred of a mean squared error, from which every gradient
below the prediction follows.

Sources: K. B. Petersen and M. S. Pedersen, *The Matrix Cookbook* (2012), eqs. 69, 70, 84–88; for
the two-layer network P. Baldi and K. Hornik, *Neural Networks* 2 (1989) 53–58.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgrad.claims.derivation import Derivation

COOKBOOK = "Petersen and Pedersen, The Matrix Cookbook (2012)"


def inner_product(w: Float[Array, " n"], x: Float[Array, " n"]) -> Float[Array, ""]:
    """Return wᵀx.

    >>> float(inner_product(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])))
    11.0
    """
    return w @ x


def inner_product_gradient(w: Float[Array, " n"], x: Float[Array, " n"]) -> dict[str, Array]:
    """Return ∂wᵀx/∂w = x and ∂wᵀx/∂x = w (Matrix Cookbook, eq. 69)."""
    return {"w": x, "x": w}


def matvec(w: Float[Array, "m n"], x: Float[Array, " n"]) -> Float[Array, " m"]:
    """Return Wx.

    >>> matvec(jnp.array([[1.0, 2.0], [0.0, 1.0]]), jnp.array([3.0, 4.0])).tolist()
    [11.0, 4.0]
    """
    return w @ x


def matvec_jacobian(w: Float[Array, "m n"], x: Float[Array, " n"]) -> dict[str, Array]:
    """Return the Jacobians ∂(Wx)ᵢ/∂Wₖₗ = δᵢₖ xₗ, (m, m, n), and ∂(Wx)ᵢ/∂xₗ = Wᵢₗ, (m, n).

    Summed over the outputs i the first is the matrix 1xᵀ.
    """
    identity = jnp.eye(w.shape[0], dtype=x.dtype)
    return {"w": identity[:, :, None] * x, "x": w}


def mse(pred: Float[Array, " m"], y: Float[Array, " m"]) -> Float[Array, ""]:
    """Return the mean squared error 1/m Σ (yᵢ − predᵢ)².

    >>> float(mse(jnp.array([1.0, 2.0]), jnp.array([0.0, 4.0])))
    2.5
    """
    return jnp.mean((y - pred) ** 2)


def mse_gradient(pred: Float[Array, " m"], y: Float[Array, " m"]) -> dict[str, Array]:
    """Return e = ∂L/∂pred = −2/m (y − pred) and ∂L/∂y = −e (Matrix Cookbook, eqs. 85–86)."""
    e = -2 / y.shape[0] * (y - pred)
    return {"pred": e, "y": -e}


def mse_matvec(
    x: Float[Array, " n"], y: Float[Array, " m"], w: Float[Array, "m n"]
) -> Float[Array, ""]:
    """Return 1/m ‖y − Wx‖²."""
    return mse(w @ x, y)


def mse_matvec_gradient(
    x: Float[Array, " n"], y: Float[Array, " m"], w: Float[Array, "m n"]
) -> dict[str, Array]:
    """Return ∂L/∂W = e xᵀ, ∂L/∂x = Wᵀe and ∂L/∂y = −e, with e = −2/m (y − Wx).

    Source: Matrix Cookbook, eqs. 84, 87, 88.
    """
    e = mse_gradient(w @ x, y)["pred"]
    return {"w": jnp.outer(e, x), "x": w.T @ e, "y": -e}


def two_layer_linear(
    x: Float[Array, " n"], y: Float[Array, " m"], w1: Float[Array, "p n"], w2: Float[Array, "m p"]
) -> Float[Array, ""]:
    """Return 1/m ‖y − W2W1x‖²."""
    return mse(w2 @ (w1 @ x), y)


def two_layer_linear_gradient(
    x: Float[Array, " n"], y: Float[Array, " m"], w1: Float[Array, "p n"], w2: Float[Array, "m p"]
) -> dict[str, Array]:
    """Return the gradients of the two-layer network, by passing the error back layer by layer.

    With the hidden x1 = W1x: e = −2/m (y − W2x1), then ∂L/∂W2 = e x1ᵀ, e1 = W2ᵀe, ∂L/∂W1 = e1 xᵀ,
    ∂L/∂x = W1ᵀe1, ∂L/∂y = −e.
    """
    x1 = w1 @ x
    e = mse_gradient(w2 @ x1, y)["pred"]
    e1 = w2.T @ e
    return {"w1": jnp.outer(e1, x), "w2": jnp.outer(e, x1), "x": w1.T @ e1, "y": -e}


DERIVATIONS = (
    Derivation(
        name="inner_product",
        loss=inner_product,
        gradient=inner_product_gradient,
        shapes={"w": "n", "x": "n"},
        formula=r"f = w^\top x, \quad \frac{\partial f}{\partial w} = x, \quad \frac{\partial "
        r"f}{\partial x} = w",
        reference=f"{COOKBOOK}, eq. 69",
    ),
    Derivation(
        name="matvec",
        loss=matvec,
        gradient=matvec_jacobian,
        shapes={"w": "m n", "x": "n"},
        formula=r"\frac{\partial (Wx)_i}{\partial W_{kl}} = \delta_{ik} x_l, \quad \frac{\partial "
        r"(Wx)_i}{\partial x_l} = W_{il}",
        reference=f"{COOKBOOK}, eqs. 69, 70",
    ),
    Derivation(
        name="mse",
        loss=mse,
        gradient=mse_gradient,
        shapes={"pred": "m", "y": "m"},
        formula=r"L = \tfrac1m \lVert y - \hat y \rVert^2, \quad \frac{\partial L}{\partial \hat "
        r"y} = -\tfrac2m (y - \hat y)"
        r" = -\frac{\partial L}{\partial y}",
        reference=f"{COOKBOOK}, eqs. 85, 86",
    ),
    Derivation(
        name="mse_matvec",
        loss=mse_matvec,
        gradient=mse_matvec_gradient,
        shapes={"x": "n", "y": "m", "w": "m n"},
        formula=r"e = -\tfrac2m (y - Wx), \quad \nabla_W L = e x^\top, \quad \nabla_x L = W^\top "
        r"e, \quad \nabla_y L = -e",
        reference=f"{COOKBOOK}, eqs. 84, 87, 88",
    ),
    Derivation(
        name="two_layer_linear",
        loss=two_layer_linear,
        gradient=two_layer_linear_gradient,
        shapes={"x": "n", "y": "m", "w1": "p n", "w2": "m p"},
        formula=r"e = -\tfrac2m (y - W_2 W_1 x), \quad \nabla_{W_1} L = W_2^\top e x^\top, \quad"
        r" \nabla_{W_2} L = e (W_1 x)^\top, \quad \nabla_x L = W_1^\top W_2^\top e, \quad "
        r"\nabla_y L = -e",
        reference="Baldi and Hornik, Neural Networks 2 (1989) 53-58",
    ),
)
"""The claims of this module, in teaching order."""
