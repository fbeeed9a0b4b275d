"""Which evidence applies to a claim, and how each is gathered.

A claim without a mask is compared with autodiff and differences of its loss. A claim about an
expected gradient is compared with sampling, and with autodiff and differences of the exact
expectation where there is one. Certificates are tried for both.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from jaxgrad.evidence.certificates.evidence import certificate, merge
from jaxgrad.evidence.expectation.expectation import choose, expectation
from jaxgrad.evidence.expectation.plans import METHODS, Plan
from jaxgrad.evidence.numerical.autodiff import autodiff
from jaxgrad.evidence.numerical.differences import differences
from jaxgrad.evidence.problem import Problem
from jaxgrad.evidence.sampling.evidence import monte_carlo
from jaxgrad.evidence.sampling.known import NO_PYTREE, is_numbers
from jaxgrad.jaxprs.programs import has_own_rules
from jaxgrad.jaxprs.traced import Traceable, TracedOnce
from jaxgrad.masks import Mask
from jaxgrad.reports.finding import Finding, Verdict

MAX_MASKS = 2**13
"""The most masks, or rows, that an exact expectation lists."""
MOST_EXPECTED = 2**28
"""The most entries of masks, over all masks, at which one exact expectation evaluates a loss."""
MOST_DIFFERENCED = 2**21
"""The same where the expectation is differenced, and so evaluated some thousand times."""

BEYOND, BEYOND_EXPECTED = 4, 2**16
"""The choice of larger sizes, from 7 on, and the limit `MOST_EXPECTED` there."""

MAX_PROVED_MASKS = 2**9
"""The most masks that a certificate sums over; beyond, it uses the mask's stated moments."""

Loss = Callable[..., Any]


def gather(name: str, problem: Problem, demanded: bool) -> list[Finding]:
    """Gather one kind of evidence.

    Where it does not apply, return nothing, or the reason if it was requested by name.
    """
    problem.report_progress(name, 0.0, "")
    result = EVIDENCE[name](problem)
    problem.report_progress(name, 1.0, "")
    if not isinstance(result, str):
        return result
    if not demanded:
        return []
    return [
        Finding(evidence=name, wrt=wrt, verdict=Verdict.UNDECIDED, detail=result)
        for wrt in problem.wrt
    ]


def _certificate(problem: Problem) -> list[Finding] | str:
    derivation = problem.derivation
    fixed = {name: size for name, size in problem.sizes.items() if name in problem.chosen}
    masked = derivation.mask is not None
    if masked and not is_numbers(derivation.distribution(problem.choose_sizes(0, few_masks=True))):
        return NO_PYTREE
    results = []
    for sizes in _distinct(
        derivation.choose_sizes(variant, fixed, few_masks=masked, few_labels=True)
        for variant in range(2)
    ):
        loss = loss_of_mask(problem, sizes)
        found = loss if isinstance(loss, str) else certificate(problem, sizes, loss)
        if isinstance(found, str):
            return found
        results.append(found)
    return merge(results)


def loss_of_mask(problem: Problem, sizes: dict[str, int]) -> Loss | str:
    """Return the loss, or its exact expectation, as a function of inputs and mask distribution."""
    derivation = problem.derivation
    if derivation.mask is None:
        return lambda inputs, _: problem.loss(inputs)
    loss, distribution, shape = _masked_loss(problem, sizes)
    limits = {name: MAX_PROVED_MASKS if name in METHODS[:2] else MAX_MASKS for name in METHODS}
    draw = derivation.drawn([problem.seed], sizes)
    try:
        plan = choose(loss, distribution, shape, (draw,), limits=limits)
    except ValueError as error:
        return str(error)
    return _expected(problem, sizes, plan.method)


def _autodiff(problem: Problem) -> list[Finding] | str:
    if problem.derivation.mask is not None:
        return (
            "autodiff differentiates at one mask, and the claim is about the expectation over masks"
        )
    variants = _variants(problem)
    return autodiff(problem, variants, lambda _: problem.loss, beyond=_beyond(problem, variants))


def _expectation(problem: Problem) -> list[Finding] | str:
    if problem.derivation.mask is None:
        return "there is no mask to take the expectation over"
    ways, reason = _ways(problem, MOST_EXPECTED)
    if not ways:
        return reason
    variants = [sizes for sizes, _ in ways]

    def loss_of(sizes: dict[str, int]) -> Traceable:
        plan = next((plan for known, plan in ways if known == sizes), None)
        return _expected_loss(problem, sizes, plan or _plan(problem, sizes, BEYOND_EXPECTED))

    found = autodiff(problem, variants, loss_of, "expectation", _beyond(problem, variants))
    return [
        replace(finding, detail=f"{finding.detail}; {_methods_text(ways)}") for finding in found
    ]


