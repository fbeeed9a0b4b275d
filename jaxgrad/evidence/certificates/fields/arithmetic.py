"""Sums, products, powers and roots in a finite field, entry by entry.

A rule is a function (domain, eqn, *operands) of values of
`jaxgrad.evidence.certificates.fields.values`. While all operands are known it computes with exact
fractions. A product of x with itself is not negative, 1/x is undefined where x is 0, and a root is
undefined in draws where its argument is no square.
"""

import operator
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.evidence.certificates.fields import signs
from jaxgrad.evidence.certificates.fields.domain import FieldDomain
from jaxgrad.evidence.certificates.fields.modular import Modulus
from jaxgrad.evidence.certificates.fields.rotations import Rotations
from jaxgrad.evidence.certificates.fields.values import (
    CONSTANT,
    EXP,
    PARTIAL,
    STEP,
    Exact,
    FieldValues,
    aligned,
    either,
)
from jaxgrad.jaxprs.domain import UnsupportedError, describe
from jaxgrad.jaxprs.rationals import rational, surd

Rule = Callable[..., Any]


def exactly(operation: Callable[..., Any]) -> Callable[[Rule], Rule]:
    """Compute on fractions while everything is known."""

    def decorate(rule: Rule) -> Rule:
        def wrapped(domain: FieldDomain, eqn: Any, *operands: Any) -> Any:
            if not any(isinstance(x, FieldValues) for x in operands):
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
    def rule(domain: FieldDomain, eqn: Any, a: Any, b: Any) -> FieldValues:
        a, b = aligned([domain.lift(a), domain.lift(b)])
        finite = replace(a, inf=None), replace(b, inf=None)
        result = domain.elementwise(lambda m, x, y: m.reduce(x + sign * y), *finite)
        result = replace(
            result, sign=signs.plus(a.sign, b.sign if sign == 1 else signs.negated(b.sign))
        )
        if a.inf is None and b.inf is None:
            return result
        left, right = (0 if x.inf is None else x.inf for x in (a, b))
        clash = np.broadcast_to(left * right * sign == -1, result.shape)
        inf = np.broadcast_to(np.where(left == 0, sign * right, left), result.shape).astype(np.int8)
        return replace(result, inf=inf if inf.any() else None, bad=worse(domain, result, clash))

    return rule


def worse(domain: FieldDomain, x: FieldValues, entries: np.ndarray) -> np.ndarray | None:
    """Make entries bad in all draws, or (draw, …) in some."""
    return either(x.bad, np.broadcast_to(entries, x.p.shape)) if entries.any() else x.bad


add, subtract = exactly(operator.add)(_sum(1)), exactly(operator.sub)(_sum(-1))


@exactly(operator.neg)
def negative(domain: FieldDomain, eqn: Any, x: Any) -> FieldValues:
    """Return −x."""
    x = domain.lift(x)
    result = domain.elementwise(lambda m, a: m.reduce(-a), replace(x, inf=None))
    return replace(result, inf=None if x.inf is None else -x.inf, sign=signs.negated(x.sign))


@exactly(operator.mul)
def multiply(domain: FieldDomain, eqn: Any, a: Any, b: Any) -> FieldValues:
    """Return a·b; a number times itself is not negative."""
    a, b = aligned([domain.settled(a), domain.settled(b)])
    result = domain.elementwise(Modulus.multiply, a, b)
    sign = signs.square(a.sign, a.shape) if a.p is b.p else signs.times(a.sign, b.sign)
    return replace(result, sign=sign)


def reciprocal(domain: FieldDomain, x: Any) -> FieldValues:
    """Return 1/x, bad where x is 0."""
    x = domain.settled(x)
    zero = (x.p == 0) if x.q is None else (x.p == 0) | (x.q == 0)
    result = domain.elementwise(Modulus.inverse, x)
    vanishes = domain.may_vanish(x) | (zero if x.bad is None else zero & ~x.bad).any(0)
    if vanishes.any():
        result = replace(
            result, taint=either(result.taint, np.where(vanishes, PARTIAL, np.uint64(0)))
        )
    return replace(result, bad=worse(domain, result, zero), sign=x.sign)


@exactly(operator.truediv)
def divide(domain: FieldDomain, eqn: Any, a: Any, b: Any) -> Any:
    """Return a/b; of integers it is a step."""
    if not jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.inexact):
        return domain.function("integer division", a, b, bits=STEP)
    b = domain.lift(b)
    if b.inf is not None:
        raise UnsupportedError(f"{describe(eqn)} divides by infinity")
    return multiply(domain, eqn, a, reciprocal(domain, b))


def integer_power(domain: FieldDomain, x: Any, n: int) -> Any:
    """Return xⁿ."""
    if isinstance(x, Exact) and all(
        isinstance(e, Fraction) and (e or n >= 0) for e in x.array.flat
    ):
        return Exact(np.asarray(np.frompyfunc(lambda e: e**n, 1, 1)(x.array), object), x.meant)
    x = domain.settled(x)
    result = domain.elementwise(
        lambda m, a: m.power(a, abs(n)), x if n >= 0 else reciprocal(domain, x)
    )
    return replace(result, sign=signs.power(x.sign, n, x.shape))


