"""Events of a mask that are too rare to be sampled, and what they would move.

A sample shows nothing of what did not happen in it. So a few masks are built in which coins fall
together as they seldom do, and the gradient is evaluated there. Let event e have the probability
π_e, and let it shift entry j of the gradient by d_ej. Among N samples it is missing altogether with
the probability (1 − π_e)^N ≤ e^(−π_e N). So with L as in `jaxgrad.evidence.sampling.tails`

    π_e ≥ L/N    it happened, but with probability e^(−L), and is in the sample's own spread
    π_e < L/N    it may have been missed, and up to π_e d_ej is allowed for it

Tried are, for masks of independent coins, all coins of one row, of two, of all, or one coin in all
rows at their rarer side, or all at one side, and random sets of two to eight coins of a row; where
one of them shifts the gradient by much, coins are released until only those remain without which it
does not. For other masks whose rows can be listed, single rows are tried. What hangs on an event
that is none of these, and was never drawn, stays unseen; so does all of it for a mask that can do
neither.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxgrad.masks import Mask
from jaxgrad.masks.distribution import Factors
from jaxgrad.runtime.compiled import at_once

BATCH = 8
"""Masks that are evaluated at once."""
RANDOM_SETS = 24
"""Random sets of coins that are tried."""
LISTED = 2**12
"""The most rows, times entries, that are listed to find rare ones."""
GROUPS = 16
"""Coins are released in at most so many groups."""
LARGE = 2**18
"""Entries of a gradient beyond which only the first batch of events is tried."""

Evaluate = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Rarities:
    """Events that may be missed.

    Attributes:
        probability: (events,), or more.
        shift: (events, size), how far each moves each entry.
    """

    probability: np.ndarray
    shift: np.ndarray

    def allowance(self, samples: float, odds: float) -> np.ndarray | float:
        """Return what the mean of samples may be off by since an event did not happen in them."""
        missed = self.probability < odds / samples
        return (self.probability[missed, None] * self.shift[missed]).max(axis=0, initial=0.0)

    def worst(self, samples: float, odds: float) -> tuple[float, float]:
        """Return the probability and the shift of the missed event that is allowed most for."""
        weight = np.where(
            self.probability < odds / samples,
            self.probability * self.shift.max(axis=1, initial=0.0),
            -1.0,
        )
        i = int(np.argmax(weight))
        return float(self.probability[i]), float(self.shift[i].max())


def rarities(
    mask: Mask,
    shape: tuple[int, ...],
    evaluate: Evaluate,
    usual: np.ndarray,
    tolerance: np.ndarray,
    seed: int,
) -> Rarities:
    """Look for rare events that move a gradient.

    Args:
        mask: distribution of the mask.
        shape: shape of a draw.
        evaluate: masks (BATCH, *shape) to gradients (BATCH, size).
        usual: (draws, *shape), masks drawn at random, in which events are placed.
        tolerance: (size,), what may be passed over.
        seed: of the random sets.

    Returns:
        The events whose share of the expectation exceeds the tolerance somewhere.
    """
    rng = np.random.default_rng(seed)
    size = len(tolerance)
    coins = _coins(mask, shape)
    centre = evaluate(_fill(usual)).mean(axis=0)
    found: list[tuple[float, np.ndarray]] = []

    def shifts(masks: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            moved = [
                np.abs(evaluate(_fill(masks[i : i + BATCH])) - centre)
                for i in range(0, len(masks), BATCH)
            ]
        return np.nan_to_num(np.concatenate(moved)[: len(masks)], nan=np.inf)

    def keep(probabilities: np.ndarray, moved: np.ndarray) -> None:
        for probability, shift in zip(probabilities, moved, strict=True):
            if probability > 0 and np.any(probability * shift > tolerance):
                found.append((min(float(probability), 1.0), shift))

    if coins is not None:
        forced = list(_coin_events(coins, shape, rng))[: BATCH if size > LARGE else None]
        moved = shifts(
            np.stack([coins.place(event, usual[i % len(usual)]) for i, event in enumerate(forced)])
        )
        keep(np.array([coins.probability(event) for event in forced]), moved)
        with np.errstate(over="ignore"):
            first = int(
                np.argmax((moved / np.maximum(tolerance, np.finfo(float).tiny)).max(axis=1))
            )
        least = _least(coins, forced[first], moved[first], shifts, usual[first % len(usual)])
        if least is not None:
            keep(np.array([coins.probability(least)]), shifts(coins.place(least, usual[0])[None]))
    else:
        rows, probabilities = _rows(mask, shape[-1])
        if len(rows):
            order = np.argsort(probabilities)[:RANDOM_SETS]
            masks = usual[np.arange(len(order)) % len(usual)].copy()
            flat = masks.reshape(len(order), -1, shape[-1])
            flat[np.arange(len(order)), rng.integers(flat.shape[1], size=len(order))] = rows[order]
            keep(probabilities[order] * flat.shape[1], shifts(masks))
    if not found:
        return Rarities(np.zeros(0), np.zeros((0, size)))
    return Rarities(np.array([p for p, _ in found]), np.stack([shift for _, shift in found]))


def _fill(masks: np.ndarray) -> np.ndarray:
    """Repeat masks up to a whole batch."""
    return masks[np.arange(BATCH) % len(masks)]


Event = tuple[np.ndarray, np.ndarray, bool]
"""Which coins are forced, (rows, coins) booleans; to what, likewise; whether any row may take the
place of this one.
"""


class _Coins:
    """Coins of a mask: which entry hangs on which, and how likely each is 1."""

    def __init__(self, coin_of: np.ndarray, chances: np.ndarray, shape: tuple[int, ...]) -> None:
        self.coin_of, self.chances, self.shape = coin_of, chances, shape
        self.rows = int(np.prod(shape[:-1]))
        self.rarer = chances < 0.5

    def probability(self, event: Event) -> float:
        forced, values, any_row = event
        chance = np.where(values, self.chances, 1 - self.chances)[forced]
        return (
            float(np.exp(np.sum(np.log(chance)))) * (self.rows if any_row else 1)
            if np.all(chance > 0)
            else 0.0
        )

    def place(self, event: Event, usual: np.ndarray) -> np.ndarray:
        forced, values, _ = event
        rows = usual.reshape(self.rows, -1)
        return np.where(
            forced[:, self.coin_of], values[:, self.coin_of].astype(float), rows
        ).reshape(self.shape)


def _coins(mask: Any, shape: tuple[int, ...]) -> _Coins | None:
    """Return the coins of a mask of independent coins with the sides 0 and 1."""
    if not (hasattr(mask, "factors") and hasattr(mask, "support_size")):
        return None
    factors = Factors(*at_once(lambda: tuple(mask.factors(shape[-1], 1))))
    if not np.array_equal(np.asarray(factors.values), [0.0, 1.0]):
        return None
    return _Coins(
        np.asarray(factors.members).argmax(axis=0),
        np.asarray(factors.weights, np.float64)[:, 1],
        shape,
    )


def _coin_events(
    coins: _Coins, shape: tuple[int, ...], rng: np.random.Generator
) -> Iterator[Event]:
    rows, count = coins.rows, len(coins.chances)
    rarer = np.broadcast_to(coins.rarer, (rows, count))
    sides = (rarer, np.zeros_like(rarer), np.ones_like(rarer))

    def chosen(some: Any, some_coins: Any = slice(None)) -> np.ndarray:
        forced = np.zeros((rows, count), bool)
        forced[some, some_coins] = True
        return forced

    for side in sides:
        yield chosen(rng.integers(rows)), side, True
    yield chosen(slice(None)), rarer, False
    for side in sides[1:]:
        yield chosen(slice(None)), side, False
    yield chosen(slice(None), rng.integers(count)), rarer, False
    yield chosen(rng.integers(rows, size=2)), rarer, False
    for i in range(RANDOM_SETS if count > 1 else 0):
        some = rng.permutation(count)[: min(count, (2, 3, 4, 8)[i % 4])]
        values = (
            rarer
            if i % 2
            else np.broadcast_to(rng.integers(2, size=count).astype(bool), (rows, count))
        )
        yield chosen(rng.integers(rows), some), values, True


def _least(
    coins: _Coins,
    event: Event,
    moved: np.ndarray,
    shifts: Callable[[np.ndarray], np.ndarray],
    usual: np.ndarray,
) -> Event | None:
    """Release coins as long as the shift remains; None where none can be released."""
    forced, values, any_row = event
    entry, begin = int(np.argmax(moved)), forced.sum()
    for _ in range(6):
        places = np.argwhere(forced)
        groups = np.array_split(places, min(GROUPS, len(places)))
        trials = np.repeat(forced[None], len(groups), axis=0)
        for trial, group in zip(trials, groups, strict=True):
            trial[tuple(group.T)] = False
        masks = np.stack([coins.place((trial, values, any_row), usual) for trial in trials])
        needed = shifts(masks)[:, entry] < moved[entry] / 2
        if np.all(needed) or not np.any(needed):
            break
        forced = np.zeros_like(forced)
        for group in (g for g, n in zip(groups, needed, strict=True) if n):
            forced[tuple(group.T)] = True
    return (
        (forced, values, any_row or forced.any(axis=1).sum() == 1) if forced.sum() < begin else None
    )


def _rows(mask: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """List the rows of a mask and their probabilities, or nothing where that cannot be done."""
    if hasattr(mask, "support_size") and mask.support_size(n) * n <= LISTED:
        rows, probabilities = at_once(lambda: mask.support((n,)))
        return np.asarray(rows, np.float64), np.asarray(probabilities, np.float64)
    return np.zeros((0, n)), np.zeros(0)
