"""What a closed form loses to rounding is told, with the step that loses it."""

import jax.numpy as jnp
import pytest

import jaxgrad as jg
from jaxgrad import Verdict
from jaxgrad.diagnosis import digits_lost
from tests.verdict_claims import claim


def shifted(by):
    """The gradient of a variance, by a difference of large numbers."""
    return claim(
        "shifted",
        lambda x: jnp.var(x),
        lambda x: {"x": 2 * ((x + by) - jnp.mean(x + by)) / x.size},
        {"x": "n"},
    )


def test_digits_that_float32_loses_are_counted_and_the_step_that_cancels_is_told():
    jg.verify(shifted(1e5), evidence="autodiff").assert_confirmed()
    diagnosis = digits_lost(shifted(1e5))["x"]
    assert "right in float64 but loses 5 of 7 digits in float32" in diagnosis.sentence
    assert "(x + by) - jnp.mean(x + by)" in diagnosis.sentence
    assert digits_lost(shifted(0.0)) == {}


def test_a_gradient_that_rounding_hides_is_told_where_it_loses_its_digits():
    report = jg.verify(shifted(1e14), evidence="autodiff")
    assert report.verdict == Verdict.UNDECIDED
    assert "by cancellation in" in report.findings[0].diagnosis


def test_digits_lost_refuses_what_is_no_derivation():
    with pytest.raises(TypeError, match="`derivation`"):
        digits_lost("variance")
