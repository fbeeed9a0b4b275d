"""The command ``jaxgrad``: verify, list and show derivations.

Exit status: 0 when all is confirmed, 1 when something is refuted, 2 for wrong usage or input, 3
when something is undecided, 4 when another of several processes was lost, 70 for a mistake of
jaxgrad's own, 130 when interrupted.
"""

import atexit
import contextlib
import dataclasses
import gc
import io
import os
import pathlib
import shlex
import sys
from collections.abc import Iterator
from typing import Any

import click

from jaxgrad.command.options import Share, Whole, read_evidence, read_sizes
from jaxgrad.command.usage import CONFIRMED, REFUTED, Group, debug, usage


def _version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        try:
            click.echo(f"jaxgrad {importlib.metadata.version('jaxgrad')}")
        except importlib.metadata.PackageNotFoundError:
            click.echo("jaxgrad, not installed but run from its folder")
        ctx.exit()


@click.group(
    cls=Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
@click.pass_context
def main(context: click.Context) -> None:
    """Know whether a gradient is right.

    \b
    jaxgrad verify                  verify every derivation of the catalogue
    jaxgrad verify mse relu_mlp     verify some of them
    jaxgrad verify mine.py          verify the derivations in a file
    jaxgrad show mse                see a claim and its closed form
    jaxgrad new mine.py             begin a file of your own
    jaxgrad diff old.json new.json  see what changed between two runs
    """  # noqa: D301 - click reads the character \b as "leave these lines as they are"
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def command() -> None:
    """Run the command as a process of its own, and end that process without taking down what was
    imported, piece by piece.
    """
    status: list[int] = []
    atexit.register(_leave, status)  # the first to be registered is the last to run
    try:
        main()
    except SystemExit as done:
        if isinstance(done.code, int):
            status.append(done.code)
            if (
                "jaxgrad.evidence.sampling.processes" in sys.modules
                and sys.modules["jaxgrad.evidence.sampling.processes"].deserted()
            ):
                _leave(status)
        raise


def _leave(status: list[int]) -> None:
    """End the process at once, after all other handlers have run; do nothing where an exception is
    what ends it.
    """
    if status:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status[0])


