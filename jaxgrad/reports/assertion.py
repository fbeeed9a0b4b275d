"""What an assertion says when a gradient is not confirmed: what is wrong first, then the table,
within a terminal's width.
"""

import shutil
import textwrap
from typing import TYPE_CHECKING

from jaxgrad.reports.finding import Verdict
from jaxgrad.reports.table import plain_table

if TYPE_CHECKING:
    from jaxgrad.reports.report import Report


MARGIN = 8
"""Columns left free: pytest and unittest indent what an assertion says."""


def complaint(report: "Report", width: int | None = None) -> str:
    """Return why a report is not confirmed, followed by its table.

    Args:
        report: a report whose verdict is not "confirmed".
        width: columns to keep to; those of the terminal when None, and 100 at most.

    >>> from jaxgrad.reports.finding import Finding
    >>> from jaxgrad.reports.report import Report
    >>> wrong = Finding(
    ...     evidence="autodiff",
    ...     wrt="x",
    ...     verdict=Verdict.REFUTED,
    ...     diagnosis="x: the closed form is 2 times the gradient",
    ... )
    >>> print(complaint(Report(name="square", findings=(wrong,)), 100).splitlines()[0])
    square: the gradient is refuted. x: the closed form is 2 times the gradient
    """
    width = min(width or shutil.get_terminal_size((100, 24)).columns, 100)
    width = max(60, width - MARGIN)
    told = f"{report.name}: the gradient is {report.verdict}. {reason(report)}"
    head = textwrap.wrap(
        told, width, initial_indent=" " * len("AssertionError: "), break_on_hyphens=False
    )
    return "\n".join([head[0].lstrip(), *head[1:], "", plain_table([report], width)])


def reason(report: "Report") -> str:
    """Return in words why a report has the verdict it has: the diagnoses, or else the strongest
    finding's detail.

    >>> from jaxgrad.reports.report import Report
    >>> reason(Report(name="nothing", findings=()))
    'no evidence applies to it'
    """
    against = [f for f in report.findings if f.verdict == Verdict.REFUTED]
    diagnoses = list(dict.fromkeys(f.diagnosis for f in against if f.diagnosis))
    if diagnoses:
        return "; ".join(diagnoses)
    if not against:
        open_inputs = {
            wrt for wrt, verdict in report.by_input.items() if verdict == Verdict.UNDECIDED
        }
        against = [
            f for f in report.findings if f.wrt in open_inputs and f.verdict == Verdict.UNDECIDED
        ]
    by_entry = sorted(
        against, key=lambda f: f.evidence == "certificate"
    )  # the others name an entry and both values
    told = next((f for f in by_entry if f.detail), None)
    if told is None:
        return "no evidence applies to it" if not report.findings else "no evidence confirms it"
    return f"{told.wrt}, by {told.evidence}: {told.detail}"
