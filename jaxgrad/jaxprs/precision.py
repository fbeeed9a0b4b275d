"""Tracing in float64 or float32, whatever the process's default is.

A claim is compared in float64, and what rounding does to it is measured in float32 too, so the same
functions are traced in both. JAX up to 0.10 remembers a numpy array that a function closes over in
the precision in which it met it first: in a process that traced the function in float32, a trace in
float64 gets the array rounded to float32, and programs of mixed types. `in_precision` has JAX
remember such an array once for each precision.
"""

import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import jax
import numpy as np

from jaxgrad.jaxprs.versions import enable_x64, numpy_intake


@contextmanager
def in_precision(double: bool) -> Iterator[None]:
    """Let JAX trace in float64, or in float32 without warnings of constants out of range.

    >>> with in_precision(True):
    ...     print(jax.numpy.ones(2).dtype)
    float64
    """
    tell_precisions_apart()
    with enable_x64(double), nullcontext() if double else np.errstate(over="ignore"):
        yield


@functools.cache
def tell_precisions_apart() -> bool:
    """Have JAX convert numpy arrays anew in each precision; say whether that was needed."""
    intake = numpy_intake()
    if intake is None:
        return False
    canonicalize_value, change, kind = intake
    array = np.zeros(1)
    with enable_x64(True):
        first = canonicalize_value(array)
    with enable_x64(False):
        if canonicalize_value(array).dtype != first.dtype:
            return False
    change(np.ndarray, Canonical(kind))
    return True


class Canonical:
    """Numpy arrays in JAX's types for them; the same object for the same living array."""

    def __init__(self, kind: Callable[[Any], Any]) -> None:
        """Set up.

        Args:
            kind: makes what JAX has in place of such an array.
        """
        self.kind = kind
        self._known: dict[tuple[int, Any], tuple[weakref.ref, weakref.ref]] = {}

    def __call__(self, array: np.ndarray) -> Any:
        """Return an array in the type that JAX has for it."""
        key = id(array), jax.dtypes.canonicalize_dtype(array.dtype)
        known = self._known.get(key)
        if known is not None and known[0]() is array and (value := known[1]()) is not None:
            return value
        value = self.kind(np.asarray(array, key[1]))

        def forget(gone: weakref.ref) -> None:
            entry = self._known.get(key)
            if entry is not None and gone in entry:
                del self._known[key]

        self._known[key] = weakref.ref(array, forget), weakref.ref(value, forget)
        return value
