"""Proofs about losses that use stop_gradient, as JAX's own log-sum-exp does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad import Derivation, Verdict
from jaxgrad.jaxprs.programs import equations, has_stop_gradient
from jaxgrad.jaxprs.traced import TracedOnce, Unstopped
from jaxgrad.jaxprs.versions import enable_x64

stop = jax.lax.stop_gradient


def cross_entropy(z, y):
    return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(z), -1))


def straight_through(x):
    """A hyperbolic tangent that is differentiated as the identity."""
    return jnp.sum((x + stop(jnp.tanh(x) - x)) ** 2)


def proof_of(loss, gradient, shapes, **more):
    """Return what the certificate alone finds, of the only array."""
    (finding,) = jg.verify(
        Derivation(name="c", loss=loss, gradient=gradient, shapes=shapes, **more),
        evidence="certificate",
    ).findings
    return finding


def of_labels(gradient):
    return proof_of(
        cross_entropy,
        lambda z, y: {"z": gradient(jax.nn.softmax(z), y)},
        {"z": "m n", "y": "m n"},
        domains={"y": "simplex"},
    )


WRONG = {
    "without the mean": (lambda p, y: p - y, "m times"),
    "with the wrong sign": (lambda p, y: (y - p) / len(p), "minus the gradient"),
    "squared": (lambda p, y: (p**2 - y) / len(p), ""),
    "twice": (lambda p, y: 2 * (p - y) / len(p), "2 times"),
}


@pytest.mark.parametrize(("gradient", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_gradient_of_the_cross_entropy_is_refuted_by_proof_alone_and_its_factor_is_exact(
    gradient, words
):
    finding = of_labels(gradient)
    assert finding.verdict == Verdict.REFUTED
    assert words in finding.diagnosis
    assert ("exact in finite fields" in finding.diagnosis) == bool(words)


def test_the_right_gradient_of_the_cross_entropy_is_proved():
    assert of_labels(lambda p, y: (p - y) / len(p)).verdict == Verdict.CONFIRMED


READINGS = {
    "what autodiff gives": (lambda x: 2 * jnp.tanh(x), "confirmed", "proved"),
    "the slope": (
        lambda x: 2 * jnp.tanh(x) * (1 - jnp.tanh(x) ** 2),
        "undecided",
        "the closed form is the slope of its value",
    ),
    "neither": (lambda x: 3 * jnp.tanh(x), "refuted", "at n=3"),
    "a multiple of the slope": (
        lambda x: 4 * jnp.tanh(x) * (1 - jnp.tanh(x) ** 2),
        "refuted",
        "at n=3",
    ),
}


@pytest.mark.parametrize(("gradient", "verdict", "words"), READINGS.values(), ids=READINGS)
def test_a_stop_gradient_may_be_meant_or_not_and_what_is_wrong_either_way_is_wrong(
    gradient, verdict, words
):
    finding = proof_of(straight_through, lambda x: {"x": gradient(x)}, {"x": "n"})
    assert finding.verdict == verdict
    assert words in finding.detail


def test_of_two_arrays_each_is_read_both_ways():
    def loss(x, y):
        return jnp.sum(x * stop(x)) + jnp.sum(y**2)

    claim = Derivation(
        name="c",
        loss=loss,
        gradient=lambda x, y: {"x": 2 * x, "y": 3 * y},
        shapes={"x": "n", "y": "n"},
    )
    assert [f.verdict for f in jg.verify(claim, evidence="certificate").findings] == [
        Verdict.UNDECIDED,
        Verdict.REFUTED,
    ]


LOOPED = {
    "what autodiff gives": (1, "confirmed"),
    "the slope": (2, "undecided"),
    "neither": (3, "refuted"),
}


@pytest.mark.parametrize(("factor", "verdict"), LOOPED.values(), ids=LOOPED)
def test_a_stop_gradient_inside_of_a_loop_is_read_both_ways(factor, verdict):
    def loss(x):
        return jax.lax.scan(lambda total, t: (total + stop(t) * t, None), 0.0, x)[0]

    assert proof_of(loss, lambda x: {"x": factor * x}, {"x": "n"}).verdict == verdict


def test_a_masked_loss_is_read_both_ways():
    def loss(z, y, mask):
        return -jnp.sum(y * jax.nn.log_softmax(z * mask))

    more = {"mask": jg.masks.Bernoulli(0.5), "domains": {"y": "simplex"}}
    finding = proof_of(
        loss, lambda z, y, mask: {"z": jnp.zeros_like(z)}, {"z": "n", "y": "n", "mask": "n"}, **more
    )
    assert finding.verdict == Verdict.REFUTED


def test_without_its_stops_a_function_has_the_same_values_and_the_slope_as_its_gradient():
    def f(x, w, hold=stop):
        y = jax.jit(lambda x: x * hold(jnp.sin(x)))(x)
        z = jax.lax.cond(w[0] > 0, hold, lambda w: 2 * w, w)
        total = jax.lax.scan(lambda c, t: (hold(c) * t + c, None), 1.0, x)[0] + jax.checkpoint(
            lambda x: hold(x) * x
        )(x[0])
        doubled = jax.lax.fori_loop(0, 3, lambda i, c: hold(c) * 1.5 + x[1] - x[1], x[0])
        return jnp.sum(y * jax.nn.softmax(w)) + jnp.sum(jax.nn.relu(x)) + jnp.sum(
            z * x
        ) + total + doubled, hold(x)

    x, w = np.array([0.3, -1.2, 2.0]), np.array([1.0, -0.5, 0.2])
    with enable_x64(True):
        free = Unstopped(TracedOnce(f))
        program = free.program(x, w)[0]
        assert has_stop_gradient(TracedOnce(f).program(x, w)[0]) and not has_stop_gradient(program)
        assert not any(eqn.primitive.name == "stop_gradient" for eqn in equations(program.jaxpr))
        for mine, own in zip(free(x, w), f(x, w), strict=True):
            np.testing.assert_allclose(mine, own, rtol=1e-15)
        found, expected = (
            jax.jacobian(g, (0, 1))(x, w) for g in (free, lambda x, w: f(x, w, lambda t: t))
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), found, expected)


SAMPLED = {
    "what autodiff gives": (0.7, "confirmed"),
    "the slope": (1.4, "undecided"),
    "neither": (0.9, "refuted"),
}


@pytest.mark.parametrize("evidence", [None, "monte_carlo"])
@pytest.mark.parametrize(("factor", "verdict"), SAMPLED.values(), ids=SAMPLED)
def test_sampling_leaves_the_slope_undecided_as_other_evidence_does(factor, verdict, evidence):
    claim = Derivation(
        name="c",
        loss=lambda w, mask: jnp.sum(mask * w * stop(w)),
        gradient=lambda w, mask: {"w": factor * w},
        shapes={"w": "n", "mask": "n"},
        mask=jg.masks.Bernoulli(0.7),
    )
    report = jg.verify(claim, evidence=evidence)
    assert report.verdict == verdict
    assert verdict == "refuted" or not any(f.verdict == Verdict.REFUTED for f in report.findings)


def test_a_stop_gradient_that_changes_nothing_keeps_sampling_from_nothing():
    claim = Derivation(
        name="c",
        loss=lambda w, mask: jax.nn.logsumexp(w * mask),
        gradient=lambda w, mask: {"w": jnp.zeros_like(w)},
        shapes={"w": "n", "mask": "n"},
        mask=jg.masks.Bernoulli(0.7),
    )
    assert jg.verify(claim, evidence="monte_carlo").verdict == Verdict.REFUTED
