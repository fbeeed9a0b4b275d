"""Modules alone, on numbers that no activation reaches: right ports stay right, and a bound that
was never met is missed no more.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name as tag
from torch import nn

from jaxgrad import parity
from jaxgrad.parity import probing

X = np.random.default_rng(0).standard_normal((20, 6))
SAME = {
    "ReLU6": (nn.ReLU6(), jax.nn.relu6),
    "GELU": (nn.GELU(), lambda x: jax.nn.gelu(x, approximate=False)),
    "GELU by tanh": (nn.GELU("tanh"), jax.nn.gelu),
    "SiLU": (nn.SiLU(), jax.nn.silu),
    "Mish": (nn.Mish(), jax.nn.mish),
    "ELU": (nn.ELU(), jax.nn.elu),
    "LogSigmoid": (nn.LogSigmoid(), jax.nn.log_sigmoid),
    "Hardtanh": (nn.Hardtanh(), jax.nn.hard_tanh),
    "LeakyReLU": (nn.LeakyReLU(), jax.nn.leaky_relu),
    "Softmax": (nn.Softmax(-1), jax.nn.softmax),
    "GLU": (nn.GLU(), jax.nn.glu),
}


def checked(module, function, taps=True, **options):
    golden = parity.record(nn.Sequential(nn.Linear(6, 6), module), {"x": X}, **options)
    name = tag if taps else lambda value, _: value
    return parity.check(
        lambda p, x: name(function(name(x @ p["0.weight"].T + p["0.bias"], "0")), "1"), golden
    )


@pytest.mark.parametrize("name", SAME)
def test_a_right_port_is_right_there_too(name):
    report = checked(*SAME[name])
    report.assert_confirmed()
    assert {f.wrt for f in report.findings if f.evidence == "probe"} == {"1 beyond", "d 1 beyond"}


@pytest.mark.parametrize(
    "module", [nn.ReLU6(), nn.Hardtanh(0, 40)], ids=["a bound of 6", "a bound of 40"]
)
def test_a_bound_that_no_activation_meets_is_missed_no_more(module):
    report = checked(module, jax.nn.relu)
    assert {f.wrt for f in report.findings if f.verdict == "refuted"} == {"1 beyond", "d 1 beyond"}
    assert "run alone on values from 10⁻² to 10³" in str(report)
    checked(module, jax.nn.relu, taps=False).assert_confirmed()  # what is not named is not probed


NAIVE = {
    "softmax": (nn.Softmax(-1), lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True)),
    "log of the sigmoid": (nn.LogSigmoid(), lambda x: -jnp.log(1 + jnp.exp(-x))),
    "sigmoid": (nn.Sigmoid(), lambda x: jnp.exp(x) / (1 + jnp.exp(x))),
}


@pytest.mark.parametrize("name", NAIVE)
@pytest.mark.parametrize("seed", range(3))
def test_what_overflows_in_float32_alone_is_refuted(name, seed, monkeypatch):
    module, function = NAIVE[name]
    monkeypatch.setattr(probing, "SIZES", (1.0, 2.7))  # up to 500, where float64 does not overflow
    report = checked(module, function, seed=seed)
    (told, *_) = [f for f in report.findings if f.verdict == "refuted"]
    assert (
        told.wrt == "1 beyond"
        and "in float32: not finite" in told.detail
        and "in float64 it is right" in told.detail
    )


def test_a_difference_that_float32_would_not_show_is_undecided_and_told():
    report = checked(nn.Softplus(), jax.nn.softplus)
    (told, *_) = [f for f in report.findings if f.evidence == "probe" and f.verdict != "confirmed"]
    assert report.verdict == "undecided" and "float32 would not show it" in told.detail
    assert told.diagnosis.startswith("x itself above 20, as torch's threshold has it")
    checked(
        nn.Softplus(), lambda x: jnp.where(x > 20, x, jax.nn.softplus(jnp.minimum(x, 20.0)))
    ).assert_confirmed()


def test_modules_that_draw_or_keep_parameters_are_not_probed():
    for module in (nn.Dropout(0.5), nn.PReLU(), nn.Identity()):
        golden = parity.record(nn.Sequential(nn.Linear(6, 6), module), {"x": X}, train=True)
        assert golden.group("probe") == {}
