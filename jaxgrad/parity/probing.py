"""Modules without parameters, alone, on numbers that no activation reaches.

A ReLU6 whose inputs stay below 6 is a ReLU to every comparison. So each module that has neither
parameters nor draws, takes one tensor and changes it, runs once more, alone, on values of both
signs whose sizes lie between 10⁻² and 10³, forward and backward; and so does the port's block that
stands for it, where that reads the module's input as a tap and nothing else.

A softmax written as eˣ / Σ eˣ is right wherever it can be computed, and in float32 that is below
88. So what is the same in float64 runs in float32 too, where it must be finite wherever torch's
float32 is.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxgrad.evidence.noise.rounding import COPIES, GAP, SAFETY, noisy_copies
from jaxgrad.jaxprs.precision import in_precision
from jaxgrad.parity.blocks import Blocks, Key
from jaxgrad.parity.conventions import attempts
from jaxgrad.parity.examined import spread
from jaxgrad.parity.golden import Golden
from jaxgrad.parity.jax_side import JaxSide
from jaxgrad.parity.judging import Pair, semantic, unsettled
from jaxgrad.parity.rewriting.module_block import ModuleBlock
from jaxgrad.reports.finding import Finding, Verdict

SIZES = (-2.0, 3.0)
"""Decimal logarithms of the sizes."""
TRIED = 60
"""Changes that are tried where a module differs."""

_UNIT = float(np.finfo(np.float64).eps)
_SINGLE, _TINY = (float(getattr(np.finfo(np.float32), name)) for name in ("eps", "tiny"))
_WHERE = "run alone on values from 10⁻² to 10³"


def values(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return numbers of many sizes and both signs, exact in float32.

    >>> values((2, 2), np.random.default_rng(0)).round(2).tolist()
    [[-15.3, 0.22], [0.02, 0.01]]
    """
    sizes = 10.0 ** rng.uniform(*SIZES, shape)
    return (sizes * rng.choice((-1.0, 1.0), shape)).astype(np.float32).astype(np.float64)


def probed(side: JaxSide, golden: Golden) -> list[Finding]:
    """Compare every module that torch probed with the block that stands for it.

    Args:
        side: the JAX function, after it was run on the golden.
        golden: what torch computed.

    Returns:
        Two findings for each, of its value and of its VJP; none for modules whose block reads
        anything but the module's input.
    """
    recorded = golden.group("probe")
    partners = set((side.partners or {}).values())
    if not any(label in partners for label in recorded):
        return []
    found: list[Finding] = []
    with in_precision(False), jax.default_matmul_precision("highest"):
        low = Blocks(side, "float32")
    with in_precision(True), jax.default_matmul_precision("highest"):
        if side.blocks is None:
            side.blocks = Blocks(side)
        for label, x in recorded.items():
            block = side.blocks.blocks.get(label)
            sources = (
                {f"{label}<{key.name}" for key in block.reads if key.kind == "tap"}
                if block is not None
                else set()
            )
            if (
                block is None
                or len(block.reads) != 1
                or not sources & set(golden.manifest["inlets"])
            ):
                continue
            found += _compared(
                side, low, golden, label, next(iter(block.reads)), x.astype(np.float64)
            )
    return found


