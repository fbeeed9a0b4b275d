"""Let ``python -m jaxgrad`` do what the command ``jaxgrad`` does."""

from jaxgrad.command.cli import command

command()
