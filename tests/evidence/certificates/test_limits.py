"""Pairs that differ only far out, or in what integers and rounding do: never confirmed when
unequal, never refuted when equal.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import Verdict, certify

v = np.ones(3)
cube = np.ones((2, 2, 3))


def gap(x, at):
    """A number that is zero wherever x exceeds `at`."""
    return jnp.sqrt((x - at) ** 2) - (x - at)


def crossed(x):
    """Products of x[a, b] and x[b, a], which look like squares and are none."""
    return jax.lax.dot_general(x, x, (((2,), (2,)), ((0, 1), (1, 0))))


UNDEFINED_FAR_OUT = {
    "root squared": (lambda x: jnp.sqrt(x + 50) ** 2, lambda x: x + 50),
    "product of roots": (
        lambda x: jnp.sqrt((x + 50) * (x + 60)),
        lambda x: jnp.sqrt(x + 50) * jnp.sqrt(x + 60),
    ),
    "logarithm of a square": (lambda x: jnp.log((x + 50) ** 2), lambda x: 2 * jnp.log(x + 50)),
    "arcsine beyond 1": (lambda x: jnp.arcsin(x / 10) - jnp.arcsin(x / 10) + x, lambda x: x),
    "acosh below 1": (lambda x: jnp.arccosh(x + 50) * 0 + x, lambda x: x),
    "a denominator that vanishes with a root": (lambda x: x * gap(x, 9) / gap(x, 9), lambda x: x),
}

DIFFERENT_FAR_OUT = {
    "is finite": (lambda x: jnp.isfinite(jnp.log(x + 50)) * x, lambda x: x),
    "is NaN": (lambda x: jnp.where(jnp.isnan(jnp.sqrt(x + 20)), 7.0, x), lambda x: x),
    "a square by an exponent that is 2 in disguise": (
        lambda x: (x ** (2.0 + 0 * x)) ** 0.5,
        lambda x: x,
    ),
    "neither greater nor not greater": (
        lambda x: jnp.where(jnp.log(x + 9) > 0, 1.0, 2.0),
        lambda x: jnp.where(jnp.log(x + 9) <= 0, 2.0, 1.0),
    ),
    "int8 wraps": (
        lambda x: x.astype(jnp.int8).astype(float),
        lambda x: x.astype(jnp.int32).astype(float),
    ),
    "int32 to int8 wraps": (
        lambda x: x.astype(jnp.int32).astype(jnp.int8).astype(float),
        lambda x: x.astype(jnp.int32).astype(float),
    ),
    "int8 overflows": (
        lambda x: (x.astype(jnp.int8) * 10).astype(float),
        lambda x: 10.0 * x.astype(jnp.int8),
    ),
    "int32 overflows": (
        lambda x: (x.astype(jnp.int32) ** 8).astype(float),
        lambda x: x.astype(jnp.int32).astype(float) ** 8,
    ),
}


@pytest.mark.parametrize("name", [*UNDEFINED_FAR_OUT, *DIFFERENT_FAR_OUT])
def test_what_goes_wrong_only_far_out_is_not_confirmed(name):
    f, g = (UNDEFINED_FAR_OUT | DIFFERENT_FAR_OUT)[name]
    assert certify(f, g, v).verdict != Verdict.CONFIRMED


def test_products_of_different_entries_are_not_taken_for_squares():
    assert (
        certify(lambda x: jnp.abs(crossed(x + 9)), lambda x: crossed(x + 9), cube).verdict
        != Verdict.CONFIRMED
    )


def test_counts_of_comparisons_are_still_proved():
    assert (
        certify(
            lambda x: jnp.sum(x > 0) * x, lambda x: jnp.sum(jnp.where(x > 0, 1.0, 0.0)) * x, v
        ).verdict
        == Verdict.CONFIRMED
    )


ABSORBED = {
    "absorbed in a large constant": (lambda x: (x + 1e20) - 1e20, lambda x: x),
    "saturated": (lambda x: 1 - jnp.tanh(8 * x) ** 2, lambda x: 1 / jnp.cosh(8 * x) ** 2),
    "complement of erf": (lambda x: 1 - jax.lax.erf(6 * x), lambda x: jax.lax.erfc(6 * x)),
    "cancelled under a root": (
        lambda x: jnp.sqrt(x * x + 1e12) - 1e6,
        lambda x: x * x / (jnp.sqrt(x * x + 1e12) + 1e6),
    ),
    "logarithm near 1": (lambda x: jnp.log(1 + 1e-12 * x * x), lambda x: jnp.log1p(1e-12 * x * x)),
    "sixteen bits": (lambda x: x.astype(jnp.float16).astype(float), lambda x: x),
    "products in sixteen bits": (
        lambda x: (x.astype(jnp.bfloat16) * x.astype(jnp.bfloat16)).astype(float),
        lambda x: x * x,
    ),
}


@pytest.mark.parametrize("name", ABSORBED)
@pytest.mark.parametrize(
    "around", [jnp.sort, lambda x: jnp.clip(jnp.clip(x, -1, 1), -2, 2)], ids=["sort", "clip"]
)
def test_what_rounding_absorbs_is_not_refuted(name, around):
    f, g = ABSORBED[name]
    certificate = certify(lambda x: around(f(x)), lambda x: around(g(x)), v)
    assert certificate.verdict != Verdict.REFUTED, certificate


def test_complex_results_are_not_judged_by_their_real_parts():
    certificate = certify(lambda x: x + 1j * x, lambda x: x + 2j * x, v)
    assert certificate.verdict == Verdict.UNDECIDED


def test_long_sums_of_products_do_not_overflow():
    long = np.ones(2**18)
    assert (
        certify(lambda x: jnp.sum(x * x), lambda x: jnp.vdot(x, x), long).verdict
        == Verdict.CONFIRMED
    )


def test_a_known_integer_exponent_that_is_a_scalar_is_a_power():
    third = np.int32(3)
    assert (
        certify(lambda x, n: jax.lax.pow(x, n), lambda x, n: x * x * x, 1.5, third).verdict
        == Verdict.CONFIRMED
    )
    assert (
        certify(lambda x, n: jax.lax.pow(x, n), lambda x, n: x * x, 1.5, third).verdict
        == Verdict.REFUTED
    )


def test_branches_that_differ_unseen_are_told_as_comparisons_and_not_as_roots():
    def loss(x):
        return jax.lax.cond(x[0] > 0, lambda x: jnp.sum(x**2), jnp.sum, x)

    def gradient(x):
        return jax.lax.cond(x[0] > 1e-9, lambda x: 2 * x, jnp.ones_like, x)

    certificate = certify(jax.grad(loss), gradient, jnp.ones(2))
    assert certificate.verdict == Verdict.UNDECIDED
    assert certificate.reason.endswith("proves nothing about comparisons")
