"""What a worker process is started with, before the command itself has imported JAX."""

import gc
from collections.abc import Sequence
from typing import Any


def serve(targets: Sequence[str]) -> Any:
    """Return what `jaxgrad.command.running.serve` does, imported in the worker alone."""
    gc.disable()  # as in `jaxgrad.__main__`
    from jaxgrad.command import running

    return running.serve(targets)