@main.command()
@click.argument(
    "targets", nargs=-1, metavar="[NAME | FILE.py | FILE.py:NAME | package.module:NAME]..."
)
@click.option(
    "--seed",
    type=Whole(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed of all that is drawn.",
)
@click.option(
    "--evidence",
    multiple=True,
    callback=read_evidence,
    metavar="NAME[,NAME]",
    help="Gather only this evidence.",
)
@click.option("--inputs", metavar="DATA.npz", help="Arrays by input name; the rest is drawn.")
@click.option(
    "--sizes",
    multiple=True,
    callback=read_sizes,
    metavar="n=5,m=7",
    help="Fix sizes; the rest is chosen.",
)
@click.option(
    "--max-samples",
    type=Whole(2, 2**40),
    default=2**20,
    show_default=True,
    help="Samples Monte Carlo may draw.",
)
@click.option(
    "--false-alarm",
    type=Share(),
    default=1e-6,
    show_default=True,
    help="Chance that a right gradient is refuted.",
)
@click.option(
    "--resolution",
    type=Share(),
    default=1e-2,
    show_default=True,
    help="Relative error Monte Carlo must resolve.",
)
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the reports as JSON; - is standard output."
)
@click.option(
    "--html", "html_path", metavar="PATH", help="Write the reports as one self-contained HTML page."
)
@click.option("-q", "--quiet", is_flag=True, help="Tell only of what is not confirmed.")
@click.option(
    "--checkpoint", metavar="FILE", help="Keep the state of sampling in FILE, and go on from it."
)
@click.option("--coordinator", metavar="HOST:PORT", help="Where process 0 of several listens.")
@click.option(
    "--num-processes", type=Whole(1, 2**20), help="How many processes share the sampling."
)
@click.option("--process-id", type=Whole(0, 2**20), help="Which of them this is, from 0.")
@click.pass_context
def verify(
    context: click.Context,
    targets: tuple[str, ...],
    json_path: str | None,
    html_path: str | None,
    quiet: bool,
    inputs: str | None,
    checkpoint: str | None,
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    **options: Any,
) -> int:
    """Verify derivations, all of the catalogue where none is named.

    \b
    Exit status: 0 all confirmed, 1 something refuted, 2 wrong usage or input,
    3 something undecided, 4 another of several processes was lost.
    Several processes share the sampling of masks, one started for each
    --process-id; under SLURM, srun suffices. Process 0 writes the report.
    Compiled programs are kept in the user's cache folder; JAXGRAD_CACHE=off
    turns that off. JAXGRAD_DEBUG=1 shows tracebacks.
    """  # noqa: D301 - as above
    with _uncollected():
        from jaxgrad.command import running
        from jaxgrad.evidence.sampling import checkpoints, processes

    running.hush()
    if checkpoint is not None:
        options["checkpoint"] = checkpoint
    with usage():
        place = processes.place(coordinator, num_processes, process_id)
        if place is not None:
            names, rest = (
                [pathlib.Path(target).name for target in targets],
                {**options, "checkpoint": checkpoint is None},
            )
            task = checkpoints.fingerprint(
                checkpoints.software(), names, inputs is None, sorted(rest.items())
            )
            place = dataclasses.replace(place, task=task)
        membership = contextlib.nullcontext(True) if place is None else processes.part(place)
        with (
            membership as first,
            contextlib.nullcontext() if first else contextlib.redirect_stdout(io.StringIO()),
        ):
            pages = (json_path, html_path) if first else (None, None)
            return _verify(context, targets, *pages, quiet, inputs, alone=place is None, **options)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Keep Python's garbage collector away from imports, which make much and leave nothing to
    collect.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _verify(
    context: click.Context,
    targets: tuple[str, ...],
    json_path: str | None,
    html_path: str | None,
    quiet: bool,
    inputs: str | None,
    *,
    alone: bool,
    **options: Any,
) -> int:
    from jaxgrad.command import loading, reproduce, running
    from jaxgrad.runtime import cache, files

    running.tune_collector()
    with usage():
        path = files.check_writable(json_path, "--json") if json_path not in (None, "-") else None
        page_path = files.check_writable(html_path, "--html") if html_path is not None else None
        files.check_distinct(
            {
                "--inputs": inputs,
                "--json": json_path,
                "--html": html_path,
                "--checkpoint": options.get("checkpoint"),
            }
        )
        with (
            contextlib.redirect_stdout(sys.stderr) if json_path == "-" else contextlib.nullcontext()
        ):
            derivations = loading.find(targets)
        arrays = loading.load_arrays(inputs, derivations) if inputs is not None else None
        if "checkpoint" in options and len(derivations) != 1:
            raise ValueError(
                f"`--checkpoint` keeps the state of one derivation, and {len(derivations)} are to "
                f"be verified; name one"
            )
    cache.turn_on()
    ours = all(
        ":" not in target and not target.endswith(".py") for target in targets
    )  # users' functions may not be thread-safe
    outcome = running.run(
        derivations,
        inputs=arrays,
        quiet=quiet,
        to_stderr=json_path == "-",
        debug=debug(),
        parallel=ours and arrays is None and alone and "checkpoint" not in options,
        beside=alone,
        **options,
    )
    defaults = {option.name: option.default for option in context.command.params if option.name}
    typed = {**options, "inputs": inputs}
    outcome.reports = reproduce.stamp(outcome.reports, targets, typed, defaults)
    if json_path == "-":
        click.echo(outcome.to_json().encode("utf-8", "backslashreplace"))
    elif path is not None:
        _write(path, outcome.to_json() + "\n", f"`--json` {json_path}")
    if page_path is not None:
        from jaxgrad.reports.html import page

        words = ["jaxgrad", "verify", *targets, *reproduce.shown(typed, defaults)]
        _write(
            page_path,
            page.render(outcome.reports, errors=outcome.errors, command=shlex.join(words)),
            f"`--html` {html_path}",
        )
    return outcome.status


def _write(path: pathlib.Path, text: str, what: str) -> None:
    from jaxgrad.runtime import files

    try:
        files.write_atomically(path, text)
    except OSError as error:
        raise click.ClickException(f"{what} could not be written: {error.strerror}") from None


