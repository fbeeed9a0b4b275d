"""Exact factors, from certificates that refute.

Where a certificate refutes, and closed form and gradient are proportional, their ratio is known as
a fraction without rounding, at every choice of sizes that the certificate took
(`jaxgrad.evidence.certificates.fields.identity`). It confirms the factor that was fitted to
floating-point numbers, and turns a decimal into its fraction. It also names factors that rounding
hides.
"""

import dataclasses
from collections.abc import Mapping
from fractions import Fraction

from jaxgrad.diagnosis import factors
from jaxgrad.diagnosis.cases import LossOf, choices, tolerated
from jaxgrad.diagnosis.factors import Factor
from jaxgrad.diagnosis.hypothesis import Diagnosis, Hypothesis
from jaxgrad.diagnosis.symbols import symbols, symbols_of_mask, symbols_of_sizes
from jaxgrad.evidence.certificates.evidence import certificate
from jaxgrad.evidence.problem import Problem

KINDS = ("factor", "sign")
"""Diagnoses that an exact ratio is about."""
ENOUGH = 3
"""The choices of sizes needed to name a factor by exact values alone, where there are so many."""
PLAIN = 10_000
"""A fraction whose numerator times denominator is larger is shown with its decimal beside it."""


def exact(
    problem: Problem, label: str, found: Diagnosis | None, loss_of: LossOf
) -> Diagnosis | None:
    """Return the diagnosis of one array with its factor made exact, or a new one by exact values.

    Args:
        problem: the claim, which remembers the ratios that certificates found.
        label: the array.
        found: what was found in floating point.
        loss_of: as of `jaxgrad.diagnosis.diagnose`.
    """
    ratios = problem.ratios(label)
    if (
        not ratios
        or all(ratio == 1 for _, ratio in ratios)
        or (found is not None and found.kind not in KINDS)
    ):
        return found
    if found is None:
        named = _named(problem, label, loss_of)
        return None if named is None else _diagnosis(label, named, None, problem.ratios(label))
    if found.factor is None or not found.factor.powers:
        return (
            _diagnosis(label, factors.constant(ratios[0][1]), found, ratios)
            if _constant(ratios)
            else found
        )
    agrees = all(found.factor.exact(_symbols(problem, sizes)) == ratio for sizes, ratio in ratios)
    return dataclasses.replace(found, exact=len(ratios)) if agrees else found


def _constant(ratios: list[tuple[dict[str, int], Fraction]]) -> bool:
    return len({ratio for _, ratio in ratios}) == 1


def _diagnosis(
    label: str,
    factor: Factor,
    found: Diagnosis | None,
    ratios: list[tuple[dict[str, int], Fraction]],
) -> Diagnosis:
    fraction = factor.fraction
    if abs(fraction.numerator) * fraction.denominator > PLAIN:
        factor = dataclasses.replace(factor, text=f"{factor.text} (≈ {float(fraction):.12g})")
    sentence = factors.comparison(label, factor, ratios[0][0])
    kind = "sign" if fraction == -1 and not factor.powers else "factor"
    hypothesis = Hypothesis(
        kind, sentence, lambda case: factor.value(symbols(case)) * case.truth[label], factor
    )
    if found is None:
        return Diagnosis(label, kind, sentence, 0.0, hypothesis=hypothesis, exact=len(ratios))
    return dataclasses.replace(
        found, kind=kind, sentence=sentence, hypothesis=hypothesis, exact=len(ratios)
    )


def _prove(problem: Problem, sizes: dict[str, int], loss_of: LossOf) -> None:
    """Let the problem remember the ratios at these sizes, if the user's functions take them."""
    with tolerated():
        loss = loss_of(sizes)
        if not isinstance(loss, str):
            certificate(problem, sizes, loss)


def _symbols(problem: Problem, sizes: Mapping[str, int]) -> dict[str, float]:
    found = symbols_of_sizes(problem.derivation.shapes, sizes)
    return found | symbols_of_mask(problem.derivation.distribution(sizes), found)


def _named(problem: Problem, label: str, loss_of: LossOf) -> Factor | None:
    """Name a ratio by its exact values at several choices of sizes, proving at more if needed."""
    further = [
        sizes
        for sizes in choices(problem)
        if sizes not in [seen for seen, _ in problem.ratios(label)]
    ]
    for sizes in further:
        if len(problem.ratios(label)) < ENOUGH:
            _prove(problem, sizes, loss_of)
    ratios = problem.ratios(label)
    if not ratios or (further and len(ratios) < ENOUGH):
        return None
    if _constant(ratios):
        return factors.constant(ratios[0][1])
    known = [_symbols(problem, sizes) for sizes, _ in ratios]
    named = factors.name([float(ratio) for _, ratio in ratios], known)
    return (
        named
        if named is not None
        and all(named.exact(s) == r for s, (_, r) in zip(known, ratios, strict=True))
        else None
    )
