"""What is taken back of what single pieces of evidence confirmed: they did not see all that speaks against it."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxgrad.autodiff import INSENSITIVE
from jaxgrad.compilation import check_options
from jaxgrad.problem import Problem
from jaxgrad.programs import has_own_rules, has_stop_gradient
from jaxgrad.report import Finding, Verdict


def on_trust(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back what was confirmed through a differentiation rule of the loss's own that no differences confirm."""
    unchecked = {f.wrt for f in findings} - {f.wrt for f in findings if f.evidence == "differences" and f.verdict == Verdict.CONFIRMED}
    if not unchecked or not has_own_rules(_program(problem)):
        return findings
    reason = "it takes on trust the loss's own differentiation rule, which differences of the loss do not confirm"
    return [
        replace(f, verdict=Verdict.UNDECIDED, bound=None if f.evidence == "certificate" else f.bound, detail=f"{reason}; {f.detail}")
        if f.wrt in unchecked and f.verdict == Verdict.CONFIRMED
        else f
        for f in findings
    ]


def at_odds(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take back what differences confirm where autodiff, by JAX's own rules, gives something else that rounding drowns.

    What varies over less than one unit in the last place shows in a gradient, and not in values: x² + sin(1e18 x)/1e18.
    """
    odd = {
        f.wrt
        for f in findings
        if f.evidence in ("autodiff", "expectation") and f.verdict == Verdict.UNDECIDED
        and max(f.detectable or 0.0, f.bound or 0.0) > INSENSITIVE and (f.error or 0.0) > INSENSITIVE
    }  # fmt: skip
    if not odd or has_own_rules(program := _program(problem)) or has_stop_gradient(program):
        return findings
    reason = "autodiff gives another gradient, and rounding is too large there to tell which is right"
    return [
        replace(f, verdict=Verdict.UNDECIDED, detail=f"{reason}; {f.detail}")
        if f.evidence == "differences" and f.wrt in odd and f.verdict == Verdict.CONFIRMED
        else f
        for f in findings
    ]


def at_data(problem: Problem, findings: list[Finding]) -> list[Finding]:
    """Take proofs back where data are given at which the loss or the closed form is not finite."""
    if not problem.given or not any(f.evidence == "certificate" and f.verdict == Verdict.CONFIRMED for f in findings):
        return findings
    derivation, sizes = problem.derivation, problem.choose_sizes(0)
    distribution, key = derivation.distribution(sizes), jax.random.key(problem.seed)
    mask = () if distribution is None else (distribution.sample(key, derivation.mask_shape(sizes)),)
    value = jax.jit(problem.loss, compiler_options=check_options())(problem.draw(sizes, 0), *mask)
    bad = {label for label, array in problem.claimed(sizes, 0).items() if not np.all(np.isfinite(array))}
    if np.all(np.isfinite(value)) and not bad:
        return findings
    reason = "the loss or the closed form is not finite at the data that are given"
    return [
        replace(f, verdict=Verdict.UNDECIDED, bound=None, detail=f"{reason}; {f.detail}")
        if f.evidence == "certificate" and f.verdict == Verdict.CONFIRMED and (f.wrt in bad or not np.all(np.isfinite(value)))
        else f
        for f in findings
    ]


def _program(problem: Problem) -> Any:
    sizes, derivation = problem.first_sizes, problem.derivation
    mask = () if derivation.mask is None else (jax.ShapeDtypeStruct(derivation.mask_shape(sizes), float),)
    return problem.loss.program(problem.draw(sizes, 0), *mask)[0]
