"""Options that make XLA compile quickly on the CPU.

A check runs a small program once or a few times, so that nearly all of its time goes into compiling; a sampling loop runs
long, but its random number generator is what costs most to compile. Measured figures stand in ``benchmarks/NOTES.md``.
"""

import functools
from typing import Any

import jax

_CHECK: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}
_LOOP: dict[str, Any] = {"xla_backend_optimization_level": 1}


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


def loop_options(*, side_by_side: bool = False) -> dict[str, Any] | None:
    """Options for a sampling loop; None away from the CPU.

    Args:
        side_by_side: whether several such loops run at once. Then each keeps to one thread, and a product is summed in an order that
            does not depend on how many threads there are.
    """
    options = _LOOP | ({"xla_cpu_multi_thread_eigen": False} if side_by_side else {})
    return options if jax.default_backend() == "cpu" and _accepted(tuple(options.items())) else None
