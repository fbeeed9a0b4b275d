"""Which block is the first to differ by itself, forward and backward.

Every block is run alone, on torch's activations and cotangents. Forward, the first in torch's order whose value differs is
named. Backward, the parts of all blocks must add up to torch's cotangent of each tap, parameter and input; where they do
not, one of the blocks that read it is wrong. Torch's own part through one module, recorded at the module's inlet, acquits or
convicts that block; a sole reader is convicted; and a block whose forward value differs explains its VJP by it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxgrad.parity.blocks import Block, Blocks, Key
from jaxgrad.parity.jax_side import JaxSide
from jaxgrad.parity.judging import Pair, semantic, unsettled
from jaxgrad.parity.parts import spread, wholes
from jaxgrad.parity.remedies import buffer_remedy, remedy
from jaxgrad.precision import in_precision
from jaxgrad.report import Finding, Verdict
from jaxgrad.rounding import COPIES, noisy_copies

_UNIT = float(np.finfo(np.float64).eps)


class Suspect:
    """One block with all that is known of it: its value and its parts of the cotangents, and how far noise moves each entry."""

    def __init__(self, block: Block, torchs: dict[str, dict[str, np.ndarray]]) -> None:
        """Start with a block that nothing is known of."""
        self.block, self.torchs = block, torchs
        self.forward: Finding | None = None
        self.cotangent: np.ndarray | None = None
        self.value = self.move = np.zeros(())
        self.parts: dict[Key, np.ndarray] = {}
        self.moves: dict[Key, np.ndarray] = {}

    def add(self, value: np.ndarray, parts: dict[Key, np.ndarray], *, first: bool) -> None:
        """Take the results at torch's numbers, or at a noisy copy of them, of which no more than the move is kept."""
        if first:
            self.value, self.parts = value, parts
            self.move, self.moves = np.zeros(value.shape), {k: np.zeros(p.shape) for k, p in parts.items()}
            return
        self.move = np.maximum(self.move, spread([self.value, value]))
        self.moves = {k: np.maximum(move, spread([self.parts[k], parts[k]])) for k, move in self.moves.items()}

    def pair(self, value: np.ndarray) -> Pair:
        """Return a value of the block beside torch's."""
        name = self.block.name
        theirs = self.torchs["value"][name]
        move = self.torchs["move"].get(name, np.zeros(theirs.shape)).astype(np.float64)
        return Pair(value, theirs, self.move, move, None, self.torchs["single"].get(name))


def isolated(side: JaxSide, findings: list[Finding], results: Mapping[str, Any]) -> tuple[list[Finding], dict[str, Any]]:
    """Run every block alone, and name the first that differs.

    Args:
        side: the JAX function, after it was run on its golden.
        findings: of the comparison as a whole.
        results: of the JAX function, by kind and name.

    Returns:
        The findings, with one more for each block that differs alone and the diagnosis beside the first; and for the context
        ``first_forward``, ``first_vjp`` and ``remedies``.
    """
    with in_precision(True), jax.default_matmul_precision("highest"):
        if side.blocks is None:
            side.blocks = Blocks(side)
        blocks = side.blocks
        suspects, shared = _examine(side, blocks)
        forward = [s for s in suspects.values() if s.forward is not None and s.forward.verdict == Verdict.REFUTED]
        vjps = _backward(side, blocks, suspects, shared)
        first = forward[0].block.name if forward else None
        last = _first_vjp(side, suspects, vjps)
        guilty = [name for name in (first, *(last or ())) if name is not None]
        remedies = {name: remedy(side, blocks, suspects, name, vjps) for name in dict.fromkeys(guilty)}
    for f in findings:
        if f.verdict == Verdict.REFUTED and f.wrt.removesuffix(" updated") in results["buffer"]:
            name = f.wrt.removesuffix(" updated")
            remedies[f.wrt] = buffer_remedy(side.golden, name, results["buffer"][name])
    remedies = {k: v for k, v in remedies.items() if v}
    findings = [replace(f, diagnosis=remedies.get(f.wrt, f.diagnosis)) for f in findings]
    added = [_alone(s.forward, remedies.get(s.block.name, "")) for s in forward if s.forward is not None]
    for name in last or ():
        if name != first:
            blamed = next(f for readers, f in vjps.values() if name in readers)
            words = " or ".join(last or ())
            detail = f"alone on torch's activations and cotangents, the VJP of {words} differs: {blamed.wrt}, {blamed.detail}"
            added.append(replace(blamed, wrt=f"{name} VJP alone", detail=detail, diagnosis=remedies.get(name, "")))
    told = {"first_forward": first, "first_vjp": list(last) if last else None, "remedies": remedies}
    return [*added, *findings], told


def _alone(finding: Finding, remedy: str) -> Finding:
    diagnosis = remedy
    detail = f"alone, on torch's activations, it differs: {finding.detail}"
    return replace(finding, wrt=f"{finding.wrt} alone", detail=detail, diagnosis=diagnosis)


