"""Exponentials, logarithms, angles and uninterpreted functions in a finite field, entry by entry.

A rule is a function (domain, eqn, *operands) of values of
`jaxgrad.evidence.certificates.fields.values`. tanh, the logistic function and their kind are
rational functions of an exponential. What has no law here (erf, lgamma) is a random function: the
same argument gives the same value, and that is all.
"""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from jaxgrad.evidence.certificates.fields import signs
from jaxgrad.evidence.certificates.fields.arithmetic import (
    Rule,
    add,
    affine,
    divide,
    multiply,
    negative,
    reciprocal,
    subtract,
    worse,
)
from jaxgrad.evidence.certificates.fields.domain import FieldDomain
from jaxgrad.evidence.certificates.fields.modular import Modulus
from jaxgrad.evidence.certificates.fields.rotations import Rotations
from jaxgrad.evidence.certificates.fields.values import (
    BRANCH,
    EXP,
    GATE,
    OPAQUE,
    PARTIAL,
    STEP,
    Exact,
    FieldValues,
    aligned,
    either,
)


def _imitated(x: FieldValues) -> Any:
    """Return the bits of a function modulo q, where roots and exponentials are random numbers."""
    if x.taint is None:
        return EXP
    return EXP | np.where((x.taint & ~(BRANCH | GATE | PARTIAL)) != 0, OPAQUE, np.uint64(0))


def exponential(domain: FieldDomain, x: Any) -> FieldValues:
    """Return exp(x); that of −∞ is 0."""
    x = domain.lift(x)
    if isinstance(domain.draws, Rotations):
        return replace(domain.function("exp", x), sign=np.full(x.shape, signs.POSITIVE))
    p = domain.draws.exp(x.q)
    bad, _, taint = domain.about([x], x.shape, _imitated(x))
    inf = x.inf
    if inf is not None:
        p = np.where(inf == -1, 0, p)
        inf = np.maximum(inf, 0) if (inf == 1).any() else None
    q = domain.hashed("exp", p)[1]
    sign = np.full(x.shape, signs.POSITIVE)
    if x.inf is not None:
        sign = np.where(x.inf == -1, signs.NONNEGATIVE | signs.NONPOSITIVE, sign)
    return FieldValues(p, None if q is None else np.where(p == 0, 0, q), bad, inf, taint, sign)


def logarithm(domain: FieldDomain, eqn: Any, x: Any) -> FieldValues:
    """Return log x, undefined in draws where x is not positive.

    It is random modulo p; modulo q it is the inverse of exp, or random.
    """
    x = domain.settled(x)
    heads = domain.draws.positive(x.p)
    p, q = domain.hashed("log", x.p)
    one = x.p == 1
    if domain.logs:
        good = heads if x.bad is None else heads & ~x.bad
        q = domain.draws.log(np.where(good, x.p, 1))
    taint = domain.condition("log", x, heads) | EXP | OPAQUE
    result = FieldValues(
        np.where(one, 0, p), None if q is None else np.where(one, 0, q), x.bad, None, taint
    )
    return replace(result, bad=worse(domain, result, ~heads))


def _logistic(domain: FieldDomain, eqn: Any, x: Any) -> FieldValues:
    return reciprocal(domain, affine(domain, exponential(domain, negative(domain, eqn, x)), 1, 1))


def _tanh(domain: FieldDomain, eqn: Any, x: Any) -> FieldValues:
    e = exponential(domain, affine(domain, x, 2, 0))
    return multiply(
        domain, eqn, affine(domain, e, 1, -1), reciprocal(domain, affine(domain, e, 1, 1))
    )


def _hyperbolic(sign: int) -> Rule:
    def rule(domain: FieldDomain, eqn: Any, x: Any) -> FieldValues:
        e = exponential(domain, domain.settled(x))
        half = domain.lift(Exact(np.asarray(Fraction(1, 2), object)))
        return multiply(
            domain,
            eqn,
            half,
            (add if sign == 1 else subtract)(domain, eqn, e, reciprocal(domain, e)),
        )

    return rule


def _exp2(domain: FieldDomain, eqn: Any, x: Any) -> FieldValues:
    x, two = aligned([domain.settled(x), domain.lift(Exact(np.asarray(Fraction(2), object)))])
    if isinstance(domain.draws, Rotations):
        return replace(domain.function("exp2", x), sign=np.full(x.shape, signs.POSITIVE))
    p = domain.draws.p.power(np.broadcast_to(two.p, x.p.shape), x.q)
    about = domain.about([x], x.shape, EXP)
    return FieldValues(p, domain.hashed("exp", p)[1], *about, np.full(x.shape, signs.POSITIVE))


