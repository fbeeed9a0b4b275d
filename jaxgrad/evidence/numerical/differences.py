"""Finite differences of the loss's value: evidence that does not trust automatic differentiation.

Entries of each array, and random directions where there are many, are differentiated by
extrapolation (`jaxgrad.evidence.numerical.slopes`) and compared with the closed form. What varies
over less than the finest step may be too small to be seen in the loss's values. So differences do
not refute what autodiff confirms by JAX's own rules alone; where a loss brings rules of its own
they do.
"""

import functools
import time
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from jaxgrad.claims.shapes import sizes_text
from jaxgrad.evidence.noise.low_precision_constants import explained_by_constants
from jaxgrad.evidence.noise.random_rounding import movement
from jaxgrad.evidence.noise.rounding import GAP, SAFETY, largest, roughly_equal
from jaxgrad.evidence.numerical.autodiff import BRANCHED_DRAWS, DRAWS
from jaxgrad.evidence.numerical.disagreements import SMALL
from jaxgrad.evidence.numerical.probes import DISAGREE, Comparison, choose_probes
from jaxgrad.evidence.numerical.slopes import AGREE, Prober, Slope, step_scales
from jaxgrad.evidence.problem import Problem, labelled
from jaxgrad.jaxprs.programs import by_jax_alone, has_own_rules, has_stop_gradient, working_unit
from jaxgrad.jaxprs.traced import Picked, Traceable, TracedOnce
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.runtime.compiled import Program
from jaxgrad.runtime.options import check_options

MIN_ENTRIES, MAX_ENTRIES = 4, 256
"""At least and at most so many entries of each array are differenced one by one."""
WORK = 2**23
"""Numbers that the inputs may hold over all entries differenced: with large inputs fewer entries
are.
"""
COARSEST = 1e-2
"""Nothing is confirmed where differences see no errors below this part of the largest entry."""


@dataclass
class _Seen:
    """What was seen of one array.

    Attributes:
        first: comparisons at the first sizes and draws.
        further: those at other sizes and draws, where a refutation alone counts.
        stopped: with stop_gradient, the closed form is something else than autodiff gives.
        bent: with stop_gradient, what autodiff gives is not the slope.
        unseen: derivatives were given up, since autodiff agrees with the closed form against them.
    """

    first: list[Comparison] = field(default_factory=list)
    further: list[Comparison] = field(default_factory=list)
    stopped: bool = False
    bent: bool = False
    unseen: bool = False


def differences(problem: Problem, losses: list[tuple[dict[str, int], Traceable]]) -> list[Finding]:
    """Compare the closed form with differences of the loss's value, entry by entry.

    Where the loss brings rules of its own, which autodiff believes, further sizes and draws are
    looked at too; there a refutation counts, and nothing else.

    Args:
        problem: the claim.
        losses: choices of sizes, and at each the loss itself, or its exact expectation, as a
            function of the inputs; the first alone counts where the loss brings no rules of its
            own.

    Returns:
        One finding for each array of the gradient.
    """
    start = time.perf_counter()
    sizes, loss = losses[0]
    draw = problem.draw(sizes, 0)
    own = has_own_rules(loss.program(draw)[0])
    few = own and sum(np.size(x) for x in jax.tree.leaves(draw)) <= SMALL // BRANCHED_DRAWS
    seen: dict[str, _Seen] = {}
    for i, (sizes, loss) in enumerate(losses if own else losses[:1]):
        _difference_at(problem, sizes, loss, DRAWS + BRANCHED_DRAWS * few, i > 0, seen)
    seconds = (time.perf_counter() - start) / max(1, len(seen))
    where = sizes_text(losses[0][0])
    findings = []
    for label, array in seen.items():
        finding = _judge(label, array, array.first, seconds, where)
        if finding.verdict == Verdict.CONFIRMED and array.further:
            # where differences do not converge at first, they may seem to at one of many draws
            if refuting := [c for c in array.further if c.refutes]:
                several = f"{where} and at further draws"
                finding = _judge(label, array, [*array.first, *refuting], seconds, several)
            else:
                detail = f"{finding.detail}, and at {len(array.further)} further draws"
                finding = replace(finding, detail=detail)
        findings.append(finding)
    return findings


