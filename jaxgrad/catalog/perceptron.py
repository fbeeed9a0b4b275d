"""The ReLU perceptron of any depth and width, backpropagated by hand.

Symbols: a layer is a pair (w, b) with w of shape (out, in), as in torch's nn.Linear, and b of shape
(out,). Layer l maps a_(l−1) to z_l = a_(l−1) w_lᵀ + b_l, row by row, with a_0 = x; every layer but
the last is followed by a ReLU, a_l = g_l ∘ z_l, where the gate g_l = [z_l > 0] is 0 at z_l = 0. The
last z is the output. delta_l = ∂L/∂z_l is the error signal at layer l.

Sources: D. Rumelhart, G. Hinton and R. Williams, *Nature* 323 (1986) 533–536; the recursion as
written is algorithm 6.4 of I. Goodfellow, Y. Bengio and A. Courville, *Deep Learning* (2016).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgrad.catalog.layers import linear, linear_vjp, relu, relu_gate
from jaxgrad.claims.derivation import Derivation

Layers = Sequence[tuple[Float[Array, "out in"], Float[Array, " out"]]]
"""The layers of a perceptron, first to last, each a weight (out, in) and a bias (out,)."""


class Forward(NamedTuple):
    """What the forward pass leaves behind, one entry a layer.

    Attributes:
        z: pre-activations, z[l] of shape (m, width of layer l); the last one is the output.
        a: inputs of the layers; a[0] is the data and a[l] = g ∘ z of the layer before.
        gates: derivatives of the ReLUs, 1 where z > 0 and 0 elsewhere; one fewer than layers, since
            the last has no ReLU.
    """

    z: tuple[Array, ...]
    a: tuple[Array, ...]
    gates: tuple[Array, ...]


def forward(x: Float[Array, "m n"], layers: Layers) -> Forward:
    """Run the perceptron: z_l = a_(l−1) w_lᵀ + b_l, g_l = [z_l > 0], a_l = relu(z_l).

    >>> one = forward(
    ...     jnp.array([[2.0]]),
    ...     [(jnp.array([[3.0], [-1.0]]), jnp.zeros(2)), (jnp.ones((1, 2)), jnp.zeros(1))],
    ... )
    >>> one.z[0].tolist(), one.gates[0].tolist(), one.z[-1].tolist()
    ([[6.0, -2.0]], [[1.0, 0.0]], [[6.0]])
    """
    z: list[Array] = []
    a = [x]
    for w, b in layers:
        z.append(linear(a[-1], w, b))
        a.append(relu(z[-1]))
    return Forward(tuple(z), tuple(a[:-1]), tuple(relu_gate(z_l) for z_l in z[:-1]))


def backward(record: Forward, y: Float[Array, "m k"], layers: Layers) -> tuple[Array, ...]:
    """Return the error signals delta_l = ∂L/∂z_l, first layer first, for L = mean (z_last − y)².

    delta_last = 2/(mk) (z_last − y), and delta_l = (delta_(l+1) w_(l+1)) ∘ g_l: back through the
    weights, then the gate.
    """
    deltas = [2 / y.size * (record.z[-1] - y)]
    for (w, _), gate in zip(reversed(layers[1:]), reversed(record.gates), strict=True):
        deltas.append((deltas[-1] @ w) * gate)
    return tuple(reversed(deltas))


def perceptron_loss(
    x: Float[Array, "m n"], y: Float[Array, "m k"], layers: Layers
) -> Float[Array, ""]:
    """Return mean (z_last − y)², over samples and outputs as torch's MSELoss takes it."""
    return jnp.mean((forward(x, layers).z[-1] - y) ** 2)


