"""What is taken back of what single pieces of evidence said, since they did not see all that speaks
against it: the rules in RULES.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxgrad.evidence.noise.low_precision_constants import DOUBLE, constant_unit
from jaxgrad.evidence.noise.rounding import roughly_equal
from jaxgrad.evidence.numerical.autodiff import DRAWS
from jaxgrad.evidence.numerical.ledgers import INSENSITIVE
from jaxgrad.evidence.problem import Problem, labelled
from jaxgrad.jaxprs.cost import estimate
from jaxgrad.jaxprs.numpy_run import leaves_range
from jaxgrad.jaxprs.traced import Unstopped, by_jax_alone, has_own_rules, has_stop_gradient, reached
from jaxgrad.masks.threefry import key_of
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.runtime.options import check_options
from jaxgrad.verification.applicable import EVIDENCE

LONGEST = 2**30
"""The most work, in the units of `jaxgrad.jaxprs.cost`, of a program whose numbers are looked at:
about a second in numpy.
"""


def on_trust(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back what was confirmed through a differentiation rule of the loss's own that no
    differences confirm.
    """
    unchecked = {f.wrt for f in findings} - {
        f.wrt for f in findings if f.evidence == "differences" and f.verdict == Verdict.CONFIRMED
    }
    if not unchecked or not has_own_rules(_program(problem)):
        return findings
    reason = (
        "it takes on trust the loss's own differentiation rule, which differences of the "
        "loss do not confirm"
    )
    return _taken_back(
        findings, reason, lambda f: f.wrt in unchecked and f.verdict == Verdict.CONFIRMED
    )