def _difference_at(
    problem: Problem,
    sizes: dict[str, int],
    loss: Traceable,
    draws: int,
    further: bool,
    seen: dict[str, _Seen],
) -> None:
    prober = Prober(loss, problem.wrt)
    program = loss.program(problem.draw(sizes, 0))[0]
    stops, unit = has_stop_gradient(program), working_unit(program)
    differentiated = Program(problem.differentiated(loss), check_options())
    for number in range(draws):
        problem.report_progress("differences", number / draws, "")
        inputs = problem.draw(sizes, number)
        claimed = problem.claimed(sizes, number)
        by_autodiff = labelled(differentiated(inputs)[1]) if stops else claimed
        moving = labelled({name: inputs[name] for name in problem.wrt})
        entries = WORK // sum(np.size(x) for x in jax.tree.leaves(inputs))
        probes = choose_probes(
            {label: np.size(x) for label, x in moving.items()},
            np.random.default_rng([problem.seed, number]),
            int(np.clip(entries, MIN_ENTRIES, MAX_ENTRIES)),
        )
        index = np.concatenate([chosen.coordinates for chosen in probes])
        directions = np.concatenate([chosen.directions for chosen in probes])
        slope = prober.slopes(inputs, index, directions, unit, number)
        rounding = _Rounding(problem, sizes, loss, inputs, unit)
        first, outer = 0, slope.central.ndim - 1
        for label, chosen in zip(moving, probes, strict=True):
            array = seen.setdefault(label, _Seen())
            expected = chosen.of(claimed[label], outer)
            rows = slice(first, first + len(expected))
            first += len(expected)
            found = Slope(*(part[rows] for part in slope))
            if stops and not roughly_equal(claimed[label], by_autodiff[label]):
                array.stopped = True
            if np.any(np.abs(expected - found.central) > DISAGREE * found.central_error):
                found = rounding.widened(found, label)
                if rounding.by_rule_gives(label, claimed[label]):
                    off = np.abs(expected - found.central) > AGREE * found.central_error
                    found, array.unseen = found.without(off), True
            if stops:
                off = np.abs(chosen.of(by_autodiff[label], outer) - found.central)
                array.bent |= bool(np.any((off > AGREE * found.central_error) & ~found.kink))
            comparison = Comparison(expected, found, chosen.entries, np.shape(claimed[label]))
            (array.further if further or number >= DRAWS else array.first).append(comparison)


@dataclass
class _Rounding:
    """What may excuse a disagreement at one draw; measured where there is one, and then once."""

    problem: Problem
    sizes: dict[str, int]
    loss: Traceable
    inputs: dict[str, Any]
    unit: float

    @functools.cached_property
    def of_loss(self) -> tuple[Any, float]:
        """How far random rounding moves the loss, and the smallest step."""
        moving = labelled({name: self.inputs[name] for name in self.problem.wrt})
        moves = movement(self.loss, self.unit, self.inputs, options=check_options())
        return moves, step_scales(moving).min(initial=1.0)

    @functools.cached_property
    def of_constants(self) -> dict[str, np.ndarray]:
        """How far low-precision constants may set both sides apart."""
        return explained_by_constants(self.problem, self.sizes, self.loss, self.inputs)

    @functools.cached_property
    def by_rule(self) -> dict[str, np.ndarray]:
        """The gradient by JAX's own rules, where it is meant to be the slope and JAX has one."""
        return _by_jax_alone(self.problem, self.loss, self.inputs)

    def widened(self, found: Slope, label: str) -> Slope:
        """Widen error estimates by what rounding does to the loss and to the closed form."""
        found = found.blur(*self.of_loss)
        found = found.coarser(self.of_constants[label].max(initial=0.0) * GAP / DISAGREE)
        closed = self.problem.closed_form(self.sizes)
        if (unit := working_unit(closed.program(self.inputs)[0])) > self.unit:
            own = labelled(movement(closed, unit, self.inputs, options=check_options()))
            found = found.coarser(own[label].max(initial=0.0))
        return found

    def by_rule_gives(self, label: str, claimed: np.ndarray) -> bool:
        """Say whether JAX's own rules give an array of the closed form, up to rounding."""
        if label not in self.by_rule:
            return False
        gradient = Picked(self.problem.differentiated(self.loss), lambda result: result[1])
        moves = [
            labelled(movement(side, self.unit, self.inputs, options=check_options()))[label]
            for side in (self.problem.closed_form(self.sizes), gradient)
        ]
        size = self.unit * np.abs(self.by_rule[label]).max(initial=0.0)
        room = GAP * SAFETY * max(*(move.max(initial=0.0) for move in moves), size)
        return bool(np.all(np.abs(self.by_rule[label] - claimed) <= room))


