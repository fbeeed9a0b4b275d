"""The perceptron's forward and backward records against what torch's hooks see in an nn.Module, at
several depths.
"""

import jax
import numpy as np
import pytest
import torch
from jax.ad_checkpoint import checkpoint_name
from torch import nn

import jaxgrad as jg
from jaxgrad.catalog import perceptron
from parity_tests.originals import perceptron_of
from parity_tests.tolerances import DEVICES, TORCH_DEVICE, assert_same, precision
from tests.draws import draw, fast

WIDTHS = {1: (3, 2), 3: (3, 2, 2, 1), 4: (5, 4, 7, 6, 3)}


def drawn(widths, dtype, samples=4):
    derivation = perceptron.perceptron_derivation(len(widths) - 1)
    inputs = draw(
        derivation, {"m": samples} | {f"n{i}": width for i, width in enumerate(widths)}, seed=1
    )
    return {k: v.astype(dtype) for k, v in inputs.items()}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("depth", WIDTHS)
def test_the_records_are_what_torchs_hooks_see(depth, dtype, device):
    inputs = drawn(WIDTHS[depth], dtype)
    with precision(dtype, device):
        tensors = {
            k: torch.from_numpy(v.copy()).to(TORCH_DEVICE[device]) for k, v in inputs.items()
        }
        x, y = tensors.pop("x").requires_grad_(), tensors.pop("y")
        module = perceptron_of(tensors)
        loss = nn.MSELoss()(module(x), y)
        loss.backward()

        @fast
        def ours(x, y, layers):
            record = perceptron.forward(x, layers)
            loss = perceptron.perceptron_loss(x, y, layers)
            return (
                loss,
                record,
                perceptron.backward(record, y, layers),
                perceptron.perceptron_gradient(x, y, layers),
            )

        layers = [(inputs[f"w{i}"], inputs[f"b{i}"]) for i in range(1, depth + 1)]
        value, record, deltas, (dx, parameters) = ours(inputs["x"], inputs["y"], layers)

    assert_same(value, loss, "loss")
    assert_same(dx, x.grad, "gradient in x")
    assert len(record.gates) == depth - 1
    for i, layer in enumerate(module.layers):
        assert_same(record.a[i], module.inputs[i], f"input of layer {i + 1}")
        assert_same(record.z[i], module.outputs[i], f"output of layer {i + 1}")
        assert_same(deltas[i], module.output_gradients[i], f"error signal of layer {i + 1}")
        assert_same(
            np.asarray(deltas[i]) @ layers[i][0],
            module.input_gradients[i],
            f"error signal below layer {i + 1}",
        )
        assert_same(parameters[i][0], layer.weight.grad, f"gradient of weight {i + 1}")
        assert_same(parameters[i][1], layer.bias.grad, f"gradient of bias {i + 1}")
        if i < depth - 1:
            open_in_torch = torch.relu(module.outputs[i]) > 0
            np.testing.assert_array_equal(
                np.asarray(record.gates[i]) == 1, open_in_torch.cpu().numpy()
            )


def test_at_the_kink_both_frameworks_keep_the_gate_shut():
    zero = torch.zeros(1, requires_grad=True)
    torch.relu(zero).backward()
    assert zero.grad.item() == 0
    assert float(jax.grad(perceptron.relu)(0.0)) == 0
    assert float(perceptron.relu_gate(np.zeros(()))) == 0


def test_capture_gives_what_the_hooks_see():
    inputs = drawn(WIDTHS[3], "float64")
    with precision("float64", "cpu"):
        tensors = {k: torch.from_numpy(v.copy()) for k, v in inputs.items()}
        x, y = tensors.pop("x").requires_grad_(), tensors.pop("y")
        module = perceptron_of(tensors)
        nn.MSELoss()(module(x), y).backward()

        def loss(a):
            for i in (1, 2, 3):
                a = checkpoint_name(a, "input")
                z = checkpoint_name(a @ inputs[f"w{i}"].T + inputs[f"b{i}"], "output")
                a = jax.nn.relu(z) if i < 3 else z
            return ((a - inputs["y"]) ** 2).mean()

        _, seen, cotangents = jg.capture(jax.jit(loss), cotangents=True)(inputs["x"])
    for i, occurrence in enumerate(("", "#1", "#2")):
        assert_same(seen[f"input{occurrence}"], module.inputs[i], f"input of layer {i + 1}")
        assert_same(seen[f"output{occurrence}"], module.outputs[i], f"output of layer {i + 1}")
        assert_same(
            cotangents[f"input{occurrence}"],
            module.input_gradients[i],
            f"error signal below layer {i + 1}",
        )
        assert_same(
            cotangents[f"output{occurrence}"],
            module.output_gradients[i],
            f"error signal of layer {i + 1}",
        )
