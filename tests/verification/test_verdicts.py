"""Right claims are confirmed, wrong ones refuted, and where neither can be known verify holds
back.
"""

import jax
import jax.numpy as jnp
import pytest

import jaxgrad as jg
from jaxgrad import Verdict, masks
from tests.verdict_claims import HELD_BACK, RIGHT, VACUOUS, WRONG, claim, twice_badly


def by_name(claims):
    return pytest.mark.parametrize("derivation", claims, ids=lambda d: d.name)


@by_name(RIGHT)
def test_a_right_closed_form_is_confirmed_and_never_refuted_by_any_evidence(derivation):
    report = jg.verify(derivation)
    assert report.verdict == Verdict.CONFIRMED, str(report)
    assert all(finding.verdict != Verdict.REFUTED for finding in report.findings)
    assert not report.warnings


@by_name(WRONG)
def test_a_wrong_closed_form_is_refuted(derivation):
    report = jg.verify(derivation)
    assert report.verdict == Verdict.REFUTED, str(report)
    with pytest.raises(AssertionError, match="refuted"):
        report.assert_confirmed()


@by_name(HELD_BACK)
def test_where_neither_can_be_known_the_verdict_is_undecided_with_a_reason(derivation):
    report = jg.verify(derivation)
    assert report.verdict == Verdict.UNDECIDED, str(report)
    assert all(finding.detail for finding in report.findings)


@by_name(VACUOUS)
def test_a_gradient_that_is_zero_by_construction_is_confirmed_only_with_a_warning(derivation):
    report = jg.verify(derivation)
    assert report.verdict == Verdict.CONFIRMED, str(report)
    assert any("vacuous" in warning for warning in report.warnings)


@pytest.mark.parametrize("by", [1e12, 1e13, 1e14, 1e15, 1e17])
@pytest.mark.parametrize("seed", range(3))
def test_a_gradient_that_rounding_hides_whole_is_not_taken_for_zero(by, seed):
    three_times = lambda x: {"x": 6 * (x - jnp.mean(x)) / x.size}
    in_the_loss = claim("hidden", lambda x: jnp.var(x + by), three_times, {"x": "n"})
    in_the_closed_form = claim(
        "hidden too",
        lambda x: jnp.var(x),
        lambda x: {"x": 6 * ((x + by) - jnp.mean(x + by)) / x.size},
        {"x": "n"},
    )
    for wrong in (in_the_loss, in_the_closed_form):
        report = jg.verify(wrong, seed=seed)
        assert report.verdict != Verdict.CONFIRMED, str(report)
        assert all(finding.verdict != Verdict.CONFIRMED for finding in report.findings)


@pytest.mark.parametrize("by", [1e6, 1e8, 1e10, 1e13, 1e15, 1e17])
@pytest.mark.parametrize("chance", [0.4, 0.02])
def test_sampling_raises_no_alarm_where_rounding_takes_the_gradient(by, chance):
    # XLA's algebraic simplification takes the shift away again; the sampling loop goes without it
    shapes, mask = {"w": "n", "mask": "n"}, masks.Bernoulli(chance)
    taken = claim(
        "taken",
        lambda w, mask: jnp.sum((mask * w + by - by) ** 2),
        lambda w, mask: {"w": 2 * mask.prob * w},
        shapes,
        mask=mask,
    )
    report = jg.verify(taken, max_samples=2**14)
    assert report.verdict == Verdict.CONFIRMED, str(report)
    assert all(finding.verdict != Verdict.REFUTED for finding in report.findings), str(report)

    def of_the_variance(w, mask):
        p, n = mask.prob, w.size
        return {"w": 2 * p * w / n - (2 * p**2 * w.sum() + 2 * p * (1 - p) * w) / n**2}

    lost = claim("lost", lambda w, mask: jnp.var(mask * w + by), of_the_variance, shapes, mask=mask)
    assert jg.verify(lost, evidence="monte_carlo", max_samples=2**14).verdict != Verdict.REFUTED


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_a_gradient_that_cancels_to_zero_is_confirmed_by_a_proof_and_by_no_floating_point(scale):
    zero = lambda x: {"x": jnp.zeros_like(x)}
    right = claim("sums to one", lambda x: scale * jnp.sum(jax.nn.softmax(x)), zero, {"x": "n"})
    report = jg.verify(right)
    assert [f.evidence for f in report.findings if f.verdict == Verdict.CONFIRMED] == [
        "certificate"
    ], str(report)
    assert any("vacuous" in warning for warning in report.warnings)


