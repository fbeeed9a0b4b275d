"""The process of the command: ``jaxgrad`` and ``python -m jaxgrad`` begin and end here."""

import atexit
import contextlib
import gc
import os
import signal
import sys
from typing import Any


def command() -> None:
    """Run the command, and end its process without taking down, one by one, what was imported."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    gc.disable()  # imports make much and leave nothing to collect; prepare() turns it on again
    from jaxgrad.command.cli import main

    status: list[int] = []
    atexit.register(_leave, status)  # the first to be registered is the last to run
    try:
        main()
    except SystemExit as done:
        if isinstance(done.code, int):
            status.append(done.code)
            processes = sys.modules.get("jaxgrad.evidence.sampling.processes")
            if processes is not None and processes.deserted():
                _leave(status)
        raise


def _interrupted(*_: Any) -> None:
    """End at once while modules are imported: some take an interrupt for an ImportError."""
    os.write(2, b"jaxgrad: interrupted\n")
    os._exit(130)


def _leave(status: list[int]) -> None:
    """End the process after all other handlers; do nothing where an exception is what ends it."""
    if status:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status[0])


if __name__ == "__main__":
    command()
