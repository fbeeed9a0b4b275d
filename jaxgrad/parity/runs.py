"""Runs of the JAX function beside torch's: in float64, in lower precisions, at noisy copies.

How far an entry moves under noise of one unit in the last place, on inputs and state, is what
rounding explains of it.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import jax
import numpy as np

from jaxgrad.evidence.noise.rounding import COPIES, noisy_copies
from jaxgrad.jaxprs.precision import in_precision
from jaxgrad.parity.golden import Golden
from jaxgrad.parity.jax_side import JaxSide
from jaxgrad.parity.judging import Pair, semantic, unit_of
from jaxgrad.reports.finding import Finding, Verdict

KINDS = {
    "value": "{}", "loss": "{}", "outlet": "d loss / d {}",
    "activation": "{}", "buffer": "{} updated", "cotangent": "d {}", "parameter": "d {}",
    "input": "d {}", "curvature_parameter": "dd {}", "curvature_input": "dd {}",
}  # fmt: skip
"""How the arrays of each kind are called in a report: d for a gradient, dd for a Hessian-vector
product.
"""


Results = dict[str, dict[str, np.ndarray]]


def noisy_runs(
    golden: Golden, unit: float
) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Return state and inputs as recorded, and copies with noise of one unit in the last place."""
    aliases = golden.manifest["aliases"]

    def widen(group: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in group.items()}

    state = {k: v for k, v in widen(golden.state).items() if k not in aliases}
    stacked = noisy_copies(
        {"state": state, "inputs": widen(golden.inputs)}, unit, golden.manifest["seed"]
    )
    return [
        (
            {k: v[i] for k, v in stacked["state"].items()},
            {k: v[i] for k, v in stacked["inputs"].items()},
        )
        for i in range(COPIES + 1)
    ]


def in_double(
    side: JaxSide, golden: Golden, unit: float = unit_of("float64")
) -> tuple[Results, Results]:
    """Run in float64 at the recorded numbers; return results and how far noise moves them."""
    with in_precision(True), jax.default_matmul_precision("highest"):
        runs = [side("float64", *copy) for copy in noisy_runs(golden, unit)]
    base = runs[0]
    with np.errstate(invalid="ignore"):
        moves = {
            kind: {
                k: functools.reduce(np.maximum, [np.abs(run[kind][k] - v) for run in runs[1:]])
                for k, v in group.items()
                if v.dtype.kind == "f"
            }
            for kind, group in base.items()
        }
    return base, moves


def in_single(side: JaxSide, golden: Golden, precision: str) -> tuple[list[Results], list[Results]]:
    """Run in a low precision at noisy copies, and in float64 at the same numbers."""
    copies = [
        tuple(
            {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in part.items()}
            for part in copy
        )
        for copy in noisy_runs(golden, unit_of(precision))
    ]
    with in_precision(False), jax.default_matmul_precision("highest"):
        singles = [side(precision, *copy) for copy in copies]
    with in_precision(True), jax.default_matmul_precision("highest"):
        doubles = [side("float64", *copy) for copy in copies]
    return singles, doubles


def compared(
    golden: Golden, base: Results, moves: Results, singles: Sequence[Results]
) -> Iterator[tuple[str, str, str, Pair]]:
    """Yield kind, label, name in the report, and both sides, of everything that both sides have."""
    names: set[str] = set()
    for kind, words in KINDS.items():
        theirs, their_moves, theirs_single = (
            golden.group(f"{part}/{kind}") for part in ("double", "move", "single")
        )
        if kind == "buffer":  # what torch leaves as it is was not recorded
            theirs = {k: golden.state[k] for k in base[kind]} | theirs
        labels = [
            k
            for k in (golden.manifest["order"] if kind in ("activation", "cotangent") else theirs)
            if k in theirs
        ]
        for label in labels:
            if label not in base.get(kind, {}):
                continue
            ours = base[kind][label]
            none = np.zeros(ours.shape)
            single = singles[0][kind][label] if singles else None
            pair = Pair(
                ours,
                theirs[label],
                moves[kind].get(label, none),
                their_moves.get(label, none).astype(np.float64),
                single,
                theirs_single.get(label),
            )
            wrt = words.format(label)
            wrt = f"{wrt} ({kind})" if wrt in names else wrt
            names.add(wrt)
            yield kind, label, wrt, pair


class Absorbed:
    """What rounding inside of our function explains, measured once something differs.

    Noise on inputs does not see what floating point absorbs alike every time: (x + 1e30) − 1e30 is
    0 in torch, and x where XLA has simplified it. Random rounding of every operation does. Where
    torch casts to float32, and our function too, the noise is float32's.
    """

    def __init__(self, side: JaxSide, golden: Golden) -> None:
        """Keep what is run again, where something differs."""
        self.side, self.golden = side, golden
        self.explained: list[Finding] = []

    @functools.cached_property
    def _moves(self) -> list[tuple[Results, str]]:
        with in_precision(True), jax.default_matmul_precision("highest"):
            moves = self.side.moved_by_rounding(*noisy_runs(self.golden, 0.0)[0]) or {}
        told = ", as where something large is added and subtracted again; check at other inputs too"
        if self.side.unit == unit_of("float64"):
            return [(moves, told)]
        low = in_double(self.side, self.golden, self.side.unit)[1]
        cast = (
            ", since it casts to float32; cast to jnp.promote_types(x.dtype, jnp.float32), "
            "which keeps float64, and check again"
        )
        return [(moves, told), (low, cast)]

    def judged(self, finding: Finding, kind: str, label: str, pair: Pair) -> Finding:
        """Take a refutation back where rounding inside of our function moves the array as far."""
        if finding.verdict != Verdict.REFUTED or finding.error is None:
            return finding
        for results, told in self._moves:
            moves = results.get(kind, {}).get(label, np.zeros(pair.ours.shape))
            if (
                semantic(
                    pair._replace(our_move=np.maximum(pair.our_move, moves)), finding.wrt
                ).verdict
                != Verdict.REFUTED
            ):
                size = float(np.abs(pair.ours).max(initial=0.0)) or 1.0
                up_to = (
                    f"changes it by up to {float(np.max(moves)) / size:.1g} of its largest entry"
                )
                detail = f"{finding.detail}; rounding inside the JAX function alone {up_to}{told}"
                self.explained.append(replace(finding, verdict=Verdict.UNDECIDED, detail=detail))
                return self.explained[-1]
        return finding
