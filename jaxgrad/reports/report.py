"""Reports: all findings on one claim, with what is needed to reproduce them.

A refutation of an input refutes it; else a confirmation confirms it; else it is undecided. A report
is confirmed when every input is.

Findings on the same input combine so: any refutation refutes; else any confirmation confirms; else
undecided. A report is confirmed when every input is.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxgrad.reports.assertion import assertion_message
from jaxgrad.reports.finding import Finding, Verdict, combine
from jaxgrad.reports.table import plain_table

SCHEMA = 2
"""Version of the JSON form, which docs/json.md describes."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All findings on one claim.

    Attributes:
        name: name of the derivation.
        findings: the evidence, in the order in which it was gathered.
        context: how to reproduce it: seed, sizes, versions, device.
        claim: what was claimed, in words; see `jaxgrad.claims.summary`. Empty where the report is
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
        """Raise an AssertionError that says what is wrong, unless the verdict is confirmed.

        Raises:
            AssertionError: when the verdict is refuted or undecided.
        """
        if self.verdict != Verdict.CONFIRMED:
            raise AssertionError(assertion_message(self))

    def __str__(self) -> str:
        """Return the table as plain text."""
        return plain_table([self])
