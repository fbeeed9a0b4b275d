"""Exact expectations: every way to them against a sum over all masks, and the refusal of what no
way can do.
"""

import contextlib
import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import masks
from jaxgrad.catalog import autoencoders
from jaxgrad.evidence.expectation.expectation import MOST_PROGRAMS, choose, expectation
from jaxgrad.jaxprs.versions import enable_x64
from tests.draws import fast
from tests.polynomials import (
    affine,
    cubic,
    cubic_across_rows,
    normal,
    quadratic,
    quadratic_across_rows,
    quartic,
    quintic_across_rows,
)


@pytest.fixture(autouse=True)
def double():
    with enable_x64(True):
        yield


def by_hand(f, mask, shape):
    """Sum over all masks, without any code of `expectations`."""
    draws, probabilities = map(np.asarray, mask.support(shape))
    values = np.asarray(fast(jax.vmap(lambda draw: f(mask=draw)))(draws))
    return np.tensordot(probabilities, values, axes=1)


COINS = {
    "Bernoulli": (masks.Bernoulli(0.3), 3),
    "FeatureBernoulli": (masks.FeatureBernoulli(np.array([0.2, 0.5, 0.9])), 3),
    "Patches": (masks.Patches(0.7, 2), 6),
    "GridPatches": (masks.GridPatches(0.4, image=(3, 2), patch=(1, 2)), 6),
}
OTHERS = {
    "FixedCount": (masks.FixedCount(2), 3),
    "Spans": (masks.Spans(2), 3),
    "RandomRatio": (masks.RandomRatio(0.1, 0.8), 3),
}
ALL = COINS | OTHERS


def agree(f, name, method):
    mask, columns = ALL[name]
    shape = (2, 1, columns) if columns == 3 else (2, columns)
    x = normal(*shape)
    found = expectation(f, mask, shape, method=method)(x)
    expected = by_hand(lambda mask: f(x, mask=mask), mask, shape)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
    assert abs(expected) > 1e-3


@pytest.mark.quick
@pytest.mark.parametrize("f", [quadratic, quadratic_across_rows, affine], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ALL)
def test_two_moments_give_the_expectation_of_what_is_quadratic(name, f):
    agree(f, name, "moments")


