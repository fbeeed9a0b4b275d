"""The columns of the table: one row for each derivation and input, one column for each evidence.

A line is a list of (text, style) pieces: plain text drops the styles, and a terminal colours by
them. The widths are fixed before the first row, so a table can grow while the work goes on.

A line is a list of (text, style) pieces: plain text drops the styles, a terminal colours by them.
The widths are fixed before the first row, so a table can grow while the work goes on.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxgrad.reports.finding import Finding, Verdict

if TYPE_CHECKING:
    from jaxgrad.reports.report import Report


Line = list[tuple[str, str]]
"""Pieces of one line, each with its style: a verdict, "head", "dim", "name" or ""."""

WIDTH = 100
"""Columns of plain text where nothing else is known."""

MARKS = {Verdict.CONFIRMED: "✓", Verdict.REFUTED: "✗", Verdict.UNDECIDED: "?"}
WARNING = "!"

_HEADS = {
    "certificate": ("certi-", "ficate"),
    "autodiff": ("auto-", "diff"),
    "expectation": ("expec-", "tation"),
    "differences": ("differ-", "ences"),
    "monte_carlo": ("monte_", "carlo"),
}
_ORDER = tuple(_HEADS)


def number(value: float | None, digits: int = 1) -> str:
    """Write a magnitude in few characters.

    >>> number(2.34e-16), number(0.0123, 2), number(0.0), number(None)
    ('2e-16', '0.012', '0', '')
    """
    if value is None:
        return ""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    if 1e-3 <= abs(value) < 1e3:
        text = f"{float(f'{value:.{digits - 1}e}'):.10f}".rstrip("0").rstrip(".")
        return text
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def power_of_two(probability: float | None) -> str:
    """Write a tiny probability as a power of two that bounds it.

    >>> power_of_two(1e-50), power_of_two(None)
    ('2⁻¹⁶⁶', '')
    """
    if not probability:
        return ""
    return "2" + str(math.ceil(math.log2(probability))).translate(
        str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    )


def seconds(value: float) -> str:
    """Write a time.

    >>> seconds(0.034), seconds(3.21), seconds(754)
    ('0.03 s', '3.2 s', '754 s')
    """
    if value < 0.995:
        return f"{value:.2f} s"
    return f"{value:.1f} s" if value < 99.95 else f"{value:.0f} s"


def by_strength(evidence: Iterable[str]) -> tuple[str, ...]:
    """Return each kind of evidence once, the strongest first."""
    return tuple(
        sorted(
            dict.fromkeys(evidence),
            key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER),
        )
    )


@dataclass(frozen=True)
class Layout:
    """Columns of a table and their widths, fixed before its first row.

    Attributes:
        name: width of the derivations' names.
        wrt: width of the inputs' names.
        evidence: the kinds of evidence, one column each.
        split: whether the heads of these columns take two lines.
        words: whether verdicts are written out behind their mark.
        detects: whether there is a column for the size above which no error is confirmed.
        time: whether there is a column for the time taken.
    """

    name: int
    wrt: int
    evidence: tuple[str, ...]
    split: bool = False
    words: bool = True
    detects: bool = True
    time: bool = True

    @classmethod
    def fit(
        cls,
        names: Iterable[str],
        inputs: Iterable[str],
        evidence: Sequence[str],
        width: int = WIDTH,
    ) -> "Layout":
        """Choose what fits into `width` columns, giving up the least important first."""
        longest = max(map(len, [*names, "derivation"]))
        wrt = min(max(map(len, [*inputs, "input"])), 16)
        evidence = tuple(evidence)
        for give_up in (
            {},
            {"split": True},
            {"split": True, "time": False},
            {"split": True, "time": False, "detects": False},
            {"split": True, "time": False, "detects": False, "words": False},
        ):
            layout = cls(longest, wrt, evidence, **give_up)
            if layout.width <= width:
                return layout
        excess = layout.width - width
        name = max(12, longest - excess)
        return cls(name, max(6, wrt - excess + longest - name), evidence, **give_up)

    @property
    def columns(self) -> list[tuple[tuple[str, str], int, str]]:
        """Each column's head of two lines, width and alignment."""
        columns = [
            (("", "derivation"), self.name, "<"),
            (("", "input"), self.wrt, "<"),
            (("", "  verdict" if self.words else ""), 11 if self.words else 1, "<"),
        ]
        for name in self.evidence:
            head = _HEADS.get(name, ("", name)) if self.split else ("", name)
            columns.append((head, max(8, *map(len, head)), ">"))
        if self.detects:
            columns.append((("", "detects"), 7, ">"))
        if self.time:
            columns.append((("", "time"), 6, ">"))
        return columns

    @property
    def width(self) -> int:
        """Columns of a full line."""
        columns = self.columns
        return sum(width for _, width, _ in columns) + 2 * (len(columns) - 1)

    def rule(self) -> Line:
        """Return a horizontal line."""
        return [("─" * self.width, "dim")]

    def header(self) -> list[Line]:
        """Return the lines above the first row."""
        heads = [[(head[i], "head") for head, _, _ in self.columns] for i in (0, 1)]
        return [self._line(cells) for cells in heads if any(text for text, _ in cells)] + [
            self.rule()
        ]

    def rows(self, report: "Report") -> list[Line]:
        """Return one line per input of a report."""
        lines = []
        for wrt, verdict in report.by_input.items():
            findings = [f for f in report.findings if f.wrt == wrt]
            first = not lines
            warned = verdict == Verdict.CONFIRMED and any(f.warning for f in findings)
            style = "undecided" if warned else str(verdict)
            mark = WARNING if warned else MARKS[verdict]
            cells = [
                (_shorten(report.name, self.name) if first else "", "name"),
                (wrt if len(wrt) <= self.wrt else "…" + wrt[1 - self.wrt :], ""),
                (f"{mark} {verdict}" if self.words else mark, style),
            ]
            cells += [
                _evidence_cell([f for f in findings if f.evidence == name])
                for name in self.evidence
            ]
            if self.detects:
                found = [
                    f.detectable
                    for f in findings
                    if f.detectable is not None and f.verdict != Verdict.UNDECIDED
                ]
                cells.append((number(min(found, default=None)), ""))
            if self.time:
                cells.append((seconds(report.seconds) if first else "", "dim"))
            lines.append(self._line(cells))
        if not lines:
            verdict = "? undecided" if self.words else "?"
            lines.append(
                self._line(
                    [(_shorten(report.name, self.name), "name"), ("", ""), (verdict, "undecided")]
                )
            )
        return lines

    def failure(self, name: str) -> Line:
        """Return the line of a derivation that could not be verified."""
        return self._line(
            [
                (_shorten(name, self.name), "name"),
                ("", ""),
                ("✗ error" if self.words else "✗", "refuted"),
            ]
        )

    def _line(self, cells: Sequence[tuple[str, str]]) -> Line:
        line: Line = []
        for i, ((text, style), (_, width, align)) in enumerate(
            zip(cells, self.columns, strict=False)
        ):
            pad = " " * (width - len(text))
            before, after = (pad, "") if align == ">" else ("", pad)
            line += [("  " * (i > 0) + before, ""), (text, style), (after, "")]
        return line


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def worst_of(findings: Sequence[Finding]) -> Finding | None:
    """Return the finding that stands for some of one kind in the table: a refutation first."""

    def rank(f: Finding) -> tuple[bool, bool, float]:
        return f.verdict == Verdict.REFUTED, f.verdict == Verdict.CONFIRMED, f.error or 0.0

    return max(findings, key=rank, default=None)


def _evidence_cell(findings: Sequence[Finding]) -> tuple[str, str]:
    worst = worst_of(findings)
    if worst is None:
        return "", ""
    shown = power_of_two(worst.bound) if worst.evidence == "certificate" else number(worst.error)
    return f"{MARKS[worst.verdict]} {shown}".rstrip(), str(worst.verdict)
