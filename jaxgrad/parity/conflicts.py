"""Cotangents that are not the sum of their parts, and the blocks whose VJP may be why."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jaxgrad.parity.blocks import Blocks, Key
from jaxgrad.parity.examined import ExaminedBlock, SummedParts, TorchCotangent, torch_cotangents
from jaxgrad.parity.jax_side import JaxSide
from jaxgrad.parity.judging import Pair, semantic, unsettled
from jaxgrad.reports.finding import Finding, Verdict

_LISTED = 4
"""Blocks of one conflict that a finding names; the context holds all."""


class Conflict(NamedTuple):
    """A cotangent that is not the sum of its parts, and the blocks that may be wrong.

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
            f"on torch's activations and cotangents the VJP of {either} differs: "
            f"{'; '.join(filter(None, (where, self.unread)))}"
        )
        diagnosis = "; or ".join(filter(None, (remedies.get(name, "") for name in self.names)))
        if len(self.names) == 1:
            return replace(
                self.finding,
                wrt=f"{either} VJP alone",
                detail=f"run alone {detail}",
                diagnosis=diagnosis,
            )
        return replace(self.finding, wrt=f"VJP of {either}", detail=detail, diagnosis=diagnosis)


def conflicts_of(
    side: JaxSide, blocks: Blocks, examined: Mapping[str, ExaminedBlock], summed: SummedParts
) -> dict[Key, Conflict]:
    """Compare the sum of all parts with torch's cotangents; return where they differ."""
    wrong = {}
    for key, whole in torch_cotangents(side.golden).items():
        if key.kind == "tap" and key.name not in blocks.names:
            continue
        readers = [name for name, s in examined.items() if key in s.parts]
        none = np.zeros(whole.double.shape)
        total, move = summed.total(key, examined, readers) if readers else (none, none)
        finding = semantic(whole.beside(total, move), f"d {key.name}")
        if differs(finding):
            wrong[key] = _conflict(side, examined, key, whole, total, move, finding)
    refuted = {
        key: conflict
        for key, conflict in wrong.items()
        if conflict.finding.verdict == Verdict.REFUTED
    }
    return refuted or wrong


def differs(finding: Finding) -> bool:
    """Say whether a finding speaks of a difference."""
    return finding.verdict == Verdict.REFUTED or unsettled(finding)


def _conflict(
    side: JaxSide,
    examined: Mapping[str, ExaminedBlock],
    key: Key,
    whole: TorchCotangent,
    total: np.ndarray,
    move: np.ndarray,
    finding: Finding,
) -> Conflict:
    """Return the blocks whose part of a cotangent may be wrong.

    Torch's own part through one module clears or convicts that module's blocks.
    """
    readers = [name for name, s in examined.items() if key in s.parts]
    unread = (
        ""
        if any(key in s.block.reads for s in examined.values())
        else f"the port never reads {key.name}"
    )
    own_parts, moves, singles = (
        side.golden.group(f"{part}/inlet") for part in ("double", "move", "single")
    )
    modules: dict[str, list[str]] = {}
    for name in readers if key.kind == "tap" else ():
        modules.setdefault(f"{name.partition('[')[0]}<{key.name}", []).append(name)
    cleared: set[str] = set()
    for label in (k for k in modules if k in own_parts):
        names, theirs = modules[label], own_parts[label]
        part, ours = (
            np.sum([getattr(examined[n], which)[key] for n in names], axis=0)
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
            differs(alone)
            and semantic(whole.beside(total - part + theirs, move), key.name).verdict
            == Verdict.CONFIRMED
        ):
            return Conflict(
                tuple(names), alone, "" if len(names) == 1 else ", the sum of their parts", unread
            )
        if alone.verdict == Verdict.CONFIRMED:
            cleared.update(names)
    able, lacking = _may_lack(side, examined, key, readers)
    found = {*readers, *lacking} - cleared or {*able, *readers}
    of = "" if found == {*readers} and len(readers) == 1 else ", the sum of all parts"
    return Conflict(tuple(n for n in examined if n in found), finding, of, unread)


def _may_lack(
    side: JaxSide, examined: Mapping[str, ExaminedBlock], key: Key, readers: list[str]
) -> tuple[list[str], list[str]]:
    """Return the blocks that may read an array in torch, and those that do so in torch alone."""
    names, golden = list(examined), side.golden
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
        n for n in names if (c := examined[n].cotangent) is not None and np.any(c)
    ] or names  # the VJP of 0 is 0
    array = {"tap": golden.activations, "parameter": golden.state, "input": golden.inputs}[
        key.kind
    ][key.name]
    plain = bool(
        np.isin(array, (0, 1)).all()
    )  # no value shows that a term of 0 or a factor of 1 is missing
    right = [
        name
        for name, s in examined.items()
        if s.forward is not None and s.forward.verdict == Verdict.CONFIRMED
    ]
    return able, [n for n in able if n not in readers and (plain or n not in right)]


def first_conflict(order: list[str], conflicts: list[Conflict]) -> Conflict | None:
    """Return the first on the way back of the conflicts that no other explains."""
    unexplained = [
        c for c in conflicts if not any({*other.names} < {*c.names} for other in conflicts)
    ]
    return max(unexplained, key=lambda c: max(map(order.index, c.names)), default=None)
