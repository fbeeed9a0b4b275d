"""The signs of unknown real numbers: an exponential is positive, a sum of squares is ≥ 0.

The field knows whether a number is a square, but not that a sum of exponentials is positive. Here
each entry has three bits, in an array of its shape (None: nothing is known), and a fourth for what
is 0 or 1, a truth value. They only ever say what is true of the real numbers.
"""

from fractions import Fraction
from typing import Any

import numpy as np

from jaxgrad.jaxprs.rationals import distinct

NONNEGATIVE, NONPOSITIVE, NONZERO, TRUTH = np.uint8(1), np.uint8(2), np.uint8(4), np.uint8(8)
POSITIVE = NONNEGATIVE | NONZERO

Signs = np.ndarray | None


def of(array: np.ndarray) -> np.ndarray:
    """Return the signs of known fractions; nothing is known of NaN and infinity."""
    objects, which = distinct(array)
    numbers = [x if isinstance(x, (Fraction, int)) else None for x in objects]
    bits = [
        0 if x is None else (x >= 0) * NONNEGATIVE | (x <= 0) * NONPOSITIVE | (x != 0) * NONZERO
        for x in numbers
    ]
    return np.asarray(np.array(bits, np.uint8)[which], np.uint8)


def negated(a: Signs) -> Signs:
    """Return the signs of −a."""
    return None if a is None else (a & NONZERO) | (a & NONNEGATIVE) << 1 | (a & NONPOSITIVE) >> 1


def plus(a: Signs, b: Signs) -> Signs:
    """Return the signs of a + b."""
    if a is None or b is None:
        return None
    both, any_ = a & b & (NONNEGATIVE | NONPOSITIVE), (a | b) & NONZERO
    return both | np.where(both != 0, any_, 0).astype(np.uint8)


def times(a: Signs, b: Signs) -> Signs:
    """Return the signs of a·b."""
    if a is None or b is None:
        return None
    same = ((a & b & NONNEGATIVE) != 0) | ((a & b & NONPOSITIVE) != 0)
    opposite = ((a & NONNEGATIVE) != 0) & ((b & NONPOSITIVE) != 0) | ((a & NONPOSITIVE) != 0) & (
        (b & NONNEGATIVE) != 0
    )
    return (same * NONNEGATIVE | opposite * NONPOSITIVE | (a & b & NONZERO)).astype(np.uint8)


def square(a: Signs, shape: tuple[int, ...]) -> np.ndarray:
    """Return the signs of a²."""
    return (
        np.full(shape, NONNEGATIVE)
        if a is None
        else NONNEGATIVE | (a & NONZERO) | (a & NONPOSITIVE & a << 1)
    )


def power(a: Signs, n: int, shape: tuple[int, ...]) -> Signs:
    """Return the signs of aⁿ where it is defined."""
    if n == 0:
        return np.full(shape, POSITIVE)
    return square(a, shape) if n % 2 == 0 else a


def common(a: Signs, b: Signs) -> Signs:
    """Return what is known of either of two numbers."""
    return None if a is None or b is None else a & b


def total(a: Signs, axes: Any) -> Signs:
    """Return the signs of a sum over axes."""
    if a is None:
        return None
    every = np.bitwise_and.reduce(a, axes) & (NONNEGATIVE | NONPOSITIVE)
    some = np.bitwise_or.reduce(a, axes) & NONZERO
    return np.where(every != 0, every | some, 0).astype(np.uint8)


def known(a: Signs, bits: np.uint8, shape: tuple[int, ...]) -> np.ndarray:
    """Say for which entries all of `bits` are known."""
    return np.zeros(shape, bool) if a is None else (a & bits) == bits
