"""Torch's whole cotangents, to which the parts of all blocks must add up."""

from typing import Any, NamedTuple

import numpy as np

from jaxgrad.parity.blocks import Key
from jaxgrad.parity.golden import Golden
from jaxgrad.parity.judging import Pair


def spread(runs: list[np.ndarray]) -> np.ndarray:
    """Return how far each entry moves from the first run; NaN where that is not finite."""
    if runs[0].dtype.kind != "f" or len(runs) < 2:
        return np.zeros(runs[0].shape)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.max([np.abs(r - runs[0]) for r in runs[1:]], axis=0)


class TorchCotangent(NamedTuple):
    """Torch's cotangent of a tap, parameter or input, in float64 and float32, and its move."""

    double: np.ndarray
    move: np.ndarray
    single: np.ndarray | None

    def beside(self, total: Any, move: np.ndarray) -> Pair:
        """Return it beside our sum of parts."""
        return Pair(np.asarray(total), self.double, move, self.move, None, self.single)


def torch_cotangents(golden: Golden) -> dict[Key, TorchCotangent]:
    """Return torch's cotangent of every tap, parameter and input."""
    found = {}
    for kind, place in (("tap", "cotangent"), ("parameter", "parameter"), ("input", "input")):
        moves, singles = golden.group(f"move/{place}"), golden.group(f"single/{place}")
        for name, double in golden.group(f"double/{place}").items():
            found[Key(kind, name)] = TorchCotangent(
                double,
                moves.get(name, np.zeros(double.shape)).astype(np.float64),
                singles.get(name),
            )
    return found
