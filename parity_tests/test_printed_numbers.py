"""The numbers that the original notebooks print come out again.

Where a notebook seeds its generator, its inputs are drawn anew with it; where it only prints them,
to two digits, what the lost digits allow is carried through the computation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.flatten_util import ravel_pytree
from torch.autograd.functional import jacobian

from jaxgrad.catalog import autoencoders, layers, perceptron, surrogates, vectors
from parity_tests.tolerances import assert_same, precision

# --- matrix calculus: torch's generator, seed 42


def rand(*shapes):
    """What `torch.rand` gives for these shapes, one after the other, after seed 42."""
    torch.manual_seed(42)
    return [torch.rand(shape) for shape in shapes]


def as_numpy(*tensors):
    return [tensor.detach().numpy().squeeze() for tensor in tensors]


def test_the_inner_product_of_seed_42_is_the_printed_one():
    x, w = as_numpy(*rand((5, 1), (5, 1)))
    np.testing.assert_array_equal(x.round(4), np.float32([0.8823, 0.9150, 0.3829, 0.9593, 0.3904]))
    np.testing.assert_array_equal(w.round(4), np.float32([0.6009, 0.2566, 0.7936, 0.9408, 0.1332]))
    assert_same(vectors.inner_product(w, x), np.float32(2.0232625007629395), "wᵀx")
    gradient = vectors.inner_product_gradient(w, x)
    np.testing.assert_array_equal(gradient["w"], x)
    np.testing.assert_array_equal(gradient["x"], w)


def test_the_jacobian_of_seed_42_sums_to_ones_times_x():
    w, x = rand((20, 5), (5, 1))
    ours = vectors.matvec_jacobian(*as_numpy(w, x))
    theirs = jacobian(lambda w: (w @ x).squeeze(), w)
    np.testing.assert_array_equal(ours["w"], theirs.numpy())
    np.testing.assert_array_equal(ours["w"].sum(0), np.ones((20, 1), np.float32) * as_numpy(x)[0])


def test_the_mean_squared_error_of_seed_42_has_torchs_gradient():
    pred, y = rand((5, 1), (5, 1))
    torch.mean((y - pred.requires_grad_()) ** 2).backward()
    assert_same(vectors.mse_gradient(*as_numpy(pred, y))["pred"], as_numpy(pred.grad)[0])


def test_the_one_layer_network_of_seed_42_has_torchs_gradient():
    x, w, y = rand((5, 1), (20, 5), (20, 1))
    torch.mean((y - w.requires_grad_() @ x) ** 2).backward()
    assert_same(vectors.mse_matvec_gradient(*as_numpy(x, y, w))["w"], w.grad)


def test_the_two_layer_network_of_seed_42_has_torchs_gradient():
    x, w1, w2, y = rand((5, 1), (9, 5), (7, 9), (7, 1))
    torch.mean((y - w2 @ (w1.requires_grad_() @ x)) ** 2).backward()
    assert_same(vectors.two_layer_linear_gradient(*as_numpy(x, y, w1, w2))["w1"], w1.grad)


# --- layers: numpy's generator, seed 12, the loss Σ z² behind the layer

LAYERS = {
    "matmul": (((4, 6), (6, 9)), torch.matmul),
    "add_bias": (((4, 6, 3), (6,)), lambda x, b: x + b.view(1, -1, 1)),
    "linear": (((18, 14), (5, 14), (5,)), torch.nn.functional.linear),
    "vsum": (((4, 6, 3),), torch.sum),
}
PRINTED_DISTANCE = 2e-5
"""The largest distance that the notebook prints is 1.6e-5, between gradients whose entries are near
50.
"""


@pytest.mark.parametrize("name", LAYERS)
def test_the_layers_of_seed_12_are_at_the_printed_distance_from_torch(name):
    shapes, torch_layer = LAYERS[name]
    rng = np.random.RandomState(12)
    inputs = [rng.randn(*shape).astype(np.float32) for shape in shapes]
    tensors = [torch.from_numpy(array.copy()).requires_grad_() for array in inputs]
    torch_z = torch_layer(*tensors)
    (torch_z**2).sum().backward()
    z = getattr(layers, name)(*inputs)
    gradient = getattr(layers, f"{name}_vjp")(*inputs, 2 * z)
    assert_same(z, torch_z, "output", scale=getattr(layers, name)(*map(np.abs, inputs)).max())
    for (wrt, ours), theirs in zip(gradient.items(), tensors, strict=True):
        assert float(np.max(np.abs(ours - theirs.grad.numpy()))) < PRINTED_DISTANCE, wrt


# --- autoencoders: not seeded, the distances are


@pytest.mark.parametrize("seed", range(5))
def test_the_autoencoders_are_at_the_printed_distance_from_torch(seed):
    generator = torch.Generator().manual_seed(seed)
    y, w1, w2, x = (
        torch.rand(shape, generator=generator) for shape in ((6, 1), (5, 6), (6, 5), (4, 6))
    )

    def of_sample(w1, w2):
        error = y - w2 @ (w1 @ y)
        return (error.T @ error).squeeze()

    def of_batch(w1, w2):
        error = x @ (w1.T @ w2.T) - x
        return (error * error).sum() / len(x)

    def of_batch_mse(w1, w2):
        return torch.nn.MSELoss()(x @ (w1.T @ w2.T), x) * x.shape[1]

    sample = autoencoders.sample_gradient(*as_numpy(y, w1, w2))
    batch = autoencoders.batch_gradient(*as_numpy(x, w1, w2))
    for ours, loss in ((sample, of_sample), (batch, of_batch), (batch, of_batch_mse)):
        for wrt, theirs in zip(("w1", "w2"), jacobian(loss, (w1, w2)), strict=True):
            # the notebook prints Frobenius norms from 3.0e-6 to 6.5e-6, over entries near 20: a few
            # roundings of each
            assert np.linalg.norm(ours[wrt] - theirs.numpy()) < 2e-5, wrt
            assert_same(ours[wrt], theirs, wrt)


# --- the perceptron: inputs printed to two digits

ROUNDING = 0.005
X = np.array([[3.0, -1, 0], [4, -6, 8], [-2, 5, 4], [0, -5, 6]])  # integers: exact as printed
GATES = ([[0, 1], [0, 0], [1, 0], [0, 0]], [[0, 0], [0, 1], [0, 1], [0, 1]])
PRINTED = {
    "y": np.array([[0.38], [1.24], [-0.72], [0.60]]),
    "w1": np.array([[-0.03, 0.11, 0.01], [0.48, 0.21, -0.27]]),
    "w2": np.array([[0.34, 0.05], [0.04, -0.69]]),
    "w3": np.array([[0.68, 0.65]]),
    "z1": np.array([[-0.10, 1.31], [-0.57, -1.47], [0.74, -0.91], [-0.37, -2.63]]),
    "z2": np.array([[-0.63, -0.48], [-0.69, 0.43], [-0.44, 0.46], [-0.69, 0.43]]),
    "z3": np.array([[-0.29], [-0.01], [0.00], [-0.01]]),
}
EXPECTED = {
    "loss": np.array(0.73),
    "a1": np.array([[0.00, 1.31], [0.00, 0.00], [0.74, 0.00], [0.00, 0.00]]),
    "a2": np.array([[0.00, 0.00], [0.00, 0.43], [0.00, 0.46], [0.00, 0.43]]),
    "delta3": np.array([[-0.33], [-0.63], [0.36], [-0.31]]),
    "delta2": np.array([[0.00, 0.00], [0.00, -0.41], [0.00, 0.23], [0.00, -0.20]]),
    "delta1": np.array([[0.00, 0.00], [0.00, 0.00], [0.01, 0.00], [0.00, 0.00]]),
    "below3": np.array([[-0.23, -0.22], [-0.43, -0.41], [0.25, 0.23], [-0.21, -0.20]]),
    "below2": np.array([[0.00, 0.00], [-0.02, 0.28], [0.01, -0.16], [-0.01, 0.14]]),
    "w1": np.array([[-0.02, 0.04, 0.03], [0.00, 0.00, 0.00]]),
    "w2": np.array([[0.00, 0.00], [0.17, 0.00]]),
    "w3": np.array([[0.00, -0.24]]),
    "z1": PRINTED["z1"],
    "z2": PRINTED["z2"],
    "z3": PRINTED["z3"],
}


def run_network(printed):
    """Everything the notebook prints, from what it prints: the biases are the mean over the samples
    of z − a wᵀ.
    """
    a1, a2 = layers.relu(printed["z1"]), layers.relu(printed["z2"])
    stack = []
    for i, a in enumerate((X, a1, a2), start=1):
        w = printed[f"w{i}"]
        stack.append((w, jnp.mean(printed[f"z{i}"] - a @ w.T, axis=0)))
    record = perceptron.forward(X, stack)
    deltas = perceptron.backward(record, printed["y"], stack)
    _, gradients = perceptron.perceptron_gradient(X, printed["y"], stack)
    return {
        "loss": perceptron.perceptron_loss(X, printed["y"], stack),
        **{f"a{i}": record.a[i] for i in (1, 2)},
        **{f"z{i + 1}": record.z[i] for i in range(3)},
        **{f"delta{i + 1}": deltas[i] for i in range(3)},
        **{f"below{i}": deltas[i - 1] @ stack[i - 1][0] for i in (2, 3)},
        **{f"w{i + 1}": gradients[i][0] for i in range(3)},
    }, record.gates


def lost_digits(printed):
    """How far each output may move when each printed input moves by half a unit of its last digit.

    To first order Σ |∂out/∂in| · 0.005, and to second order ½ Σ |∂²out/∂in∂in'| · 0.005²; the
    network is a polynomial while no gate changes, and none does, since no printed z but the output
    is within 0.05 of 0.
    """

    def outputs(printed):
        return run_network(printed)[0]

    flat, unflatten = ravel_pytree(printed)
    first = jax.jacfwd(lambda v: outputs(unflatten(v)))
    second = jax.jacfwd(first)

    def bound(j, h):
        return jnp.abs(j).sum(-1) * ROUNDING + jnp.abs(h).sum((-1, -2)) / 2 * ROUNDING**2

    return jax.jit(lambda v: jax.tree.map(bound, first(v), second(v)))(flat)


def test_the_printed_network_comes_out_again_within_its_lost_digits():
    with precision("float64"):
        printed = jax.tree.map(jnp.asarray, PRINTED)
        outputs, gates = jax.tree.map(np.asarray, run_network(printed))
        allowed = jax.tree.map(np.asarray, lost_digits(printed))
    for gate, expected in zip(gates, GATES, strict=True):
        np.testing.assert_array_equal(gate, expected)
    for name, expected in EXPECTED.items():
        assert np.all(np.abs(outputs[name] - expected) <= allowed[name] + ROUNDING), name
        # what passes is known well: the lost digits blur it by less than a fifth of its largest
        # entry
        assert np.max(allowed[name]) < 0.2 * np.max(np.abs(expected)), name


def test_of_the_printed_values_the_loss_is_073_and_the_output_error_is_as_printed():
    with precision("float64"):
        record = perceptron.Forward(z=(PRINTED["z3"],), a=(EXPECTED["a2"],), gates=())
        (delta3,) = perceptron.backward(record, PRINTED["y"], [(PRINTED["w3"], np.zeros(1))])
        assert round(float(vectors.mse(PRINTED["z3"][:, 0], PRINTED["y"][:, 0])), 2) == 0.73
        np.testing.assert_allclose(delta3, EXPECTED["delta3"], atol=2 * ROUNDING)
        np.testing.assert_allclose(
            np.asarray(delta3).T @ EXPECTED["a2"], EXPECTED["w3"], atol=2 * ROUNDING
        )


# --- the least-squares map: integers, printed in full


def test_the_least_squares_map_and_its_error_are_the_printed_ones():
    w = np.array([[1.0, 1], [-1, -1]])
    x = np.array([[1.0, -1, 2, 1], [2, 2, -1, -2]])
    y = w @ np.maximum(x, 0)
    with precision("float64"):
        m = surrogates.least_squares_map(x, y)
        np.testing.assert_allclose(m, [[1.36, 0.88], [-1.36, -0.88]], rtol=1e-14)
        assert float(jnp.linalg.norm(m @ x - y)) == pytest.approx(3.0199337741082997, rel=1e-15)
        assert float(surrogates.least_squares_loss(x, y, m)) == pytest.approx(
            3.0199337741082997**2, rel=1e-14
        )
