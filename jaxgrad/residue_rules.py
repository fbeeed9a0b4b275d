"""Arithmetic, powers, exponentials and uninterpreted functions of residues, entry by entry.

A rule is a function (domain, eqn, *operands) of values of `jaxgrad.residues`.
"""

import operator
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from jaxgrad import signs
from jaxgrad.fields import Modulus
from jaxgrad.interpreter import UnsupportedError, describe
from jaxgrad.residues import (
    BRANCH,
    CONSTANT,
    EXP,
    GATE,
    OPAQUE,
    PARTIAL,
    STEP,
    Exact,
    ResidueDomain,
    Residues,
    aligned,
    either,
)
from jaxgrad.rotations import Rotations

Rule = Callable[..., Any]


def exactly(operation: Callable[..., Any]) -> Callable[[Rule], Rule]:
    """Compute on fractions while everything is known."""

    def decorate(rule: Rule) -> Rule:
        def wrapped(domain: ResidueDomain, eqn: Any, *operands: Any) -> Any:
            if not any(isinstance(x, Residues) for x in operands):
                arrays = [x.array if isinstance(x, Exact) else x.astype(object) for x in operands]
                try:
                    result = np.asarray(np.frompyfunc(operation, len(arrays), 1)(*arrays), object)
                except (ZeroDivisionError, OverflowError):
                    return rule(domain, eqn, *operands)
                if eqn.outvars[0].aval.dtype == bool:
                    return result.astype(bool)
                return Exact(result, all(x.meant for x in operands if isinstance(x, Exact)))
            return rule(domain, eqn, *operands)

        return wrapped

    return decorate


# --- + − × ÷ and powers ---


def _sum(sign: int) -> Rule:
    def rule(domain: ResidueDomain, eqn: Any, a: Any, b: Any) -> Residues:
        a, b = aligned([domain.lift(a), domain.lift(b)])
        finite = replace(a, inf=None), replace(b, inf=None)
        result = domain.elementwise(lambda m, x, y: m.reduce(x + sign * y), *finite)
        result = replace(result, sign=signs.plus(a.sign, b.sign if sign == 1 else signs.negated(b.sign)))
        if a.inf is None and b.inf is None:
            return result
        left, right = (0 if x.inf is None else x.inf for x in (a, b))
        clash = np.broadcast_to(left * right * sign == -1, result.shape)
        inf = np.broadcast_to(np.where(left == 0, sign * right, left), result.shape).astype(np.int8)
        return replace(result, inf=inf if inf.any() else None, bad=worse(domain, result, clash))

    return rule


def worse(domain: ResidueDomain, x: Residues, entries: np.ndarray) -> np.ndarray | None:
    """Make entries bad in all draws, or (draw, …) in some."""
    return either(x.bad, np.broadcast_to(entries, x.p.shape)) if entries.any() else x.bad


add, subtract = exactly(operator.add)(_sum(1)), exactly(operator.sub)(_sum(-1))


@exactly(operator.neg)
def negative(domain: ResidueDomain, eqn: Any, x: Any) -> Residues:
    """Return −x."""
    x = domain.lift(x)
    result = domain.elementwise(lambda m, a: m.reduce(-a), replace(x, inf=None))
    return replace(result, inf=None if x.inf is None else -x.inf, sign=signs.negated(x.sign))


@exactly(operator.mul)
def multiply(domain: ResidueDomain, eqn: Any, a: Any, b: Any) -> Residues:
    """Return a·b; a number times itself is not negative."""
    a, b = aligned([domain.settled(a), domain.settled(b)])
    result = domain.elementwise(Modulus.multiply, a, b)
    sign = signs.square(a.sign, a.shape) if a.p is b.p else signs.times(a.sign, b.sign)
    return replace(result, sign=sign)


