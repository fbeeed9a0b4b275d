"""Two charts of a sampled gradient, as inline SVG.

One shows the confidence interval narrowing as the sample grows, the other the histogram of the
entries' standardised errors.
"""

import math
from collections.abc import Sequence

from jaxgrad.reports.html.text import escape
from jaxgrad.reports.layout import number
from jaxgrad.reports.pictures import WIDTH, Closing, Histogram

LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 20
WIDE, HIGH = 320, 150


def closing_chart(picture: Closing) -> str:
    """Draw the sampled mean and its interval against the number of samples.

    Zero is the closed form, and the band is the resolution.
    """
    if len(picture.samples) < 2:
        return ""
    off, reach = picture.off, picture.reach
    whole = max(abs(o) + r for o, r in zip(off, reach, strict=True))
    most = (
        min(
            whole,
            max(
                2.5 * picture.resolution, 1.5 * (abs(off[-1]) + reach[-1]), 1.2 * max(map(abs, off))
            ),
        )
        or 1.0
    )
    logs = [math.log2(n) for n in picture.samples]
    w, h = WIDE - LEFT - RIGHT, HIGH - TOP - BOTTOM
    x = [w * (v - logs[0]) / (logs[-1] - logs[0]) for v in logs]

    def y(value: float) -> float:
        return max(-h, min(2 * h, h / 2 * (1 - value / most)))

    upper = [(a, y(o + r)) for a, o, r in zip(x, off, reach, strict=True)]
    lower = [(a, y(o - r)) for a, o, r in zip(x, off, reach, strict=True)]
    mean = [(a, y(o)) for a, o in zip(x, off, strict=True)]
    top, bottom = y(picture.resolution), y(-picture.resolution)
    resolved = (
        f'<rect class="resolution" x="0" y="{top:.1f}" width="{w}" height="{bottom - top:.1f}"/>'
    )
    dots = "".join(f'<circle class="mean" cx="{a:.1f}" cy="{b:.1f}" r="2"/>' for a, b in mean)
    inside = (
        f'<svg x="{LEFT}" y="{TOP}" width="{w}" height="{h}" overflow="hidden">{resolved}'
        f'<path class="interval" d="{_line([*upper, *reversed(lower)])}z"/><path class="claim" '
        f'd="M0 {y(0):.1f}h{w}"/>'
        f'<path class="mean" d="{_line(mean)}"/></svg><g transform="translate({LEFT} '
        f'{TOP})">{dots}</g>'
    )
    ticks = "".join(
        f'<text x="{LEFT - 4}" y="{TOP + y(v) + 3:.1f}" text-anchor="end">{text}</text>'
        for v, text in ((most, f"+{number(most)}"), (0, "0"), (-most, f"−{number(most)}"))
    )
    shown = {0: "start", len(x) - 1: "end", **({len(x) // 2: "middle"} if len(x) > 4 else {})}
    ticks += "".join(
        f'<text x="{LEFT + x[i]:.1f}" y="{HIGH - 6}" '
        f'text-anchor="{anchor}">{picture.samples[i]:,}</text>'.replace(",", " ")
        for i, anchor in shown.items()
    )
    entry = (
        f"the worst entry, [{', '.join(map(str, picture.entry))}]"
        if picture.entry
        else "the only entry"
    )
    caption = (
        f"sampled mean − closed form at {entry}, relative to the gradient's largest entry, "
        f"against the number of samples; band: ±{number(picture.resolution)}"
    )
    return _chart(
        inside + _frame(w, h) + ticks,
        caption,
        "The Monte Carlo interval narrowing around the closed form",
    )


def histogram_chart(picture: Histogram) -> str:
    """Draw the histogram of standardised errors, and the normal density of a right closed form."""
    total, bins = sum(picture.counts), len(picture.counts)
    if not total:
        return ""
    w, h = WIDE - LEFT - RIGHT, HIGH - TOP - BOTTOM
    peak = total * WIDTH / math.sqrt(2 * math.pi)
    most = max(*picture.counts, peak) * 1.05
    one = w / bins
    bars = "".join(
        f'<rect class="{"beyond" if i in (0, bins - 1) else "bar"}" x="{LEFT + i * one:.1f}" '
        f'y="{TOP + h * (1 - n / most):.1f}" '
        f'width="{one - 1:.1f}" height="{h * n / most:.1f}"/>'
        for i, n in enumerate(picture.counts)
        if n
    )
    points = [-picture.reach + i * picture.reach / 40 for i in range(81)]
    bell = [
        (LEFT + w * (z / picture.reach + 1) / 2, TOP + h * (1 - peak * math.exp(-z * z / 2) / most))
        for z in points
    ]
    middle = LEFT + w / 2
    ends = [
        ("≤ " if picture.counts[0] else "") + f"−{picture.reach:g}",
        ("≥ " if picture.counts[-1] else "") + f"{picture.reach:g}",
    ]
    ticks = (
        f'<text x="{LEFT}" y="{HIGH - 6}">{ends[0]}</text><text x="{middle}" y="{HIGH - 6}" '
        f'text-anchor="middle">0</text>'
        f'<text x="{LEFT + w}" y="{HIGH - 6}" text-anchor="end">{ends[1]}</text>'
        f'<text x="{LEFT - 4}" y="{TOP + h * (1 - max(picture.counts) / most) + 3:.1f}" '
        f'text-anchor="end">{max(picture.counts)}</text>'
    )
    caption = (
        f"standardised errors of {total} entr{'y' if total == 1 else 'ies'}, in standard "
        f"errors; line: normal density"
    )
    drawn = f'{bars}<path class="bell" d="{_line(bell)}"/>{_frame(w, h)}{ticks}'
    return _chart(drawn, caption, "Histogram of standardised errors")


def _line(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _frame(w: float, h: float) -> str:
    return f'<path class="axis" d="M{LEFT} {TOP}v{h}h{w}"/>'


def _chart(drawn: str, caption: str, label: str) -> str:
    return (
        f'<figure class="wide"><svg class="chart" viewBox="0 0 {WIDE} {HIGH}" width="{WIDE}" '
        f'role="img" aria-label="{escape(label)}">'
        f"{drawn}</svg><figcaption>{escape(caption)}</figcaption></figure>"
    )