HIDDEN = {
    "twice a softmax of what has lost x": (
        lambda x: jax.nn.logsumexp(x + 1e30),
        lambda x: 2 * jax.nn.softmax(x),
        "real",
    ),
    "x in a softmax of what has lost it": (
        lambda x: jax.nn.logsumexp(x + 1e15),
        lambda x: jax.nn.softmax(x) + x,
        "real",
    ),
    "zero for a saturated sigmoid": (
        lambda x: jnp.sum(jax.nn.sigmoid(1e8 * x)),
        jnp.zeros_like,
        "real",
    ),
    "zero for a saturated tanh": (lambda x: jnp.sum(jnp.tanh(1e12 * x)), jnp.zeros_like, "real"),
    "zero for a saturated tanh aside": (
        lambda x: jnp.sum(jnp.tanh(1e12 * x - 3e11)),
        jnp.zeros_like,
        "real",
    ),
    "zero for a square of what has lost x": (
        lambda x: jnp.sum((x + 1e30 - 1e30) ** 2),
        jnp.zeros_like,
        "real",
    ),
    "1.01 for a difference of equals": (
        lambda x: jnp.sum(x / (x + 1e-30)),
        lambda x: 1.01e-30 / (x + 1e-30) ** 2,
        "positive",
    ),
    "y that is lost for an input that does not matter": (
        lambda x: jnp.sum(0 * x) + 1.0,
        lambda x: (x + 1e30) - 1e30,
        "real",
    ),
    "a dead ReLU for an input that does not matter": (
        lambda x: jnp.sum(0 * x) + 1.0,
        lambda x: jax.nn.relu(x - 50),
        "real",
    ),
    "2x for what wiggles below one ulp": (
        lambda x: jnp.sum(x**2 + jnp.sin(1e18 * x) / 1e18),
        lambda x: 2 * x,
        "real",
    ),
    "2x for what wiggles below one step": (
        lambda x: jnp.sum(x**2 + jnp.sin(1e10 * x) / 1e10),
        lambda x: 2 * x,
        "real",
    ),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", HIDDEN)
def test_what_no_value_shows_is_never_confirmed(name, masked):
    loss, gradient, domain = HIDDEN[name]
    if masked:  # the mask weighs the loss, with a mean of 1
        wrong = claim(
            name,
            lambda x, mask: loss(x) * jnp.mean(mask) / 0.3,
            lambda x, mask: {"x": gradient(x)},
            {"x": "n", "mask": "k n"},
            mask=masks.Bernoulli(0.3),
            domains={"x": domain},
        )
    else:
        wrong = claim(name, loss, lambda x: {"x": gradient(x)}, {"x": "n"}, domains={"x": domain})
    report = jg.verify(wrong, max_samples=2**12)
    assert report.verdict != Verdict.CONFIRMED, str(report)
    assert not any(
        f.verdict == Verdict.CONFIRMED and f.evidence != "differences" for f in report.findings
    ), str(report)
    alone = jg.verify(wrong, evidence="differences")
    assert alone.verdict != Verdict.CONFIRMED, str(alone)


@pytest.mark.parametrize("frequency", [1e4, 1e6, 1e9, 1e12, 3e14, 1e18])
@pytest.mark.parametrize("seed", range(2))
def test_a_loss_that_varies_over_less_than_a_step_of_differences_raises_no_alarm(frequency, seed):
    for loss, gradient in (
        (lambda x: jnp.sum(jnp.sin(frequency * x)), lambda x: frequency * jnp.cos(frequency * x)),
        (
            lambda x: jnp.sum(x**2 + jnp.sin(frequency * x) / frequency),
            lambda x: 2 * x + jnp.cos(frequency * x),
        ),
    ):
        report = jg.verify(
            claim("wiggles", loss, lambda x, gradient=gradient: {"x": gradient(x)}, {"x": "n"}),
            seed=seed,
        )
        assert report.verdict == Verdict.CONFIRMED, str(report)
        assert all(finding.verdict != Verdict.REFUTED for finding in report.findings), str(report)


def test_a_wrong_rule_in_the_loss_does_not_refute_a_right_closed_form():
    right = claim(
        "square by a wrong rule",
        lambda x: jnp.sum(twice_badly(x)),
        lambda x: {"x": 2 * x},
        {"x": "n"},
    )
    report = jg.verify(right)
    found = {finding.evidence: finding for finding in report.findings}
    assert report.verdict == Verdict.CONFIRMED
    assert (
        found["autodiff"].verdict == Verdict.UNDECIDED
        and "rule is wrong" in found["autodiff"].detail
    )
    assert found["differences"].verdict == Verdict.CONFIRMED


@pytest.mark.parametrize(
    ("loss", "gradient", "verdict"),
    [
        (lambda x: jax.nn.logsumexp(x), lambda x: 0.5 * jax.nn.softmax(x), Verdict.REFUTED),
        (lambda x: jax.nn.logsumexp(x), jax.nn.softmax, Verdict.CONFIRMED),
        (lambda x: jnp.sum(x * jax.lax.stop_gradient(x)), lambda x: x, Verdict.UNDECIDED),
        (lambda x: jnp.sum(x * jax.lax.stop_gradient(x)), lambda x: 3 * x, Verdict.UNDECIDED),
    ],
    ids=[
        "half of log-sum-exp's",
        "log-sum-exp's",
        "as autodiff gives it",
        "neither the slope nor autodiff's",
    ],
)
def test_differences_judge_where_stop_gradient_changes_no_gradient_and_nowhere_else(
    loss, gradient, verdict
):
    """JAX's own log-sum-exp uses stop_gradient."""
    made = claim("stopped", loss, lambda x: {"x": gradient(x)}, {"x": "n"})
    found = {finding.evidence: finding for finding in jg.verify(made).findings}
    assert found["differences"].verdict == verdict
    told = "not meant to be the slope" in found["differences"].detail
    assert told == (verdict == Verdict.UNDECIDED)


def test_a_kink_is_named_with_its_one_sided_derivatives():
    absolute = next(c for c in RIGHT if c.name == "absolute value")
    autodiff = jg.verify(absolute, evidence="autodiff").findings[0]
    assert "one-sided derivatives -1 and 1" in autodiff.detail


@pytest.mark.parametrize("factor", [1e-9, 1e9])
@pytest.mark.parametrize("name", jg.catalog.get("autoencoder").shapes.keys() & {"w1"})
def test_scaling_the_loss_changes_no_verdict(factor, name):
    plain = jg.catalog.get("masked_autoencoder_bernoulli")

    def scaled(wrong):
        return jg.Derivation(
            name="scaled",
            loss=lambda **inputs: factor * plain.loss(**inputs),
            gradient=lambda **inputs: {name: wrong * factor * plain.gradient(**inputs)[name]},
            shapes=plain.shapes,
            mask=plain.mask,
        )

    assert jg.verify(scaled(1.0)).verdict == Verdict.CONFIRMED
    report = jg.verify(scaled(1.05))
    assert {finding.verdict for finding in report.findings} == {Verdict.REFUTED}


@pytest.mark.parametrize("seed", range(1, 6))
def test_verdicts_do_not_hang_on_the_seed(seed):
    for derivation in (RIGHT[5], RIGHT[8], RIGHT[11]):
        assert jg.verify(derivation, seed=seed).verdict == Verdict.CONFIRMED, derivation.name
    for derivation in (WRONG[0], WRONG[6], WRONG[9]):
        assert jg.verify(derivation, seed=seed).verdict == Verdict.REFUTED, derivation.name


@jax.custom_vjp
def third(x):
    return jnp.mean(x)


third.defvjp(lambda x: (jnp.mean(x), x), lambda x, ct: (ct * jnp.ones_like(x) / 3,))


@jax.custom_jvp
def through_a_clip(x):
    return jnp.clip(x, -1.5, 1.5)


through_a_clip.defjvp(lambda primals, tangents: (jnp.clip(primals[0], -1.5, 1.5), tangents[0]))


@jax.custom_jvp
def clipped(x):
    return jnp.clip(x, -1.5, 1.5)


clipped.defjvp(
    lambda primals, tangents: (
        jnp.clip(primals[0], -1.5, 1.5),
        tangents[0] * (jnp.abs(primals[0]) < 1.5),
    )
)


@pytest.mark.parametrize("seed", range(4))
def test_a_rule_that_is_wrong_at_other_sizes_or_at_few_points_is_not_believed(seed):
    copied = claim("third", lambda x: third(x), lambda x: {"x": jnp.ones_like(x) / 3}, {"x": "n"})
    straight = claim(
        "straight",
        lambda x: jnp.sum(through_a_clip(x)),
        lambda x: {"x": jnp.ones_like(x)},
        {"x": "n"},
    )
    for wrong in (copied, straight):
        assert jg.verify(wrong, seed=seed).verdict == Verdict.REFUTED
    right = claim(
        "clipped",
        lambda x: jnp.sum(clipped(x)),
        lambda x: {"x": 1.0 * (jnp.abs(x) < 1.5)},
        {"x": "n"},
    )
    report = jg.verify(right, seed=seed)
    assert report.verdict == Verdict.CONFIRMED, str(report)
    assert all(finding.verdict != Verdict.REFUTED for finding in report.findings)


@jax.custom_jvp
def quick(x):
    return jnp.sin(1e6 * x)


quick.defjvp(
    lambda primals, tangents: (quick(primals[0]), 1e6 * jnp.cos(1e6 * primals[0]) * tangents[0])
)


@pytest.mark.parametrize("seed", [1, 2])
def test_differences_do_not_refute_what_autodiff_gives_without_the_rules_of_the_loss(seed):
    right = claim(
        "quick", lambda x: jnp.sum(quick(x)), lambda x: {"x": 1e6 * jnp.cos(1e6 * x)}, {"x": "n"}
    )
    report = jg.verify(right, seed=seed)
    assert all(finding.verdict != Verdict.REFUTED for finding in report.findings), str(report)
