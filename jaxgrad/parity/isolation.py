"""Which block is the first to differ by itself, forward and backward.

Every block is run alone, on torch's activations and cotangents. Forward, the first in torch's order
whose value differs is named. Backward, the parts of all blocks must add up to torch's cotangent of
each tap, parameter and input. Where they do not, the VJP of a block that reads it is wrong, or of
one that should read it, whose value then differs too: these blocks are in conflict with torch. A
parameter of a module that is named is read inside of that module. Torch's own part through one
module, recorded at the module's inlet, clears or convicts its blocks. A conflict that contains
another is explained by it; a single block in conflict is wrong alone, and of several it is not
known which.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax

from jaxgrad.jaxprs.precision import in_precision
from jaxgrad.parity.blocks import Blocks
from jaxgrad.parity.conflicts import conflicts_of, first_conflict
from jaxgrad.parity.examined import examine
from jaxgrad.parity.jax_side import JaxSide
from jaxgrad.parity.remedies import buffer_remedy, remedy
from jaxgrad.reports.finding import Finding, Verdict


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
        examined, summed = examine(side, blocks)
        forward = {
            name: s.forward
            for name, s in examined.items()
            if s.forward is not None and s.forward.verdict == Verdict.REFUTED
        }
        conflicts = conflicts_of(side, blocks, examined, summed)
        first = next(iter(forward), None)
        last = first_conflict(list(examined), list(conflicts.values()))
        failing = [name for name in (first, *(last.names if last else ())) if name is not None]
        wrong = {key: conflict.names for key, conflict in conflicts.items()}
        remedies = {
            name: remedy(side, blocks, examined, name, wrong) for name in dict.fromkeys(failing)
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
    detail = f"run alone on torch's activations it differs: {finding.detail}"
    return replace(finding, wrt=f"{finding.wrt} alone", detail=detail, diagnosis=diagnosis)
