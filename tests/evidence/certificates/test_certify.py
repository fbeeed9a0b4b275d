"""What a certificate says, what it does not say, and what it refuses."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import Certificate, Verdict, certify
from jaxgrad.jaxprs.versions import enable_x64

pytestmark = pytest.mark.quick

v, x = np.ones(3), np.ones((4, 3))


# --- what it says ---


def test_a_gradient_is_proved_with_a_stated_probability_of_error():
    certificate = certify(jax.grad(lambda w: jnp.sum(w**2) / 2), lambda w: w, v)
    assert certificate.verdict == Verdict.CONFIRMED
    assert 0 < certificate.error_probability <= 2**-100
    assert certificate.draws > 0 and certificate.degree == 1 and certificate.coins == 0
    assert certificate.seconds > 0


def test_nothing_is_claimed_where_nothing_is_confirmed():
    assert certify(lambda x: x, lambda x: 2 * x, v).error_probability == 1.0


def test_a_branch_that_draws_decide_weakens_each_draw_to_a_coin():
    certificate = certify(lambda x: jnp.sqrt(x**2), jnp.abs, v)
    assert certificate.coins >= 1
    assert certificate.draws >= 100
    assert certificate.error_probability <= 2**-100


def test_every_branch_at_once_is_proved_when_comparisons_are_relaxed():
    wide = np.ones((6, 20))  # 120 gates, 2^120 branches

    def loss(x, w):
        return jnp.sum(jnp.tanh(jax.nn.relu(x) @ w))

    def gradient(x, w):
        return ((1 - jnp.tanh(jnp.maximum(x, 0) @ w) ** 2) @ w.T) * (x > 0)

    certificate = certify(jax.grad(loss), gradient, wide, np.ones((20, 2)))
    assert certificate.verdict == Verdict.CONFIRMED
    assert certificate.draws < 100


@pytest.mark.parametrize("conditions", [1, 3, 6, 14])
def test_a_difference_in_one_branch_of_many_is_never_overlooked(conditions):
    def corner(x, value):
        inside = jnp.all(x * jnp.sign(x) ** 3 > -x * x + x * jnp.abs(x) - x**2 * (x > 0))
        return jnp.where(inside & jnp.all(x > 0), value, 0.0)

    certificate = certify(lambda x: corner(x, 1.0), lambda x: corner(x, 2.0), np.ones(conditions))
    assert certificate.verdict != Verdict.CONFIRMED


def test_the_same_seed_gives_the_same_certificate():
    def run(seed):
        certificate = certify(lambda x: jnp.sqrt(x**2 + 1) ** 2, lambda x: x**2 + 1, v, seed=seed)
        return (certificate.verdict, certificate.error_probability, certificate.draws)

    assert run(5) == run(5)
    assert run(5)[0] == run(6)[0] == Verdict.CONFIRMED


def test_shapes_are_enough_for_floating_point_arguments():
    spec = {"w": jax.ShapeDtypeStruct((3, 2), np.float32)}
    assert (
        certify(lambda p: 2 * p["w"], lambda p: p["w"] + p["w"], spec).verdict == Verdict.CONFIRMED
    )


def test_integers_and_booleans_are_taken_as_they_are():
    def f(x, n, mask):
        return jnp.where(mask, x[n], n * x)

    def g(x, n, mask):
        return jnp.array([x[2], x[1], x[2]])

    args = (v, np.array([2, 1, 1]), np.array([True, True, False]))
    assert certify(f, g, *args).verdict == Verdict.CONFIRMED
    assert certify(f, g, v, np.array([2, 0, 1]), args[2]).verdict == Verdict.REFUTED


def test_python_numbers_are_variables_when_they_are_floats():
    assert certify(lambda a, x: a * x / a, lambda a, x: x, 2.0, v).verdict == Verdict.CONFIRMED
    assert certify(lambda a, x: a * x, lambda a, x: 2 * x, 2.0, v).verdict == Verdict.REFUTED


def test_rounding_to_a_narrower_float_is_the_identity_of_the_real_number():
    certificate = certify(lambda x: x.astype(jnp.float32).astype(float) * 2, lambda x: x + x, v)
    assert certificate.verdict != Verdict.REFUTED


def test_stop_gradient_is_the_identity_of_values_and_not_of_gradients():
    stop = jax.lax.stop_gradient
    assert certify(lambda x: stop(x) * x, lambda x: x**2, v).verdict == Verdict.CONFIRMED
    assert (
        certify(jax.grad(lambda x: jnp.sum(stop(x) * x)), lambda x: 2 * x, v).verdict
        == Verdict.REFUTED
    )


def test_a_wrong_custom_derivative_is_refuted():
    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, c: (3 * x * c,))
    certificate = certify(jax.grad(lambda x: jnp.sum(square(x))), lambda x: 2 * x, v)
    assert certificate.verdict == Verdict.REFUTED
    assert certificate.ratio == pytest.approx(2 / 3)


@pytest.mark.parametrize("enabled", [False, True])
def test_jax_configuration_is_neither_needed_nor_changed(enabled):
    with enable_x64(enabled):
        assert (
            certify(jax.grad(lambda x: jnp.mean(x**4)), lambda x: x**3 / 3, x).verdict
            == Verdict.CONFIRMED
        )
        assert jax.config.jax_enable_x64 == enabled


def test_compiled_functions_that_ran_before_are_traced_again_in_float64():
    f = jax.jit(lambda x: 0.1 * x)
    f(jnp.ones(3))
    assert certify(f, lambda x: x / 10, v).verdict == Verdict.CONFIRMED


# --- what it does not say ---


def test_points_in_general_position_only():
    assert (
        certify(lambda a, b: a * b / b, lambda a, b: a, v, v).verdict == Verdict.CONFIRMED
    )  # not at b = 0
    assert (
        certify(lambda x: jnp.where(x == 0, 7.0, x), lambda x: x, v).verdict == Verdict.CONFIRMED
    )  # not at x = 0


def test_conventions_at_kinks_are_not_seen():
    at_zero = certify(
        jax.grad(lambda x: jnp.sum(jax.nn.relu(x))), lambda x: jnp.where(x >= 0, 1.0, 0.0), v
    )
    assert at_zero.verdict == Verdict.CONFIRMED


def test_a_region_where_one_function_is_undefined_is_no_general_position():
    certificate = certify(lambda x: jax.nn.relu(x) * x / jax.nn.relu(x), lambda x: x, v)
    assert certificate.verdict == Verdict.UNDECIDED
    assert "undefined" in certificate.reason or "not finite" in certificate.reason


def test_numbers_are_real_and_not_rounded():
    assert certify(lambda x: (x + 1e20) - 1e20, lambda x: x, v).verdict != Verdict.REFUTED
    assert (
        certify(lambda x: jnp.log(jnp.exp(x)), lambda x: x, v).verdict == Verdict.CONFIRMED
    )  # though exp(1000) = inf


def test_constants_within_two_units_in_the_last_place_are_one_and_no_others():
    assert certify(lambda x: x * (1 + 4e-16), lambda x: x, v).verdict == Verdict.CONFIRMED
    assert certify(lambda x: x * (1 + 1e-14), lambda x: x, v).verdict != Verdict.CONFIRMED


# --- what it refuses ---


def test_different_trees_are_refused_by_name():
    with pytest.raises(ValueError, match=r"`f` returns the tree .* but `g` returns"):
        certify(lambda x: (x, x), lambda x: x, v)


def test_different_shapes_are_refused_with_the_place():
    with pytest.raises(
        ValueError, match=re.escape("`f` returns shape (3,) at ['a'] but `g` returns (1, 3)")
    ):
        certify(lambda x: {"a": x}, lambda x: {"a": x[None]}, v)


@pytest.mark.parametrize(
    "bad", ["text", object(), 1j, np.array(["a"])], ids=["string", "object", "complex", "strings"]
)
def test_arguments_that_hold_no_real_numbers_are_refused_by_name(bad):
    with pytest.raises(TypeError, match=r"`example_args\[1\]\['a'\]` must"):
        certify(lambda x, y: x, lambda x, y: x, v, {"a": bad})


def test_functions_that_return_nothing_are_refused():
    with pytest.raises(ValueError, match="`f` and `g` return no arrays"):
        certify(lambda x: None, lambda x: None, v)


def test_integers_without_values_are_refused():
    with pytest.raises(TypeError, match=r"`example_args\[0\]` holds int32 and needs values"):
        certify(lambda n: n, lambda n: n, jax.ShapeDtypeStruct((3,), np.int32))


def test_what_is_no_function_is_refused():
    with pytest.raises(TypeError, match="`g` must be a function"):
        certify(lambda x: x, v, v)


def test_random_draws_are_refused_with_their_line():
    with pytest.raises(ValueError, match=r"draws random numbers .*test_certify\.py:\d+"):
        certify(lambda x: x + jax.random.normal(jax.random.key(0), (3,)), lambda x: x, v)


def test_keys_are_refused_as_arguments():
    with pytest.raises(TypeError, match=r"`example_args\[1\]` must hold real numbers"):
        certify(lambda x, k: x, lambda x, k: x, v, jax.random.key(0))


def test_callbacks_are_refused():
    def f(x):
        return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((3,), x.dtype), x)

    def g(x):
        jax.debug.print("{}", x)
        return x

    for function in (f, g):
        with pytest.raises(ValueError, match="side effect"):
            certify(function, lambda x: x, v)


def test_loops_that_depend_on_the_data_are_refused_with_their_line():
    def f(x):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 9, lambda x: 2 * x, x)

    with pytest.raises(
        ValueError, match=r"loops for a time that depends on the data.*test_certify\.py:\d+"
    ):
        certify(f, lambda x: x, v)


def test_loops_of_fixed_length_are_run():
    def f(x):
        return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, 2 * c[1]), (0, x))[1]

    assert certify(f, lambda x: 8 * x, v).verdict == Verdict.CONFIRMED


def test_a_branch_on_the_data_is_both_its_cases():
    def f(x):
        return jax.lax.cond(jnp.sum(x) > 0, lambda x: x, lambda x: -x, x)

    assert certify(f, lambda x: x * jnp.sign(jnp.sum(x)), v).verdict == Verdict.CONFIRMED
    assert certify(f, lambda x: x, v).verdict == Verdict.REFUTED


@pytest.mark.parametrize("name", ["sort", "argmax", "eigh", "svd"])
def test_an_operation_without_rule_is_named_with_its_line(name):
    f = {
        "sort": lambda x: jnp.sort(x),
        "argmax": lambda x: jnp.argmax(x, 0) * 1.0,
        "eigh": lambda x: jnp.linalg.eigh(x @ x.T)[0],
        "svd": lambda x: jnp.linalg.svd(x)[1],
    }[name]
    certificate = certify(f, f, x)
    assert certificate.verdict == Verdict.UNDECIDED
    assert re.search(rf"`{name}.*` at .*test_certify\.py:\d+", certificate.reason)


def test_an_operation_without_rule_does_not_hide_a_difference():
    certificate = certify(lambda x: jnp.sort(x), lambda x: 2 * jnp.sort(x), v)
    assert certificate.verdict == Verdict.REFUTED
    assert isinstance(certificate, Certificate)
