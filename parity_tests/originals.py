"""The original formulations, in torch: every entry of the catalogue once more, as a person writes
it there.

Nothing here comes from jaxgrad. An original is a function of named tensors; `gradient`
differentiates it the way its notebook does: by `backward`, by `torch.autograd.functional.jacobian`,
or by pulling a cotangent back.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Original(NamedTuple):
    """A torch function of the inputs by name, and how it is differentiated: "backward", "jacobian"
    or "cotangent".
    """

    function: Callable
    how: str = "backward"


# --- matrix calculus


def _inner_product(w, x):
    return torch.dot(w, x)


def _matvec(w, x):
    return torch.mv(w, x)


def _mse(pred, y):
    return nn.MSELoss()(pred, y)


def _mse_matvec(x, y, w):
    return torch.mean((y - torch.mv(w, x)) ** 2)


def _two_layer_linear(x, y, w1, w2):
    hidden = torch.matmul(w1, x.unsqueeze(1))
    return F.mse_loss(torch.matmul(w2, hidden), y.unsqueeze(1))


# --- layers: the output alone, since torch pulls the cotangent back


def _add_bias(x, b):
    return x + b.view(1, -1, 1)


# --- the perceptron, as a module whose hooks write down what passes


class Perceptron(nn.Module):
    """Linear layers with ReLUs between them; its hooks record each layer's inputs, outputs and
    their gradients.
    """

    def __init__(self, widths):
        """Build one nn.Linear between each two neighbouring `widths`."""
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(widths))
        self.inputs, self.outputs, self.output_gradients, self.input_gradients = {}, {}, {}, {}
        for number, layer in enumerate(self.layers):
            layer.register_forward_hook(self._after_forward(number))
            layer.register_full_backward_hook(self._after_backward(number))

    def _after_forward(self, number):
        def hook(_, inputs, output):
            self.inputs[number], self.outputs[number] = inputs[0].detach(), output.detach()

        return hook

    def _after_backward(self, number):
        def hook(_, grad_input, grad_output):
            self.input_gradients[number], self.output_gradients[number] = (
                grad_input[0],
                grad_output[0].detach(),
            )

        return hook

    def forward(self, x):
        """Run the layers, with a ReLU after each but the last."""
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)


def perceptron_of(parameters):
    """Return a module that holds these {w1, b1, w2, …} themselves, so that gradients flow to
    them.
    """
    depth = len(parameters) // 2
    widths = [parameters["w1"].shape[1], *(len(parameters[f"b{i}"]) for i in range(1, depth + 1))]
    module = Perceptron(widths).to(parameters["w1"])
    with torch.no_grad():
        for i, layer in enumerate(module.layers, start=1):
            layer.weight.copy_(parameters[f"w{i}"])
            layer.bias.copy_(parameters[f"b{i}"])
    return module


def _relu_mlp(x, y, **parameters):
    names = {
        f"layers.{int(k[1:]) - 1}.{'weight' if k[0] == 'w' else 'bias'}": v
        for k, v in parameters.items()
    }
    return F.mse_loss(torch.func.functional_call(perceptron_of(parameters), names, (x,)), y)


# --- autoencoders


def _autoencoder_sample(y, w1, w2):
    column = y.unsqueeze(1)
    error = column - w2.mm(w1.mm(column))
    return error.T.mm(error).squeeze()


def _autoencoder(x, w1, w2):
    error = x.mm(w1.T.mm(w2.T)) - x
    return error.mul(error).sum() / len(x)


def _autoencoder_mse(x, w1, w2):
    return x.shape[1] * nn.MSELoss()(x.mm(w1.T.mm(w2.T)), x)


def _masked_autoencoder(x, w1, w2, mask):
    error = (mask * x).mm(w1.T).mm(w2.T) - x
    return (error * error).sum() / x.shape[0] / x.shape[1]


# --- denoising


def _dropped(x, w1, w2, mask):
    error = (mask * x).mm(w1.T).mm(w2.T) - x
    return torch.where(mask == 0, error.square(), torch.zeros_like(error)).mean()


def _emphasised(x, w1, w2, alpha, beta, mask):
    error = F.mse_loss(F.linear(F.linear(mask * x, w1), w2), x, reduction="none")
    return torch.where(mask == 0, alpha * error, beta * error).mean()


def _dropout(x, w, b, y, mask):
    return F.mse_loss(F.linear(mask * x / DROPOUT_KEEP, w, b), y, reduction="sum") / len(x)


def _marginalised(x, w, mask):
    return F.mse_loss(F.linear(mask * x, w), x, reduction="sum") / len(x)


# --- surrogates


def _gated(g, w, w2, c, mask):
    return (((g @ w) * mask) @ w2 * c).sum()


def _ridge(g, gp, m, delta):
    return torch.linalg.matrix_norm(gp - g @ m) ** 2 + delta * torch.linalg.matrix_norm(m) ** 2


def _least_squares(x, y, m):
    return torch.linalg.matrix_norm(m @ x - y) ** 2


ORIGINALS = {
    "inner_product": Original(_inner_product),
    "matvec": Original(_matvec, "jacobian"),
    "mse": Original(_mse),
    "mse_matvec": Original(_mse_matvec),
    "two_layer_linear": Original(_two_layer_linear),
    "matmul": Original(torch.matmul, "cotangent"),
    "add_bias": Original(_add_bias, "cotangent"),
    "linear": Original(F.linear, "cotangent"),
    "vsum": Original(torch.sum, "cotangent"),
    "relu": Original(nn.ReLU(), "cotangent"),
    "relu_mlp": Original(_relu_mlp),
    "autoencoder_sample": Original(_autoencoder_sample, "jacobian"),
    "autoencoder": Original(_autoencoder, "jacobian"),
    "autoencoder_mse": Original(_autoencoder_mse, "jacobian"),
    "masked_autoencoder_bernoulli": Original(_masked_autoencoder, "jacobian"),
    "masked_autoencoder_features": Original(_masked_autoencoder, "jacobian"),
    "masked_autoencoder_patches": Original(_masked_autoencoder, "jacobian"),
    "masked_autoencoder_fixed_count": Original(_masked_autoencoder, "jacobian"),
    "masked_autoencoder_dropped_loss": Original(_dropped),
    "emphasised_denoising": Original(_emphasised),
    "inverted_dropout": Original(_dropout),
    "marginalised_denoising": Original(_marginalised, "jacobian"),
    "mean_gate": Original(_gated),
    "ridge_map": Original(_ridge),
    "least_squares_map": Original(_least_squares),
}
"""{name of the entry: its original}."""


def value_and_gradient(original, inputs, wrt):
    """Return the loss and {name: gradient in that input}, both by torch alone."""
    tensors = {name: tensor.clone().requires_grad_(name in wrt) for name, tensor in inputs.items()}
    if original.how == "cotangent":
        cotangent = tensors.pop("cotangent")
        output = original.function(*tensors.values())
        pulled = (
            torch.autograd.grad(output, [tensors[name] for name in wrt], grad_outputs=cotangent)
            if wrt
            else ()
        )
        return (output * cotangent).sum(), dict(zip(wrt, pulled, strict=True))
    value = original.function(**tensors)
    if not wrt:
        return value, {}
    if original.how == "backward":
        value.backward()
        return value, {name: tensors[name].grad for name in wrt}

    def of(*arrays):
        return original.function(**{**inputs, **dict(zip(wrt, arrays, strict=True))})

    return value, dict(
        zip(
            wrt,
            torch.autograd.functional.jacobian(of, tuple(inputs[name] for name in wrt)),
            strict=True,
        )
    )


# --- masks: how they are drawn, and all of them with their probabilities


class Masks(NamedTuple):
    """How the masks of an entry are drawn, and what a row can be: (generator, shape) -> mask, and n
    -> [(row, probability)].
    """

    draw: Callable
    rows: Callable


PROBABILITY, PATCH, DROPOUT_KEEP = 0.6, 2, 0.8


def probabilities(n):
    """Return the keeping probability of each feature."""
    return [0.3 + 0.6 * j / (n - 1) for j in range(n)]


def kept(n):
    """Return how many of n entries a fixed count keeps: half of them, rounded up."""
    return -(-n // 2)


def _coins(chances):
    for row in itertools.product((0, 1), repeat=len(chances)):
        yield row, np.prod([p if bit else 1 - p for bit, p in zip(row, chances, strict=True)])


def _draw_coins(chances_of):
    def draw(generator, shape):
        return torch.bernoulli(
            torch.tensor(chances_of(shape[-1]), dtype=torch.float64).expand(shape),
            generator=generator,
        )

    return draw


def _draw_patches(generator, shape):
    patches = torch.full((*shape[:-1], shape[-1] // PATCH), PROBABILITY, dtype=torch.float64)
    return torch.bernoulli(patches, generator=generator).repeat_interleave(PATCH, dim=-1)


def _patch_rows(n):
    for row, probability in _coins([PROBABILITY] * (n // PATCH)):
        yield tuple(bit for bit in row for _ in range(PATCH)), probability


def _draw_fixed(generator, shape):
    ranks = torch.rand(shape, generator=generator, dtype=torch.float64).argsort(-1).argsort(-1)
    return (ranks < kept(shape[-1])).to(torch.float64)


def _fixed_rows(n):
    choices = list(itertools.combinations(range(n), kept(n)))
    for choice in choices:
        yield tuple(int(j in choice) for j in range(n)), 1 / len(choices)


_FEATURES = Masks(_draw_coins(probabilities), lambda n: _coins(probabilities(n)))
MASKS = {
    "masked_autoencoder_bernoulli": Masks(
        _draw_coins(lambda n: [PROBABILITY] * n), lambda n: _coins([PROBABILITY] * n)
    ),
    "masked_autoencoder_features": _FEATURES,
    "masked_autoencoder_patches": Masks(_draw_patches, _patch_rows),
    "masked_autoencoder_fixed_count": Masks(_draw_fixed, _fixed_rows),
    "masked_autoencoder_dropped_loss": _FEATURES,
    "emphasised_denoising": _FEATURES,
    "inverted_dropout": Masks(
        _draw_coins(lambda n: [DROPOUT_KEEP] * n), lambda n: _coins([DROPOUT_KEEP] * n)
    ),
    "marginalised_denoising": _FEATURES,
    "mean_gate": _FEATURES,
}
"""{name of the entry with a mask: its masks}."""


def every_mask(name, shape):
    """Return all masks of a shape (m, n), stacked, and their probabilities."""
    rows = list(MASKS[name].rows(shape[1]))
    stacks = list(itertools.product(rows, repeat=shape[0]))
    masks = np.array([[row for row, _ in stack] for stack in stacks], dtype=float)
    return masks, np.array([np.prod([probability for _, probability in stack]) for stack in stacks])
