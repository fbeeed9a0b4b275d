"""Whether the user's data lie in the domains that a claim declares."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxgrad.claims.domains import end_of_index, kind

_ROUNDING = 1e-4
"""Relative error to which data in float32, or from a file, satisfy equations."""


def _symmetric(x: np.ndarray) -> np.ndarray:
    size = np.abs(x).max(axis=(-1, -2), keepdims=True, initial=0)
    return np.abs(x - x.swapaxes(-1, -2)) <= _ROUNDING * size


def _definite(x: np.ndarray) -> np.ndarray:
    return np.linalg.eigvalsh(x) > 0


def _orthonormal(x: np.ndarray) -> np.ndarray:
    return np.abs(x @ x.swapaxes(-1, -2) - np.eye(x.shape[-1])) <= _ROUNDING * x.shape[-1]


_CONDITIONS: dict[str, tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...]] = {
    "positive": (("greater than 0", lambda x: x > 0),),
    "probability": (("between 0 and 1", lambda x: (x >= 0) & (x <= 1)),),
    "binary": (("0 or 1", lambda x: (x == 0) | (x == 1)),),
    "sign": (("−1 or 1", lambda x: np.abs(x) == 1),),
    "one_hot": (
        ("0 or 1", lambda x: (x == 0) | (x == 1)),
        ("1 at one place along the last axis", lambda x: x.sum(-1, keepdims=True) == 1),
    ),
    "integer": (("a whole number", lambda x: x == np.round(x)),),
    "simplex": (
        ("at least 0", lambda x: x >= 0),
        (
            "of sum 1 along the last axis",
            lambda x: np.abs(x.sum(-1, keepdims=True) - 1) <= _ROUNDING,
        ),
    ),
    "spd": (
        ("symmetric", _symmetric),
        ("positive definite, with eigenvalues greater than 0", _definite),
    ),
    "orthogonal": (("orthogonal, with rows of length 1 at right angles", _orthonormal),),
}


def _conditions(
    name: str, domain: Any, sizes: Mapping[str, int]
) -> tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...]:
    if kind(domain) != "index":
        return _CONDITIONS.get(domain, ()) if isinstance(domain, str) else ()
    try:
        end = end_of_index(domain, sizes)
    except KeyError as error:
        size = error.args[0]
        raise ValueError(
            f"`inputs`: {name!r} has the domain {domain!r}, but the size {size} is unknown; pass "
            f"sizes={{{size!r}: …}}, or an array that has this size"
        ) from None
    return (
        ("a whole number", lambda x: x == np.round(x)),
        (f"from 0 to {end - 1}", lambda x: (x >= 0) & (x < end)),
    )


def check_domains(
    domains: Mapping[str, Any], given: Mapping[str, Any], sizes: Mapping[str, int] | None = None
) -> None:
    """Refuse data outside of the domain that a claim declares for them.

    Args:
        domains: {input name: domain}, as of a `jaxgrad.Derivation`.
        given: {input name: array or tree of arrays}.
        sizes: the sizes that are known, of which an index needs one.

    Raises:
        ValueError: that names the input, the domain and the first entry outside of it.

    >>> check_domains({"x": "positive"}, {"x": np.array([1.0, -2.0])})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: `inputs`: x[1] must be greater than 0 by its domain "positive", but is -2.0; ...
    """
    for name, tree in given.items():
        domain = domains.get(name, "real")
        for array in map(np.asarray, jax.tree.leaves(tree)):
            for wanted, holds in _conditions(name, domain, sizes or {}):
                inside = holds(array)
                if inside.all():
                    continue
                index = tuple(int(i) for i in np.argwhere(~inside)[0])
                place = name
                value = ""
                if inside.shape == array.shape and domain not in ("spd", "orthogonal"):
                    place = f"{name}[{', '.join(map(str, index))}]" if index else name
                    value = f", but is {array[index]}"
                raise ValueError(
                    f'`inputs`: {place} must be {wanted} by its domain "{domain}"{value}; change '
                    f"the data or `domains`"
                )
