"""What rounding inside the JAX function explains, where noise on its inputs does not."""

import functools
from dataclasses import replace

import jax
import numpy as np

from jaxgrad.jaxprs.precision import in_precision
from jaxgrad.parity.golden import Golden
from jaxgrad.parity.jax_side import JaxSide
from jaxgrad.parity.judging import Pair, semantic, unit_of
from jaxgrad.parity.runs import Results, in_double, noisy_runs
from jaxgrad.reports.finding import Finding, Verdict


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
