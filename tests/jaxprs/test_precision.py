"""Numpy arrays as constants of functions that are traced in both precisions."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad import Derivation, Verdict
from jaxgrad.jaxprs.precision import Canonical, in_precision

pytestmark = pytest.mark.quick

A_THIRD = 1 / 3


def claim(weights, factor=1.0):
    return Derivation(
        name="weighted",
        loss=lambda x: jnp.sum(weights * x**2),
        gradient=lambda x: {"x": factor * 2 * weights * x},
        shapes={"x": "3"},
    )


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, "confirmed"), (1 + 1e-9, "refuted"), (2.0, "refuted")]
)
def test_a_loss_with_a_numpy_constant_is_judged_after_it_ran_in_float32(factor, verdict):
    weights = np.array([1e6, A_THIRD, 1e-3])
    subject = claim(weights, factor)
    step = jax.jit(jax.grad(subject.loss))
    kept = jax.make_jaxpr(subject.loss)(np.ones(3, np.float32))
    assert step(np.ones(3, np.float32)).dtype == np.float32
    report = jg.verify(subject)
    assert report.verdict == verdict
    assert [f.verdict for f in report.findings if f.evidence == "autodiff"] == [verdict]
    assert step(2 * np.ones(3, np.float32)).dtype == np.float32
    assert kept.consts[0].dtype == np.float32


def test_after_a_verification_the_constant_is_float32_again_where_that_is_the_default():
    weights = np.array([1.0, 2.0, 3.0])
    report = jg.verify(subject := claim(weights))
    assert report.verdict == Verdict.CONFIRMED
    assert (jnp.ones(3, jnp.float32) * weights).dtype == np.float32
    assert subject.loss(jnp.ones(3, jnp.float32)).dtype == np.float32


def test_each_precision_has_its_own_constant_with_all_its_digits():
    weights = np.array([A_THIRD])
    programs = {}
    for double in (True, False, True, False):
        with in_precision(double):
            programs[double] = jax.make_jaxpr(lambda x: weights * x)(
                np.ones(1, float if double else np.float32)
            )
            (constant,) = programs[double].consts
            assert constant.dtype == (np.float64 if double else np.float32)
            assert constant[0] == (A_THIRD if double else np.float32(A_THIRD))


def test_a_certificate_and_a_sampled_gradient_take_the_constant_in_their_precision():
    weights = np.array([A_THIRD, 2.0, 3.0])

    def loss(x, mask):
        return jnp.mean((weights * mask * x) ** 2)

    kept = jax.make_jaxpr(loss)(np.ones(3, np.float32), np.ones(3, np.float32))
    expected = jg.Derivation(
        name="masked",
        loss=loss,
        gradient=lambda x, mask: {"x": 2 / 3 * weights**2 * x * mask.mean(3)},
        shapes={"x": "3", "mask": "3"},
        mask=jg.masks.Bernoulli(0.5),
    )
    report = jg.verify(expected)
    assert {f.verdict for f in report.findings} == {Verdict.CONFIRMED}
    assert len(report.findings) == 4
    assert kept.consts[0].dtype == np.float32


def test_arrays_are_known_again_while_they_live_and_forgotten_then():
    made = []

    class Kept(np.ndarray):
        pass

    def kind(array):
        made.append(array.dtype)
        return array.copy().view(Kept)

    canonical = Canonical(kind)
    array = np.zeros(2)
    with in_precision(False):
        first, again = canonical(array), canonical(array)
        assert first is again
        with in_precision(True):
            assert canonical(array) is not first
        assert canonical(np.zeros(2)) is not first
    assert made == [np.float32, np.float64, np.float32]
    assert len(canonical._known) == 1  # what nobody holds is gone
    del array, first, again
    gc.collect()
    assert not canonical._known
