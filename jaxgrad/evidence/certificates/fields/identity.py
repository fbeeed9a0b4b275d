"""Comparing two arrays in a finite field: where they agree, and how surely they are equal.

By Schwartz and Zippel a difference of degree d vanishes at a random point with probability at most
d/q. Coins, branches that a draw decides, weaken that: each halves the draws that test a branch.
`common_ratio` finds the one rational factor between two arrays, from its remainders modulo several
primes.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from jaxgrad.evidence.certificates.fields.domain import FieldDomain
from jaxgrad.evidence.certificates.fields.values import (
    COINS,
    CONSTANT,
    LOGS,
    OPAQUE,
    PARTIAL,
    PIVOT,
    STEP,
    Coin,
    FieldValues,
)

_RESOLVED = 64.0
_SIMPLE = 10_000
TARGET = -104.0
"""Base-2 logarithm of the probability of error that an entry may have; a certificate's own is a few
runs' sum.
"""


@dataclass(frozen=True)
class Comparison:
    """f and g entry by entry.

    Attributes:
        f, g: their values.
        defined: where both are defined in at least one draw.
        hope: where what made draws bad is a root or logarithm, of which other draws may be good.
        agree: where they agree in every draw in which both are defined.
        bound: log2 of the probability that entries agree so although they are not the same
            function.
        proved: where they agree and the bound is as small as it must be.
        taint: what either depends on, as bits.
        coins: the most coins of an entry that agrees.
        needed: how many draws would have made the bounds small enough.
        resolution: how many draws tell whether roots are coins, and whether f and g are undefined
            together.
        partial: whether either may be undefined on a region of real numbers.
    """

    f: FieldValues
    g: FieldValues
    defined: np.ndarray
    hope: np.ndarray
    agree: np.ndarray
    bound: np.ndarray
    proved: np.ndarray
    taint: np.ndarray
    coins: int
    needed: float
    resolution: float
    partial: bool


@dataclass(frozen=True)
class Outcome:
    """One run of f and g in finite fields."""

    domain: FieldDomain
    comparisons: list[Comparison]


def compare(
    domain: FieldDomain,
    degree: int,
    inner: int,
    f: FieldValues,
    g: FieldValues,
    *,
    pivots: bool = False,
) -> Comparison:
    """Compare two arrays of one domain.

    Args:
        domain: where they come from.
        degree: a bound on the degree of their difference.
        inner: a bound on the degree of the arguments of functions whose values are random but
            fixed.
        f: one of them.
        g: the other.
        pivots: every order of pivots is tried elsewhere, so that what depends on them may be
            proved.
    """
    none = np.zeros(f.p.shape, bool)
    bad_f, bad_g = (none if x.bad is None else x.bad for x in (f, g))
    valid = ~(bad_f | bad_g)
    same = ((f.p == g.p) | ~valid).all(0)
    if domain.two:
        same |= ((f.q == g.q) | ~valid).all(0)
    defined = np.asarray(valid.any(0))
    agree = same & defined
    taint = np.zeros(f.shape, np.uint64)
    for x in (f, g):
        if x.taint is not None:
            taint = taint | x.taint
    bound, coins, needed, resolution = np.zeros(f.shape), 0, 0.0, 0.0
    for bits in np.unique(taint[agree]):
        tossed = domain.coins.of(bits)
        if tossed is None or (bits & PIVOT and not pivots):
            continue
        mine = agree & (taint == bits)
        draws = valid.sum(0)[mine]
        scarcity = domain.draws.count / int(draws.min())
        m, roots = _coins(tossed, domain.draws.count)
        base = (
            degree + inner * domain.collisions(everything=bool(bits & (OPAQUE | STEP)))
        ) / domain.draws.smallest
        if base * 2.0**roots >= 1:  # no number of draws would do
            continue
        missed = 1 - 2.0**-m + base * 2.0**roots * scarcity
        if missed >= 1:  # too few draws were valid to tell anything
            needed, resolution = (
                max(needed, 4.0 * domain.draws.count),
                max(resolution, 4.0 * domain.draws.count),
            )
            continue
        per_draw = math.log2(missed)
        bound[mine] = draws * per_draw
        coins = max(coins, math.ceil(m))
        resolution = max(resolution, 64.0 * 2**roots if roots or bits & PARTIAL else 0.0)
        needed = max(needed, 1.2 * TARGET / per_draw * scarcity, resolution)
    proved = agree & (bound <= TARGET) & (domain.draws.count >= min(resolution, _RESOLVED))
    partial = bool((taint & PARTIAL).any())
    coin_bits = (np.uint64(1) << np.uint64(COINS + 1)) - np.uint64(1)
    hope = (taint & (coin_bits | LOGS)) != 0
    return Comparison(
        f, g, defined, hope, agree, bound, proved, taint, coins, needed, resolution, partial
    )


def _coins(tossed: list[Coin], count: int) -> tuple[float, int]:
    """Return how many coins an entry depends on, and how many roots.

    A comparison is a coin. A root's sign is one unless its argument was not positive in some draw
    in which all logarithms and the roots before it existed: then it is no square, even given those,
    and both signs are one algebraic function.
    """
    standing, coins, roots = np.ones(count, bool), 0.0, 0
    for coin in tossed:
        if coin.kind == "log":
            standing &= coin.defined & coin.heads
        coins += coin.weight * (coin.kind == "comparison")
    for coin in tossed:
        if coin.kind not in ("root", "power"):
            continue
        roots += 1
        here = standing & coin.defined
        coins += not (here & ~coin.heads).any()
        standing = here & coin.heads
    return coins, roots


def common_ratio(outcome: Outcome) -> Fraction | None:
    """Return g/f where it is the same rational number for all entries and not 1, else None.

    With constants that are no simple rational numbers, such as e, it must be simple: else it is
    made of their approximations.
    """
    moduli = outcome.domain.draws.p
    ratio = np.full(outcome.domain.draws.count, -1)
    for c in outcome.comparisons:
        f, g = (x.p.reshape(len(ratio), -1) for x in (c.f, c.g))
        valid = np.ones(f.shape, bool)
        for x in (c.f, c.g):
            if x.bad is not None:
                valid &= ~x.bad.reshape(f.shape)
        if (valid & (f == 0) & (g != 0)).any():
            return None
        valid &= f != 0
        quotients = np.where(valid, moduli.multiply(g, moduli.inverse(f)), -1)
        for column in quotients.T:
            if ((ratio >= 0) & (column >= 0) & (ratio != column)).any():
                return None
            ratio = np.where(ratio < 0, column, ratio)
    known = {int(m): int(r) for m, r in zip(moduli.of, ratio, strict=True) if r >= 0}
    if len(known) < 3:
        return None
    value, modulus = 0, 1
    for m, r in known.items():
        value += modulus * ((r - value) * pow(modulus, -1, m) % m)
        modulus *= m
    found = _reconstructed(value, modulus)
    rough = any(
        x.taint is not None and (x.taint & CONSTANT).any()
        for c in outcome.comparisons
        for x in (c.f, c.g)
    )
    return (
        None
        if found is not None and rough and abs(found.numerator) * found.denominator > _SIMPLE
        else found
    )


def _reconstructed(value: int, modulus: int) -> Fraction | None:
    """Return the fraction a/b ≡ value with a²·b² far below the modulus, by extended Euclid."""
    limit = math.isqrt(math.isqrt(modulus) * 2**8)
    r, s, t, u = modulus, value, 0, 1
    while s > limit:
        r, s, t, u = s, r % s, u, t - r // s * u
    if u == 0 or abs(u) > limit or (s, u) in ((1, 1), (-1, -1)):
        return None
    return Fraction(s, u)