@main.command("list")
def list_() -> None:
    """List the derivations of the catalogue."""
    from jaxgrad import catalog
    from jaxgrad.claims import describe
    from jaxgrad.command.terminal import Screen

    screen = Screen(sys.stdout)
    for line in describe.overview(catalog.all(), screen.width if screen.terminal else None):
        screen.write(line)


@main.command()
@click.argument("target", metavar="NAME | FILE.py:NAME | package.module:NAME")
def show(target: str) -> None:
    """Show a claim: formula, shapes, domains, mask, reference and the closed form's source."""
    from jaxgrad.claims import describe
    from jaxgrad.command import loading
    from jaxgrad.command.terminal import Screen

    with usage():
        derivations = loading.find([target])
    screen = Screen(sys.stdout)
    for i, derivation in enumerate(derivations):
        for line in ([[]] if i else []) + describe.description(derivation, screen.width):
            screen.write(line)


@main.command()
@click.argument("old", metavar="OLD.json")
@click.argument("new", metavar="NEW.json")
def diff(old: str, new: str) -> int:
    """Show what changed between two runs, written by verify --json.

    \b
    Exit status: 0 nothing got worse, 1 a verdict got worse, a derivation is
    gone, or a new one is not confirmed, 2 wrong usage or input.
    """  # noqa: D301 - as above
    from jaxgrad.command.terminal import Screen
    from jaxgrad.reports import diff as changes

    with usage():
        runs = changes.read(old), changes.read(new)
    found = changes.compare(*runs)
    screen = Screen(sys.stdout)
    for line in changes.lines(found, *runs):
        screen.write(line)
    return REFUTED if any(change.kind == "worse" for change in found) else CONFIRMED


@main.command()
@click.argument("path", metavar="FILE.py")
def new(path: str) -> None:
    """Write a commented file of derivations to start from; as it is, it verifies."""
    from jaxgrad.command import starter

    with usage():
        written = starter.write(path)
    click.echo(f"wrote {written}; now run: {shlex.join(['jaxgrad', 'verify', path])}")


@main.command()
@click.argument("golden", metavar="GOLDEN.npz")
@click.argument("function", metavar="FILE.py:NAME | package.module:NAME")
@click.option(
    "--weights",
    metavar="FILE.py:NAME",
    help="Function, WeightMap or tree that turns torch's state dict into params.",
)
@click.option(
    "--tap",
    "taps",
    multiple=True,
    metavar="OURS=TORCH",
    help="Which of our taps is which torch module.",
)
@click.option(
    "--ignore", multiple=True, metavar="PATTERN", help="Taps and modules that need no partner."
)
@click.option("--buffers", is_flag=True, help="The function returns (output, {buffer: new value}).")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16", "none"]),
    default="float32",
    help="Where accuracy counts.",
)
@click.option(
    "--json", "json_path", metavar="PATH", help="Write the report as JSON; - is standard output."
)
@click.option("--html", "html_path", metavar="PATH", help="Write the report as one HTML page.")
def parity(
    golden: str, function: str, json_path: str | None, html_path: str | None, **options: Any
) -> int:
    """Compare a JAX function with what torch computed, as jaxgrad.parity.record saved it.

    \b
    The function is called as f(params, **inputs). torch is not needed.
    Exit status: 0 the same, 1 different, 2 wrong usage or input, 3 undecided.
    """  # noqa: D301 - as above
    from jaxgrad.command import parity as command
    from jaxgrad.command import running
    from jaxgrad.runtime import cache, files

    running.hush()
    cache.turn_on()
    with usage():
        path, page = command.checked(json_path, "--json"), command.checked(html_path, "--html")
        with (
            contextlib.redirect_stdout(sys.stderr) if json_path == "-" else contextlib.nullcontext()
        ):
            report = command.run(golden, function, **options)
        command.show(report, command.screen_for(json_path == "-"))
        if json_path == "-":
            click.echo(command.to_json(report))
        if path is not None:
            files.write_atomically(path, command.to_json(report) + "\n")
        if page is not None:
            files.write_atomically(
                page, command.to_html(report, f"jaxgrad parity {golden} {function}")
            )
    return command.status(report)