def perceptron_gradient(
    x: Float[Array, "m n"], y: Float[Array, "m k"], layers: Layers
) -> tuple[Array, tuple[tuple[Array, Array], ...]]:
    """Return the gradients ∂L/∂x, ∂L/∂w_l and ∂L/∂b_l of every layer.

    They are delta_1 w_1, delta_lᵀ a_(l−1) and the sum of the rows of delta_l.
    """
    record = forward(x, layers)
    products = [
        linear_vjp(a, w, b, d)
        for d, a, (w, b) in zip(backward(record, y, layers), record.a, layers, strict=True)
    ]
    return products[0]["x"], tuple((p["w"], p["b"]) for p in products)


def first_unit_off(key: Array, shape: tuple[int, ...]) -> Float[np.ndarray, "out *in"]:
    """Draw standard normals; the first unit is 0 where their number is odd and at least 3.

    A unit without weight and bias meets every sample exactly at the kink of its ReLU, so the gate
    there is tried too. An even number of units is in general position, where all entries of the
    gradients matter: a claim that is verified at several sizes is tried at both. Of one unit none
    is spared, for then all gradients below it are 0.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    unit = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return np.where(
        (unit == 0) & (shape[0] > 2) & (shape[0] % 2 == 1), 0.0, rng.standard_normal(shape)
    )


def perceptron_derivation(depth: int, name: str = "relu_mlp") -> Derivation:
    """Build the claim for a ReLU perceptron of `depth` layers, in x and all weights and biases.

    Args:
        depth: number of layers, at least 1; the inputs are x, w1, b1, … up to that number, and y.
        name: name of the claim.

    Returns:
        A claim whose widths are the sizes n0 (input), n1, … up to n<depth> (output), free to be
        chosen.

    Raises:
        ValueError: when `depth` is not a positive integer.

    >>> list(perceptron_derivation(2).shapes)
    ['x', 'w1', 'b1', 'w2', 'b2', 'y']
    """
    if not isinstance(depth, int) or depth < 1:
        raise ValueError(f"`depth` must be a positive integer, but is {depth!r}")
    numbers = range(1, depth + 1)
    shapes = {"x": "m n0"}
    for i in numbers:
        shapes |= {f"w{i}": f"n{i} n{i - 1}", f"b{i}": f"n{i}"}
    shapes["y"] = f"m n{depth}"

    def layers_of(parameters: dict[str, Array]) -> list[tuple[Array, Array]]:
        return [(parameters[f"w{i}"], parameters[f"b{i}"]) for i in numbers]

    def loss(*, x: Array, y: Array, **parameters: Array) -> Array:
        return perceptron_loss(x, y, layers_of(parameters))

    def gradient(*, x: Array, y: Array, **parameters: Array) -> dict[str, Array]:
        dx, layers = perceptron_gradient(x, y, layers_of(parameters))
        gradients = {"x": dx}
        for i, (dw, db) in zip(numbers, layers, strict=True):
            gradients |= {f"w{i}": dw, f"b{i}": db}
        return gradients

    # the closed form itself, for `jaxgrad show`
    gradient.source = backward  # type: ignore[attr-defined]
    return Derivation(
        name=name,
        loss=loss,
        gradient=gradient,
        shapes=shapes,
        domains={"w1": first_unit_off, "b1": first_unit_off} if depth > 1 else {},
        formula=rf"\delta_{{{depth}}} = \tfrac{{2}}{{m n_{{{depth}}}}} (z_{{{depth}}} - y), \quad"
        r" \delta_l = (\delta_{l+1} W_{l+1}) \circ [z_l > 0], \quad"
        r" \nabla_{W_l} L = \delta_l^\top a_{l-1}, \quad \nabla_{b_l} L = \delta_l^\top 1, \quad "
        r"\nabla_x L = \delta_1 W_1",
        reference="Rumelhart, Hinton and Williams, Nature 323 (1986) 533-536; Goodfellow et al., "
        "Deep Learning (2016), alg. 6.4",
    )


DERIVATIONS = (perceptron_derivation(3),)
"""The claims of this module: the perceptron of three layers."""
