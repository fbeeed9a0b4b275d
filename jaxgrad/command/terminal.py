"""What the command shows while it works: a growing table, on a terminal colours and a bar."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from jaxgrad.claims import shapes
from jaxgrad.claims.derivation import Derivation
from jaxgrad.reports import layout, table
from jaxgrad.reports.layout import WIDTH, Layout, Line
from jaxgrad.reports.report import Report

STYLES = {
    "confirmed": "green",
    "refuted": "bold red",
    "undecided": "yellow",
    "head": "bold",
    "name": "cyan",
    "dim": "dim",
    "": "",
}

_ASCII = str.maketrans(
    {
        "✓": "+",
        "✗": "x",
        "─": "-",
        "…": "~",
        "“": '"',
        "”": '"',
        "·": "-",
        "²": "^2",
        "±": "+-",
        "≥": ">=",
    }
)


class Screen:
    """A stream to which lines are written: styled on a terminal, plain elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        """Look at what the stream can show."""
        self.stream = stream
        self.unicode = "utf" in (getattr(stream, "encoding", None) or "").lower()
        self.terminal = stream.isatty() and self.unicode and os.environ.get("TERM") != "dumb"
        self.console: Any = None
        if self.terminal:
            from rich.console import Console

            self.console = Console(file=stream, highlight=False)
        self.width = min(self.console.width, 120) if self.terminal else WIDTH

    def write(self, line: Line) -> None:
        """Write one line; what could steer a terminal is taken out."""
        line = [(printable(text), style) for text, style in line]
        if self.console is None:
            text = table.plain(line)
            encoding = (
                self.stream.encoding
                if not self.unicode and getattr(self.stream, "encoding", None)
                else "utf-8"
            )
            text = text if self.unicode else text.translate(_ASCII)
            print(text.encode(encoding, "replace").decode(encoding), file=self.stream, flush=True)
        else:
            from rich.text import Text

            self.console.print(
                Text.assemble(*((text, STYLES[style]) for text, style in line)), soft_wrap=True
            )


class Run:
    """The table of one run, which grows with every report."""

    def __init__(
        self,
        screen: Screen,
        derivations: Sequence[Derivation],
        applicable: Callable[[Derivation], Sequence[str]],
        *,
        quiet: bool,
    ) -> None:
        """Fix the columns, and sort them as in every table.

        Args:
            screen: where to write.
            derivations: what is going to be verified.
            applicable: the kinds of evidence that a derivation may have; each gets a column.
            quiet: whether to tell only of what is not confirmed.
        """
        self.screen = screen
        self.derivations = derivations
        self.applicable = applicable
        self.evidence = layout.by_strength(
            kind for derivation in derivations for kind in applicable(derivation)
        )
        self.quiet = quiet
        self.reports: list[Report] = []
        self.done = [0.0] * len(derivations)
        self.failed = 0
        self.rows = 0
        self.started = time.perf_counter()
        inputs = [label for d in derivations for label in _labels(d)]
        self.layout = Layout.fit([d.name for d in derivations], inputs, self.evidence, screen.width)
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> "Run":
        """Start the bar."""
        if self.screen.terminal and not self.quiet:
            self._start_bar()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()

    def _start_bar(self) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.table import Column

        text = TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis"),
        )
        columns = (SpinnerColumn(), BarColumn(bar_width=24), TimeElapsedColumn(), text)
        self.bar = Progress(
            *columns,
            console=self.screen.console,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),
        )
        self.task = self.bar.add_task("", total=len(self.derivations))
        self.bar.start()

    def progress(self, index: int) -> Any:
        """Return what moves the bar for the derivation of this index, or None without a bar."""
        if self.bar is None:
            return None
        derivation = self.derivations[index]
        kinds = [kind for kind in self.evidence if kind in self.applicable(derivation)]

        def report(evidence: str, fraction: float, text: str) -> None:
            if evidence in kinds:
                done = min((kinds.index(evidence) + fraction) / len(kinds), 1.0)
                self.done[index] = max(self.done[index], done)
                words = printable(f"{derivation.name}, {evidence} {text}".rstrip())
                self.bar.update(self.task, completed=sum(self.done), description=words)

        return report

    def add(self, report: Report) -> None:
        """Write the rows of one more report."""
        self.reports.append(report)
        self._row(self.layout.rows(report))

    def fail(self, name: str, message: str) -> None:
        """Write the row of a derivation that could not be verified, and to stderr the reason."""
        self.failed += 1
        if len(self.derivations) > 1:
            self._row([self.layout.failure(name)])
        warn(message)

    def _row(self, lines: Sequence[Line]) -> None:
        if not self.quiet:
            self._write([*([] if self.rows else self.layout.header()), *lines])
            self.rows += len(lines)

    def finish(self) -> None:
        """Write what follows the last row: what the numbers mean, explanations, the count."""
        self.__exit__()
        if self.quiet:
            self._explain(every=False)
            return
        if self.rows == 0:
            return
        self._write([self.layout.rule(), *table.legend(self.screen.width)])
        self._explain(every=len(self.derivations) == 1)
        self._write([[], [*table.count(self.reports, self.failed), *self._circumstances()]])

    def _explain(self, *, every: bool) -> None:
        for report in self.reports:
            if every or table.needs_detail(report):
                self._write(
                    ([] if self.quiet else [[]])
                    + table.explain(report, self.screen.width, every=every)
                )

    def _circumstances(self) -> Line:
        context = self.reports[0].context if self.reports else {}
        known = [
            f"seed {context['seed']}" if "seed" in context else "",
            str(context.get("device", "")),
        ]
        parts = [*filter(None, known), table.seconds(time.perf_counter() - self.started)]
        return [(f" ({', '.join(parts)})", "dim")]

    def _write(self, lines: Sequence[Line]) -> None:
        for line in lines:
            self.screen.write(line)


def _labels(derivation: Derivation) -> list[str]:
    """Return the names of the inputs that may be differentiated, nested ones by their path."""
    drawn = "cotangent" if hasattr(derivation.gradient, "source") else ""
    names = [name for name in derivation.input_names if name != drawn]
    return [label for label, _ in shapes.leaves({name: derivation.shapes[name] for name in names})]


def printable(text: str) -> str:
    r"""Replace characters that are no text, such as a terminal's control codes.

    >>> printable("a\tb\x1b[31m")
    'a    b�[31m'
    """
    return "".join(c if c.isprintable() else "�" for c in text.replace("\t", "    "))


def warn(message: str) -> None:
    """Write a message to standard error, under the command's name."""
    message = printable(" ".join(message.splitlines()))
    stream = sys.stderr
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(
        f"jaxgrad: {message}".encode(encoding, "replace").decode(encoding), file=stream, flush=True
    )