@pytest.mark.parametrize(
    "f", [quadratic, quadratic_across_rows, cubic, cubic_across_rows], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("name", COINS)
def test_coins_give_the_expectation_of_what_is_cubic(name, f):
    agree(f, name, "coins")


@pytest.mark.parametrize("f", [quartic, quintic_across_rows], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["FeatureBernoulli", "Patches"])
def test_coins_give_the_expectation_of_any_degree(name, f):
    agree(f, name, "coins")


@pytest.mark.parametrize(
    "f", [quadratic, cubic, quartic, lambda x, mask: jnp.sum(jnp.exp((mask * x).sum(-1)))]
)
@pytest.mark.parametrize("name", ALL)
def test_rows_give_the_expectation_of_any_sum_over_rows(name, f):
    agree(f, name, "rows")


@pytest.mark.quick
@pytest.mark.parametrize("f", [quadratic, cubic, quartic], ids=lambda f: f.__name__)
def test_a_random_ratio_is_a_mixture_of_coins_where_rows_do_not_meet(f):
    agree(f, "RandomRatio", "coins")


@pytest.mark.parametrize(
    "f", [cubic, lambda x, mask: ((mask * x).sum(-1) ** 6).sum()], ids=["cubic", "sixth"]
)
@pytest.mark.parametrize(("count", "n"), [(2, 5), (4, 4), (1, 2)])
def test_a_fixed_count_is_a_signed_mixture_of_coins_where_rows_do_not_meet(count, n, f):
    x, mask = normal(2, n), masks.FixedCount(count)
    exact = expectation(f, mask, x.shape, method="enumeration")(x)
    np.testing.assert_allclose(
        expectation(f, mask, x.shape, method="coins")(x), exact, rtol=1e-9, atol=1e-12
    )


def test_cubes_over_a_fixed_count_too_large_to_list_have_their_known_expectation():
    """E (Σ m_j)³ = k³, and E Σ_i x_i m_i (Σ_j m_j)² = k²·k/n·Σx for exactly k of n."""
    x, mask = normal(4, 60), masks.FixedCount(25)
    found = expectation(
        lambda x, mask: ((x * mask).sum(-1) * mask.sum(-1) ** 2).sum(), mask, x.shape
    )(x)
    np.testing.assert_allclose(found, 25**3 / 60 * x.sum(), rtol=1e-9)
    gradient = fast(
        jax.grad(
            lambda x: expectation(lambda x, mask: ((x * mask).sum(-1) ** 3).sum(), mask, x.shape)(x)
        )
    )(x)
    one, two, three = 25 / 60, 25 * 24 / (60 * 59), 25 * 24 * 23 / (60 * 59 * 58)
    s, squares = x.sum(-1, keepdims=True), (x**2).sum(-1, keepdims=True)
    pairs = s**2 - squares - 2 * x * (s - x)  # Σ_{j≠k, both ≠ i} x_j x_k
    expected = 3 * (one * x**2 + two * (2 * x * (s - x) + squares - x**2) + three * pairs)
    np.testing.assert_allclose(gradient, expected, rtol=1e-8)


@pytest.mark.parametrize(
    "mask", [masks.Spans(2), masks.FixedCount(2), masks.Spans(3, keep=True)], ids=str
)
@pytest.mark.parametrize("f", [cubic_across_rows, quintic_across_rows], ids=lambda f: f.__name__)
def test_rows_that_meet_are_moved_together(f, mask):
    x = normal(3, 4)
    exact = expectation(f, mask, x.shape, method="enumeration")(x)
    np.testing.assert_allclose(expectation(f, mask, x.shape, method="rows")(x), exact, rtol=1e-9)


def test_spans_whose_rows_meet_have_an_expectation_when_all_masks_are_too_many_to_list():
    x, mask = normal(20, 12), masks.Spans(4)
    found = expectation(lambda x, mask: (mask * x).sum() ** 3, mask, x.shape)(x)
    rows, weights = mask.support((12,))
    sums = x @ rows.T  # one column for each place of the span
    mean = sums @ weights
    second, third = (((sums - mean[:, None]) ** d @ weights).sum() for d in (2, 3))
    np.testing.assert_allclose(found, mean.sum() ** 3 + 3 * mean.sum() * second + third, rtol=1e-9)


def test_the_moments_of_normal_noise_give_known_expectations():
    """With m_j = 1 + σ z_j: E (Σ m_j x_j)² = (Σx)² + σ²Σx², E (…)⁴ = s⁴ + 6s²v + 3v², E m⁵ = 1 +
    10σ² + 15σ⁴.
    """
    x, variance = normal(3, 4), 0.3
    mask = masks.MultiplicativeGaussian(variance)
    s, v = x.sum(-1), variance * (x**2).sum(-1)
    for power, expected in (
        (2, s**2 + v),
        (3, s**3 + 3 * s * v),
        (4, s**4 + 6 * s**2 * v + 3 * v**2),
    ):
        found = expectation(
            lambda x, mask, power=power: (mask * x).sum(-1) ** power, mask, x.shape
        )(x)
        np.testing.assert_allclose(found, expected, rtol=1e-10)
    found = expectation(lambda mask: mask**5, mask, x.shape)()
    np.testing.assert_allclose(
        found, np.full(x.shape, 1 + 10 * variance + 15 * variance**2), rtol=1e-10
    )


@pytest.mark.parametrize("name", ["FixedCount", "Spans"])
def test_the_moments_that_a_mask_states_are_what_its_expectations_are_made_of(name):
    """A wrong second moment shows: `moments` is independent of the list of masks, and the other
    ways of the moments.
    """
    mask, _ = OTHERS[name]

    class Wrong(type(mask)):
        def second_moment(self, n):
            return super().second_moment(n) + 0.1 * jnp.eye(n)

    wrong, x = Wrong(2), normal(2, 3)
    right = by_hand(lambda mask: quadratic(x, mask), mask, (2, 3))
    assert float(expectation(quadratic, wrong, (2, 3), method="moments")(x)) != pytest.approx(
        right, rel=1e-3
    )
    for method in ("enumeration", "rows"):
        assert float(expectation(quadratic, wrong, (2, 3), method=method)(x)) == pytest.approx(
            right, rel=1e-12
        )


# --- sizes at which nothing can be enumerated


@pytest.mark.parametrize(
    "mask",
    [
        masks.Bernoulli(0.6),
        masks.Patches(0.6, 4),
        masks.FixedCount(20),
        masks.Spans(7),
        masks.RandomRatio(0.2, 0.9),
    ],
    ids=lambda mask: type(mask).__name__,
)
def test_the_masked_autoencoder_has_its_expected_gradient_at_sizes_beyond_enumeration(mask):
    x, w1, w2 = normal(30, 40), normal(5, 40), normal(40, 5)
    slopes = jax.grad(expectation(autoencoders.masked_loss, mask, x.shape), argnums=(1, 2))
    found = dict(zip(("w1", "w2"), fast(slopes)(x, w1, w2), strict=True))
    claimed = autoencoders.masked_expected_gradient(x, w1, w2, mask)
    for name in claimed:
        largest = np.abs(claimed[name]).max()
        np.testing.assert_allclose(found[name], claimed[name], rtol=0, atol=1e-11 * largest)


@pytest.mark.quick
def test_a_relu_network_is_enumerated_row_by_row():
    x, w = normal(64, 8), normal(8, 5, seed=1)

    def loss(w, mask):
        return jnp.mean((jax.nn.relu((mask * x) @ w).sum(-1) - 1) ** 2)

    found = expectation(loss, masks.Bernoulli(0.3), x.shape)(w)
    rows = (np.arange(256)[:, None] >> np.arange(8)) & 1
    chance = np.prod(np.where(rows == 1, 0.3, 0.7), axis=1)
    values = (np.maximum((rows[:, None] * x) @ w, 0).sum(-1) - 1) ** 2
    assert float(found) == pytest.approx(float(chance @ values.mean(1)), rel=1e-12)


def test_the_cost_does_not_grow_with_the_rows_where_they_do_not_meet():
    mask = masks.Bernoulli(0.5)
    counts = [choose(quadratic, mask, (m, 20), (normal(m, 20),)).count for m in (10, 1000)]
    assert counts[0] == counts[1] == 41
    assert choose(quadratic, masks.FixedCount(10), (1000, 20), (normal(1000, 20),)).count == 81
    assert choose(quadratic_across_rows, mask, (100, 20), (normal(100, 20),)).count == 1 + 2 * 2000


# --- transformations


def test_an_expectation_differentiates_in_probabilities_as_the_sum_over_all_masks_does():
    x = normal(2, 3)
    for make, f in (
        (masks.Bernoulli, cubic),
        (lambda p: masks.RandomRatio(0.1, p), quadratic),
        (lambda p: masks.Patches(p, 3), quartic),
    ):
        found = fast(jax.grad(lambda p, make=make, f=f: expectation(f, make(p), (2, 3))(x)))(0.4)

        def listed(p, make=make, f=f):
            draws, probabilities = make(p).support((2, 3))
            return jnp.sum(probabilities * jax.vmap(lambda draw: f(x, mask=draw))(draws))

        assert float(found) == pytest.approx(float(fast(jax.grad(listed))(0.4)), rel=1e-10)
    for method in ("rows", "coins", "moments"):
        one = fast(
            jax.grad(
                lambda p, method=method: expectation(
                    quadratic, masks.Bernoulli(p), (2, 3), method=method
                )(x)
            )
        )(0.4)
        two = fast(
            jax.grad(
                lambda p: expectation(quadratic, masks.Bernoulli(p), (2, 3), method="enumeration")(
                    x
                )
            )
        )(0.4)
        assert float(one) == pytest.approx(float(two), rel=1e-10)


def test_an_expectation_differentiates_at_the_ends_of_the_interval_of_probabilities():
    for p in (0.0, 1.0):
        slope = fast(
            jax.grad(
                lambda p: expectation(lambda mask: jnp.sum(mask) ** 2, masks.Bernoulli(p), (20,))()
            )
        )(p)
        assert float(slope) == pytest.approx(20 + 2 * 20 * 19 * p, rel=1e-12)


@contextlib.contextmanager
def compilations():
    """List what XLA compiles meanwhile."""
    compiled = []

    def listen(event, _, **__):
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_an_expectation_is_one_program_compiled_anew_when_what_its_function_reads_changes():
    weight, x = [2.0], normal(4, 5)
    expected = expectation(
        lambda x, mask: weight[0] * jnp.sum((mask @ x.T) ** 2), masks.Bernoulli(0.3), x.shape
    )
    with compilations() as compiled:
        twice = float(expected(x))
        assert len(compiled) == 1
        assert float(expected(x)) == twice
        assert len(compiled) == 1
    weight[0] = 6.0
    np.testing.assert_allclose(expected(x), 3 * twice, rtol=1e-14)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Asking(masks.Bernoulli):
    """Coins that ask for the value of their probability."""

    def support(self, shape):
        assert 0 <= float(self.prob) <= 1
        return super().support(shape)


def test_a_mask_that_asks_for_the_value_of_a_leaf_has_an_expectation():
    found = expectation(lambda mask: jnp.exp(mask.sum()), Asking(0.3), (4,))()
    np.testing.assert_allclose(found, (0.7 + 0.3 * math.e) ** 4, rtol=1e-12)


def test_numbers_that_change_from_call_to_call_are_compiled_a_few_times_at_most():
    expected = expectation(
        lambda factor, mask: factor * mask.sum() ** 2, masks.Bernoulli(0.5), (3,)
    )
    many = MOST_PROGRAMS + 6
    with compilations() as compiled:
        found = [float(expected(float(factor))) for factor in range(many)]
    assert found == [3.0 * factor for factor in range(many)]
    one_by_one = len(compiled) - MOST_PROGRAMS
    with compilations() as compiled:
        assert float(expected(100.0)) == 300.0
    assert not compiled and one_by_one < 40


def test_known_probabilities_are_not_folded_into_a_program_while_it_is_compiled():
    """XLA takes seconds for the products of 2^18 probabilities, and a moment if they are computed
    when the program runs.
    """
    program = jax.jit(lambda: masks.Bernoulli(0.3).support((10,))[1]).lower().compile().as_text()
    assert "f64[1024]" in program
    assert not re.search(r"f64\[1024\]\S* constant", program)


@pytest.mark.quick
def test_an_expectation_composes_with_jit_vmap_jvp_and_second_derivatives():
    x = normal(5, 6)
    expected = expectation(quadratic, masks.FixedCount(2), x.shape)
    gradient = fast(jax.grad(expected))
    value, slope = expected(x), gradient(x)
    np.testing.assert_allclose(fast(expected)(x), value, rtol=1e-12)
    np.testing.assert_allclose(
        fast(jax.vmap(expected))(jnp.stack([x, 2 * x]))[0], value, rtol=1e-12
    )
    direction = normal(5, 6, seed=3)
    along = fast(lambda x, d: jax.jvp(expected, (x,), (d,))[1])(x, direction)
    np.testing.assert_allclose(along, jnp.sum(slope * direction), rtol=1e-10)
    curved = fast(lambda x, d: jax.jvp(jax.grad(expected), (x,), (d,))[1])(x, direction)
    step = 1e-4
    np.testing.assert_allclose(
        curved,
        (gradient(x + step * direction) - gradient(x - step * direction)) / 2 / step,
        rtol=1e-5,
        atol=1e-8,
    )


def test_a_loop_over_batches_gives_what_one_batch_gives():
    """130 coins are 261 masks, more than go into one batch."""
    x = normal(130)
    found = expectation(
        lambda x, mask: {"square": jnp.sum(mask * x) ** 2, "vector": mask * x},
        masks.Bernoulli(0.3),
        (130,),
    )(x)
    np.testing.assert_allclose(
        found["square"], (0.3 * x.sum()) ** 2 + 0.21 * (x**2).sum(), rtol=1e-10
    )
    np.testing.assert_allclose(found["vector"], 0.3 * x, rtol=1e-10, atol=1e-12)


def test_other_arguments_may_be_trees_keywords_and_numbers():
    def f(tree, power, *, scale, mask):
        return scale * jnp.sum((mask * tree["x"][0]) ** power)

    found = expectation(f, masks.Bernoulli(0.25), (30, 2))(
        {"x": [np.ones((30, 2))]}, 2, scale=jnp.asarray(2.0)
    )
    assert float(found) == pytest.approx(2 * 60 * 0.25)


def test_a_gradient_of_the_loss_can_be_averaged_too():
    x, w1, w2, mask = normal(30, 20), normal(4, 20), normal(20, 4), masks.Bernoulli(0.5)
    gradient = expectation(jax.grad(autoencoders.masked_loss, argnums=1), mask, x.shape)(x, w1, w2)
    claimed = autoencoders.masked_expected_gradient(x, w1, w2, mask)["w1"]
    np.testing.assert_allclose(gradient, claimed, rtol=0, atol=1e-11 * np.abs(claimed).max())
