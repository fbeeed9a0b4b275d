"""The data of a finding's figures, small whatever the size of the gradient.

There are three kinds: a `Heat` map of the errors of an array's entries, the `Closing` confidence
interval of a growing sample, and a `Histogram` of standardised errors. They hold numbers and no
drawing, and so can be written as JSON and drawn elsewhere.

Three kinds: a `Heat` map of the errors of an array's entries, a `Closing` interval of a growing
sample, and a `Histogram` of standardised errors. They hold numbers and no drawing, so that they can
be written as JSON and drawn elsewhere.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

ROWS, COLUMNS = 48, 64
"""The most cells of a heat map; larger arrays are binned."""
LARGEST = 1e99
"""Errors in units of a bound that is zero, and all beyond, are shown as this."""
REACH = 6.0
"""A histogram's range in standard errors, on each side; the outermost bins take what lies beyond.
"""
WIDTH = 0.5
"""Width of a histogram's bin, in standard errors."""
KEPT = 2**22
"""Numbers of chunk means, or of entries over all looks, up to which a sample's path is kept."""

Cells = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Heat:
    """The errors of an array's entries, as rows of cells; a cell shows the worst of its entries.

    Attributes:
        shape: shape of the array. A vector is one row; of an array of more axes, all but the last
            are laid one below the other.
        error: in units of the bound, so that what is above 1 is not explained; None where nothing
            was compared, NaN where a value is not finite.
        closed: the closed form's values, where they are shown.
        reference: the reference's values at the same entries, where they are shown.
        against: what the reference is.
    """

    shape: tuple[int, ...]
    error: Cells
    closed: Cells | None = None
    reference: Cells | None = None
    against: str = ""

    @property
    def binned(self) -> bool:
        """Whether a cell may stand for several entries."""
        return sum(map(len, self.error)) < math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Closing:
    """The confidence interval of one entry of a sampled gradient, as the sample grew.

    Attributes:
        entry: index of the entry, the worst of its array.
        samples: sample sizes, growing.
        off: the sampled mean less the closed form, relative to the gradient's largest entry.
        reach: half the width of the interval at the level of the verdict, in the same unit.
        resolution: the largest error that a confirmation may leave open, in the same unit.
    """

    entry: tuple[int, ...]
    samples: tuple[int, ...]
    off: tuple[float, ...]
    reach: tuple[float, ...]
    resolution: float


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many entries of a sampled gradient lie how many standard errors from the closed form.

    Attributes:
        counts: of bins of equal width from −reach to reach; the outermost take all that lies
            beyond.
        reach: in standard errors.
    """

    counts: tuple[int, ...]
    reach: float


Picture = Heat | Closing | Histogram
KINDS: dict[str, type[Any]] = {"heat": Heat, "closing": Closing, "histogram": Histogram}
"""Pictures by the name that they have in JSON."""


def heat(
    error: Any,
    bound: Any,
    *,
    compared: Any = None,
    closed: Any = None,
    reference: Any = None,
    against: str = "",
) -> Heat:
    """Lay out the errors of an array, in units of their bounds.

    Args:
        error: array of absolute errors.
        bound: array of bounds, or one for all.
        compared: boolean array, where something was compared at all; everywhere when None.
        closed: the closed form's values, to be shown with the reference's.
        reference: the reference's values.
        against: what the reference is.

    >>> heat(np.array([[1e-16, 0.0], [3e-15, np.nan]]), 1e-15).error
    ((0.1, 0.0), (3.0, nan))
    """
    error = np.asarray(error, np.float64)
    with np.errstate(all="ignore"):
        ratio = np.where(error == 0, 0.0, error / np.asarray(bound, np.float64))
    ratio = np.where(
        np.isfinite(error), np.minimum(np.where(np.isnan(ratio), LARGEST, ratio), LARGEST), np.inf
    )
    ratio = ratio if compared is None else np.where(compared, ratio, -1.0)
    grid = _grid(ratio)
    edges = _edges(grid.shape)
    if not grid.size:
        return Heat(shape=error.shape, error=(), against=against)
    worst = np.maximum.reduceat(
        np.maximum.reduceat(grid, edges[0][:-1], axis=0), edges[1][:-1], axis=1
    )
    cells = _cells(np.where(np.isinf(worst), np.nan, worst), worst >= 0)
    if closed is None or reference is None:
        return Heat(shape=error.shape, error=cells, against=against)
    at = _places(grid, edges)
    shown = [
        _cells(np.asarray(side, np.float64).ravel()[at], worst >= 0) for side in (closed, reference)
    ]
    return Heat(
        shape=error.shape, error=cells, closed=shown[0], reference=shown[1], against=against
    )


def _grid(array: np.ndarray) -> np.ndarray:
    return (
        array.reshape(1, -1)
        if array.ndim < 2
        else array.reshape(math.prod(array.shape[:-1]), array.shape[-1])
    )


def _cells(values: np.ndarray, compared: np.ndarray) -> Cells:
    return tuple(
        tuple(_short(v) if c else None for v, c in zip(*row, strict=True))
        for row in zip(values, compared, strict=True)
    )


def _edges(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the first row and column of each bin, and the ends.

    Bins are square where both axes are binned.
    """
    steps = [-(-n // most) for n, most in zip(shape, (ROWS, COLUMNS), strict=True)]
    steps = [max(steps)] * 2 if min(steps) > 1 else steps
    rows, columns = (
        np.append(np.arange(0, n, max(1, step)), n) for n, step in zip(shape, steps, strict=True)
    )
    return rows, columns


def _places(grid: np.ndarray, edges: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return the flat index of the worst entry of each cell."""
    places = np.arange(grid.size).reshape(grid.shape)
    if (len(edges[0]) - 1, len(edges[1]) - 1) == grid.shape:
        return places
    found = np.empty((len(edges[0]) - 1, len(edges[1]) - 1), int)
    for i, j in np.ndindex(*found.shape):
        part = (slice(*edges[0][i : i + 2]), slice(*edges[1][j : j + 2]))
        found[i, j] = places[part].ravel()[np.argmax(grid[part])]
    return found


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def histogram(standardised: Any) -> Histogram:
    """Count standardised errors.

    >>> sum(histogram(np.array([-0.1, 0.2, 99.0])).counts)
    3
    """
    values = np.asarray(standardised, np.float64)
    bins = round(2 * REACH / WIDTH)
    counts = np.histogram(np.clip(values[~np.isnan(values)], -REACH, REACH), bins, (-REACH, REACH))[
        0
    ]
    return Histogram(counts=tuple(counts.tolist()), reach=REACH)


class Path:
    """The history of a growing sample, from which the narrowing of its interval is drawn."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self.first = np.zeros((0, 0))
        self._looks: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def begin(self, chunk_means: np.ndarray) -> None:
        """Keep the first round's chunk means, of shape (chunks, entries), if they are few."""
        if chunk_means.size <= KEPT:
            self.first = chunk_means

    def look(self, chunks: int, off: np.ndarray, reach: np.ndarray) -> None:
        """Keep a look after `chunks` chunks: mean − closed form, and half the interval."""
        if off.size * (len(self._looks) + 1) <= KEPT:
            self._looks[chunks] = off.copy(), reach.copy()

    def state(self) -> dict[str, np.ndarray]:
        """Return all that is kept, as arrays."""
        off, reach = zip(*self._looks.values(), strict=True) if self._looks else ((), ())
        counts = np.array([*self._looks], np.int64)
        return {
            "first": self.first,
            "look_chunks": counts,
            "look_off": np.array(off),
            "look_reach": np.array(reach),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a state."""
        self.first = state["first"]
        pairs = zip(state["look_off"], state["look_reach"], strict=True)
        self._looks = {
            int(count): pair for count, pair in zip(state["look_chunks"], pairs, strict=True)
        }

    def closing(
        self, i: int, entry: tuple[int, ...], chunk: int, scale: float, resolution: float,
        before: Callable[[np.ndarray], tuple[float, float]],
    ) -> Closing:  # fmt: skip
        """Return the history of one entry's interval, from 16 chunks on.

        Args:
            i: place of the entry among all that are sampled.
            entry: its index in its array.
            chunk: samples a chunk.
            scale: the gradient's largest entry; the unit of what is returned.
            resolution: the largest error that a confirmation may leave open, in that unit.
            before: gives distance and reach that the entry's first few chunk means would have had
                at a look.
        """
        counts = [count for count in (16, 32, 64, 128) if count <= len(self.first)]
        points = {count: before(self.first[:count, i].astype(np.float64)) for count in counts}
        points |= {
            count: (float(off[i]), float(reach[i])) for count, (off, reach) in self._looks.items()
        }
        finite = sorted(
            (count, point) for count, point in points.items() if np.all(np.isfinite(point))
        )
        shown = [
            (count * chunk, _short(off / scale), _short(reach / scale))
            for count, (off, reach) in finite
        ]
        samples, off, reaches = zip(*shown, strict=True) if shown else ((), (), ())
        return Closing(entry=entry, samples=samples, off=off, reach=reaches, resolution=resolution)


def to_dict(picture: Picture) -> dict[str, Any]:
    """Return a picture as plain dictionaries, lists and numbers; not finite becomes "nan"."""
    kind = next(name for name, of in KINDS.items() if isinstance(picture, of))
    return {"kind": kind} | {f.name: _plain(getattr(picture, f.name)) for f in fields(picture)}


def from_dict(data: Mapping[str, Any]) -> Picture:
    """Return the picture that `to_dict` wrote.

    >>> picture = heat(np.array([1.0, np.nan]), 2.0)
    >>> repr(from_dict(to_dict(picture))) == repr(picture)
    True
    """
    of = KINDS[data["kind"]]
    return of(**{f.name: _tuples(data[f.name]) for f in fields(of)})


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return "nan" if isinstance(value, float) and not math.isfinite(value) else value


def _tuples(value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_tuples(item) for item in value)
    return math.nan if value == "nan" else value
