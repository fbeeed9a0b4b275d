"""What a verification says: verdicts, findings and reports.

A `Finding` is one piece of evidence on the gradient in one input; a `Report` gathers the findings
on one claim. Findings on the same input combine so: any refutation refutes; else any confirmation
confirms; else undecided. A report is confirmed when every input is.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from jaxgrad.reports.pictures import KINDS, Picture
from jaxgrad.reports.pictures import from_dict as picture_from_dict
from jaxgrad.reports.pictures import to_dict as picture_to_dict

SCHEMA = 2
"""Version of the JSON form, which docs/json.md describes."""


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
        """Return the finding as plain dictionaries and lists; a number that is not finite becomes
        None.
        """
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
    """Combine verdicts on one and the same claim: a refutation beats a confirmation, and that beats
    undecided.
    """
    for verdict in (Verdict.REFUTED, Verdict.CONFIRMED):
        if verdict in verdicts:
            return verdict
    return Verdict.UNDECIDED


@dataclass(frozen=True, kw_only=True)
class Report:
    """All findings on one claim.

    Attributes:
        name: name of the derivation.
        findings: the evidence, in the order in which it was gathered.
        context: how to do it again: seed, sizes, versions, device.
        claim: what was claimed, in words; see `jaxgrad.claims.statement`. Empty where the report is
            not on a `Derivation`.

    >>> report = Report(
    ...     name="square",
    ...     findings=(Finding(evidence="autodiff", wrt="x", verdict=Verdict.CONFIRMED),),
    ... )
    >>> report.verdict
    <Verdict.CONFIRMED: 'confirmed'>
    """

    name: str
    findings: tuple[Finding, ...]
    context: dict[str, Any] = field(default_factory=dict)
    claim: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def by_input(self) -> dict[str, Verdict]:
        """The verdict on the gradient in each input."""
        inputs = dict.fromkeys(finding.wrt for finding in self.findings)
        return {wrt: combine([f.verdict for f in self.findings if f.wrt == wrt]) for wrt in inputs}

    @property
    def verdict(self) -> Verdict:
        """Refuted when any input is, confirmed when all are, else undecided."""
        verdicts = self.by_input.values()
        if Verdict.REFUTED in verdicts:
            return Verdict.REFUTED
        return (
            Verdict.CONFIRMED
            if verdicts and all(v == Verdict.CONFIRMED for v in verdicts)
            else Verdict.UNDECIDED
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Every warning, with the input it concerns."""
        return tuple(dict.fromkeys(f"{f.wrt}: {f.warning}" for f in self.findings if f.warning))

    @property
    def seconds(self) -> float:
        """Time that all evidence took."""
        return sum(f.seconds for f in self.findings)

    def to_json(self, indent: int | None = 2) -> str:
        """Return the report as strict JSON; what is not finite becomes null."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain dictionaries and lists."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "verdict": str(self.verdict),
            "warnings": list(self.warnings),
            "findings": [finding.to_dict() for finding in self.findings],
            "context": self.context,
            "claim": self.claim,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Report":
        """Return the report that `to_dict` wrote; its verdict follows from the findings."""
        findings = tuple(Finding.from_dict(finding) for finding in data["findings"])
        return cls(
            name=data["name"],
            findings=findings,
            context=dict(data["context"]),
            claim=dict(data.get("claim", {})),
        )

    def assert_confirmed(self) -> None:
        """Raise an AssertionError unless the verdict is confirmed: what is wrong comes first, then
        the table.
        """
        if self.verdict != Verdict.CONFIRMED:
            from jaxgrad.reports.assertion import complaint

            raise AssertionError(complaint(self))

    def __str__(self) -> str:
        """Return the table as plain text."""
        from jaxgrad.reports.table import plain_table

        return plain_table([self])
