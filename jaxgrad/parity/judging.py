"""From two arrays to a verdict: the same function (semantic), and as accurate as torch (numerical).

Semantic. Both sides in float64. Entry by entry the bound is SAFETY times the largest of what
rounding was measured to do: the move of either side under noise of one unit in the last place on
inputs and state, the unit roundoff of the entry, and, where these do not explain a difference, the
move of either side between float32 and float64, scaled by the ratio of their units. Beyond GAP
bounds it is a difference; in between nothing is said. Entries at a kink or tie, which
noise moves by a visible part of the array, must agree to the unit roundoff of the entry itself, or
nothing is said of them either.

Numerical. In float32, or the precision asked for, each side's root-mean-square distance e from the
float64 result. A port is worse when e(ours) exceeds LIMIT times the largest of e(torch), of what
noise of one unit in the last place there does to torch's, and of the unit roundoff, at every one of
several noisy copies: a gate that rounding flips at one of them is bad luck and no property of the
port.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxgrad.evidence.noise.rounding import GAP, SAFETY, largest
from jaxgrad.evidence.numerical.summary import INSENSITIVE
from jaxgrad.reports.finding import Finding, Verdict

LIMIT = 10.0
"""A port this many times worse than torch is named."""

NO_REFERENCE = 0.1
"""Where torch itself is off by this part of the array in float32, nobody's accuracy is judged."""

UNIT = {
    np.dtype(np.float64): float(np.finfo(np.float64).eps),
    np.dtype(np.float32): float(np.finfo(np.float32).eps),
}
_TINY = float(np.finfo(np.float32).tiny)
_RATIO = UNIT[np.dtype(np.float64)] / UNIT[np.dtype(np.float32)]


class Pair(NamedTuple):
    """One array on both sides.

    Attributes:
        ours: in float64.
        theirs: torch's, in float64.
        our_move: how far ours moves under noise, entry by entry.
        their_move: how far torch's moves.
        ours_single: in float32, or None.
        theirs_single: in float32, or None.
    """

    ours: np.ndarray
    theirs: np.ndarray
    our_move: np.ndarray
    their_move: np.ndarray
    ours_single: np.ndarray | None = None
    theirs_single: np.ndarray | None = None


def unit_of(precision: str) -> float:
    """Return the distance from 1 to the next number of a precision.

    >>> unit_of("bfloat16")
    0.0078125
    """
    return float(jnp.finfo(precision).eps)


