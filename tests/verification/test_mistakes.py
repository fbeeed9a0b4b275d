"""`verify` confirms every entry of the catalogue and refutes every wrong variant of it.

A wrong variant is refuted here by the quickest evidence that applies to it, and the mistakes of the
original notebooks by all evidence; `python -m pytest -m slow tests/test_mistakes.py` gathers all
evidence against every one.
"""

import functools

import pytest

import jaxgrad as jg
from jaxgrad import Verdict, catalog
from tests.wrong_variants import CASES, ORIGINAL, VARIANTS

NAMES = [derivation.name for derivation in catalog.all()]
ORIGINALS = [case for case in CASES if case[1].startswith(ORIGINAL)]
AT_A_KINK_ALONE = {("relu", "gate ½ at 0")}
"""Besides the originals, what differs from the right one at exact zeros alone: differences find no
derivative there.
"""


def labelled(cases):
    return [pytest.param(*case, id=f"{case[0]}: {case[1]}") for case in cases]


@functools.cache
def report_on(name):
    return jg.verify(catalog.get(name))


def refuting(report):
    """The names of the evidence that refutes somewhere."""
    return {finding.evidence for finding in report.findings if finding.verdict == Verdict.REFUTED}


@pytest.mark.quick
@pytest.mark.parametrize("name", NAMES)
def test_the_right_one_is_confirmed_without_a_warning(name):
    report = report_on(name)
    report.assert_confirmed()
    assert report.warnings == ()
    assert not refuting(report)
    masked = catalog.get(name).mask is not None
    assert {"monte_carlo" if masked else "autodiff", "differences"} <= {
        finding.evidence for finding in report.findings
    }


def test_every_entry_has_at_least_two_wrong_variants():
    assert set(VARIANTS) == set(NAMES)
    assert all(len(variants) >= 2 for variants in VARIANTS.values())


def test_the_mistakes_of_the_originals_are_among_the_wrong_variants():
    names = {name for name, _, _ in ORIGINALS}
    assert {"relu", "relu_mlp", "masked_autoencoder_features", "masked_autoencoder_patches"} < names


def quickest_evidence(name, label, claim):
    if (name, label) in AT_A_KINK_ALONE:
        return "autodiff"
    return "differences" if claim.mask is None else "monte_carlo"


@pytest.mark.parametrize(
    ("name", "label", "claim"), labelled(case for case in CASES if case not in ORIGINALS)
)
def test_a_wrong_variant_is_refuted(name, label, claim):
    evidence = quickest_evidence(name, label, claim)
    report = jg.verify(claim, evidence=evidence)
    assert report.verdict == Verdict.REFUTED, f"{label}\n{report}"
    assert refuting(report) == {evidence}


@pytest.mark.parametrize(("name", "label", "claim"), labelled(ORIGINALS))
def test_a_mistake_of_the_originals_is_refuted_and_what_it_should_have_been_confirmed(
    name, label, claim
):
    report = jg.verify(claim)
    assert report.verdict == Verdict.REFUTED, f"{label}\n{report}"
    # by all evidence, but that differences find no derivative at a kink
    expected = {"autodiff"} if claim.mask is None else {"expectation", "differences", "monte_carlo"}
    assert expected <= refuting(report)
    report_on(name).assert_confirmed()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "label", "claim"), labelled(CASES))
def test_all_evidence_together_refutes_a_wrong_variant(name, label, claim):
    report = jg.verify(claim)
    assert report.verdict == Verdict.REFUTED, f"{label}\n{report}"
