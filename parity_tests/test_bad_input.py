"""Whatever is wrong with the input of record or check, one error names it and the remedy."""

import json
import random
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.ad_checkpoint import checkpoint_name as tag
from torch import nn

from jaxgrad import parity
from parity_tests import jax_models, torch_models

X = np.random.default_rng(0).standard_normal((7, 6))
LINEAR = parity.record(nn.Linear(6, 3), {"x": X})


class Model(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.fc, self.function = nn.Linear(6, 6), forward

    def forward(self, x):
        return self.function(self.fc, x)


def linear(p, x):
    return x @ p["weight"].T + p["bias"]


@pytest.mark.parametrize(
    ("target", "inputs", "message"),
    [
        (nn.Linear(6, 3), [X], "`inputs` must be a dictionary"),
        (nn.Linear(6, 3), {"x": X.astype(complex)}, "x holds complex128, not real numbers"),
        (nn.Linear(6, 3), {"x": X * 1e300}, "numbers beyond float32"),
        (nn.Linear(6, 3), {"x": X, "y": X}, "`inputs` are x, y, but torch's function takes"),
        (3, {"x": X}, "is a int; give a torch.nn.Module"),
        (lambda x: str(x), {"x": X}, "output is a str; a parity check compares arrays"),
        (Model(lambda fc, x: fc(x) * random.random()), {"x": X}, "does not do the same twice"),
        (
            Model(lambda fc, x: nn.functional.rrelu(fc(x), training=True)),
            {"x": X},
            "draws and uses its draw in one step",
        ),
        (lambda x: x.mul_(2), {"x": X}, "changes an input in place"),
        (
            nn.Linear(5, 3),
            {"x": X},
            "`torch_module_or_function` raised RuntimeError: "
            "mat1 and mat2 shapes cannot be multiplied",
        ),
        (
            Model(lambda fc, x: fc(x).exp().add_(1).exp_() * fc(x).sigmoid_().mul_(2)),
            {"x": X},
            "changes in place what the backward",
        ),
    ],
)
def test_record_refuses(target, inputs, message):
    with pytest.raises(ValueError, match=message):
        parity.record(target, inputs)


def test_record_refuses_wrong_options():
    with pytest.raises(ValueError, match="`order` is 3"):
        parity.record(nn.Linear(6, 3), {"x": X}, order=3)
    with pytest.raises(ValueError, match="`loss` must give one number"):
        parity.record(nn.Linear(6, 3), {"x": X}, loss=lambda y: y)
    with pytest.raises(ValueError, match="`loss` raised AttributeError"):
        parity.record(nn.Linear(6, 3), {"x": X}, loss=lambda y: y.total())
    with pytest.raises(ValueError, match="`seed` must be an integer of at least 0"):
        parity.record(nn.Linear(6, 3), {"x": X}, seed=-1)
    with pytest.raises(ValueError, match="`device` is 'nowhere', which torch cannot use here"):
        parity.record(nn.Linear(6, 3), {"x": X}, device="nowhere")
    with pytest.raises(ValueError, match="does not do the same twice"):
        parity.record(nn.Linear(6, 3), {"x": X}, loss=lambda y: y.sum() * random.random())


def test_without_torch_recording_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        ImportError,
        match=r"install it, or record where it is and load the golden .*: checking needs no torch",
    ):
        parity.record(None, {"x": X})


def test_a_check_needs_no_torch(monkeypatch, tmp_path):
    path = LINEAR.save(tmp_path / "linear.npz")
    monkeypatch.setitem(sys.modules, "torch", None)
    parity.check(linear, path).assert_confirmed()