class Shared:
    """The sum of all parts of each cotangent, at torch's numbers and at every noisy copy; copies only where several blocks add."""

    def __init__(self, blocks: Mapping[str, Block]) -> None:
        """Count who reads what."""
        readers = Counter(key for block in blocks.values() for key in block.reads)
        self.several = {key for key, count in readers.items() if count > 1}
        self.sums: dict[tuple[Key, int], np.ndarray] = {}

    def add(self, key: Key, part: np.ndarray, copy: int) -> None:
        """Add a part, at torch's numbers (0) or at a noisy copy."""
        if key in self.several:
            self.sums[key, copy] = self.sums.get((key, copy), 0.0) + part

    def total(self, key: Key, suspects: Mapping[str, Suspect], readers: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the sum of a cotangent's parts and how far noise moves it."""
        if (key, 0) in self.sums:
            runs = [self.sums[key, i] for i in range(COPIES + 1)]
            return runs[0], spread(runs)
        return suspects[readers[0]].parts[key], suspects[readers[0]].moves[key]


def _examine(side: JaxSide, blocks: Blocks) -> tuple[dict[str, Suspect], Shared]:
    """Run every block at torch's numbers and at noisy copies of them."""
    golden = side.golden
    given = side.given("float64", golden.state, golden.inputs)
    cotangents = golden.group("double/cotangent") | golden.seed
    values = golden.group("double/activation") | golden.group("double/value")
    moves = golden.group("move/activation") | golden.group("move/value")
    singles = golden.group("single/activation") | golden.group("single/value")
    numbers = blocks.numbers(given, golden.activations)
    suspects, shared = {}, Shared(blocks.blocks)
    for name, block in blocks.blocks.items():
        suspect = suspects[name] = Suspect(block, {"value": values, "move": moves, "single": singles})
        suspect.cotangent = cotangents.get(name)
        if suspect.cotangent is None and values[name].dtype.kind == "f":
            suspect.cotangent = np.zeros(values[name].shape)
        own = {k: numbers[k] for k in block.reads}
        copies = noisy_copies(list(own.values()), _UNIT, golden.manifest["seed"])
        for i in range(COPIES + 1):
            value, parts = blocks.both(block, dict(zip(own, [c[i] for c in copies], strict=True)), suspect.cotangent)
            suspect.add(value, parts, first=i == 0)
            for key, part in parts.items():
                shared.add(key, part, i)
        suspect.forward = semantic(suspect.pair(suspect.value), name)
    return suspects, shared


def _backward(side: JaxSide, blocks: Blocks, suspects: Mapping[str, Suspect], shared: Shared) -> dict[Key, tuple[list[str], Finding]]:
    """Compare the sum of all parts with torch's cotangents; return what differs, and who reads it."""
    wrong = {}
    for key, whole in wholes(side.golden).items():
        if key.kind == "tap" and key.name not in blocks.names:
            continue
        readers = [name for name, s in suspects.items() if key in s.parts]
        none = np.zeros(whole.double.shape)
        total, move = shared.total(key, suspects, readers) if readers else (none, none)
        finding = semantic(whole.beside(total, move), f"d {key.name}")
        if finding.verdict == Verdict.REFUTED or unsettled(finding):
            wrong[key] = _guilty(side, suspects, key, readers), finding
    refuted = {key: entry for key, entry in wrong.items() if entry[1].verdict == Verdict.REFUTED}
    return refuted or wrong


def _guilty(side: JaxSide, suspects: Mapping[str, Suspect], key: Key, readers: list[str]) -> list[str]:
    """Return which of the readers may be wrong: torch's own parts acquit and convict."""
    if not readers:
        owner = key.name.rpartition(".")[0]
        return [name for name in suspects if name.partition("[")[0].partition("#")[0] == owner] or list(suspects)[-1:]
    inlets, moves, singles = (side.golden.group(f"{part}/inlet") for part in ("double", "move", "single"))
    left = []
    for name in readers:
        label = f"{name.partition('[')[0]}<{key.name}"
        if key.kind != "tap" or label not in inlets:
            left.append(name)
            continue
        part, move = suspects[name].parts[key], suspects[name].moves[key]
        theirs = moves.get(label, np.zeros(part.shape)).astype(np.float64)
        pair = Pair(part, inlets[label], move, theirs, None, singles.get(label))
        finding = semantic(pair, name)
        verdict = finding.verdict
        if verdict == Verdict.REFUTED or unsettled(finding):
            return [name]
        if verdict == Verdict.UNDECIDED:
            left.append(name)
    return left or readers


def _first_vjp(side: JaxSide, suspects: Mapping[str, Suspect], vjps: Mapping[Key, tuple[list[str], Finding]]) -> tuple[str, ...] | None:
    """Return the block whose VJP is the first to differ on the way back, or several where they cannot be told apart."""
    if not vjps:
        return None
    order = list(suspects)
    ranked = sorted(vjps.values(), key=lambda entry: (-max((order.index(r) for r in entry[0]), default=len(order)), len(entry[0])))
    readers = ranked[0][0]
    for others, _ in ranked:
        common = [name for name in readers if name in others]
        readers = common or readers
    return tuple(readers) or None
