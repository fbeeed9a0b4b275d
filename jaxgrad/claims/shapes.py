"""Dimension strings: ``"m 2*k"`` is a matrix with m rows and an even number of columns.

A dimension is a product of names and numbers. Sizes are chosen so that no two different dimensions
of a claim are equal, and so that of each two names either one is once the larger: a transpose or an
m for n then changes a shape or a value.
"""

import functools
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import jax

_FACTOR = re.compile(r"[A-Za-z_]\w*|[1-9]\d*")


def parse(text: Any, argument: str) -> tuple[tuple[str, ...], ...]:
    """Split a dimension string into its dimensions, each a tuple of factors.

    >>> parse("m 2*k", "x")
    (('m',), ('2', 'k'))
    """
    if not isinstance(text, str):
        raise TypeError(
            f"`shapes`: the shape of `{argument}` must be a string such as 'm n', but is {text!r}"
        )
    return _parsed(text, argument)


@functools.cache
def _parsed(text: str, argument: str) -> tuple[tuple[str, ...], ...]:
    dims = tuple(tuple(token.split("*")) for token in text.split())
    for dim in dims:
        for factor in dim:
            if not _FACTOR.fullmatch(factor):
                raise ValueError(
                    f"`shapes`: {text!r} of `{argument}` is not a shape: each dimension must be a "
                    f"name, a positive number or a product of them without spaces, as in 'm 2*k'"
                )
    return dims


def leaves(shapes: Mapping[str, Any]) -> Iterator[tuple[str, tuple[tuple[str, ...], ...]]]:
    """Walk over all dimension strings, of nested inputs too, as (label, dimensions)."""
    for name, tree in shapes.items():
        for path, text in jax.tree_util.tree_flatten_with_path(tree)[0]:
            label = name + jax.tree_util.keystr(path)
            yield label, parse(text, label)


def names(shapes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the size names in order of appearance."""
    found = (
        factor
        for _, dims in leaves(shapes)
        for dim in dims
        for factor in dim
        if not factor.isdigit()
    )
    return tuple(dict.fromkeys(found))


def size_of(dim: Iterable[str], sizes: Mapping[str, int]) -> int:
    """Evaluate one dimension.

    >>> size_of(("2", "k"), {"k": 3})
    6
    """
    return math.prod(int(factor) if factor.isdigit() else sizes[factor] for factor in dim)


def evaluate(text: str, sizes: Mapping[str, int], argument: str = "") -> tuple[int, ...]:
    """Evaluate a dimension string.

    >>> evaluate("m 2*k", {"m": 5, "k": 3})
    (5, 6)
    """
    return tuple(size_of(dim, sizes) for dim in parse(text, argument))


def choose(
    shapes: Mapping[str, Any],
    variant: int = 0,
    fixed: Mapping[str, int] | None = None,
    small: Collection[str] = (),
) -> dict[str, int]:
    """Choose sizes for all names that `fixed` leaves open, all dimensions distinct.

    Variant 0 grows along the names, variant 1 shrinks, and later ones begin elsewhere; so each pair
    of names comes in both orders. Names in `small` get the smallest sizes of all, from 2 on,
    growing or shrinking along them.

    >>> choose({"x": "m n", "w": "p n"}, 0), choose({"x": "m n", "w": "p n"}, 1)
    ({'m': 3, 'n': 4, 'p': 5}, {'p': 2, 'n': 3, 'm': 4})
    """
    fixed = dict(fixed or {})
    every = names(shapes)
    order = [n for n in every if n not in fixed]
    if variant % 2:
        order.reverse()
    order.sort(key=lambda name: name not in small)  # stable: nothing but the small ones move
    dims = {dim for _, found in leaves(shapes) for dim in found} | {(n,) for n in every}
    sizes = dict(fixed)
    size = 2 if small else 3 - variant % 2 + variant // 2 * 2
    for name in order:
        while True:
            trial = {**sizes, name: size}
            known = [size_of(d, trial) for d in dims if all(f.isdigit() or f in trial for f in d)]
            size += 1
            if len(set(known)) == len(known) or size > 64:
                sizes = trial
                break
    return sizes


def solve(
    dims: Iterable[tuple[str, ...]], shape: tuple[int, ...], sizes: dict[str, int], argument: str
) -> None:
    """Read the sizes off an actual shape into `sizes`; raise a ValueError where they contradict.

    >>> sizes = {}
    >>> solve((("m",), ("2", "k")), (5, 6), sizes, "x")
    >>> sizes
    {'m': 5, 'k': 3}
    """
    dims = tuple(dims)
    text = " ".join("*".join(dim) for dim in dims)
    if len(dims) != len(shape):
        raise ValueError(
            f"`{argument}` has shape {shape}, but its declared shape '{text}' has {len(dims)} axes"
        )
    for dim, extent in zip(dims, shape, strict=True):
        if extent == 0:
            raise ValueError(
                f"`{argument}` has shape {shape}, that is, no entries; give an array with entries"
            )
        unknown = [f for f in dim if not f.isdigit() and f not in sizes]
        known = size_of([f for f in dim if f not in unknown], sizes)
        if len(unknown) == 1 and extent % known == 0 and extent > 0:
            sizes[unknown[0]] = extent // known
        elif unknown and extent % known:
            raise ValueError(
                f"`{argument}` has shape {shape}, but its declared shape '{text}' needs a "
                f"multiple of {known} in place of {extent}"
            )
        elif not unknown and known != extent:
            raise ValueError(
                f"`{argument}` has shape {shape}, which does not fit: '{'*'.join(dim)}' in "
                f"'{text}' is {known} in the other inputs, but {extent} here"
            )
        elif unknown:
            raise ValueError(
                f"`{argument}` has shape {shape}; '{'*'.join(dim)}' does not determine "
                f"{', '.join(unknown)}: pass `sizes`"
            )


def sizes_text(sizes: Mapping[str, int]) -> str:
    """Return sizes as text.

    >>> sizes_text({"m": 3, "n": 4}), sizes_text({})
    ('m=3 n=4', 'fixed sizes')
    """
    return " ".join(f"{name}={size}" for name, size in sizes.items()) or "fixed sizes"
