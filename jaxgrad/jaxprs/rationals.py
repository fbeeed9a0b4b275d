"""Floating-point constants as the rational numbers they were meant to be.

A program says 0.6 and means 3/5, though no float is 3/5. `rational` returns the fraction with the
smallest denominator that lies within two units in the last place of a float; 0.6**2 becomes 9/25
and 2/50/10 becomes 1/250, however they were rounded on the way. Such fractions are found by
descending the continued fractions of the interval's ends. A fraction that is not small but is a
decimal of at most twelve digits (1.000000001) is that decimal; what is neither is not what was
meant. Even then a float's fraction is its sign and power of two times that of its significand, so
that data and their doubles, as numpy computes them before a function is traced, stay in proportion.

A number that float32 holds, and needs most of its digits for, was one: `numpy.float32(0.3)` means
3/10 as well.
"""

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

_SIMPLE = 2**40
_SIMPLE_SINGLE = 2**14
_SURD = 2**20
_DIGITS = 12


def simplest(low: Fraction, high: Fraction) -> Fraction:
    """Return the fraction of smallest denominator in [low, high], for 0 < low ≤ high.

    >>> simplest(Fraction(314, 100), Fraction(315, 100))
    Fraction(22, 7)
    """
    whole = math.floor(low)
    if whole == low:
        return Fraction(whole)
    if whole + 1 <= high:
        return Fraction(whole + 1)
    return whole + 1 / simplest(1 / (high - whole), 1 / (low - whole))


@lru_cache(maxsize=4096)
def rational(value: float) -> tuple[Fraction, bool]:
    """Return a rational within 2 ulp of a float, and whether it is simple.

    A simple one is what was meant, and is then the simplest.

    >>> rational(0.6**2)
    (Fraction(9, 25), True)
    >>> rational(3.141592653589793)[1]
    False
    """
    if value < 0:
        fraction, meant = rational(-value)
        return -fraction, meant
    if value == 0 or value.is_integer():
        return Fraction(value), True
    exact, margin = Fraction(value), 2 * Fraction(math.ulp(value))
    if is_single(value):
        wide = margin * 2**29
        fraction = simplest(exact - wide, exact + wide)
        if fraction.numerator * fraction.denominator < _SIMPLE_SINGLE:
            return fraction, True
    fraction = simplest(exact - margin, exact + margin)
    if fraction.numerator * fraction.denominator < _SIMPLE:
        return fraction, True
    decimal = Fraction(f"{value:.{_DIGITS}g}")
    if abs(decimal - exact) <= margin:  # 1.000000001 is a decimal, though no simple fraction
        return decimal, True
    power = Fraction(2) ** math.frexp(value)[1]
    return power * simplest((exact - margin) / power, (exact + margin) / power), False


def is_single(value: float) -> bool:
    """Say whether a number was rounded to float32, and has many digits, binary and decimal.

    >>> is_single(float(np.float32(0.3))), is_single(0.3), is_single(0.75), is_single(1e9)
    (True, False, False, False)
    """
    significand = math.frexp(value)[0] if math.isfinite(value) else 0.0
    if not (significand * 2**24).is_integer() or (significand * 2**16).is_integer():
        return False
    return float(f"{value:.{_DIGITS}g}") != value


@lru_cache(maxsize=1024)
def surd(value: float) -> tuple[Fraction, int] | None:
    """Return (r, k) with value² = r·πᵏ for a simple r and |k| ≤ 2, or None.

    These are the constants of Gaussians.

    >>> surd((2 / 3.141592653589793) ** 0.5)
    (Fraction(2, 1), -1)
    """
    if not 1e-100 < abs(value) < 1e100:
        return None
    for k in (0, 1, -1, 2, -2):
        square = value * value / math.pi**k
        margin = 4 * Fraction(math.ulp(square))
        fraction = simplest(Fraction(square) - margin, Fraction(square) + margin)
        if fraction.numerator * fraction.denominator < _SURD:
            return fraction, k
    return None


def rationals(array: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return an array of fractions, and whether all are what was meant.

    Infinities and NaN stay floats.
    """
    values, which = np.unique(np.asarray(array, float), return_inverse=True)
    found = [rational(float(x)) if math.isfinite(x) else (float(x), True) for x in values]
    result = np.empty(len(found), object)
    result[:] = [fraction for fraction, _ in found]
    return np.asarray(result[which.reshape(array.shape)], object), all(
        simple for _, simple in found
    )


def distinct(array: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """Return the objects in an array, each once, and for every entry which one it is.

    >>> distinct(np.array([[None, 5], [5, None]], object))[1].tolist()
    [[0, 1], [1, 0]]
    """
    names = np.fromiter(map(id, array.flat), np.int64, array.size)
    _, first, which = np.unique(names, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    flat = array.ravel()
    return [flat[i] for i in np.sort(first)], order[which.ravel()].reshape(array.shape)
