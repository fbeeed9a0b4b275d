"""Whose code a line belongs to: the user's, the catalogue's, or jaxgrad's own, wherever in the
package a file lies.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jaxgrad as jg
from jaxgrad import Derivation, catalog
from jaxgrad.catalog import layers

THIS = Path(__file__).name


def square(**more):
    fields = dict(
        name="square",
        loss=lambda x: jnp.sum(x**2),
        gradient=lambda x: {"x": 2 * x},
        shapes={"x": "n"},
    )
    return Derivation(**(fields | more))


def masked(**more):
    fields = dict(
        loss=lambda x, mask: jnp.sum(x * mask),
        gradient=lambda x, mask: {"x": x},
        shapes={"x": "n", "mask": "n"},
    )
    return square(**(fields | dict(mask=jg.masks.Bernoulli(0.5)) | more))


def raising(*_, **__):
    raise RuntimeError("not written yet")


@jax.custom_vjp
def ruled(x):
    return jnp.sum(x**2)


ruled.defvjp(lambda x: (ruled(x), x), raising)


def unbounded(x):
    return jax.lax.while_loop(lambda y: y.sum() < 10, lambda y: y * 2, x**2).sum()


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        pytest.param(
            square(loss=raising),
            rf"`loss` of square raised RuntimeError: not written yet \(.*{THIS}:\d+, in raising\)",
            id="loss",
        ),
        pytest.param(
            square(gradient=raising),
            rf"`gradient` of square raised RuntimeError.*{THIS}:\d+, in raising",
            id="gradient",
        ),
        pytest.param(
            square(domains={"x": raising}),
            rf"`domains\['x'\]` of square raised RuntimeError.*{THIS}:\d+, in raising",
            id="domain",
        ),
        pytest.param(
            masked(mask=lambda n: raising()),
            rf"`mask` of square raised RuntimeError.*{THIS}:\d+, in raising",
            id="mask",
        ),
        pytest.param(
            square(loss=ruled),
            rf"the differentiation rule in `loss` of square raised RuntimeError.*{THIS}:\d+, in "
            rf"raising",
            id="rule",
        ),
        pytest.param(
            square(loss=unbounded),
            r"`loss` of square cannot be differentiated by JAX: .*Reverse-mode",
            id="no reverse mode",
        ),
    ],
)
@pytest.mark.parametrize("evidence", [None, "autodiff", "differences", "certificate"])
def test_what_the_users_function_raises_is_told_with_the_users_line(claim, said, evidence):
    if evidence == "differences" and claim.loss in (ruled, unbounded):
        pytest.skip("differences ask for no derivative")
    with pytest.raises(ValueError, match=said) as told:
        jg.verify(claim, evidence=evidence)
    assert "/jaxgrad/" not in str(told.value)


def test_what_a_loss_under_a_mask_raises_is_told_with_the_users_line():
    claim = masked(loss=lambda x, mask: ruled(x * mask))
    for evidence in (None, "monte_carlo", "expectation"):
        with pytest.raises(
            ValueError,
            match=rf"the differentiation rule in `loss` of square raised RuntimeError.*{THIS}",
        ):
            jg.verify(claim, evidence=evidence)


def test_a_mistake_in_the_catalogue_is_told_with_the_catalogues_line():
    entry = catalog.get("mse")
    wrong = replace(entry, gradient=lambda pred, y: entry.gradient(pred=(pred,), y=y))
    with pytest.raises(
        TypeError, match=r"`gradient` of mse raised TypeError.*catalog/vectors\.py:\d+"
    ):
        jg.verify(wrong)


def test_a_mistake_of_jaxgrads_own_is_not_laid_at_the_users_door(monkeypatch):
    namespace = {}
    code = "def __init__(self, *_, **__):\n    raise RuntimeError('not written yet')"
    exec(compile(code, Path(jg.__file__).parent / "somewhere" / "inside.py", "exec"), namespace)
    monkeypatch.setattr("jaxgrad.evidence.problem.Problem.__init__", namespace["__init__"])
    with pytest.raises(RuntimeError, match=r"^not written yet$"):
        jg.verify(square())


def test_operations_without_a_rule_are_named_with_the_users_line():
    sorting = lambda x, mask: jnp.sum(jnp.sort(x * mask) * jnp.arange(24.0))
    with pytest.raises(ValueError, match=rf"`sort` at .*{THIS}:\d+"):
        jg.expectation(sorting, jg.masks.MultiplicativeGaussian(0.1), (24,))(jnp.ones(24))


def test_operations_of_the_catalogue_are_named_with_the_catalogues_line():
    smooth = lambda x, mask: jnp.sum(layers.relu(x * mask))
    with pytest.raises(ValueError, match=r"at .*catalog/layers\.py:\d+"):
        jg.expectation(smooth, jg.masks.MultiplicativeGaussian(0.1), (24,))(jnp.ones(24))


def test_the_command_is_found_as_a_script_and_as_a_module():
    script = Path(sys.executable).parent / "jaxgrad"
    for command in (
        [sys.executable, "-m", "jaxgrad"],
        *([[str(script)]] if script.exists() else []),
    ):
        done = subprocess.run([*command, "list"], capture_output=True, text=True, check=True)
        assert "inner_product" in done.stdout


def test_every_public_name_resolves():
    for name in jg.__all__:
        assert getattr(jg, name) is not None
    assert set(jg._HOMES) | jg._MODULES == set(jg.__all__)
