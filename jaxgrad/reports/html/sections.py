"""The section of one derivation: the claim, the diagnosis, the evidence, how to reproduce it.

Each piece of evidence is a card with its numbers and figures. `badge`, `magnitude` and `power`
write verdicts and numbers as HTML.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxgrad.reports.assertion import reason
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.reports.html.charts import closing_chart, histogram_chart
from jaxgrad.reports.html.formulas import mathml
from jaxgrad.reports.html.heatmaps import heat_maps
from jaxgrad.reports.html.spreads import spread_chart
from jaxgrad.reports.html.text import escape, linked
from jaxgrad.reports.layout import MARKS, number, seconds
from jaxgrad.reports.pictures import Closing, Heat, Histogram, Picture
from jaxgrad.reports.report import Report

TITLES = {
    "certificate": "Certificate",
    "autodiff": "Autodiff",
    "expectation": "Exact expectation",
    "differences": "Finite differences",
    "monte_carlo": "Monte Carlo",
}
"""Evidence by the name it has on the page."""


def section(report: Report, anchor: str) -> str:
    """Return the section of one report, under an anchor."""
    claim, parts = report.claim, []
    parts.append(f'<div class="title"><h2>{escape(report.name)}</h2>{badge(report.verdict)}</div>')
    if claim.get("text"):
        parts.append(f"<p>{escape(claim['text'])}</p>")
    if claim.get("formula"):
        parts.append(f'<div class="formula">{mathml(claim["formula"])}</div>')
    parts.append(_facts(_about(claim)))
    parts += [
        f'<p class="diagnosis {verdict}">{escape(text)}</p>' for text, verdict in _headlines(report)
    ]
    for wrt, verdict in report.by_input.items():
        cards = "".join(_card(f) for f in report.findings if f.wrt == wrt)
        parts.append(
            f"<h3>Gradient in <code>{escape(wrt)}</code> {badge(verdict)}</h3><div "
            f'class="evidence">{cards}</div>'
        )
    for source in claim.get("source", ()):
        place = (
            f' <span class="soft">{escape(source["place"])}</span>' if source.get("place") else ""
        )
        parts.append(
            f"<details><summary>The {escape(source['title'])} in code{place}</summary>"
            f"<pre><code>{escape(source['code'], lines=True)}</code></pre></details>"
        )
    parts.append(f'<p class="soft">Reproduce:</p><pre><code>{escape(command(report))}</code></pre>')
    parts.append('<p class="soft up"><a href="#summary">↑ summary</a></p>')
    return f'<section class="derivation" id="{anchor}">{"".join(parts)}</section>'


def badge(verdict: Verdict | str, text: str = "") -> str:
    """Return a verdict as a coloured label."""
    return (
        f'<span class="badge {escape(verdict)}">{MARKS.get(Verdict(verdict), "")} '
        f"{escape(text or verdict)}</span>"
    )


def magnitude(value: float | None, digits: int = 2) -> str:
    """Write a magnitude as HTML.

    >>> magnitude(2.3e-16), magnitude(0.5), magnitude(None)
    ('2.3 × 10<sup>−16</sup>', '0.5', '')
    """
    mantissa, e, exponent = number(value, digits).partition("e")
    return f"{mantissa} × 10<sup>{exponent.replace('-', '−')}</sup>" if e else mantissa


def power(probability: float | None) -> str:
    """Write a tiny probability as a power of two that bounds it, as HTML.

    >>> power(1e-50)
    '2<sup>−166</sup>'
    """
    return f"2<sup>−{-math.ceil(math.log2(probability))}</sup>" if probability else ""


def command(report: Report) -> str:
    """Return the command, or the call, that reproduces a report."""
    context = report.context
    if context.get("command"):
        return str(context["command"])
    options = "".join(
        f", {name}={context[name]!r}"
        for name in ("seed", "sizes")
        if context.get(name) not in (None, {})
    )
    return f"jaxgrad.verify(claim{options})"


def _about(claim: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if claim.get("inputs"):
        shown = (
            f"<code>{escape(i['name'])}</code> ({_shape(i['shape'])}"
            + (f", {escape(i['domain'])})" if i["domain"] != "real" else ")")
            for i in claim["inputs"]
        )
        facts.append(("inputs", ", ".join(shown)))
    if claim.get("mask"):
        facts.append(
            ("mask", f"<code>{escape(claim['mask'])}</code> ({_shape(claim['mask_shape'])})")
        )
    if claim.get("reference"):
        facts.append(("reference", linked(claim["reference"])))
    return facts


def _shape(text: str) -> str:
    return escape(text.replace("*", "·").replace(" ", " × ") or "scalar")


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    listed = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in facts)
    return f'<dl class="facts">{listed}</dl>' if facts else ""


def _headlines(report: Report) -> list[tuple[str, str]]:
    """Return the text above the evidence: diagnoses or the verdict's reason, and warnings."""
    found = [] if report.verdict == Verdict.CONFIRMED else [(reason(report), str(report.verdict))]
    return found + [(warning, "undecided") for warning in report.warnings]


def _card(finding: Finding) -> str:
    figures = [figure for picture in finding.pictures for figure in _figures(picture)]
    wide = (
        ""
        if len(figures) < 2
        else " double"
        if all(isinstance(p, Heat) for p in finding.pictures)
        else " whole"
    )
    if not any(isinstance(p, Histogram) for p in finding.pictures):
        figures += filter(None, (spread_chart(p) for p in finding.pictures if isinstance(p, Heat)))
    numbers = [("error", magnitude(finding.error))]
    if finding.evidence == "certificate":
        numbers.append(("wrong with probability ≤", power(finding.bound)))
    else:
        numbers.append(("bound", magnitude(finding.bound)))
    numbers.append(("time", seconds(finding.seconds)))
    listed = "".join(
        f"<div><dt>{name}</dt> <dd class='num'>{text}</dd></div>" for name, text in numbers if text
    )
    title = TITLES.get(finding.evidence, finding.evidence.replace("_", " "))
    parts = [
        f"<h4><span>{escape(title)}</span>"
        f'<span class="mark {finding.verdict}">{MARKS[finding.verdict]} '
        f"{finding.verdict}</span></h4>",
        f'<dl class="numbers">{listed}</dl>',
        f"<p>{would_detect(finding)}</p>" if finding.verdict == Verdict.CONFIRMED else "",
        f'<p class="diagnosis undecided">{escape(finding.warning)}</p>' if finding.warning else "",
        f'<p class="detail">{escape(finding.detail)}</p>' if finding.detail else "",
        f'<div class="figures">{"".join(figures)}</div>' if figures else "",
    ]
    return f'<article class="finding {finding.verdict}{wide}">{"".join(parts)}</article>'


def would_detect(finding: Finding) -> str:
    """Say what a finding would have detected, as HTML; empty where it says nothing of that."""
    if finding.evidence == "certificate" and finding.bound is not None:
        return (
            f"A difference between the two functions would have gone unseen with a probability "
            f"of at most {power(finding.bound)}."
        )
    if finding.detectable is None:
        return ""
    return (
        f"An error above <b>{magnitude(finding.detectable)}</b> of the gradient's largest entry "
        f"would not have been confirmed."
    )


def _figures(picture: Picture) -> list[str]:
    if isinstance(picture, Heat):
        return heat_maps(picture)
    return list(
        filter(
            None,
            [closing_chart(picture) if isinstance(picture, Closing) else histogram_chart(picture)],
        )
    )
