"""Real models, ported to plain JAX, against torch.nn: values, gradients, activations, cotangents,
and accuracy in float32.
"""

import numpy as np
import pytest
import torch

from jaxgrad import parity
from parity_tests import jax_models, torch_models

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((3, 3, 8, 8))
TOKENS = RNG.standard_normal((2, 5, 8))


def confirmed(report):
    """Fail with the whole table unless everything agrees."""
    report.assert_confirmed()
    assert {f.evidence for f in report.findings} >= {"semantic", "float32"}
    return {f.wrt for f in report.findings}


def test_a_perceptron_to_second_order(device):
    golden = parity.record(
        torch_models.MLP(), {"x": RNG.standard_normal((7, 6))}, order=2, device=device
    )
    compared = confirmed(parity.check(jax_models.mlp, golden))
    assert {"output", "fc1", "d fc1", "d fc1.weight", "d x", "dd fc1.weight", "dd x"} <= compared


@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
def test_a_convolutional_network_with_batch_norm(train, device):
    golden = parity.record(torch_models.CNN(), {"x": IMAGES}, train=train, device=device)
    report = parity.check(lambda p, x: jax_models.cnn(p, x, train=train), golden, buffers=True)
    compared = confirmed(report)
    assert ("bn1.running_var updated" in compared) == train
    assert (
        "conv1.bias" in [w.partition(":")[0].removeprefix("d ") for w in report.warnings]
    ) == train, "BatchNorm takes the bias away"


def test_a_transformer_of_four_layers_with_dropout_replayed(device):
    golden = parity.record(
        torch_models.encoder(layers=4), {"src": TOKENS}, train=True, device=device
    )
    assert len(golden.noise) == 16
    compared = confirmed(
        parity.check(lambda p, src: jax_models.encoder(p, src, layers=4), golden, ignore="layers.?")
    )
    assert {"layers.3.self_attn[0]", "d layers.0.dropout1"} <= compared


def test_a_transformer_under_a_causal_mask(device):
    golden = parity.record(torch_models.CausalEncoder(), {"x": TOKENS}, device=device)
    confirmed(parity.check(jax_models.causal_encoder, golden))


def test_a_gated_recurrent_network(device):
    golden = parity.record(
        torch_models.Recurrent(), {"x": RNG.standard_normal((3, 6, 4))}, device=device
    )
    assert "gru[0]" in confirmed(parity.check(jax_models.recurrent, golden))


def test_a_masked_autoencoder_with_its_loss_and_its_random_patches_replayed(device):
    model = torch_models.MaskedAutoencoder()
    golden = parity.record(
        model, {"x": IMAGES}, loss=torch_models.masked_loss(model, IMAGES), device=device
    )
    assert list(golden.noise) == ["noise"]
    report = parity.check(
        jax_models.masked_autoencoder, golden, loss=jax_models.masked_loss(IMAGES)
    )
    assert {"loss", "output['prediction']", "d decoder_position", "d mask_token"} <= confirmed(
        report
    )


def test_the_recording_leaves_the_module_and_torchs_settings_as_they_were():
    module = torch_models.CNN()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    state, training = torch.random.get_rng_state(), module.training
    parity.record(module, {"x": IMAGES}, train=False)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state) and module.training == training
    assert torch.get_default_dtype() == torch.float32
