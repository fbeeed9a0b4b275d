"""One run of the command: claims are verified, the table grows, and an outcome remains."""

import contextlib
import gc
import json
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from jaxgrad.claims import user_errors
from jaxgrad.claims.derivation import Derivation
from jaxgrad.command import loading, terminal
from jaxgrad.reports.finding import Verdict
from jaxgrad.reports.report import SCHEMA, Report
from jaxgrad.runtime import cache
from jaxgrad.runtime.workers import Worker
from jaxgrad.verification.applicable import EVIDENCE
from jaxgrad.verification.verify import verify

Progress = Callable[[str, float, str], None]


@dataclass(frozen=True)
class Failure:
    """What to say where a claim could not be verified, and whether the mistake is jaxgrad's own."""

    message: str
    own: bool


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
        """Refuted when any report is, confirmed when all are without an error, else undecided."""
        verdicts = [report.verdict for report in self.reports]
        if Verdict.REFUTED in verdicts:
            return Verdict.REFUTED
        all_confirmed = (
            verdicts and not self.errors and all(v == Verdict.CONFIRMED for v in verdicts)
        )
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


def prepare() -> str | None:
    """Set JAX and Python up for a process that does nothing but verify.

    JAX says nothing of accelerators it did not find: the table names the device. Tracebacks are
    left whole, since they tell whose mistake an exception is. The user's switches against compiling
    and against copies to the device would stop every check, and change no number. Python's garbage
    collector leaves imports alone, and comes less often: tracing makes much, and keeps it.

    Returns:
        What to say of the cache of compiled programs, if anything.

    Raises:
        ValueError: when JAX has no device to run on.
    """
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)
    jax.config.update("jax_traceback_filtering", "off")
    jax.config.update("jax_disable_jit", False)
    jax.config.update("jax_transfer_guard", "allow")
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 20, 100)
    said = cache.turn_on()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where a plugin is not installed
        wanted = jax.config.values["jax_platforms"]
        why = f"JAX_PLATFORMS={wanted}" if wanted else user_errors.summary(error)
        raise ValueError(f"JAX finds no device ({why}); set JAX_PLATFORMS=cpu") from None
    return said


def run(
    derivations: Sequence[Derivation],
    *,
    quiet: bool = False,
    to_stderr: bool = False,
    debug: bool = False,
    workers: Sequence[Worker] = (),
    **options: Any,
) -> Outcome:
    """Verify derivations and show the table.

    Args:
        derivations: what to verify.
        quiet: whether to tell only of what is not confirmed.
        to_stderr: whether the table goes to standard error, and with it all that the users'
            functions print.
        debug: whether exceptions are let through.
        workers: processes that answer (name, to_stderr, options) as `serve` does.
        **options: passed on to `jaxgrad.verify`.
    """
    outcome = Outcome()
    chosen = options["evidence"]
    kinds = _applicable if chosen is None else lambda _: chosen
    screen = terminal.Screen(sys.stderr if to_stderr else sys.stdout)
    with _stdout(to_stderr), terminal.Run(screen, derivations, kinds, quiet=quiet) as table:

        def here(number: int) -> Report | Failure:
            return _attempt(derivations[number], table.progress(number), options, debug=debug)

        def there(number: int, worker: Worker) -> Report | Failure | None:
            question = derivations[number].name, to_stderr, options
            return worker.ask(question, table.progress(number) or (lambda *_: None))

        for derivation, found in zip(
            derivations, shared(len(derivations), here, there, workers), strict=True
        ):
            if isinstance(found, Failure):
                outcome.errors[derivation.name] = found.message
                outcome.broken |= found.own
                table.fail(derivation.name, found.message)
            else:
                outcome.reports.append(found)
                table.add(found)
        table.finish()
    return outcome


def serve(targets: Sequence[str]) -> Callable[[Any, Progress], Report | Failure | None]:
    """Load what the targets name, in a worker; return what verifies one claim of it.

    It returns None for a claim that is not found here. What the files print as they are loaded, the
    command has printed already.
    """
    known: dict[str, Derivation] = {}
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        with contextlib.suppress(ValueError):  # the command says what it is
            prepare()
            known = {derivation.name: derivation for derivation in loading.find(targets)}

    def answer(question: Any, tell: Progress) -> Report | Failure | None:
        name, to_stderr, options = question
        if name not in known:
            return None
        with _stdout(to_stderr):
            found = _attempt(known[name], tell, options)
            sys.stdout.flush()
        return found

    return answer


def shared(
    count: int,
    here: Callable[[int], Any],
    there: Callable[[int, Worker], Any],
    workers: Sequence[Worker],
) -> Iterator[Any]:
    """Yield the results of so many jobs in their order.

    This process takes jobs from the front and the workers from the back. A job whose worker was
    lost, or which it could not do, is done here.
    """
    waiting, found = deque(range(count)), {}

    def attend(worker: Worker) -> None:
        while waiting:
            with contextlib.suppress(IndexError):
                number = waiting.pop()
                result = None
                with contextlib.suppress(Exception):
                    result = there(number, worker)
                if result is None:
                    waiting.append(number)
                    return
                found[number] = result

    threads = [threading.Thread(target=attend, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        for number in range(count):
            while number not in found:
                try:
                    mine = waiting.popleft()
                except IndexError:
                    for thread in threads:  # a worker has it, and may give it back
                        thread.join()
                else:
                    found[mine] = here(mine)
            yield found.pop(number)
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join()


def _attempt(
    derivation: Derivation, tell: Progress | None, options: dict[str, Any], *, debug: bool = False
) -> Report | Failure:
    try:
        return verify(derivation, progress=tell, **options)
    except (Exception, SystemExit) as error:  # an exit in a loss must not end the run
        if debug:
            raise
        return Failure(*_message(error, derivation))


def _message(error: BaseException, derivation: Derivation) -> tuple[str, bool]:
    """Return what to say of an exception, and whether it is a mistake of jaxgrad's own."""
    message = user_errors.user_message(error, derivation)
    if message is not None:
        return message, False
    return (
        f"{derivation.name}: jaxgrad itself failed with {user_errors.summary(error)}. This is no "
        f"verdict on the gradient; "
        "run again with JAXGRAD_DEBUG=1 for the traceback, and report it"
    ), True


def _stdout(to_stderr: bool) -> contextlib.AbstractContextManager[Any]:
    return contextlib.redirect_stdout(sys.stderr) if to_stderr else contextlib.nullcontext()


def _applicable(derivation: Derivation) -> tuple[str, ...]:
    """Return the kinds of evidence that a derivation can have."""
    absent = {"expectation", "monte_carlo"} if derivation.mask is None else {"autodiff"}
    return tuple(name for name in EVIDENCE if name not in absent)