def test_a_golden_file_that_is_none_is_refused(tmp_path):
    path = LINEAR.save(tmp_path / "linear.npz")
    content = path.read_bytes()
    foreign, broken, changed = (
        tmp_path / name for name in ("foreign.npz", "broken.npz", "changed.npz")
    )
    np.savez(foreign, x=X)
    broken.write_bytes(content[: len(content) // 2])
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(
                name, old.read(name) if "weight" not in name else old.read(name)[:-1] + b"\0"
            )
    for file, message in (
        (foreign, "is no golden file: it holds no manifest"),
        (broken, "is damaged or no golden file"),
        (changed, "is damaged: its arrays are not those that were recorded"),
        (tmp_path / "missing.npz", "there is no golden file"),
    ):
        with pytest.raises(ValueError, match=message):
            parity.check(linear, file)
    for entry, message in (
        ({"schema": 99}, "has schema 99, and this jaxgrad reads 1; update jaxgrad"),
        ({"modules": [1]}, "its manifest.json has no proper 'modules'"),
    ):
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
            for name in old.namelist():
                manifest = (
                    json.dumps(json.loads(old.read(name)) | entry)
                    if name == "manifest.json"
                    else old.read(name)
                )
                new.writestr(name, manifest)
        with pytest.raises(ValueError, match=message):
            parity.Golden.load(changed)
    with pytest.raises(ValueError, match="there is no folder"):
        LINEAR.save(tmp_path / "nowhere" / "linear.npz")


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (
            lambda p, x: x @ p["wieght"].T,
            {},
            r"takes the parameter 'wieght', which torch's state_dict has not; "
            r"did you mean 'weight'",
        ),
        (
            lambda p, x: (x @ p["weight"].T, 1.0),
            {},
            r"returns output\[0\], output\[1\], and torch output",
        ),
        (lambda p, x: linear(p, x[:3]), {}, r"output has shape \[3, 3\], and torch's \[7, 3\]"),
        (
            lambda p, x: tag(linear(p, x), "fc"),
            {},
            r"torch has no module output 'fc'; .*`ignore=\['fc'\]`",
        ),
        (linear, {"taps": {"a": "b"}}, "`taps`: the JAX function has no tap 'a'"),
        (linear, {"buffers": True}, r"must return \(output, \{torch's buffer name"),
        (linear, {"loss": jnp.mean}, "`loss`: none was recorded"),
        (
            lambda p, x: linear(p, x) * parity.noise("drop", (7, 3)),
            {},
            "torch drew no noise 'drop'",
        ),
        (3, {}, "`jax_function` is a int"),
        (
            lambda p, x: x @ p["weight"],
            {},
            r"`jax_function` raised TypeError: dot_general .*test_bad_input.py:\d+",
        ),
        (lambda p, x: linear(p, x).total(), {}, "`jax_function` raised AttributeError"),
    ],
)
def test_check_refuses(function, options, message):
    with pytest.raises(ValueError, match=message):
        parity.check(function, LINEAR, **options)


def test_check_names_the_arguments_it_passes():
    with pytest.raises(
        TypeError,
        match=r"`jax_function` takes \(p, y\), but is called with 1 argument and the keyword `x`",
    ):
        parity.check(lambda p, y: linear(p, y), LINEAR)
    with pytest.raises(ValueError, match="or the name of a file, but this is None"):
        parity.check(linear, None)


def test_taps_without_partner_are_refused_on_both_sides():
    golden = parity.record(torch_models.MLP(), {"x": X})

    def renamed(p, x):
        return jax_models.mlp(p, tag(x, "fc1x"))

    with pytest.raises(ValueError, match="'fc1x'; did you mean 'fc1'"):
        parity.check(renamed, golden)

    def half(p, x):
        y = jax.nn.gelu(tag(x @ p["fc1.weight"].T + p["fc1.bias"], "fc1"), approximate=False)
        y = jax_models.layer_norm(p, "norm", y)
        y = jax.nn.relu(y @ p["fc2.weight"].T + p["fc2.bias"])
        return y @ p["out.weight"].T + p["out.bias"]

    with pytest.raises(
        ValueError,
        match=r"torch's 'fc2', 'out' have parameters and no partner .*`ignore=\['fc2'\]`",
    ):
        parity.check(half, golden)
    parity.check(half, golden, ignore=["fc2", "o*"]).assert_confirmed()

    def squeezed(p, x):
        return (
            tag(linear({"weight": p["fc.weight"], "bias": p["fc.bias"]}, x).sum(0), "fc")[None]
            + 0 * x
        )

    with pytest.raises(
        ValueError, match=r"the tap 'fc' has shape \[6\], and torch's 'fc' \[7, 6\]"
    ):
        parity.check(squeezed, parity.record(Model(lambda fc, x: fc(x)), {"x": X}))


def test_dropout_that_the_port_forgets_is_refused():
    golden = parity.record(nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5)), {"x": X}, train=True)
    with pytest.raises(ValueError, match="torch drew '1', but the JAX function never asked for it"):
        parity.check(lambda p, x: x @ p["0.weight"].T + p["0.bias"], golden)


def test_what_is_not_finite_agrees_only_where_both_sides_are_so():
    golden = parity.record(lambda x: torch.sqrt(x), {"x": X})
    report = parity.check(lambda _, x: jnp.sqrt(x), golden)
    assert report.verdict == "undecided" and "both are not finite" in report.findings[0].detail
    assert parity.check(lambda _, x: jnp.sqrt(jnp.abs(x)), golden).verdict == "refuted"


@pytest.mark.parametrize("options", [{"precisions": 3}, {"train": "yes"}])
def test_record_names_the_option_of_a_wrong_kind(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}` is "):
        parity.record(nn.Linear(6, 3), {"x": X}, **options)


@pytest.mark.parametrize("options", [{"taps": 3}, {"ignore": 3}, {"weights": lambda state: None}])
def test_check_names_the_option_of_a_wrong_kind(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}` (is|returns) "):
        parity.check(linear, LINEAR, **options)
