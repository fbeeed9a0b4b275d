"""Findings: one piece of evidence on the gradient in one input, as data alone.

Nothing here knows how findings are made or shown. `combine` states how verdicts on the same input
add up.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from jaxgrad.reports.pictures import KINDS, Picture
from jaxgrad.reports.pictures import from_dict as picture_from_dict
from jaxgrad.reports.pictures import to_dict as picture_to_dict


class Verdict(StrEnum):
    """What a piece of evidence, or a whole report, says of a claim."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One piece of evidence on the gradient in one input.

    Attributes:
        evidence: name of the evidence: autodiff, differences, monte_carlo, expectation,
            certificate.
        wrt: name of the input that is differentiated, or a path into it such as ``params['w']``.
        verdict: confirmed, refuted or undecided.
        error: largest error found, in units of the gradient's largest entry; None where nothing was
            measured.
        bound: what that error may be for a right gradient, in the same unit.
        detectable: the size, in the same unit, above which no error is confirmed; larger ones still
            are refuted.
        diagnosis: how the closed form is wrong, in words; empty where it is not, or where nothing
            explains it.
        seconds: wall-clock time this evidence took.
        detail: what was done, and the reason where the verdict is undecided.
        warning: what weakens a confirmation, such as "vacuous"; empty otherwise.
        pictures: what can be drawn of it; see `jaxgrad.reports.pictures`.
    """

    evidence: str
    wrt: str
    verdict: Verdict
    error: float | None = None
    bound: float | None = None
    detectable: float | None = None
    diagnosis: str = ""
    seconds: float = 0.0
    detail: str = ""
    warning: str = ""
    pictures: tuple[Picture, ...] = field(default=(), repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain dictionaries and lists; not finite becomes None."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = {
            k: None if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in plain.items()
        }
        return plain | {
            "verdict": str(self.verdict),
            "pictures": [picture_to_dict(p) for p in self.pictures],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Finding":
        """Return the finding that `to_dict` wrote."""
        drawn = tuple(picture_from_dict(p) for p in data.get("pictures", ()) if p["kind"] in KINDS)
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        return cls(**known | {"verdict": Verdict(data["verdict"]), "pictures": drawn})


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """Combine verdicts on one claim: refuted beats confirmed, and confirmed beats undecided."""
    for verdict in (Verdict.REFUTED, Verdict.CONFIRMED):
        if verdict in verdicts:
            return verdict
    return Verdict.UNDECIDED
