"""What many draws show of one array of a gradient, and the finding that follows from it.

A `Summary` collects the errors, bounds, refutations, doubts and notes of all draws. `judge` makes
the finding: refuted where a draw refutes; else undecided where a doubt is left, or where rounding
hides errors that matter; else confirmed. A gradient that is zero up to rounding at every draw is
confirmed with the warning "vacuous".
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.reports.pictures import heat

INSENSITIVE = 1e-3
"""Where rounding hides errors above this part of the largest entry, nothing is confirmed."""


@dataclass
class Summary:
    """What has been seen of one array of the gradient.

    Attributes:
        error: the largest relative error, among those that speak most against the claim.
        bound: what rounding allows there.
        against: how much that error speaks against the claim, from 0 to 2.
        detectable: the relative error that rounding hides where the gradient is larger than it.
        hidden: the bound where the gradient is no larger than its rounding.
        scale: the gradient's largest entry.
        rounding: the largest bound.
        further, special: how many such draws were compared.
        vacuous: whether the gradient was never larger than its rounding.
        refuted, doubts, notes: in words, what refutes, what leaves doubt, and what is told.
        seen: error, bound, closed form and reference of the draw that is shown.
    """

    error: float | None = None
    bound: float | None = None
    against: int = 0
    detectable: float = 0.0
    hidden: float = 0.0
    scale: float = 0.0
    rounding: float = 0.0
    further: int = 0
    special: int = 0
    vacuous: bool = True
    refuted: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seen: tuple[np.ndarray, Any, np.ndarray, np.ndarray] | None = None

    def add_magnitude(self, magnitude: np.ndarray, bound: np.ndarray | float) -> None:
        """Take note of whether any of a gradient is larger than its rounding."""
        self.vacuous &= not np.any(magnitude > bound)

    def add_error(self, error: float, bound: float, scale: float, against: int) -> None:
        """Keep the error that speaks most against the claim, as a part of the largest entry."""
        relative = float(error / scale)
        if self.error is None or (against, relative) > (self.against, self.error):
            self.error, self.bound, self.against = relative, float(bound / scale), against


def worse(
    seen: Any, other: tuple[np.ndarray, Any, np.ndarray, np.ndarray]
) -> tuple[np.ndarray, Any, np.ndarray, np.ndarray]:
    """Return the comparison with the larger error in units of its bound; NaN is the largest."""
    if seen is None:
        return other
    with np.errstate(all="ignore"):
        sizes = [
            np.max(error / np.maximum(bound, np.finfo(float).tiny), initial=0.0)
            for error, bound, *_ in (seen, other)
        ]
    return seen if np.isnan(sizes[0]) or sizes[0] >= sizes[1] else other


def judge(evidence: str, label: str, summary: Summary, where: str, seconds: float) -> Finding:
    """Return the finding on an array; `where` says at which draws it was compared."""
    detail, verdict, warning = where, Verdict.CONFIRMED, ""
    if summary.further:
        detail += f", {summary.further} more to reach other branches"
    if summary.special:
        detail += f", {summary.special} at exact zeros and ties"
    # of a draw whose gradient is no larger than its rounding
    hidden = 0.0 if summary.vacuous else summary.hidden / (summary.scale or 1.0)
    unseen = max(summary.detectable, hidden)
    if summary.refuted:
        verdict, detail = Verdict.REFUTED, summary.refuted[0]
    elif summary.doubts:
        verdict, detail = Verdict.UNDECIDED, summary.doubts[0]
    elif unseen > INSENSITIVE:
        verdict = Verdict.UNDECIDED
        detail = f"rounding alone changes the gradient by up to {unseen:.1g} of its largest entry"
    elif summary.vacuous:
        warning = "vacuous: the gradient is zero up to rounding at every draw"
    for note in dict.fromkeys(summary.notes):
        detail += f"; {note}"
    shown = ()
    if summary.seen is not None:
        error, bound, claimed, reference = summary.seen
        values = (
            {}
            if verdict == Verdict.CONFIRMED
            else {"closed": claimed, "reference": reference, "against": "autodiff"}
        )
        shown = (heat(error, bound, **values),)
    return Finding(
        evidence=evidence,
        wrt=label,
        verdict=verdict,
        error=summary.error,
        bound=summary.bound,
        detectable=summary.detectable or None,
        seconds=seconds,
        detail=detail,
        warning=warning,
        pictures=shown,
    )