def reciprocal(domain: ResidueDomain, x: Any) -> Residues:
    """Return 1/x, bad where x is 0."""
    x = domain.settled(x)
    zero = (x.p == 0) if x.q is None else (x.p == 0) | (x.q == 0)
    result = domain.elementwise(Modulus.inverse, x)
    vanishes = domain.may_vanish(x) | (zero if x.bad is None else zero & ~x.bad).any(0)
    if vanishes.any():
        result = replace(result, taint=either(result.taint, np.where(vanishes, PARTIAL, np.uint64(0))))
    return replace(result, bad=worse(domain, result, zero), sign=x.sign)


@exactly(operator.truediv)
def divide(domain: ResidueDomain, eqn: Any, a: Any, b: Any) -> Any:
    """Return a/b; of integers it is a step."""
    if not np.issubdtype(eqn.outvars[0].aval.dtype, np.inexact):
        return domain.function("integer division", a, b, bits=STEP)
    b = domain.lift(b)
    if b.inf is not None:
        raise UnsupportedError(f"{describe(eqn)} divides by infinity")
    return multiply(domain, eqn, a, reciprocal(domain, b))


def integer_power(domain: ResidueDomain, x: Any, n: int) -> Any:
    """Return xⁿ."""
    if isinstance(x, Exact) and all(isinstance(e, Fraction) and (e or n >= 0) for e in x.array.flat):
        return Exact(np.asarray(np.frompyfunc(lambda e: e**n, 1, 1)(x.array), object), x.meant)
    x = domain.settled(x)
    result = domain.elementwise(lambda m, a: m.power(a, abs(n)), x if n >= 0 else reciprocal(domain, x))
    return replace(result, sign=signs.power(x.sign, n, x.shape))


def _power(domain: ResidueDomain, eqn: Any, x: Any, y: Any) -> Any:
    """x^y: by squaring for known integers y, and as exp(y·log x) of positive x otherwise."""
    if isinstance(y, np.ndarray):
        y = Exact(np.asarray(np.frompyfunc(lambda n: Fraction(int(n)), 1, 1)(y), object))
    if isinstance(y, Exact):
        exponents = set(y.array.flat)
        if len(exponents) == 1 and all(isinstance(e, Fraction) and e.denominator == 1 for e in exponents):
            result = integer_power(domain, x, int(exponents.pop()))
            shape = eqn.outvars[0].aval.shape
            return result if result.shape == shape else domain.rearrange([result], np.zeros(shape, int))
    x, y = aligned([domain.settled(x), domain.settled(y)])
    return _positive_power(domain, eqn, x, y, 0 if isinstance(y, Exact) else EXP)


def _positive_power(domain: ResidueDomain, eqn: Any, x: Residues, y: Residues, bits: Any) -> Residues:
    if isinstance(domain.draws, Rotations):
        result = domain.function("power", x, y)
        return replace(result, taint=either(result.taint, np.full(result.shape, PARTIAL)))
    assert y.q is not None  # a program with powers has residues modulo q
    p = domain.draws.p.power(x.p, y.q)
    base = x.map(lambda v: np.broadcast_to(v, (len(v), *p.shape[1:])))
    positive = domain.draws.positive(base.p)
    bad, _, taint = domain.about([base, y], base.shape, np.uint64(bits))
    taint = domain.condition("power", eqn, base, positive) | taint
    result = Residues(p, domain.hashed("power", p)[1], bad, None, taint, _nonnegative(base))
    return replace(result, bad=worse(domain, result, ~positive))


def _nonnegative(x: Residues) -> np.ndarray:
    """Return the signs of a root of x."""
    return np.where(signs.known(x.sign, signs.NONZERO, x.shape), signs.POSITIVE, signs.NONNEGATIVE)


