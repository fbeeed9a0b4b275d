"""Finite differences of the loss's value: the vote that does not trust automatic differentiation.

Slopes come from `jaxgrad.evidence.numerical.slopes`. What varies over less than their finest step
may be too small beside the rest of the loss to be seen in its values. So differences do not refute
what autodiff confirms by JAX's own rules alone; where a loss brings rules of its own they do.
"""

import time
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgrad.claims.shapes import sizes_text
from jaxgrad.evidence.noise.low_precision_constants import explained_by_constants
from jaxgrad.evidence.noise.random_rounding import movement
from jaxgrad.evidence.noise.rounding import GAP, SAFETY, largest, roughly_equal
from jaxgrad.evidence.numerical.autodiff import BRANCHED_DRAWS, DRAWS, SMALL
from jaxgrad.evidence.numerical.slopes import AGREE, Prober, Slope, step_scales
from jaxgrad.evidence.problem import Problem, labelled
from jaxgrad.jaxprs.traced import (
    Picked,
    Traceable,
    TracedOnce,
    by_jax_alone,
    has_own_rules,
    has_stop_gradient,
    working_unit,
)
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.reports.pictures import Heat, heat
from jaxgrad.runtime.compiled import Program
from jaxgrad.runtime.options import check_options

DISAGREE = 1000.0
"""An error beyond this many error estimates disagrees; in between nothing is said."""
MAX_ENTRIES = 256
"""So many entries of each array are differenced one by one; where there are more, a random choice
of them is.
"""
MIN_ENTRIES = 4
"""So many are at the least."""
WORK = 2**23
"""Numbers that the inputs may hold over all entries differenced: with large inputs fewer entries
are.
"""
DIRECTIONS = 8
"""So many random directions at the most, half as many as entries, through all entries at once, join
where entries were left out.
"""


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
    tallies: dict[str, list[_Tally]] = {}
    stopped: set[str] = set()
    bent: set[str] = set()
    unseen: set[str] = set()
    for i, (sizes, loss) in enumerate(losses if own else losses[:1]):
        _difference_at(
            problem,
            sizes,
            loss,
            DRAWS + BRANCHED_DRAWS * few,
            i > 0,
            tallies,
            stopped,
            bent,
            unseen,
        )
    seconds = (time.perf_counter() - start) / max(1, len(tallies))
    where = sizes_text(losses[0][0])
    findings = []
    for label, every in tallies.items():
        first, further = ([t for t in every if t.further == later] for later in (False, True))
        finding = _judge(
            label, first, seconds, where, label in stopped, label in bent, label in unseen
        )
        if finding.verdict == Verdict.CONFIRMED and further:
            if any(
                t.refutes for t in further
            ):  # where differences do not converge at first, they may seem to at one of many draws
                worst = [*first, *(t for t in further if t.refutes)]
                finding = _judge(
                    label,
                    worst,
                    seconds,
                    f"{where} and at further draws",
                    label in stopped,
                    label in bent,
                    label in unseen,
                )
            else:
                finding = replace(
                    finding, detail=f"{finding.detail}, and at {len(further)} further draws"
                )
        findings.append(finding)
    return findings


