"""What differs between JAX's releases, in one place.

Everything else imports these names from here and runs on every release from `OLDEST` on. JAX is
imported when a function is called, so that the command can ask which release it needs where JAX
itself is missing or too old.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

OLDEST = "0.7.2"
"""The oldest release of JAX that jaxgrad runs on, as `pyproject.toml` says too. In programs that
older ones trace, numpy arrays have other types than their variables.
"""


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
    from jax.experimental import enable_x64 as context  # pyright: ignore

    return context(double)


def numpy_intake() -> tuple[Callable[[Any], Any], Callable[..., None], Callable[[Any], Any]] | None:
    """Return JAX's ways with numpy arrays that a function closes over; None where it has none.

    These are how it takes in a constant, what changes that for a type, and what it makes of arrays.

    No public name reaches this. With a JAX that has other private ones, all is left as it is.
    """
    try:
        from jax._src import dtypes
        from jax._src.literals import TypedNdArray

        take = dtypes.canonicalize_value
        handlers = getattr(dtypes, "canonicalize_value_handlers", None)  # up to JAX 0.9
        change = handlers.__setitem__ if handlers else dtypes.register_canonicalize_value_handler
    except (ImportError, AttributeError):
        return None

    def typed(array: Any) -> Any:
        try:
            return TypedNdArray(array)
        except TypeError:  # JAX 0.8 and 0.9
            return TypedNdArray(array, weak_type=False)  # pyright: ignore[reportCallIssue]

    return take, change, typed


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
    return jaxpr.replace(**parts, debug_info=jaxpr.debug_info.with_unknown_names())


def bound(eqn: Any, operands: Sequence[Any]) -> Any:
    """Return what an equation's operation makes of operands: a list, where it has many results."""
    params = eqn.primitive.get_bind_params(eqn.params)
    functions, params = params if isinstance(params, tuple) else ((), params)  # up to JAX 0.8
    return eqn.primitive.bind(*functions, *operands, **params)


def scan_counts(params: dict[str, Any]) -> tuple[int, int]:
    """Return how many operands of a ``scan`` are constants of its body, and how many carried."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()  # from JAX 0.11 on
    return len(consts), len(carry)
