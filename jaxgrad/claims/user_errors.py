"""Whose error an exception is: of the user's functions, of the user's input, or jaxgrad's own.

It is told from the frames of the traceback. The message names the function, the line and what to
change; jaxgrad's own errors are left to the caller.
"""

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from jaxgrad.claims.derivation import Derivation
from jaxgrad.jaxprs.differentiation import value_and_gradient
from jaxgrad.jaxprs.sources import is_library, is_own, room
from jaxgrad.jaxprs.user_calls import RefusedError, frames, place, remedy, summary

_CALLERS = ("jaxprs", "evidence")
"""The rooms that call a claim's functions, and so may meet their differentiation rules."""
_EXITS = {"SystemExit": "; leave the exit to the command"}


def user_message(error: BaseException, derivation: Derivation) -> str | None:
    """Return a message on what the user can change, or None where the error is jaxgrad's own.

    Args:
        error: what verifying the derivation raised.
        derivation: the derivation.
    """
    stack = frames(error.__traceback__)
    raised = _in_user_function(error, derivation)
    if raised:
        return raised
    raised_here = bool(stack) and is_own(stack[-1][0].f_code.co_filename)
    if isinstance(error, (ValueError, TypeError)) and raised_here:
        return (
            str(error) if f" of {derivation.name} " in str(error) else f"{derivation.name}: {error}"
        )
    foreign = re.search(r"returned a value of type <class '([^']+)'>", str(error))
    if foreign:
        return (
            f"`loss` and `gradient` of {derivation.name} must return arrays, but one of them "
            f"returns a {foreign[1]}"
        )
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return (
            f"{derivation.name}: out of memory; verify it at smaller `--sizes`, "
            f"or with fewer `--inputs`"
        )
    return None


@contextmanager
def attributed(derivation: Derivation) -> Iterator[None]:
    """Raise exceptions of a derivation's functions anew, with the function's name.

    The original exception is the cause.
    """
    try:
        yield
    except RefusedError as error:
        role = {"f": "loss", "g": "gradient"}.get(error.role, error.role)
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"`{role}` of {derivation.name} {error.what}") from (error.__cause__ or error)
    except Exception as error:
        text = _in_user_function(error, derivation)
        if text is None:
            raise
        raise (TypeError if isinstance(error, TypeError) else ValueError)(text) from error


def _in_user_function(error: BaseException, derivation: Derivation) -> str | None:
    """Say which function of a derivation raised an exception, or None where none did."""
    stack = frames(error.__traceback__)
    for role, function in _functions(derivation):
        code = _code(function)
        depth = next((i for i, (frame, _) in enumerate(stack) if frame.f_code is code), None)
        if depth is not None:
            mend = _EXITS.get(type(error).__name__, remedy(error))
            return (
                f"{role} of {derivation.name} raised {summary(error)} "
                f"({place(stack[depth:])}){mend}"
            )
    return _in_differentiation(error, stack, derivation)


def _in_differentiation(
    error: BaseException, stack: list[tuple[FrameType, int]], derivation: Derivation
) -> str | None:
    """Return a message if the loss's own rule raised, or JAX has no rule for an operation of it."""
    files = [frame.f_code.co_filename for frame, _ in stack]
    inside = max((i for i, file in enumerate(files) if is_own(file)), default=-1)
    if inside < 0 or room(files[inside]) not in _CALLERS:
        return None
    rule = [at for at in stack[inside + 1 :] if not is_library(at[0].f_code.co_filename)]
    if rule:
        return (
            f"the differentiation rule in `loss` of {derivation.name} raised {summary(error)} "
            f"({place(rule)}){remedy(error)}"
        )
    by_jax = any(
        f.f_code.co_name in ("vjp", "grad") and "jax" in Path(f.f_code.co_filename).parts
        for f, _ in stack[inside:]
    )
    ours = any(frame.f_code is value_and_gradient.__code__ for frame, _ in stack)
    if by_jax or ours:  # outside of the command JAX hides its own frames
        return f"`loss` of {derivation.name} cannot be differentiated by JAX: {summary(error)}"
    return None


def _functions(derivation: Derivation) -> list[tuple[str, Any]]:
    domains = [(f"the domain of `{name}`", domain) for name, domain in derivation.domains.items()]
    every = [
        ("`loss`", derivation.loss),
        ("`gradient`", derivation.gradient),
        ("`mask`", derivation.mask),
        *domains,
    ]
    return [(role, function) for role, function in every if callable(function)]


def innermost(function: Any) -> Any:
    """Return the function inside of partials and decorators."""
    while True:
        inner = (
            function.func if isinstance(function, functools.partial) else inspect.unwrap(function)
        )
        if inner is function:
            return function
        function = inner


def _code(function: Callable[..., Any]) -> CodeType | None:
    function = innermost(function)
    code = getattr(function, "__code__", None)
    return code if code is not None else getattr(type(function).__call__, "__code__", None)
