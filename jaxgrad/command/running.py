"""One run of the command: derivations are verified in turn, the table grows, and an outcome
remains.
"""

import contextlib
import functools
import gc
import json
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import jax

from jaxgrad.claims import user_errors
from jaxgrad.claims.derivation import Derivation
from jaxgrad.command import terminal
from jaxgrad.reports.finding import Verdict
from jaxgrad.reports.report import SCHEMA, Report
from jaxgrad.runtime.threads import cores, limit
from jaxgrad.runtime.workers import Twin, TwinLostError, can_fork
from jaxgrad.verification.applicable import EVIDENCE
from jaxgrad.verification.verify import Gathered, gather_beside, shares, verify, verify_beside

Progress = Callable[[str, float, str], None]
JOBS_A_HELPER = 4
"""A further process or thread for so many derivations: each compiles anew what they share."""
SPARE = 4
"""So many short jobs are kept for the end, lest one process waits while another does a long one."""


@dataclass(frozen=True)
class _Failure:
    """What to say where a derivation could not be verified, and whether that is a mistake of
    jaxgrad's own.
    """

    message: str
    own: bool


Attempt = Callable[[int, Progress], Report | _Failure]


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
        """Refuted when any report is, confirmed when all are and there was no error, else
        undecided.
        """
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


def hush() -> None:
    """Keep JAX from saying that it found no accelerator; the table names the device."""
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)


