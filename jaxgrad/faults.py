"""Whose mistake an exception is: the user's functions', the user's input's, or jaxgrad's own."""

import functools
import inspect
import os
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

from jaxgrad.derivation import Derivation

_HERE = str(Path(__file__).parent)
_REMEDIES = {
    "TracerArrayConversionError": "; use jax.numpy in place of numpy",
    "TracerBoolConversionError": "; use jax.numpy.where or jax.lax.cond in place of if",
    "SystemExit": "; leave the exit to the command",
}


def tell(error: BaseException, derivation: Derivation) -> str | None:
    """Say in a line or two what the user can mend, or return None where the mistake is jaxgrad's own.

    Args:
        error: what verifying the derivation raised.
        derivation: the derivation.
    """
    frames = _frames(error.__traceback__)
    for role, function in _functions(derivation):
        code = _code(function)
        depth = next((i for i, (frame, _) in enumerate(frames) if frame.f_code is code), None)
        if depth is not None:
            remedy = next((text for name, text in _REMEDIES.items() if type(error).__name__ == name), "")
            return f"{role} of {derivation.name} raised {summary(error)} ({_place(frames[depth:])}){remedy}"
    raised_here = bool(frames) and frames[-1][0].f_code.co_filename.startswith(_HERE)
    if isinstance(error, (ValueError, TypeError)) and raised_here:
        return str(error) if f" of {derivation.name} " in str(error) else f"{derivation.name}: {error}"
    foreign = re.search(r"returned a value of type <class '([^']+)'>", str(error))
    if foreign:
        return f"`loss` and `gradient` of {derivation.name} must return arrays, but one of them returns a {foreign[1]}"
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return f"{derivation.name}: there is not enough memory; verify it at smaller `--sizes`, or with fewer `--inputs`"
    return None


def summary(error: BaseException) -> str:
    """Return an exception's type and the first line of its message."""
    line = (str(error).strip().splitlines() or [""])[0]
    line = line if len(line) <= 300 else line[:299] + "…"
    return f"{type(error).__name__}: {line.rstrip('.')}" if line else type(error).__name__


def _functions(derivation: Derivation) -> list[tuple[str, Any]]:
    domains = [(f"the domain of `{name}`", domain) for name, domain in derivation.domains.items()]
    every = [("`loss`", derivation.loss), ("`gradient`", derivation.gradient), ("`mask`", derivation.mask), *domains]
    return [(role, function) for role, function in every if callable(function)]


def innermost(function: Any) -> Any:
    """Return the function inside of partials and decorators."""
    while True:
        inner = function.func if isinstance(function, functools.partial) else inspect.unwrap(function)
        if inner is function:
            return function
        function = inner


def _code(function: Callable[..., Any]) -> CodeType | None:
    function = innermost(function)
    code = getattr(function, "__code__", None)
    return code if code is not None else getattr(type(function).__call__, "__code__", None)


def _frames(trace: TracebackType | None) -> list[tuple[FrameType, int]]:
    return list(traceback.walk_tb(trace))


def _place(frames: list[tuple[FrameType, int]]) -> str:
    """Return file, line and function of the innermost frame that is no library's."""
    own = [(frame, line) for frame, line in frames if not _is_library(frame.f_code.co_filename)]
    frame, line = (own or frames[:1])[-1]
    path = Path(frame.f_code.co_filename)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}:{line}, in {frame.f_code.co_name}"


def _is_library(filename: str) -> bool:
    ours = filename.startswith(_HERE) and not filename.startswith(f"{_HERE}{os.sep}catalog")
    return ours or filename.startswith("<") or any(name in Path(filename).parts for name in ("jax", "jaxlib", "numpy", "jaxtyping"))
