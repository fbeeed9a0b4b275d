"""Low-precision constants, float32 and below, and what their rounding does to a claim.

Data that a function closes over are numbers of their type, exact as they stand. But what was
computed of them beforehand, in that type, is rounded: a Gram matrix beside the data, rows that sum
to 1, a rotation. A right claim may rest on what holds only up to that. So where the two sides of a
claim differ, all such constants are moved by one unit in their last place, the same number alike
wherever it stands, on both sides and at other powers of 2, and it is measured how far the
difference moves. Of 2 Xᵀ(Xw) beside 2.1 Xᵀ(Xw) it moves little, whatever X is: that difference is
real.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.evidence.noise.rounding import GAP
from jaxgrad.evidence.problem import Problem, labelled
from jaxgrad.jaxprs.hashing import scramble
from jaxgrad.jaxprs.programs import constants, has_rule
from jaxgrad.jaxprs.rationals import is_single, rational, surd
from jaxgrad.jaxprs.traced import Traceable
from jaxgrad.jaxprs.versions import opened, replaced
from jaxgrad.runtime.compiled import evaluated
from jaxgrad.runtime.options import check_options

RUNS = 6
"""So many times all constants are moved."""
EXPLAINED = 2.0
"""So many times the move is explained by the constants' rounding; what lies beyond GAP times that
is not.
"""
LARGEST = 0.3
"""Nothing that moves by its part is explained where it is larger than this part of a gradient,
however coarse the type is.
"""

DOUBLE = float(np.finfo(np.float64).eps)
_SINGLE = float(np.finfo(np.float32).eps)
_BITS, _FEW_BITS = 16, 4
"""Numbers of so many bits were not rounded to float32, and not to a type of 16 bits."""
_HALVES = {8: 2.0**-7, 11: 2.0**-10}
"""The significand's bits of the types of 16 bits, and their unit roundoff."""
_FEW = 1000
"""Arrays of more numbers than this were computed, or are data."""
_DIGITS = 7
"""Nobody writes a number of a type of 16 bits with more decimal digits than this."""
_COUNTS, _WHOLE = 64.0, 5
"""Whole numbers below the first, or so many bits below a type's precision, are counts."""
_SIMPLE = 9
"""A fraction p/q is written where p·q has so many bits more than half a type's precision."""


def constant_unit(*programs: core.ClosedJaxpr) -> float:
    """Return the unit roundoff of the lowest precision in which constants were computed.

    A constant shows its type where it has that type, and more digits than a few; a number shows
    that it was one of a narrow type.

    >>> data = np.float32([0.1, 0.2])
    >>> constant_unit(jax.make_jaxpr(lambda x: data * x)(data))
    1.1920928955078125e-07
    """
    return max(
        [
            DOUBLE,
            *(_unit_shown(x) for program in programs for x in constants(program) if _is_float(x)),
        ]
    )


def _is_float(constant: Any) -> bool:
    return isinstance(constant, float) or jnp.issubdtype(
        getattr(constant, "dtype", np.dtype(int)), np.floating
    )


def _unit_shown(constant: Any) -> float:
    info, values = (
        jnp.finfo(getattr(constant, "dtype", np.float64)),
        np.asarray(constant).astype(np.float64),
    )
    if info.bits < 64:
        return float(info.eps) if np.any(~_has_few_bits(values, float(info.eps))) else 0.0
    if values.size != 1:
        return 0.0
    value = float(values.ravel()[0])
    if is_single(value):
        return _SINGLE
    shown = [
        unit
        for bits, unit in _HALVES.items()
        if _fits(value, bits) and not _has_few_bits(values, unit).all()
    ]
    return max(shown, default=0.0) if float(f"{value:.{_DIGITS}g}") != value else 0.0


def _fits(value: float, bits: int) -> bool:
    return float(np.frexp(value)[0] * 2**bits).is_integer()


def _has_few_bits(values: np.ndarray, unit: float) -> np.ndarray:
    """Say which numbers have so few bits that they were hardly rounded; NaN and ∞ count too."""
    significands = np.frexp(values)[0] * 2.0 ** (_BITS if unit <= _SINGLE else _FEW_BITS)
    return ~np.isfinite(significands) | (significands == np.round(significands))


def _is_written(value: float, unit: float) -> bool:
    """Say whether a float64 is one that people write, as 50 and 0.04, and not a computed one."""
    if value.is_integer() and abs(value) < max(_COUNTS, 2.0**-_WHOLE / unit):
        return True
    fraction, meant = rational(value)
    simple = meant and abs(fraction.numerator * fraction.denominator) < 2.0**_SIMPLE / np.sqrt(unit)
    low_precision = (
        any(_fits(value, bits) for bits in _HALVES) if unit > _SINGLE else is_single(value)
    )
    return not low_precision and (simple or surd(value) is not None)


