"""verify() of expected gradients: which way the exact expectation goes, and that its verdicts are
right at every size.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad import masks
from jaxgrad.reports.finding import Verdict

AUTOENCODER = jg.catalog.get("masked_autoencoder_bernoulli")
X = np.random.default_rng(0).standard_normal((40, 24))


def exact(claim, **options):
    report = jg.verify(claim, evidence="expectation", **options)
    assert all(finding.evidence == "expectation" for finding in report.findings)
    return report


def off_by(claim, factor):
    def gradient(**inputs):
        return {name: factor * array for name, array in claim.gradient(**inputs).items()}

    return replace(claim, gradient=gradient)


MASKS = {
    "coins": masks.Bernoulli(0.6),
    "rows of few patches": masks.GridPatches(0.6, image=(4, 6), patch=(2, 3)),
    "rows": masks.Spans(5),
    "moments": masks.FixedCount(12),
    "coins of a mixture": masks.RandomRatio(0.2, 0.9),
    "coins that are normal": masks.MultiplicativeGaussian(0.5),
}


@pytest.mark.parametrize("way", MASKS)
def test_data_too_large_for_enumeration_are_judged_exactly(way):
    claim = replace(AUTOENCODER, mask=MASKS[way])
    report = exact(claim, inputs={"x": X})
    assert report.verdict == Verdict.CONFIRMED
    assert f"expectation by {way.split()[0]}" in report.findings[0].detail
    assert ("moments that the mask states" in report.findings[0].detail) == (way == "moments")
    assert max(finding.detectable for finding in report.findings) < 1e-9
    assert exact(off_by(claim, 1 + 1e-6), inputs={"x": X}).verdict == Verdict.REFUTED


@pytest.mark.parametrize(
    "mask",
    [
        lambda n: masks.Spans(2),
        lambda n: masks.RandomRatio(0.2, 0.9),
        lambda n: masks.FixedCount(1),
    ],
)
def test_at_sizes_that_are_free_all_masks_are_enumerated(mask):
    report = exact(replace(AUTOENCODER, mask=mask))
    assert report.verdict == Verdict.CONFIRMED
    assert "expectation by enumeration" in report.findings[0].detail


class Wrong(masks.FixedCount):
    """A mask that states a second moment which is not its own."""

    def second_moment(self, n):
        mean = self.mean(n)
        return jnp.where(np.eye(n, dtype=bool), mean, mean[:, None] * mean)


class WrongCoins(masks.Bernoulli):
    """Coins that are said not to be their own squares."""

    def second_moment(self, n):
        return self.mean(n)[:, None] * self.mean(n)


def test_a_mask_that_states_a_wrong_second_moment_does_not_confirm_the_claim_made_of_it():
    assert exact(replace(AUTOENCODER, mask=lambda n: Wrong(1))).verdict == Verdict.REFUTED
    assert (
        exact(replace(AUTOENCODER, mask=WrongCoins(0.3)), inputs={"x": X}).verdict
        == Verdict.REFUTED
    )


def test_a_mask_that_is_no_pytree_is_verified_without_a_proof():
    report = jg.verify(
        replace(AUTOENCODER, mask=WrongCoins(0.3)), inputs={"x": X}, max_samples=2**10
    )
    assert report.verdict == Verdict.REFUTED and "certificate" not in {
        finding.evidence for finding in report.findings
    }
    (finding, _) = jg.verify(
        replace(AUTOENCODER, mask=WrongCoins(0.3)), evidence="certificate"
    ).findings
    assert finding.verdict == Verdict.UNDECIDED and "no pytree of numbers" in finding.detail


def test_a_formula_for_coins_is_refuted_under_a_fixed_count():
    claim = replace(jg.catalog.get("masked_autoencoder_dropped_loss"), mask=masks.FixedCount(5))
    (finding, _) = exact(claim, inputs={"x": X[:12, :10]}).findings
    assert finding.verdict == Verdict.REFUTED


def test_a_loss_without_an_exact_expectation_is_left_to_sampling_with_the_reason():
    claim = jg.Derivation(
        name="exponentials",
        loss=lambda x, w, mask: jnp.sum(jnp.exp((mask * x) @ w)),
        gradient=lambda x, w, mask: {"w": jnp.zeros_like(w)},
        shapes={"x": "m n", "w": "n", "mask": "m n"},
        mask=masks.FixedCount(12),
    )
    (finding,) = exact(claim, inputs={"x": X}).findings
    assert finding.verdict == Verdict.UNDECIDED
    assert "no polynomial in the mask because of `exp`" in finding.detail


def test_differences_of_an_expectation_need_no_enumeration():
    claim = replace(AUTOENCODER, mask=masks.Bernoulli(0.3))
    for factor, verdict in ((1, Verdict.CONFIRMED), (1 + 1e-3, Verdict.REFUTED)):
        report = jg.verify(
            off_by(claim, factor), evidence="differences", inputs={"x": X[:20, :14]}, sizes={"p": 2}
        )
        assert report.verdict == verdict
        assert "expectation by coins" in report.findings[0].detail or factor != 1


def test_the_cubic_loss_is_exact_at_data_sizes():
    claim = jg.catalog.get("masked_autoencoder_dropped_loss")
    assert exact(claim, inputs={"x": X}).verdict == Verdict.CONFIRMED
    assert exact(off_by(claim, 1 - 1e-7), inputs={"x": X}).verdict == Verdict.REFUTED


@pytest.mark.parametrize("chance", [0.3, 0.8])
@pytest.mark.parametrize("factor", [1.0, 1.02])
def test_a_closed_form_that_asks_for_the_value_of_a_probability_is_verified_at_that_probability(
    chance, factor
):
    def gradient(w, x, mask):
        kept = float(mask.prob) if mask.prob < 0.5 else 1 - float(1 - mask.prob)
        along = kept * x.sum(0)
        return {"w": factor * (2 * along @ w * along + 2 * kept * (1 - kept) * (x**2).sum(0) * w)}

    shapes = {"w": "n", "x": "m n", "mask": "m n"}
    claim = jg.Derivation(
        name="asks",
        loss=lambda w, x, mask: jnp.sum((mask * x) @ w) ** 2,
        gradient=gradient,
        shapes=shapes,
        mask=masks.Bernoulli(chance),
    )
    report = jg.verify(claim, evidence=("certificate", "expectation", "differences"))
    right = Verdict.CONFIRMED if factor == 1 else Verdict.REFUTED
    assert {finding.evidence: finding.verdict for finding in report.findings} == dict.fromkeys(
        ("certificate", "expectation", "differences"), right
    )
    assert "the mask's probabilities as they are" in report.findings[0].detail
