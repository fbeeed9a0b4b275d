"""A parity report as one HTML page: where along the network the two sides part.

It shows every block in torch's order, with the findings on its value and on its cotangent, and what
restores parity at the first that differs.
"""

import datetime
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.reports.html.page import POLICY, _style
from jaxgrad.reports.html.sections import badge, magnitude
from jaxgrad.reports.html.text import escape
from jaxgrad.reports.layout import seconds
from jaxgrad.reports.report import Report

LEAST, MOST = -4, 12
"""Decimal logarithms of the smallest and largest error in bounds that the figure tells apart."""

_NAMES, _WIDE, _ROW, _TOP = 210, 330, 26, 34
_STYLE = """
.flow text.name { font-size: 11px; fill: var(--ink); }
.flow text.first { font-weight: 700; fill: var(--refuted); }
.flow rect { fill: var(--verdict); } .flow rect.back { fill-opacity: .55; }
.flow .beyond { fill: var(--tint); fill-opacity: .6; }
.flow { width: 100%; max-width: 44rem; } figure.flow { min-width: 0; }
.keys { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; }
.keys i { display: inline-block; width: 1.4rem; height: .5rem; margin-right: .4rem; }
.keys i { background: var(--confirmed); }
.keys i.back { opacity: .55; }
td.num, th.num { text-align: right; } h2 { margin-top: 2rem; }
td.words { white-space: normal; overflow-wrap: anywhere; }
"""


class Stop(NamedTuple):
    """One block of the network, with what was found of its value and of its cotangent."""

    name: str
    value: Finding | None
    cotangent: Finding | None


def render(report: Report, command: str = "", *, made: datetime.date | None = None) -> str:
    """Return the page of a parity report.

    Args:
        report: what `jaxgrad.parity.check` returned.
        command: what was typed to make it.
        made: the day; today when None.

    >>> "is the port right?" in render(Report(name="m", findings=()))
    True
    """
    context = report.context
    known = [
        (made or datetime.date.today()).isoformat(),
        f"torch {context['torch']}" if "torch" in context else "",
        f"jax {context['jax']}" if "jax" in context else "",
        str(context.get("device", "")),
    ]
    parts = [
        f"<header><h1>{escape(report.name)}: is the port right?</h1>",
        f'<ul class="tally"><li>{badge(report.verdict)}</li></ul>',
        f'<p class="soft">jaxgrad parity · '
        f"{escape(' · '.join(filter(None, known)))}</p></header><main>",
        *_said(report),
        _flow(stops(report), _firsts(report)),
        _table(report),
        _probes(report),
        _weights(context.get("weights", ())),
        "</main>",
        _circumstances(report, command),
    ]
    title = f"{report.name}: is the port right?"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta '
        'name="color-scheme" content="light dark">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title>'
        f"<style>{_style()}{_STYLE}</style></head>\n"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def stops(report: Report) -> list[Stop]:
    """Return the blocks in torch's order, each with the findings on its value and cotangent."""
    found = {f.wrt: f for f in report.findings if f.evidence == "semantic"}
    taps = set(report.context.get("taps") or {}) and set(report.context["taps"].values())
    names = [wrt for wrt in found if wrt in taps or wrt == "output" or wrt.startswith("output[")]
    blocks = [n for n in names if n in taps] + [n for n in names if n not in taps]
    return [Stop(name, found[name], found.get(f"d {name}")) for name in blocks]


def ratio(finding: Finding) -> float:
    """Return an error in units of its bound; infinite where it was not measured and differs."""
    if finding.error is None or finding.bound is None:
        return math.inf if finding.verdict == Verdict.REFUTED else 0.0
    return (
        finding.error / finding.bound
        if finding.bound > 0
        else (math.inf if finding.error > 0 else 0.0)
    )


