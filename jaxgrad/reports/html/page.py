"""Reports as one self-contained HTML page.

Styles, formulas (MathML) and figures (SVG) are inline. The page loads nothing and has no script,
and its content policy forbids both. It follows the reader's choice of light or dark, and fits a
phone and paper.

Styles, formulas (MathML) and figures (SVG) stand inside; the page loads nothing and holds no
script, and its own content policy forbids both. It follows the reader's choice of light or dark,
and fits a phone and paper.
"""

import datetime
import functools
import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Any

from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.reports.html.heatmaps import legend
from jaxgrad.reports.html.sections import TITLES, badge, magnitude, power, section
from jaxgrad.reports.html.text import escape, slug
from jaxgrad.reports.layout import MARKS, by_strength, seconds, worst_of
from jaxgrad.reports.report import Report

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)
"""What a browser may do with the page: set its styles, and nothing else."""

_READING = (
    "Errors and bounds are relative to the gradient's largest entry. A bound is the error that "
    "rounding or chance can explain, measured entry by entry; the maps show each entry's error "
    "in units of its bound. A refutation beats a confirmation, and that beats “undecided”."
)
_SHORT = {"expectation": "Expectation", "differences": "Differences"}


def render(
    reports: Sequence[Report],
    *,
    errors: Mapping[str, str] | None = None,
    command: str = "",
    made: datetime.date | None = None,
) -> str:
    """Return a page that shows reports.

    Args:
        reports: in the order in which they shall stand.
        errors: {name: message} of derivations that could not be verified.
        command: what was typed to make the reports.
        made: the day; today when None.

    >>> "No derivation" in render([])
    True
    """
    anchors = [slug(report.name, i) for i, report in enumerate(reports)]
    body = [_head(reports, errors or {}, made or datetime.date.today())]
    body.append(f'<main><div id="summary" class="scroll">{_summary(reports, anchors)}</div>')
    body += [
        f'<p class="diagnosis refuted"><b>{escape(name)}</b> could not be verified. '
        f"{escape(text)}</p>"
        for name, text in (errors or {}).items()
    ]
    body += [section(report, anchor) for report, anchor in zip(reports, anchors, strict=True)]
    body.append(f"</main>{_circumstances(reports, command)}")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta '
        'name="color-scheme" content="light dark">'
        f'<link rel="icon" href="data:,"><title>{escape(_title(reports))}</title>'
        f"<style>{_style()}</style></head>\n"
        f"<body>{''.join(body)}</body></html>\n"
    )


@functools.cache
def _style() -> str:
    return (
        importlib.resources.files("jaxgrad.reports.html")
        .joinpath("style.css")
        .read_text(encoding="utf-8")
    )


def _title(reports: Sequence[Report]) -> str:
    return (
        f"{reports[0].name}: is the gradient right?"
        if len(reports) == 1
        else "Are the gradients right?"
    )


def _head(reports: Sequence[Report], errors: Mapping[str, str], made: datetime.date) -> str:
    counts = [(verdict, sum(report.verdict == verdict for report in reports)) for verdict in MARKS]
    tally = "".join(
        f"<li>{badge(verdict, f'{count} {verdict}')}</li>" for verdict, count in counts if count
    )
    if errors:
        tally += f'<li><span class="badge refuted">✗ {len(errors)} in error</span></li>'
    context = reports[0].context if reports else {}
    versions = ", ".join(
        f"{name} {version}" for name, version in context.get("versions", {}).items()
    )
    known = [
        made.isoformat(),
        f"seed {context['seed']}" if "seed" in context else "",
        str(context.get("device", "")),
        versions,
    ]
    return (
        f'<header><h1>{escape(_title(reports))}</h1><ul class="tally">{tally}</ul>'
        f'<p class="soft">jaxgrad · {escape(" · ".join(filter(None, known)))}</p>'
        f'<p class="soft">{escape(_READING)}</p>{legend()}</header>'
    )


def _summary(reports: Sequence[Report], anchors: Sequence[str]) -> str:
    if not reports:
        return "<p>No derivation was verified.</p>"
    kinds = by_strength(f.evidence for report in reports for f in report.findings)
    titles = [_SHORT.get(kind) or TITLES.get(kind, kind.replace("_", " ")) for kind in kinds]
    heads = "".join(f'<th class="wideonly">{escape(title)}</th>' for title in titles)
    rows = []
    for report, anchor in zip(reports, anchors, strict=True):
        inputs = list(report.by_input.items()) or [("", Verdict.UNDECIDED)]
        for i, (wrt, verdict) in enumerate(inputs):
            found = [f for f in report.findings if f.wrt == wrt]
            name = (
                f'<a href="#{anchor}">{escape(report.name).replace("_", "_<wbr>")}</a>'
                if i == 0
                else ""
            )
            cells = "".join(
                f'<td class="wideonly">{_cell([f for f in found if f.evidence == kind])}</td>'
                for kind in kinds
            )
            seen = [
                f.detectable
                for f in found
                if f.detectable is not None and f.verdict != Verdict.UNDECIDED
            ]
            same = " same" if i + 1 < len(inputs) else ""
            rows.append(
                f'<tr><td class="name{same}">{name}</td><td><code>{escape(wrt)}</code></td>'
                f'<td>{badge(verdict)}</td>{cells}<td class="wideonly">'
                f"{magnitude(min(seen, default=None), 1)}</td></tr>"
            )
    return (
        f"<table><thead><tr><th>Derivation</th><th>Input</th><th>Verdict</th>{heads}<th "
        f'class="wideonly" title="the size above which '
        f'no error is confirmed">Detects</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def _cell(findings: Sequence[Finding]) -> str:
    worst = worst_of(findings)
    if worst is None:
        return ""
    shown = power(worst.bound) if worst.evidence == "certificate" else magnitude(worst.error, 1)
    return f'<span class="mark {worst.verdict}">{MARKS[worst.verdict]}</span> {shown}'


def _circumstances(reports: Sequence[Report], command: str) -> str:
    contexts = [report.context for report in reports]

    def every(name: str) -> str:
        return ", ".join(
            dict.fromkeys(
                _written(context[name])
                for context in contexts
                if context.get(name) not in (None, "", {}, [])
            )
        )

    facts = [
        (name.replace("_", " "), every(name))
        for name in ("seed", "device", "versions", "false_alarm", "resolution", "max_samples")
    ]
    facts.append(("total time", seconds(sum(report.seconds for report in reports))))
    listed = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts if text)
    typed = f"<pre><code>{escape(command)}</code></pre>" if command else ""
    return (
        f'<footer id="reproduce"><h2>How to reproduce</h2>{typed}<dl '
        f'class="facts">{listed}</dl></footer>'
    )


def _written(value: Any) -> str:
    return (
        ", ".join(f"{k} {v}" for k, v in value.items())
        if isinstance(value, Mapping)
        else str(value)
    )