def _by_jax_alone(problem: Problem, loss: Traceable, inputs: Any) -> dict[str, np.ndarray]:
    """Return the gradient by JAX's own rules; nothing where it is not meant to be the slope."""
    if has_own_rules(loss.program(inputs)[0]):
        from jaxgrad.jaxprs.differentiation import without_rules  # which few claims need

        stripped = loss
        loss = problem.once(
            ("without rules", stripped), lambda: TracedOnce(without_rules(stripped))
        )
    if not by_jax_alone(loss.program(inputs)[0]):
        return {}
    try:
        gradient = Program(problem.differentiated(loss), check_options())(inputs)[1]
    except Exception:  # what has a rule of its own may be what JAX cannot differentiate
        return {}
    return {label: np.asarray(x) for label, x in labelled(gradient).items()}


def _judge(
    label: str, seen: _Seen, comparisons: list[Comparison], seconds: float, where: str
) -> Finding:
    """Judge one array by some comparisons.

    Where the loss uses stop_gradient, its gradient need not be the slope; that of JAX's own
    log-sum-exp, which uses it, is.
    """
    worst: tuple[int, float, float] | None = None
    verdicts, kinks, entries, detectable, vacuous = set(), 0, 0, 0.0, True
    for c in comparisons:
        usable = c.usable
        kinks += int(np.sum(c.slope.kink))
        entries += int(np.sum(usable))
        slope = np.where(np.isfinite(c.slope.central), c.slope.central, 0.0)
        scale = float(np.max(np.maximum(np.abs(c.claimed), np.abs(slope)), initial=0.0)) or 1.0
        vacuous &= not np.any(slope) and not np.any(c.claimed)
        if not np.all(np.isfinite(c.claimed)) or not usable.any():
            verdicts.add(Verdict.UNDECIDED)
            continue
        error, estimate = c.error[usable], c.slope.central_error[usable]
        disagrees, doubtful = error > DISAGREE * estimate, error > AGREE * estimate
        if np.any(disagrees):
            verdicts.add(Verdict.REFUTED)
        elif np.any(doubtful) or np.sum(usable) < 0.9 * np.sum(~c.slope.kink):
            verdicts.add(Verdict.UNDECIDED)
        else:
            verdicts.add(Verdict.CONFIRMED)
        detectable = max(detectable, float(AGREE * estimate.max() / scale))
        i = largest(error, disagrees, doubtful)
        measured = (
            int(disagrees[i]) + int(doubtful[i]),
            float(error[i] / scale),
            float(AGREE * estimate[i] / scale),
        )
        worst = measured if worst is None else max(worst, measured)
    verdict, reason = Verdict.UNDECIDED, "some differences do not converge"
    if seen.bent or (seen.stopped and Verdict.REFUTED not in verdicts):
        reason = "the loss uses stop_gradient, so its gradient is not meant to be the slope"
    elif Verdict.REFUTED in verdicts:
        verdict = Verdict.REFUTED
    elif detectable > COARSEST:
        reason = f"differences see no errors below {detectable:.1g} of the largest entry here"
    elif verdicts == {Verdict.CONFIRMED}:
        verdict = Verdict.CONFIRMED
    elif seen.unseen:
        reason = (
            "autodiff agrees with the closed form and differences do not: the loss may vary "
            "faster than their steps"
        )
    shown = max(
        comparisons,
        key=lambda c: np.max(np.nan_to_num(c.standardised[: len(c.entries)], nan=0.0), initial=0.0),
    )
    _, error, bound = worst or (0, None, None)
    zero = vacuous and verdict == Verdict.CONFIRMED
    return Finding(
        evidence="differences",
        wrt=label,
        verdict=verdict,
        error=error,
        bound=bound,
        detectable=detectable or None,
        seconds=seconds,
        detail=f"{entries} derivatives by extrapolated differences at {where}"
        + (f"; {kinks} left out at kinks" if kinks else "")
        + (f"; {reason}" if verdict == Verdict.UNDECIDED else ""),
        warning="vacuous: the loss does not change with this input" if zero else "",
        pictures=(shown.picture(verdict != Verdict.CONFIRMED),),
    )
