"""The command ``jaxgrad``: what there is to type, and what each part of it does."""

import contextlib
import shlex
import sys
from typing import Any

import click

from jaxgrad.command.usage import CONFIRMED, REFUTED, Group, imported, say, usage
from jaxgrad.command.verify import verify


@click.group(
    cls=Group,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="jaxgrad", message="jaxgrad %(version)s")
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


main.add_command(verify)


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
    from jaxgrad.runtime import files

    imported()
    with usage():
        say(running.prepare())
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
