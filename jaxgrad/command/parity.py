"""What ``jaxgrad parity`` does: a golden file, a JAX function, a table, and an exit status."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from jaxgrad.command import loading
from jaxgrad.command.running import Outcome
from jaxgrad.command.terminal import Screen
from jaxgrad.parity.checking import check
from jaxgrad.parity.golden import Golden
from jaxgrad.reports import table
from jaxgrad.reports.finding import Verdict
from jaxgrad.reports.layout import Layout, Line, by_strength
from jaxgrad.reports.report import Report

_LEGEND = (
    "d x is the gradient or cotangent of x. Numbers are the largest error, relative to the "
    "array's largest entry."
)


def find_function(target: str) -> Any:
    """Return what ``FILE.py:NAME`` or ``package.module:NAME`` names.

    Raises:
        ValueError: when there is no such thing, or it cannot be called.
    """
    path, colon, name = target.rpartition(":")
    if not colon or not path or not name:
        raise ValueError(f"{target!r} is no function; write FILE.py:NAME or package.module:NAME")
    module = loading.load_file(path) if path.endswith(".py") else loading.load_module(path)
    if not hasattr(module, name):
        functions = [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
        raise ValueError(f"{path} has no {name!r}; it has {', '.join(functions) or 'no functions'}")
    return getattr(module, name)


def run(
    golden: str,
    target: str,
    *,
    weights: str | None,
    taps: Sequence[str],
    ignore: Sequence[str],
    buffers: bool,
    precision: str,
) -> Report:
    """Check a function against a golden file.

    Raises:
        ValueError: for whatever is wrong with what was typed.
    """
    function = find_function(target)
    if not callable(function):
        raise ValueError(
            f"{target} is a {type(function).__name__}, not a function of params and inputs"
        )
    pairs = {}
    for pair in taps:
        ours, equals, theirs = pair.partition("=")
        if not (equals and ours and theirs):
            raise ValueError(
                f"`--tap` {pair!r} is no pair; write OURS=TORCH, such as --tap MLP/Dense_0=fc1"
            )
        pairs[ours] = theirs
    tree = None if weights is None else find_function(weights)
    recorded = Golden.load(golden)
    return check(
        function,
        recorded,
        weights=tree,
        taps=pairs,
        ignore=list(ignore),
        buffers=buffers,
        precision=None if precision == "none" else precision,
        name=recorded.name,
    )


def show(report: Report, screen: Screen) -> None:
    """Write a report as a table, and below it what is not confirmed and where the sides part."""
    layout = Layout.fit(
        [report.name],
        report.by_input,
        by_strength(f.evidence for f in report.findings),
        screen.width,
    )
    lines: list[Line] = [*layout.header(), *layout.rows(report), layout.rule(), [(_LEGEND, "dim")]]
    if table.needs_detail(report):
        lines += [[], *table.explain(report, screen.width)]
    for key, words in (
        ("first_forward", "the first block that differs by itself"),
        ("first_vjp", "the first VJP that differs by itself"),
    ):
        found = report.context.get(key)
        if found:
            lines.append(
                [(f"{words}: {found if isinstance(found, str) else ' or '.join(found)}", "refuted")]
            )
    for line in report.context.get("weights", ()):
        lines.append([(f"weights: {line}", "dim")])
    if report.context.get("unseen"):
        lines.append([(report.context["unseen"], "dim")])
    lines += [
        [],
        [
            (f"{report.name} is {report.verdict}", str(report.verdict)),
            (f" ({circumstances()})", "dim"),
        ],
    ]
    for line in lines:
        screen.write(line)


def circumstances() -> str:
    """Say where the comparison took place, and plainly that no GPU was there."""
    backend = jax.default_backend()
    return f"JAX on a {backend.upper()}" + (
        "; nothing was compared on a GPU" if backend == "cpu" else ""
    )


def to_json(report: Report) -> str:
    """Return the report as ``jaxgrad verify --json`` writes it."""
    return Outcome(reports=[report]).to_json()


def to_html(report: Report, command: str) -> str:
    """Return the report as one page."""
    from jaxgrad.parity import page

    return page.render(report, command)


def status(report: Report) -> int:
    """Return the command's exit status."""
    return {Verdict.CONFIRMED: 0, Verdict.REFUTED: 1, Verdict.UNDECIDED: 3}[report.verdict]


def screen_for(to_stderr: bool) -> Screen:
    """Return the stream that the table goes to."""
    return Screen(sys.stderr if to_stderr else sys.stdout)


def checked(path: str | None, option: str) -> Path | None:
    """Refuse a path that cannot be written, before the work is done."""
    from jaxgrad.runtime.files import check_writable

    return None if path is None or path == "-" else check_writable(path, option)