def _differences(problem: Problem) -> list[Finding] | str:
    if problem.derivation.mask is None:
        first = problem.choose_sizes(0)
        own = has_own_rules(problem.loss.program(problem.draw(first, 0))[0])
        return differences(
            problem, [(sizes, problem.loss) for sizes in (_tried(problem) if own else [first])]
        )
    ways, reason = _ways(problem, MOST_DIFFERENCED)
    if not ways:
        return reason
    found = differences(
        problem, [(sizes, _expected_loss(problem, sizes, plan)) for sizes, plan in ways]
    )
    return [
        replace(finding, detail=f"{finding.detail}; {_methods_text(ways[:1])}") for finding in found
    ]


def _monte_carlo(problem: Problem) -> list[Finding] | str:
    derivation = problem.derivation
    if derivation.mask is None:
        return "there is no mask to sample"
    return (
        monte_carlo(problem)
        if is_numbers(derivation.distribution(problem.choose_sizes(0)))
        else NO_PYTREE
    )


EVIDENCE: dict[str, Callable[[Problem], list[Finding] | str]] = {
    "certificate": _certificate,
    "autodiff": _autodiff,
    "expectation": _expectation,
    "differences": _differences,
    "monte_carlo": _monte_carlo,
}
"""Evidence by name: a function of the problem that returns findings, or why it does not apply."""


def _variants(problem: Problem) -> list[dict[str, int]]:
    return _distinct(problem.choose_sizes(variant) for variant in range(2))


def _beyond(problem: Problem, variants: list[dict[str, int]]) -> dict[str, int] | None:
    """Return larger sizes than these; None where none are left open."""
    return next((sizes for sizes in [problem.choose_sizes(BEYOND)] if sizes not in variants), None)


def _tried(problem: Problem) -> list[dict[str, int]]:
    """Return all sizes at which a claim without a mask is tried, larger ones if it can be there."""
    variants = _variants(problem)
    if (beyond := _beyond(problem, variants)) is None:
        return variants
    try:
        problem.differentiated(problem.loss).program(draw := problem.draw(beyond, 0))
        problem.closed_form(beyond).program(draw)
    except Exception:  # a claim may be made for some sizes alone, and refuse others
        return variants
    return [*variants, beyond]


def _ways(problem: Problem, most: int) -> tuple[list[tuple[dict[str, int], Plan]], str]:
    """Return small choices of sizes, each with a plan for the exact expectation, or why none is.

    A way that does not believe the mask's own moments is preferred to one that does.
    """
    ways, reason = [], ""
    for sizes in _distinct(problem.choose_sizes(variant, few_masks=True) for variant in range(2)):
        try:
            ways.append((sizes, _plan(problem, sizes, most)))
        except ValueError as error:
            reason = reason or f"{error}"
    return ways, reason


def _plan(problem: Problem, sizes: dict[str, int], most: int) -> Plan:
    loss, distribution, shape = _masked_loss(problem, sizes)
    most_here = most // math.prod(shape)
    limits = {
        name: min(MAX_MASKS, most_here) if name in METHODS[:2] else most_here for name in METHODS
    }
    return choose(loss, distribution, shape, (problem.draw(sizes, 0),), limits=limits)


def _methods_text(ways: list[tuple[dict[str, int], Plan]]) -> str:
    methods = list(dict.fromkeys(plan.method for _, plan in ways))
    text = "expectation by " + " and ".join(methods)
    return text + (", from the moments that the mask states" if methods == ["moments"] else "")


def _distinct(choices: Iterable[dict[str, int]]) -> list[dict[str, int]]:
    found: list[dict[str, int]] = []
    for sizes in choices:
        if sizes not in found:
            found.append(sizes)
    return found


def _masked_loss(problem: Problem, sizes: dict[str, int]) -> tuple[Loss, Mask, tuple[int, ...]]:
    derivation, distribution = problem.derivation, problem.derivation.distribution(sizes)
    assert distribution is not None
    return (
        lambda inputs, mask: problem.loss(inputs, mask),
        distribution,
        derivation.mask_shape(sizes),
    )


def _expected(problem: Problem, sizes: dict[str, int], method: str) -> TracedOnce:
    """Return the exact expectation as a function of inputs and mask distribution, traced once."""
    loss, _, shape = _masked_loss(problem, sizes)
    return problem.once(
        ("expected", *sizes.items(), method),
        lambda: TracedOnce(
            lambda inputs, mask: expectation(loss, mask, shape, method=method)(inputs)
        ),
    )


def _expected_loss(problem: Problem, sizes: dict[str, int], plan: Plan) -> Traceable:
    """Return the exact expectation at the claim's mask, its probabilities traced if possible."""
    return problem.at_mask(_expected(problem, sizes, plan.method), sizes)
