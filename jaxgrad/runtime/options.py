"""Options that make XLA compile quickly on the CPU.

A check runs a small program once or a few times, so that nearly all of its time goes into
compiling; a sampling loop runs long, but its random number generator is what costs most to compile.
Measured figures stand in ``benchmarks/NOTES.md``.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax

_CHECK: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
_LOOP: dict[str, Any] = {"xla_cpu_parallel_codegen_split_count": 1}
_BRIEF: dict[str, Any] = {"xla_cpu_use_fusion_emitters": False}


@functools.cache
def _accepted(options: tuple[tuple[str, Any], ...]) -> bool:
    """Say whether this XLA knows the options: they are no stable interface."""
    try:
        jax.jit(lambda x: x, compiler_options=dict(options))(0)
    except Exception:  # an unknown option raises whatever this version of jaxlib raises
        return False
    return True


def check_options() -> dict[str, Any] | None:
    """Options for small programs that run a few times; None away from the CPU."""
    return _CHECK if jax.default_backend() == "cpu" and _accepted(tuple(_CHECK.items())) else None


def compiled(
    function: Callable[..., Any], options: dict[str, Any] | None, *args: Any
) -> Callable[..., Any]:
    """Compile a function for such arguments with XLA's options, or without where XLA fails.

    >>> float(compiled(lambda x: 2 * x, {"xla_no_such_option": 1}, 1.5)(1.5))
    3.0
    """
    return lowered(function, options, *args)()


def lowered(
    function: Callable[..., Any], options: dict[str, Any] | None, *args: Any
) -> Callable[[], Callable[..., Any]]:
    """Do what `compiled` does in the caller's thread, and return the rest, which XLA does."""
    if not options:
        return jax.jit(function).lower(*args).compile
    try:
        first = jax.jit(function, compiler_options=options).lower(*args)
    except jax.errors.JaxRuntimeError:
        return lowered(function, None, *args)

    def with_options_or_without() -> Callable[..., Any]:
        try:
            return first.compile()
        except jax.errors.JaxRuntimeError:
            return lowered(function, None, *args)()

    return with_options_or_without


def loop_options(*, brief: bool = False) -> dict[str, Any] | None:
    """Options for a sampling loop; None away from the CPU.

    None of them changes how XLA computes anything but for choosing among its established ways.
    Others were quicker, and wrong: with vectors of 512 bits an arctan, with products and what
    surrounds them left to YNNPACK a product with a constant matrix, and without algebraic
    simplification bfloat16 (``benchmarks/NOTES.md``).

    Args:
        brief: whether the loop runs so briefly that it should rather compile quickly, in little
            more than half of the time.
    """
    if jax.default_backend() != "cpu":
        return None
    options = _LOOP | (_BRIEF if brief else {})
    if _accepted(tuple(options.items())):
        return options
    return {name: value for name, value in options.items() if _accepted(((name, value),))} or None