def _compared(
    side: JaxSide, low: Blocks, golden: Golden, label: str, key: Key, x: np.ndarray
) -> Iterator[Finding]:
    blocks, block = side.blocks, side.blocks.blocks[label]
    raw = blocks._raw(blocks.names[key.name], x)
    c = golden.group("probe_seed")[label].astype(np.float64)
    copies = noisy_copies([raw], _UNIT, golden.manifest["seed"])[0]
    runs = [blocks.both(block, {key: copies[i]}, c) for i in range(COPIES + 1)]
    case = ModuleBlock(
        block,
        dict(golden.manifest["modules"].get(label.partition("#")[0], {}).get("options", {})),
        {},
    )
    sides = {"probe": [value for value, _ in runs], "probe_vjp": [parts[key] for _, parts in runs]}
    with in_precision(False), jax.default_matmul_precision("highest"):
        value, parts = low.both(
            low.blocks[label], {key: raw.astype(np.float32)}, c.astype(np.float32)
        )
    singles = {"probe": value, "probe_vjp": parts[key]}
    for kind, ours in sides.items():
        theirs, move, single = (
            golden.group(f"{part}/{kind}").get(label) for part in ("double", "move", "single")
        )
        if theirs is None or move is None:
            continue
        pair = Pair(ours[0], theirs, spread(ours), move.astype(np.float64), None, single)
        finding = semantic(
            pair, f"{label} beyond" if kind == "probe" else f"d {label} beyond", evidence="probe"
        )

        def works(substitutes: Any, kind: str = kind, pair: Pair = pair) -> bool:
            value, parts = blocks.both(block, {key: raw}, c, substitutes)
            changed = pair._replace(ours=value if kind == "probe" else parts[key])
            return semantic(changed, "").verdict == Verdict.CONFIRMED

        told = _told(
            finding,
            pair,
            _remedy(case, works) if finding.verdict == Verdict.REFUTED else "",
        )
        yield _in_single(told, singles[kind], single)


def _remedy(case: ModuleBlock, works: Callable[[Any], bool]) -> str:
    for _, attempt in zip(range(TRIED), attempts(case), strict=False):
        try:
            with np.errstate(all="ignore"):
                if works(attempt.substitutes):
                    return attempt.words
        except Exception:  # a change that does not fit fails in whatever way JAX chooses
            continue
    return ""


def _in_single(finding: Finding, ours: np.ndarray, theirs: np.ndarray | None) -> Finding:
    """Refute what is right in float64 and not finite in float32, where torch's is."""
    if finding.verdict != Verdict.CONFIRMED or theirs is None or ours.shape != theirs.shape:
        return finding
    lost = np.argwhere(np.isfinite(theirs) & ~np.isfinite(ours))
    if not len(lost):
        return finding
    at = tuple(int(i) for i in lost[0])
    entry = f"[{', '.join(map(str, at))}], {ours[at]:.8g} where torch's is {theirs[at]:.8g}"
    detail = (
        f"{_WHERE}, in float32: not finite in {len(lost)} of {ours.size} entries, first in "
        f"{entry}; in float64 it is right"
    )
    return replace(finding, verdict=Verdict.REFUTED, detail=detail, error=None, bound=None)


def _told(finding: Finding, pair: Pair, remedy: str) -> Finding:
    """Say where it was found; what float32 cannot resolve is neither refuted nor confirmed."""
    verdict, bound, detail = (
        finding.verdict,
        finding.bound,
        f"{_WHERE}: {finding.detail or finding.warning}",
    )
    if (
        pair.ours.shape == pair.theirs.shape
        and np.isfinite(pair.ours).all()
        and finding.error is not None
        and bound is not None
    ):
        between = (
            0.0
            if pair.theirs_single is None
            else SAFETY * np.abs(pair.theirs_single.astype(np.float64) - pair.theirs)
        )
        resolved = np.maximum(_SINGLE * np.maximum(np.abs(pair.theirs), _TINY), between)
        fine = bool(np.all(np.abs(pair.ours - pair.theirs) <= resolved))
        if verdict == Verdict.REFUTED and fine:
            verdict, detail = Verdict.UNDECIDED, f"{detail}; float32 would not show it"
        elif (
            verdict == Verdict.UNDECIDED
            and fine
            and not unsettled(finding)
            and finding.error <= GAP * bound
        ):
            verdict, bound, detail = (
                Verdict.CONFIRMED,
                GAP * bound,
                f"{_WHERE}: {pair.ours.size} entries",
            )
    return replace(finding, verdict=verdict, bound=bound, detail=detail, diagnosis=remedy)
