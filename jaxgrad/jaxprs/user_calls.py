"""Calls of the user's functions; errors name the argument, the user's line and the remedy."""

import functools
import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.extend import core

from jaxgrad.jaxprs.domain import describe
from jaxgrad.jaxprs.programs import equations
from jaxgrad.jaxprs.sources import is_library

REMEDIES = {
    "TracerArrayConversionError": "use jax.numpy in place of numpy",
    "TracerBoolConversionError": "use jax.numpy.where or jax.lax.cond in place of if",
    "TracerIntegerConversionError": "use a Python number that is known beforehand, such as "
    "x.shape[0]",
    "NonConcreteBooleanIndexError": "use jax.numpy.where in place of a boolean index",
    "UnexpectedTracerError": "keep no arrays outside of the function from one call to the next",
    "ConcretizationTypeError": "use jax.numpy in place of functions that need the value",
}
"""What to do about the errors that JAX raises while it traces a function, by their type."""
_SAYINGS = {
    "leaf Variable that requires grad": "it changes an input in place, so that its gradient has "
    "no meaning: x = x.clone() before",
    "must have (equal|identical) (output )?types|arguments to have the same dtypes": (
        "functions are traced in float64 here: give arrays that are closed over the type of the "
        "inputs, as jnp.zeros(3, x.dtype) "
        "does, or close over numpy arrays"
    ),
    "must (have|be of) integer( or boolean)? type|indexer with type float": (
        "an input of whole numbers is one by its domain, as domains={'k': 'index n'} or 'integer'"
    ),
}
"""The same by what JAX says, where the types of its exceptions tell too little: regular
expressions.
"""


_RANDOM = ("random_", "threefry", "rng_")
_EFFECTS = ("pure_callback", "io_callback", "debug_callback", "debug_print")


class RefusedError(ValueError):
    """A function that cannot be judged, by its role, such as "f", and what is wrong with it."""

    def __init__(self, role: str, what: str) -> None:
        """Put both together."""
        super().__init__(f"`{role}` {what}")
        self.role, self.what = role, what


class RefusedTypeError(RefusedError, TypeError):
    """The same where the function raised a TypeError."""


def frames(trace: TracebackType | None) -> list[tuple[FrameType, int]]:
    """Return the frames of a traceback with their lines, the outermost first."""
    return list(traceback.walk_tb(trace))


def place(stack: Sequence[tuple[FrameType, int]]) -> str:
    """Return file, line and function of the innermost frame that is no library's, or the first."""
    own = [(frame, line) for frame, line in stack if not is_library(frame.f_code.co_filename)]
    frame, line = (own or stack[:1])[-1]
    path = Path(frame.f_code.co_filename)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}:{line}, in {frame.f_code.co_name}"


def summary(error: BaseException) -> str:
    """Return an exception's type and the first line of its message."""
    line = (str(error).strip().splitlines() or [""])[0]
    line = line if len(line) <= 300 else line[:299] + "…"
    return f"{type(error).__name__}: {line.rstrip('.:')}" if line else type(error).__name__


def remedy(error: BaseException) -> str:
    """Return what to do about an error, after a semicolon, or nothing."""
    said = (mend for words, mend in _SAYINGS.items() if re.search(words, str(error)))
    text = REMEDIES.get(type(error).__name__) or next(said, "")
    return f"; {text}" if text else ""


@contextmanager
def naming(role: str) -> Iterator[None]:
    """Name the argument whose call raised an exception, which stands as the cause."""
    try:
        yield
    except Exception as error:
        own = [at for at in frames(error.__traceback__) if not is_library(at[0].f_code.co_filename)]
        text = f"raised {summary(error)}" + (f" ({place(own)})" if own else "") + remedy(error)
        raise (RefusedTypeError if isinstance(error, TypeError) else RefusedError)(
            role, text
        ) from error


