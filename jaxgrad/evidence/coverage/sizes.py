"""Sizes: the choices at which a claim is looked at, so that no letter stands for one number alone.

A factor may be right at n = 3 and wrong at n = 4, or right wherever m < n. So one letter at a time
goes through `VALUES` while the others stay at 2 and 3, and each pair of letters is once far below,
once equal and once far above.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

VALUES = (1, 8, 5, 4, 33, 6, 7, 12, 16, 2, 3)
"""What each letter goes through; first what tells most, since not all may be looked at."""
FAR, NEAR = 11, 2
"""The values of a pair of letters that lie far apart."""
EQUAL = 5
"""The value at which two letters are equal."""


def walk(letters: Sequence[str], fixed: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Return the choices of sizes, the quickest first.

    Args:
        letters: the names of all sizes.
        fixed: sizes that the user chose; they stay.

    >>> list(walk(["n"], {}))[:3], len(list(walk(["m", "n"], {"m": 4})))
    ([{'n': 1}, {'n': 8}, {'n': 5}], 11)
    """
    free = [letter for letter in letters if letter not in fixed]
    seen = set()
    for choice in itertools.chain(_ordered(free), () if free else ({},)):
        key = tuple(sorted(choice.items()))
        if key not in seen:
            seen.add(key)
            yield {letter: fixed.get(letter, choice.get(letter, 0)) for letter in letters}


def _ordered(free: Sequence[str]) -> Iterator[dict[str, int]]:
    """Return the pairs after the first values of single letters."""
    alone = _one_at_a_time(free)
    yield from itertools.islice(alone, 3 * len(free))
    yield from _pairs(free)
    yield from alone


def _one_at_a_time(free: Sequence[str]) -> Iterator[dict[str, int]]:
    for value in VALUES:
        for letter in free:
            yield _others(free, {letter: value})


def _pairs(free: Sequence[str]) -> Iterator[dict[str, int]]:
    for a, b in itertools.combinations(free, 2):
        for pair in ((NEAR, FAR), (EQUAL, EQUAL), (FAR, NEAR)):
            yield _others(free, dict(zip((a, b), pair, strict=True)))


def _others(free: Sequence[str], chosen: Mapping[str, int]) -> dict[str, int]:
    """Give the letters that are not chosen 2 and 3 in turn."""
    turn = itertools.cycle((2, 3))
    return {letter: chosen[letter] if letter in chosen else next(turn) for letter in free}