def _difference_at(
    problem: Problem,
    sizes: dict[str, int],
    loss: Traceable,
    draws: int,
    further: bool,
    tallies: dict[str, list["_Tally"]],
    stopped: set[str],
    bent: set[str],
    unseen: set[str],
) -> None:
    wrt = problem.wrt
    prober = Prober(loss, wrt)
    inputs = problem.draw(sizes, 0)
    program = loss.program(inputs)[0]
    meant, unit = has_stop_gradient(program), working_unit(program)
    closed = problem.closed_form(sizes)
    differentiated = Program(problem.differentiated(loss), check_options())
    for number in range(draws):
        problem.report_progress("differences", number / draws, "")
        inputs = problem.draw(sizes, number)
        claimed, jitter, constants = problem.claimed(sizes, number), None, None
        reference_of = labelled(differentiated(inputs)[1]) if meant else claimed
        moving = labelled({name: inputs[name] for name in wrt})
        most = int(
            np.clip(
                WORK // sum(np.size(x) for x in jax.tree.leaves(inputs)), MIN_ENTRIES, MAX_ENTRIES
            )
        )
        plans = _plan(
            {label: np.size(x) for label, x in moving.items()},
            np.random.default_rng([problem.seed, number]),
            most,
        )
        index = np.concatenate([plan.probes for plan in plans])
        directions = np.concatenate([plan.directions for plan in plans])
        slope = prober.slopes(inputs, index, directions, unit, number)
        first = 0
        for label, plan in zip(moving, plans, strict=True):
            expected = plan.seen(claimed[label], slope.central.ndim - 1)
            rows = slice(first, first + len(expected))
            found = Slope(*(part[rows] for part in slope))
            if meant and not roughly_equal(claimed[label], reference_of[label]):
                stopped.add(label)
            if np.any(np.abs(expected - found.central) > DISAGREE * found.central_error):
                jitter = (
                    jitter
                    if jitter is not None
                    else movement(loss, unit, inputs, options=check_options())
                )
                found = found.blur(jitter, step_scales(moving).min(initial=1.0))
                constants = constants or explained_by_constants(problem, sizes, loss, inputs)
                found = found.coarser(constants[label].max(initial=0.0) * GAP / DISAGREE)
                if (rounding := working_unit(closed.program(inputs)[0])) > unit:
                    own = labelled(movement(closed, rounding, inputs, options=check_options()))
                    found = found.coarser(own[label].max(initial=0.0))
                by_rule = _by_jax_alone(problem, loss, inputs).get(label)
                if by_rule is not None and _equal_to_rounding(
                    problem, sizes, loss, inputs, label, claimed[label], by_rule, unit
                ):
                    found = found.without(
                        np.abs(expected - found.central) > AGREE * found.central_error
                    )
                    unseen.add(label)
            by_autodiff = plan.seen(reference_of[label], slope.central.ndim - 1)
            if meant and np.any(
                (np.abs(by_autodiff - found.central) > AGREE * found.central_error) & ~found.kink
            ):
                bent.add(label)
            tallies.setdefault(label, []).append(
                _Tally(
                    expected,
                    found,
                    plan.entries,
                    np.shape(claimed[label]),
                    further or number >= DRAWS,
                )
            )
            first += len(expected)


def _by_jax_alone(problem: Problem, loss: Traceable, inputs: Any) -> dict[str, np.ndarray]:
    """Return the gradient of a loss by JAX's own rules; nothing where it is not meant to be the
    slope, or JAX has none.
    """
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


def _equal_to_rounding(
    problem: Problem,
    sizes: dict[str, int],
    loss: Traceable,
    inputs: Any,
    label: str,
    claimed: np.ndarray,
    by_rule: np.ndarray,
    unit: float,
) -> bool:
    """Say whether an array of the closed form is what autodiff gives, as far as rounding of the two
    tells.
    """
    sides = (
        problem.closed_form(sizes),
        Picked(problem.differentiated(loss), lambda result: result[1]),
    )
    moves = [
        labelled(movement(side, unit, inputs, options=check_options()))[label].max(initial=0.0)
        for side in sides
    ]
    room = GAP * SAFETY * max(*moves, unit * np.abs(by_rule).max(initial=0.0))
    return bool(np.all(np.abs(by_rule - claimed) <= room))


class _Plan(NamedTuple):
    """What is differenced of one array: some entries, and directions through all of them where
    there are many.
    """

    entries: np.ndarray
    directions: np.ndarray
    part: slice
    probes: np.ndarray

    def seen(self, array: Any, outer: int) -> np.ndarray:
        """Return of a gradient, or Jacobian of so many outer axes, what is differenced of it."""
        shape = np.shape(array)[:outer]
        flat = np.moveaxis(np.asarray(array, np.float64).reshape(*shape, -1), -1, 0)
        along = self.directions[:, self.part] @ flat.reshape(len(flat), -1)
        return np.concatenate([flat[self.entries], along.reshape(-1, *shape)])


class _Tally(NamedTuple):
    claimed: np.ndarray
    slope: Slope
    entries: np.ndarray
    shape: tuple[int, ...]
    further: bool

    @property
    def usable(self) -> np.ndarray:
        """Where there is something to compare."""
        return ~self.slope.kink & np.isfinite(self.slope.central_error) & np.isfinite(self.claimed)

    @property
    def refutes(self) -> bool:
        """Whether differences converge, and to another derivative than is claimed."""
        error = np.abs(self.claimed - self.slope.central)
        every = np.all(self.usable | self.slope.kink)
        return bool(every and np.any(self.usable & (error > DISAGREE * self.slope.central_error)))

    @property
    def standardised(self) -> np.ndarray:
        """Errors in units of what is still agreed to; NaN at kinks, which are left out."""
        with np.errstate(all="ignore"):
            off = np.abs(self.claimed - self.slope.central)
            ratio = np.where(off == 0, 0.0, off / (AGREE * self.slope.central_error))
        return np.where(self.slope.kink & np.isfinite(self.claimed), np.nan, ratio)

    def picture(self, values: bool) -> Heat:
        """Lay the entries that were differenced out in their array, with both sides' values where
        asked for.
        """
        outer = self.claimed.shape[1:]

        def spread(column: np.ndarray) -> np.ndarray:
            whole = np.full((int(np.prod(self.shape[len(outer) :], dtype=int)), *outer), np.nan)
            whole[self.entries] = column[: len(self.entries)]
            return np.moveaxis(whole, 0, -1).reshape(self.shape)

        ratio, claimed = spread(self.standardised), spread(self.claimed)
        compared = spread(~(self.slope.kink & np.isfinite(self.claimed))) == 1
        both = (
            {"closed": claimed, "reference": spread(self.slope.central), "against": "differences"}
            if values
            else {}
        )
        return heat(np.where(np.isfinite(claimed), ratio, np.nan), 1.0, compared=compared, **both)


