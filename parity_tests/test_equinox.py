"""The same models in Equinox: weights mapped from a tree, scopes as taps, and what its defaults
change.
"""

import functools
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import parity
from parity_tests import jax_models, torch_models

RNG = np.random.default_rng(2)
X = RNG.standard_normal((7, 6))
IMAGES = RNG.standard_normal((3, 3, 8, 8))
TOKENS = RNG.standard_normal((2, 5, 8))


@functools.cache
def perceptron(device):
    return parity.record(torch_models.MLP(), {"x": X}, device=device)


class EquinoxPerceptron(eqx.Module):
    fc1: eqx.nn.Linear
    fc2: eqx.nn.Linear
    out: eqx.nn.Linear
    norm: eqx.nn.LayerNorm

    def __init__(self):
        self.fc1, self.fc2, self.out = (
            eqx.nn.Linear(6, n, key=jax.random.key(n)) for n in (6, 6, 5)
        )
        self.norm = eqx.nn.LayerNorm(6)

    def __call__(self, x):
        x = self.fc2(self.norm(jax.nn.gelu(self.fc1(x), approximate=False)))
        return self.out(jax.nn.relu(x))


def test_an_equinox_perceptron_under_vmap(device):
    scopes = {
        "eqx.nn.Linear": "fc1",
        "eqx.nn.LayerNorm": "norm",
        "eqx.nn.Linear#1": "fc2",
        "eqx.nn.Linear#2": "out",
    }
    report = parity.check(
        lambda model, x: jax.vmap(model)(x),
        perceptron(device),
        weights=EquinoxPerceptron(),
        taps=scopes,
    )
    report.assert_confirmed()
    assert ".fc1.weight is fc1.weight" in report.context["weights"]


class Convolutional(eqx.Module):
    conv1: eqx.nn.Conv2d
    conv2: eqx.nn.Conv2d
    bn1: eqx.nn.BatchNorm
    bn2: eqx.nn.BatchNorm
    fc: eqx.nn.Linear

    def __init__(self, key):
        self.conv1 = eqx.nn.Conv2d(3, 4, 3, 2, padding=1, key=key)
        self.conv2 = eqx.nn.Conv2d(4, 8, 3, padding=1, use_bias=False, key=key)
        self.bn1, self.bn2 = (
            eqx.nn.BatchNorm(n, "batch", momentum=0.9, mode="batch") for n in (4, 8)
        )
        self.fc = eqx.nn.Linear(8, 3, key=key)

    def __call__(self, x, state):
        x, state = self.bn1(self.conv1(x), state)
        x, state = self.bn2(self.conv2(jax.nn.relu(x)), state)
        return self.fc(jax.nn.relu(x).mean((1, 2))), state


