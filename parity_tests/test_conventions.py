"""Every convention of the table: torch and JAX do differ in it, and a check finds it and tells what
restores parity.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import linen, nnx
from torch import nn
from torch.nn import functional

from jaxgrad import parity
from jaxgrad.parity.conventions import DIFFERENCES

RNG = np.random.default_rng(4)
X = RNG.standard_normal((5, 6))
TIES = np.array([[0.0, 1.0, -1.0, 0.5], [2.0, 0.0, 1.0, 1.0]])
IMAGE = RNG.standard_normal((2, 3, 8, 6))
STEPS = {"parameters": 0.1 * RNG.standard_normal(4), "gradients": RNG.standard_normal((2, 4))}


def norm(p, x, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + eps) * p["weight"] + p["bias"]


def root_mean_square(p, x, eps):
    return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + eps) * p["weight"]


def convolve(p, x, padding):
    y = jax.lax.conv_general_dilated(
        x, p["weight"], (2, 2), padding, dimension_numbers=("NCHW", "OIHW", "NCHW")
    )
    return y + p["bias"][:, None, None]


def deconvolve(p, x, padding, turned):
    numbers = ("NCHW", "OIHW", "NCHW") if turned else ("NCHW", "IOHW", "NCHW")
    y = jax.lax.conv_transpose(
        x, p["weight"], (2, 2), padding, dimension_numbers=numbers, transpose_kernel=turned
    )
    return y + p["bias"][:, None, None]


def resized(mode, size=(5, 4)):
    options = {} if mode == "nearest" else {"align_corners": False}
    return lambda x: functional.interpolate(x, size=size, mode=mode, **options)


def clipped(g):
    held = torch.zeros_like(g)
    held.grad = g.detach().clone()
    nn.utils.clip_grad_norm_([held], 1.0)
    return held.grad


CASES = [
    # topic, torch's, inputs, a port of it, the port as it is written, what is told
    (
        "LayerNorm and GroupNorm eps",
        nn.LayerNorm(6),
        {"x": X},
        lambda p, x: norm(p, x, 1e-5),
        lambda p, x: norm(p, x, 1e-6),
        "eps=1e-05 restores parity",
    ),
    (
        "RMSNorm eps",
        nn.RMSNorm(6),
        {"x": X},
        lambda p, x: root_mean_square(p, x, jnp.finfo(x.dtype).eps),
        lambda p, x: root_mean_square(p, x, 1e-6),
        "eps=jnp.finfo(x.dtype).eps restores parity",
    ),
    (
        "GELU",
        nn.GELU(),
        {"x": X},
        lambda _, x: jax.nn.gelu(x, approximate=False),
        lambda _, x: jax.nn.gelu(x),
        "the erf form of GELU",
    ),
    (
        "GELU",
        nn.GELU(approximate="tanh"),
        {"x": X},
        lambda _, x: jax.nn.gelu(x),
        lambda _, x: jax.nn.gelu(x, approximate=False),
        "the tanh form of GELU",
    ),
    (
        "softplus above 20",
        nn.Softplus(),
        {"input": np.linspace(-3, 30, 40)},
        lambda _, input: jnp.where(input > 20, input, jax.nn.softplus(jnp.minimum(input, 20))),
        lambda _, input: jax.nn.softplus(input),
        "x itself above 20",
    ),
    (
        "gradient of hardsigmoid in float64",
        nn.Hardsigmoid(),
        {"input": X},
        None,
        lambda _, input: jax.nn.hard_sigmoid(input),
        "torch's derivative of hardsigmoid is 1/6 rounded to float32",
    ),
    (
        "Linear weight",
        nn.Linear(6, 6),
        {"x": X},
        lambda p, x: x @ p["weight"].T + p["bias"],
        lambda p, x: x @ p["weight"] + p["bias"],
        "transposing weight",
    ),
    (
        "convolution padding",
        nn.Conv2d(3, 2, 3, 2, padding=1),
        {"x": IMAGE},
        lambda p, x: convolve(p, x, [(1, 1), (1, 1)]),
        lambda p, x: convolve(p, x, "SAME"),
        "padding=[[1, 1], [1, 1]] restores parity",
    ),
    (
        "transposed convolution",
        nn.ConvTranspose2d(3, 3, 4, 2, padding=1),
        {"x": IMAGE},
        lambda p, x: deconvolve(p, x, "SAME", True),
        lambda p, x: deconvolve(p, x, "SAME", False),
        "turning the kernel by half a turn",
    ),
    (
        "transposed convolution's padding",
        nn.ConvTranspose2d(3, 3, 3, 2, padding=1, output_padding=1),
        {"x": IMAGE},
        lambda p, x: deconvolve(p, x, [(1, 2), (1, 2)], True),
        lambda p, x: deconvolve(p, x, "SAME", True),
        "padding=[[1, 2], [1, 2]] restores parity",
    ),
    (
        "std and var",
        lambda x: x.std(-1),
        {"x": X},
        lambda _, x: x.std(-1, ddof=1),
        lambda _, x: x.std(-1),
        "dividing by n − 1 (ddof=1)",
    ),
    (
        "std and var",
        lambda x: x.var(),
        {"x": X},
        lambda _, x: x.var(ddof=1),
        lambda _, x: x.var(),
        "dividing by n − 1 (ddof=1)",
    ),
    (
        "median",
        lambda x: x.median(-1).values,
        {"x": X},
        lambda _, x: jnp.sort(x)[..., 2],
        lambda _, x: jnp.median(x, -1),
        "the lower of the two entries in the middle",
    ),
    (
        "gradient of clamp at a bound",
        lambda x: x.clamp(-1, 1),
        {"x": TIES},
        lambda _, x: jnp.where((x >= -1) & (x <= 1), x, jnp.sign(x)),
        lambda _, x: jnp.clip(x, -1, 1),
        "a derivative of 1 where the bound is met",
    ),
    (
        "gradient of clamp at a bound",
        lambda x: x.clamp(-1, 1),
        {"x": TIES},
        lambda _, x: jnp.where((x >= -1) & (x <= 1), x, jnp.sign(x)),
        lambda _, x: jnp.minimum(1.0, jnp.maximum(-1.0, x)),
        "a derivative of 1 where the bound is met",
    ),
    (
        "gradient of clamp at a bound",
        torch.relu,
        {"x": TIES},
        lambda _, x: jax.nn.relu(x),
        lambda _, x: jnp.maximum(0.0, x),
        "a derivative of 0 where the bound is met",
    ),
    (
        "gradient of abs at 0",
        torch.abs,
        {"x": TIES},
        lambda _, x: x * jnp.sign(x),
        lambda _, x: jnp.abs(x),
        "abs'(0) = 0",
    ),
    (
        "gradient of max at ties",
        lambda x: x.max(-1).values,
        {"x": np.round(X)},
        lambda _, x: jnp.take_along_axis(x, x.argmax(-1)[:, None], 1)[:, 0],
        lambda _, x: x.max(-1),
        "the whole derivative to the first of equal entries",
    ),
    (
        "gradient of leaky_relu at 0, hardtanh at its bounds",
        functional.leaky_relu,
        {"x": TIES},
        lambda _, x: jnp.where(x > 0, x, 0.01 * x),
        lambda _, x: jax.nn.leaky_relu(x),
        "> as the comparison",
    ),
    (
        "gradient of leaky_relu at 0, hardtanh at its bounds",
        functional.hardtanh,
        {"x": TIES},
        lambda _, x: jnp.where((x > -1) & (x < 1), x, jnp.sign(x)),
        lambda _, x: jax.nn.hard_tanh(x),
        ">= and <= as the comparisons",
    ),
    (
        "gradient of norm at 0",
        lambda x: torch.linalg.norm(x, dim=-1),
        {"x": np.vstack([X, 0 * X[:1]])},
        lambda _, x: jnp.where(
            (x != 0).any(-1),
            jnp.linalg.norm(jnp.where((x != 0).any(-1, keepdims=True), x, 1.0), axis=-1),
            0.0,
        ),
        lambda _, x: jnp.linalg.norm(x, axis=-1),
        "a gradient of 0 where the norm is 0",
    ),
    (
        "gradient of x**0 at 0",
        lambda x: x ** torch.arange(4.0),
        {"x": np.abs(TIES)},
        lambda _, x: jnp.stack([x[:, k] ** k for k in range(4)], 1),
        lambda _, x: x ** jnp.arange(4.0),
        "a gradient of 0 where the exponent is 0",
    ),
    (
        "mean squared error",
        nn.MSELoss(),
        {"input": X, "target": X[::-1].copy()},
        lambda _, input, target: jnp.mean((input - target) ** 2),
        lambda _, input, target: optax.l2_loss(input, target).mean(),
        "a factor of 2 restores parity (optax.l2_loss is half of torch's MSELoss)",
    ),
    (
        "attention scores",
        lambda q, k: torch.softmax(q @ k.T / 6**0.5, -1),
        {"q": X, "k": X[:4] + 1},
        lambda _, q, k: jax.nn.softmax(q @ k.T / jnp.sqrt(6.0)),
        lambda _, q, k: jax.nn.softmax(q @ k.T),
        "a factor of 1/√6 after the product",
    ),
    (
        "dropout, momentum, slopes",
        nn.LeakyReLU(0.2),
        {"x": X},
        lambda _, x: jax.nn.leaky_relu(x, 0.2),
        lambda _, x: jax.nn.leaky_relu(x),
        "negative_slope=0.2 in place of 0.01",
    ),
    (
        "resize",
        resized("bilinear"),
        {"x": IMAGE},
        lambda _, x: jax.image.resize(x, (2, 3, 5, 4), "linear", antialias=False),
        lambda _, x: jax.image.resize(x, (2, 3, 5, 4), "linear"),
        "jax.image.resize(…, 'linear', antialias=False)",
    ),
    (
        "resize",
        resized("bicubic", (12, 9)),
        {"x": IMAGE},
        None,
        lambda _, x: jax.image.resize(x, (2, 3, 12, 9), "cubic", antialias=False),
        "cubic interpolation with a = −0.75",
    ),
    (
        "resize",
        resized("nearest"),
        {"x": IMAGE},
        lambda _, x: x[:, :, jnp.arange(5) * 8 // 5][..., jnp.arange(4) * 6 // 4],
        lambda _, x: jax.image.resize(x, (2, 3, 5, 4), "nearest"),
        "taking entry ⌊i n/m⌋ of n",
    ),
    (
        "AdamW weight decay",
        parity.torch_steps(torch.optim.AdamW),
        STEPS,
        parity.optax_steps(optax.adamw(1e-3, weight_decay=1e-2)),
        parity.optax_steps(optax.adamw(1e-3)),
        "0.01 in place of 0.0001",
    ),
    (
        "RMSprop",
        parity.torch_steps(torch.optim.RMSprop),
        STEPS,
        parity.optax_steps(optax.rmsprop(1e-2, 0.99, eps_in_sqrt=False)),
        parity.optax_steps(optax.rmsprop(1e-2)),
        "a decay of 0.99 in place of 0.9 and eps=1e-08 outside of the root restores parity",
    ),
    (
        "Adagrad",
        parity.torch_steps(torch.optim.Adagrad),
        STEPS,
        None,
        parity.optax_steps(optax.adagrad(1e-2)),
        "an accumulator that starts at 0 and eps=1e-10 outside of the root restores parity",
    ),
    (
        "clip_grad_norm_",
        clipped,
        {"g": X},
        lambda _, g: g / (jnp.linalg.norm(g) + 1e-6),
        lambda _, g: optax.clip_by_global_norm(1.0).update(g, None)[0],
        "adding 1e-6 to what is divided by",
    ),
    (
        "float64",
        nn.Linear(6, 3),
        {"x": X},
        lambda p, x: x @ p["weight"].T + p["bias"],
        lambda p, x: (
            (x.astype("float32") @ p["weight"].T.astype("float32")).astype(x.dtype) + p["bias"]
        ),
        "float64 throughout",
    ),
    (
        "derivative rules",
        torch.sin,
        {"x": X},
        lambda _, x: jnp.sin(x),
        lambda _, x: careless_sine(x),
        "without its custom derivative rule",
    ),
    (
        "stop_gradient",
        lambda x: x * x,
        {"x": X},
        lambda _, x: x * x,
        lambda _, x: x * jax.lax.stop_gradient(x),
        "without stop_gradient at test_conventions.py",
    ),
]


@jax.custom_jvp
def careless_sine(x):
    return jnp.sin(x)


careless_sine.defjvp(lambda x, t: (jnp.sin(x[0]), -jnp.cos(x[0]) * t[0]))


@pytest.mark.parametrize(
    ("topic", "torchs", "inputs", "right", "written", "remedy"),
    CASES,
    ids=[f"{c[0]}: {c[-1]}"[:70] for c in CASES],
)
def test_a_check_finds_the_difference_and_tells_what_restores_parity(
    topic, torchs, inputs, right, written, remedy
):
    golden = parity.record(torchs, inputs)
    report = parity.check(written, golden, precision=None)
    assert report.verdict in ("refuted", "undecided"), (
        "at a tie that noise breaks, nothing is refuted"
    )
    told = report.context["remedies"].values()
    assert any(words.startswith(remedy) for words in told), report.context
    if right is not None:
        same = parity.check(right, golden, precision=None)
        same.assert_confirmed()
        assert all("only values were compared" in warning for warning in same.warnings)


@pytest.mark.parametrize(("torchs", "written"), [
    (nn.SmoothL1Loss(), lambda _, input, target: 0.5 * optax.huber_loss(input, target).mean()),
    (
        lambda input, target: (input * target).sum(),
        lambda _, input, target: (0.5 * input * target).sum(),
    ),
])  # fmt: skip
def test_half_of_what_is_no_square_is_not_taken_for_half_of_a_mean_squared_error(torchs, written):
    report = parity.check(
        written, parity.record(torchs, {"input": X, "target": X[::-1].copy()}), precision=None
    )
    assert report.context["remedies"] == {"output": "a factor of 2 restores parity"}


def test_the_biases_that_equinoxs_attention_lacks_are_told():
    golden = parity.record(
        nn.MultiheadAttention(6, 2, batch_first=True),
        {k: X[None] for k in ("query", "key", "value")},
    )

    def port(p, query, key, value):
        module = eqx.nn.MultiheadAttention(2, 6, key=jax.random.key(0))
        names = [f"{n}_proj" for n in ("query", "key", "value", "output")]
        values = [*jnp.split(p["in_proj_weight"], 3), p["out_proj.weight"]]
        module = eqx.tree_at(lambda m: [getattr(m, n).weight for n in names], module, values)
        return jax.vmap(module)(query, key, value), weights(p, query, key)

    def weights(p, query, key):
        q, k = (
            x @ w.T + b
            for x, w, b in zip(
                (query, key),
                jnp.split(p["in_proj_weight"], 3),
                jnp.split(p["in_proj_bias"], 3),
                strict=False,
            )
        )
        q, k = (x.reshape(*x.shape[:2], 2, 3).transpose(0, 2, 1, 3) for x in (q, k))
        return jax.nn.softmax(q @ k.transpose(0, 1, 3, 2) / jnp.sqrt(3.0)).mean(1)

    report = parity.check(port, golden, precision=None)
    assert report.context["remedies"] == {
        "output[0]": "adding in_proj_bias, out_proj.bias restores parity"
    }


def test_the_bias_inside_the_reset_gate_that_flaxs_nnx_cell_lacks_is_told():
    golden = parity.record(nn.GRU(4, 5, batch_first=True), {"x": RNG.standard_normal((2, 3, 4))})
    assert nnx.GRUCell(4, 5, rngs=nnx.Rngs(0)).dense_h.bias is None

    def port(p, x):
        bias = p["bias_ih_l0"] + p["bias_hh_l0"] * (jnp.arange(15) < 10)

        def step(h, x):
            (ir, iz, inn), (hr, hz, hn) = (
                jnp.split(x @ p["weight_ih_l0"].T + bias, 3, -1),
                jnp.split(h @ p["weight_hh_l0"].T, 3, -1),
            )
            r, z = jax.nn.sigmoid(ir + hr), jax.nn.sigmoid(iz + hz)
            h = (1 - z) * jnp.tanh(inn + r * hn) + z * h
            return h, h

        last, states = jax.lax.scan(step, jnp.zeros((2, 5), x.dtype), x.transpose(1, 0, 2))
        return states.transpose(1, 0, 2), last[None]

    told = parity.check(port, golden, precision=None).context["remedies"]
    assert told["output[0]"].startswith(
        "adding bias_hh_l0[10:15] after the product at test_conventions.py"
    )


def test_flaxs_broadcast_dropout_does_not_fit_torchs_mask():
    q, k = (jnp.asarray(RNG.standard_normal((2, 5, 3, 4)), jnp.float32) for _ in range(2))

    def kept(**options):
        options |= {"dropout_rng": jax.random.key(1), "dropout_rate": 0.5, "deterministic": False}
        return np.asarray(linen.dot_product_attention_weights(q, k, **options)) != 0

    assert (kept() == kept()[:1, :1]).all(), "one mask for all images and heads"
    assert not (kept(broadcast_dropout=False) == kept(broadcast_dropout=False)[:1, :1]).all()
    golden = parity.record(
        lambda s: functional.dropout(s.softmax(-1), 0.5), {"s": RNG.standard_normal((2, 3, 4, 4))}
    )
    with pytest.raises(
        ValueError,
        match=r"has shape \(2, 3, 4, 4\) in torch, and \(1, 1, 4, 4\) is asked for; "
        r".*broadcast_dropout=False",
    ):
        parity.check(
            lambda _, s: jax.nn.softmax(s) * parity.noise("noise", (1, 1, 4, 4), jnp.ones) * 2,
            golden,
        )


def test_an_index_out_of_range_is_an_error_in_torch_and_nan_or_another_entry_in_jax():
    with pytest.raises(ValueError, match="index 9 is out of bounds"):
        parity.record(lambda x, i: x[i], {"x": X, "i": np.array([9])})
    x = jnp.arange(3.0)
    assert jnp.isnan(jnp.take(x, 5)) and x[jnp.asarray(5)] == 2
    golden = parity.record(lambda x, i: x[i - 1], {"x": X, "i": np.array([5])})
    report = parity.check(lambda _, x, i: jnp.take(x, i, axis=0), golden, precision=None)
    assert (
        report.verdict == "refuted"
        and "ours nan" in report.findings[-1].detail + report.findings[0].detail
    )


ELSEWHERE = {
    "BatchNorm momentum": "test_check.py",
    "BatchNorm running variance": "test_flax.py and test_equinox.py",
    "variance in float32": "test_check.py",
    "matrix products on a GPU": "tests/parity/test_devices.py",
    "attention dropout": "above",
    "index out of range": "above",
    "attention biases": "above",
    "GRU": "above",
}


def test_the_table_is_covered_and_says_what_sees_each_convention():
    assert {d.topic for d in DIFFERENCES} == {case[0] for case in CASES} | set(ELSEWHERE)
    assert all((d.attempts is None) == bool(d.elsewhere) for d in DIFFERENCES)


@pytest.mark.parametrize(
    ("torchs", "ours"),
    [
        (lambda p: torch.optim.Adam(p, lr=0.1), optax.adam(0.1)),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), optax.sgd(0.1, 0.9)),
        (
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
            optax.sgd(0.1, 0.9, nesterov=True),
        ),
    ],
    ids=["Adam", "momentum", "Nesterov"],
)
def test_optimizers_that_are_the_same_are_confirmed(torchs, ours):
    report = parity.check(
        parity.optax_steps(ours), parity.record(parity.torch_steps(torchs), STEPS), precision=None
    )
    report.assert_confirmed()
    assert {"output['step 1']", "output['step 2']"} == set(report.by_input)


def test_optaxs_adam_is_torchs_function_and_less_accurate_in_float32():
    golden = parity.record(parity.torch_steps(lambda p: torch.optim.Adam(p, lr=0.1)), STEPS)
    report = parity.check(parity.optax_steps(optax.adam(0.1)), golden)
    assert {(f.evidence, str(f.verdict)) for f in report.findings} == {
        ("semantic", "confirmed"),
        ("float32", "refuted"),
    }
    assert "times less accurate than torch in float32" in report.findings[-1].diagnosis, (
        "1 − 0.999ⁱ is taken in float32"
    )
