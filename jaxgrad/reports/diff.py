"""What changed between two runs, read from their JSON.

Verdicts are ordered from best to worst: confirmed, undecided, refuted, could not be verified. A
claim, or an input of one, that is gone counts as worse, since nothing checks it any longer. So does
a new one that is not confirmed.

Verdicts are ordered from best to worst: confirmed, undecided, refuted, could not be verified. A
claim, or an input of one, that is gone counts as worse, since nothing checks it any longer. So does
a new one that is not confirmed.

A verdict is worse in this order: confirmed, undecided, refuted, could not be verified. What is gone
is worse too, since nothing watches over it any longer, and so is what is new and not confirmed;
both hold of derivations and of the inputs of one.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxgrad.reports.report import SCHEMA, Report

RANKS = ("confirmed", "undecided", "refuted", "error")
"""Verdicts from best to worst."""
READABLE = (1, SCHEMA)
"""Versions of the JSON form that can be read."""
COARSER = 10.0
"""Factor by which the detectable error must grow before that counts as a change."""


@dataclass(frozen=True)
class Run:
    """The part of a run that is compared: reports, and error messages, by name."""

    reports: Mapping[str, Report]
    errors: Mapping[str, str]


@dataclass(frozen=True)
class Change:
    """One difference between two runs.

    Attributes:
        name: of the derivation.
        text: what changed, in words.
        kind: "worse", "better", or "other" where no verdict changed.
    """

    name: str
    text: str
    kind: str


def read(path: str) -> Run:
    """Read the JSON of a run, or of a single report.

    Raises:
        ValueError: when there is no such file, or when it holds something else; the message says
            what to do.
    """
    remedy = "write it again with `jaxgrad verify --json`"
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(
            f"{path!r} {'is a folder' if file.is_dir() else 'does not exist'}; {remedy}"
        )
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not JSON: line {error.lineno}: {error.msg}; {remedy}"
        ) from None
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}; {remedy}") from None
    version = data.get("schema") if isinstance(data, dict) else None
    if version is None:
        raise ValueError(f"{path} is not a report of jaxgrad: it has no `schema`; {remedy}")
    if version not in READABLE:
        raise ValueError(
            f"{path} has version {version!r} of the report; this jaxgrad reads "
            f"{' and '.join(map(str, READABLE))}; {remedy}"
        )
    try:
        found = [
            Report.from_dict(report)
            for report in (data["reports"] if "reports" in data else [data])
        ]
        errors = {str(error["name"]): str(error["message"]) for error in data.get("errors", ())}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); {remedy}") from None
    names = [report.name for report in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{path} has two reports named {twice!r}, which cannot be told apart")
    return Run({report.name: report for report in found}, errors)


def compare(old: Run, new: Run) -> list[Change]:
    """Return what changed from one run to the next, the worse first.

    >>> from jaxgrad.reports.finding import Finding, Verdict
    >>> from jaxgrad.reports.report import Report
    >>> right, wrong = (
    ...     Report(name="d", findings=(Finding(evidence="autodiff", wrt="x", verdict=v),))
    ...     for v in list(Verdict)[:2]
    ... )
    >>> [change.text for change in compare(Run({"d": right}, {}), Run({"d": wrong}, {}))]
    ['confirmed before, now refuted: x']
    """
    changes: list[Change] = []
    for name in dict.fromkeys([*old.reports, *old.errors, *new.reports, *new.errors]):
        before, after = _verdict(old, name), _verdict(new, name)
        why = "" if after is None else _why(new, name)
        changes += _change(name, "", before, after, "the new run does not verify it", why)
        if name in old.reports and name in new.reports:
            changes += _within(old.reports[name], new.reports[name], same=before == after)
    return sorted(changes, key=lambda change: ("worse", "better", "other").index(change.kind))


def _verdict(run: Run, name: str) -> str | None:
    if name in run.errors:
        return "error"
    return str(run.reports[name].verdict) if name in run.reports else None


def _change(
    name: str, wrt: str, before: str | None, after: str | None, gone: str, why: str = ""
) -> list[Change]:
    """Return the change from one verdict to another; None stands for no verdict."""
    was, now = ("in error" if v == "error" else v for v in (before, after))
    if after is None:
        return [Change(name, f"{wrt}{was} before, now gone: {gone}", "worse")]
    if before is None:
        kind = "other" if after == "confirmed" else "worse"
        return [Change(name, f"{wrt}new, {now}{why}", kind)]
    if before == after:
        return []
    kind = "worse" if RANKS.index(after) > RANKS.index(before) else "better"
    return [Change(name, f"{wrt}{was} before, now {now}{why}", kind)]


def _why(run: Run, name: str) -> str:
    """Return, after a colon, the error, the diagnoses or the inputs that are not confirmed."""
    if name in run.errors:
        return f": {run.errors[name]}"
    report = run.reports[name]
    if report.verdict == "confirmed":
        return ""
    diagnoses = dict.fromkeys(f.diagnosis for f in report.findings if f.diagnosis)
    inputs = [wrt for wrt, verdict in report.by_input.items() if verdict == report.verdict]
    reason = "; ".join(diagnoses) or ", ".join(inputs)
    return f": {reason}" if reason else ""


def _within(old: Report, new: Report, *, same: bool) -> list[Change]:
    """Return what changed within a report; inputs' verdicts only if the report's is the `same`."""
    changes = []
    before, after = old.by_input, new.by_input
    for wrt in dict.fromkeys([*before, *after]):
        was, now = before.get(wrt), after.get(wrt)
        if same or was is None or now is None:
            gone = "its gradient is no longer verified"
            changes += _change(new.name, f"{wrt}: ", was, now, gone)
        if was == now:
            changes += _evidence(new.name, wrt, old, new)
    for verb, some, others in (
        ("no longer warned", old.warnings, new.warnings),
        ("now warned", new.warnings, old.warnings),
    ):
        changes += [Change(new.name, f"{verb}: {w}", "other") for w in some if w not in others]
    return changes


def _evidence(name: str, wrt: str, old: Report, new: Report) -> list[Change]:
    found = [{f.evidence: f for f in report.findings if f.wrt == wrt} for report in (old, new)]
    changes = []
    for kind in dict.fromkeys([*found[0], *found[1]]):
        before, after = found[0].get(kind), found[1].get(kind)
        verdicts = [
            str(finding.verdict) if finding else "not gathered" for finding in (before, after)
        ]
        if verdicts[0] != verdicts[1]:
            changes.append(
                Change(name, f"{wrt}, {kind}: {verdicts[0]} before, now {verdicts[1]}", "other")
            )
        elif (
            before
            and after
            and (before.detectable or math.inf) * COARSER <= (after.detectable or 0.0)
        ):
            text = (
                f"{wrt}, {kind}: detected errors above {before.detectable:.1g} before, now only "
                f"above {after.detectable:.1g}"
            )
            changes.append(Change(name, text, "other"))
    return changes


def lines(changes: Sequence[Change], old: Run, new: Run) -> list[list[tuple[str, str]]]:
    """Return the changes as lines for the terminal, and a count below them."""
    styles = {"worse": ("✗", "refuted"), "better": ("✓", "confirmed"), "other": ("·", "dim")}
    out: list[list[tuple[str, Any]]] = []
    for change in changes:
        mark, style = styles[change.kind]
        out.append([(f"{mark} {change.name}", style), (f"  {change.text}", "")])
    total = len({*old.reports, *old.errors} | {*new.reports, *new.errors})
    changed, worse, better = (
        len({change.name for change in changes if change.kind in kinds})
        for kinds in (styles, ("worse",), ("better",))
    )
    counted = (
        f"{total} derivation{'s' * (total != 1)}: {total - changed} unchanged, {worse} worse, "
        f"{better} better"
    )
    return [*out, *([[]] if out else []), [(counted, "")]]
