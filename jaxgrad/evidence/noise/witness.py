"""What two functions do in floating point at random points: a witness beside every proof.

No certificate may contradict it. What rounding explains is told by random rounding
(`jaxgrad.evidence.noise.random_rounding`): how far a result moves when every input and every
intermediate value is moved by a few units in the last place of its type. So (x + 1e20) − 1e20 is
not taken for 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.evidence.noise.low_precision_constants import (
    DOUBLE,
    constant_unit,
    explained,
    with_moved_constants,
)
from jaxgrad.evidence.noise.rounding import GAP
from jaxgrad.jaxprs.cost import estimate, size
from jaxgrad.jaxprs.joint import Traced
from jaxgrad.jaxprs.numpy_run import EXACT, FAILURES, Floats, Ranges
from jaxgrad.jaxprs.walker import walk

_SCALES = (
    1.0,
    1.0,
    3.0,
    -1.0,
    -0.3,
)  # negative: positive entries only, where roots and logarithms are defined
_DOMAIN_SCALES = (0.1, 1.0, 1.0, 3.0, 10.0) * 10 + (30.0, 100.0, 1000.0) * 10
_MODERATE = 10.0
_LARGEST, _LONGEST = 2**24, 2**31
_CLEAR = 1e-6
_NOISY = 3
_UNITS = 16


def _is_exact(eqn: core.JaxprEqn) -> bool:
    return eqn.primitive.name in EXACT and eqn.primitive.name not in (
        "convert_element_type",
        "reduce_precision",
    )


def moved(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Move floating-point numbers at random by some units in the last place of their type."""
    unit = _UNITS * float(jnp.finfo(x.dtype).eps)
    return np.asarray(x * (1 + unit * rng.uniform(-1, 1, x.shape)).astype(x.dtype), x.dtype)


@dataclass(frozen=True)
class _Point:
    """Inputs of a program, and f and g there."""

    inputs: list[np.ndarray]
    pairs: list[tuple[np.ndarray, np.ndarray]]


class Observation:
    """What was seen of each output at a few random points, entry by entry.

    Attributes:
        undefined: at some point one of f and g is NaN or infinite and the other is not.
        finite: at some point both are finite.
        values: f and g at the first point.
    """

    def __init__(self, traced: Traced, seed: int, points: Sequence[_Point]) -> None:
        """Look at f and g at some points; measure their rounding only where that matters."""
        self._traced, self._seed, self._points = traced, seed, points
        self._noises: dict[int, list[_Noise]] = {}
        self.values = tuple(points[0].pairs)
        each = [[(np.isfinite(f), np.isfinite(g)) for f, g in point.pairs] for point in points]
        self.undefined = tuple(
            np.logical_or.reduce([f ^ g for f, g in seen]) for seen in zip(*each, strict=True)
        )
        self.finite = tuple(
            np.logical_or.reduce([f & g for f, g in seen]) for seen in zip(*each, strict=True)
        )

    @cached_property
    def differs(self) -> tuple[np.ndarray, ...]:
        """At some point f and g are finite and far further apart than rounding explains."""
        return self._further(0)

    @cached_property
    def visible(self) -> tuple[np.ndarray, ...]:
        """At some point they are further apart than rounding explains."""
        return self._further(1)

    def _further(self, which: int) -> tuple[np.ndarray, ...]:
        found = [np.zeros(shape, bool) for shape in self._traced.shapes]
        for i, point in enumerate(self._points):
            exact = [_apart(f, g)[which] for f, g in point.pairs]
            if not any(a.any() for a in exact):  # rounding explains at least so much
                continue
            if i not in self._noises:
                rng = np.random.default_rng([self._seed, 3, i])
                try:
                    self._noises[i] = _noise(self._traced, point.inputs, point.pairs, rng)
                except FAILURES:
                    self._noises[i] = [
                        _Noise(*(np.full(shape, np.inf),) * 2) for shape in self._traced.shapes
                    ]
            for mask, (f, g), noise_of in zip(found, point.pairs, self._noises[i], strict=True):
                mask |= _apart(f, g, noise_of)[which]
        return tuple(found)