def tune_collector() -> None:
    """Let Python's garbage collector leave what was imported alone, and come less often: tracing
    makes much, and keeps most of it.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@contextlib.contextmanager
def _whole_tracebacks() -> Iterator[None]:
    """Keep JAX from cutting its frames out of tracebacks, from which is read whose mistake an
    exception is.
    """
    before = jax.config.values["jax_traceback_filtering"]
    jax.config.update("jax_traceback_filtering", "off")
    try:
        yield
    finally:
        jax.config.update("jax_traceback_filtering", before)


def run(
    derivations: Sequence[Derivation],
    *,
    quiet: bool = False,
    to_stderr: bool = False,
    debug: bool = False,
    parallel: bool = False,
    beside: bool = False,
    **options: Any,
) -> Outcome:
    """Verify derivations and show the table.

    Args:
        derivations: what to verify.
        quiet: whether to tell only of what is not confirmed.
        to_stderr: whether the table goes to standard error, and with it all that the users'
            functions print.
        debug: whether exceptions are let through.
        parallel: whether several may be verified at once.
        beside: whether one claim alone may be sampled here while its other evidence is gathered in
            another process.
        **options: passed on to `jaxgrad.verify`.
    """
    outcome = Outcome()
    chosen = options["evidence"]
    kinds = _applicable if chosen is None else lambda _: chosen
    screen = terminal.Screen(sys.stderr if to_stderr else sys.stdout)
    redirect = contextlib.redirect_stdout(sys.stderr) if to_stderr else contextlib.nullcontext()

    def attempt(number: int, tell: Progress) -> Report | _Failure:
        derivation = derivations[number]
        try:
            if beside and len(derivations) == 1 and not debug:
                with _others(derivation, options) as others:
                    if others is not None:
                        return verify_beside(derivation, others, progress=tell, **options)
            return verify(derivation, progress=tell, **options)
        except (
            Exception,
            SystemExit,
        ) as error:  # an exit in a loss must not end the run with its status
            if debug:
                raise
            return _Failure(*_message(error, derivation))

    helpers = _helpers(attempt, len(derivations)) if parallel and not debug else []
    with (
        redirect,
        _whole_tracebacks(),
        terminal.Run(screen, derivations, kinds, quiet=quiet) as table,
    ):
        long = [derivation.mask is not None for derivation in derivations]
        with _results(attempt, long, helpers, table.progress) as results:
            for derivation, result in zip(derivations, results, strict=True):
                found = result()
                if isinstance(found, _Failure):
                    outcome.errors[derivation.name] = found.message
                    outcome.broken |= found.own
                    table.fail(derivation.name, found.message)
                else:
                    outcome.reports.append(found)
                    table.add(found)
        table.finish()
    return outcome


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


def _helpers(attempt: Attempt, jobs: int) -> list[Twin | None]:
    """Return one helper for each further core that pays off: a twin, or None for a thread where
    there can be no twins.
    """
    count = min(cores(), 4, max(1, jobs // JOBS_A_HELPER)) - 1
    if not count or not can_fork():
        return [None] * count
    limit(cores() // (count + 1))
    return [Twin(attempt) for _ in range(count)]


@contextlib.contextmanager
def _others(
    derivation: Derivation, options: dict[str, Any]
) -> Iterator[Callable[[], Gathered | None] | None]:
    """Let a twin gather all evidence but sampling; yield what waits for it, or None where there is
    nothing to share, or no twin.
    """
    if cores() < 2 or not shares(derivation, options["evidence"]) or not can_fork():
        yield None
        return

    def gather(_: int, __: Progress) -> Gathered | None:
        limit(1)
        try:
            return gather_beside(derivation, **options)
        except (Exception, SystemExit):  # it is raised again where it can be told of
            return None

    def answer() -> Gathered | None:
        with contextlib.suppress(TwinLostError):
            return twin.answer(lambda *_: None)

    twin = Twin(gather)
    try:
        with contextlib.suppress(TwinLostError):
            twin.begin(0)
        yield answer
    finally:
        twin.stop()


class _Jobs:
    """The numbers of jobs that wait, taken from both ends, and at the end some short ones from the
    middle.

    >>> jobs = _Jobs([False, False, True, True, True, True], spare=1)
    >>> [jobs.first(), jobs.last(), jobs.last(), jobs.first(), jobs.first(), jobs.last()]
    [0, 5, 4, 2, 3, 1]
    """

    def __init__(self, long: Sequence[bool], spare: int = SPARE) -> None:
        middle = (len(long) - 1) / 2
        short = sorted(
            (number for number, is_long in enumerate(long) if not is_long),
            key=lambda number: abs(number - middle),
        )
        kept = short[:spare] if any(long) else []
        self._ends = deque(number for number in range(len(long)) if number not in kept)
        self._kept = deque(kept)
        self._lock = threading.Lock()

    def first(self) -> int:
        """Take the first; raise an IndexError where none is left."""
        with self._lock:
            return (self._ends or self._kept).popleft()

    def last(self) -> int:
        """Take the last, likewise."""
        with self._lock:
            return self._ends.pop() if self._ends else self._kept.popleft()


@contextlib.contextmanager
def _results(
    attempt: Attempt,
    long: Sequence[bool],
    helpers: Sequence[Twin | None],
    progress: Callable[[int], Progress | None],
) -> Iterator[list[Callable[[], Report | _Failure]]]:
    """Do the jobs, of which some are known to be long, here and with helpers; yield functions that
    wait for each result.
    """
    jobs, waiting = len(long), _Jobs(long)
    futures: list[Future[Report | _Failure]] = [Future() for _ in range(jobs)]
    stop = threading.Event()

    def do(number: int, helper: Twin | None) -> Report | _Failure:
        show = progress(number)

        def tell(evidence: str, fraction: float, text: str) -> None:
            if stop.is_set():
                raise KeyboardInterrupt
            if show is not None:
                show(evidence, fraction, text)

        if helper is not None:
            with contextlib.suppress(TwinLostError):
                return helper.ask(number, tell)
        return attempt(number, tell)

    def attend(take: Callable[[], int], helper: Twin | None) -> None:
        while not stop.is_set():
            try:
                number = take()
            except IndexError:
                return
            try:
                futures[number].set_result(do(number, helper))
            except BaseException as error:
                futures[number].set_exception(error)

    threads = [threading.Thread(target=attend, args=(waiting.last, helper)) for helper in helpers]
    if helpers:  # else the jobs are done one by one as their results are asked for
        threads.append(threading.Thread(target=attend, args=(waiting.first, None)))
    for thread in threads:
        thread.start()
    try:
        yield (
            [future.result for future in futures]
            if helpers
            else [functools.partial(do, i, None) for i in range(jobs)]
        )
    finally:
        stop.set()
        for helper in helpers:
            if helper is not None:
                helper.stop()
        for thread in threads:
            thread.join()


def _applicable(derivation: Derivation) -> tuple[str, ...]:
    """Return the kinds of evidence that a derivation can have."""
    absent = {"expectation", "monte_carlo"} if derivation.mask is None else {"autodiff"}
    return tuple(name for name in EVIDENCE if name not in absent)
