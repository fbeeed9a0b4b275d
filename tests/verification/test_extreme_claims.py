"""No verdict is wrong at any scale: the right is not refuted, the wrong not confirmed, whatever
rounding hides.

The claims are others every week, so that a scheduled run sees new ones; a failure names all that is
needed to see it again.
"""

import jax.numpy as jnp
import pytest

from jaxgrad import Derivation, verify
from tests.draws import WEEK
from tests.extreme_claims import LOSSES, RIGHT, chosen, claim

BATCHES, CLAIMS = 16, 25


def wrong_verdicts(claims, seed):
    """Return the claims on which the verdict is wrong, with it, and how many right ones were
    confirmed and wrong ones refuted.
    """
    wrong, known = [], {RIGHT: 0, "refuted": 0}
    for which in claims:
        report = verify(claim(*which), seed=seed, max_samples=2**14)
        right = which[-1] == RIGHT
        if report.verdict == ("refuted" if right else "confirmed"):
            wrong.append(
                (*which, seed, [(f.evidence, f.verdict.value, f.detail) for f in report.findings])
            )
        known[RIGHT] += right and report.verdict == "confirmed"
        known["refuted"] += not right and report.verdict == "refuted"
    return wrong, known


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_verdict_is_wrong_at_any_scale(batch):
    claims = chosen([WEEK, batch], CLAIMS)
    wrong, known = wrong_verdicts(claims, seed=WEEK)
    assert not wrong, wrong
    wrong_ones = sum(which[-1] != RIGHT for which in claims)
    assert known["refuted"] > wrong_ones / 2, (
        "most of what is wrong is refuted, and not only left undecided"
    )


def test_at_scales_that_hide_nothing_all_is_decided():
    plain = [("plain", name, 1.0, change) for name in list(LOSSES)[::9] for change in (RIGHT, "1%")]
    wrong, known = wrong_verdicts(
        [*plain, ("inside", "squares of sums", 1.0, RIGHT), ("weighted", "norm", 1e2, "sign")],
        seed=0,
    )
    assert not wrong and known == {RIGHT: len(plain) // 2 + 1, "refuted": len(plain) // 2 + 1}


def test_what_saturates_and_cancels_is_not_refuted_for_what_lies_below_its_rounding():
    """All entries saturate at a draw, tanh adds up to 1 - 1, and its gradient is 1e-170: the fuzz
    has found this.
    """
    wrong, _ = wrong_verdicts([("weighted", "tanh", 1e4, RIGHT)], seed=48)
    assert not wrong, wrong


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("weighted", "ratio", "c/(x + c)² overflows"),
        ("plain", "log of 1 plus", "autodiff underflows"),
    ],
)
def test_numbers_that_overflow_or_underflow_on_the_way_refute_nothing(kind, name, reason):
    wrong, _ = wrong_verdicts([(kind, name, 1e200, RIGHT)], seed=690)
    assert not wrong, (reason, wrong)
    twice = verify(claim(kind, name, 1e200, "twice"), seed=690, max_samples=2**14)
    assert {f.verdict for f in twice.findings if f.evidence != "certificate"} == {"undecided"}
    assert all("use other units" in f.detail for f in twice.findings if f.evidence != "certificate")


def test_a_refutation_is_not_taken_back_for_a_confirmation_that_is_weaker():
    """Differences do not see the sine, and autodiff does; that a term underflows must not leave the
    wrong claim confirmed.
    """
    hidden = lambda x: jnp.sum(x**2 + jnp.sin(1e10 * x) / 1e10 + 1e-200 * (1e-200 * x))
    wrong = Derivation(
        name="hidden", loss=hidden, gradient=lambda x: {"x": 2 * x}, shapes={"x": "n"}
    )
    assert verify(wrong, evidence=("autodiff", "differences")).verdict == "undecided"
    assert verify(wrong).verdict == "refuted", "by the certificate"


@pytest.mark.parametrize(("name", "c"), [("logsumexp scaled", 1e60), ("max", 1.0)])
def test_differences_alone_confirm_no_entry_that_does_not_matter_at_their_draws(name, c):
    verdicts = {
        verify(
            claim("plain", name, c, "one entry by 5%"), seed=seed, evidence="differences"
        ).verdict
        for seed in (3, 5, 647)
    }
    assert "confirmed" not in verdicts
    assert verify(claim("plain", name, 1.0, RIGHT), evidence="differences").verdict == "confirmed"


@pytest.mark.parametrize("c", [1e-290, 1e-90, 1e90, 1e290])
def test_sampling_decides_alike_in_any_unit(c):
    """Squares of what is smaller than 1e-154 are 0, and so would be the standard error: the right
    claim was refuted at 1e-200.
    """
    verdicts = [
        verify(
            claim("inside", "squares of sums", c, change),
            evidence="monte_carlo",
            max_samples=2**18,
            resolution=0.05,
        ).verdict
        for change in (RIGHT, "twice")
    ]
    assert verdicts == ["confirmed", "refuted"]


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradients_of_the_table_are_right_where_nothing_is_hidden(name):
    """Else the fuzz would take what is wrong for right."""
    found = verify(claim("plain", name, 1.0, RIGHT), evidence=("autodiff",))
    assert found.verdict == "confirmed", found
    assert jnp.isfinite(found.findings[0].error)
