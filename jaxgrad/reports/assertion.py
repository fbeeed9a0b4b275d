"""The message of a failed assertion: what is wrong, then the table.

`Report.assert_confirmed` raises it. The first line must say all that matters, since test summaries
show no more. The message keeps within a terminal's width.

`Report.assert_confirmed` raises it. The first line must say all that matters, since test summaries
show no more. The message keeps within a terminal's width.
"""

import shutil
import textwrap
from typing import TYPE_CHECKING

from jaxgrad.reports.finding import Verdict
from jaxgrad.reports.table import plain_table

if TYPE_CHECKING:
    from jaxgrad.reports.report import Report


MARGIN = 8
"""Columns left free: pytest and unittest indent the message of an assertion."""


def assertion_message(report: "Report", width: int | None = None) -> str:
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
    ...     diagnosis="the closed form is 2 times the gradient in x",
    ... )
    >>> print(assertion_message(Report(name="square", findings=(wrong,)), 100).splitlines()[0])
    square is refuted: the closed form is 2 times the gradient in x
    """
    width = min(width or shutil.get_terminal_size((100, 24)).columns, 100)
    width = max(60, width - MARGIN)
    text = f"{report.name} is {report.verdict}: {reason(report)}"
    head = textwrap.wrap(
        text, width, initial_indent=" " * len("AssertionError: "), break_on_hyphens=False
    )
    return "\n".join([head[0].lstrip(), *head[1:], "", plain_table([report], width)])


def reason(report: "Report") -> str:
    """Return why a report has its verdict: the diagnoses, else the detail of the decisive finding.

    >>> from jaxgrad.reports.report import Report
    >>> reason(Report(name="nothing", findings=()))
    'no evidence applies'
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
    # a certificate comes last: the others name an entry and both values
    by_entry = sorted(against, key=lambda f: f.evidence == "certificate")
    worst = next((f for f in by_entry if f.detail), None)
    if worst is None:
        return "no evidence applies" if not report.findings else "no evidence confirms it"
    return f"{worst.wrt} ({worst.evidence}): {worst.detail}"
