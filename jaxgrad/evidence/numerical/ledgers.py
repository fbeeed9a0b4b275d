"""What is seen of one array of a gradient over many draws, and what follows from it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxgrad.evidence.noise.rounding import largest
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.reports.pictures import heat

INSENSITIVE = 1e-3
"""Where rounding hides errors above this part of the largest entry, nothing is confirmed."""


@dataclass
class Ledger:
    """What has been seen of one array of the gradient; of its errors the largest, of those that
    speak against it if any do.
    """

    error: float | None = None
    bound: float | None = None
    against: int = 0
    detectable: float = 0.0
    hidden: float = 0.0
    scale: float = 0.0
    rounding: float = 0.0
    generic: int = 0
    further: int = 0
    special: int = 0
    vacuous: bool = True
    refuted: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seen: tuple[np.ndarray, Any, np.ndarray, np.ndarray] | None = None

    def meet(self, magnitude: np.ndarray, bound: np.ndarray | float) -> None:
        """Take note of a gradient: whether any of it is larger than its rounding."""
        self.vacuous &= not np.any(magnitude > bound)

    def measure(self, error: float, bound: float, scale: float, against: int) -> None:
        """Take note of an error, its bound and its gradient's largest entry; of how much it speaks
        against the claim, from 0 to 2.
        """
        relative = float(error / scale)
        if self.error is None or (against, relative) > (self.against, self.error):
            self.error, self.bound, self.against = relative, float(bound / scale), against

    def doubt(self, error: np.ndarray, bound: float, scale: float, where: str) -> None:
        """Take note of an error at a special or further draw that constants of a narrow type may
        explain.
        """
        self.doubts.append(
            f"off by {error.max(initial=0.0) / scale:.1g} of the largest entry{where}, as "
            f"constants of a narrow type may be"
        )
        self.measure(float(error.max(initial=0.0)), bound, scale, 1)

    def see(
        self,
        error: np.ndarray,
        bound: float,
        wrong: np.ndarray,
        claimed: np.ndarray,
        reference: np.ndarray,
        scale: float,
    ) -> None:
        """Take note of a special or further draw that refutes."""
        self.seen = error, bound, claimed, reference
        self.measure(float(error[largest(error, wrong)]), bound, scale, 2)


def worse(
    seen: Any, other: tuple[np.ndarray, Any, np.ndarray, np.ndarray]
) -> tuple[np.ndarray, Any, np.ndarray, np.ndarray]:
    """Of two comparisons, return the one with the larger error in units of its bound; NaN counts as
    the largest.
    """
    if seen is None:
        return other
    with np.errstate(all="ignore"):
        sizes = [
            np.max(error / np.maximum(bound, np.finfo(float).tiny), initial=0.0)
            for error, bound, *_ in (seen, other)
        ]
    return seen if np.isnan(sizes[0]) or sizes[0] >= sizes[1] else other


def judge(evidence: str, label: str, ledger: Ledger, where: str, seconds: float) -> Finding:
    """Return the finding on an array, of what was seen of it; `where` says at which draws."""
    detail, verdict, warning = where, Verdict.CONFIRMED, ""
    if ledger.further:
        detail += f", and {ledger.further} more for the sake of branches"
    if ledger.special:
        detail += f", and at exact zeros and ties {ledger.special} times"
    hidden = (
        0.0 if ledger.vacuous else ledger.hidden / (ledger.scale or 1.0)
    )  # where a draw's gradient is no larger than its rounding
    if ledger.refuted:
        verdict, detail = Verdict.REFUTED, ledger.refuted[0]
    elif ledger.doubts:
        verdict, detail = Verdict.UNDECIDED, ledger.doubts[0]
    elif max(ledger.detectable, hidden) > INSENSITIVE:
        moved = max(ledger.detectable, hidden)
        verdict, detail = (
            Verdict.UNDECIDED,
            f"rounding alone moves the gradient by up to {moved:.1g} of its largest entry",
        )
    elif ledger.vacuous:
        warning = "vacuous: the gradient is zero, to rounding, at every draw"
    for note in dict.fromkeys(ledger.notes):
        detail += f"; {note}"
    shown = ()
    if ledger.seen is not None:
        error, bound, claimed, reference = ledger.seen
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
        error=ledger.error,
        bound=ledger.bound,
        detectable=ledger.detectable or None,
        seconds=seconds,
        detail=detail,
        warning=warning,
        pictures=shown,
    )
