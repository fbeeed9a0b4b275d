"""Reports as a table, and below it details: refutations, undecided verdicts and warnings.

`lines` returns lines of styled pieces for a terminal, `plain_table` plain text. The columns are
laid out in `jaxgrad.reports.layout`.
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.reports.layout import MARKS, WARNING, WIDTH, Layout, Line, by_strength, number, seconds

if TYPE_CHECKING:
    from jaxgrad.reports.report import Report


LEGEND = (
    "Numbers are the largest error found, relative to the gradient's largest entry. "
    "“detects” is the size above which no error is confirmed."
)


def needs_detail(report: "Report") -> bool:
    """Say whether a report is not confirmed, or has warnings, which its rows do not show."""
    return report.verdict != Verdict.CONFIRMED or bool(report.warnings)


def explain(report: "Report", width: int = WIDTH, *, every: bool = False) -> list[Line]:
    """Return the details of the evidence, one paragraph for each finding.

    Args:
        report: the report.
        width: columns to wrap at.
        every: whether to show all findings, and not only those on inputs that are refuted,
            undecided or warned of.
    """
    by_input = report.by_input
    shown = [
        f for f in report.findings if every or by_input[f.wrt] != Verdict.CONFIRMED or f.warning
    ]
    mark = (
        WARNING
        if report.verdict == Verdict.CONFIRMED and report.warnings
        else MARKS[report.verdict]
    )
    style = "undecided" if mark == WARNING else str(report.verdict)
    lines: list[Line] = [[(f"{mark} {report.name}", style), (f" is {report.verdict}", "")]]
    if not report.findings:
        lines += _wrapped("no evidence applies", "", "    ", width)
    wrt = max((len(f.wrt) for f in shown), default=0)
    evidence = max((len(f.evidence) for f in shown), default=0)
    previous, seen = "", set()
    for f in shown:
        name = f.wrt if f.wrt != previous else ""
        previous = f.wrt
        verdict = f"{MARKS[f.verdict]} {f.verdict:<9}  "
        head = [
            ("    ", ""),
            (f"{name:<{wrt}}  ", "name"),
            (f"{f.evidence:<{evidence}}  ", ""),
            (verdict, str(f.verdict)),
        ]
        measured = _measured(f)
        indent = " " * min(6 + wrt, 16)
        if sum(len(text) for text, _ in head) + len(measured) <= width:
            lines.append([*head, (measured, "")])
        else:
            lines += [head, *_wrapped(measured, "", indent, width)]
        # the diagnosis is the same for all evidence: once is enough
        diagnosis = "" if (f.wrt, f.diagnosis) in seen else f.diagnosis
        seen.add((f.wrt, f.diagnosis))
        for text, kind in (
            (diagnosis, str(f.verdict)),
            (f.warning, "undecided"),
            (f.detail, "dim"),
        ):
            lines += _wrapped(text, kind, indent, width)
    return lines


def _measured(finding: Finding) -> str:
    measured = (
        ("error", finding.error),
        ("bound", finding.bound),
        ("detects", finding.detectable),
    )
    parts = [f"{name} {number(value, 2)}" for name, value in measured if value is not None]
    return ", ".join([*parts, seconds(finding.seconds)])


def _wrapped(text: str, style: str, indent: str, width: int) -> list[Line]:
    width = max(width, len(indent) + 30)
    wrapped = textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return [[(line, style)] for line in wrapped]


def legend(width: int = WIDTH) -> list[Line]:
    """Return what the numbers in the table mean."""
    return _wrapped(LEGEND, "dim", "", width)


def count(reports: Sequence["Report"], failed: int = 0) -> Line:
    """Return how many derivations are confirmed, refuted and undecided, and how many failed."""
    total = len(reports) + failed
    line: Line = [(f"{total} derivation{'s' * (total != 1)}: ", "")]
    parts = [(verdict, sum(r.verdict == verdict for r in reports)) for verdict in MARKS]
    shown = [(f"{n} {verdict}", str(verdict)) for verdict, n in parts if n]
    if failed:
        shown.append((f"{failed} in error", "refuted"))
    warned = sum(r.verdict == Verdict.CONFIRMED and bool(r.warnings) for r in reports)
    if warned:
        shown.append((f"{warned} with a warning", "undecided"))
    for i, part in enumerate(shown):
        line += [(", " * (i > 0), ""), part]
    return line


def lines(reports: Sequence["Report"], width: int = WIDTH) -> list[Line]:
    """Return the whole table and its details; of a single report, those of all findings."""
    inputs = [wrt for report in reports for wrt in report.by_input]
    layout = Layout.fit(
        [r.name for r in reports],
        inputs,
        by_strength(f.evidence for report in reports for f in report.findings),
        width,
    )
    out = [
        *layout.header(),
        *(line for report in reports for line in layout.rows(report)),
        layout.rule(),
        *legend(width),
    ]
    single = len(reports) == 1
    for report in reports:
        if single or needs_detail(report):
            out += [[], *explain(report, width, every=single)]
    return out if single else [*out, [], count(reports)]


def plain(line: Line) -> str:
    """Return a line without its styles."""
    return "".join(text for text, _ in line).rstrip()


def plain_table(reports: Sequence["Report"], width: int = WIDTH) -> str:
    """Return the table of some reports as plain text.

    >>> from jaxgrad.reports.finding import Finding, Verdict
    >>> from jaxgrad.reports.report import Report
    >>> finding = Finding(
    ...     evidence="autodiff",
    ...     wrt="x",
    ...     verdict=Verdict.CONFIRMED,
    ...     error=2e-16,
    ...     bound=9e-16,
    ...     detectable=2e-15,
    ... )
    >>> print(plain_table([Report(name="square", findings=(finding,))]).splitlines()[2])
    square      x      ✓ confirmed   ✓ 2e-16    2e-15  0.00 s
    """
    return "\n".join(map(plain, lines(reports, width)))
