"""What a check did not compare, and cannot see."""

from collections.abc import Sequence

import numpy as np

from jaxgrad.evidence.noise.rounding import SAFETY
from jaxgrad.parity.golden import Golden
from jaxgrad.parity.runs import Results
from jaxgrad.reports.finding import Finding, Verdict

GRADIENTS = ("parameter", "input")


def unseen(findings: Sequence[Finding]) -> str:
    """Say what a comparison at the recorded numbers cannot see."""
    alone = [
        f.wrt.removesuffix(" beyond")
        for f in findings
        if f.evidence == "probe" and not f.wrt.startswith("d ")
    ]
    but = (
        f", except for {', '.join(alone)}, which ran alone on values from 10⁻² to 10³"
        if alone
        else ""
    )
    return (
        f"values that no recorded activation takes were not tested{but}; record larger inputs "
        f"too where there are bounds"
    )


def left_out(golden: Golden, base: Results, findings: Sequence[Finding]) -> list[Finding]:
    """Tell of what was recorded and not compared, and of gradients that compare nothing."""
    out = []
    changed = [
        k
        for k, v in golden.group("double/buffer").items()
        if v.dtype.kind == "f" and k not in base["buffer"]
    ]
    if changed:
        detail = f"torch updates {', '.join(changed)}, and the JAX function does not return it"
        remedy = "return (output, {buffer name: new value}) and pass `buffers=True`"
        out.append(
            Finding(
                evidence="semantic",
                wrt="buffers",
                verdict=Verdict.UNDECIDED,
                detail=f"{detail}; {remedy}",
            )
        )

    def group(prefix: str) -> dict[str, np.ndarray]:
        return {
            f"{kind}/{k}": v
            for kind in (*GRADIENTS, "outlet")
            for k, v in golden.group(f"{prefix}/{kind}").items()
        }

    found, moved, single = group("double"), group("move"), group("single")
    with np.errstate(invalid="ignore", over="ignore"):
        between = {k: np.nan_to_num(v - found[k], nan=np.inf) for k, v in single.items()}
    output_gradients = [
        k for k in found if k.startswith("outlet/")
    ]  # where the loss gives noise alone, all else is that noise's gradient
    gradients = [k for k in found if k not in output_gradients]

    def zero(name: str) -> bool:
        limits = [
            SAFETY * float(np.max(np.abs(group[name]), initial=0.0))
            for group in (moved, between)
            if name in group
        ]
        return bool(np.all(np.abs(found[name]) <= min(limits, default=0.0)))

    if any(kinds and all(map(zero, kinds)) for kinds in (gradients, output_gradients)):
        detail = (
            "every gradient is zero up to rounding in torch: the loss depends on nothing, as the "
            "mean of a softmax; record without `loss`, or with another one"
        )
        out.append(
            Finding(evidence="semantic", wrt="gradients", verdict=Verdict.UNDECIDED, detail=detail)
        )
    elif findings and all(f.warning.startswith("vacuous") for f in findings):
        detail = "everything compared is zero up to rounding on both sides; record other inputs"
        out.append(
            Finding(evidence="semantic", wrt="everything", verdict=Verdict.UNDECIDED, detail=detail)
        )
    return out
