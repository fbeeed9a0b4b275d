"""Numpy's and scipy's functions for JAX's primitives that work entry by entry, or along axes."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np


def _special(name: str) -> Any:
    """Return a function of scipy.special, imported at its first call: that takes ¼ second."""

    def function(*xs: Any) -> Any:
        import scipy.special

        return getattr(scipy.special, name)(*xs)

    return function


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "neg": np.negative,
    "max": np.maximum,
    "min": np.minimum,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "add_any": np.add,
    "pow": np.power,
    "square": np.square,
    "one_minus_square": lambda x: (1 + x) * (1 - x),
    "polynomial": lambda x, *coefficients: functools.reduce(
        lambda total, a: a + x * total, coefficients[::-1]
    ),
    "sqrt": np.sqrt,
    "cbrt": np.cbrt,
    "abs": np.abs,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "log2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "atan2": np.arctan2,
    "floor": np.floor,
    "ceil": np.ceil,
    "is_finite": np.isfinite,
    "erf": _special("erf"),
    "erfc": _special("erfc"),
    "erf_inv": _special("erfinv"),
    "lgamma": _special("gammaln"),
    "digamma": _special("digamma"),
    "ge": np.greater_equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
}
"""Functions of entries."""

REDUCTIONS: dict[str, Callable[..., Any]] = {
    "reduce_sum": np.sum,
    "reduce_prod": np.prod,
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_and": np.bitwise_and.reduce,
    "reduce_or": np.bitwise_or.reduce,
}
"""Functions along the keyword `axis`."""
