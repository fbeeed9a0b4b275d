"""Gradients that are right in some draws, in some places or at some labels, and what is said of
them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad import Verdict
from tests.diagnosis.test_diagnosis import told, wrong


def halves(x):
    return jnp.where(jnp.sum(x**2) < 4, jnp.sum(x**2) / 2, 2 * jnp.sqrt(jnp.sum(x**2)) - 2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("loss", "gradient", "shapes"),
    [
        (lambda x: jnp.sum(x**2), lambda x: jnp.where(jnp.sum(x) > 0, 4 * x, 2 * x), "m n"),
        (lambda x: jnp.sum(x**2), lambda x: jnp.where(jnp.sum(x) > 0, 0 * x, 2 * x), "m n"),
        (lambda x: jnp.sum(x**2), lambda x: jnp.where(x[0, 0] > 0, 2 * x + 1, 2 * x), "m n"),
        (lambda x: jnp.sum(x**2), lambda x: jnp.where(x > 2.2, 4 * x, 2 * x), "m n"),
        (halves, lambda x: jnp.where(jnp.sum(x**2) < 4, x, x / jnp.sqrt(jnp.sum(x**2))), "n"),
    ],
)
def test_what_is_right_in_some_draws_is_not_said_to_be_wrong_throughout(
    loss, gradient, shapes, seed
):
    found = told(
        wrong("now and then", lambda x: {"x": gradient(x)}, loss, {"x": shapes}), seed=seed
    )
    for phrase in (
        "times the gradient in",
        "minus the gradient",
        "is zero, and",
        "right elsewhere",
        "extra term",
        "right only",
    ):
        assert all(phrase not in diagnosis.sentence for diagnosis in found.values())


def test_a_region_is_said_to_be_the_only_one_if_nothing_near_it_is_right():
    clipped = wrong("clipped", lambda x: {"x": 2 * x}, lambda x: jnp.sum(jnp.maximum(x, -1) ** 2))
    assert (
        "right where x is positive and at some other points, but not everywhere"
        in told(clipped)["x"].sentence
    )
    absolute = wrong("absolute", lambda x: {"x": jnp.ones_like(x)}, lambda x: jnp.sum(jnp.abs(x)))
    assert "the closed form for x is right only where x is positive" in told(absolute)["x"].sentence


def logistic(z, y):
    return -jnp.sum(jnp.where(y == 1, jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)))


def powers(z, y):
    return jnp.sum(jnp.where(y > 0, jnp.exp(z), z**3))


AT_LABELS = [
    (
        logistic,
        lambda z, y: jnp.where(y == 1, -2 * jax.nn.sigmoid(-z), jax.nn.sigmoid(z)),
        {"inputs": {"y": np.array([0.0, 1.0, 1.0])}},
        "the closed form is 2 times the gradient in z where y is 1, and right elsewhere",
    ),
    (
        powers,
        lambda z, y: jnp.where(y > 0, jnp.exp(z), jnp.sin(z) * jnp.cos(z**2)),
        {"domains": {"y": "sign"}},
        "the closed form for z is wrong only where y is -1",
    ),
    (
        powers,
        lambda z, y: jnp.where(y > 0, jnp.exp(z), jnp.sin(z) * jnp.cos(z**2)),
        {},
        "the closed form for z is right only where y is positive",
    ),
    (
        lambda z, y: powers(z, y[:, None]),
        lambda z, y: jnp.where(y[:, None] > 0, jnp.sin(z) * jnp.cos(z**2), 3 * z**2),
        {"domains": {"y": "binary"}, "shapes": {"z": "m n", "y": "m"}},
        "the closed form for z is wrong only where y is 1",
    ),
]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("loss", "gradient", "more", "words"), AT_LABELS, ids=[words for *_, words in AT_LABELS]
)
def test_a_label_is_named_by_the_value_at_which_the_claim_is_wrong(
    loss, gradient, more, words, seed
):
    more = dict(more)
    inputs = more.pop("inputs", {})
    claim = wrong(
        "labels",
        lambda z, y: {"z": gradient(z, y)},
        loss,
        more.pop("shapes", {"z": "n", "y": "n"}),
        **more,
    )
    report = jg.verify(claim, inputs=inputs, seed=seed, evidence=["autodiff", "differences"])
    assert {
        f.diagnosis.split(" (explains")[0] for f in report.findings if f.verdict == Verdict.REFUTED
    } == {words}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("bad", "shape", "inputs"),
    [
        (lambda y: (y == 1) | (y == 2), "n", {"y": np.array([0.0, 1.0, 2.0, 1.0])}),
        (lambda y: (y > 0) & (y < 0.5), "n", {}),
        (lambda y: (y > 0) & (y < 0.5), "", {}),
    ],
    ids=["two labels", "a band", "a band of a scalar"],
)
def test_no_region_is_the_only_one_if_the_draws_hold_what_is_right_outside_or_wrong_inside_of_it(
    bad, shape, inputs, seed
):
    def gradient(z, y):
        return {"z": jnp.where(bad(y), jnp.sin(z) * jnp.cos(z**2), 2 * z)}

    claim = wrong("values", gradient, lambda z, y: jnp.sum(z**2), {"z": "n", "y": shape})
    report = jg.verify(claim, inputs=inputs, seed=seed, evidence=["autodiff", "differences"])
    assert all(
        "right only" not in f.diagnosis and "y is positive" not in f.diagnosis
        for f in report.findings
    )


def test_a_label_is_not_blamed_for_what_is_wrong_at_another_inputs_values():
    def gradient(z, y):
        return {
            "z": jnp.where(jnp.abs(z) > 3, jnp.sin(z), 2 * z)
            + jnp.where(jnp.abs(z) > 3, jnp.cos(y + z**2), y)
        }

    claim = wrong("large", gradient, lambda z, y: jnp.sum(z**2 + y * z), {"z": "n", "y": "n"})
    inputs = {"z": np.array([4.0, 1.0, -5.0, 0.5, 6.0]), "y": np.array([1.0, 0.0, 1.0, 0.0, 1.0])}
    report = jg.verify(claim, inputs=inputs, evidence=["autodiff", "differences"])
    assert report.verdict == Verdict.REFUTED
    assert all("where y is" not in f.diagnosis for f in report.findings)