def square_root(domain: ResidueDomain, eqn: Any, x: Any) -> Residues:
    """Return the positive root, bad in draws where x is not positive; its sign is a coin."""
    constant = isinstance(x, Exact)
    x = domain.settled(x)
    root, ok = domain.draws.p.root(x.p)
    if constant:  # √2 has residues modulo q too
        q, exists = (None, ok) if x.q is None else domain.draws.q.root(x.q)
        result = replace(x, p=root, q=q, taint=np.full(x.shape, CONSTANT), sign=_nonnegative(x))
        return replace(result, bad=worse(domain, result, ~(ok & exists)))
    taint = domain.condition("root", eqn, x, ok)
    result = Residues(root, domain.hashed("sqrt", root)[1], x.bad, None, taint, _nonnegative(x))
    return replace(result, bad=worse(domain, result, ~ok))


def _cube_root(domain: ResidueDomain, eqn: Any, x: Any) -> Residues:
    x = domain.settled(x)
    third = np.array([pow(3, -1, int(p) - 1) for p in domain.draws.p.of])
    root = domain.draws.p.power(x.p, third.reshape(domain.draws.p.like(x.p).shape))
    bad, _, taint = domain.about([x], x.shape, EXP)
    return Residues(root, domain.hashed("cbrt", root)[1], bad, None, taint, x.sign)


# --- exponentials and what is made of them ---


def _imitated(x: Residues) -> Any:
    """Return the bits of a function of x that is taken modulo q: there roots, exponentials, … are only imitated, at random."""
    if x.taint is None:
        return EXP
    return EXP | np.where((x.taint & ~(BRANCH | GATE | PARTIAL)) != 0, OPAQUE, np.uint64(0))


def exponential(domain: ResidueDomain, x: Any) -> Residues:
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
    return Residues(p, None if q is None else np.where(p == 0, 0, q), bad, inf, taint, sign)


def logarithm(domain: ResidueDomain, eqn: Any, x: Any) -> Residues:
    """Return log x, bad in draws where x is not positive: random modulo p; modulo q the inverse of exp, or random."""
    x = domain.settled(x)
    heads = domain.draws.positive(x.p)
    p, q = domain.hashed("log", x.p)
    one = x.p == 1
    if domain.logs:
        good = heads if x.bad is None else heads & ~x.bad
        q = domain.draws.log(np.where(good, x.p, 1))
    taint = domain.condition("log", eqn, x, heads) | EXP | OPAQUE
    result = Residues(np.where(one, 0, p), None if q is None else np.where(one, 0, q), x.bad, None, taint)
    return replace(result, bad=worse(domain, result, ~heads))


def affine(domain: ResidueDomain, x: Any, scale: int, shift: int) -> Residues:
    """Return scale·x + shift."""
    x = domain.settled(x)
    result = domain.elementwise(lambda m, a: m.reduce(scale * a + shift), x)
    signed = signs.of(np.array([scale, shift], object))
    return replace(result, sign=signs.plus(signs.times(x.sign, signed[0]), signed[1]))


def _logistic(domain: ResidueDomain, eqn: Any, x: Any) -> Residues:
    return reciprocal(domain, affine(domain, exponential(domain, negative(domain, eqn, x)), 1, 1))


def _tanh(domain: ResidueDomain, eqn: Any, x: Any) -> Residues:
    e = exponential(domain, affine(domain, x, 2, 0))
    return multiply(domain, eqn, affine(domain, e, 1, -1), reciprocal(domain, affine(domain, e, 1, 1)))


def _hyperbolic(sign: int) -> Rule:
    def rule(domain: ResidueDomain, eqn: Any, x: Any) -> Residues:
        e = exponential(domain, domain.settled(x))
        half = domain.lift(Exact(np.asarray(Fraction(1, 2), object)))
        return multiply(domain, eqn, half, _sum(sign)(domain, eqn, e, reciprocal(domain, e)))

    return rule