def of_nothing(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back that a gradient is zero, unless neither the closed form nor the gradient is
    computed from any input.

    Floating point cannot tell zero from what rounding hides, nor from what is zero at some draws
    alone; a certificate can.
    """
    zero = {f.wrt for f in findings if _is_float_zero(f)}
    if not zero or zero <= (certain := _constants(problem)):
        return findings
    reason = (
        "floating point cannot tell whether this is zero, hidden by rounding, or zero at "
        "these draws alone"
    )
    return _taken_back(
        findings, reason, lambda f: _is_float_zero(f) and f.wrt not in certain, warning=""
    )


def _is_float_zero(finding: Finding) -> bool:
    return (
        finding.evidence != "certificate"
        and finding.verdict == Verdict.CONFIRMED
        and finding.warning.startswith("vacuous")
    )


def _constants(problem: Problem) -> set[str]:
    """Return the arrays of which the closed form and the gradient depend on no input, by their
    programs alone.
    """
    sizes = problem.first_sizes
    draw, loss = problem.draw(sizes, 0), _program(problem)
    closed, shape = problem.closed_form(sizes).program(draw)
    claimed = zip(
        labelled(shape), reached(closed.jaxpr, [True] * len(closed.jaxpr.invars)), strict=True
    )
    names, more = list(labelled(draw)), [False] * len(_mask(problem))
    constant = {
        name
        for name in names
        if not any(reached(loss.jaxpr, [name == other for other in names] + more))
    }
    if by_jax_alone(loss):
        both, (value, gradient) = problem.differentiated(problem.loss).program(
            draw, *_mask(problem)
        )
        moved = reached(both.jaxpr, [True] * len(both.jaxpr.invars))[len(jax.tree.leaves(value)) :]
        constant |= {name for name, some in zip(labelled(gradient), moved, strict=True) if not some}
    return {name for name, some in claimed if not some} & constant


def at_odds(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back what differences confirm where autodiff, by JAX's own rules, gives something else
    that rounding drowns.

    What varies over less than one unit in the last place shows in a gradient, and not in values: x²
    + sin(1e18 x)/1e18.
    """
    odd = {
        f.wrt
        for f in findings
        if f.evidence in ("autodiff", "expectation")
        and f.verdict == Verdict.UNDECIDED
        and max(f.detectable or 0.0, f.bound or 0.0) > INSENSITIVE
        and (f.error or 0.0) > INSENSITIVE
    }
    if not odd or not by_jax_alone(_program(problem)):
        return findings
    reason = (
        "autodiff gives another gradient, and rounding is too large there to tell which is right"
    )
    return _taken_back(
        findings,
        reason,
        lambda f: f.evidence == "differences" and f.wrt in odd and f.verdict == Verdict.CONFIRMED,
    )


def unopposed(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back what differences confirm, where they alone were asked for and autodiff gives
    another gradient.

    Values may hide what a gradient shows, as in x² + sin(1e10 x)/1e10, and autodiff looks at more
    draws.
    """
    beside = {f.wrt for f in findings if f.evidence in ("autodiff", "expectation")}
    alone = {
        f.wrt for f in findings if f.evidence == "differences" and f.verdict == Verdict.CONFIRMED
    } - beside
    if not alone:
        return findings
    trusted = by_jax_alone(_program(problem))
    opposed = {
        f.wrt
        for f in _by_autodiff(problem, findings)
        if f.verdict == Verdict.REFUTED or (trusted and (f.error or 0.0) > INSENSITIVE)
    }
    reason = "autodiff, which was not asked for, gives another gradient, here or at more draws"
    return _taken_back(
        findings, reason, lambda f: f.evidence == "differences" and f.wrt in opposed & alone
    )


def of_slope(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back what sampling alone refutes where a stop_gradient of the loss changes the gradient:
    the claim may be the slope.
    """
    alone = {
        f.wrt for f in findings if f.evidence == "monte_carlo" and f.verdict == Verdict.REFUTED
    }
    alone -= {
        f.wrt for f in findings if f.evidence != "monte_carlo" and f.verdict == Verdict.REFUTED
    }
    if not alone or not has_stop_gradient(_program(problem)):
        return findings
    bent = alone & _bent(problem)
    bent -= (
        {f.wrt for f in _by_autodiff(problem, findings) if f.verdict == Verdict.REFUTED}
        if bent
        else set()
    )
    reason = "the loss uses stop_gradient, and the closed form may be the slope of its value"
    return _taken_back(
        findings, reason, lambda f: f.evidence == "monte_carlo" and f.wrt in bent, diagnosis=""
    )


def _bent(problem: Problem) -> set[str]:
    """Return the arrays whose gradient, at a draw, is another one without the loss's
    stop_gradient.
    """
    sizes = problem.choose_sizes(0)
    args = problem.draw(sizes, 0), *_drawn_mask(problem, sizes)
    both = [problem.differentiated(loss) for loss in (problem.loss, Unstopped(problem.loss))]
    stopped, slope = (
        labelled(jax.jit(side, compiler_options=check_options())(*args)[1]) for side in both
    )
    return {name for name, x in stopped.items() if not roughly_equal(x, slope[name])}


def of_labels(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back what sampling or differences alone confirm where labels are drawn, of which they
    see few values.
    """
    few, many = ("monte_carlo", "differences"), ("certificate", "autodiff", "expectation")
    alone = {f.wrt for f in findings if f.evidence in few and f.verdict == Verdict.CONFIRMED}
    alone -= {f.wrt for f in findings if f.evidence in many and f.verdict == Verdict.CONFIRMED}
    if not alone or not problem.discrete(problem.choose_sizes(0)) - set(problem.given):
        return findings
    alone -= {f.wrt for f in _by_autodiff(problem, findings) if f.verdict == Verdict.CONFIRMED}
    reason = (
        "it looks at few values of the labels, and no evidence that looks at more confirms "
        "what it says"
    )
    return _taken_back(
        findings,
        reason,
        lambda f: f.evidence in few and f.wrt in alone and f.verdict == Verdict.CONFIRMED,
    )


def of_constants(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back what sampling and differences say where constants of a narrow type keep autodiff,
    or the expectation, from saying it.

    Sampling takes them as they are: it would refute a claim for their rounding, and confirm one
    whose error is as small.
    """

    def hasty(f: Finding) -> bool:
        said_more = (
            ("monte_carlo", Verdict.CONFIRMED),
            ("monte_carlo", Verdict.REFUTED),
            ("differences", Verdict.CONFIRMED),
        )
        return (f.evidence, f.verdict) in said_more

    sizes = problem.first_sizes
    narrow = _program(problem), problem.closed_form(sizes).program(problem.draw(sizes, 0))[0]
    if not any(map(hasty, findings)) or constant_unit(*narrow) <= DOUBLE:
        return findings
    open_ = {f.wrt for f in _by_autodiff(problem, findings) if f.verdict == Verdict.UNDECIDED}
    reason = "constants of a narrow type are too coarse to tell"
    return _taken_back(findings, reason, lambda f: hasty(f) and f.wrt in open_, diagnosis="")


def in_range(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back what floating point says of an array that it refutes where numbers leave its range,
    as in c/(x + c)² with c = 1e200.

    What it confirms of the same array goes too: with the refutation goes what spoke against it.
    """
    refuted = {
        f.wrt for f in findings if f.evidence != "certificate" and f.verdict == Verdict.REFUTED
    }
    if not refuted or not _leaves_range(problem):
        return findings
    reason = (
        "numbers overflow or underflow on the way, so that what floating point gives is no "
        "evidence; use other units"
    )
    return _taken_back(
        findings,
        reason,
        lambda f: f.evidence != "certificate" and f.wrt in refuted,
        diagnosis="",
        warning="",
    )


def _leaves_range(problem: Problem) -> bool:
    for variant in range(2):
        sizes = problem.choose_sizes(variant, few_masks=problem.derivation.mask is not None)
        mask = _drawn_mask(problem, sizes)
        sides = (problem.closed_form(sizes), ()), (problem.differentiated(problem.loss), mask)
        for number, (side, more) in itertools.product(range(DRAWS), sides):
            draw = problem.draw(sizes, number)
            program = side.program(draw, *more)[0]
            if estimate(program.jaxpr, 1) <= LONGEST and leaves_range(
                program, jax.tree.leaves((draw, *more))
            ):
                return True
    return False


def at_data(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take proofs back where data are given at which the loss or the closed form is not finite, or
    autodiff refutes the claim.

    A proof says nothing of kinks and ties, which data may hold.
    """
    if not problem.given or not any(
        f.evidence == "certificate" and f.verdict == Verdict.CONFIRMED for f in findings
    ):
        return findings
    sizes = problem.choose_sizes(0)
    value = jax.jit(problem.loss, compiler_options=check_options())(
        problem.draw(sizes, 0), *_drawn_mask(problem, sizes)
    )
    bad = {
        label
        for label, array in problem.claimed(sizes, 0).items()
        if not np.all(np.isfinite(array))
    }
    if np.all(np.isfinite(value)) and not bad:
        refuted = {f.wrt for f in _by_autodiff(problem, findings) if f.verdict == Verdict.REFUTED}
        reason = "at the data that are given autodiff gives another gradient"
        return _taken_back(
            findings,
            reason,
            lambda f: (
                f.evidence == "certificate" and f.verdict == Verdict.CONFIRMED and f.wrt in refuted
            ),
        )
    reason = "the loss or the closed form is not finite at the data that are given"

    def holds_nowhere(f: Finding) -> bool:
        return (
            f.evidence == "certificate"
            and f.verdict == Verdict.CONFIRMED
            and (f.wrt in bad or not np.all(np.isfinite(value)))
        )

    return _taken_back(findings, reason, holds_nowhere)


RULES = (
    in_range,
    of_slope,
    of_constants,
    of_nothing,
    on_trust,
    at_odds,
    unopposed,
    of_labels,
    at_data,
)
"""Each is given the problem and the findings that the rules before it left, and returns as many."""


def cautious(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Apply all rules, in their order."""
    for rule in RULES:
        findings = rule(problem, findings)
    return findings


def _by_autodiff(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Return what autodiff finds of the loss, or of its expectation where there is one: gathered
    here where it was not asked for.
    """
    name = "autodiff" if problem.derivation.mask is None else "expectation"
    known = [f for f in findings if f.evidence == name]
    found = known or problem.once(("asked for", name), lambda: EVIDENCE[name](problem))
    return [] if isinstance(found, str) else found


def _taken_back(
    findings: list[Finding], reason: str, which: Callable[[Finding], bool], **changes: Any
) -> list[Finding]:
    """Make some findings undecided for a reason; a proof that is taken back has no probability of
    being wrong.
    """

    def undecided(f: Finding) -> Finding:
        bound = None if f.evidence == "certificate" else f.bound
        return replace(
            f, verdict=Verdict.UNDECIDED, bound=bound, detail=f"{reason}; {f.detail}", **changes
        )

    return [undecided(f) if which(f) else f for f in findings]


def _drawn_mask(problem: Problem, sizes: dict[str, int]) -> tuple[np.ndarray, ...]:
    """Return a draw of the mask, or nothing where there is no mask."""
    derivation, key = problem.derivation, key_of(problem.seed)
    distribution = derivation.distribution(sizes)
    return (
        ()
        if distribution is None
        else (np.asarray(distribution.sample(key, derivation.mask_shape(sizes))),)
    )


def _program(problem: Problem) -> Any:
    return problem.loss.program(problem.draw(problem.first_sizes, 0), *_mask(problem))[0]


def _mask(problem: Problem) -> tuple[Any, ...]:
    derivation = problem.derivation
    return (
        ()
        if derivation.mask is None
        else (jax.ShapeDtypeStruct(derivation.mask_shape(problem.first_sizes), float),)
    )