def moved(constant: Any, unit: float, number: int) -> Any:
    """Return a constant whose numbers move by one unit in the last place, up or down by a hash.

    >>> moved(np.float32([0.1, 0.5, -0.2]), 2.0**-23, 1) - np.float32([0.1, 0.5, -0.2])
    array([ 7.4505806e-09,  0.0000000e+00, -1.4901161e-08], dtype=float32)
    """
    dtype = getattr(constant, "dtype", np.dtype(np.float64))
    values = np.asarray(constant).astype(np.float64)
    still = _has_few_bits(values, unit)
    if dtype == np.float64 and values.size <= _FEW:
        still |= np.array(
            [np.isfinite(x) and _is_written(float(x), unit) for x in values.ravel()], bool
        ).reshape(values.shape)
    significands, exponents = np.frexp(np.abs(values))
    words = scramble(
        np.ascontiguousarray(significands).view(np.uint64) ^ np.uint64(number * 0x9E3779B9)
    )
    steps = (
        np.where(words >> np.uint64(63), 1.0, -1.0).reshape(values.shape)
        * np.sign(values)
        * np.ldexp(unit, exponents - 1)
    )
    return np.where(still, values, values + np.where(still, 0.0, steps)).astype(dtype)


def with_moved_constants(program: core.ClosedJaxpr, unit: float) -> list[core.ClosedJaxpr]:
    """Return a program with its constants moved by one unit in their last place, in RUNS ways."""
    return [_MovedConstants(unit, number).of(program) for number in range(1, RUNS + 1)]


@dataclass(frozen=True, eq=False)
class _WithMovedConstants(Traceable):
    """A function whose constants are moved; it is not traced anew."""

    function: Traceable
    unit: float
    number: int

    def program(self, *args: Any, **named: Any) -> tuple[core.ClosedJaxpr, Any]:
        """Return the program for such arguments, and its result with shapes in place of arrays."""
        closed, shape = self.function.program(*args, **named)
        return (
            _MovedConstants(self.unit, self.number).of(closed) if self.number else closed
        ), shape


@dataclass(frozen=True)
class _MovedConstants:
    """One of several ways to move constants by a unit roundoff."""

    unit: float
    number: int

    def of(self, part: Any) -> Any:
        """Return a program, or any parameter of an equation, with its constants moved."""
        if type(part) in (tuple, list):
            return type(part)(map(self.of, part))
        if not isinstance(part, (core.Jaxpr, core.ClosedJaxpr)):
            return part
        jaxpr, consts = opened(part)
        eqns = [
            eqn.replace(
                invars=list(map(self._atom, eqn.invars)),
                params=eqn.params
                if has_rule(eqn)
                else {k: self.of(v) for k, v in eqn.params.items()},
            )
            for eqn in jaxpr.eqns
        ]
        moved = replaced(jaxpr, eqns=eqns, outvars=list(map(self._atom, jaxpr.outvars)))
        if not isinstance(part, core.ClosedJaxpr):
            return moved
        return core.ClosedJaxpr(moved, list(map(self._constant, consts)))

    def _atom(self, atom: Any) -> Any:
        return (
            type(atom)(self._constant(atom.val), atom.aval)
            if isinstance(atom, core.Literal)
            else atom
        )

    def _constant(self, constant: Any) -> Any:
        if not _is_float(constant):
            return constant
        found = moved(constant, self.unit, self.number)
        return float(found) if isinstance(constant, float) else found


def explained(moved: Sequence[np.ndarray], plain: np.ndarray, unit: float) -> np.ndarray:
    """Return how large a difference the rounding of constants explains, entry by entry.

    The difference is `plain`, and `moved` in runs with moved constants.
    """
    if not len(moved) or not plain.size:
        return np.zeros(plain.shape)
    with np.errstate(invalid="ignore", over="ignore"):
        moves = np.abs(np.stack(moved) - plain)
        moves = np.maximum(moves.max(axis=0), np.sqrt(np.mean(np.square(moves))))
    return min(EXPLAINED, LARGEST / (GAP * unit)) * np.nan_to_num(moves, nan=np.inf)


def explained_by_constants(
    problem: Problem, sizes: Mapping[str, int], loss: Traceable, draw: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Return {label: how far constants' rounding may set closed form and gradient apart}.

    Args:
        problem: the claim.
        sizes: the sizes of the draw.
        loss: the loss, or its expectation, as a function of the inputs.
        draw: the inputs.
    """
    claimed = problem.closed_form(sizes)
    program, shape = claimed.program(draw)
    unit = constant_unit(program, loss.program(draw)[0])
    if unit <= DOUBLE:
        return {label: np.zeros(array.shape) for label, array in labelled(shape).items()}
    runs = [
        _difference(
            problem, _WithMovedConstants(claimed, unit, n), _WithMovedConstants(loss, unit, n), draw
        )
        for n in range(RUNS + 1)
    ]
    return {
        label: explained([run[label] for run in runs[1:]], plain, unit)
        for label, plain in runs[0].items()
    }


def _difference(
    problem: Problem, claimed: Traceable, loss: Traceable, draw: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Return closed form less gradient."""

    def at_draw(function: Traceable) -> Any:
        program, shape = function.program(draw)
        return jax.tree.unflatten(
            jax.tree.structure(shape), evaluated(program, jax.tree.leaves(draw), check_options())
        )

    ours, theirs = labelled(at_draw(claimed)), labelled(at_draw(problem.differentiated(loss))[1])
    return {
        label: np.asarray(array, np.float64) - np.asarray(theirs[label], np.float64)
        for label, array in ours.items()
    }
