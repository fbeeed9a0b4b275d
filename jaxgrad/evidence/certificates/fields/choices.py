"""Comparisons in a finite field, and choices that depend on them.

Relaxed, the truth of d > 0 is a random field element, the same for the same d and its complement
for −d. Sampled, it says whether d is a square, or where d lies among numbers that differ from it by
constants (`jaxgrad.evidence.certificates.fields.lines`). A choice is the line through both cases.
Where the field may not know that two values are equal on a whole region (`FieldDomain.may_tie`),
d > 0 and −d > 0 are unrelated, since neither may hold.
"""

import math
import operator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgrad.evidence.certificates.fields import signs
from jaxgrad.evidence.certificates.fields.arithmetic import (
    Rule,
    affine,
    exactly,
    multiply,
    negative,
    subtract,
)
from jaxgrad.evidence.certificates.fields.domain import FieldDomain
from jaxgrad.evidence.certificates.fields.values import (
    BRANCH,
    CUT,
    GATE,
    STEP,
    FieldValues,
    aligned,
    either,
)
from jaxgrad.jaxprs.domain import UnsupportedError, describe


def positive(domain: FieldDomain, eqn: Any, d: FieldValues) -> FieldValues:
    """Return the truth of d > 0: a field element when relaxed, 0 or 1 in each draw when sampled."""
    tie, like = domain.may_tie(d), domain.draws.p.like(d.p)
    upright = tie | (d.p <= like // 2)
    key = np.where(upright, d.p, like - d.p)
    p, q = domain.hashed("positive", key)
    coin: Any = BRANCH
    if domain.relaxed:
        p = np.where(upright, p, domain.draws.p.reduce(1 - p))
        q = None if q is None else np.where(upright, q, domain.draws.q.reduce(1 - q))
    elif domain.lines is None or tie.any():
        p = np.where(tie, p >> 7 & 1, domain.draws.positive(d.p))
        coin = domain.coins.toss("comparison", key, d.bad, p == 1)
        q = None if q is None else p
    else:
        p, coin = domain.coins.ordered(domain.lines, d)
        q = None if q is None else p
    zero = (d.p == 0) | signs.known(d.sign, signs.NONPOSITIVE, d.shape)
    sure = signs.known(d.sign, signs.POSITIVE, d.shape) | (
        signs.known(d.sign, signs.NONNEGATIVE, d.shape) & ~tie
    )
    taint = either(np.where(sure | zero.all(0), np.uint64(0), coin | GATE), d.taint)

    def settle(truth: np.ndarray) -> np.ndarray:
        return np.where(zero, 0, np.where(sure, 1, truth))

    sign = np.full(d.shape, signs.NONNEGATIVE | signs.TRUTH)
    return FieldValues(settle(p), None if q is None else settle(q), d.bad, None, taint, sign)


def _not(domain: FieldDomain, eqn: Any, x: Any) -> FieldValues:
    result = affine(domain, x, -1, 1)
    return replace(result, sign=np.full(result.shape, signs.NONNEGATIVE | signs.TRUTH))


def _order(swap: bool, negate: bool) -> Rule:
    """A > b as a − b > 0, and the others by swapping and negating."""

    def rule(domain: FieldDomain, eqn: Any, a: Any, b: Any) -> FieldValues:
        a, b = aligned([domain.lift(x) for x in ((b, a) if swap else (a, b))])
        d = subtract(domain, eqn, a, b)
        truth = positive(domain, eqn, replace(d, inf=None))
        if d.inf is not None:
            same = (0 if a.inf is None else a.inf) == (0 if b.inf is None else b.inf)
            bits = np.where(d.inf != 0, d.inf > 0, truth.p)
            clash = np.broadcast_to(same & (d.inf != 0), d.p.shape)  # ∞ > ∞ is false, and d was bad
            bad = None if truth.bad is None else truth.bad & ~clash
            truth = replace(truth, p=np.where(clash, 0, bits), bad=bad)
            truth = replace(
                truth, q=truth.q if truth.q is None else np.where(d.inf != 0, truth.p, truth.q)
            )
        return _not(domain, eqn, truth) if negate else truth

    return rule


def equal(domain: FieldDomain, eqn: Any, a: Any, b: Any) -> FieldValues:
    """Return the truth of a = b: false in general position, unknown where a tie may be hidden."""
    if eqn.invars[0].aval.dtype == np.bool_:
        return _not(domain, eqn, _xor(domain, eqn, a, b))
    a, b = aligned([domain.lift(a), domain.lift(b)])
    infinite = [
        np.broadcast_to(0 if x.inf is None else x.inf, np.broadcast_shapes(a.shape, b.shape))
        for x in (a, b)
    ]
    d = domain.elementwise(
        lambda m, x, y: m.reduce(x - y), replace(a, inf=None), replace(b, inf=None)
    )
    known = (infinite[0] != 0) | (infinite[1] != 0)
    tie, like = domain.may_tie(d) & ~known, domain.draws.p.like(d.p)
    truth = (np.where(known, infinite[0] == infinite[1], d.p == 0)).astype(np.int64)
    truth = np.broadcast_to(truth, d.p.shape)
    apart = signs.plus(a.sign, signs.negated(b.sign))
    tie &= ~signs.known(apart, signs.NONZERO, d.shape)
    bits = np.full(d.shape, signs.NONNEGATIVE | signs.TRUTH)
    result = FieldValues(truth, truth if domain.two else None, d.bad, None, d.taint, bits)
    if tie.any():
        key = np.minimum(d.p, like - d.p)
        p, q = domain.hashed("equal", key)
        coin: Any = BRANCH
        if not domain.relaxed:
            p = p >> 7 & 1
            q, coin = p, domain.coins.toss("comparison", key + 1, d.bad, p == 1)
        open_ = tie & (d.p != 0)
        p, q = (
            np.where(open_, p, truth),
            np.where(open_, q, truth) if domain.two and q is not None else None,
        )
        result = replace(
            result, p=p, q=q, taint=either(d.taint, np.where(tie, coin | GATE, np.uint64(0)))
        )
    return result


def select(domain: FieldDomain, eqn: Any, which: Any, *cases: Any) -> FieldValues:
    """Return case 1 where `which` and case 0 elsewhere, as the line through both."""
    if isinstance(which, np.ndarray):
        shape = eqn.outvars[0].aval.shape
        places = np.arange(math.prod(shape)).reshape(shape)
        return domain.rearrange(cases, places + places.size * which.astype(np.int64))
    c = domain.settled(which)
    if len(cases) != 2 or not signs.known(c.sign, signs.TRUTH, c.shape).all():
        raise UnsupportedError(
            f"{describe(eqn)} chooses among {len(cases)} cases by an unknown number"
        )
    c, a, b = aligned([domain.settled(x) for x in (which, *cases)])
    result = domain.elementwise(
        lambda m, c, a, b: m.reduce(a + m.reduce(b - a) * c),
        *(replace(x, bad=None) for x in (c, a, b)),
    )
    bad = c.bad
    for case, never in ((a, 1), (b, 0)):
        if case.bad is not None:
            bad = either(bad, case.bad & (c.p != never))
    bad = None if bad is None else np.broadcast_to(bad, result.p.shape)
    return replace(result, bad=bad, sign=signs.common(a.sign, b.sign))


def _extreme(sign: int) -> Rule:
    """Maximum (sign 1) or minimum (sign −1): the one that is on the right side of the other."""

    def rule(domain: FieldDomain, eqn: Any, a: Any, b: Any) -> FieldValues:
        a, b = aligned([domain.lift(a), domain.lift(b)])
        x, y = replace(a, inf=None), replace(b, inf=None)
        first, second = (x, y) if sign == 1 else (y, x)
        result = select(
            domain, eqn, positive(domain, eqn, subtract(domain, eqn, first, second)), y, x
        )
        for one, other in ((a, y), (b, x)):
            if one.inf is not None:
                lost = one.inf == -sign
                shape = result.p.shape
                result = FieldValues(
                    np.where(lost, np.broadcast_to(other.p, shape), result.p),
                    None
                    if result.q is None
                    else np.where(lost, np.broadcast_to(other.q, shape), result.q),
                    result.bad,
                    None,
                    result.taint,
                )
        if a.inf is None and b.inf is None:
            return result
        left, right = (np.broadcast_to(0 if v.inf is None else v.inf, result.shape) for v in (a, b))
        won = (left == sign) | (right == sign)
        both = (left == -sign) & (right == -sign)
        inf = (sign * won.astype(int) - sign * both.astype(int)).astype(np.int8)
        return replace(result, sign=None, inf=inf if inf.any() else None)

    return rule


maximum, minimum = exactly(max)(_extreme(1)), exactly(min)(_extreme(-1))


@exactly(abs)
def _absolute(domain: FieldDomain, eqn: Any, x: Any) -> FieldValues:
    x = domain.settled(x)
    result = multiply(domain, eqn, x, affine(domain, positive(domain, eqn, x), 2, -1))
    return replace(result, sign=signs.square(x.sign, x.shape))


@exactly(lambda x: Fraction((x > 0) - (x < 0)))
def _sign(domain: FieldDomain, eqn: Any, x: Any) -> FieldValues:
    x = domain.settled(x)
    return subtract(
        domain, eqn, positive(domain, eqn, x), positive(domain, eqn, negative(domain, eqn, x))
    )


def _clamp(domain: FieldDomain, eqn: Any, low: Any, x: Any, high: Any) -> Any:
    return minimum(domain, eqn, maximum(domain, eqn, x, low), high)


def _logical(rule: Rule) -> Rule:
    def wrapped(domain: FieldDomain, eqn: Any, *operands: Any) -> FieldValues:
        if eqn.invars[0].aval.dtype != bool:
            raise UnsupportedError(f"{describe(eqn)} works on the bits of unknown integers")
        result = rule(domain, eqn, *operands)
        return replace(result, sign=np.full(result.shape, signs.NONNEGATIVE | signs.TRUTH))

    return wrapped


def _or(domain: FieldDomain, eqn: Any, a: Any, b: Any) -> FieldValues:
    return domain.elementwise(lambda m, x, y: m.reduce(x + y - m.multiply(x, y)), a, b)


def _xor(domain: FieldDomain, eqn: Any, a: Any, b: Any) -> FieldValues:
    return domain.elementwise(lambda m, x, y: m.reduce(x + y - 2 * m.multiply(x, y)), a, b)


def _finite(domain: FieldDomain, eqn: Any, x: Any) -> Any:
    x = domain.lift(x)
    truth = np.ones(x.shape, bool) if x.inf is None else np.asarray(x.inf == 0)
    return truth if x.bad is None else replace(domain.lift(truth), bad=x.bad, taint=x.taint)


def _convert(domain: FieldDomain, eqn: Any, x: Any) -> Any:
    """Convert a type: to another float the identity of a real number, to integers a step."""
    before, after = eqn.invars[0].aval.dtype, eqn.outvars[0].aval.dtype
    if np.dtype(after) == np.bool_ and np.dtype(before) != np.bool_:
        return _not(domain, eqn, equal(domain, eqn, x, domain.lift(np.zeros((), int))))
    if jnp.issubdtype(before, jnp.inexact) and not jnp.issubdtype(after, jnp.inexact):
        return domain.function(f"truncate to {np.dtype(after)}", x, bits=STEP | CUT)
    if not isinstance(x, FieldValues):
        return x
    if after in (np.int8, np.int16) or np.issubdtype(after, np.unsignedinteger):
        raise UnsupportedError(
            f"{describe(eqn)} makes small or unsigned integers, which wrap around"
        )
    if (
        np.issubdtype(after, np.integer)
        and np.issubdtype(before, np.integer)
        and not np.can_cast(before, after)
    ):
        return domain.function(f"wrap to {np.dtype(after)}", x, bits=STEP | CUT)
    if np.issubdtype(after, np.complexfloating):
        raise UnsupportedError(f"{describe(eqn)} makes complex numbers")
    return x


CHOICES: dict[str, Rule] = {
    "gt": exactly(operator.gt)(_order(False, False)),
    "lt": exactly(operator.lt)(_order(True, False)),
    "ge": exactly(operator.ge)(_order(True, True)),
    "le": exactly(operator.le)(_order(False, True)),
    "eq": exactly(operator.eq)(equal),
    "ne": exactly(operator.ne)(
        lambda domain, eqn, a, b: _not(domain, eqn, equal(domain, eqn, a, b))
    ),
    "select_n": select,
    "max": maximum,
    "min": minimum,
    "abs": _absolute,
    "sign": _sign,
    "clamp": _clamp,
    "not": _logical(_not),
    "and": _logical(multiply),
    "or": _logical(_or),
    "xor": _logical(_xor),
    "is_finite": _finite,
    "convert_element_type": _convert,
}
"""Rules of comparisons, choices and conversions."""
