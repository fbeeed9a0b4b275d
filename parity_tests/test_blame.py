"""Which block is named where something differs, and which is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.ad_checkpoint import checkpoint_name as tag
from torch import nn

from jaxgrad import parity

X = np.random.default_rng(1).standard_normal((7, 6))


class Pair(nn.Module):
    """Two outputs with a weight in common, of which the first has a bias too."""

    def __init__(self):
        super().__init__()
        self.w, self.b = nn.Parameter(torch.ones(6)), nn.Parameter(torch.zeros(6))

    def forward(self, x):
        return torch.tanh(self.w * x + self.b), torch.sigmoid(self.w * x)


def vjps(report):
    return [f for f in report.findings if "VJP" in f.wrt]


def no_bias(p, x):
    return jnp.tanh(p["w"] * x), jax.nn.sigmoid(p["w"] * x)


def test_a_parameter_that_the_port_never_reads_is_refuted():
    report = parity.check(
        lambda p, x: x @ p["weight"].T + 0 * X[0, :3], parity.record(nn.Linear(6, 3), {"x": X})
    )
    assert report.verdict == "refuted"
    assert {"output", "d bias"} <= {f.wrt for f in report.findings if f.verdict == "refuted"}


def test_a_block_that_is_right_is_not_blamed_for_a_parameter_that_another_forgets():
    report = parity.check(no_bias, parity.record(Pair(), {"x": X}), precision=None)
    assert (report.context["first_forward"], report.context["first_vjp"]) == (
        "output[0]",
        ["output[0]"],
    )
    assert not vjps(report) and not any(
        f.wrt.startswith("output[1]") and f.verdict != "confirmed" for f in report.findings
    )
    assert next(f for f in report.findings if f.wrt == "d b").diagnosis == "the port never reads b"


def test_where_no_value_shows_it_all_blocks_that_may_forget_a_parameter_are_named_and_none_alone():
    golden = parity.record(Pair(), {"x": X}, randomize=False)
    assert not golden.state["b"].any()
    report = parity.check(no_bias, golden, precision=None)
    both = ["output[0]", "output[1]"]
    assert report.context["first_forward"] is None and report.context["first_vjp"] == both
    (found,) = vjps(report)
    assert found.wrt == "VJP of output[0] or output[1]" and "the port never reads b" in found.detail
    elsewhere = lambda p, x: (jnp.tanh(p["w"] * x), jax.nn.sigmoid(p["w"] * x + p["b"]))
    assert parity.check(elsewhere, golden, precision=None).context["first_vjp"] == both


def test_of_two_blocks_with_a_parameter_in_common_neither_is_called_wrong_alone():
    def port(p, x):
        return jnp.tanh(p["w"] * x + p["b"]), jax.nn.sigmoid(jax.lax.stop_gradient(p["w"]) * x)

    report = parity.check(port, parity.record(Pair(), {"x": X}), precision=None)
    (found,) = vjps(report)
    assert report.context["first_forward"] is None and report.context["first_vjp"] == [
        "output[0]",
        "output[1]",
    ]
    assert (
        found.wrt == "VJP of output[0] or output[1]" and "d w, the sum of all parts" in found.detail
    )
    assert found.diagnosis.startswith("without stop_gradient")


def test_a_parameter_of_a_module_that_is_not_named_belongs_to_the_block_that_needs_it():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.pos, self.l1 = (
                nn.Linear(6, 6),
                nn.Parameter(torch.ones(6)),
                nn.Linear(6, 6),
            )
            self.l2 = nn.Linear(6, 2)

        def forward(self, x):
            return self.l2(torch.tanh(self.l1(torch.tanh(self.emb(x) + self.pos))))

    def port(p, x):
        dense = lambda name, x: tag(x @ p[f"{name}.weight"].T + p[f"{name}.bias"], name)
        return dense("l2", jnp.tanh(dense("l1", jnp.tanh(dense("emb", x)))))

    report = parity.check(port, parity.record(Model(), {"x": X}), precision=None)
    assert (report.context["first_forward"], report.context["first_vjp"]) == ("l1", ["l1"])
    assert not vjps(report) and "the port never reads pos" in str(report)


@pytest.mark.parametrize("batch", [4, 5])
def test_a_wrong_layer_is_not_hidden_by_another_order_of_axes_of_equal_length(batch):
    class Strided(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.c, self.bn = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1), torch.nn.BatchNorm2d(4)

        def forward(self, x):
            return self.bn(self.c(x))

    def port(params, x):
        y = jax.lax.conv_general_dilated(x, params["c.weight"], (2, 2), "SAME")
        y = tag(y + params["c.bias"][:, None, None], "c")
        mean, variance, weight, bias = (
            params[f"bn.{k}"][:, None, None]
            for k in ("running_mean", "running_var", "weight", "bias")
        )
        return tag((y - mean) / jnp.sqrt(variance + 1e-5) * weight + bias, "bn")

    golden = parity.record(Strided(), {"x": np.random.default_rng(0).normal(size=(batch, 3, 8, 8))})
    report = parity.check(port, golden)
    alone = [f.wrt for f in report.findings if f.wrt.endswith(" alone") and f.verdict == "refuted"]
    assert report.context["first_forward"] == "c" and alone == ["c alone"]
    assert any("padding=[[1, 1], [1, 1]]" in f.diagnosis for f in report.findings)
