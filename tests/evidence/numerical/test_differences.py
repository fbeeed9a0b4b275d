"""Extrapolated differences: their values, and error estimates that are honest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad.evidence.noise import random_rounding
from jaxgrad.evidence.noise.random_rounding import movement
from jaxgrad.evidence.numerical.slopes import AGREE, Prober
from jaxgrad.jaxprs.differentiation import value_and_gradient
from jaxgrad.jaxprs.programs import has_own_rules, has_stop_gradient, working_unit
from jaxgrad.jaxprs.versions import enable_x64

pytestmark = pytest.mark.quick

UNIT = 2.0**-52

SMOOTH = {
    "cubic": lambda x: jnp.sum(x**3),
    "sines": lambda x: jnp.sum(jnp.sin(3 * x) * x),
    "log sum exp": lambda x: jax.nn.logsumexp(x),
    "rational": lambda x: jnp.sum(1 / (2 + x**2)),
    "beside a large constant": lambda x: 1e6 + jnp.sum(jnp.tanh(x)),
    "tiny": lambda x: 1e-20 * jnp.sum(jnp.exp(x)),
}


def slopes(f, x):
    prober = Prober(lambda inputs: f(inputs["x"]), ("x",))
    return prober.slopes({"x": x}, np.arange(x.size), np.zeros((0, x.size)), UNIT)


@pytest.mark.parametrize("name", SMOOTH)
def test_differences_agree_with_the_derivative_within_their_own_error_estimates(name):
    with enable_x64(True):
        for seed in range(3):
            x = np.random.default_rng(seed).standard_normal(200)
            found = slopes(SMOOTH[name], x)
            exact = np.asarray(jax.grad(SMOOTH[name])(x))
            assert not found.kink.any()
            assert np.all(np.abs(found.central - exact) <= AGREE * found.central_error)
            assert np.all(np.abs(found.right - exact) <= AGREE * found.side_error)


@pytest.mark.parametrize("name", SMOOTH)
def test_error_estimates_are_small_enough_to_be_of_use(name):
    with enable_x64(True):
        x = np.random.default_rng(5).standard_normal(200)
        found = slopes(SMOOTH[name], x)
        assert np.median(found.central_error) < 1e-5 * np.abs(found.central).max()


def test_a_kink_is_told_apart_with_both_its_slopes():
    with enable_x64(True):
        found = slopes(
            lambda x: jnp.sum(jnp.maximum(x, 0) + 3 * jnp.abs(x - 1)),
            np.array([0.0, 1.0, -0.7, 0.4]),
        )
    assert found.kink.tolist() == [True, True, False, False]
    np.testing.assert_allclose(found.left, [-3, -2, -3, -2], atol=1e-8)
    np.testing.assert_allclose(found.right, [-2, 4, -3, -2], atol=1e-8)


@pytest.mark.parametrize("distance", [1e-12, 1e-9, 1e-6, 1e-4, 1e-2])
def test_a_kink_next_to_the_point_is_never_taken_for_a_smooth_slope_of_the_wrong_value(distance):
    with enable_x64(True):
        found = slopes(
            lambda x: jnp.sum(jnp.maximum(x - 1, 0)), np.array([1 + distance, 1 - distance])
        )
    near = np.abs(found.central - np.array([1.0, 0.0])) <= 1000 * found.central_error
    assert np.all(found.kink | near)


def test_random_rounding_sees_what_floating_point_absorbs():
    with enable_x64(True):
        lost = movement(lambda x: (x + 1e8) - 1e8, UNIT, 0.3)
        kept = movement(lambda x: x * 3.0, UNIT, 0.3)
    assert 1e-9 < lost < 1e-7
    assert 0 < kept < 1e-15


def test_random_rounding_runs_through_nested_programs():
    def nested(x):
        y = jax.jit(lambda a: jax.nn.relu(a) * 2)(x)
        return jax.lax.scan(lambda c, a: (c + a, None), jnp.zeros(()), jax.checkpoint(jnp.sin)(y))[
            0
        ]

    with enable_x64(True):
        moved = movement(lambda x: jax.grad(nested)(x), UNIT, np.linspace(-1, 1, 7))
    assert moved.shape == (7,) and np.all(moved < 1e-14) and moved.max() > 0


@pytest.mark.parametrize("seed", range(3))
def test_random_rounding_moves_as_much_in_numpy_as_in_a_compiled_program(seed, monkeypatch):
    x = np.random.default_rng(seed).standard_normal((6, 5))
    many = lambda x: {
        "var": jnp.var(x + 1e6),
        "relu": jax.nn.relu(x @ x.T) @ x,
        "grad": jax.grad(lambda x: jnp.sum(jnp.exp(x) ** 2))(x),
    }
    with enable_x64(True):
        in_numpy = movement(many, UNIT, x)
        monkeypatch.setattr(random_rounding, "movement_in_numpy", lambda *_, **__: None)
        compiled = movement(many, UNIT, x)
    for name, found in in_numpy.items():
        largest = np.max(compiled[name])
        assert found.shape == compiled[name].shape and largest / 8 < np.max(found) < 8 * largest


def test_random_rounding_compiles_what_numpy_would_take_long_for(monkeypatch):
    monkeypatch.setattr(random_rounding, "_LONGEST", 1)
    monkeypatch.setattr(random_rounding, "floating", lambda *_: pytest.fail("numpy was asked"))
    with enable_x64(True):
        assert 1e-9 < movement(lambda x: (x + 1e8) - 1e8, UNIT, 0.3) < 1e-7


def test_what_a_program_contains_is_seen_through_nested_calls():
    @jax.custom_jvp
    def own(x):
        return x

    own.defjvp(lambda p, t: (p[0], t[0]))
    assert has_own_rules(jax.make_jaxpr(jax.jit(lambda x: own(x)))(1.0))
    assert not has_own_rules(jax.make_jaxpr(jax.jit(jax.nn.relu))(1.0))
    assert has_stop_gradient(jax.make_jaxpr(jax.jit(lambda x: jax.lax.stop_gradient(x)))(1.0))
    assert not has_stop_gradient(jax.make_jaxpr(jnp.sin)(1.0))
    with enable_x64(True):
        assert (
            working_unit(jax.make_jaxpr(lambda x: x.astype(jnp.float32) * 2)(np.float64(1)))
            == np.finfo(np.float32).eps
        )
        assert working_unit(jax.make_jaxpr(jnp.sin)(np.float64(1))) == UNIT


def test_gradients_are_jacobians_where_the_loss_is_an_array():
    value, found = value_and_gradient(
        lambda inputs: inputs["a"] @ inputs["x"], {"a": np.eye(3, 2), "x": np.ones(2)}, ("x",)
    )
    np.testing.assert_array_equal(value, [1, 1, 0])
    np.testing.assert_array_equal(found["x"], np.eye(3, 2))


def test_a_feature_finer_than_the_coarse_steps_is_never_taken_for_flatness():
    with enable_x64(True):
        for width in (1e-2, 1e-3, 1e-4, 1e-5):
            x = np.random.default_rng(0).standard_normal(20)
            spikes = x + 0.3 * width  # every coordinate stands on the flank of a narrow bump
            f = lambda y, s=spikes, w=width: jnp.sum(jnp.exp(-(((y - s) / w) ** 2)))
            found = slopes(f, x)
            exact = np.asarray(jax.grad(f)(x))
            assert np.all(
                found.kink | (np.abs(found.central - exact) <= 1000 * found.central_error)
            ), width


def test_differences_see_errors_below_a_millionth_and_say_when_they_give_way_to_autodiff():
    def verified(loss, gradient):
        claim = jg.Derivation(
            name="c", loss=loss, gradient=lambda x: {"x": gradient(x)}, shapes={"x": "n"}
        )
        return jg.verify(claim, evidence="differences", seed=1).findings[0]

    assert (
        verified(lambda x: jnp.sum(x**2), lambda x: 2 * x * (1 + 5e-7)).verdict
        == jg.Verdict.REFUTED
    )
    quick = verified(lambda x: jnp.sum(jnp.sin(1e6 * x)), lambda x: 1e6 * jnp.cos(1e6 * x))
    assert quick.verdict == jg.Verdict.UNDECIDED
    assert "autodiff agrees with the closed form and differences do not" in quick.detail