def _exp2(domain: ResidueDomain, eqn: Any, x: Any) -> Residues:
    x, two = aligned([domain.settled(x), domain.lift(Exact(np.asarray(Fraction(2), object)))])
    if isinstance(domain.draws, Rotations):
        return replace(domain.function("exp2", x), sign=np.full(x.shape, signs.POSITIVE))
    p = domain.draws.p.power(np.broadcast_to(two.p, x.p.shape), x.q)
    about = domain.about([x], x.shape, EXP)
    return Residues(p, domain.hashed("exp", p)[1], *about, np.full(x.shape, signs.POSITIVE))


# --- functions that are not interpreted ---


def _odd(name: str) -> Rule:
    """An unknown function with h(−x) = −h(x)."""

    def rule(domain: ResidueDomain, eqn: Any, x: Any) -> Residues:
        x = domain.settled(x)
        low = x.p <= domain.draws.p.like(x.p) // 2
        h = domain.function(name, replace(x, p=np.where(low, x.p, domain.draws.p.like(x.p) - x.p)))
        sign = np.where(x.p == 0, 0, np.where(low, 1, -1))
        p = domain.draws.p.reduce(sign * h.p)
        return replace(h, p=p, q=None if h.q is None else domain.draws.q.reduce(sign * h.q))

    return rule


def _circle(which: str) -> Rule:
    """Sine and cosine: of an angle where those are carried, and else the rational functions they are of an unknown tan(x/2)."""

    def rule(domain: ResidueDomain, eqn: Any, x: Any) -> Residues:
        if isinstance(domain.draws, Rotations):
            cosine, sine = _rotation(domain, domain.settled(x))
            above, below = cosine if which == "cos" else sine, cosine
        else:
            t = _odd("tan half")(domain, eqn, x)
            tt = domain.elementwise(Modulus.multiply, t, t)
            sine, cosine = affine(domain, t, 2, 0), affine(domain, tt, -1, 1)
            above, below = cosine if which == "cos" else sine, cosine if which == "tan" else affine(domain, tt, 1, 1)
            return multiply(domain, eqn, above, reciprocal(domain, below))
        return multiply(domain, eqn, above, reciprocal(domain, below)) if which == "tan" else above

    return rule


def _rotation(domain: ResidueDomain, x: Residues) -> list[Residues]:
    """Return cosine and sine of an angle."""
    bad, _, taint = domain.about([x], x.shape, _imitated(x))
    assert isinstance(domain.draws, Rotations)
    assert x.q is not None  # an angle
    return [Residues(p, domain.hashed("circle", p)[1], bad, None, taint) for p in domain.draws.rotation(x.q)]


def _uninterpreted(name: str) -> Rule:
    return lambda domain, eqn, *operands: domain.function(name, *operands)


def _partial(rule: Rule) -> Rule:
    """A function that is undefined on a region, as arcsine is beyond 1."""

    def wrapped(domain: ResidueDomain, eqn: Any, *operands: Any) -> Residues:
        result = rule(domain, eqn, *operands)
        return replace(result, taint=either(np.full(result.shape, PARTIAL), result.taint))

    return wrapped


def _step(name: str) -> Rule:
    return lambda domain, eqn, *operands: domain.function(name, *operands, bits=STEP)


ARITHMETIC: dict[str, Rule] = {
    "add": add,
    "add_any": add,
    "sub": subtract,
    "neg": negative,
    "mul": multiply,
    "div": divide,
    "integer_pow": lambda domain, eqn, x: integer_power(domain, x, eqn.params["y"]),
    "square": lambda domain, eqn, x: multiply(domain, eqn, x, x),
    "pow": _power,
    "sqrt": square_root,
    "rsqrt": lambda domain, eqn, x: reciprocal(domain, square_root(domain, eqn, x)),
    "cbrt": _cube_root,
    "exp": lambda domain, eqn, x: exponential(domain, x),
    "exp2": _exp2,
    "expm1": lambda domain, eqn, x: affine(domain, exponential(domain, x), 1, -1),
    "log": logarithm,
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
"""Rules of functions of numbers."""