def named(role: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, with what it raises or wrongly returns told by its role, such as "f".

    >>> named("f", lambda x: {"a": "text"})(1.0)
    Traceback (most recent call last):
    TypeError: `f` returns 'text' at ['a'], which is no array of numbers; make it return arrays
    """

    @functools.wraps(function, updated=())
    def called(*args: Any, **kwargs: Any) -> Any:
        _check_arity(role, function, args, kwargs)
        with naming(role):
            result = function(*args, **kwargs)
        for path, leaf in jax.tree_util.tree_leaves_with_path(result):
            if not _is_array(leaf):
                at = f" at {jax.tree_util.keystr(path)}" if path else ""
                raise TypeError(
                    f"`{role}` returns {leaf!r:.60}{at}, which is no array of numbers; make it "
                    f"return arrays"
                )
        return result

    return called


def _is_array(leaf: Any) -> bool:
    """Say whether a leaf of a tree is an array of numbers, or a number."""
    if isinstance(leaf, (np.ndarray, np.generic)):
        return leaf.dtype.kind in "biufcV"
    return isinstance(leaf, (jax.Array, bool, int, float, complex))


def check_arguments(role: str, args: Sequence[Any]) -> None:
    """Refuse arguments of a function that are no arrays of numbers, or not known yet."""
    for (number, *path), leaf in jax.tree_util.tree_leaves_with_path(tuple(args)):
        if not _is_array(leaf):
            at = f" at {jax.tree_util.keystr(tuple(path))}" if path else ""
            text = (
                f"argument {number.idx} of `{role}` holds {leaf!r:.60}{at}, which is no array "
                f"of numbers"
            )
            raise TypeError(f"{text}; let `{role}` close over what is not a number")
        refuse_traced(f"argument {number.idx} of `{role}`", leaf)


def refuse_traced(what: str, tree: Any) -> None:
    """Refuse numbers that are not known yet, where compiled programs are called."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree)):
        raise TypeError(
            f"{what} is traced by jax.jit, grad or vmap; call the estimate outside of them"
        )


def returning(role: str, function: Callable[..., Any], *, real: bool) -> Callable[..., Any]:
    """Return the function, refused where it returns no array, or no real one.

    Only a function that is to be differentiated must return real numbers.
    """

    @functools.wraps(function, updated=())
    def called(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        dtypes = [jax.numpy.result_type(leaf) for leaf in jax.tree.leaves(result)]
        if not dtypes:
            raise TypeError(
                f"`{role}` returns {result!r:.60}, which holds no array; make it return arrays"
            )
        if real and (
            other := [d for d in dtypes if not jax.numpy.issubdtype(d, jax.numpy.floating)]
        ):
            raise TypeError(
                f"`{role}` must return a floating-point number where `argnums` is given, but "
                f"returns {other[0]}"
            )
        return result

    return called


def _check_arity(
    role: str, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin tells nothing
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        given = [f"{len(args)} argument{'s' * (len(args) != 1)}"] if args or not kwargs else []
        given += [f"the keyword `{name}`" for name in kwargs]
        raise TypeError(
            f"`{role}` takes {signature}, but is called with {' and '.join(given)}: {error}"
        ) from error


def check_seed(seed: Any) -> None:
    """Refuse what seeds no random numbers."""
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise ValueError(
            f"`seed` must be an integer of at least 0 and below 2**63, but is {seed!r}"
        )


def refuse(
    program: core.ClosedJaxpr, role: str, remedy: str = "make what is drawn an argument"
) -> None:
    """Refuse a program that draws random numbers or has side effects.

    Raises:
        RefusedError: that names the role and the user's line.
    """
    for eqn in equations(program.jaxpr):
        if eqn.primitive.name.startswith(_RANDOM):
            raise RefusedError(role, f"draws random numbers ({describe(eqn)}); {remedy}")
        if eqn.primitive.name in _EFFECTS:
            raise RefusedError(
                role, f"has a side effect ({describe(eqn)}); give a function without it"
            )
    if program.effects:
        raise RefusedError(
            role, f"has side effects {set(program.effects)}; give a function without them"
        )


def holds_keys(tree: Any) -> bool:
    """Say whether a pytree holds keys of random numbers, so that a function of it may draw."""
    dtypes = [getattr(leaf, "dtype", None) for leaf in jax.tree.leaves(tree)]
    return any(
        d is not None and (d == np.uint32 or jax.numpy.issubdtype(d, jax.dtypes.prng_key))
        for d in dtypes
    )
