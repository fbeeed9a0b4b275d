"""What differs between JAX's releases, in one place.

Everything else imports these names from here and runs on every release from `OLDEST` on. JAX is
imported when a function is called, so that the command can ask which release it needs where JAX
itself is missing or too old.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

OLDEST = "0.7.0"
"""The oldest release of JAX that jaxgrad runs on, as `pyproject.toml` says too."""


def enable_x64(double: bool = True) -> AbstractContextManager[None]:
    """Let JAX compute in float64, or in float32, inside of a ``with`` block.

    >>> import jax.numpy as jnp
    >>> with enable_x64(True):
    ...     print(jnp.ones(2).dtype)
    float64
    """
    import jax

    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(double)
    from jax.experimental import enable_x64 as context  # JAX 0.7

    return context(double)


def jaxprs_in_params(params: dict[str, Any]) -> Iterator[Any]:
    """Yield the programs that an equation holds as parameters, without their constants."""
    from jax.extend import core

    for value in params.values():
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, (core.Jaxpr, core.ClosedJaxpr)):  # one class from JAX 0.11 on
                yield getattr(inner, "jaxpr", inner)


def opened(program: Any) -> tuple[Any, Sequence[Any]]:
    """Return a program and its constants apart, whether it was closed over them or had none."""
    return getattr(program, "jaxpr", program), getattr(program, "consts", ())


def replaced(jaxpr: Any, **parts: Any) -> Any:
    """Return a program with some of its parts replaced, which forgets its arguments' names."""
    debug = jaxpr.debug_info
    if hasattr(debug, "with_unknown_names"):
        debug = debug.with_unknown_names()
    else:  # JAX 0.7.0: names that are not as many as the arguments are not used
        debug = debug._replace(arg_names=(), result_paths=())
    return jaxpr.replace(**parts, debug_info=debug)


def scan_counts(params: dict[str, Any]) -> tuple[int, int]:
    """Return how many operands of a ``scan`` are constants of its body, and how many are carried."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()  # from JAX 0.11 on
    return len(consts), len(carry)