def semantic(pair: Pair, wrt: str, *, evidence: str = "semantic", seconds: float = 0.0) -> Finding:
    """Judge whether both sides compute the same function.

    >>> x = np.ones(3)
    >>> semantic(Pair(x, x, 0 * x, 0 * x), "output").verdict
    <Verdict.CONFIRMED: 'confirmed'>
    >>> semantic(Pair(x, x + 1e-7, 0 * x, 0 * x), "output").detail
    'entry [0]: ours 1, torch 1.0000001'
    """
    ours, theirs = pair.ours, pair.theirs
    finding: dict[str, Any] = {"evidence": evidence, "wrt": wrt, "seconds": seconds}
    if ours.shape != theirs.shape:
        detail = f"ours has shape {list(ours.shape)}, torch's {list(theirs.shape)}"
        return Finding(**finding, verdict=Verdict.REFUTED, detail=detail)
    if ours.dtype.kind != "f" or theirs.dtype.kind != "f":
        return _exact(ours, theirs, finding)
    strange = _not_finite(ours, theirs)
    if strange:
        same = strange.startswith("both")
        return Finding(
            **finding, verdict=Verdict.UNDECIDED if same else Verdict.REFUTED, detail=strange
        )
    with np.errstate(invalid="ignore", over="ignore"):
        magnitude = np.maximum(np.abs(ours), np.abs(theirs))
        error = np.abs(ours - theirs)
        moves = np.nan_to_num(np.maximum(pair.our_move, pair.their_move), nan=np.inf)
        roundoff = SAFETY * UNIT[np.dtype(np.float64)] * magnitude
        noise_bound = bound = np.maximum(SAFETY * moves, roundoff)
        between = _between_precisions(pair)
        if np.any(error > bound):
            bound = np.maximum(bound, SAFETY * _RATIO * np.maximum(between, _rms(between)))
    scale = float(magnitude.max(initial=0.0)) or 1.0
    known = pair.theirs_single is not None or pair.ours_single is not None
    vacuous = bool(
        np.all(magnitude <= bound) and np.all(np.isfinite(bound))
    )  # where noise leaves the domain nothing is known
    vacuous = vacuous and bool(not known or np.all(magnitude <= SAFETY * between.max(initial=0.0)))
    at_kink = (bound > INSENSITIVE * scale) & (not vacuous)
    strict = np.where(at_kink, roundoff, bound)
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = np.where(error > 0, error / np.maximum(strict, np.finfo(float).tiny), 0.0)
    worst = np.unravel_index(np.argmax(excess), excess.shape) if excess.size else ()
    settled = bool(np.all(error <= strict))
    used = strict if settled else bound
    measured: dict[str, Any] = finding | {
        "error": float(error[worst]) / scale if error.size else 0.0,
        "bound": float(used[worst]) / scale if error.size else 0.0,
        "detectable": None if vacuous else float(used.max(initial=0.0)) / scale,
    }
    where = (
        f"entry {_index(worst)}: ours {ours[worst]:.8g}, torch {theirs[worst]:.8g}"
        if error.size
        else "no entries"
    )
    beyond = error > GAP * bound
    if np.any(beyond & ~_out_of_range(pair)):
        at = largest(error, beyond & ~_out_of_range(pair))
        told = f"entry {_index(at)}: ours {ours[at]:.8g}, torch {theirs[at]:.8g}"
        measured |= {"error": float(error[at]) / scale, "bound": float(bound[at]) / scale}
        return Finding(**measured, verdict=Verdict.REFUTED, detail=told)
    verdict, detail, warning = Verdict.UNDECIDED, "", ""
    if np.any(beyond):
        detail = (
            f"{where}; float32 holds no numbers so small, so their rounding was not measured; "
            f"check at other inputs or with another loss"
        )
    elif np.any((error > bound) & ~at_kink):
        detail = (
            f"{where}; that is more than the measured rounding, but less than {GAP:g} times as much"
        )
    elif vacuous and np.any(error > noise_bound):
        detail = f"{where}; that is more than noise changes it, but less than float32 rounding"
    elif vacuous:
        verdict, warning = Verdict.CONFIRMED, "vacuous: it is zero up to rounding on both sides"
    elif not settled:
        detail = (
            f"{where}; rounding alone changes it by up to {float(bound[worst]) / scale:.1g} of "
            f"the largest entry: it is at a kink or tie, or badly conditioned; check at other "
            f"inputs too"
        )
    else:
        count = int(at_kink.sum())
        told = f"; {count} at a kink or tie, or badly conditioned, agree to the last digits"
        verdict, detail = Verdict.CONFIRMED, f"{ours.size} entries{told if count else ''}"
    return Finding(**measured, verdict=verdict, detail=detail, warning=warning)


def unsettled(finding: Finding) -> bool:
    """Say whether the sides differ where last-digit noise decides, as at a kink or tie."""
    if finding.verdict != Verdict.UNDECIDED or finding.error is None or finding.bound is None:
        return False
    return finding.bound > INSENSITIVE and finding.error > SAFETY * UNIT[np.dtype(np.float64)]


def _exact(ours: np.ndarray, theirs: np.ndarray, finding: dict[str, Any]) -> Finding:
    if (ours.dtype.kind == "f") != (theirs.dtype.kind == "f"):
        return Finding(
            **finding,
            verdict=Verdict.REFUTED,
            detail=f"ours holds {ours.dtype}, torch's {theirs.dtype}",
        )
    wrong = np.argwhere(ours != theirs)
    if len(wrong):
        at = tuple(wrong[0])
        return Finding(
            **finding,
            verdict=Verdict.REFUTED,
            detail=f"entry {_index(at)}: ours {ours[at]}, torch {theirs[at]}",
        )
    return Finding(
        **finding,
        verdict=Verdict.CONFIRMED,
        error=0.0,
        bound=0.0,
        detail=f"{ours.size} whole numbers",
    )


def _not_finite(ours: np.ndarray, theirs: np.ndarray) -> str:
    patterns = [np.stack([np.isnan(x), np.isposinf(x), np.isneginf(x)]) for x in (ours, theirs)]
    differing = np.argwhere(np.any(patterns[0] != patterns[1], axis=0))
    if len(differing):
        at = tuple(differing[0])
        return f"entry {_index(at)}: ours {ours[at]:.8g}, torch {theirs[at]:.8g}"
    count = int(patterns[0].any(axis=0).sum())
    return f"both are not finite at the same {count} of {ours.size} entries" if count else ""


