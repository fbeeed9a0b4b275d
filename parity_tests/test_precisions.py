"""The target precision: accuracy below float32, beside torch's own in that precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.ad_checkpoint import checkpoint_name
from torch import nn

from jaxgrad import parity
from parity_tests import jax_models, torch_models

X = np.random.default_rng(3).standard_normal((7, 6))


@pytest.fixture(autouse=True)
def seeded():
    """Let torch begin with the same parameters in every run: where its own error is a tenth,
    accuracy is not judged.
    """
    torch.manual_seed(0)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_right_port_is_as_accurate_as_torch(precision, tmp_path):
    golden = parity.record(torch_models.MLP(), {"x": X}, precisions=[precision])
    report = parity.check(jax_models.mlp, golden.save(tmp_path / "mlp.npz"), precision=precision)
    report.assert_confirmed()
    assert {f.wrt for f in report.findings if f.evidence == precision} >= {
        "output",
        "d fc1.weight",
        "d x",
    }
    errors = [f.error for f in report.findings if f.evidence == precision]
    assert parity.judging.unit_of(precision) / 16 < max(errors) < 0.1, "it ran in that precision"


def test_a_sum_in_low_precision_is_named_where_torch_keeps_float32():
    golden = parity.record(
        lambda x: x.sum(-1), {"x": 1 + X.reshape(2, 21).repeat(50, 1) ** 2}, precisions=["bfloat16"]
    )

    def careless(_, x):
        return jax.lax.scan(
            lambda total, column: (total + column, None), jnp.zeros_like(x[:, 0]), x.T
        )[0]

    parity.check(lambda _, x: x.sum(-1), golden, precision="bfloat16").assert_confirmed()
    report = parity.check(careless, golden, precision="bfloat16")
    (worse,) = [f for f in report.findings if f.verdict == "refuted"]
    assert worse.wrt == "output" and "times less accurate than torch in bfloat16" in worse.diagnosis


def test_precisions_that_were_not_recorded_or_do_not_exist_are_refused():
    golden = parity.record(nn.Linear(6, 3), {"x": X})
    port = lambda p, x: x @ p["weight"].T + p["bias"]
    with pytest.raises(
        ValueError,
        match=r"Linear was not recorded in float16; record with `precisions=\['float16'\]`",
    ):
        parity.check(port, golden, precision="float16")
    with pytest.raises(
        ValueError, match="`precision` is 'half'; it is 'float32', 'bfloat16', 'float16' or None"
    ):
        parity.check(port, golden, precision="half")
    with pytest.raises(
        ValueError, match="`precisions` holds 'float32'; it is a list of bfloat16 and float16"
    ):
        parity.record(nn.Linear(6, 3), {"x": X}, precisions=["float32"])
    with pytest.raises(ValueError, match="torch cannot run this in bfloat16 on cpu"):
        parity.record(
            lambda a: torch.linalg.inv(a), {"a": np.eye(3) + 0.1}, precisions=["bfloat16"]
        )
    assert {f.evidence for f in parity.check(port, golden, precision=None).findings} == {"semantic"}
    assert jnp.asarray(1.0).dtype == jnp.float32


@pytest.mark.parametrize(
    ("wide", "eps", "scale", "verdict", "words"),
    [
        (lambda x: x, 1e-6, 1.0, "confirmed", ""),
        (lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), 1e-6, 1.0, "confirmed", ""),
        (lambda x: x, 2e-6, 1.0, "refuted", "eps=1e-06 restores parity"),
        (
            lambda x: x.astype(jnp.float32),
            1e-6,
            1.0,
            "undecided",
            "cast to jnp.promote_types(x.dtype, jnp.float32)",
        ),
        (lambda x: x.astype(jnp.float32), 1e-6, 1.01, "refuted", ""),
    ],
)
def test_a_cast_to_float32_in_torch_changes_nothing_in_float64(wide, eps, scale, verdict, words):
    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(6))

        def forward(self, x):
            y = x.float()
            return self.weight * (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-6)).to(
                x.dtype
            )

    golden = parity.record(Norm(), {"x": X})

    def port(p, x):
        y = wide(x)
        return p["weight"] * (
            scale * y * jax.lax.rsqrt(jnp.mean(y**2, -1, keepdims=True) + eps)
        ).astype(x.dtype)

    report = parity.check(port, golden)
    assert report.verdict == verdict
    assert words in " ".join(str(report).split())


def test_a_cast_to_float32_that_torch_has_not_is_refuted():
    golden = parity.record(lambda x: torch.tanh(x), {"x": X})
    assert (
        parity.check(lambda _, x: jnp.tanh(x.astype(jnp.float32)).astype(x.dtype), golden).verdict
        == "refuted"
    )


def test_a_function_that_insists_on_its_cast_is_recorded_with_it():
    def insisting(x):
        y = x.float()
        assert y.dtype == torch.float32
        return 2 * y

    assert not parity.record(insisting, {"x": X}).manifest["widened"]
    parity.check(lambda _, x: 2 * x, parity.record(insisting, {"x": X})).assert_confirmed()


def test_a_block_that_casts_as_torch_does_is_not_blamed_for_another():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.soft, self.out = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.out(torch.softmax(self.soft(x), -1, dtype=torch.float32).to(x.dtype))

    def port(p, x):
        y = checkpoint_name(
            (x @ p["soft.weight"].T + p["soft.bias"]).astype(jnp.float32).astype(x.dtype), "soft"
        )
        y = jax.nn.softmax(y)
        return checkpoint_name(y @ p["out.weight"].T - p["out.bias"], "out")

    context = parity.check(port, parity.record(Model(), {"x": X})).context
    assert context["first_forward"] == "out"
