"""Which block is the first to differ by itself, forward and backward.

Every block is run alone, on torch's activations and cotangents. Forward, the first in torch's order
whose value differs is named. Backward, the parts of all blocks must add up to torch's cotangent of
each tap, parameter and input. Where they do not, the VJP of a block that reads it is wrong, or of
one that should read it, whose value then differs too: these blocks are in conflict with torch. A
parameter of a module that is named is read inside of that module. Torch's own part through one
module, recorded at the module's inlet, acquits or convicts its blocks. A conflict that contains
another is explained by it; a single block in conflict is wrong alone, and of several it is not
known which.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgrad.evidence.noise.rounding import COPIES, noisy_copies
from jaxgrad.jaxprs.precision import in_precision
from jaxgrad.parity.blocks import Block, Blocks, Key
from jaxgrad.parity.jax_side import JaxSide
from jaxgrad.parity.judging import Pair, semantic, unsettled
from jaxgrad.parity.parts import Whole, spread, wholes
from jaxgrad.parity.remedies import buffer_remedy, remedy
from jaxgrad.reports.finding import Finding, Verdict

_LISTED = 4
"""Blocks of one conflict that a finding names; the context holds all."""


class Suspect:
    """One block with all that is known of it: its value and its parts of the cotangents, and how
    far noise moves each entry.
    """

    def __init__(self, block: Block, torchs: dict[str, dict[str, np.ndarray]]) -> None:
        """Start with a block that nothing is known of."""
        self.block, self.torchs = block, torchs
        self.forward: Finding | None = None
        self.cotangent: np.ndarray | None = None
        self.value = self.move = np.zeros(())
        self.parts: dict[Key, np.ndarray] = {}
        self.moves: dict[Key, np.ndarray] = {}

    def add(self, value: np.ndarray, parts: dict[Key, np.ndarray], *, first: bool) -> None:
        """Take the results at torch's numbers, or at a noisy copy of them, of which no more than
        the move is kept.
        """
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


def isolated(
    side: JaxSide, findings: list[Finding], results: Mapping[str, Any]
) -> tuple[list[Finding], dict[str, Any]]:
    """Run every block alone, and name the first that differs.

    Args:
        side: the JAX function, after it was run on its golden.
        findings: of the comparison as a whole.
        results: of the JAX function, by kind and name.

    Returns:
        The findings, with one more for each block that differs alone and the diagnosis beside the
        first; and for the context ``first_forward``, ``first_vjp`` and ``remedies``.
    """
    with in_precision(True), jax.default_matmul_precision("highest"):
        if side.blocks is None:
            side.blocks = Blocks(side)
        blocks = side.blocks
        suspects, shared = _examine(side, blocks)
        forward = {
            name: s.forward
            for name, s in suspects.items()
            if s.forward is not None and s.forward.verdict == Verdict.REFUTED
        }
        conflicts = _backward(side, blocks, suspects, shared)
        first = next(iter(forward), None)
        last = _first_conflict(list(suspects), list(conflicts.values()))
        guilty = [name for name in (first, *(last.names if last else ())) if name is not None]
        wrong = {key: conflict.names for key, conflict in conflicts.items()}
        remedies = {
            name: remedy(side, blocks, suspects, name, wrong) for name in dict.fromkeys(guilty)
        }
    for f in findings:
        if f.verdict == Verdict.REFUTED and f.wrt.removesuffix(" updated") in results["buffer"]:
            name = f.wrt.removesuffix(" updated")
            remedies[f.wrt] = buffer_remedy(side.golden, name, results["buffer"][name])
    remedies = {k: v for k, v in remedies.items() if v}
    unread = {conflict.finding.wrt: conflict.unread for conflict in conflicts.values()}
    findings = [
        replace(f, diagnosis=remedies.get(f.wrt, f.diagnosis or unread.get(f.wrt, "")))
        for f in findings
    ]
    added = [_alone(f, remedies.get(name, "")) for name, f in forward.items()]
    if last is not None and forward.keys().isdisjoint(
        last.names
    ):  # a value that differs explains a VJP that does
        added.append(last.told(remedies))
    context = {
        "first_forward": first,
        "first_vjp": list(last.names) if last else None,
        "remedies": remedies,
    }
    return [*added, *findings], context


def _alone(finding: Finding, remedy: str) -> Finding:
    diagnosis = remedy
    detail = f"alone, on torch's activations, it differs: {finding.detail}"
    return replace(finding, wrt=f"{finding.wrt} alone", detail=detail, diagnosis=diagnosis)


class Conflict(NamedTuple):
    """A cotangent that is not the sum of its parts, and the blocks of which at least one has a
    wrong VJP.

    Attributes:
        names: of these blocks, in torch's order.
        finding: on the block's own part where that is known, or else on the sum.
        of: what the finding's figures are of, in words; empty where they are the only block's own.
        unread: words for a cotangent of something that the port never reads; or empty.
    """

    names: tuple[str, ...]
    finding: Finding
    of: str
    unread: str

    def told(self, remedies: Mapping[str, str]) -> Finding:
        """Return the finding in words."""
        either = " or ".join(
            self.names
            if len(self.names) <= _LISTED
            else (*self.names[:2], f"{len(self.names) - 2} others")
        )
        where = f"{self.finding.wrt}{self.of}, {self.finding.detail}"
        detail = (
            f"on torch's activations and cotangents, the VJP of {either} differs: "
            f"{'; '.join(filter(None, (where, self.unread)))}"
        )
        diagnosis = "; or ".join(filter(None, (remedies.get(name, "") for name in self.names)))
        if len(self.names) == 1:
            return replace(
                self.finding,
                wrt=f"{either} VJP alone",
                detail=f"alone {detail}",
                diagnosis=diagnosis,
            )
        return replace(self.finding, wrt=f"VJP of {either}", detail=detail, diagnosis=diagnosis)


class Shared:
    """The sum of all parts of each cotangent, at torch's numbers and at every noisy copy; copies
    only where several blocks add.
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
        self, key: Key, suspects: Mapping[str, Suspect], readers: list[str]
    ) -> tuple[np.ndarray, np.ndarray]:
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
    suspects, shared, unit = {}, Shared(blocks.blocks), side.unit
    for name, block in blocks.blocks.items():
        suspect = suspects[name] = Suspect(
            block, {"value": values, "move": moves, "single": singles}
        )
        suspect.cotangent = cotangents.get(name)
        if suspect.cotangent is None and values[name].dtype.kind == "f":
            suspect.cotangent = np.zeros(values[name].shape)
        own = {k: numbers[k] for k in block.reads}
        copies = noisy_copies(list(own.values()), unit, golden.manifest["seed"])
        for i in range(COPIES + 1):
            value, parts = blocks.both(
                block, dict(zip(own, [c[i] for c in copies], strict=True)), suspect.cotangent
            )
            suspect.add(value, parts, first=i == 0)
            for key, part in parts.items():
                shared.add(key, part, i)
        suspect.forward = semantic(suspect.pair(suspect.value), name)
    return suspects, shared


