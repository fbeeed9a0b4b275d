"""What two functions do in floating point at random points: the witness that no certificate may contradict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.extend import core

from jaxgrad.interpreter import Domain, Rule, UnsupportedError, walk
from jaxgrad.tracing import Traced

_SCALES = (1.0, 1.0, 3.0, -1.0, -0.3)  # negative: positive entries only, where roots and logarithms are defined
_CLEAR = 1e-6


class _Floats(Domain):
    rules: Mapping[str, Rule] = {}

    def rearrange(self, operands: Sequence[np.ndarray], index: np.ndarray) -> np.ndarray:
        return np.concatenate([*(np.ravel(x) for x in operands), [np.nan]])[index]


def floating(program: core.ClosedJaxpr, args: Sequence[Any]) -> list[np.ndarray] | None:
    """Run a program in numpy, without compiling it; None where it has an operation that is only JAX's."""
    try:
        with np.errstate(all="ignore"):
            return walk(program, [np.asarray(x) for x in args], _Floats())
    except (UnsupportedError, np.linalg.LinAlgError, ValueError, TypeError):
        return None


@dataclass(frozen=True)
class Observation:
    """What was seen of each output, entry by entry.

    Attributes:
        differs: at some point f and g are finite and far further apart than rounding explains.
        visible: at some point they are further apart than rounding explains.
        undefined: at some point one is NaN or infinite and the other is not.
        finite: at some point both are finite.
        values: f and g at the first point.
    """

    differs: tuple[np.ndarray, ...]
    visible: tuple[np.ndarray, ...]
    undefined: tuple[np.ndarray, ...]
    finite: tuple[np.ndarray, ...]
    values: tuple[tuple[np.ndarray, np.ndarray], ...]


def observe(traced: Traced, seed: int) -> Observation | None:
    """Evaluate f and g in float64 at random points and look at how they differ; None where that is not possible.

    What rounding explains is told by how far either moves when the inputs move by a few units in the last place.
    """
    rng = np.random.default_rng([seed, 1])
    count = len(traced.shapes)
    flags = [[np.zeros(shape, bool) for _ in range(4)] for shape in traced.shapes]
    first = None
    for scale in _SCALES:
        inputs = [value if value is not None else _draw(rng, v.aval.shape, scale)
                  for v, value in zip(traced.program.jaxpr.invars, traced.values, strict=True)]  # fmt: skip
        runs = []
        for run in range(3):
            moved = [x if run == 0 or v is not None else x * (1 + rng.choice([-1e-15, 1e-15], x.shape))
                     for x, v in zip(inputs, traced.values, strict=True)]  # fmt: skip
            try:
                with np.errstate(all="ignore"):
                    runs.append([np.asarray(x, float) for x in walk(traced.program, moved, _Floats())])
            except (UnsupportedError, np.linalg.LinAlgError, ValueError, TypeError):
                return None
        first = first or tuple(zip(runs[0][:count], runs[0][count:], strict=True))
        for i in range(count):
            f, g = (np.stack([run[j] for run in runs]) for j in (i, i + count))
            with np.errstate(all="ignore"):
                gap, size = np.abs(f[0] - g[0]), np.maximum(np.abs(f[0]), np.abs(g[0]))
                noise = np.abs(f - f[0]).max(0) + np.abs(g - g[0]).max(0) + 1e-15 * size
                both, one = np.isfinite(f[0]) & np.isfinite(g[0]), np.isfinite(f[0]) ^ np.isfinite(g[0])
                seen = (both & (gap > _CLEAR * size) & (gap > 1e4 * noise), both & (gap > 30 * noise), one, both)
            for flag, now in zip(flags[i], seen, strict=True):
                flag |= now
    differs, visible, undefined, finite = (tuple(flag[j] for flag in flags) for j in range(4))
    return Observation(differs, visible, undefined, finite, first or ())


def same_domain(traced: Traced, seed: int) -> bool:
    """Say whether at many random points of all sizes f and g are undefined together or not at all."""
    rng = np.random.default_rng([seed, 2])
    for scale in (0.1, 1.0, 1.0, 3.0, 10.0) * 10:
        inputs = [value if value is not None else _draw(rng, v.aval.shape, scale)
                  for v, value in zip(traced.program.jaxpr.invars, traced.values, strict=True)]  # fmt: skip
        try:
            with np.errstate(all="ignore"):
                outputs = walk(traced.program, inputs, _Floats())
        except (UnsupportedError, np.linalg.LinAlgError, ValueError, TypeError):
            return False
        half = len(outputs) // 2
        if any((np.isnan(f) != np.isnan(g)).any() for f, g in zip(outputs[:half], outputs[half:], strict=True)):
            return False
    return True


def _draw(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> np.ndarray:
    x = rng.standard_normal(shape)
    return scale * x if scale > 0 else np.abs(scale * x)