def observe(traced: Traced, seed: int) -> Observation | None:
    """Evaluate f and g in float64 at random points; None where that is not possible."""
    if size(traced.program.jaxpr) > _LARGEST or estimate(traced.program.jaxpr, 1) > _LONGEST:
        return None
    rng = np.random.default_rng([seed, 1])
    points = []
    for scale in _SCALES:
        inputs = _draw(rng, traced, scale)
        try:
            points.append(_Point(inputs, _evaluate(traced.program, inputs, Floats())))
        except FAILURES:
            return None
    return Observation(traced, seed, points)


def same_domain(traced: Traced, seed: int) -> bool:
    """Say whether f and g are undefined together at many random points, and equal elsewhere.

    Large points at which something overflows tell nothing.
    """
    rng = np.random.default_rng([seed, 2])
    for scale in _DOMAIN_SCALES:
        inputs = _draw(rng, traced, scale)
        try:
            pairs = _evaluate(traced.program, inputs, ranges := Ranges())
            if ranges.overflows and scale > _MODERATE:
                continue
            if any((np.isnan(f) != np.isnan(g)).any() for f, g in pairs):
                return False
            if any(_apart(f, g)[0].any() for f, g in pairs):
                noise = _noise(traced, inputs, pairs, rng)
                if any(
                    _apart(f, g, noise_of)[0].any()
                    for (f, g), noise_of in zip(pairs, noise, strict=True)
                ):
                    return False
        except FAILURES:
            return False
    return True


def _draw(rng: np.random.Generator, traced: Traced, scale: float) -> list[np.ndarray]:
    inputs = []
    for v, value in zip(traced.program.jaxpr.invars, traced.values, strict=True):
        x = value if value is not None else np.asarray(scale * rng.standard_normal(v.aval.shape))
        inputs.append(x if value is not None or scale > 0 else np.asarray(np.abs(x)))
    return inputs


def _evaluate(
    program: core.ClosedJaxpr, inputs: Sequence[np.ndarray], floats: Floats
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the outputs of f and g in pairs."""
    outputs = [_real(x) for x in walk(program, inputs, floats)]
    half = len(outputs) // 2
    return list(zip(outputs[:half], outputs[half:], strict=True))


def _real(x: Any) -> np.ndarray:
    if np.iscomplexobj(x):
        raise TypeError("complex numbers are not compared")
    return np.asarray(x, float)


class _Noise(NamedTuple):
    """How far f and g move under random rounding, and how far constants may set them apart."""

    move: np.ndarray
    constants: np.ndarray


def _noise(
    traced: Traced,
    inputs: Sequence[np.ndarray],
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    rng: np.random.Generator,
) -> list[_Noise]:
    """Measure the noise of each output.

    In one run the inputs alone are moved: an exponent that is 2 stays 2, where any other would be
    undefined.
    """

    def rounded(eqn: core.JaxprEqn, value: np.ndarray) -> np.ndarray:
        return value if _is_exact(eqn) else moved(rng, value)

    runs = []
    for floats in (*(Floats(rounded),) * _NOISY, Floats()):
        nearby = [
            x if v is not None else moved(rng, np.asarray(x))
            for x, v in zip(inputs, traced.values, strict=True)
        ]
        runs.append(_evaluate(traced.program, nearby, floats))

    def move(i: int, j: int) -> np.ndarray:
        moves = np.abs(np.stack([run[i][j] for run in runs]) - pairs[i][j])
        return np.where(np.isfinite(moves), moves, 0).max(0)

    unit = constant_unit(traced.program)
    others = with_moved_constants(traced.program, unit) if unit > DOUBLE else []
    with np.errstate(all="ignore"):
        gaps = [[f - g for f, g in _evaluate(program, inputs, Floats())] for program in others]
        constants = [
            explained([gap[i] for gap in gaps], f - g, unit) for i, (f, g) in enumerate(pairs)
        ]
        return [_Noise(move(i, 0) + move(i, 1), GAP * constants[i]) for i in range(len(pairs))]


def _apart(
    f: np.ndarray, g: np.ndarray, noise: _Noise | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Say where f and g are far further apart than rounding explains, and where further."""
    with np.errstate(all="ignore"):
        gap, size = np.abs(f - g), np.maximum(np.abs(f), np.abs(g))
        move = 1e-15 * size + (0.0 if noise is None else noise.move)
        both = np.isfinite(f) & np.isfinite(g) & (gap > (0.0 if noise is None else noise.constants))
        return both & (gap > _CLEAR * size) & (gap > 1e4 * move), both & (gap > 30 * move)
