"""Let ``python -m jaxgrad`` do what the command ``jaxgrad`` does."""

from jaxgrad.cli import command

command()
