"""Which entries of a gradient are differenced, and how they compare with the closed form.

Where an array has more entries than can be differenced one by one, a random choice of them is, and
random directions through all entries join them. A comparison leaves kinks out. An error within
`AGREE` error estimates agrees, one beyond `DISAGREE` disagrees, and in between nothing is said.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxgrad.evidence.numerical.slopes import AGREE, Slope
from jaxgrad.reports.pictures import Heat, heat

DISAGREE = 1000.0
"""An error beyond this many error estimates disagrees; in between nothing is said."""
DIRECTIONS = 8
"""At most so many random directions, and half as many as entries."""


class Probes(NamedTuple):
    """What is differenced of one array.

    Attributes:
        entries: some of its entries, or all.
        directions: random directions through all of them, where entries are left out.
        part: where the array lies among all that are differentiated.
        coordinates: those of the entries, and −1 − i for direction i.
    """

    entries: np.ndarray
    directions: np.ndarray
    part: slice
    coordinates: np.ndarray

    def of(self, array: Any, outer: int) -> np.ndarray:
        """Return of a gradient, or Jacobian of so many outer axes, what is differenced of it."""
        shape = np.shape(array)[:outer]
        flat = np.moveaxis(np.asarray(array, np.float64).reshape(*shape, -1), -1, 0)
        along = self.directions[:, self.part] @ flat.reshape(len(flat), -1)
        return np.concatenate([flat[self.entries], along.reshape(-1, *shape)])


class Comparison(NamedTuple):
    """Closed form and differences of one array at one draw.

    Attributes:
        claimed: the closed form's derivatives.
        slope: those by differences.
        entries: which entries were differenced.
        shape: the array's shape.
    """

    claimed: np.ndarray
    slope: Slope
    entries: np.ndarray
    shape: tuple[int, ...]

    @property
    def error(self) -> np.ndarray:
        """How far apart both are."""
        return np.abs(self.claimed - self.slope.central)

    @property
    def usable(self) -> np.ndarray:
        """Where there is something to compare."""
        return ~self.slope.kink & np.isfinite(self.slope.central_error) & np.isfinite(self.claimed)

    @property
    def refutes(self) -> bool:
        """Whether differences converge, and to another derivative than is claimed."""
        every = np.all(self.usable | self.slope.kink)
        return bool(
            every and np.any(self.usable & (self.error > DISAGREE * self.slope.central_error))
        )

    @property
    def standardised(self) -> np.ndarray:
        """Errors in units of what is still agreed to; NaN at kinks, which are left out."""
        with np.errstate(all="ignore"):
            ratio = np.where(self.error == 0, 0.0, self.error / (AGREE * self.slope.central_error))
        return np.where(self.slope.kink & np.isfinite(self.claimed), np.nan, ratio)

    def picture(self, values: bool) -> Heat:
        """Lay the differenced entries out in their array, with values where asked for."""
        outer = self.claimed.shape[1:]

        def spread(column: np.ndarray) -> np.ndarray:
            whole = np.full((int(np.prod(self.shape[len(outer) :], dtype=int)), *outer), np.nan)
            whole[self.entries] = column[: len(self.entries)]
            return np.moveaxis(whole, 0, -1).reshape(self.shape)

        ratio, claimed = spread(self.standardised), spread(self.claimed)
        compared = spread(~(self.slope.kink & np.isfinite(self.claimed))) == 1
        both = (
            {"closed": claimed, "reference": spread(self.slope.central), "against": "differences"}
            if values
            else {}
        )
        return heat(np.where(np.isfinite(claimed), ratio, np.nan), 1.0, compared=compared, **both)


def choose_probes(sizes: dict[str, int], rng: np.random.Generator, most: int) -> list[Probes]:
    """Choose at most so many entries of each array, and directions where more are left out."""
    chosen, begin, used, total = [], 0, 0, sum(sizes.values())
    for size in sizes.values():
        part = slice(begin, begin + size)
        if size <= most:
            entries, directions = np.arange(size), np.zeros((0, total))
        else:
            many = min(DIRECTIONS, most // 2)
            entries, directions = (
                np.sort(rng.choice(size, most, replace=False)),
                np.zeros((many, total)),
            )
            directions[:, part] = rng.standard_normal((many, size))
        index = np.concatenate([begin + entries, -1 - used - np.arange(len(directions))])
        chosen.append(Probes(entries, directions, part, index))
        begin, used = begin + size, used + len(directions)
    return chosen
