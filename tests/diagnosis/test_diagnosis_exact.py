"""Factors that certificates know without rounding: they serve the diagnosis, also where floating
point sees nothing.
"""

import jax.numpy as jnp
import pytest

import jaxgrad as jg
from jaxgrad import Derivation, Verdict, masks

pytestmark = pytest.mark.quick


def square(factor, loss=lambda x: jnp.sum(x**2)):
    return Derivation(
        name="square",
        loss=loss,
        gradient=lambda x: {"x": factor(*x.shape) * 2 * x},
        shapes={"x": "m n"},
    )


def sentence(claim, evidence=("certificate", "autodiff")):
    report = jg.verify(claim, evidence=evidence)
    assert report.verdict == Verdict.REFUTED
    return next(f.diagnosis for f in report.findings if f.verdict == Verdict.REFUTED)


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (lambda m, n: 2, "the closed form is 2 times the gradient in x"),
        (lambda m, n: -1, "the closed form is minus the gradient in x"),
        (lambda m, n: 2 / (m * n), "the closed form is 2/(m·n) times the gradient in x"),
        (lambda m, n: m / (m - 1), "the closed form is m/(m−1) times the gradient in x"),
        (
            lambda m, n: 1.2345678,
            "the closed form is 6172839/5000000 (≈ 1.2345678) times the gradient in x",
        ),
    ],
)
def test_a_factor_is_confirmed_by_exact_arithmetic_and_a_decimal_becomes_its_fraction(
    factor, words
):
    told = sentence(square(factor))
    assert told.startswith(words)
    assert "exact in finite fields at 2 choices of sizes" in told


def test_without_a_certificate_nothing_is_said_of_finite_fields():
    told = sentence(square(lambda m, n: 1.2345678), "autodiff")
    assert "1.2345678 times" in told and "finite fields" not in told


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (lambda m, n: 2 / 3, "the closed form is 2/3 times"),
        (lambda m, n: 1 / (m - 1), "the closed form is 1/(m−1) times"),
        (lambda m, n: m / n, "the closed form is m/n times"),
    ],
)
def test_a_factor_that_rounding_hides_is_named_by_exact_arithmetic(factor, words):
    by = 1e12

    def variance(x):
        return jnp.mean((x + by) ** 2) - jnp.mean(x + by) ** 2

    claim = Derivation(
        name="variance",
        loss=variance,
        gradient=lambda x: {"x": factor(*x.shape) * 2 * (x - jnp.mean(x)) / x.size},
        shapes={"x": "m n"},
    )
    told = sentence(claim, "certificate")
    assert told.startswith(words) and "explains all of the error" in told


def test_a_factor_too_close_to_one_for_floating_point_is_a_fraction():
    told = sentence(square(lambda m, n: 1 + 1e-10), "certificate")
    assert told.startswith(
        "the closed form is 10000000001/10000000000 (≈ 1.0000000001) times the gradient in x"
    )


def test_the_probability_of_a_mask_that_stands_as_a_number_in_the_loss_is_named_and_exact():
    claim = Derivation(
        name="dropout",
        loss=lambda x, w, mask: jnp.sum(mask / 0.6 * x * w),
        gradient=lambda x, w, mask: {"w": 0.6 * x},
        shapes={"x": "m n", "w": "m n", "mask": "m n"},
        mask=masks.Bernoulli(0.6),
    )
    told = sentence(claim, ("certificate", "expectation"))
    assert told.startswith(("the closed form is 3/5 times", "the closed form is p times"))
    assert "exact in finite fields" in told


def test_a_ratio_that_is_not_the_same_for_all_entries_is_no_factor():
    claim = square(lambda m, n: jnp.arange(1.0, n + 1))
    assert "finite fields" not in sentence(claim)
