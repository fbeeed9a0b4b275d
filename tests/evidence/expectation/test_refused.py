"""Expectations of what could be wrong: nothing is taken on trust, and what has no exact expectation
is refused with the reason.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import masks
from jaxgrad.evidence.expectation.expectation import expectation
from jaxgrad.jaxprs.versions import enable_x64
from tests.polynomials import cubic_across_rows, normal, quadratic, quintic_across_rows


@pytest.fixture(autouse=True)
def double():
    with enable_x64(True):
        yield


def test_neither_stop_gradient_nor_a_wrong_derivative_bends_an_expectation():
    @jax.custom_jvp
    def square(z):
        return z * z

    square.defjvps(lambda tangent, _, z: 7.0 * tangent)  # wrong, and never asked for
    x = normal(40, 30)
    expected = np.sum((0.3 * x.sum(-1)) ** 2 + 0.21 * (x**2).sum(-1))
    for f in (
        lambda mask: jnp.sum(square((mask * x).sum(-1))),
        lambda mask: jnp.sum(jax.lax.stop_gradient((mask * x).sum(-1)) * (mask * x).sum(-1)),
    ):
        for method in ("coins", "moments"):
            assert float(
                expectation(f, masks.Bernoulli(0.3), x.shape, method=method)()
            ) == pytest.approx(expected, rel=1e-11)


BIG = (40, 30)


def exponential(x, mask):
    return jnp.sum(jnp.exp((mask * x).sum(-1)))


def comparison(x, mask):
    return jnp.sum(jnp.where(mask > 0.5, x, 0.0) ** 2)


def rounding(x, mask):
    return jnp.sum(jnp.round(mask * x))


def to_integers(x, mask):
    return jnp.sum((mask * x).astype(int).astype(float))


def mean_of_what_is_kept(x, mask):
    return jnp.sum(mask * x) / jnp.sum(mask)


def loop_that_the_mask_steers(x, mask):
    return jax.lax.while_loop(lambda s: s < jnp.sum(mask), lambda s: s + 1.0, 0.0) + jnp.sum(x)


def sorting(x, mask):
    return jnp.sum(jnp.sort(mask * x, axis=-1)[:, 0])


def power_with_a_fraction(x, mask):
    return jnp.sum(mask**1.5)


def absolute(x, mask):
    return jnp.sum(jnp.abs(mask * x - 0.5))


@pytest.mark.parametrize(
    ("f", "operation"),
    [
        (exponential, "`exp`"),
        (comparison, "`gt`"),
        (rounding, "`round`"),
        (to_integers, "`convert_element_type`"),
        (mean_of_what_is_kept, "`div`"),
        (loop_that_the_mask_steers, "`while`"),
        (sorting, "`sort`"),
        (power_with_a_fraction, "`pow`"),
        (absolute, "`abs`"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_polynomial_is_refused_with_the_operation_and_its_line(f, operation):
    expected = expectation(f, masks.Bernoulli(0.5), BIG)
    with pytest.raises(ValueError, match=operation) as refused:
        expected(normal(*BIG))
    first = f.__code__.co_firstlineno
    assert f"test_refused.py:{first + 1}" in str(refused.value)
    assert "2^1200 masks" in str(refused.value)
    assert "jaxgrad.estimate" in str(refused.value)


def test_a_degree_beyond_a_masks_moments_is_refused_with_the_operation_that_makes_it():
    with pytest.raises(
        ValueError,
        match=r"degree in the mask is 3, because of `mul` at .*polynomials.py:\d+.*FixedCount",
    ):
        expectation(cubic_across_rows, masks.FixedCount(15), BIG)(normal(*BIG))
    with pytest.raises(
        ValueError,
        match=r"rows meet in `mul` at .*RandomRatio give expectations up to degree 2 only",
    ):
        expectation(cubic_across_rows, masks.RandomRatio(0.1, 0.5), BIG)(normal(*BIG))
    with pytest.raises(ValueError, match=r"degree in the mask is 5.* takes [0-9]+ evaluations"):
        expectation(quintic_across_rows, masks.Bernoulli(0.5), (100, 100))(normal(100, 100))


def test_a_mask_without_a_list_or_moments_enough_is_refused():
    with pytest.raises(
        ValueError,
        match=r"masks of a MultiplicativeGaussian cannot be listed; it is no polynomial .* `exp`",
    ):
        expectation(exponential, masks.MultiplicativeGaussian(0.5), BIG)(normal(*BIG))


def test_a_way_that_is_asked_for_and_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"by `method` 'rows': .*rows meet in `exp`"):
        expectation(
            lambda x, mask: jnp.exp(jnp.sum(mask * x)), masks.Bernoulli(0.5), (2, 3), method="rows"
        )(normal(2, 3))
    with pytest.raises(ValueError, match="by `method` 'coins'"):
        expectation(quadratic, masks.FixedCount(2), (2, 3), method="coins")(normal(2, 3))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None, masks.Bernoulli(0.5), (2, 3)), TypeError, "`f` must be a function"),
        ((quadratic, 0.5, (2, 3)), TypeError, "`mask` must be a mask distribution"),
        (
            (quadratic, masks.Bernoulli(0.5), (2, 0)),
            ValueError,
            "`shape` must have at least one axis and no empty one",
        ),
        ((quadratic, masks.Bernoulli(0.5), 3), TypeError, "`shape` must be a sequence"),
    ],
)
def test_bad_input_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        expectation(*arguments)
    with pytest.raises(
        ValueError, match="`method` must be one of enumeration, rows, coins, moments"
    ):
        expectation(quadratic, masks.Bernoulli(0.5), (2, 3), method="guess")
