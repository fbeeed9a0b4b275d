"""The closed form against reverse-mode differentiation, both in float64, entry by entry.

Two kinds of draws are compared. Generic ones, at several sizes, with the bounds of
`jaxgrad.evidence.noise.rounding`. And special ones, with exact zeros and ties: there conventions at
kinks show, and only errors in the leading digits count. At one larger choice of sizes the leading
digits at one draw are looked at, in numpy, since most mistakes show there that need many entries to
show.

An entry where the two disagree is not refuted before differences of the loss have spoken: where
these side with the closed form, the loss's own differentiation rule is what is wrong, or autodiff
has lost a derivative at a kink that cancels. At a kink, a closed form that chooses another
derivative between the two one-sided ones is told of, and refuted only where the claim's own domain
draws the kink: then which derivative is taken there is part of the claim. Where differences are too
coarse to speak, autodiff is believed if it used no rules but JAX's own; and so it is where it
disagrees with the closed form a little aside of the point too, for then the loss varies too quickly
for differences.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad.claims.labels import sweep
from jaxgrad.claims.shapes import sizes_text
from jaxgrad.evidence.noise.low_precision_constants import constant_unit
from jaxgrad.evidence.noise.random_rounding import movement
from jaxgrad.evidence.noise.rounding import (
    COPIES,
    GAP,
    SAFETY,
    Comparison,
    compare,
    noisy_copies,
    repeated,
    roughly_equal,
    widen,
)
from jaxgrad.evidence.numerical.ledgers import Ledger, judge, worse
from jaxgrad.evidence.numerical.pairs import Pair
from jaxgrad.evidence.numerical.slopes import step_scales
from jaxgrad.evidence.problem import Problem, labelled
from jaxgrad.jaxprs.cost import estimate
from jaxgrad.jaxprs.numpy_run import floating, leaves_range
from jaxgrad.jaxprs.traced import Traceable, by_jax_alone, equations, has_own_rules, working_unit
from jaxgrad.reports.finding import Finding
from jaxgrad.runtime.options import check_options

DRAWS = 2
"""Generic draws at each choice of sizes."""
SPECIAL_DRAWS = 4
"""Draws from the corners of the domains at each choice of sizes."""
BRANCHED_DRAWS = 30
"""Further generic draws at each choice of sizes where the programs branch, so that an error in one
branch is not missed.
"""
BRANCHES = frozenset(
    "select_n cond max min reduce_max reduce_min cummax cummin reduce_window_max "
    "reduce_window_min select_and_scatter_add "
    "select_and_gather_add scatter-max scatter-min sort top_k sign abs clamp floor ceil "
    "round rem".split()
)
"""Steps that do one thing at some inputs and another at others; so does each that makes of real
numbers what is none, as > does.
"""
COARSE = 1e-6
"""At special draws, errors below this part of the gradient's largest entry are taken for
rounding.
"""

ASIDE = 1e-7
"""How far aside of a point, in units of an array's largest entry, it is asked whether autodiff is
right there.
"""

SMALL = 2**16
"""Draws of up to so many numbers are differenced at several entries, and stacks of up to so many
hold further draws.
"""

BEYOND = 2**27
"""The most work, in the units of `jaxgrad.jaxprs.cost`, of a program that is looked at at larger
sizes: about a tenth of a second in numpy.
"""

LossOf = Callable[[dict[str, int]], Traceable]


def autodiff(
    problem: Problem,
    variants: list[dict[str, int]],
    loss_of: LossOf,
    evidence: str = "autodiff",
    beyond: dict[str, int] | None = None,
) -> list[Finding]:
    """Compare the closed form with autodiff of the loss, or of its exact expectation.

    Args:
        problem: the claim.
        variants: choices of sizes.
        loss_of: gives at each choice the function of the inputs that is differentiated.
        evidence: name of the findings.
        beyond: larger sizes, at which a refutation counts, and nothing else.

    Returns:
        One finding for each array of the gradient.
    """
    start = time.perf_counter()
    ledgers: dict[str, Ledger] = {}
    for i, sizes in enumerate(variants):
        problem.report_progress(evidence, i / len(variants), sizes_text(sizes))
        if ledgers and all(ledger.refuted for ledger in ledgers.values()):
            break
        _compare_at(problem, Pair(problem, sizes, loss_of(sizes)), ledgers)
    where = (
        f"{DRAWS} draws at each of {len(variants)} choices of sizes"
        if len(variants) > 1
        else f"{DRAWS} draws at {sizes_text(variants[0])}"
    )
    if (
        beyond is not None
        and not all(ledger.refuted for ledger in ledgers.values())
        and _agree_beyond(problem, beyond, loss_of, ledgers)
    ):
        where += f" and one at {sizes_text(beyond)}"
    seconds = (time.perf_counter() - start) / max(1, len(ledgers))
    return [judge(evidence, label, ledger, where, seconds) for label, ledger in ledgers.items()]


def _compare_at(problem: Problem, pair: Pair, ledgers: dict[str, Ledger]) -> None:
    draws = [problem.draw(pair.sizes, number) for number in range(DRAWS)]
    special = [problem.draw(pair.sizes, number, special=True) for number in range(SPECIAL_DRAWS)]
    programs = pair.programs(draws[0])
    further = _further_draws(problem, pair, draws[0], programs)
    once = jax.tree.map(lambda *x: np.stack(x), *special, *further)
    unit = max(map(working_unit, programs))
    copied = [noisy_copies(draw, unit, number, pair.discrete) for number, draw in enumerate(draws)]
    claimed, reference, losses = pair(jax.tree.map(lambda *x: np.concatenate(x), *copied, once))
    finite, rows = np.isfinite(losses), COPIES + 1
    for number in range(DRAWS):
        problem.remember(
            pair.sizes, number, {label: array[number * rows] for label, array in claimed.items()}
        )
    for label in claimed:
        ledger = ledgers.setdefault(label, Ledger())
        for number, draw in enumerate(draws):
            if ledger.refuted:
                break
            if not finite[number * rows]:
                ledger.generic, ledger.vacuous = ledger.generic + 1, False
                ledger.doubts.append(
                    f"the loss is not finite at {sizes_text(pair.sizes)}; give its inputs a "
                    f"narrower domain"
                )
                continue
            part = slice(number * rows, (number + 1) * rows)
            found = compare(claimed[label][part], reference[label][part], unit)
            if not np.all(found.agrees) and np.all(np.isfinite(found.error)):
                single, double, moves = (
                    [side[label] for side in sides]
                    for sides in pair.rounded(copied[number], number, unit)
                )
                found = widen(found, single, double, moves, unit)
                if not np.all(found.agrees):
                    explained = pair.explained_by_constants(draw)[label]
                    found = found.allowing(explained)
                    if np.any((explained > 0) & (found.error <= explained)):
                        coarse = constant_unit(*programs)
                        ledger.notes.append(
                            f"constants come from a type of unit roundoff {coarse:.1g}; in "
                            f"float64 smaller errors would show"
                        )
            _enter_generic(
                ledger,
                found,
                pair,
                draw,
                label,
                claimed[label][part][0],
                reference[label][part][0],
                unit,
            )
        for number, draw in enumerate(special):
            row = DRAWS * rows + number
            if not ledger.refuted and finite[row]:
                _enter_special(
                    ledger, pair, draw, label, claimed[label][row], reference[label][row], unit
                )
        for number, draw in enumerate(further, start=DRAWS * rows + len(special)):
            if not ledger.refuted and finite[number]:
                _enter_further(
                    ledger,
                    pair,
                    draw,
                    label,
                    claimed[label][number],
                    reference[label][number],
                    unit,
                )


def _agree_beyond(
    problem: Problem, sizes: dict[str, int], loss_of: LossOf, ledgers: dict[str, Ledger]
) -> bool:
    """Say whether both sides have the same leading digits at a draw of larger sizes; where not, see
    whether that refutes them.
    """
    try:
        pair, draw = Pair(problem, sizes, loss_of(sizes)), problem.draw(sizes, 0)
        programs = pair.programs(draw)
        if any(estimate(program.jaxpr, 1) > BEYOND for program in programs):
            return False
        claimed, reference = (floating(program, jax.tree.leaves(draw)) for program in programs)
        if claimed is not None and reference is not None:
            pairs = zip(
                claimed, reference[-len(claimed) :], strict=True
            )  # the gradient follows the value
            if all(roughly_equal(c, r, COARSE) for c, r in pairs):
                return True
        if any(leaves_range(program, jax.tree.leaves(draw)) for program in programs):
            return False
        seen: dict[str, Ledger] = {}
        _compare_at(problem, pair, seen)
    except Exception:  # a claim may be made for some sizes alone, and refuse others
        return False
    ledgers.update(
        {
            label: ledger
            for label, ledger in seen.items()
            if ledger.refuted and not ledgers[label].refuted
        }
    )
    return False


def _further_draws(problem: Problem, pair: Pair, draw: Any, programs: Sequence[Any]) -> list[Any]:
    """Return more draws where programs branch or inputs are discrete, so that an error in one
    branch or at one label is not missed.
    """
    entries = max(1, sum(np.size(leaf) for leaf in jax.tree.leaves(draw)))
    branches = any(_branches(eqn) for program in programs for eqn in equations(program.jaxpr))
    if not (branches or pair.discrete) or entries > SMALL // BRANCHED_DRAWS:
        return []
    further = [problem.draw(pair.sizes, number) for number in range(DRAWS, DRAWS + BRANCHED_DRAWS)]
    swept = sweep(
        problem.derivation, pair.sizes, sorted(problem.discrete(pair.sizes) - set(problem.given))
    )
    room = SMALL // entries - BRANCHED_DRAWS
    return further + [
        {**further[i % BRANCHED_DRAWS], **labels} for i, labels in enumerate(swept[:room])
    ]


def _branches(eqn: Any) -> bool:
    """Say whether an equation does one thing at some inputs and another at others."""
    real, made = (
        [jnp.issubdtype(v.aval.dtype, np.floating) for v in side]
        for side in (eqn.invars, eqn.outvars)
    )
    return eqn.primitive.name in BRANCHES or (any(real) and not any(made))


def _enter_generic(
    ledger: Ledger,
    found: Comparison,
    pair: Pair,
    draw: Any,
    label: str,
    claimed: np.ndarray,
    reference: np.ndarray,
    unit: float,
) -> None:
    ledger.generic += 1
    ledger.seen = worse(ledger.seen, (found.error, found.bound, claimed, reference))
    if not np.all(np.isfinite(found.error)):
        side = "autodiff" if not np.all(np.isfinite(reference)) else "the closed form"
        ledger.doubts.append(f"{side} is not finite at {sizes_text(pair.sizes)}")
        ledger.vacuous = False
        return
    ledger.scale = max(ledger.scale, found.scale)
    ledger.rounding = max(ledger.rounding, float(found.bound.max(initial=0.0)))
    scale = found.scale or 1.0
    ledger.meet(found.magnitude, found.bound)
    if np.any(found.magnitude > found.bound):
        ledger.detectable = max(ledger.detectable, float(found.bound.max()) / scale)
    else:
        ledger.hidden = max(ledger.hidden, float(found.bound.max(initial=0.0)))
    if found.error.size:
        i = found.worst
        ledger.measure(
            float(found.error[i]),
            float(found.bound[i]),
            scale,
            int(found.disagrees[i]) + int(not found.agrees[i]),
        )
    if np.any(found.disagrees):
        _adjudicate(ledger, pair, draw, label, claimed, reference, found.disagrees, unit, "")
    elif not np.all(found.agrees):
        ledger.doubts.append(
            f"an entry is off by more than rounding was seen to explain, but by less than {GAP:g} "
            f"times that"
        )


def _enter_special(
    ledger: Ledger,
    pair: Pair,
    draw: Any,
    label: str,
    claimed: np.ndarray,
    reference: np.ndarray,
    unit: float,
) -> None:
    if not np.all(np.isfinite(reference)):
        ledger.notes.append("autodiff is not finite at exact zeros or ties")
        return
    if not np.all(np.isfinite(claimed)):
        ledger.notes.append(
            "the closed form is not finite at exact zeros or ties, where autodiff is"
        )
        return
    ledger.special += 1
    scale = max(np.abs(claimed).max(initial=0.0), np.abs(reference).max(initial=0.0), ledger.scale)
    rounding = ledger.rounding
    if (
        pair.problem.given and GAP * rounding > COARSE * scale
    ):  # noise may have moved the data off a kink that they meet
        rounding = min(rounding, SAFETY * float(pair.moved(draw, unit)[label].max(initial=0.0)))
    _enter_roughly(
        ledger,
        pair,
        draw,
        label,
        claimed,
        reference,
        unit,
        scale,
        " at exact zeros or ties",
        rounding,
    )


def _enter_further(
    ledger: Ledger,
    pair: Pair,
    draw: Any,
    label: str,
    claimed: np.ndarray,
    reference: np.ndarray,
    unit: float,
) -> None:
    if not np.all(np.isfinite(reference)) or not np.all(np.isfinite(claimed)):
        return
    ledger.further += 1
    ledger.meet(np.maximum(np.abs(claimed), np.abs(reference)), GAP * ledger.rounding)
    scale = max(np.abs(claimed).max(initial=0.0), np.abs(reference).max(initial=0.0))
    _enter_roughly(
        ledger,
        pair,
        draw,
        label,
        claimed,
        reference,
        unit,
        scale,
        " at a further draw",
        ledger.rounding,
    )


def _enter_roughly(
    ledger: Ledger,
    pair: Pair,
    draw: Any,
    label: str,
    claimed: np.ndarray,
    reference: np.ndarray,
    unit: float,
    scale: float,
    where: str,
    rounding: float,
) -> None:
    """Compare the leading digits, where rounding was not measured; what constants of a narrow type
    may explain is a doubt.
    """
    error = np.abs(claimed - reference)
    bound = max(COARSE * scale, GAP * rounding)
    wrong = error > bound
    if not np.any(wrong):
        return
    explained = pair.explained_by_constants(draw)[label]
    beyond = wrong & (error > GAP * explained)
    if np.any(beyond):
        _adjudicate(ledger, pair, draw, label, claimed, reference, beyond, unit, where)
        if ledger.refuted:
            ledger.see(error, bound, beyond, claimed, reference, scale)
    elif np.any(wrong & (error > explained)):
        ledger.doubt(error, bound, scale, where)


def _adjudicate(
    ledger: Ledger,
    pair: Pair,
    draw: Any,
    label: str,
    claimed: np.ndarray,
    reference: np.ndarray,
    wrong: np.ndarray,
    unit: float,
    where: str,
) -> None:
    """Let differences decide on the worst entries at which closed form and autodiff disagree."""
    error = np.where(wrong, np.abs(claimed - reference), -1.0)
    most = (
        8 if sum(np.size(leaf) for leaf in jax.tree.leaves(draw)) <= SMALL else 1
    )  # each takes some twenty losses
    worst = [
        np.unravel_index(i, error.shape)
        for i in np.argsort(error, axis=None)[::-1][:most]
        if error.flat[i] > 0
    ]
    inner = claimed.ndim - len(np.shape(labelled({n: draw[n] for n in pair.wrt})[label]))
    slopes = _slopes_at(pair, draw, label, [index[inner:] for index in worst], unit)
    program = pair.loss.program(draw)[0]
    trusted = by_jax_alone(program)
    for row, index in enumerate(worst):
        c, r = float(claimed[index]), float(reference[index])
        off, outer = abs(c - r), index[:inner]
        d, e = slopes.central[row][outer], slopes.central_error[row][outer]
        left, right, side = (
            slopes.left[row][outer],
            slopes.right[row][outer],
            slopes.side_error[row][outer],
        )
        if side < off / 10 and abs(right - left) > max(10 * side, off / 10):
            low, high = min(left, right) - off / 10, max(left, right) + off / 10
            kink = (
                f"{_entry(index, claimed, reference, pair, where)}; a kink, with one-sided "
                f"derivatives {left:.6g} and {right:.6g}"
            )
            if not low <= r <= high and low <= c <= high:
                ledger.doubts.append(kink)
            elif where and low <= c <= high:
                ledger.notes.append(kink)  # a convention, and nobody said that it matters
            else:
                ledger.refuted.append(kink)
                return
        elif not e < off / 10 and not where and not has_own_rules(program):
            ledger.refuted.append(_entry(index, claimed, reference, pair, where))
            return
        elif not e < off / 10:
            ledger.doubts.append(
                f"closed form and autodiff disagree at entry {_index(index)}{where} ({c:.6g} and "
                f"{r:.6g}), and differences do "
                "not converge there"
            )
        elif abs(d - c) < off / 4 and (not trusted or _right_nearby(pair, draw, label, index, off)):
            ledger.doubts.append(
                f"at entry {_index(index)}{where} autodiff gives {r:.6g}, but differences of the "
                f"loss give {d:.6g} as the closed "
                "form does: the loss's own differentiation rule is wrong there, or its "
                "stop_gradient is meant"
            )
        else:
            ledger.refuted.append(
                _entry(index, claimed, reference, pair, where) + f", differences {d:.6g}"
            )
            return


def _right_nearby(pair: Pair, draw: Any, label: str, index: Any, off: float) -> bool:
    """Say whether autodiff agrees with the closed form a little aside, so that it is but at this
    point that it loses a derivative.
    """
    rng = np.random.default_rng(0)

    def aside(x: Any) -> np.ndarray:
        x = np.asarray(x)
        moves = (
            ASIDE
            * (np.abs(x).max(initial=0.0) or 1.0)
            * rng.uniform(0.5, 1, (COPIES, *x.shape))
            * rng.choice((-1, 1), x.shape)
        )
        return x + moves if np.issubdtype(x.dtype, np.floating) else still(x)

    def still(x: Any) -> np.ndarray:
        return repeated(x, COPIES)

    moved = {
        name: jax.tree.map(still if name in pair.discrete else aside, tree)
        for name, tree in draw.items()
    }
    claimed, reference, _ = pair(moved)
    return bool(np.all(np.abs(claimed[label] - reference[label])[(slice(None), *index)] < off / 4))


def _slopes_at(
    pair: Pair, draw: Any, label: str, entries: list[tuple[int, ...]], unit: float
) -> Any:
    moving = labelled({name: draw[name] for name in sorted(pair.wrt)})
    begin = 0
    for other, array in moving.items():
        if other == label:
            break
        begin += np.size(array)
    index = np.array(
        [
            begin + int(np.ravel_multi_index(e, np.shape(moving[label]))) if e else begin
            for e in entries
        ]
    )
    total = sum(np.size(a) for a in moving.values())
    index = np.resize(index, 8)  # always as many, so that one compilation serves
    slopes = pair.prober.slopes(draw, index, np.zeros((0, total)), unit)
    # a loss whose large terms cancel exactly, as 1 − 1, looks free of rounding in its values
    return slopes.blur(
        movement(pair.loss, unit, draw, options=check_options()),
        step_scales(moving).min(initial=1.0),
    )


def _entry(
    index: tuple[int, ...], claimed: np.ndarray, reference: np.ndarray, pair: Pair, where: str
) -> str:
    return (
        f"entry {_index(index)} at {sizes_text(pair.sizes)}{where}: closed form "
        f"{claimed[index]:.6g}, autodiff {reference[index]:.6g}"
    )


def _index(index: tuple[int, ...]) -> str:
    return "[" + ", ".join(str(int(i)) for i in index) + "]"
