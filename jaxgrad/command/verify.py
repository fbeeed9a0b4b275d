"""``jaxgrad verify``: its options, and from what is typed to a table, files and an exit status."""

import contextlib
import dataclasses
import io
import pathlib
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from jaxgrad.command.options import Whole, read_evidence, read_sizes
from jaxgrad.command.usage import debug, imported, say, usage

if TYPE_CHECKING:
    from jaxgrad.runtime.workers import Worker

ENOUGH = 8
"""So many claims pay for another process, which loads them and compiles what they share anew."""


@click.command()
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
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=1e-6,
    show_default=True,
    help="Chance that a right gradient is refuted.",
)
@click.option(
    "--resolution",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
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
    from jaxgrad.command.worker import serve
    from jaxgrad.runtime import workers

    alone = checkpoint is None and not debug()
    started = workers.start(serve, ()) if alone and not targets else []  # they import JAX meanwhile
    from jaxgrad.evidence.sampling import checkpoints, processes, rendezvous

    imported()
    if checkpoint is not None:
        options["checkpoint"] = checkpoint
    with usage():
        place = rendezvous.place(coordinator, num_processes, process_id)
        if place is not None:
            while started:
                started.pop().stop()
            names = [pathlib.Path(target).name for target in targets]
            rest = {**options, "checkpoint": checkpoint is None}
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

            def more(claims: int) -> list[workers.Worker]:
                if started or place is not None or not alone or claims < ENOUGH:
                    return started
                return workers.start(serve, targets)

            return _verify(context, targets, *pages, quiet, inputs, more, **options)


def _verify(
    context: click.Context,
    targets: tuple[str, ...],
    json_path: str | None,
    html_path: str | None,
    quiet: bool,
    inputs: str | None,
    workers: Callable[[int], "list[Worker]"],
    **options: Any,
) -> int:
    from jaxgrad.command import loading, reproduce, running
    from jaxgrad.runtime import files

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
        helpers = workers(len(derivations))
        say(running.prepare())
    outcome = running.run(
        derivations,
        inputs=arrays,
        quiet=quiet,
        to_stderr=json_path == "-",
        debug=debug(),
        workers=helpers,
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
