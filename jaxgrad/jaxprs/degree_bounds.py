"""Bounds N/D on the degree of arrays, and their arithmetic.

A `Degree` bounds all entries of an array over one factored denominator. Sums are brought over a
common denominator, products multiply, and a reciprocal makes a new divisor of its array.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Divisor:
    """What a division divides by: the entries of one array, equal for the same array."""

    key: int
    source: "Degree" = field(compare=False, repr=False)  # held so that `key`, its id, stays its own

    @property
    def total(self) -> int:
        """Degree of the product of all entries' numerators."""
        return self.source.numerator * math.prod(self.source.shape)


@dataclass(frozen=True)
class Degree:
    """A bound N/D for all entries of an array.

    Attributes:
        shape: shape of the array.
        numerator: the degree of every entry's numerator N over the common denominator is at most
            this.
        divisors: the factored denominator D, with exponents; empty for a polynomial.
        obstacle: "`exp` at file.py:12" where the array is no fraction of polynomials, else "".
    """

    shape: tuple[int, ...]
    numerator: int = 0
    divisors: Mapping[Divisor, int] = field(default_factory=dict, repr=False)
    obstacle: str = ""
    origin: "Degree | None" = field(default=None, repr=False, compare=False)
    """The array whose entries these are, where this one only moves or repeats them."""

    @property
    def denominator(self) -> int:
        """Degree of the common denominator D."""
        return sum(d.total * e for d, e in self.divisors.items())

    @property
    def constant(self) -> bool:
        """Whether the array does not depend on the chosen inputs."""
        return not (self.numerator or self.divisors or self.obstacle)

    @property
    def polynomial(self) -> bool:
        """Whether every entry is a polynomial in the chosen inputs."""
        return not (self.divisors or self.obstacle)


def over_common(values: Sequence[Degree]) -> tuple[int, Mapping[Divisor, int], str]:
    """Bring fractions over one denominator; return largest numerator, denominator, obstacle."""
    divisors: dict[Divisor, int] = {}
    for value in values:
        for d, e in value.divisors.items():
            divisors[d] = max(e, divisors.get(d, 0))
    total = sum(d.total * e for d, e in divisors.items())
    numerator = max((v.numerator + total - v.denominator for v in values), default=0)
    return numerator, divisors, next((v.obstacle for v in values if v.obstacle), "")


def join(shape: Sequence[int], values: Sequence[Degree]) -> Degree:
    """Bound any one of some values: the largest degree over a common denominator."""
    return Degree(tuple(shape), *over_common(values))


def product(shape: Sequence[int], values: Sequence[Degree]) -> Degree:
    """Bound the product of one entry of each of some values."""
    divisors: dict[Divisor, int] = {}
    for value in values:
        for d, e in value.divisors.items():
            divisors[d] = divisors.get(d, 0) + e
    obstacle = next((v.obstacle for v in values if v.obstacle), "")
    return Degree(tuple(shape), sum(v.numerator for v in values), divisors, obstacle)


def power(value: Degree, n: int) -> Degree:
    """Bound the n-th power, n ≥ 0."""
    divisors = {d: n * e for d, e in value.divisors.items()}
    return replace(value, numerator=n * value.numerator, divisors=divisors, origin=None)


def reciprocal(value: Degree) -> Degree:
    """Bound 1/x, whose denominator is the product of the entries of x."""
    source = value.origin or value
    if not value.numerator:
        return replace(value, numerator=value.denominator, divisors={}, origin=None)
    divisor = Divisor(id(source), source)
    numerator = value.denominator + divisor.total - source.numerator
    return replace(value, numerator=numerator, divisors={divisor: 1}, origin=None)


def root(value: Degree) -> Degree:
    """√(N/D) = √(N·D)/D: half the degree, as a variable of its own."""
    return replace(value, numerator=-(-(value.numerator + value.denominator) // 2), origin=None)
