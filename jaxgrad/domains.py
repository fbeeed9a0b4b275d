"""Where the inputs of a claim live, and how one is drawn from each place.

Every named domain is a function ``(generator, shape) -> numpy array``. The default is signed: a rule that is right only for
positive numbers must not pass because nobody drew another. Numpy draws, because a claim is checked at many shapes and
compiling a generator for each would take longer than the check.

`special` draws from the corners of a domain instead, where rules break: exact zeros, ties, small integers.
"""

from collections.abc import Callable, Sequence

import numpy as np

Draw = Callable[[np.random.Generator, Sequence[int]], np.ndarray]


def _real(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    return rng.standard_normal(shape)


def _positive(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    return np.exp(rng.standard_normal(shape))


def _probability(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    return rng.uniform(0.05, 0.95, shape)


def _binary(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    return rng.integers(0, 2, shape).astype(float)


def _integer(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    return rng.integers(-4, 5, shape)


def _simplex(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    if not shape:
        raise ValueError("`domains`: a simplex needs at least one axis, but the shape is that of a scalar")
    weights = np.exp(rng.standard_normal(shape))
    return weights / weights.sum(axis=-1, keepdims=True)


def _spd(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    _check_square(shape, "spd")
    a = rng.standard_normal(shape)
    return a @ np.swapaxes(a, -1, -2) / shape[-1] + 0.5 * np.eye(shape[-1])


def _orthogonal(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    _check_square(shape, "orthogonal")
    q, r = np.linalg.qr(rng.standard_normal(shape))
    return q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :]


def _check_square(shape: Sequence[int], domain: str) -> None:
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ValueError(f"`domains`: {domain!r} needs a square matrix such as 'n n', but the shape is {tuple(shape)}")


DOMAINS: dict[str, Draw] = {
    "real": _real,
    "positive": _positive,
    "probability": _probability,
    "spd": _spd,
    "binary": _binary,
    "integer": _integer,
    "simplex": _simplex,
    "orthogonal": _orthogonal,
}
"""The named domains; "real" is standard normal, "positive" log-normal, "integer" uniform on −4 … 4."""


def _lattice(values: Sequence[float], extra: float | None = None) -> Draw:
    """Draw from a few values, with a tie between two entries and, if given, at least one entry of the value `extra`."""

    def draw(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
        flat = rng.choice(np.asarray(values), int(np.prod(shape, dtype=int)))
        places = rng.permutation(flat.size)
        if flat.size > 2:
            flat[places[1]] = flat[places[2]]
        if extra is not None and flat.size:
            flat[places[0]] = extra
        return flat.reshape(shape)

    return draw


SPECIAL: dict[str, Draw] = {
    "real": _lattice([-2.0, -1.0, 0.0, 1.0, 2.0], 0.0),
    "positive": _lattice([1.0, 2.0, 3.0]),
    "probability": _lattice([0.25, 0.5, 0.75]),
}
"""Draws from the corners of a domain: small integers, so that zeros and ties occur."""
