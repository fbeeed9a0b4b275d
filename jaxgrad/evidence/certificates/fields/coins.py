"""Coins: the branches that a draw decides, told apart by what decides them.

An entry's taint holds one bit for each coin it depends on. A comparison tosses one, so do the root
or the logarithm of a number of unknown sign, and a line of numbers that differ by constants. The
first `COINS` are told apart; all others share one bit.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from jaxgrad.evidence.certificates.fields.lines import Lines
from jaxgrad.evidence.certificates.fields.values import COINS, MANY, Coin, FieldValues


class Coins:
    """The coins of one run.

    Args:
        skip: tell apart the coins after so many, and not the first.

    Attributes:
        kept: the coins that are told apart.
    """

    def __init__(self, skip: int) -> None:
        """Start without coins."""
        self.kept: list[Coin] = []
        self._skip = skip
        self._numbers: dict[Any, int] = {}

    def toss(
        self, kind: str, key: np.ndarray, bad: np.ndarray | None, heads: np.ndarray
    ) -> np.ndarray:
        """Return each entry's coin as a bit.

        A coin is a branch decided by `key`, (draw, *shape), that came up `heads`.
        """
        columns = np.ascontiguousarray(key[:16].reshape(min(len(key), 16), -1).T)
        names = columns.view(np.dtype((np.void, columns.itemsize * columns.shape[1]))).ravel()
        _, first, which = np.unique(names, return_index=True, return_inverse=True)
        coins = np.full(len(first), COINS)
        for i in np.argsort(first):
            at = int(first[i])
            good = np.ones(len(key), bool) if bad is None else ~bad.reshape(len(key), -1)[:, at]
            coins[i] = self.number(
                (kind, names[at].tobytes()), Coin(kind, good, heads.reshape(len(key), -1)[:, at])
            )
        return (np.uint64(1) << coins.astype(np.uint64))[which.ravel()].reshape(key.shape[1:])

    def number(self, name: Any, coin: Coin) -> int:
        """Return a coin's number; COINS for those that are not told apart."""
        if name not in self._numbers:
            if len(self.kept) >= COINS:
                return COINS
            self._numbers[name] = len(self._numbers) - self._skip
            if self._numbers[name] >= 0:
                self.kept.append(replace(coin, heads=coin.heads.copy()))
        return self._numbers[name] if self._numbers[name] >= 0 else COINS

    def ordered(self, lines: Lines, d: FieldValues) -> tuple[np.ndarray, np.ndarray]:
        """Return whether d > 0 by the order on lines, 0 or 1, and the coins it depends on."""
        count = len(d.p)
        columns = d.p.reshape(count, -1)
        truth, taint = np.zeros(columns.shape, np.int64), np.zeros(columns.shape[1], np.uint64)
        always = np.ones(count, bool)
        lines.comparisons += 1
        for i, column in enumerate(columns.T):
            above, names, known = lines.positive((lines.comparisons, i), column)
            truth[:, i] = above
            numbers = [
                self.number(("line", name), Coin("comparison", always, always, lines.weight(name)))
                for name in sorted(names)
            ]
            taint[i] = sum(
                (np.uint64(1) << np.uint64(n) for n in {*numbers, *([] if known else [COINS])}),
                np.uint64(0),
            )
        return truth.reshape(d.p.shape), taint.reshape(d.shape)

    def of(self, taint: np.uint64) -> list[Coin] | None:
        """Return the coins in a set of bits; None when there are more than can be told apart."""
        if taint & MANY:
            return None
        return [
            coin for i, coin in enumerate(self.kept[:COINS]) if taint >> np.uint64(i) & np.uint64(1)
        ]