def _backward(
    side: JaxSide, blocks: Blocks, suspects: Mapping[str, Suspect], shared: Shared
) -> dict[Key, Conflict]:
    """Compare the sum of all parts with torch's cotangents; return where they differ."""
    wrong = {}
    for key, whole in wholes(side.golden).items():
        if key.kind == "tap" and key.name not in blocks.names:
            continue
        readers = [name for name, s in suspects.items() if key in s.parts]
        none = np.zeros(whole.double.shape)
        total, move = shared.total(key, suspects, readers) if readers else (none, none)
        finding = semantic(whole.beside(total, move), f"d {key.name}")
        if _differs(finding):
            wrong[key] = _conflict(side, suspects, key, whole, total, move, finding)
    refuted = {
        key: conflict
        for key, conflict in wrong.items()
        if conflict.finding.verdict == Verdict.REFUTED
    }
    return refuted or wrong


def _differs(finding: Finding) -> bool:
    return finding.verdict == Verdict.REFUTED or unsettled(finding)


def _conflict(
    side: JaxSide,
    suspects: Mapping[str, Suspect],
    key: Key,
    whole: Whole,
    total: np.ndarray,
    move: np.ndarray,
    finding: Finding,
) -> Conflict:
    """Return the blocks whose part of a cotangent may be wrong: torch's own parts acquit and
    convict.
    """
    readers = [name for name, s in suspects.items() if key in s.parts]
    unread = (
        ""
        if any(key in s.block.reads for s in suspects.values())
        else f"the port never reads {key.name}"
    )
    inlets, moves, singles = (
        side.golden.group(f"{part}/inlet") for part in ("double", "move", "single")
    )
    modules: dict[str, list[str]] = {}
    for name in readers if key.kind == "tap" else ():
        modules.setdefault(f"{name.partition('[')[0]}<{key.name}", []).append(name)
    acquitted: set[str] = set()
    for label in (k for k in modules if k in inlets):
        names, theirs = modules[label], inlets[label]
        part, ours = (
            np.sum([getattr(suspects[n], which)[key] for n in names], axis=0)
            for which in ("parts", "moves")
        )
        pair = Pair(
            part,
            theirs,
            ours,
            moves.get(label, np.zeros(part.shape)).astype(np.float64),
            None,
            singles.get(label),
        )
        alone = semantic(pair, finding.wrt)
        if (
            _differs(alone)
            and semantic(whole.beside(total - part + theirs, move), key.name).verdict
            == Verdict.CONFIRMED
        ):
            return Conflict(
                tuple(names), alone, "" if len(names) == 1 else ", the sum of their parts", unread
            )
        if alone.verdict == Verdict.CONFIRMED:
            acquitted.update(names)
    able, lacking = _may_lack(side, suspects, key, readers)
    found = {*readers, *lacking} - acquitted or {*able, *readers}
    of = "" if found == {*readers} and len(readers) == 1 else ", the sum of all parts"
    return Conflict(tuple(n for n in suspects if n in found), finding, of, unread)