def _between_precisions(pair: Pair) -> np.ndarray:
    """Return how far apart float32 and float64 are, 0 where float32's range is too small."""
    moves = [
        np.abs(single.astype(np.float64) - double) for single, double in _both_precisions(pair)
    ]
    moves = [np.where(np.isfinite(m), m, 0.0) for m in moves]
    return (
        np.where(_out_of_range(pair), 0.0, np.max(moves, axis=0))
        if moves
        else np.zeros(pair.ours.shape)
    )


def _both_precisions(pair: Pair) -> list[tuple[np.ndarray, np.ndarray]]:
    sides = (pair.ours_single, pair.ours), (pair.theirs_single, pair.theirs)
    return [
        (single, double)
        for single, double in sides
        if single is not None and single.shape == double.shape
    ]


def _out_of_range(pair: Pair) -> np.ndarray:
    """Say which entries are not 0, but smaller than float32 can hold, on every side."""
    known = [
        np.maximum(np.abs(single.astype(np.float64)), np.abs(double))
        for single, double in _both_precisions(pair)
    ]
    magnitude = np.max([np.abs(pair.ours), np.abs(pair.theirs), *known], axis=0)
    return (magnitude > 0) & (magnitude < _TINY) & bool(known)


def numerical(
    pair: Pair,
    singles: Sequence[np.ndarray],
    doubles: Sequence[np.ndarray],
    wrt: str,
    *,
    precision: str = "float32",
    seconds: float = 0.0,
) -> Finding | None:
    """Judge whether ours is as accurate as torch in a precision; None where nothing is judged.

    Args:
        pair: both sides; `theirs_single` is torch's in that precision.
        singles: ours in that precision, at the recorded numbers and at noisy copies.
        doubles: ours in float64 at the same numbers.
        wrt: what the array is.
        precision: "float32", "bfloat16" or "float16".
        seconds: time spent.
    """
    theirs = pair.theirs_single
    if (
        not singles
        or theirs is None
        or not pair.theirs.size
        or not np.all(np.isfinite(theirs))
        or pair.theirs.dtype.kind != "f"
    ):
        return None
    finding: dict[str, Any] = {"evidence": precision, "wrt": wrt, "seconds": seconds}
    if not np.all(np.isfinite(singles[0])):
        at = tuple(np.argwhere(~np.isfinite(singles[0]))[0])
        detail = (
            f"entry {_index(at)}: ours is {singles[0][at]} in {precision}, where torch's is "
            f"{theirs[at]:.6g}"
        )
        return Finding(**finding, verdict=Verdict.REFUTED, detail=detail)
    size = _rms(pair.theirs)
    unit = unit_of(precision)
    expected = max(
        _rms(theirs - pair.theirs),
        _rms(pair.their_move) * unit / UNIT[np.dtype(np.float64)],
        unit * size,
    )
    if (
        size < _TINY / unit or expected == 0 or not np.isfinite(expected)
    ):  # XLA flushes to 0 what torch keeps below _TINY
        return None
    ours = min(_rms(s - d) for s, d in zip(singles, doubles, strict=True))
    torchs = _rms(theirs - pair.theirs)
    if torchs > NO_REFERENCE * size:
        return None
    measured: dict[str, Any] = finding | {"error": ours / size, "bound": LIMIT * expected / size}
    told = f"rms error against float64 {ours / size:.1e}, torch's {torchs / size:.1e}"
    if ours > LIMIT * expected:
        diagnosis = f"{ours / expected:.3g} times less accurate than torch in {precision}"
        return Finding(**measured, verdict=Verdict.REFUTED, detail=told, diagnosis=diagnosis)
    return Finding(**measured, verdict=Verdict.CONFIRMED, detail=told)


def _rms(x: np.ndarray) -> float:
    x = np.asarray(x, np.float64)
    largest = float(np.abs(x).max(initial=0.0))
    return (
        largest * float(np.sqrt(np.mean((x / largest) ** 2))) if 0 < largest < np.inf else largest
    )


def _index(index: Sequence[Any]) -> str:
    return "[" + ", ".join(str(int(i)) for i in index) + "]"
