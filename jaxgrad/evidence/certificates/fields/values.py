"""Values in a finite field, and what is known of them besides.

A number is carried modulo p and modulo q in every draw (see
`jaxgrad.evidence.certificates.fields.modular`), with what these alone do not tell:

    bad     draws in which it is undefined: a division by zero, the root of a negative number
    inf     entries that are known to be +∞ or −∞, as in a mask of attention scores
    sign    what is known of its sign (`jaxgrad.evidence.certificates.fields.signs`)
    taint   one bit for each *coin* the entry depends on, and bits for what the field only imitates

Known floating-point constants stay exact fractions (`Exact`) until they meet something unknown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

COINS = 53
"""How many coins are told apart; the bit of this number stands for all others."""

MANY, BRANCH, GATE, PIVOT, STEP, EXP, OPAQUE, CONSTANT, PARTIAL, CUT, LOGS = (
    np.uint64(1) << np.uint64(COINS + i) for i in range(11)
)
"""Bits: more coins than bits; a relaxed comparison; any comparison; a choice of pivots; a step such
as floor; exp or log; another function that is not interpreted; a constant that is no simple
rational; what may be undefined on a region, such as the root of a number that may be negative; an
integer that was a float, and may be as large as its type holds; logarithms, where they need no
coins of their own.
"""


@dataclass(frozen=True)
class Exact:
    """A known array of fractions; infinities and NaN are floats."""

    array: np.ndarray
    meant: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.array.shape


@dataclass(frozen=True)
class FieldValues:
    """An unknown array: numbers modulo p and q, (draw, *shape), and what else is known.

    The module's docstring tells of the channels; None where there is nothing.
    """

    p: np.ndarray
    q: np.ndarray | None
    bad: np.ndarray | None = None
    inf: np.ndarray | None = None
    taint: np.ndarray | None = None
    sign: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, without the draws."""
        return self.p.shape[1:]

    def map(self, move: Callable[[np.ndarray], np.ndarray]) -> "FieldValues":
        """Apply a rearrangement of entries, a function of arrays (lead, *shape), to everything."""

        def over(x: np.ndarray | None) -> np.ndarray | None:
            return None if x is None else move(x[None])[0]

        q, bad = (None if x is None else move(x) for x in (self.q, self.bad))
        return FieldValues(move(self.p), q, bad, *map(over, (self.inf, self.taint, self.sign)))


@dataclass
class Coin:
    """A branch that draws decide: in which draws it could be, and was, taken.

    A choice among more than two counts as `weight` coins.
    """

    kind: str
    defined: np.ndarray
    heads: np.ndarray
    weight: float = 1.0


def either(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    """Return the union of two masks or sets of bits, either of which may be absent."""
    return b if a is None else a if b is None else a | b


def aligned(values: Sequence[FieldValues]) -> list[FieldValues]:
    """Give scalars as many axes as the largest value has, so that they broadcast."""
    rank = max(len(v.shape) for v in values)
    return [
        v if len(v.shape) == rank else v.map(lambda x: x.reshape(-1, *(1,) * rank)) for v in values
    ]
