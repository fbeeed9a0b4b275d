"""How one framework lays out a weight of the other: axes, shapes and thirds.

A layout is written as words: ``"same"``, ``"axes 1 0"``, ``"rows 2/3, axes 1 0, shape 8 2 4"``. It
is applied from left to right, to numpy and JAX arrays alike.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

SAME = "same"

_CONVOLUTIONS = {
    3: [(2, 1, 0), (2, 0, 1)],
    4: [(2, 3, 1, 0), (2, 3, 0, 1)],
    5: [(2, 3, 4, 1, 0), (2, 3, 4, 0, 1)],
}


def apply(layout: str, array: Any) -> Any:
    """Return an array in another layout.

    Raises:
        ValueError: for words that are no layout.

    >>> import numpy as np
    >>> apply("rows 2/3, axes 1 0", np.arange(12).reshape(6, 2)).tolist()
    [[4, 6], [5, 7]]
    """
    for step in layout.split(", "):
        word, *numbers = step.split()
        if word == "axes":
            array = array.transpose(tuple(map(int, numbers)))
        elif word == "shape":
            array = array.reshape(tuple(map(int, numbers)))
        elif word == "rows":
            part, parts = map(int, numbers[0].split("/"))
            size = array.shape[0] // parts
            array = array[(part - 1) * size : part * size]
        elif word != SAME:
            raise ValueError(
                f"{layout!r} is no layout; write 'same', or steps such as 'rows 1/3, axes 1 0, "
                f"shape 8 2 4'"
            )
    return array


def candidates(theirs: Sequence[int], ours: Sequence[int], *, third: int = 0) -> Iterator[str]:
    """Yield the layouts that may bring torch's shape into ours, the likeliest first.

    Args:
        theirs: torch's shape.
        ours: the port's shape.
        third: 1, 2 or 3 for a part of a weight that holds three; 0 for a whole.

    >>> list(candidates((4, 3), (3, 4))), list(candidates((4, 4), (4, 4)))
    (['axes 1 0'], ['same', 'axes 1 0'])
    >>> list(candidates((1, 1, 8), (1, 1, 8)))
    ['same']
    """
    before = [f"rows {third}/3"] if third else []
    theirs = (theirs[0] // 3, *theirs[1:]) if third else tuple(theirs)
    ours = tuple(ours)
    if math.prod(theirs) != math.prod(ours):
        return
    orders = [tuple(range(len(theirs)))]
    if len(theirs) == 2:
        orders.append((1, 0))
    orders += _CONVOLUTIONS.get(len(theirs), [])

    def strip(shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(n for n in shape if n != 1)

    found, seen = [], set()
    for order in orders:
        moved = tuple(a for a in order if theirs[a] != 1)
        if moved in seen:  # axes of length 1 may stand anywhere
            continue
        shape = tuple(theirs[a] for a in order)
        axes = [f"axes {' '.join(map(str, order))}"] if order != tuple(range(len(theirs))) else []
        if shape == ours:
            seen.add(moved)
            found.append([*before, *axes])
        elif strip(shape) == strip(ours) or _splits(shape, ours):
            seen.add(moved)
            found.append([*before, *axes, f"shape {' '.join(map(str, ours))}"])
    yield from dict.fromkeys(", ".join(steps) or SAME for steps in found)


def _splits(shape: tuple[int, ...], into: tuple[int, ...]) -> bool:
    """Say whether an axis is split into several, as attention features into heads."""
    if len(into) <= len(shape):
        return False
    for cuts in itertools.combinations(range(1, len(into)), len(shape) - 1):
        edges = (0, *cuts, len(into))
        if tuple(math.prod(into[a:b]) for a, b in itertools.pairwise(edges)) == shape:
            return True
    return False
