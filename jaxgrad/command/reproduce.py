"""The command that reproduces each report."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxgrad.claims.derivation import Derivation
from jaxgrad.command import loading
from jaxgrad.reports.report import Report


def stamp(
    reports: Sequence[Report],
    targets: Sequence[str],
    options: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> list[Report]:
    """Return the reports, each with the command that reproduces it in its context, "command".

    Args:
        reports: of one run of ``jaxgrad verify``.
        targets: what was typed behind it.
        options: the run's options by their Python names.
        defaults: what these are where nothing is typed, in the order in which they shall stand.
    """
    origin: dict[str, str] = {}
    for target in targets:
        for derivation in loading.find([target]):
            origin.setdefault(derivation.name, _target(target, derivation))
    typed = shown(options, defaults)
    return [
        replace(
            report,
            context=report.context
            | {
                "command": shlex.join(
                    ["jaxgrad", "verify", origin.get(report.name, report.name), *typed]
                )
            },
        )
        for report in reports
    ]


def shown(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Return the words of a command line for the options that are not the default, and the seed.

    >>> shown(
    ...     {"seed": 0, "max_samples": 64, "sizes": {"n": 3, "m": 2}, "inputs": None},
    ...     {"seed": 0, "sizes": None, "max_samples": 2},
    ... )
    ['--seed', '0', '--sizes', 'n=3,m=2', '--max-samples', '64']
    """
    words: list[str] = []
    for name in [name for name in defaults if name in options]:
        value = options[name]
        if value is None or (value == defaults[name] and name != "seed"):
            continue
        if isinstance(value, Mapping):
            value = ",".join(f"{key}={item}" for key, item in value.items())
        elif isinstance(value, (tuple, list)):
            value = ",".join(map(str, value))
        words += [
            f"--{name.replace('_', '-')}",
            f"{value:g}" if isinstance(value, float) else str(value),
        ]
    return words


def _target(target: str, derivation: Derivation) -> str:
    return f"{target}:{derivation.name}" if target.endswith(".py") else target
