"""Numbers by name: a factor seen at several sizes, written in the symbols of the problem.

A factor k is looked for as (a/b) · Π sᵢ^eᵢ, with a small fraction a/b and at most three of the
problem's symbols sᵢ: sizes m, n, one less than them, scalar inputs, the mask's probability p and
1 − p. One formula must give k in every case. Of several the simplest is taken; of two that are
equally simple, neither.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, product

import numpy as np

from jaxgrad.jaxprs.rationals import rational

TIGHT = 1e-9
"""Relative difference up to which two numbers are the same."""
LARGEST = 12
"""The largest numerator and denominator beside symbols; a fraction alone may be 1000 times that."""
_ALONE = 1000 * LARGEST


@dataclass(frozen=True)
class Factor:
    """A factor with a name.

    Attributes:
        text: the factor, such as ``2/(m·n)``.
        cost: how complicated it is.
        powers: {symbol: exponent}.
        fraction: the fraction in front.
    """

    text: str
    cost: float
    powers: Mapping[str, int]
    fraction: Fraction

    def value(self, symbols: Mapping[str, float]) -> float:
        """Evaluate it."""
        return float(self.fraction) * float(
            np.prod([symbols[s] ** e for s, e in self.powers.items()])
        )

    def exact(self, symbols: Mapping[str, float]) -> Fraction | None:
        """Evaluate it exactly, taking decimals as they are written; None if a symbol is missing."""
        if not all(s in symbols for s in self.powers):
            return None
        return self.fraction * math.prod(
            (rational(symbols[s])[0] ** e for s, e in self.powers.items()), start=Fraction(1)
        )

    def meaning(self, sizes: Collection[str]) -> str:
        """Return what such a factor usually comes from, given the names of sizes, or nothing."""
        if self.fraction != 1 or not all(
            part in sizes or part.isdigit() for s in self.powers for part in s.split("·")
        ):
            return ""
        exponents = set(self.powers.values())
        return (
            "a sum in place of a mean"
            if exponents == {1}
            else "a mean in place of a sum"
            if exponents == {-1}
            else ""
        )


def fraction_of(value: float, largest: int = _ALONE, tolerance: float = TIGHT) -> Fraction | None:
    """Return the simplest fraction that a number is, or None where none of moderate size is.

    >>> fraction_of(0.1), fraction_of(-2 / 3), fraction_of(2**0.5)
    (Fraction(1, 10), Fraction(-2, 3), None)
    """
    if not np.isfinite(value) or value == 0 or abs(value) > largest or abs(value) < 1 / largest:
        return None
    for denominator in (1, 12, 100, 1000):
        found = Fraction(value).limit_denominator(min(denominator, largest))
        if found and abs(float(found) - value) <= tolerance * abs(value):
            return found if abs(found.numerator) * found.denominator <= largest else None
    return None


def name(
    values: Sequence[float], symbols: Sequence[Mapping[str, float]], tolerance: float = TIGHT
) -> Factor | None:
    """Name a factor that takes these values in cases in which the symbols have those.

    >>> name([2 / 3, 2 / 5], [{"m": 3, "n": 4}, {"m": 5, "n": 2}]).text
    '2/m'
    >>> name([3.0, 3.0], [{"m": 3, "n": 4}, {"m": 5, "n": 2}]).text
    '3'
    """
    k = np.asarray(values, float)
    if not k.size or not np.all(np.isfinite(k)) or np.any(k == 0):
        return None
    if _constant(k, tolerance):
        fraction = fraction_of(float(np.median(k)), tolerance=tolerance)
        return None if fraction is None else constant(fraction)
    shared = [s for s in symbols[0] if all(s in other and other[s] != 0 for other in symbols)]
    table = {s: np.array([other[s] for other in symbols], float) for s in shared}
    table = {s: v for s, v in table.items() if not _constant(v, TIGHT)}
    found: list[Factor] = []
    for parts, exponents in ((1, (1, -1, 2, -2)), (2, (1, -1, 2, -2)), (3, (1, -1))):
        for chosen in combinations(table, parts):
            for powers in product(exponents, repeat=parts):
                rest = k / np.prod(
                    [table[s] ** e for s, e in zip(chosen, powers, strict=True)], axis=0
                )
                if not _constant(rest, tolerance):
                    continue
                fraction = fraction_of(float(np.median(rest)), LARGEST, tolerance)
                if fraction is not None:
                    exponent = dict(zip(chosen, powers, strict=True))
                    cost = (
                        sum(abs(e) for e in powers)
                        + 0.4 * sum("−" in s for s in chosen)
                        + _weight(fraction) / 4
                    )
                    found.append(Factor(_text(fraction, exponent), cost, exponent, fraction))
        if found:
            break
    found.sort(key=lambda factor: factor.cost)
    return None if not found or (len(found) > 1 and found[1].cost <= found[0].cost) else found[0]


def constant(fraction: Fraction) -> Factor:
    """Return a factor that is one fraction, of any size."""
    return Factor(_text(fraction, {}), _weight(fraction), {}, fraction)


def _constant(x: np.ndarray, tolerance: float) -> bool:
    return bool(np.all(np.abs(x - x[0]) <= tolerance * np.abs(x[0])))


def _weight(fraction: Fraction) -> float:
    return (
        0.0
        if fraction == 1
        else 0.5
        if fraction == -1
        else 1.0 + math.log10(abs(fraction.numerator) * fraction.denominator)
    )


def _text(fraction: Fraction, powers: Mapping[str, int]) -> str:
    above = [s + "²" * (e == 2) for s, e in powers.items() if e > 0]
    below = [s + "²" * (e == -2) for s, e in powers.items() if e < 0]
    sign = "−" if fraction < 0 else ""
    above = (
        [str(abs(fraction.numerator))] if abs(fraction.numerator) != 1 or not above else []
    ) + above
    below = ([str(fraction.denominator)] if fraction.denominator != 1 else []) + below
    bottom = "·".join(below) if len(below) == 1 else f"({'·'.join(below)})"
    return sign + "·".join(above) + (f"/{bottom}" if below else "")


def times(text: str, what: str) -> str:
    """Return a multiple of something in words.

    >>> times("2/m", "the gradient in x"), times("−1", "the gradient in x"), times("1", "x")
    ('2/m times the gradient in x', 'minus the gradient in x', 'x')
    """
    return {"1": what, "−1": f"minus {what}"}.get(text, f"{text} times {what}")


def product_text(text: str, what: str) -> str:
    """Return a multiple of something as a formula.

    >>> product_text("2/m", "x"), product_text("−1", "x"), product_text("3", "the identity")
    ('2/m·x', '−x', '3 times the identity')
    """
    if what.startswith("the "):
        return times(text, what)
    if what == "1":
        return text
    return {"1": what, "−1": f"−{what}"}.get(text, f"{text}·{what}")


def comparison(label: str, factor: Factor, sizes: Collection[str] = ()) -> str:
    """Return the sentence that a closed form is a multiple of the gradient.

    >>> comparison("x", Factor("m", 1.0, {"m": 1}, Fraction(1)), ["m"])
    'the closed form is m times the gradient in x: a sum in place of a mean'
    """
    meaning = "the sign is wrong" if factor.text == "−1" else factor.meaning(sizes)
    sentence = f"the closed form is {times(factor.text, f'the gradient in {label}')}"
    return f"{sentence}: {meaning}" if meaning else sentence
