"""How the evidence adds up: verdicts that are taken back in the light of other evidence.

Each kind of evidence reaches its verdict alone, and does not see everything that speaks against it.
A check is given all findings and makes some of them undecided, with the reason: a confirmation that
rests on an unverified differentiation rule, a refutation by numbers that overflow. No check turns a
verdict into its opposite. `CHECKS` lists them in their order.
"""

import itertools
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxgrad.evidence.noise.low_precision_constants import DOUBLE, constant_unit
from jaxgrad.evidence.noise.rounding import roughly_equal
from jaxgrad.evidence.numerical.autodiff import DRAWS
from jaxgrad.evidence.numerical.summary import INSENSITIVE
from jaxgrad.evidence.problem import Problem, labelled
from jaxgrad.jaxprs.cost import estimate
from jaxgrad.jaxprs.numpy_run import leaves_range
from jaxgrad.jaxprs.programs import by_jax_alone, has_own_rules, has_stop_gradient, reached
from jaxgrad.jaxprs.traced import Unstopped
from jaxgrad.masks.threefry import key_of
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.runtime.options import check_options
from jaxgrad.verification.applicable import EVIDENCE

LONGEST = 2**30
"""The most work, in `jaxgrad.jaxprs.cost`'s units, of a program run in numpy: a second's."""

CONFIRMED, REFUTED, UNDECIDED = Verdict.CONFIRMED, Verdict.REFUTED, Verdict.UNDECIDED
GRADIENTS = ("autodiff", "expectation")
"""Evidence that compares with a gradient by autodiff."""
FLOATING = tuple(name for name in EVIDENCE if name != "certificate")
"""Evidence in floating point."""


