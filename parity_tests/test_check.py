"""check: what it says of ports that are wrong, where it says so, and of ports that are right but
hard.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.ad_checkpoint import checkpoint_name as tag
from torch import nn

import jaxgrad as jg
from jaxgrad import parity
from parity_tests import jax_models, torch_models

RNG = np.random.default_rng(1)
X = RNG.standard_normal((7, 6))
MLP = parity.record(torch_models.MLP(), {"x": X})


def planted(bug):
    return parity.check(lambda p, x: jax_models.mlp(p, x, bug), MLP, precision=None)


@pytest.mark.parametrize(
    ("bug", "forward", "vjp", "remedy"),
    [
        ("eps of norm", "norm", ["norm"], "eps=1e-05 restores parity"),
        (
            "tanh in act1",
            "act1",
            ["act1"],
            "the erf form of GELU (approximate=False) restores parity",
        ),
        ("no bias in fc1", "fc1", ["fc1"], "adding fc1.bias restores parity"),
        ("transposed fc2", "fc2", ["fc2"], "transposing "),
        ("float32 in fc2", "fc2", ["fc2"], "float64 throughout"),
        ("wrong rule in act2", None, ["act2"], "without its custom derivative rule"),
        ("detached input of out", None, ["out"], "without stop_gradient at jax_models.py"),
    ],
)
def test_a_mistake_is_found_its_block_named_and_the_remedy_told(bug, forward, vjp, remedy):
    report = planted(bug)
    assert report.verdict == "refuted"
    assert report.context["first_forward"] == forward and report.context["first_vjp"] == vjp
    (told,) = report.context["remedies"].values()
    assert told.startswith(remedy)
    assert report.findings[0].verdict == "refuted" and report.findings[0].diagnosis == told, (
        "it stands first"
    )
    assert told in str(report)


def test_two_mistakes_are_both_named():
    def port(p, x):
        return jax_models.mlp({k: v for k, v in p.items() if k != "out.bias"}, x, "eps of norm")

    report = parity.check(port, MLP, precision=None)
    assert report.context["remedies"] == {
        "norm": "eps=1e-05 restores parity",
        "out": "adding out.bias restores parity",
    }


def test_a_detached_residual_is_told_from_the_branch_beside_it():
    golden = parity.record(
        torch_models.encoder(), {"src": RNG.standard_normal((2, 5, 8))}, train=True
    )
    port = lambda p, src: jax_models.encoder(p, src, "detached residual in layers.1")
    report = parity.check(port, golden, ignore="layers.?", precision=None)
    assert report.context["first_forward"] is None and report.context["first_vjp"] == [
        "layers.1.norm1"
    ]


def test_flax_fast_variance_at_a_large_mean_is_named_as_less_accurate():
    golden = parity.record(nn.LayerNorm(64), {"x": 300 + RNG.standard_normal((8, 64))})
    for bug, verdict in (("", "confirmed"), ("fast variance in norm", "refuted")):
        rename = lambda p: {f"norm.{k}": v for k, v in p.items()}
        report = parity.check(
            lambda p, x, bug=bug: jax_models.layer_norm(p, "norm", x, bug=bug),
            golden,
            weights=rename,
            ignore="norm",
        )
        assert report.verdict == verdict
    worse = next(f for f in report.findings if f.verdict == "refuted")
    assert (
        worse.evidence == "float32"
        and "times less accurate than torch in float32" in worse.diagnosis
    )
    assert {f.verdict for f in report.findings if f.evidence == "semantic"} == {"confirmed"}


def test_batch_norms_conventions_are_recognised_in_its_running_statistics():
    golden = parity.record(torch_models.CNN(), {"x": RNG.standard_normal((3, 3, 8, 8))}, train=True)
    for bug, words in (
        ("momentum of bn1", "a weight of 0.1 for the batch, in place of 0.9"),
        ("biased running variance in bn2", "the variance times n/(n − 1)"),
    ):
        report = parity.check(
            lambda p, x, bug=bug: jax_models.cnn(p, x, bug), golden, buffers=True, precision=None
        )
        assert report.verdict == "refuted"
        assert {words in f.diagnosis for f in report.findings if f.verdict == "refuted"} == {True}
    plain = parity.check(lambda p, x: jax_models.cnn(p, x)[0], golden, precision=None)
    assert plain.verdict == "undecided" and "does not return it" in plain.findings[-1].detail


def test_a_buffer_that_torch_leaves_as_it_is_must_be_left_so():
    golden = parity.record(torch_models.CNN(), {"x": RNG.standard_normal((3, 3, 8, 8))})

    def port(p, x, old):
        y, updated = jax_models.cnn(p, x, train=False)
        names = [k for k in p if k.endswith("running_mean")]
        return y, updated | {k: p[k] if old else 0.9 * p[k] for k in names}

    parity.check(lambda p, x: port(p, x, True), golden, buffers=True).assert_confirmed()
    report = parity.check(lambda p, x: port(p, x, False), golden, buffers=True, precision=None)
    wrong = [f for f in report.findings if f.verdict == "refuted"]
    assert [f.wrt for f in wrong] == ["bn1.running_mean updated", "bn2.running_mean updated"]
    assert all("recorded with train=False" in f.diagnosis for f in wrong)


def test_gradients_that_vanish_by_construction_confirm_nothing():
    module = nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1))
    golden = parity.record(module, {"x": X[:, :4]}, loss=lambda y: y.mean())

    def port(p, x):
        return jax.nn.softmax(x @ p["0.weight"].T + p["0.bias"])

    report = parity.check(port, golden, loss=jnp.mean)
    assert report.verdict == "undecided"
    assert any("every gradient is zero" in f.detail for f in report.findings)
    assert any("d 0.weight: vacuous" in w for w in report.warnings)


def test_a_loss_of_noise_confirms_nothing_and_a_wrong_gradient_of_the_loss_is_refuted():
    def port(p, x):
        return x @ p["weight"].T + p["bias"]

    golden = parity.record(nn.Linear(6, 3), {"x": X}, loss=lambda y: torch.softmax(y, -1).mean())
    report = parity.check(port, golden, loss=lambda y: jax.nn.softmax(y).mean())
    assert report.verdict == "undecided"
    assert any("every gradient is zero" in f.detail for f in report.findings)

    def detached(y):
        return jnp.mean((y - jax.lax.stop_gradient(y.mean(0))) ** 2 + jax.nn.relu(y))

    golden = parity.record(
        nn.Linear(6, 3),
        {"x": X},
        loss=lambda y: ((y - y.mean(0)) ** 2 + 3 * y * y.mean(0) + y.relu()).mean(),
    )
    right = parity.check(
        port,
        golden,
        loss=lambda y: jnp.mean((y - y.mean(0)) ** 2 + 3 * y * y.mean(0) + jax.nn.relu(y)),
    )
    wrong = parity.check(
        port,
        golden,
        loss=lambda y: detached(y) + 3 * jnp.mean(y * jax.lax.stop_gradient(y.mean(0))),
    )
    assert (right.verdict, wrong.verdict) == ("confirmed", "refuted")
    assert [f.wrt for f in wrong.findings if f.verdict == "refuted"] == ["d loss / d output"]
    with pytest.raises(ValueError, match=r"`loss` must give one number, and gives shape \[7, 3\]"):
        parity.check(port, golden, loss=lambda y: y)


def test_draws_of_a_loss_are_replayed():
    golden = parity.record(nn.Linear(6, 3), {"x": X}, loss=lambda y: (y * torch.rand_like(y)).sum())

    def port(p, x):
        return x @ p["weight"].T + p["bias"]

    right = parity.check(port, golden, loss=lambda y: (y * parity.noise("noise", y.shape)).sum())
    wrong = parity.check(
        port, golden, loss=lambda y: (y * parity.noise("noise", y.shape)[::-1]).sum()
    )
    assert (right.verdict, wrong.verdict) == ("confirmed", "refuted")


def test_values_that_are_all_zero_confirm_nothing():
    golden = parity.record(lambda x: torch.floor(x.abs() / 1e6).detach(), {"x": X})
    report = parity.check(lambda p, x: 0 * x, golden)
    assert report.verdict == "undecided"
    assert any("everything compared is zero" in f.detail for f in report.findings)


def test_a_loss_that_is_not_compared_is_told():
    golden = parity.record(nn.Linear(6, 3), {"x": X}, loss=lambda y: y.square().mean())
    report = parity.check(lambda p, x: x @ p["weight"].T + p["bias"], golden)
    assert (
        report.verdict == "confirmed"
        and "the recorded loss is not compared" in report.context["unseen"]
    )


def test_outputs_may_be_tuples_and_dictionaries_and_inputs_whole_numbers():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.out = nn.Embedding(11, 4), nn.Linear(4, 2)

        def forward(self, tokens, scale):
            y = self.table(tokens) * scale
            return {"y": self.out(y), "rest": (y.sum(), tokens.argmax(-1))}

    golden = parity.record(
        Model(), {"tokens": RNG.integers(0, 11, (3, 5)), "scale": np.float64(1.5)}
    )

    def port(p, tokens, scale):
        y = tag(p["table.weight"][tokens], "table") * scale
        return {
            "y": tag(y @ p["out.weight"].T + p["out.bias"], "out"),
            "rest": (y.sum(), tokens.argmax(-1)),
        }

    report = parity.check(port, golden)
    report.assert_confirmed()
    assert {"output['rest'][1]", "d scale", "d table.weight"} <= set(report.by_input)


def test_where_torch_gives_no_gradient_the_report_says_that_values_alone_were_compared():
    linear = lambda p, input: input @ p["weight"].T + p["bias"]
    for golden, port in (
        (parity.record(lambda x: (2 * x).detach(), {"x": X}), lambda _, x: 2 * x),
        (parity.record(lambda x: x.argmax(-1), {"x": X}), lambda _, x: x.argmax(-1)),
    ):
        report = parity.check(port, golden)
        report.assert_confirmed()
        assert "output: only values were compared" in report.warnings[0]
    assert not parity.check(linear, parity.record(nn.Linear(6, 3), {"input": X})).warnings


@pytest.mark.parametrize("stop", [jax.lax.stop_gradient, lambda v: v])
def test_a_frozen_parameter_may_be_detached_in_the_port_and_all_else_may_not(stop):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.place, self.out = (
                nn.Parameter(torch.randn(6), requires_grad=False),
                nn.Linear(6, 3),
            )

        def forward(self, x):
            return self.out(torch.tanh(x + self.place))

    golden = parity.record(Model(), {"x": X})

    def port(p, x, w):
        return jnp.tanh(x + stop(p["place"])) @ w.T + p["out.bias"]

    parity.check(lambda p, x: port(p, x, p["out.weight"]), golden).assert_confirmed()
    wrong = parity.check(
        lambda p, x: port(p, x, jax.lax.stop_gradient(p["out.weight"])),
        golden,
        precision=None,
        isolate=False,
    )
    assert [f.wrt for f in wrong.findings if f.verdict == "refuted"] == ["d out.weight"]


def test_what_torch_changes_in_place_is_compared_as_it_was_when_the_module_gave_it():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            y = self.a(x)
            y += 1
            return self.b(torch.relu_(y))

    golden = parity.record(Model(), {"x": X})

    def port(p, x):
        y = jax.nn.relu(tag(x @ p["a.weight"].T + p["a.bias"], "a") + 1)
        return tag(y @ p["b.weight"].T + p["b.bias"], "b")

    parity.check(port, golden).assert_confirmed()


def test_tied_parameters_and_modules_called_twice():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight
            self.act = nn.ReLU(inplace=True)

        def forward(self, x):
            return self.act(self.b(self.act(self.a(x)))) + x

    golden = parity.record(Model(), {"x": X[:, :4]})
    assert (
        golden.manifest["aliases"] == {"b.weight": "a.weight"}
        and "act#1" in golden.manifest["order"]
    )

    def port(p, x):
        y = tag(jax.nn.relu(tag(x @ p["a.weight"].T + p["a.bias"], "a")), "act")
        return tag(jax.nn.relu(tag(y @ p["b.weight"].T + p["b.bias"], "b")), "act") + x

    report = parity.check(port, golden)
    report.assert_confirmed()
    assert {"act#1", "d act", "d a.weight"} <= set(report.by_input)


def test_a_function_of_tensors_needs_no_module():
    golden = parity.record(
        lambda a, b: torch.linalg.norm(a @ b, dim=-1), {"a": X, "b": X.T[:, :4]}, order=2
    )
    parity.check(lambda _, a, b: jnp.linalg.norm(a @ b, axis=-1), golden).assert_confirmed()


def test_inputs_are_passed_in_their_order_where_torch_has_no_names_for_them():
    golden = parity.record(torch.sub, {"b": X, "a": X[:1] ** 2})
    parity.check(lambda _, b, a: b - a, golden).assert_confirmed()
    product = parity.record(torch.matmul, {"left": X, "a": X.T[:, :4]})
    parity.check(lambda _, left, a: left @ a, product).assert_confirmed()


def test_a_vmapped_port_may_have_its_batch_axis_elsewhere():
    golden = parity.record(nn.Sequential(nn.Linear(6, 7), nn.Tanh()), {"x": X})

    def port(p, x):
        return tag(jax.vmap(lambda x: jnp.tanh(tag(p["0.weight"] @ x + p["0.bias"], "0")))(x), "1")

    parity.check(port, golden).assert_confirmed()


def test_a_checker_serves_goldens_of_one_shape_with_one_compilation():
    checker = parity.Checker(jax_models.mlp)
    programs = []
    for seed in range(3):
        checker(parity.record(torch_models.MLP(), {"x": X + seed}, seed=seed)).assert_confirmed()
        programs.append(checker.side.programs["float64"])
    assert programs[0] is programs[2]
    checker(parity.record(torch_models.MLP(), {"x": X[:3]})).assert_confirmed()
    assert checker.side.programs["float64"] is not programs[0]


def test_jaxs_configuration_is_left_alone_and_parity_is_part_of_jaxgrad():
    before = dict(jax.config.values)
    assert jg.parity.check is parity.check
    planted("eps of norm")
    assert jax.config.values == before


def test_a_golden_survives_the_file_and_the_file_is_the_same_each_time(tmp_path):
    one, two = (MLP.save(tmp_path / name) for name in ("one.npz", "two.npz"))
    assert one.read_bytes() == two.read_bytes()
    again = parity.Golden.load(one)
    assert again.arrays.keys() == MLP.arrays.keys() and "fc1.weight [6, 6]" in str(again)
    parity.check(jax_models.mlp, str(one), precision=None).assert_confirmed()


def test_complex_outputs_and_gradients_are_compared_by_their_real_and_imaginary_parts():
    x = {"x": np.random.default_rng(0).normal(size=8)}
    golden = parity.record(lambda x: torch.fft.rfft(x), x)
    assert parity.check(lambda _, x: jnp.fft.rfft(x), golden).verdict == jg.Verdict.CONFIRMED
    assert (
        parity.check(lambda _, x: jnp.conj(jnp.fft.rfft(x)), golden).verdict == jg.Verdict.REFUTED
    )
    golden = parity.record(lambda x: torch.exp(1j * x), x)
    assert parity.check(lambda _, x: jnp.exp(1j * x), golden).verdict == jg.Verdict.CONFIRMED
    assert (
        parity.check(lambda _, x: jnp.exp(1j * jax.lax.stop_gradient(x)), golden).verdict
        == jg.Verdict.REFUTED
    )
    with pytest.raises(ValueError, match="`loss`: with one, the output must be real"):
        parity.record(lambda x: torch.exp(1j * x), x, loss=lambda y: y.abs().sum())
    with pytest.raises(ValueError, match=r"returns output.imag, output.real, and torch output"):
        parity.check(lambda _, x: 2j * x, parity.record(lambda x: 2 * x, x))
