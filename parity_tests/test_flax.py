"""The same models in flax: weights mapped from a tree, scopes as taps, and what its defaults
change.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen

from jaxgrad import parity
from parity_tests import jax_models, torch_models

RNG = np.random.default_rng(2)
X = RNG.standard_normal((7, 6))
IMAGES = RNG.standard_normal((3, 3, 8, 8))
TOKENS = RNG.standard_normal((2, 5, 8))


@functools.cache
def perceptron(device):
    return parity.record(torch_models.MLP(), {"x": X}, device=device)


MLP_SCOPES = {
    "Perceptron/fc1": "fc1",
    "Perceptron/fc2": "fc2",
    "Perceptron/norm": "norm",
    "Perceptron/out": "out",
}


class Perceptron(linen.Module):
    epsilon: float = 1e-5
    exact: bool = True

    @linen.compact
    def __call__(self, x):
        x = linen.gelu(linen.Dense(6, name="fc1")(x), approximate=not self.exact)
        x = linen.Dense(6, name="fc2")(
            linen.LayerNorm(epsilon=self.epsilon, use_fast_variance=False, name="norm")(x)
        )
        return linen.Dense(5, name="out")(linen.relu(x))


def flax_check(model, golden, x, **options):
    tree = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(x, jnp.float32))
    return parity.check(
        lambda variables, x: model.apply(variables, x), golden, weights=tree, **options
    )


def test_a_flax_perceptron_whose_square_kernels_are_found_to_be_transposed(device):
    report = flax_check(Perceptron(), perceptron(device), X, taps=MLP_SCOPES)
    report.assert_confirmed()
    assert "['params']['fc1']['kernel'] is fc1.weight (axes 1 0)" in report.context["weights"]
    assert {"norm", "d norm", "d fc2.weight"} <= set(report.by_input)


def test_flaxs_own_defaults_are_found_and_told(device):
    given = parity.WeightMap(
        jax.eval_shape(Perceptron().init, jax.random.key(0), jnp.zeros((7, 6))),
        {f"['params']['{n}']['kernel']": (f"{n}.weight", "axes 1 0") for n in ("fc1", "fc2", "out")}
        | {
            f"['params']['{n}']['bias']": (f"{n}.bias", "same")
            for n in ("fc1", "fc2", "out", "norm")
        }
        | {"['params']['norm']['scale']": ("norm.weight", "same")},
    )
    options = {"weights": given, "taps": MLP_SCOPES, "precision": None}
    norm = parity.check(Perceptron(epsilon=1e-6).apply, perceptron(device), **options)
    assert norm.context["remedies"] == {"norm": "eps=1e-05 restores parity"}
    gelu = parity.check(Perceptron(exact=False).apply, perceptron(device), **options)
    assert gelu.context["remedies"] == {
        "norm": "the erf form of GELU (approximate=False) restores parity"
    }


def test_a_map_is_refused_where_it_would_be_a_guess(device):
    says = (
        r"the port may be wrong, for none of its layouts agrees with torch at norm, .* from "
        r"torch's state_dict, .* says where it is"
    )
    with pytest.raises(ValueError, match=says):
        flax_check(
            Perceptron(exact=False),
            perceptron(device),
            X,
            taps={"Perceptron/norm": "norm"},
            ignore="*",
        )


class Convolutional(linen.Module):
    train: bool

    @linen.compact
    def __call__(self, x):
        norm = lambda name: linen.BatchNorm(
            not self.train, momentum=0.9, use_fast_variance=False, name=name
        )
        x = x.transpose(0, 2, 3, 1)
        x = linen.relu(norm("bn1")(linen.Conv(4, (3, 3), 2, padding=1, name="conv1")(x)))
        x = linen.relu(
            norm("bn2")(linen.Conv(8, (3, 3), padding=1, use_bias=False, name="conv2")(x))
        )
        return linen.Dense(3, name="fc")(x.mean((1, 2)))


@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
def test_a_flax_convolutional_network_with_batch_norm(train, device):
    golden = parity.record(torch_models.CNN(), {"x": IMAGES}, train=train, device=device)
    model = Convolutional(train)
    tree = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((3, 3, 8, 8)))

    def port(variables, x):
        y, changed = model.apply(variables, x, mutable=["batch_stats"])
        stats = changed["batch_stats"] if train else {}
        return y, {f"{n}.running_{k}": v for n, group in stats.items() for k, v in group.items()}

    report = parity.check(port, golden, weights=tree, buffers=True)
    refuted = {f.wrt: f.diagnosis for f in report.findings if f.verdict == "refuted"}
    if not train:
        report.assert_confirmed()
        assert any(
            "['conv1']['kernel'] is conv1.weight (axes 2 3 1 0)" in line
            for line in report.context["weights"]
        )
    else:
        words = (
            "the variance times n/(n − 1) restores parity; torch's running variance is "
            "divided by n − 1"
        )
        assert refuted == {"bn1.running_var updated": words, "bn2.running_var updated": words}, (
            "flax's biased running variance"
        )


class Layer(linen.Module):
    @linen.compact
    def __call__(self, x):
        def keep(y, name):
            return y * parity.noise(name, y.shape, jnp.ones) / 0.9

        name = self.name

        def attend(query, key, value, **_):
            scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / jnp.sqrt(1.0 * query.shape[-1])
            return jnp.einsum(
                "bhqk,bkhd->bqhd", keep(jax.nn.softmax(scores), f"{name}.self_attn"), value
            )

        norm = lambda name: linen.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name)
        attention = linen.MultiHeadDotProductAttention(2, attention_fn=attend, name="self_attn")
        x = norm("norm1")(x + keep(attention(x), f"{name}.dropout1"))
        y = keep(linen.relu(linen.Dense(16, name="linear1")(x)), f"{name}.dropout")
        return norm("norm2")(x + keep(linen.Dense(8, name="linear2")(y), f"{name}.dropout2"))


class Encoder(linen.Module):
    @linen.compact
    def __call__(self, src):
        for i in range(4):
            src = Layer(name=f"layers.{i}")(src)
        return src


@pytest.mark.slow
def test_a_flax_transformer_of_four_layers_with_dropout_replayed(device):
    golden = parity.record(
        torch_models.encoder(layers=4), {"src": TOKENS}, train=True, device=device
    )
    scopes = {
        f"Encoder/layers.{i}/{n}": f"layers.{i}.{n}"
        for i in range(4)
        for n in ("self_attn", "norm1", "linear1", "linear2", "norm2")
    }
    model = Encoder()
    tree = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(TOKENS.shape))
    report = parity.check(
        lambda v, src: model.apply(v, src), golden, weights=tree, taps=scopes, precision=None
    )
    report.assert_confirmed()
    assert any(
        "['self_attn']['query']['kernel'] is layers.0.self_attn.in_proj_weight (rows 1/3, axes 1 0"
        in w
        for w in report.context["weights"]
    )


class FlaxRecurrent(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(linen.RNN(linen.GRUCell(5, param_dtype=x.dtype))(x)[:, -1])


def test_a_flax_recurrent_network(device):
    golden = parity.record(
        torch_models.Recurrent(), {"x": RNG.standard_normal((3, 6, 4))}, device=device
    )

    def weights(p):
        w, u = jnp.split(p["gru.weight_ih_l0"], 3), jnp.split(p["gru.weight_hh_l0"], 3)
        b, c = jnp.split(p["gru.bias_ih_l0"], 3), jnp.split(p["gru.bias_hh_l0"], 3)
        cell = {
            f"i{k}": {"kernel": w[i].T, "bias": b[i] + c[i] if k != "n" else b[i]}
            for i, k in enumerate("rzn")
        }
        cell |= {f"h{k}": {"kernel": u[i].T} for i, k in enumerate("rzn")}
        cell["hn"]["bias"] = c[2]
        return {
            "params": {
                "GRUCell_0": cell,
                "Dense_0": {"kernel": p["fc.weight"].T, "bias": p["fc.bias"]},
            }
        }

    parity.check(FlaxRecurrent().apply, golden, weights=weights).assert_confirmed()


class Block(linen.Module):
    @linen.compact
    def __call__(self, x):
        norm = lambda name: linen.LayerNorm(epsilon=1e-6, use_fast_variance=False, name=name)
        x = x + linen.MultiHeadDotProductAttention(2, name="attn")(norm("norm1")(x))
        y = linen.gelu(linen.Dense(16, name="fc1")(norm("norm2")(x)), approximate=False)
        return x + linen.Dense(8, name="fc2")(y)


class MaskedAutoencoder(linen.Module):
    keep: int = 2

    @linen.compact
    def __call__(self, x):
        places = lambda name: self.param(name, linen.initializers.normal(), (1, 4, 8))
        tokens = linen.Dense(8, name="embed")(jax_models.patches(x)) + places("position")
        order, back = jax_models.shuffled(*tokens.shape[:2])
        z = Block(name="encode")(jax_models.taken(tokens, order[:, : self.keep]))
        z = linen.Dense(8, name="bridge")(
            linen.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="norm")(z)
        )
        fill = self.param("mask_token", linen.initializers.zeros, (1, 1, 8))
        z = jnp.concatenate([z, jnp.broadcast_to(fill, (len(z), 4 - self.keep, 8))], 1)
        z = Block(name="decode")(jax_models.taken(z, back) + places("decoder_position"))
        return {
            "prediction": linen.Dense(48, name="head")(z),
            "hidden": (back >= self.keep).astype(x.dtype),
        }


def test_a_flax_masked_autoencoder_with_its_loss_and_its_random_patches_replayed(device):
    torchs = torch_models.MaskedAutoencoder()
    golden = parity.record(
        torchs, {"x": IMAGES}, loss=torch_models.masked_loss(torchs, IMAGES), device=device
    )
    within = ("norm1", "attn", "norm2", "fc1", "fc2")
    scopes = {
        f"{half}/{name}": f"{half}.{name}" for half in ("encode", "decode") for name in within
    }
    scopes |= {name: name for name in ("embed", "norm", "bridge", "head")}
    scopes = {
        f"MaskedAutoencoder/{ours}": theirs + "[0]" * theirs.endswith("attn")
        for ours, theirs in scopes.items()
    }
    report = flax_check(
        MaskedAutoencoder(), golden, IMAGES, taps=scopes, loss=jax_models.masked_loss(IMAGES)
    )
    report.assert_confirmed()
    assert {
        "loss",
        "output['prediction']",
        "d mask_token",
        "decode.attn[0]",
        "d encode.fc1",
    } <= set(report.by_input)
    assert "['params']['decoder_position'] is decoder_position" in report.context["weights"]


def test_layers_that_flax_numbers_from_the_outside_find_their_partners():
    class Inline(linen.Module):
        tanh: bool = False

        @linen.compact
        def __call__(self, x):
            return linen.Dense(4)(
                linen.gelu(linen.LayerNorm(epsilon=1e-5)(linen.Dense(4)(x)), approximate=self.tanh)
            )

    x = np.random.default_rng(0).standard_normal((5, 4))
    torchs = torch.nn.Sequential(
        torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.GELU(), torch.nn.Linear(4, 4)
    )
    golden = parity.record(torchs, {"x": x})
    weights = Inline().init(jax.random.key(0), x)
    report = parity.check(Inline().apply, golden, weights=weights)
    report.assert_confirmed()
    assert "['params']['Dense_0']['kernel'] is 3.weight (axes 1 0)" in report.context["weights"]
    with pytest.raises(ValueError, match="none of its layouts agrees"):
        parity.check(Inline(tanh=True).apply, golden, weights=weights)