def _may_lack(
    side: JaxSide, suspects: Mapping[str, Suspect], key: Key, readers: list[str]
) -> tuple[list[str], list[str]]:
    """Return the blocks that may read an array in torch, and those of them that may do so in torch
    alone.
    """
    names, golden = list(suspects), side.golden
    if key.kind == "tap":
        names = names[names.index(key.name) + 1 :]
    homes = {name: name.partition("[")[0].partition("#")[0] for name in names}
    aliases = [alias for alias, name in golden.manifest["aliases"].items() if name == key.name]
    owners = {name.rpartition(".")[0] for name in (key.name, *aliases)}
    if key.kind == "parameter" and owners <= {
        *homes.values()
    }:  # torch reads it inside of the modules that have it
        names = [
            name
            for name, home in homes.items()
            if any(f"{home}.".startswith(f"{owner}.") for owner in owners)
        ]
    able = [
        n for n in names if (c := suspects[n].cotangent) is not None and np.any(c)
    ] or names  # the VJP of 0 is 0
    array = {"tap": golden.activations, "parameter": golden.state, "input": golden.inputs}[
        key.kind
    ][key.name]
    plain = bool(
        np.isin(array, (0, 1)).all()
    )  # no value shows that a term of 0 or a factor of 1 is missing
    right = [
        name
        for name, s in suspects.items()
        if s.forward is not None and s.forward.verdict == Verdict.CONFIRMED
    ]
    return able, [n for n in able if n not in readers and (plain or n not in right)]


def _first_conflict(order: list[str], conflicts: list[Conflict]) -> Conflict | None:
    """Return the first on the way back of the conflicts that no other explains."""
    unexplained = [
        c for c in conflicts if not any({*other.names} < {*c.names} for other in conflicts)
    ]
    return max(unexplained, key=lambda c: max(map(order.index, c.names)), default=None)