def _plan(sizes: dict[str, int], rng: np.random.Generator, most: int) -> list[_Plan]:
    plans, begin, used, total = [], 0, 0, sum(sizes.values())
    for size in sizes.values():
        part = slice(begin, begin + size)
        if size <= most:
            entries, directions = np.arange(size), np.zeros((0, total))
        else:
            many = min(DIRECTIONS, most // 2)
            entries, directions = (
                np.sort(rng.choice(size, most, replace=False)),
                np.zeros((many, total)),
            )
            directions[:, part] = rng.standard_normal((many, size))
        index = np.concatenate([begin + entries, -1 - used - np.arange(len(directions))])
        plans.append(_Plan(entries, directions, part, index))
        begin, used = begin + size, used + len(directions)
    return plans


def _judge(
    label: str,
    tallies: list[_Tally],
    seconds: float,
    where: str,
    stopped: bool,
    bent: bool,
    unseen: bool,
) -> Finding:
    """Judge one array.

    Where the loss uses stop_gradient, `stopped` says whether the closed form is something else than
    what autodiff gives, and `bent` whether that is something else than the slope: of JAX's own
    log-sum-exp, which uses it, it is not. `unseen` says whether derivatives were given up, since
    autodiff sides with the closed form against them.
    """
    worst: tuple[int, float, float] | None = None
    verdicts, kinks, entries, detectable, vacuous = set(), 0, 0, 0.0, True
    for tally in tallies:
        error = np.abs(tally.claimed - tally.slope.central)
        estimate = tally.slope.central_error
        usable = tally.usable
        kinks += int(np.sum(tally.slope.kink))
        entries += int(np.sum(usable))
        seen = np.where(np.isfinite(tally.slope.central), tally.slope.central, 0.0)
        scale = float(np.max(np.maximum(np.abs(tally.claimed), np.abs(seen)), initial=0.0)) or 1.0
        vacuous &= not np.any(seen) and not np.any(tally.claimed)
        if not np.all(np.isfinite(tally.claimed)) or not usable.any():
            verdicts.add(Verdict.UNDECIDED)
            continue
        error, estimate = error[usable], estimate[usable]
        disagrees, doubtful = error > DISAGREE * estimate, error > AGREE * estimate
        if np.any(disagrees):
            verdicts.add(Verdict.REFUTED)
        elif np.any(doubtful) or np.sum(usable) < 0.9 * np.sum(~tally.slope.kink):
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
    detail = f"{entries} derivatives by extrapolated differences at {where}" + (
        f"; {kinks} at kinks left out" if kinks else ""
    )
    if bent or (stopped and Verdict.REFUTED not in verdicts):
        verdict = Verdict.UNDECIDED
        detail += (
            "; the loss uses stop_gradient, and by intent its gradient is not the slope of "
            "its value"
        )
    elif Verdict.REFUTED in verdicts:
        verdict = Verdict.REFUTED
    elif verdicts == {Verdict.CONFIRMED} and detectable <= 1e-2:
        verdict = Verdict.CONFIRMED
    else:
        verdict = Verdict.UNDECIDED
        reason = (
            "autodiff gives what is claimed and differences do not: the loss may vary over less "
            "than their steps"
            if unseen
            else ""
        )
        reason = reason or "some differences do not converge"
        detail += "; " + (
            f"differences see no errors below {detectable:.1g} here"
            if detectable > 1e-2
            else reason
        )
    worst_draw = max(
        tallies,
        key=lambda t: np.max(np.nan_to_num(t.standardised[: len(t.entries)], nan=0.0), initial=0.0),
    )
    _, error, bound = worst or (0, None, None)
    return Finding(
        evidence="differences",
        wrt=label,
        verdict=verdict,
        error=error,
        bound=bound,
        detectable=detectable or None,
        seconds=seconds,
        detail=detail,
        warning="vacuous: the loss does not change with this input"
        if vacuous and verdict == Verdict.CONFIRMED
        else "",
        pictures=(worst_draw.picture(verdict != Verdict.CONFIRMED),),
    )
