"""The corpus by which verdicts are measured is what it says: right claims right, wrong ones wrong.

The check is independent of what reaches a verdict: differences of the loss, or a formula of its
own (`benchmarks.corpus.truth`).
"""

from collections import Counter

import pytest

from benchmarks.corpus import CLAIMS, truth

KINDS = dict.fromkeys(claim.kind for claim in CLAIMS.values())
pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # a claim may be NaN somewhere: that is told apart


def of(kind):
    return [claim for claim in CLAIMS.values() if claim.kind == kind]


def test_the_corpus_is_two_sided_and_wide():
    judged = [claim for claim in CLAIMS.values() if not claim.below]
    assert sum(claim.right for claim in judged) >= 300
    assert sum(not claim.right for claim in judged) >= 300
    assert len(KINDS) >= 40
    assert max(Counter(claim.kind for claim in CLAIMS.values()).values()) <= 10


def test_half_of_the_claims_name_a_public_source():
    assert sum(bool(claim.source) for claim in CLAIMS.values()) * 2 >= len(CLAIMS)


def test_at_most_one_in_twenty_lies_below_what_is_detected():
    below = [claim for claim in CLAIMS.values() if claim.below]
    assert len(below) * 20 <= len(CLAIMS) and not any(claim.right for claim in below)


@pytest.mark.parametrize("kind", KINDS)
def test_each_claim_is_what_the_corpus_says(kind):
    found = {claim.name: truth.problems(claim, 1) for claim in of(kind)}
    assert not {name: said for name, said in found.items() if said}


def test_a_right_claim_said_to_be_wrong_is_noticed_and_the_reverse():
    import dataclasses

    right = CLAIMS["rules: from_vjp: softmax of rows, right"]
    wrong = CLAIMS["rules: from_vjp: softmax of rows, summed over the whole batch"]
    assert truth.problems(dataclasses.replace(right, right=False))
    assert truth.problems(dataclasses.replace(wrong, right=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_right_claim_is_right_at_other_sizes_and_special_points(kind):
    found = {c.name: truth.problems(c, 2, whole=True) for c in of(kind) if c.right}
    assert not {name: said for name, said in found.items() if said}
