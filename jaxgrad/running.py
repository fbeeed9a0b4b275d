"""One run of the command: derivations are verified in turn, the table grows, and an outcome remains."""

import contextlib
import functools
import json
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import jax

from jaxgrad import faults, terminal
from jaxgrad.derivation import Derivation
from jaxgrad.report import SCHEMA, Report, Verdict

Progress = Callable[[str, float, str], None]


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


@contextlib.contextmanager
def _whole_tracebacks() -> Iterator[None]:
    """Keep JAX from cutting its frames out of tracebacks, from which is read whose mistake an exception is."""
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
    **options: Any,
) -> Outcome:
    """Verify derivations and show the table.

    Args:
        derivations: what to verify.
        quiet: whether to tell only of what is not confirmed.
        to_stderr: whether the table goes to standard error, and with it all that the users' functions print.
        debug: whether exceptions are let through.
        parallel: whether several may be verified at once.
        **options: passed on to `jaxgrad.verify`.
    """
    from jaxgrad.verification import verify

    outcome = Outcome()
    chosen = options["evidence"]
    kinds = _applicable if chosen is None else lambda _: chosen
    screen = terminal.Screen(sys.stderr if to_stderr else sys.stdout)
    redirect = contextlib.redirect_stdout(sys.stderr) if to_stderr else contextlib.nullcontext()
    with redirect, _whole_tracebacks(), terminal.Run(screen, derivations, kinds, quiet=quiet) as table:
        work = [functools.partial(verify, derivation, **options) for derivation in derivations]
        with _results(work, table.progress, _workers(len(work)) if parallel else 1) as results:
            for derivation, result in zip(derivations, results, strict=True):
                try:
                    report = result()
                except (Exception, SystemExit) as error:  # an exit in a loss must not end the run with its status
                    if debug:
                        raise
                    outcome.errors[derivation.name], own = _message(error, derivation)
                    outcome.broken |= own
                    table.fail(derivation.name, outcome.errors[derivation.name])
                else:
                    outcome.reports.append(report)
                    table.add(report)
        table.finish()
    return outcome


def _message(error: BaseException, derivation: Derivation) -> tuple[str, bool]:
    """Return what to say of an exception, and whether it is a mistake of jaxgrad's own."""
    message = faults.tell(error, derivation)
    if message is not None:
        return message, False
    return (
        f"{derivation.name}: jaxgrad itself failed with {faults.summary(error)}. This is no verdict on the gradient; "
        "run again with JAXGRAD_DEBUG=1 for the traceback, and report it"
    ), True


def _workers(jobs: int) -> int:
    """Return how many threads pay off: compiling, which takes most of the time, does not hold Python's lock."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, 4, jobs))


@contextlib.contextmanager
def _results(
    work: Sequence[Callable[..., Report]], progress: Callable[[int], Progress | None], workers: int
) -> Iterator[list[Callable[[], Report]]]:
    """Do the work in threads, from both ends so that they finish together; yield functions that wait for each result."""
    if workers == 1:
        yield [functools.partial(_call, job, progress, i) for i, job in enumerate(work)]
        return
    futures: list[Future[Report]] = [Future() for _ in work]
    waiting = deque(range(len(work)))
    stop = threading.Event()

    def attend(take: Callable[[], int]) -> None:
        while not stop.is_set():
            try:
                i = take()
            except IndexError:
                return
            try:
                futures[i].set_result(_call(work[i], progress, i, stop))
            except BaseException as error:
                futures[i].set_exception(error)

    threads = [threading.Thread(target=attend, args=(waiting.pop if k else waiting.popleft,)) for k in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield [future.result for future in futures]
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _call(
    job: Callable[..., Report], progress: Callable[[int], Progress | None], index: int, stop: threading.Event | None = None
) -> Report:
    show = progress(index)

    def tell(evidence: str, fraction: float, text: str) -> None:
        if stop is not None and stop.is_set():
            raise KeyboardInterrupt
        if show is not None:
            show(evidence, fraction, text)

    return job(progress=tell)


def _applicable(derivation: Derivation) -> tuple[str, ...]:
    """Return the kinds of evidence that a derivation can have."""
    from jaxgrad.verification import EVIDENCE

    absent = {"expectation", "monte_carlo"} if derivation.mask is None else {"autodiff"}
    return tuple(name for name in EVIDENCE if name not in absent)