def _power(domain: FieldDomain, eqn: Any, x: Any, y: Any) -> Any:
    """x^y: by squaring for known integers y, and as exp(y·log x) of positive x otherwise."""
    if isinstance(y, np.ndarray):
        y = Exact(np.asarray(np.frompyfunc(lambda n: Fraction(int(n)), 1, 1)(y), object))
    if isinstance(y, Exact):
        exponents = set(y.array.flat)
        if len(exponents) == 1 and all(
            isinstance(e, Fraction) and e.denominator == 1 for e in exponents
        ):
            result = integer_power(domain, x, int(exponents.pop()))
            shape = eqn.outvars[0].aval.shape
            return (
                result
                if result.shape == shape
                else domain.rearrange([result], np.zeros(shape, int))
            )
    x, y = aligned([domain.settled(x), domain.settled(y)])
    return _positive_power(domain, eqn, x, y, 0 if isinstance(y, Exact) else EXP)


def _positive_power(
    domain: FieldDomain, eqn: Any, x: FieldValues, y: FieldValues, bits: Any
) -> FieldValues:
    if isinstance(domain.draws, Rotations):
        result = domain.function("power", x, y)
        return replace(result, taint=either(result.taint, np.full(result.shape, PARTIAL)))
    assert y.q is not None  # a program with powers has numbers modulo q
    p = domain.draws.p.power(x.p, y.q)
    base = x.map(lambda v: np.broadcast_to(v, (len(v), *p.shape[1:])))
    positive = domain.draws.positive(base.p)
    bad, _, taint = domain.about([base, y], base.shape, np.uint64(bits))
    taint = domain.condition("power", base, positive) | taint
    result = FieldValues(p, domain.hashed("power", p)[1], bad, None, taint, _nonnegative(base))
    return replace(result, bad=worse(domain, result, ~positive))


def _nonnegative(x: FieldValues) -> np.ndarray:
    """Return the signs of a root of x."""
    return np.where(signs.known(x.sign, signs.NONZERO, x.shape), signs.POSITIVE, signs.NONNEGATIVE)


def square_root(domain: FieldDomain, eqn: Any, x: Any) -> FieldValues:
    """Return the positive root, bad in draws where x is not positive; its sign is a coin."""
    constant = isinstance(x, Exact)
    x = domain.settled(x)
    root, ok = domain.draws.p.root(x.p)
    if constant:  # √2 has numbers modulo q too
        q, exists = (None, ok) if x.q is None else domain.draws.q.root(x.q)
        result = replace(x, p=root, q=q, taint=np.full(x.shape, CONSTANT), sign=_nonnegative(x))
        return replace(result, bad=worse(domain, result, ~(ok & exists)))
    taint = domain.condition("root", x, ok)
    result = FieldValues(root, domain.hashed("sqrt", root)[1], x.bad, None, taint, _nonnegative(x))
    return replace(result, bad=worse(domain, result, ~ok))


def _of_number(function: Callable[..., Any], rule: Rule) -> Rule:
    """Take a function of a written number, as sqrt(2/π), for the constant that it is."""

    def wrapped(domain: FieldDomain, eqn: Any, x: Any) -> Any:
        literal = eqn.invars[0].val if isinstance(eqn.invars[0], core.Literal) else 0
        if (
            np.ndim(literal) == 0
            and literal > 0
            and surd(float(literal))
            and not rational(float(literal))[1]
        ):
            return domain.constant(np.asarray(function(np.float64(literal))))
        return rule(domain, eqn, x)

    return wrapped


def _cube_root(domain: FieldDomain, eqn: Any, x: Any) -> FieldValues:
    x = domain.settled(x)
    third = np.array([pow(3, -1, int(p) - 1) for p in domain.draws.p.of])
    root = domain.draws.p.power(x.p, third.reshape(domain.draws.p.like(x.p).shape))
    bad, _, taint = domain.about([x], x.shape, EXP)
    return FieldValues(root, domain.hashed("cbrt", root)[1], bad, None, taint, x.sign)


def affine(domain: FieldDomain, x: Any, scale: int, shift: int) -> FieldValues:
    """Return scale·x + shift."""
    x = domain.settled(x)
    result = domain.elementwise(lambda m, a: m.reduce(scale * a + shift), x)
    signed = signs.of(np.array([scale, shift], object))
    return replace(result, sign=signs.plus(signs.times(x.sign, signed[0]), signed[1]))


def _polynomial(domain: FieldDomain, eqn: Any, x: Any, *coefficients: Any) -> Any:
    """Return a₀ + x(a₁ + x(a₂ + …))."""
    *lower, total = coefficients
    for a in lower[::-1]:
        total = add(domain, eqn, a, multiply(domain, eqn, x, total))
    return total


ARITHMETIC: dict[str, Rule] = {
    "add": add,
    "add_any": add,
    "sub": subtract,
    "neg": negative,
    "mul": multiply,
    "div": divide,
    "integer_pow": lambda domain, eqn, x: integer_power(domain, x, eqn.params["y"]),
    "square": lambda domain, eqn, x: multiply(domain, eqn, x, x),
    "one_minus_square": lambda domain, eqn, x: affine(domain, multiply(domain, eqn, x, x), -1, 1),
    "polynomial": _polynomial,
    "pow": _power,
    "sqrt": _of_number(np.sqrt, square_root),
    "rsqrt": _of_number(
        lambda x: 1 / np.sqrt(x),
        lambda domain, eqn, x: reciprocal(domain, square_root(domain, eqn, x)),
    ),
    "cbrt": _cube_root,
}
"""Rules of sums, products, powers and roots."""
