"""One run of the command: derivations are verified in turn, the table grows, and an outcome remains."""

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxgrad import faults, terminal
from jaxgrad.derivation import Derivation
from jaxgrad.report import SCHEMA, Report, Verdict


@dataclass
class Outcome:
    """What a run leaves.

    Attributes:
        reports: one per derivation that could be verified.
        errors: {name: message} of those that could not.
        broken: whether one of these errors is jaxgrad's own.
    """

    reports: list[Report] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    broken: bool = False

    @property
    def verdict(self) -> Verdict:
        """Refuted when any report is, confirmed when all are and there was no error, else undecided."""
        verdicts = [report.verdict for report in self.reports]
        if Verdict.REFUTED in verdicts:
            return Verdict.REFUTED
        all_confirmed = verdicts and not self.errors and all(v == Verdict.CONFIRMED for v in verdicts)
        return Verdict.CONFIRMED if all_confirmed else Verdict.UNDECIDED

    @property
    def status(self) -> int:
        """The command's exit status."""
        if self.broken:
            return 70
        if self.errors:
            return 2
        return {Verdict.CONFIRMED: 0, Verdict.REFUTED: 1, Verdict.UNDECIDED: 3}[self.verdict]

    def to_json(self) -> str:
        """Return all reports and errors as strict JSON."""
        whole = {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "reports": [report.to_dict() for report in self.reports],
            "errors": [{"name": name, "message": message} for name, message in self.errors.items()],
        }
        return json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)


def hush() -> None:
    """Keep JAX from saying that it found no accelerator; the table names the device."""
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)


def run(
    derivations: Sequence[Derivation],
    *,
    quiet: bool = False,
    to_stderr: bool = False,
    debug: bool = False,
    **options: Any,
) -> Outcome:
    """Verify derivations in turn and show the table.

    Args:
        derivations: what to verify.
        quiet: whether to tell only of what is not confirmed.
        to_stderr: whether the table goes to standard error, and with it all that the user's functions print.
        debug: whether exceptions are let through.
        **options: passed on to `jaxgrad.verify`.
    """
    from jaxgrad.verification import verify

    outcome = Outcome()
    columns = options["evidence"] or _columns(derivations)
    screen = terminal.Screen(sys.stderr if to_stderr else sys.stdout)
    with _printing(to_stderr), terminal.Run(screen, derivations, columns, quiet=quiet) as table:
        for i, derivation in enumerate(derivations):
            try:
                report = verify(derivation, progress=table.progress(i), **options)
            except Exception as error:
                if debug:
                    raise
                message = faults.tell(error, derivation)
                if message is None:
                    outcome.broken = True
                    message = (
                        f"{derivation.name}: jaxgrad itself failed with {faults.summary(error).rstrip('.')}. This is no verdict "
                        "on the gradient; run again with JAXGRAD_DEBUG=1 for the traceback, and report it"
                    )
                outcome.errors[derivation.name] = message
                table.fail(derivation.name, message)
                continue
            outcome.reports.append(report)
            table.add(report)
        table.finish()
    return outcome


@contextlib.contextmanager
def _printing(to_stderr: bool) -> Iterator[None]:
    with contextlib.redirect_stdout(sys.stderr) if to_stderr else contextlib.nullcontext():
        yield


def _columns(derivations: Sequence[Derivation]) -> tuple[str, ...]:
    """Return the kinds of evidence that any of the derivations can have."""
    from jaxgrad.verification import EVIDENCE

    return tuple(EVIDENCE)
