"""The same models in flax and Equinox: weights mapped from a tree, scopes as taps, and what their defaults change."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from jaxgrad import parity
from parity_tests import torch_models

RNG = np.random.default_rng(2)
X = RNG.standard_normal((7, 6))
IMAGES = RNG.standard_normal((3, 3, 8, 8))
TOKENS = RNG.standard_normal((2, 5, 8))
MLP = parity.record(torch_models.MLP(), {"x": X})
MLP_SCOPES = {"Perceptron/fc1": "fc1", "Perceptron/fc2": "fc2", "Perceptron/norm": "norm", "Perceptron/out": "out"}


class Perceptron(linen.Module):
    epsilon: float = 1e-5
    exact: bool = True

    @linen.compact
    def __call__(self, x):
        x = linen.gelu(linen.Dense(6, name="fc1")(x), approximate=not self.exact)
        x = linen.Dense(6, name="fc2")(linen.LayerNorm(epsilon=self.epsilon, use_fast_variance=False, name="norm")(x))
        return linen.Dense(5, name="out")(linen.relu(x))


def flax_check(model, golden, x, **options):
    tree = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(x, jnp.float32))
    return parity.check(lambda variables, x: model.apply(variables, x), golden, weights=tree, **options)


def test_a_flax_perceptron_whose_square_kernels_are_found_to_be_transposed():
    report = flax_check(Perceptron(), MLP, X, taps=MLP_SCOPES)
    report.assert_confirmed()
    assert "['params']['fc1']['kernel'] is fc1.weight (axes 1 0)" in report.context["weights"]
    assert {"norm", "d norm", "d fc2.weight"} <= set(report.by_input)


def test_flaxs_own_defaults_are_found_and_told():
    given = parity.WeightMap(
        jax.eval_shape(Perceptron().init, jax.random.key(0), jnp.zeros((7, 6))),
        {f"['params']['{n}']['kernel']": (f"{n}.weight", "axes 1 0") for n in ("fc1", "fc2", "out")}
        | {f"['params']['{n}']['bias']": (f"{n}.bias", "same") for n in ("fc1", "fc2", "out", "norm")}
        | {"['params']['norm']['scale']": ("norm.weight", "same")},
    )
    options = {"weights": given, "taps": MLP_SCOPES, "float32": False}
    norm = parity.check(Perceptron(epsilon=1e-6).apply, MLP, **options)
    assert norm.context["remedies"] == {"norm": "eps=1e-05 restores parity"}
    gelu = parity.check(Perceptron(exact=False).apply, MLP, **options)
    assert gelu.context["remedies"] == {"norm": "the erf form of GELU (approximate=False) restores parity"}


def test_a_map_is_refused_where_it_would_be_a_guess():
    with pytest.raises(ValueError, match="none of its layouts agrees with torch at norm"):
        flax_check(Perceptron(exact=False), MLP, X, taps={"Perceptron/norm": "norm"}, ignore="*")


class Convolutional(linen.Module):
    train: bool

    @linen.compact
    def __call__(self, x):
        norm = lambda name: linen.BatchNorm(not self.train, momentum=0.9, use_fast_variance=False, name=name)
        x = x.transpose(0, 2, 3, 1)
        x = linen.relu(norm("bn1")(linen.Conv(4, (3, 3), 2, padding=1, name="conv1")(x)))
        x = linen.relu(norm("bn2")(linen.Conv(8, (3, 3), padding=1, use_bias=False, name="conv2")(x)))
        return linen.Dense(3, name="fc")(x.mean((1, 2)))


@pytest.mark.parametrize("train", [False, True], ids=["evaluation", "training"])
def test_a_flax_convolutional_network_with_batch_norm(train):
    golden = parity.record(torch_models.CNN(), {"x": IMAGES}, train=train)
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
        assert any("['conv1']['kernel'] is conv1.weight (axes 2 3 1 0)" in line for line in report.context["weights"])
    else:
        words = "the variance times n/(n − 1) restores parity; torch's running variance is divided by n − 1"
        assert refuted == {"bn1.running_var updated": words, "bn2.running_var updated": words}, "flax's biased running variance"


class Layer(linen.Module):
    @linen.compact
    def __call__(self, x):
        def keep(y, name):
            return y * parity.noise(name, y.shape, jnp.ones) / 0.9

        name = self.name

        def attend(query, key, value, **_):
            scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / jnp.sqrt(1.0 * query.shape[-1])
            return jnp.einsum("bhqk,bkhd->bqhd", keep(jax.nn.softmax(scores), f"{name}.self_attn"), value)

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


def test_a_flax_transformer_of_four_layers_with_dropout_replayed():
    golden = parity.record(torch_models.encoder(layers=4), {"src": TOKENS}, train=True)
    scopes = {
        f"Encoder/layers.{i}/{n}": f"layers.{i}.{n}" for i in range(4) for n in ("self_attn", "norm1", "linear1", "linear2", "norm2")
    }
    model = Encoder()
    tree = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(TOKENS.shape))
    report = parity.check(lambda v, src: model.apply(v, src), golden, weights=tree, taps=scopes, float32=False)
    report.assert_confirmed()
    assert any(
        "['self_attn']['query']['kernel'] is layers.0.self_attn.in_proj_weight (rows 1/3, axes 1 0" in w
        for w in report.context["weights"]
    )


class EquinoxPerceptron(eqx.Module):
    fc1: eqx.nn.Linear
    fc2: eqx.nn.Linear
    out: eqx.nn.Linear
    norm: eqx.nn.LayerNorm

    def __init__(self):
        self.fc1, self.fc2, self.out = (eqx.nn.Linear(6, n, key=jax.random.key(n)) for n in (6, 6, 5))
        self.norm = eqx.nn.LayerNorm(6)

    def __call__(self, x):
        x = self.fc2(self.norm(jax.nn.gelu(self.fc1(x), approximate=False)))
        return self.out(jax.nn.relu(x))


def test_an_equinox_perceptron_under_vmap():
    scopes = {"eqx.nn.Linear": "fc1", "eqx.nn.LayerNorm": "norm", "eqx.nn.Linear#1": "fc2", "eqx.nn.Linear#2": "out"}
    report = parity.check(lambda model, x: jax.vmap(model)(x), MLP, weights=EquinoxPerceptron(), taps=scopes)
    report.assert_confirmed()
    assert ".fc1.weight is fc1.weight" in report.context["weights"]


class EquinoxLayer(eqx.Module):
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

    def __call__(self, x):
        x = jax.vmap(self.norm1)(x + self.self_attn(x, x, x))
        y = jax.vmap(self.linear2)(jax.nn.relu(jax.vmap(self.linear1)(x)))
        return jax.vmap(self.norm2)(x + y)


def test_an_equinox_transformer_and_its_attention_without_biases():
    golden = parity.record(torch_models.encoder(layers=2), {"src": TOKENS})

    def port(layers, src):
        for layer in layers:
            src = jax.vmap(layer)(src)
        return src

    def weights(biased):
        def make(p):
            layers = []
            for i in range(2):
                layer, at = EquinoxLayer(jax.random.key(0), biased), f"layers.{i}"
                (wq, wk, wv), (bq, bk, bv) = (jnp.split(p[f"{at}.self_attn.in_proj_{n}"], 3) for n in ("weight", "bias"))
                values = [wq, wk, wv, p[f"{at}.self_attn.out_proj.weight"]], [bq, bk, bv, p[f"{at}.self_attn.out_proj.bias"]]
                where = lambda m: [getattr(m.self_attn, f"{n}_proj").weight for n in ("query", "key", "value", "output")]
                layer = eqx.tree_at(where, layer, values[0])
                if biased:
                    where = lambda m: [getattr(m.self_attn, f"{n}_proj").bias for n in ("query", "key", "value", "output")]
                    layer = eqx.tree_at(where, layer, values[1])
                for name in ("linear1", "linear2", "norm1", "norm2"):
                    where = lambda m, name=name: [getattr(m, name).weight, getattr(m, name).bias]
                    layer = eqx.tree_at(where, layer, [p[f"{at}.{name}.weight"], p[f"{at}.{name}.bias"]])
                layers.append(layer)
            return layers

        return make

    parity.check(port, golden, weights=weights(True)).assert_confirmed()
    without = parity.check(port, golden, weights=weights(False), float32=False, isolate=False)
    assert {"output", "d layers.0.self_attn.in_proj_bias"} <= {f.wrt for f in without.findings if f.verdict == "refuted"}


def test_an_equinox_recurrent_network():
    golden = parity.record(torch_models.Recurrent(), {"x": RNG.standard_normal((3, 6, 4))})
    cell, out = eqx.nn.GRUCell(4, 5, key=jax.random.key(0)), eqx.nn.Linear(5, 2, key=jax.random.key(1))

    def weights(p):
        ih, hh = p["gru.bias_ih_l0"], p["gru.bias_hh_l0"]
        bias, inner = jnp.concatenate([ih[:10] + hh[:10], ih[10:]]), hh[10:]
        new = [p["gru.weight_ih_l0"], p["gru.weight_hh_l0"], bias, inner]
        filled = eqx.tree_at(lambda m: [m.weight_ih, m.weight_hh, m.bias, m.bias_n], cell, new)
        return filled, eqx.tree_at(lambda m: [m.weight, m.bias], out, [p["fc.weight"], p["fc.bias"]])

    def port(model, x):
        cell, out = model
        one = lambda xs: out(jax.lax.scan(lambda h, x: (cell(x, h), None), jnp.zeros(5, xs.dtype), xs)[0])
        return jax.vmap(one)(x)

    parity.check(port, golden, weights=weights).assert_confirmed()


class FlaxRecurrent(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(linen.RNN(linen.GRUCell(5, param_dtype=x.dtype))(x)[:, -1])


def test_a_flax_recurrent_network():
    golden = parity.record(torch_models.Recurrent(), {"x": RNG.standard_normal((3, 6, 4))})

    def weights(p):
        w, u = jnp.split(p["gru.weight_ih_l0"], 3), jnp.split(p["gru.weight_hh_l0"], 3)
        b, c = jnp.split(p["gru.bias_ih_l0"], 3), jnp.split(p["gru.bias_hh_l0"], 3)
        cell = {f"i{k}": {"kernel": w[i].T, "bias": b[i] + c[i] if k != "n" else b[i]} for i, k in enumerate("rzn")}
        cell |= {f"h{k}": {"kernel": u[i].T} for i, k in enumerate("rzn")}
        cell["hn"]["bias"] = c[2]
        return {"params": {"GRUCell_0": cell, "Dense_0": {"kernel": p["fc.weight"].T, "bias": p["fc.bias"]}}}

    parity.check(FlaxRecurrent().apply, golden, weights=weights).assert_confirmed()