def _firsts(report: Report) -> dict[str, list[str]]:
    context = report.context
    names = context.get("first_vjp") or ()
    verb, also = ("is", "backward") if len(names) == 1 else ("may be", "perhaps backward")
    firsts = (
        {context["first_forward"]: ["is the first to differ by itself, forward"]}
        if context.get("first_forward")
        else {}
    )
    for name in names:
        firsts[name] = (
            [*firsts[name], also]
            if name in firsts
            else [f"{verb} the first to differ by itself, backward"]
        )
    return firsts


def _said(report: Report) -> list[str]:
    context, said = report.context, []
    for name, words in _firsts(report).items():
        remedy = context.get("remedies", {}).get(name, "")
        told = f": <b>{escape(remedy)}</b>" if remedy else ""
        said.append(
            f'<p class="diagnosis refuted"><code>{escape(name)}</code> '
            f"{escape(' and '.join(words))}{told}</p>"
        )
    rest = {k: v for k, v in context.get("remedies", {}).items() if k not in _firsts(report)}
    rest |= {
        f.wrt: f.diagnosis
        for f in report.findings
        if f.diagnosis
        and f.verdict != Verdict.CONFIRMED
        and f.diagnosis not in context.get("remedies", {}).values()
    }
    said += [
        f'<p class="diagnosis refuted"><code>{escape(name)}</code>: {escape(words)}</p>'
        for name, words in rest.items()
        if words
    ]
    if not said and report.verdict != Verdict.CONFIRMED:
        worst = next((f for f in report.findings if f.verdict == report.verdict), None)
        said += (
            [
                f'<p class="diagnosis {worst.verdict}"><code>{escape(worst.wrt)}</code>: '
                f"{escape(worst.detail)}</p>"
            ]
            if worst
            else []
        )
    return said + [
        f'<p class="diagnosis undecided">{escape(warning)}</p>' for warning in report.warnings
    ]


def _flow(blocks: Sequence[Stop], firsts: dict[str, list[str]]) -> str:
    if not blocks:
        return ""
    unit = _WIDE / (MOST - LEAST)
    high = _TOP + _ROW * len(blocks)
    one = _NAMES + unit * -LEAST
    drawn = [
        f'<rect class="beyond refuted" x="{one:.1f}" y="{_TOP - 6}" '
        f'width="{_WIDE + LEAST * unit:.1f}" height="{high - _TOP + 6}"/>'
    ]
    for i, stop in enumerate(blocks):
        y = _TOP + i * _ROW
        mark = " ◀ " + " and ".join(map(_marked, firsts[stop.name])) if stop.name in firsts else ""
        kind = "name first" if mark else "name"
        drawn.append(
            f'<text class="{kind}" x="0" '
            f'y="{y + 12}">{escape(_short(stop.name))}{escape(mark)}</text>'
        )
        for k, finding in enumerate((stop.value, stop.cotangent)):
            if finding is None:
                continue
            size = max(LEAST, min(MOST, math.log10(max(ratio(finding), 10.0**LEAST)))) - LEAST
            drawn.append(
                f'<rect class="{"back" if k else "fore"} {finding.verdict}" x="{_NAMES}" '
                f'y="{y + 3 + 8 * k}" height="7" '
                f'width="{max(1.5, size * unit):.1f}">'
                f"<title>{escape(_titled(finding))}</title></rect>"
            )
    ticks = "".join(
        f'<text x="{_NAMES + (e - LEAST) * unit:.1f}" y="{_TOP - 12}" '
        f'text-anchor="middle">{"1" if e == 0 else f"10{_power(e)}"}</text>'
        for e in range(LEAST, MOST + 1, 4)
    )
    line = (
        f'<path class="bound" d="M{one:.1f} {_TOP - 6}V{high}"/><text x="{_NAMES}" '
        f'y="10">error, in bounds</text>'
    )
    keys = (
        '<figcaption class="keys"><span><i></i>value</span><span><i '
        'class="back"></i>cotangent</span><span>line: the bound, what '
        "rounding may explain; shaded: beyond it. Every block in torch's order, in the whole "
        "network, where an early difference "
        "moves all that follows; what differs by itself is marked.</span></figcaption>"
    )
    return (
        f'<h2>Through the network</h2><figure class="flow"><svg class="flow" viewBox="0 0 '
        f'{_NAMES + _WIDE + 20} {high + 6}" role="img" '
        f'aria-label="Error of every block in units of its '
        f'bound">{"".join(drawn)}{line}{ticks}</svg>{keys}</figure>'
    )


