"""Certificates end in bounded time: what would take too long is undecided, with the remedy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import certify
from jaxgrad.jaxprs import cost
from jaxgrad.reports.finding import Verdict

TOO_LARGE = {
    "memory": (lambda a: a + a, lambda a: 2 * a, (5000, 5000)),
    "products": (lambda a: a @ a @ a, lambda a: a @ (a @ a), (1024, 1024)),
    "maximum": (lambda a: a.max(0), lambda a: -(-a).min(0), (400_000, 2)),
    "loops": (lambda a: _loop(a), lambda a: _loop(a) * 1, (2,)),
}


def _loop(a):
    return jax.lax.scan(
        lambda c, _: (jax.lax.scan(lambda c, _: (c * a + 1, None), c, None, length=2000)[0], None),
        a,
        None,
        length=2000,
    )[0]


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_takes_too_much_is_undecided_before_it_is_tried(name):
    f, g, shape = TOO_LARGE[name]
    certificate = certify(f, g, jax.ShapeDtypeStruct(shape, jnp.float32))
    assert certificate.verdict == Verdict.UNDECIDED
    assert "certify at smaller shapes" in certificate.reason
    assert certificate.draws == 0
    assert certificate.seconds < 60


def test_a_loop_of_unknown_length_is_stopped_while_it_runs(monkeypatch):
    monkeypatch.setattr(cost, "BUDGET", 3 * 10**7)

    def f(x):
        return jax.lax.while_loop(
            lambda c: c[0] < 1500, lambda c: (c[0] + 1, c[1] * x + 1), (0, x)
        )[1]

    certificate = certify(f, lambda x: x, np.ones(2))
    assert certificate.verdict != Verdict.CONFIRMED
    assert certificate.draws <= 8


def test_too_long_a_search_is_stopped_by_the_clock(monkeypatch):
    monkeypatch.setattr(cost, "SECONDS", 0.0)
    certificate = certify(lambda x: (x + 1) ** 2, lambda x: x**2 + 2 * x + 1, np.ones(2))
    assert certificate.verdict == Verdict.UNDECIDED
    assert "was not found in 0 s; certify at smaller shapes" in certificate.reason


def test_a_difference_is_still_seen_in_float64_where_no_proof_is_affordable(monkeypatch):
    monkeypatch.setattr(cost, "BUDGET", 100)
    assert certify(lambda x: x**2, lambda x: 2 * x, np.ones(2)).verdict == Verdict.REFUTED


def test_what_the_search_found_is_kept_when_it_ends_early(monkeypatch):
    f, g = jax.grad(lambda x: jnp.sum(jax.nn.relu(x) ** 2)), lambda x: 2 * jax.nn.relu(x)
    assert certify(f, g, np.ones(3)).verdict == Verdict.CONFIRMED
    monkeypatch.setattr(cost, "BUDGET", 600_000)
    certificate = certify(f, g, np.ones(3))
    assert certificate.verdict == Verdict.UNDECIDED
    assert "proves nothing about comparisons; a proof takes about" in certificate.reason


@pytest.mark.parametrize("entries", [60, 130])
def test_entries_that_depend_on_different_coins_are_proved_however_many_there_are(entries):
    certificate = certify(
        jax.grad(lambda x: jnp.sum(jnp.logaddexp(x, 0))), jax.nn.sigmoid, np.ones(entries)
    )
    assert certificate.verdict == Verdict.CONFIRMED
    assert certificate.coins == 1
    assert certificate.error_probability < 2.0**-100


def test_a_difference_that_hangs_on_a_late_coin_is_not_proved():
    def wrong(x):
        y = jax.nn.sigmoid(x)
        return jnp.where(x[97] > 0, y, jnp.where(x[98] > 0, y, y + 1e-9 * x))

    assert (
        certify(jax.grad(lambda x: jnp.sum(jnp.logaddexp(x, 0))), wrong, np.ones(100)).verdict
        != Verdict.CONFIRMED
    )


@pytest.mark.parametrize("shape", [(40, 40), (3, 7, 7)])
def test_inverses_of_larger_matrices_are_proved(shape):
    a = jax.ShapeDtypeStruct(shape, jnp.float32)
    certificate = certify(
        jnp.linalg.inv, lambda a: jnp.linalg.inv(a.swapaxes(-1, -2)).swapaxes(-1, -2), a
    )
    assert certificate.verdict == Verdict.CONFIRMED
    assert (
        certify(jnp.linalg.inv, lambda a: jnp.linalg.inv(a.swapaxes(-1, -2)), a).verdict
        == Verdict.REFUTED
    )