def check_own_rules(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back confirmations by a loss's own differentiation rule, if differences do not agree."""
    unchecked = {f.wrt for f in findings} - _inputs(findings, ["differences"], CONFIRMED)
    if not unchecked or not has_own_rules(_program(problem)):
        return findings
    reason = "the loss has a differentiation rule of its own, which differences do not confirm"
    return _taken_back(findings, reason, _among(EVIDENCE, unchecked, CONFIRMED))


def check_zero_gradients(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back that a gradient is zero, unless it depends on no input, as its program shows.

    Floating point cannot tell zero from what rounding hides, nor from what is zero at some draws
    alone; a certificate can.
    """
    zero = {f.wrt for f in findings if _is_float_zero(f)}
    if not zero or zero <= (certain := _constants(problem)):
        return findings
    reason = "the gradient may be zero, hidden by rounding, or zero at these draws alone"
    return _taken_back(
        findings, reason, lambda f: _is_float_zero(f) and f.wrt not in certain, warning=""
    )


def _is_float_zero(finding: Finding) -> bool:
    return (
        finding.evidence in FLOATING
        and finding.verdict == CONFIRMED
        and finding.warning.startswith("vacuous")
    )


def _constants(problem: Problem) -> set[str]:
    """Return the arrays whose closed form and gradient depend on no input, by their programs."""
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


def check_drowned_autodiff(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back confirmations by differences where autodiff differs, but within rounding.

    What varies over less than one unit in the last place shows in a gradient, and not in values: x²
    + sin(1e18 x)/1e18.
    """
    odd = {
        f.wrt
        for f in findings
        if f.evidence in GRADIENTS
        and f.verdict == UNDECIDED
        and max(f.detectable or 0.0, f.bound or 0.0) > INSENSITIVE
        and (f.error or 0.0) > INSENSITIVE
    }
    if not odd or not by_jax_alone(_program(problem)):
        return findings
    reason = "autodiff gives another gradient, and rounding is too large to tell which is right"
    return _taken_back(findings, reason, _among(["differences"], odd, CONFIRMED))


def check_differences_alone(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back confirmations by differences where autodiff was not requested, and differs.

    Values may hide what a gradient shows, as in x² + sin(1e10 x)/1e10, and autodiff looks at more
    draws.
    """
    alone = _inputs(findings, ["differences"], CONFIRMED) - _inputs(findings, GRADIENTS)
    if not alone:
        return findings
    trusted = by_jax_alone(_program(problem))
    opposed = {
        f.wrt
        for f in _by_autodiff(problem, findings)
        if f.verdict == REFUTED or (trusted and (f.error or 0.0) > INSENSITIVE)
    }
    reason = "autodiff, which was not requested, gives another gradient, here or at more draws"
    return _taken_back(findings, reason, _among(["differences"], opposed & alone))


def check_stop_gradient(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back refutations by sampling alone where stop_gradient in the loss changes the gradient.

    The claim may be the slope of the loss's value.
    """
    others = [name for name in EVIDENCE if name != "monte_carlo"]
    alone = _inputs(findings, ["monte_carlo"], REFUTED) - _inputs(findings, others, REFUTED)
    if not alone or not has_stop_gradient(_program(problem)):
        return findings
    changed = alone & _changed_by_stop_gradient(problem)
    if changed:
        changed -= _inputs(_by_autodiff(problem, findings), GRADIENTS, REFUTED)
    reason = "the loss uses stop_gradient, and the closed form may be the slope of its value"
    return _taken_back(findings, reason, _among(["monte_carlo"], changed), diagnosis="")


def _changed_by_stop_gradient(problem: Problem) -> set[str]:
    """Return the arrays whose gradient changes where stop_gradient is taken out of the loss."""
    sizes = problem.choose_sizes(0)
    args = problem.draw(sizes, 0), *_drawn_mask(problem, sizes)
    both = [problem.differentiated(loss) for loss in (problem.loss, Unstopped(problem.loss))]
    stopped, slope = (
        labelled(jax.jit(side, compiler_options=check_options())(*args)[1]) for side in both
    )
    return {name for name, x in stopped.items() if not roughly_equal(x, slope[name])}


def check_labels(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back confirmations by sampling or differences alone where labels are drawn.

    They see few values of the labels.
    """
    few, many = ("monte_carlo", "differences"), ("certificate", *GRADIENTS)
    alone = _inputs(findings, few, CONFIRMED) - _inputs(findings, many, CONFIRMED)
    if not alone or not problem.discrete(problem.choose_sizes(0)) - set(problem.given):
        return findings
    alone -= _inputs(_by_autodiff(problem, findings), GRADIENTS, CONFIRMED)
    reason = "few values of the labels were drawn, and no evidence that takes more confirms this"
    return _taken_back(findings, reason, _among(few, alone, CONFIRMED))


def check_low_precision_constants(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back verdicts of sampling and differences where low-precision constants drown autodiff.

    Sampling takes constants as they are: it would refute a claim for their rounding, and confirm
    one whose error is as small.
    """

    def is_hasty(f: Finding) -> bool:
        return (f.evidence == "monte_carlo" and f.verdict != UNDECIDED) or (
            f.evidence == "differences" and f.verdict == CONFIRMED
        )

    sizes = problem.first_sizes
    programs = _program(problem), problem.closed_form(sizes).program(problem.draw(sizes, 0))[0]
    if not any(map(is_hasty, findings)) or constant_unit(*programs) <= DOUBLE:
        return findings
    undecided = _inputs(_by_autodiff(problem, findings), GRADIENTS, UNDECIDED)
    reason = "constants of low precision leave it open"
    return _taken_back(findings, reason, lambda f: is_hasty(f) and f.wrt in undecided, diagnosis="")


def check_overflow(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back floating-point verdicts on an array that is refuted where numbers overflow.

    As in c/(x + c)² with c = 1e200. Confirmations of the same array go too: with the refutation
    goes what spoke against them.
    """
    refuted = _inputs(findings, FLOATING, REFUTED)
    if not refuted or not _leaves_range(problem):
        return findings
    reason = (
        "numbers overflow or underflow on the way, and floating point gives no evidence; use "
        "other units"
    )
    return _taken_back(findings, reason, _among(FLOATING, refuted), diagnosis="", warning="")


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


def check_given_data(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back proofs where the claim fails at the given data: not finite, or by autodiff refuted.

    A proof says nothing of kinks and ties, which data may hold.
    """
    proved = _inputs(findings, ["certificate"], CONFIRMED)
    if not problem.given or not proved:
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
    if not np.all(np.isfinite(value)):
        bad = proved
    reason = "the loss or the closed form is not finite at the given data"
    if not bad:
        bad = _inputs(_by_autodiff(problem, findings), GRADIENTS, REFUTED)
        reason = "autodiff gives another gradient at the given data"
    return _taken_back(findings, reason, _among(["certificate"], bad, CONFIRMED))


CHECKS = (
    check_overflow,
    check_stop_gradient,
    check_low_precision_constants,
    check_zero_gradients,
    check_own_rules,
    check_drowned_autodiff,
    check_differences_alone,
    check_labels,
    check_given_data,
)
"""Each is given the problem and the findings that the checks before it left; it returns as many."""


def reconcile(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Apply all checks, in their order."""
    for check in CHECKS:
        findings = check(problem, findings)
    return findings


def _by_autodiff(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Return the findings of autodiff, or of the expectation; gathered here if not requested."""
    name = "autodiff" if problem.derivation.mask is None else "expectation"
    known = [f for f in findings if f.evidence == name]
    found = known or problem.once(("asked for", name), lambda: EVIDENCE[name](problem))
    return [] if isinstance(found, str) else found


def _inputs(
    findings: list[Finding], evidence: Collection[str], verdict: Verdict | None = None
) -> set[str]:
    """Return the inputs on which some evidence has a verdict, or any where it is None."""
    return {f.wrt for f in findings if f.evidence in evidence and verdict in (None, f.verdict)}


def _among(
    evidence: Collection[str], inputs: set[str], verdict: Verdict | None = None
) -> Callable[[Finding], bool]:
    return lambda f: f.evidence in evidence and f.wrt in inputs and verdict in (None, f.verdict)


def _taken_back(
    findings: list[Finding], reason: str, which: Callable[[Finding], bool], **changes: Any
) -> list[Finding]:
    """Make some findings undecided for a reason; a proof loses its error probability."""

    def undecided(f: Finding) -> Finding:
        bound = None if f.evidence == "certificate" else f.bound
        detail = f"{reason}; {f.detail}"
        return replace(f, verdict=UNDECIDED, bound=bound, detail=detail, **changes)

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
