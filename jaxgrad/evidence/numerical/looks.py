"""One look: an array of the closed form and of autodiff's gradient, at one draw of the inputs.

At a *generic* draw every entry is compared with the measured bound on its rounding. At *special*
draws, with exact zeros and ties, and at *further* draws, which reach other branches, rounding was
not measured: there only the leading digits count. Where the two sides disagree, differences of the
loss decide (`jaxgrad.evidence.numerical.disagreements`). What low-precision constants may explain
is no disagreement, but a doubt.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxgrad.claims.shapes import sizes_text
from jaxgrad.evidence.noise.low_precision_constants import constant_unit
from jaxgrad.evidence.noise.rounding import GAP, SAFETY, compare, largest, widen
from jaxgrad.evidence.numerical.both_sides import Look
from jaxgrad.evidence.numerical.disagreements import adjudicate
from jaxgrad.evidence.numerical.summary import Summary, worse

COARSE = 1e-6
"""At special draws, errors below this part of the largest entry are taken for rounding."""


def at_generic(
    summary: Summary, look: Look, copies: tuple[np.ndarray, np.ndarray], measure: Callable[[], Any]
) -> None:
    """Compare every entry with its bound.

    Args:
        summary: takes what is found.
        look: both sides at the draw.
        copies: both sides at the draw and at noisy copies of it.
        measure: gives both sides in float32, in float64 and under random rounding, when needed.
    """
    unit, label = look.unit, look.label
    found = compare(*copies, unit)
    if not np.all(found.agrees) and np.all(np.isfinite(found.error)):
        single, double, moves = ([side[label] for side in sides] for sides in measure())
        found = widen(found, single, double, moves, unit)
        if not np.all(found.agrees):
            explained = look.sides.explained_by_constants(look.draw)[label]
            found = found.allowing(explained)
            if np.any((explained > 0) & (found.error <= explained)):
                coarse = constant_unit(*look.sides.programs(look.draw))
                summary.notes.append(
                    f"constants have unit roundoff {coarse:.1g}; with float64 constants smaller "
                    f"errors would show"
                )
    summary.seen = worse(summary.seen, (found.error, found.bound, look.claimed, look.reference))
    if not np.all(np.isfinite(found.error)):
        side = "autodiff" if not np.all(np.isfinite(look.reference)) else "the closed form"
        summary.doubts.append(f"{side} is not finite at {sizes_text(look.sides.sizes)}")
        summary.vacuous = False
        return
    summary.scale = max(summary.scale, found.scale)
    bound = float(found.bound.max(initial=0.0))
    summary.rounding = max(summary.rounding, bound)
    scale = found.scale or 1.0
    summary.add_magnitude(found.magnitude, found.bound)
    if np.any(found.magnitude > found.bound):
        summary.detectable = max(summary.detectable, bound / scale)
    else:
        summary.hidden = max(summary.hidden, bound)
    if found.error.size:
        i = found.worst
        against = int(found.disagrees[i]) + int(not found.agrees[i])
        summary.add_error(float(found.error[i]), float(found.bound[i]), scale, against)
    if np.any(found.disagrees):
        adjudicate(summary, look, found.disagrees, "")
    elif not np.all(found.agrees):
        summary.doubts.append(
            f"an entry is off by more than its measured rounding, but by less than {GAP:g} times "
            f"as much"
        )


def at_special(summary: Summary, look: Look) -> None:
    """Compare the leading digits at exact zeros and ties."""
    if not np.all(np.isfinite(look.reference)):
        summary.notes.append("autodiff is not finite at exact zeros or ties")
        return
    if not np.all(np.isfinite(look.claimed)):
        summary.notes.append(
            "the closed form is not finite at exact zeros or ties, where autodiff is"
        )
        return
    summary.special += 1
    scale, rounding = max(look.scale, summary.scale), summary.rounding
    if look.sides.problem.given and GAP * rounding > COARSE * scale:
        # noise may have moved the data off a kink that they meet
        moved = look.sides.moved(look.draw, look.unit)[look.label]
        rounding = min(rounding, SAFETY * float(moved.max(initial=0.0)))
    _leading_digits(summary, look, scale, " at exact zeros or ties", rounding)


def at_further(summary: Summary, look: Look) -> None:
    """Compare the leading digits at a draw that may reach another branch."""
    if not np.all(np.isfinite(look.reference)) or not np.all(np.isfinite(look.claimed)):
        return
    summary.further += 1
    larger = np.maximum(np.abs(look.claimed), np.abs(look.reference))
    summary.add_magnitude(larger, GAP * summary.rounding)
    _leading_digits(summary, look, look.scale, " at a further draw", summary.rounding)


def _leading_digits(
    summary: Summary, look: Look, scale: float, where: str, rounding: float
) -> None:
    error = look.error
    bound = max(COARSE * scale, GAP * rounding)
    wrong = error > bound
    if not np.any(wrong):
        return
    explained = look.sides.explained_by_constants(look.draw)[look.label]
    beyond = wrong & (error > GAP * explained)
    if np.any(beyond):
        adjudicate(summary, look, beyond, where)
        if summary.refuted:
            summary.seen = error, bound, look.claimed, look.reference
            summary.add_error(float(error[largest(error, beyond)]), bound, scale, 2)
    elif np.any(wrong & (error > explained)):
        most = error.max(initial=0.0)
        summary.doubts.append(
            f"off by {most / scale:.1g} of the largest entry{where}, which low-precision "
            f"constants may explain"
        )
        summary.add_error(float(most), bound, scale, 1)
