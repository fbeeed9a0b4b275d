"""Findings with their diagnoses: what `verify` shows of a claim that is not confirmed.

A refuted gradient is diagnosed. For one that is undecided because of rounding, the step that loses
digits is named. A diagnosis never changes a verdict. Where it fails, the findings stay as they are.
"""

import dataclasses
from collections.abc import Sequence

from jaxgrad.diagnosis.cancellation import cancellations
from jaxgrad.diagnosis.cases import LossOf, tolerated
from jaxgrad.diagnosis.trials import diagnose
from jaxgrad.evidence.problem import Problem
from jaxgrad.reports.finding import Finding, Verdict, combine


def explain(problem: Problem, findings: Sequence[Finding], loss_of: LossOf) -> list[Finding]:
    """Return the findings, with a diagnosis where one is found.

    Args:
        problem: the claim.
        findings: all findings on it.
        loss_of: as of `jaxgrad.diagnosis.diagnose`.
    """
    by_input = {
        wrt: combine([f.verdict for f in findings if f.wrt == wrt])
        for wrt in dict.fromkeys(f.wrt for f in findings)
    }
    refuted = [wrt for wrt, verdict in by_input.items() if verdict == Verdict.REFUTED]
    rounded = [
        f.wrt for f in findings if by_input[f.wrt] == Verdict.UNDECIDED and "rounding" in f.detail
    ]
    sentences: dict[str, str] = {}
    with tolerated():
        if refuted:
            found = diagnose(problem, refuted, loss_of)
            sentences |= {label: str(diagnosis) for label, diagnosis in found.items()}
        if rounded:
            lost = cancellations(problem, rounded)
            sentences |= {label: diagnosis.sentence for label, diagnosis in lost.items()}
    return [
        dataclasses.replace(f, diagnosis=sentences[f.wrt])
        if f.wrt in sentences and f.verdict == by_input[f.wrt]
        else f
        for f in findings
    ]