@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
def test_an_equinox_convolutional_network_with_batch_norm(train, device):
    golden = parity.record(torch_models.CNN(), {"x": IMAGES}, train=train, device=device)

    def weights(p):
        empty, state = eqx.nn.make_with_state(Convolutional)(
            jax.random.key(0)
        )  # in the precision of the run
        empty = eqx.nn.inference_mode(empty, not train)

        def filled(module, name, *kinds):
            values = [p[f"{name}.{k}"].reshape(getattr(module, k).shape) for k in kinds]
            return eqx.tree_at(lambda m: [getattr(m, k) for k in kinds], module, values)

        parts = {
            n: ("weight",) if n == "conv2" else ("weight", "bias")
            for n in ("conv1", "conv2", "bn1", "bn2", "fc")
        }
        model = eqx.tree_at(
            lambda m: [getattr(m, n) for n in parts],
            empty,
            [filled(getattr(empty, n), n, *kinds) for n, kinds in parts.items()],
        )
        for norm, name in ((model.bn1, "bn1"), (model.bn2, "bn2")):
            state = state.set(
                norm.batch_state_index, (p[f"{name}.running_mean"], p[f"{name}.running_var"])
            )
        return model, state

    def port(given, x):
        model, state = given
        y, state = jax.vmap(model, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(
            x, state
        )
        updated = {}
        for norm, name in ((model.bn1, "bn1"), (model.bn2, "bn2")) if train else ():
            updated[f"{name}.running_mean"], updated[f"{name}.running_var"] = state.get(
                norm.batch_state_index
            )
        return y, updated

    report = parity.check(port, golden, weights=weights, buffers=True)
    refuted = {f.wrt: f.diagnosis for f in report.findings if f.verdict == "refuted"}
    if train:
        words = (
            "the variance times n/(n − 1) restores parity; torch's running variance is "
            "divided by n − 1"
        )
        assert refuted == {"bn1.running_var updated": words, "bn2.running_var updated": words}, (
            "Equinox's biased running variance"
        )
        assert {"bn1.running_mean updated", "d conv2.weight"} <= set(report.by_input)
    else:
        report.assert_confirmed()


def attention(module, x, name=None):
    """Self-attention of a batch by a module's projections; with a name, under torch's dropout of
    0.1.
    """
    on = lambda linear: jax.vmap(jax.vmap(linear))
    b, n, width = x.shape
    parts = (module.query_proj, module.key_proj, module.value_proj)
    q, k, v = (
        on(part)(x).reshape(b, n, module.num_heads, -1).transpose(0, 2, 1, 3) for part in parts
    )
    share = jax.nn.softmax(q @ k.transpose(0, 1, 3, 2) / jnp.sqrt(1.0 * q.shape[-1]))
    share = share if name is None else kept(share, name)
    return on(module.output_proj)((share @ v).transpose(0, 2, 1, 3).reshape(b, n, width))


def kept(x, name):
    return x * parity.noise(name, x.shape, jnp.ones) / 0.9


class Layer(eqx.Module):
    self_attn: eqx.nn.MultiheadAttention
    linear1: eqx.nn.Linear
    linear2: eqx.nn.Linear
    norm1: eqx.nn.LayerNorm
    norm2: eqx.nn.LayerNorm

    def __init__(self, key, biased=True):
        bias = {f"use_{n}_bias": biased for n in ("query", "key", "value", "output")}
        self.self_attn = eqx.nn.MultiheadAttention(2, 8, **bias, key=key)
        self.linear1, self.linear2 = eqx.nn.Linear(8, 16, key=key), eqx.nn.Linear(16, 8, key=key)
        self.norm1, self.norm2 = eqx.nn.LayerNorm(8), eqx.nn.LayerNorm(8)

    def __call__(self, x, name=None):
        """Run on a batch of sequences; under dropout as torch's layer of that name."""
        on = lambda module: jax.vmap(jax.vmap(module))
        drop = lambda y, where: y if name is None else kept(y, f"{name}.{where}")
        y = (
            jax.vmap(lambda x: self.self_attn(x, x, x))(x)
            if name is None
            else attention(self.self_attn, x, f"{name}.self_attn")
        )
        x = on(self.norm1)(x + drop(y, "dropout1"))
        y = on(self.linear2)(drop(jax.nn.relu(on(self.linear1)(x)), "dropout"))
        return on(self.norm2)(x + drop(y, "dropout2"))


def attention_values(p, at, biased=True):
    """Torch's numbers for an attention module's arrays, and where these are."""
    names = [f"{n}_proj" for n in ("query", "key", "value", "output")]
    kinds = ("weight", "bias") if biased else ("weight",)
    values = [
        v
        for kind in kinds
        for v in (*jnp.split(p[f"{at}.in_proj_{kind}"], 3), p[f"{at}.out_proj.{kind}"])
    ]
    return lambda m: [getattr(getattr(m, n), kind) for kind in kinds for n in names], values


def encoder_of(p, biased=True):
    """Torch's encoder, as a list of layers."""
    layers = []
    for i in range(4):
        layer, at = Layer(jax.random.key(0), biased), f"layers.{i}"
        where, values = attention_values(p, f"{at}.self_attn", biased)
        layer = eqx.tree_at(lambda m, where=where: where(m.self_attn), layer, values)
        for name in ("linear1", "linear2", "norm1", "norm2"):
            where = lambda m, name=name: [getattr(m, name).weight, getattr(m, name).bias]
            layer = eqx.tree_at(where, layer, [p[f"{at}.{name}.weight"], p[f"{at}.{name}.bias"]])
        layers.append(layer)
    return layers


@pytest.mark.slow
def test_an_equinox_transformer_of_four_layers_with_dropout_replayed(device):
    golden = parity.record(
        torch_models.encoder(layers=4), {"src": TOKENS}, train=True, device=device
    )

    def port(layers, src):
        for i, layer in enumerate(layers):
            src = layer(src, f"layers.{i}")
        return src

    parity.check(port, golden, weights=encoder_of).assert_confirmed()


def test_equinoxs_own_attention_and_what_its_default_of_no_biases_changes(device):
    golden = parity.record(torch_models.encoder(layers=4), {"src": TOKENS}, device=device)

    def port(layers, src):
        for layer in layers:
            src = layer(src)
        return src

    options = {"precision": None, "isolate": False}
    parity.check(port, golden, weights=encoder_of, **options).assert_confirmed()
    without = parity.check(port, golden, weights=lambda p: encoder_of(p, biased=False), **options)
    assert {"output", "d layers.0.self_attn.in_proj_bias"} <= {
        f.wrt for f in without.findings if f.verdict == "refuted"
    }


def test_an_equinox_recurrent_network(device):
    golden = parity.record(
        torch_models.Recurrent(), {"x": RNG.standard_normal((3, 6, 4))}, device=device
    )
    cell, out = (
        eqx.nn.GRUCell(4, 5, key=jax.random.key(0)),
        eqx.nn.Linear(5, 2, key=jax.random.key(1)),
    )

    def weights(p):
        ih, hh = p["gru.bias_ih_l0"], p["gru.bias_hh_l0"]
        bias, inner = jnp.concatenate([ih[:10] + hh[:10], ih[10:]]), hh[10:]
        new = [p["gru.weight_ih_l0"], p["gru.weight_hh_l0"], bias, inner]
        filled = eqx.tree_at(lambda m: [m.weight_ih, m.weight_hh, m.bias, m.bias_n], cell, new)
        return filled, eqx.tree_at(
            lambda m: [m.weight, m.bias], out, [p["fc.weight"], p["fc.bias"]]
        )

    def port(model, x):
        cell, out = model
        one = lambda xs: out(
            jax.lax.scan(lambda h, x: (cell(x, h), None), jnp.zeros(5, xs.dtype), xs)[0]
        )
        return jax.vmap(one)(x)

    parity.check(port, golden, weights=weights).assert_confirmed()


class Block(eqx.Module):
    norm1: eqx.nn.LayerNorm
    attn: eqx.nn.MultiheadAttention
    norm2: eqx.nn.LayerNorm
    fc1: eqx.nn.Linear
    fc2: eqx.nn.Linear

    def __init__(self, key):
        self.norm1, self.norm2 = eqx.nn.LayerNorm(8, eps=1e-6), eqx.nn.LayerNorm(8, eps=1e-6)
        bias = {f"use_{n}_bias": True for n in ("query", "key", "value", "output")}
        self.attn = eqx.nn.MultiheadAttention(2, 8, **bias, key=key)
        self.fc1, self.fc2 = eqx.nn.Linear(8, 16, key=key), eqx.nn.Linear(16, 8, key=key)

    def __call__(self, x):
        y = jax.vmap(self.norm1)(x)
        x = x + self.attn(y, y, y)
        y = jax.nn.gelu(jax.vmap(self.fc1)(jax.vmap(self.norm2)(x)), approximate=False)
        return x + jax.vmap(self.fc2)(y)


class MaskedAutoencoder(eqx.Module):
    embed: eqx.nn.Linear
    position: jax.Array
    encode: Block
    norm: eqx.nn.LayerNorm
    bridge: eqx.nn.Linear
    mask_token: jax.Array
    decoder_position: jax.Array
    decode: Block
    head: eqx.nn.Linear
    keep: int = 2

    def __init__(self, key):
        self.embed, self.bridge, self.head = (
            eqx.nn.Linear(i, o, key=key) for i, o in ((48, 8), (8, 8), (8, 48))
        )
        self.position, self.decoder_position, self.mask_token = (
            jnp.zeros((1, 4, 8)),
            jnp.zeros((1, 4, 8)),
            jnp.zeros((1, 1, 8)),
        )
        self.encode, self.decode, self.norm = Block(key), Block(key), eqx.nn.LayerNorm(8)

    def __call__(self, x):
        on = lambda module: jax.vmap(jax.vmap(module))
        tokens = on(self.embed)(jax_models.patches(x)) + self.position
        order, back = jax_models.shuffled(*tokens.shape[:2])
        z = on(self.bridge)(
            on(self.norm)(jax.vmap(self.encode)(jax_models.taken(tokens, order[:, : self.keep])))
        )
        z = jnp.concatenate([z, jnp.broadcast_to(self.mask_token, (len(z), 4 - self.keep, 8))], 1)
        z = jax.vmap(self.decode)(jax_models.taken(z, back) + self.decoder_position)
        return {"prediction": on(self.head)(z), "hidden": (back >= self.keep).astype(x.dtype)}


def test_an_equinox_masked_autoencoder_with_its_loss_and_its_random_patches_replayed(device):
    torchs = torch_models.MaskedAutoencoder()
    golden = parity.record(
        torchs, {"x": IMAGES}, loss=torch_models.masked_loss(torchs, IMAGES), device=device
    )
    empty = MaskedAutoencoder(jax.random.key(0))

    def weights(p):
        model = empty
        for half in ("encode", "decode"):
            where, values = attention_values(p, f"{half}.attn")
            model = eqx.tree_at(
                lambda m, half=half, where=where: where(getattr(m, half).attn), model, values
            )
        names = [
            f"{half}.{n}" for half in ("encode", "decode") for n in ("norm1", "norm2", "fc1", "fc2")
        ]
        for name in (*names, "embed", "norm", "bridge", "head"):
            where = lambda m, name=name: [
                getattr(operator.attrgetter(name)(m), kind) for kind in ("weight", "bias")
            ]
            model = eqx.tree_at(where, model, [p[f"{name}.weight"], p[f"{name}.bias"]])
        free = ("position", "mask_token", "decoder_position")
        return eqx.tree_at(lambda m: [getattr(m, n) for n in free], model, [p[n] for n in free])

    report = parity.check(
        lambda m, x: m(x), golden, weights=weights, loss=jax_models.masked_loss(IMAGES)
    )
    report.assert_confirmed()
    assert {"loss", "output['prediction']", "d mask_token", "d decode.attn.in_proj_weight"} <= set(
        report.by_input
    )
