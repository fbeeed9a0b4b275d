"""LaTeX as MathML, which browsers set without help.

latex2mathml builds a tree of elements. It is written out here, and not there, so that only elements
and attributes of presentation MathML pass, and text is escaped: a formula from a user's file cannot
bring markup or a script along.
"""

import html
import re
from xml.etree.ElementTree import Element

from jaxgrad.reports.html.text import escape

_ELEMENTS = frozenset(
    {
        "math",
        "mrow",
        "mi",
        "mn",
        "mo",
        "ms",
        "mtext",
        "mspace",
        "mfrac",
        "msqrt",
        "mroot",
        "mstyle",
        "mpadded",
        "mphantom",
        "mfenced",
        "msub",
        "msup",
        "msubsup",
        "munder",
        "mover",
        "munderover",
        "mtable",
        "mtr",
        "mtd",
        "menclose",
        "merror",
    }
)
_ATTRIBUTES = frozenset(
    {
        "accent",
        "accentunder",
        "columnalign",
        "columnlines",
        "columnspacing",
        "depth",
        "display",
        "displaystyle",
        "fence",
        "form",
        "height",
        "largeop",
        "linebreak",
        "linethickness",
        "lspace",
        "mathsize",
        "mathvariant",
        "maxsize",
        "minsize",
        "movablelimits",
        "notation",
        "rowalign",
        "rowlines",
        "rowspacing",
        "rspace",
        "scriptlevel",
        "separator",
        "stretchy",
        "symmetric",
        "voffset",
        "width",
    }
)
_ARITY = {
    "mfrac": 2,
    "mroot": 2,
    "msub": 2,
    "msup": 2,
    "munder": 2,
    "mover": 2,
    "msubsup": 3,
    "munderover": 3,
}
_VALUE = re.compile(r"[-\w.%+ ]*")


def mathml(latex: str) -> str:
    r"""Set a formula as MathML, one line for each part between a comma and a ``\quad``.

    What cannot be set is shown as LaTeX.

    >>> mathml("x^2")
    '<math display="block"><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math>'
    >>> mathml(r"\text{<script>}").count("<script>"), mathml(r"\frac{1")
    (0, '<code class="tex">\\frac{1</code>')
    """
    return "\n".join(_set(part) for part in _lines(latex) if part)


def _set(latex: str) -> str:
    from latex2mathml.converter import convert_to_element

    try:
        found = _written(convert_to_element(latex, display="block"))
    except Exception:  # whatever a formula does to the converter, it must not cost the report
        found = "\\"
    return (
        f'<code class="tex">{escape(latex)}</code>' if "\\" in found else found
    )  # what is left is an unknown command


def _lines(latex: str) -> list[str]:
    r"""Split at ``, \quad`` outside of braces and of \left … \right."""
    parts, depth, begin = [], 0, 0
    for match in re.finditer(
        r"\\[{}]|[{}]|\\left\b|\\right\b|\\begin\b|\\end\b|,\s*\\quad\b", latex
    ):
        token = match[0]
        depth += token in ("{", "\\left", "\\begin")
        depth -= token in ("}", "\\right", "\\end")
        if token.startswith(",") and depth == 0:
            parts.append(latex[begin : match.start()])
            begin = match.end()
    return [part.strip() for part in (*parts, latex[begin:])]


def _written(element: Element) -> str:
    name = element.tag
    if name == "mo" and element.text in ("‖", "|", "&#x02016;", "&#x0007C;", "&#x2016;"):
        element.attrib.setdefault(
            "stretchy", "false"
        )  # a pair of bars of which one alone would grow
    inside = "".join(
        _text(element.text) + "".join(_written(child) + _text(child.tail) for child in element)
    )
    if name not in _ELEMENTS:
        return inside
    if len(element) != _ARITY.get(name, len(element)):
        raise ValueError(f"{name} with {len(element)} parts")
    attributes = "".join(
        f' {key}="{value}"'
        for key, value in element.attrib.items()
        if key in _ATTRIBUTES and _VALUE.fullmatch(value)
    )
    return f"<{name}{attributes}>{inside}</{name}>"


def _text(text: str | None) -> str:
    """Escape text in which latex2mathml wrote characters as references."""
    return escape(html.unescape(text)) if text else ""
