"""Heat maps as inline SVG: the error of each entry in units of its bound.

Where the two sides disagree, their values are shown as maps of their own. Small maps have the
numbers written into their cells.
"""

import math
from collections.abc import Iterator, Sequence

from jaxgrad.reports.html.text import escape
from jaxgrad.reports.layout import number
from jaxgrad.reports.pictures import Heat

STEPS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 1e2, 1e4, 1e8)
"""Errors, in units of the bound, at which the colour changes; up to 1 the bound explains them."""
SHADES = 8
"""Shades on each side of zero of a map of values."""
WRITTEN = 8
"""The most columns of a map that has its values written into its cells."""
SIDE, TALL, WIDE = 190, 17, 40

Row = Sequence[float | None]


def heat_maps(picture: Heat) -> list[str]:
    """Return the figures of a heat map: both sides' values where they are kept, then the errors."""
    if not picture.error:
        return []
    what = (
        f"{' × '.join(map(str, picture.shape)) or 'one'} "
        f"entr{'y' if math.prod(picture.shape) == 1 else 'ies'}"
    )
    if len(picture.shape) > 2:
        what += ", leading axes down"
    if picture.binned:
        what += f", the worst of each of {len(picture.error)} × {len(picture.error[0])} bins"
    figures = []
    if picture.closed is not None and picture.reference is not None:
        values = [
            abs(v)
            for side in (picture.closed, picture.reference)
            for row in side
            for v in row
            if v is not None and math.isfinite(v)
        ]
        scale = max(values, default=0.0) or 1.0
        for title, side in (
            ("closed form", picture.closed),
            (picture.against or "reference", picture.reference),
        ):
            shades = [[_shade(v, scale) for v in row] for row in side]
            figures.append(
                _figure(
                    shades,
                    side,
                    f"{title}, from {number(-scale, 2)} to {number(scale, 2)}",
                    f"Values of the {title}",
                )
            )
    finite = [v for row in picture.error for v in row if v is not None and math.isfinite(v)]
    worst = f"; worst {_times(max(finite))}" if finite else ""
    shades = [[shade(v) for v in row] for row in picture.error]
    figures.append(
        _figure(
            shades,
            picture.error if figures else None,
            f"error ÷ bound, {what}{worst}",
            "Error of each entry in units of its bound",
        )
    )
    return figures


def legend() -> str:
    """Return the scale of the errors."""
    labels = ["0", *(tick(step) for step in STEPS), ""]
    parts = [
        f'<rect class="e{i}" x="{i * WIDE}" y="0" width="{WIDE}" height="12"/>'
        + (
            f'<text x="{(i + 1) * WIDE}" y="25" text-anchor="middle">{labels[i + 1]}</text>'
            if i < len(STEPS)
            else ""
        )
        for i in range(len(STEPS) + 1)
    ]
    middle = (STEPS.index(1.0) + 1) * WIDE
    parts.append(f'<path class="bound" d="M{middle} -3v18"/>')
    return (
        f'<svg class="scale" viewBox="-2 -4 {WIDE * (len(STEPS) + 1) + 4} 33" role="img" '
        f'aria-label="Scale of the errors in units of '
        f'their bound">{"".join(parts)}</svg>'
    )


def tick(step: float) -> str:
    """Write a step of the scale.

    >>> tick(0.01), tick(1e4)
    ('0.01', '10⁴')
    """
    exponent = round(math.log10(step))
    return (
        f"10{str(exponent).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
        if exponent > 2
        else number(step)
    )


def _times(ratio: float) -> str:
    return "beyond all bounds" if ratio >= 1e98 else number(ratio, 2)


def shade(value: float | None) -> str:
    """Return the class of the colour of an error in units of its bound.

    >>> shade(0.02), shade(3.0), shade(float("nan")), shade(None)
    ('e2', 'e4', 'nan', 'none')
    """
    if value is None:
        return "none"
    return "nan" if not math.isfinite(value) else f"e{sum(value > step for step in STEPS)}"


def _shade(value: float | None, scale: float) -> str:
    if value is None:
        return "none"
    return (
        "nan"
        if not math.isfinite(value)
        else f"v{SHADES + round(SHADES * max(-1.0, min(1.0, value / scale)))}"
    )


def _figure(shades: list[list[str]], values: Sequence[Row] | None, caption: str, label: str) -> str:
    rows, columns = len(shades), len(shades[0])
    written = values is not None and columns <= WRITTEN and rows <= 2 * WRITTEN
    width, height = (
        (WIDE, TALL) if written else (side := max(3, min(20, SIDE // max(columns, rows))), side)
    )
    paths: dict[str, list[str]] = {}
    for y, row in enumerate(shades):
        for x, run, shade in _runs(row):
            paths.setdefault(shade, []).append(
                f"M{x * width} {y * height}h{run * width}v{height}h{-run * width}z"
            )
    drawn = "".join(
        f'<path class="{shade}" d="{"".join(parts)}"/>' for shade, parts in paths.items()
    )
    if written and values is not None:
        drawn += "".join(
            f'<text class="{shades[y][x]}" x="{(x + 0.5) * width:g}" y="{(y + 0.7) * height:g}" '
            f'text-anchor="middle">{_cell(v)}</text>'
            for y, row in enumerate(values)
            for x, v in enumerate(row)
        )
    drawn += f'<rect class="frame" width="{columns * width}" height="{rows * height}"/>'
    right, bottom = columns * width, rows * height
    legible = f' style="min-width:min({right + 2}px,100%)"' if written else ""
    return (
        f'<figure{legible}><svg class="map" viewBox="-1 -1 {right + 2} {bottom + 2}" '
        f'width="{right + 2}" role="img" '
        f'aria-label="{escape(label)}">{drawn}</svg><figcaption>{escape(caption)}</figcaption></figure>'
    )


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    if not math.isfinite(value):
        return "NaN"
    return ">1e98" if value >= 1e98 else number(value, 2)


def _runs(row: list[str]) -> Iterator[tuple[int, int, str]]:
    """Return the runs of equal shades, as (begin, length, shade)."""
    begin = 0
    for x in range(1, len(row) + 1):
        if x == len(row) or row[x] != row[begin]:
            yield begin, x - begin, row[begin]
            begin = x
