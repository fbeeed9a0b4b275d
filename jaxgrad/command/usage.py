"""How the command tells of wrong usage, interruptions and its own mistakes: a line and a status.

Exit status: 0 when all is confirmed, 1 when something is refuted, 2 for wrong usage or input, 3
when something is undecided, 4 when another of several processes was lost, 70 for a mistake of
jaxgrad's own, 130 when interrupted.
"""

import contextlib
import errno
import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any

import click

from jaxgrad.jaxprs.versions import OLDEST

CONFIRMED, REFUTED, USAGE, UNDECIDED, INTERNAL, INTERRUPTED, PIPE = 0, 1, 2, 3, 70, 130, 141


class Group(click.Group):
    """A group with messages of one line, whose status never says "refuted" of a wrong usage.

    Left to itself, click returns 1 for an interrupt and for a pipe that was closed.
    """

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run, and end with the status that fits."""
        for stream in ("stdout", "stderr"):
            if getattr(sys, stream) is None:  # closed by who started us
                setattr(sys, stream, open(os.devnull, "w"))
        extra["prog_name"] = extra.get("prog_name") or "jaxgrad"
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        try:
            code = super().main(*args, standalone_mode=False, **extra)
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            say(
                error.format_message().rstrip("."),
                f"See `{context.command_path} --help`." if context else "",
            )
            code = USAGE
        except (click.Abort, KeyboardInterrupt):
            say("interrupted")
            code = INTERRUPTED
        except Exception as error:
            if debug():
                raise
            say(
                f"jaxgrad itself failed with {type(error).__name__}: {error}",
                "Run again with JAXGRAD_DEBUG=1, and report it.",
            )
            code = INTERNAL
        sys.exit(code if isinstance(code, int) else CONFIRMED)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; that its output cannot be written is no mistake of its own."""
        check_jax()
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:  # whoever read the output has seen enough
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(PIPE)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.ClickException(
                f"the output could not be written: {error.strerror}"
            ) from None


def say(message: str | None, hint: str = "") -> None:
    """Say one line on standard error, if there is anything to say."""
    if message is None:
        return
    from jaxgrad.command.terminal import warn

    warn(f"{message}{'' if message.endswith('?') else '.'} {hint}" if hint else message)


def check_jax() -> None:
    """Refuse a JAX that is too old, or absent, before it is imported."""
    import importlib.metadata

    try:
        found = importlib.metadata.version("jax")
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if _numbers(found) < _numbers(OLDEST):
        raise click.ClickException(
            f"jaxgrad needs jax {OLDEST} or newer, and finds {found}; "
            f"run: pip install -U 'jax>={OLDEST}'"
        )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


def imported() -> None:
    """Let an interrupt be raised again: see `jaxgrad.__main__`."""
    with contextlib.suppress(ValueError):  # not in the main thread
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """Turn a ValueError about what was typed into a message and exit status 2."""
    try:
        yield
    except ValueError as error:
        if debug():
            raise
        raise click.ClickException(str(error)) from None


def debug() -> bool:
    """Say whether tracebacks are wanted."""
    return os.environ.get("JAXGRAD_DEBUG", "") not in ("", "0")
