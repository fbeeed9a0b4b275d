"""Every block run alone, on torch's activations and cotangents, at noisy copies of them too.

The parts of the cotangents that all blocks give must add up to torch's whole cotangents.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxgrad.evidence.noise.rounding import COPIES, noisy_copies
from jaxgrad.parity.blocks import Block, Blocks, Key
from jaxgrad.parity.golden import Golden
from jaxgrad.parity.jax_side import JaxSide
from jaxgrad.parity.judging import Pair, semantic
from jaxgrad.reports.finding import Finding


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


class ExaminedBlock:
    """One block run alone: its value, its parts of the cotangents, and how far noise moves them."""

    def __init__(self, block: Block, torchs: dict[str, dict[str, np.ndarray]]) -> None:
        """Start with a block that nothing is known of."""
        self.block, self.torchs = block, torchs
        self.forward: Finding | None = None
        self.cotangent: np.ndarray | None = None
        self.value = self.move = np.zeros(())
        self.parts: dict[Key, np.ndarray] = {}
        self.moves: dict[Key, np.ndarray] = {}

    def add(self, value: np.ndarray, parts: dict[Key, np.ndarray], *, first: bool) -> None:
        """Take the results at torch's numbers, or at a noisy copy of them."""
        if first:
            self.value, self.parts = value, parts
            self.move, self.moves = (
                np.zeros(value.shape),
                {k: np.zeros(p.shape) for k, p in parts.items()},
            )
            return
        self.move = np.maximum(self.move, spread([self.value, value]))
        self.moves = {
            k: np.maximum(move, spread([self.parts[k], parts[k]])) for k, move in self.moves.items()
        }

    def pair(self, value: np.ndarray) -> Pair:
        """Return a value of the block beside torch's."""
        name = self.block.name
        theirs = self.torchs["value"][name]
        move = self.torchs["move"].get(name, np.zeros(theirs.shape)).astype(np.float64)
        return Pair(value, theirs, self.move, move, None, self.torchs["single"].get(name))


class SummedParts:
    """The sum of all parts of each cotangent, at torch's numbers and at every noisy copy.

    Copies are summed only where several blocks add to a cotangent.
    """

    def __init__(self, blocks: Mapping[str, Block]) -> None:
        """Count who reads what."""
        readers = Counter(key for block in blocks.values() for key in block.reads)
        self.several = {key for key, count in readers.items() if count > 1}
        self.sums: dict[tuple[Key, int], np.ndarray] = {}

    def add(self, key: Key, part: np.ndarray, copy: int) -> None:
        """Add a part, at torch's numbers (0) or at a noisy copy."""
        if key in self.several:
            self.sums[key, copy] = self.sums.get((key, copy), 0.0) + part

    def total(
        self, key: Key, examined: Mapping[str, ExaminedBlock], readers: list[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the sum of a cotangent's parts and how far noise moves it."""
        if (key, 0) in self.sums:
            runs = [self.sums[key, i] for i in range(COPIES + 1)]
            return runs[0], spread(runs)
        return examined[readers[0]].parts[key], examined[readers[0]].moves[key]


def examine(side: JaxSide, blocks: Blocks) -> tuple[dict[str, ExaminedBlock], SummedParts]:
    """Run every block at torch's numbers and at noisy copies of them."""
    golden = side.golden
    given = side.given("float64", golden.state, golden.inputs)
    cotangents = golden.group("double/cotangent") | golden.seed
    values = golden.group("double/activation") | golden.group("double/value")
    moves = golden.group("move/activation") | golden.group("move/value")
    singles = golden.group("single/activation") | golden.group("single/value")
    numbers = blocks.numbers(given, golden.activations)
    examined, summed, unit = {}, SummedParts(blocks.blocks), side.unit
    for name, block in blocks.blocks.items():
        examined_block = examined[name] = ExaminedBlock(
            block, {"value": values, "move": moves, "single": singles}
        )
        examined_block.cotangent = cotangents.get(name)
        if examined_block.cotangent is None and values[name].dtype.kind == "f":
            examined_block.cotangent = np.zeros(values[name].shape)
        own = {k: numbers[k] for k in block.reads}
        copies = noisy_copies(list(own.values()), unit, golden.manifest["seed"])
        for i in range(COPIES + 1):
            value, parts = blocks.both(
                block, dict(zip(own, [c[i] for c in copies], strict=True)), examined_block.cotangent
            )
            examined_block.add(value, parts, first=i == 0)
            for key, part in parts.items():
                summed.add(key, part, i)
        examined_block.forward = semantic(examined_block.pair(examined_block.value), name)
    return examined, summed