def _marked(words: str) -> str:
    return f"{'perhaps ' if words.startswith('may be') else ''}{words.rpartition(', ')[2]}"


def _short(name: str) -> str:
    return name if len(name) <= 34 else f"…{name[-33:]}"


def _power(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _titled(finding: Finding) -> str:
    return f"{finding.wrt}: {finding.verdict}, {ratio(finding):.2g} bounds; {finding.detail}"


def _table(report: Report) -> str:
    kinds = list(dict.fromkeys(f.evidence for f in report.findings if f.evidence != "probe"))
    rows = []
    for wrt, verdict in report.by_input.items():
        found = {f.evidence: f for f in report.findings if f.wrt == wrt and f.evidence != "probe"}
        if not found:
            continue
        cells = "".join(f'<td class="num">{_measured(found.get(kind))}</td>' for kind in kinds)
        words = next((f.detail for f in found.values() if f.verdict != Verdict.CONFIRMED), "")
        rows.append(
            f"<tr><td><code>{escape(wrt)}</code></td><td>{badge(verdict)}</td>{cells}<td "
            f'class="words">{escape(words)}</td></tr>'
        )
    heads = "".join(f'<th class="num">{escape(kind)}</th>' for kind in kinds)
    return (
        '<h2>Every array</h2><p class="soft">d x is the gradient or cotangent of x. Errors are '
        "relative to the largest entry; in a low "
        "precision they are root mean squares.</p><div "
        'class="scroll"><table><thead><tr><th>Array</th><th>Verdict</th>'
        f"{heads}<th></th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _measured(finding: Finding | None) -> str:
    return "" if finding is None else magnitude(finding.error, 1)


def _probes(report: Report) -> str:
    found = [f for f in report.findings if f.evidence == "probe"]
    if not found:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(f.wrt)}</code></td><td>{badge(f.verdict)}</td><td "
        f'class="num">{magnitude(f.error, 1)}</td>'
        f'<td class="words">{escape(f.diagnosis or f.detail)}</td></tr>'
        for f in found
    )
    return (
        "<h2>Beyond the recorded activations</h2>"
        '<p class="soft">Modules without parameters, alone, on values of 10<sup>−2</sup> to '
        "10<sup>3</sup> in size.</p>"
        f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>'
    )


def _weights(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(ours)}</code></td><td><code>{escape(theirs)}</code></td><td>{escape(layout.rstrip(')'))}</td></tr>"
        for ours, theirs, layout in (_split(line) for line in lines)
    )
    return (
        '<h2>The map of weights</h2><div class="scroll"><table><thead><tr><th>The '
        "port</th><th>torch</th><th>Layout</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _split(line: str) -> tuple[str, str, str]:
    ours, _, rest = line.partition(" is ")
    theirs, _, layout = rest.partition(" (")
    return ours, theirs, layout


def _circumstances(report: Report, command: str) -> str:
    facts: list[tuple[str, Any]] = [
        ("seed", report.context.get("seed")),
        ("matrix products", "; ".join(report.context.get("products", ()))),
        ("not seen", report.context.get("unseen")),
        ("time of the check", seconds(report.seconds)),
    ]
    listed = "".join(
        f"<dt>{name}</dt><dd>{escape(str(text))}</dd>"
        for name, text in facts
        if text not in (None, "")
    )
    typed = f"<pre><code>{escape(command)}</code></pre>" if command else ""
    return (
        f'<footer id="again"><h2>How to do it again</h2>{typed}<dl '
        f'class="facts">{listed}</dl></footer>'
    )
