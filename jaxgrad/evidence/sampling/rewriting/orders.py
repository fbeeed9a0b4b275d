"""Arrays that can be had with their axes in any order, and a count of what is turned over for
that.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Order = tuple[int, ...]
"""Numbers of an array's axes, as they lie in memory."""


@dataclass
class Tally:
    """What is turned over.

    Attributes:
        dry: whether nothing is computed, and arrays are None.
        turned: entries, of arrays that depend on the samples, which change their places for the
            sake of an order.
    """

    dry: bool = False
    turned: int = 0


class Held(ABC):
    """An array that can be had with its axes in any order.

    Attributes:
        shape: in the usual order.
        moving: whether it depends on the samples.
    """

    shape: tuple[int, ...]
    moving: bool

    @property
    def order(self) -> Order | None:
        """The order of axes in which it lies; None where it lies in none."""
        return None

    @abstractmethod
    def get(self, order: Order) -> Any:
        """Return it with axis ``order[k]`` in the place k."""

    @property
    def usual(self) -> Any:
        """Return it in the usual order."""
        return self.get(tuple(range(len(self.shape))))


@dataclass
class Lying(Held):
    """An array in memory, in one order of axes."""

    value: Any
    shape: tuple[int, ...]
    moving: bool
    lies: Order
    tally: Tally
    had: dict[Order, Any] = field(default_factory=dict)

    @property
    def order(self) -> Order:
        """The order in which it lies."""
        return self.lies

    def get(self, order: Order) -> Any:
        """Return it as it lies, or turned over."""
        if order == self.lies:
            return self.value
        if self.moving and _moves(self.shape, self.lies, order):
            self.tally.turned += math.prod(self.shape)
        if self.tally.dry:
            return None
        if order not in self.had:  # XLA would not know two of them for the same
            self.had[order] = self.value.transpose([self.lies.index(axis) for axis in order])
        return self.had[order]


@dataclass
class Made(Held):
    """An array that is made where it is used, in the order that is asked for: one that is spread
    out of a smaller one.

    Attributes:
        steps: how many operations that takes, one within the other.
    """

    make: Callable[[Order], Any]
    shape: tuple[int, ...]
    moving: bool
    steps: int = 1
    made: dict[Order, Any] = field(default_factory=dict)

    def get(self, order: Order) -> Any:
        """Make it in this order, unless that has been done."""
        if order not in self.made:
            self.made[order] = self.make(order)
        return self.made[order]


def _moves(shape: Sequence[int], before: Order, after: Order) -> bool:
    """Say whether entries change their places in memory: axes of length 1 may go anywhere."""
    return [axis for axis in before if shape[axis] > 1] != [
        axis for axis in after if shape[axis] > 1
    ]


def reshaped(before: Sequence[int], after: Sequence[int], order: Order) -> Order | None:
    """Return the order of a reshaped array's axes where those of the array lie in another order
    than usual; None where it has none.

    Axes that are put together must lie one after the other. Of ``before`` = (2, 3, 4) in the order
    (2, 0, 1), that is 4 × 2 × 3,

    >>> reshaped((2, 3, 4), (6, 4), (2, 0, 1)), reshaped((2, 3, 4), (2, 12), (2, 0, 1))
    ((1, 0), None)
    """
    groups, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        olds, news, have, want = [], [], 1, 1
        while (not olds and not news) or have != want:
            if i < len(before) and (have <= want or j == len(after)):
                have, i = have * before[i], i + 1
                olds.append(i - 1)
            elif j < len(after):
                want, j = want * after[j], j + 1
                news.append(j - 1)
            else:
                return None
        groups.append((olds, news))
    return None if not groups else _in_groups(groups, order)


def _in_groups(groups: Sequence[tuple[list[int], list[int]]], order: Order) -> Order | None:
    result: list[int] = []
    left = list(order)
    while left:
        olds, news = next(group for group in groups if left[0] in group[0])
        if left[: len(olds)] != olds:
            return None
        result += news
        del left[: len(olds)]
    # axes of length 1 that came out of nothing may lie anywhere
    return (*result, *(axis for olds, news in groups if not olds for axis in news))
