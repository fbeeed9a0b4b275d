"""Where the inputs of a claim live, and how one is drawn from each place.

Every named domain is a function ``(generator, shape) -> numpy array``; "index n" has the size n as
well. The default is signed: a rule that is right only for positive numbers must not pass because
nobody drew another. Numpy draws, because a claim is checked at many shapes and compiling a
generator for each would take longer than the check.

`special` draws from the corners of a domain instead, where rules break: exact zeros, ties, small
integers.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from jaxgrad.claims import shapes

Draw = Callable[[np.random.Generator, Sequence[int]], np.ndarray]

DISCRETE = ("binary", "sign", "one_hot", "integer", "index")
"""Domains of isolated points: what holds at almost all real numbers may hold at none of them."""
WHOLE = ("integer", "index")
"""Domains of arrays of an integer type."""


def _real(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    return rng.standard_normal(shape)


def _positive(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    return np.exp(rng.standard_normal(shape))


def _probability(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    return rng.uniform(0.05, 0.95, shape)


def _binary(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    return rng.integers(0, 2, shape).astype(float)


def _sign(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    return 2.0 * rng.integers(0, 2, shape) - 1


def _one_hot(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    if not shape:
        raise ValueError(
            "`domains`: 'one_hot' needs at least one axis, but the shape is that of a scalar"
        )
    return np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])]


def _integer(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    return rng.integers(-4, 5, shape)


def _simplex(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    if not shape:
        raise ValueError(
            "`domains`: a simplex needs at least one axis, but the shape is that of a scalar"
        )
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
        raise ValueError(
            f"`domains`: {domain!r} needs a square matrix such as 'n n', but the shape is "
            f"{tuple(shape)}"
        )


DOMAINS: dict[str, Draw] = {
    "real": _real,
    "positive": _positive,
    "probability": _probability,
    "spd": _spd,
    "binary": _binary,
    "sign": _sign,
    "one_hot": _one_hot,
    "integer": _integer,
    "simplex": _simplex,
    "orthogonal": _orthogonal,
}
"""The named domains, beside "index n", which is 0 … n − 1 for any dimension n of `shapes`.

"real" is standard normal, "positive" log-normal, "integer" uniform on −4 … 4, "sign" −1 or 1.
"""


def _lattice(values: Sequence[float], extra: float | None = None) -> Draw:
    """Draw from a few values, with a tie between two entries, and at least one `extra`."""

    def draw(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
        flat = rng.choice(np.asarray(values), int(np.prod(shape, dtype=int)))
        places = rng.permutation(flat.size)
        if flat.size > 2:
            flat[places[1]] = flat[places[2]]
        if extra is not None and (
            flat.size > 1 or rng.random() < 0.25
        ):  # where there is but one entry, it is not always the same
            flat[places[:1]] = extra
        return flat.reshape(shape)

    return draw


SPECIAL: dict[str, Draw] = {
    "real": _lattice([-2.0, -1.0, 0.0, 1.0, 2.0], 0.0),
    "positive": _lattice([1.0, 2.0, 3.0]),
    "probability": _lattice([0.01, 0.25, 0.5, 0.75, 0.99]),
    "integer": _lattice([-4.0, -1.0, 0.0, 1.0, 4.0], 0.0),
}
"""Draws from the corners of a domain: small integers, so that zeros and ties occur."""


def kind(domain: Any) -> str:
    """Return a domain's name without its size; "function" of a function.

    >>> kind("index n"), kind("real")
    ('index', 'real')
    """
    return "function" if callable(domain) else str(domain).split(" ")[0]


def is_known(domain: Any, sizes: Collection[str]) -> bool:
    """Say whether a domain has a name, and an index a range, of a number or of these sizes.

    >>> (
    ...     is_known("one_hot", "mn"),
    ...     is_known("index 2*n", "mn"),
    ...     is_known("index k", "mn"),
    ...     is_known("index", "mn"),
    ... )
    (True, True, False, False)
    """
    if not isinstance(domain, str) or kind(domain) != "index":
        return isinstance(domain, str) and domain in DOMAINS
    try:
        (dim,) = shapes.parse(domain.removeprefix("index"), "domain")
    except ValueError:
        return False
    return all(factor.isdigit() or factor in sizes for factor in dim)


def end_of_index(domain: str, sizes: Mapping[str, int]) -> int:
    """Return n of "index n".

    >>> end_of_index("index 2*n", {"n": 3})
    6
    """
    return shapes.size_of(shapes.parse(domain.removeprefix("index"), "domain")[0], sizes)


def draw_from(
    domain: str,
    rng: np.random.Generator,
    shape: Sequence[int],
    sizes: Mapping[str, int],
    *,
    special: bool = False,
) -> np.ndarray:
    """Draw from a named domain, or with `special` from its corners.

    >>> draw_from("index n", np.random.default_rng(0), (6,), {"n": 3})
    array([2, 1, 1, 0, 0, 0])
    """
    if kind(domain) == "index":
        end = end_of_index(domain, sizes)
        return _lattice([0, end - 1])(rng, shape) if special else rng.integers(0, end, shape)
    return (SPECIAL if special and domain in SPECIAL else DOMAINS)[domain](rng, shape)


def count(domain: Any, shape: Sequence[int], sizes: Mapping[str, int]) -> tuple[int, int] | None:
    """Return (values of a cell, number of cells) of an array; None if not known or not finite.

    >>> (
    ...     count("binary", (2, 3), {}),
    ...     count("one_hot", (2, 3), {}),
    ...     count("index n", (4,), {"n": 3}),
    ...     count("real", (2,), {}),
    ... )
    ((2, 6), (3, 2), (3, 4), None)
    """
    cells = int(np.prod(shape, dtype=int))
    match kind(domain):
        case "binary" | "sign":
            return 2, cells
        case "one_hot":
            return shape[-1], cells // shape[-1]
        case "index":
            return end_of_index(domain, sizes), cells
    return None


def decode(domain: Any, digits: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the arrays that `count` counts: one of this shape for each row of digits.

    >>> (
    ...     decode("sign", np.array([[0, 1]]), (2,)).tolist(),
    ...     decode("one_hot", np.array([[2]]), (3,)).tolist(),
    ... )
    ([[-1.0, 1.0]], [[0.0, 0.0, 1.0]])
    """
    match kind(domain):
        case "sign":
            digits = 2.0 * digits - 1
        case "binary":
            digits = digits.astype(float)
        case "one_hot":
            digits = np.eye(shape[-1])[digits]
    return digits.reshape(len(digits), *shape)
