"""Histograms of errors in units of their bounds, by powers of ten, as inline SVG.

They show at a glance how far an array's errors stay below their bounds.
"""

from jaxgrad.reports.html.heatmaps import STEPS, shade, tick
from jaxgrad.reports.html.text import escape
from jaxgrad.reports.pictures import Heat

WIDE, HIGH, TOP, BOTTOM = 22, 96, 12, 16
INSIDE = STEPS.index(1.0) + 1
"""Bins of errors within the bound; always shown, for charts to be comparable."""
FEWEST = 4
"""A map of fewer cells shows all that a histogram of it would."""


def spread_chart(picture: Heat) -> str:
    """Draw the histogram of errors in units of their bounds; empty where there are few entries."""
    cells = [value for row in picture.error for value in row if value is not None]
    if len(cells) < FEWEST:
        return ""
    names = [shade(value) for value in cells]
    kinds = [f"e{i}" for i in range(len(STEPS) + 1)]
    last = max([INSIDE, *(i + 1 for i, kind in enumerate(kinds) if kind in names)])
    shown = [*kinds[:last], *(["nan"] if "nan" in names else [])]
    counts = [names.count(kind) for kind in shown]
    width, most = WIDE * len(shown), max(counts)
    drawn = ""
    for i, (kind, count) in enumerate(zip(shown, counts, strict=True)):
        if count:
            tall = max(1.0, (HIGH - TOP - BOTTOM) * count / most)
            top = HIGH - BOTTOM - tall
            drawn += (
                f'<rect class="{kind}" x="{i * WIDE + 1}" y="{top:.1f}" width="{WIDE - 2}" '
                f'height="{tall:.1f}"/>'
            )
            drawn += (
                f'<text x="{(i + 0.5) * WIDE:g}" y="{top - 3:.1f}" '
                f'text-anchor="middle">{count}</text>'
            )
        if kind == "nan":
            drawn += (
                f'<text x="{(i + 0.5) * WIDE:g}" y="{HIGH - 4}" text-anchor="middle">NaN</text>'
            )
    ends = range(1, min(last, len(STEPS)) + 1)
    drawn += "".join(
        f'<text x="{i * WIDE}" y="{HIGH - 4}" text-anchor="middle">{tick(STEPS[i - 1])}</text>'
        for i in ends[1::2]
    )
    drawn += f'<path class="axis" d="M0 {HIGH - BOTTOM}h{width}"/>'
    if last > INSIDE:
        drawn += f'<path class="bound" d="M{INSIDE * WIDE} {TOP}V{HIGH - BOTTOM}"/>'
    caption = f"{'cells' if picture.binned else 'entries'} by error ÷ bound"
    return (
        f'<figure class="beside"><svg class="spread" viewBox="-8 0 {width + 16} {HIGH}" '
        f'width="{width + 16}" role="img" '
        f'aria-label="Histogram of errors in units of their '
        f'bound">{drawn}</svg><figcaption>{escape(caption)}</figcaption></figure>'
    )