def _log2(domain: FieldDomain, eqn: Any, x: Any) -> FieldValues:
    two = domain.lift(Exact(np.asarray(Fraction(2), object)))
    return divide(domain, eqn, logarithm(domain, eqn, x), logarithm(domain, eqn, two))


# --- functions that are not interpreted ---


def _odd(name: str) -> Rule:
    """An unknown function with h(−x) = −h(x)."""

    def rule(domain: FieldDomain, eqn: Any, x: Any) -> FieldValues:
        x = domain.settled(x)
        low = x.p <= domain.draws.p.like(x.p) // 2
        h = domain.function(name, replace(x, p=np.where(low, x.p, domain.draws.p.like(x.p) - x.p)))
        sign = np.where(x.p == 0, 0, np.where(low, 1, -1))
        p = domain.draws.p.reduce(sign * h.p)
        return replace(h, p=p, q=None if h.q is None else domain.draws.q.reduce(sign * h.q))

    return rule


def _circle(which: str) -> Rule:
    """Sine and cosine, of an angle where those are carried.

    Else they are rational functions of an unknown tan(x/2).
    """

    def rule(domain: FieldDomain, eqn: Any, x: Any) -> FieldValues:
        if isinstance(domain.draws, Rotations):
            cosine, sine = _rotation(domain, domain.settled(x))
            above, below = cosine if which == "cos" else sine, cosine
        else:
            t = _odd("tan half")(domain, eqn, x)
            tt = domain.elementwise(Modulus.multiply, t, t)
            sine, cosine = affine(domain, t, 2, 0), affine(domain, tt, -1, 1)
            above, below = (
                cosine if which == "cos" else sine,
                cosine if which == "tan" else affine(domain, tt, 1, 1),
            )
            return multiply(domain, eqn, above, reciprocal(domain, below))
        return multiply(domain, eqn, above, reciprocal(domain, below)) if which == "tan" else above

    return rule


def _rotation(domain: FieldDomain, x: FieldValues) -> list[FieldValues]:
    """Return cosine and sine of an angle."""
    bad, _, taint = domain.about([x], x.shape, _imitated(x))
    assert isinstance(domain.draws, Rotations)
    assert x.q is not None  # an angle
    return [
        FieldValues(p, domain.hashed("circle", p)[1], bad, None, taint)
        for p in domain.draws.rotation(x.q)
    ]


def _uninterpreted(name: str) -> Rule:
    return lambda domain, eqn, *operands: domain.function(name, *operands)


def _partial(rule: Rule) -> Rule:
    """A function that is undefined on a region, as arcsine is beyond 1."""

    def wrapped(domain: FieldDomain, eqn: Any, *operands: Any) -> FieldValues:
        result = rule(domain, eqn, *operands)
        return replace(result, taint=either(np.full(result.shape, PARTIAL), result.taint))

    return wrapped


def _step(name: str) -> Rule:
    return lambda domain, eqn, *operands: domain.function(name, *operands, bits=STEP)


FUNCTIONS: dict[str, Rule] = {
    "exp": lambda domain, eqn, x: exponential(domain, x),
    "exp2": _exp2,
    "expm1": lambda domain, eqn, x: affine(domain, exponential(domain, x), 1, -1),
    "log": logarithm,
    "log2": _log2,
    "log1p": lambda domain, eqn, x: logarithm(domain, eqn, affine(domain, x, 1, 1)),
    "logistic": _logistic,
    "tanh": _tanh,
    "sinh": _hyperbolic(-1),
    "cosh": _hyperbolic(1),
    "sin": _circle("sin"),
    "cos": _circle("cos"),
    "tan": _circle("tan"),
    "erfc": lambda domain, eqn, x: affine(domain, _odd("erf")(domain, eqn, x), -1, 1),
    **{name: _odd(name) for name in ("erf", "atan", "asinh", "bessel_i1e")},
    **{name: _partial(_odd(name)) for name in ("erf_inv", "asin", "atanh")},
    **{name: _uninterpreted(name) for name in ("lgamma", "digamma", "bessel_i0e")},
    **{
        name: _partial(_uninterpreted(name))
        for name in ("acos", "acosh", "polygamma", "igamma", "igammac", "zeta",
                     "regularized_incomplete_beta", "igamma_grad_a", "random_gamma_grad")
    },
    **{name: _step(name) for name in ("floor", "ceil", "round", "rem", "atan2", "nextafter")},
}  # fmt: skip
"""Rules of functions of numbers, but powers and roots."""
