"""The certificate as evidence: the closed form IS the gradient, as an identity between functions.

Both sides are traced once and compared in finite fields (`jaxgrad.evidence.certificates.certify`).
For a masked loss the left side is the gradient of its exact expectation, and the mask's
probabilities are variables like any other. Only where that proves nothing, as of a loss that holds
a probability as a number of its own, are they taken as they are. What a proof does not see is left
to the other evidence: kinks and ties, rounding, and whether the loss's own differentiation rules
are right.
"""

import dataclasses
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.evidence.certificates.certify import Certificate, certify, certify_within
from jaxgrad.evidence.certificates.ways import Way, on_domains, parametrised
from jaxgrad.evidence.problem import Problem, labelled, probabilities
from jaxgrad.jaxprs.cost import Meter
from jaxgrad.jaxprs.programs import has_own_rules, has_stop_gradient
from jaxgrad.jaxprs.traced import Filled, Picked, Traceable, TracedOnce, Unstopped
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.runtime.compiled import evaluated
from jaxgrad.runtime.options import check_options

FAILED = 4.0
"""So many times the work of failed proofs is taken from what further proofs of a claim may cost."""
LARGEST = 4096
"""Where the inputs have more entries than this, no proof is tried."""


_STOPPED = "the loss uses stop_gradient"


def certificate(problem: Problem, sizes: Mapping[str, int], loss: Any) -> list[Finding] | str:
    """Prove or refute that the closed form is the gradient of `loss`.

    Args:
        problem: the claim.
        sizes: sizes at which to prove it.
        loss: function of the inputs and the mask's distribution (None where there is no mask); with
            a mask a `TracedOnce`.

    Returns:
        One finding for each array of the gradient; its `bound` is the probability that the proof is
        wrong, and the detail of a confirmation the sizes alone, for `merge`. Or the reason why
        there is none.
    """
    derivation, _ = (
        problem.derivation,
        problem.wrt,
    )  # which draws inputs, and must not do so inside of a trace
    inputs = derivation.drawn([problem.seed], sizes)
    entries = sum(np.size(leaf) for leaf in jax.tree.leaves(inputs))
    if entries > LARGEST:
        return (
            f"the inputs have {entries} entries at the smallest sizes; proofs are tried with at "
            f"most {LARGEST}"
        )
    distribution = derivation.distribution(sizes)
    on_domain = parametrised(derivation.domains)

    def claimed(function: Traceable) -> Traceable:
        return Picked(on_domain(function), lambda result: labelled(dict(result)))

    loss, closed = problem.loss if distribution is None else loss, problem.closed_form(sizes)
    args = (inputs,) if distribution is None else (inputs, probabilities(distribution))
    programs = loss.program(*args)[0], closed.program(inputs)[0]
    leaves = map(jax.tree.leaves, (args, inputs))
    values = [
        evaluated(program, flat, check_options())
        for program, flat in zip(programs, leaves, strict=True)
    ]
    where = " ".join(f"{name}={size}" for name, size in sizes.items()) or "these sizes"
    labels = list(claimed(closed).program(inputs)[1])

    def proofs(of: Traceable) -> dict[str, tuple[Certificate, Way]]:
        """Prove that the closed form is the gradient of a loss."""
        reference = Picked(
            on_domain(problem.differentiated(of)), lambda result: labelled(result[1])
        )
        ways = []
        if distribution is None or problem.is_general(problem.gradient, sizes):
            ways.append(Way(claimed(problem.gradient), reference, args, where))
        if jax.tree.leaves(distribution) or not ways:
            # The loss may hold a probability as a number of its own, as dropout that divides by it
            # does, or a function ask for it.
            at_this_mask = claimed(closed), Filled(reference, args[1:]), args[:1]
            ways.append(Way(*at_this_mask, f"{where}, the mask's probabilities as they are"))
        return _prove(on_domains(problem, sizes, ways, entries), labels, problem)

    found = proofs(loss)
    doubts = dict.fromkeys(labels, _doubt(programs[0], values))
    wrong = [label for label, (proof, _) in found.items() if proof.verdict == Verdict.REFUTED]
    if wrong and doubts[wrong[0]] == _STOPPED:
        slopes = proofs(Unstopped(loss))
        doubts |= {label: _left(slopes[label][0]) for label in wrong}
    for label, (proof, way) in found.items():
        if not doubts[label] and not way.partial:
            problem.remember_ratio(
                sizes, label, Fraction(1) if proof.verdict == Verdict.CONFIRMED else proof.ratio
            )
    zero = {label for label, value in zip(labels, values[1], strict=True) if not np.any(value)}
    zero = {
        label
        for label in zero
        if _is_proof(*found[label]) and _is_zero(found[label][1].of(label), problem.seed)
    }
    return [
        _finding(label, proof, way, doubts[label], label in zero)
        for label, (proof, way) in found.items()
    ]


def _left(slope: Certificate) -> str:
    """Say what doubt is left of a refutation, given the proof without stop_gradient."""
    match slope.verdict:
        case Verdict.REFUTED:
            return ""
        case Verdict.CONFIRMED:
            return f"{_STOPPED}, and the closed form is the slope of its value"
    return _STOPPED


def _prove(
    ways: list[Way], labels: list[str], problem: Problem
) -> dict[str, tuple[Certificate, Way]]:
    """Prove all arrays at once in one of some ways, and else one by one.

    Returns for each array what proved it, or the last that was tried.
    """
    found: dict[str, tuple[Certificate, Way]] = {}
    for apart in (False, True) if len(labels) > 1 else (False,):
        for way in ways:
            if apart:
                left = [label for label in labels if not _is_proof(*found[label])]
                proofs = {label: _certified(way.of(label), problem) for label in left}
            else:
                whole = _certified(way, problem)
                proofs = {
                    label: dataclasses.replace(whole, seconds=whole.seconds / len(labels))
                    for label in labels
                }
            found |= {label: (proof, way) for label, proof in proofs.items()}
            if all(_is_proof(*one) for one in found.values()):
                return {label: found[label] for label in labels}
    return {label: found[label] for label in labels}


def _certified(way: Way, problem: Problem) -> Certificate:
    """Try a way, with less work the more was spent in vain on this claim before."""
    failed = problem.once("failed proofs", Meter)
    meter = Meter(before := FAILED * failed.spent)
    found = certify_within(meter, way.reference, way.claimed, *way.args, seed=problem.seed)
    if found.verdict == Verdict.UNDECIDED:
        failed.spent += meter.spent - before
    return found


def _is_proof(proof: Certificate, way: Way) -> bool:
    return proof.verdict == Verdict.CONFIRMED and not way.partial


def _doubt(loss: core.ClosedJaxpr, values: list[list[Any]]) -> str:
    """Say why a proof about real functions is no verdict on these programs; empty where it is."""
    if not all(np.all(np.isfinite(leaf)) for outputs in values for leaf in outputs):
        return (
            "the loss or the closed form is not finite at a draw; give the inputs a narrower domain"
        )
    if has_own_rules(loss):
        return "the loss is differentiated by a rule of its own"
    if has_stop_gradient(loss):
        return _STOPPED
    return ""


def _finding(label: str, proof: Certificate, way: Way, doubt: str, zero: bool) -> Finding:
    verdict, diagnosis, reason, detail = proof.verdict, "", "", f"at {way.where}: {proof.reason}"
    if verdict == Verdict.CONFIRMED:
        detail = way.where
        reason = doubt if "not finite" in doubt else way.partial
    if proof.ratio is not None:
        diagnosis = (
            f"{label}: the closed form is exactly {proof.ratio} times the gradient, at {way.where}"
        )
    if verdict == Verdict.REFUTED:
        reason = doubt or way.doubt
    if reason:
        verdict, detail, diagnosis = Verdict.UNDECIDED, f"{reason}; {detail}", ""
    return Finding(
        evidence="certificate",
        wrt=label,
        verdict=verdict,
        seconds=proof.seconds,
        detail=detail,
        diagnosis=diagnosis,
        bound=proof.error_probability if verdict == Verdict.CONFIRMED else None,
        warning="vacuous: the gradient is zero" if zero and verdict == Verdict.CONFIRMED else "",
    )


def _is_zero(way: Way, seed: int) -> bool:
    """Say whether the gradient is zero everywhere."""
    nothing = TracedOnce(lambda *args: jax.tree.map(jnp.zeros_like, way.claimed(*args)))
    return certify(way.claimed, nothing, *way.args, seed=seed).verdict == Verdict.CONFIRMED


def merge(runs: list[list[Finding]]) -> list[Finding]:
    """Merge findings at several sizes: proved when proved at each, refuted when refuted at one."""
    merged = []
    for findings in zip(*runs, strict=True):
        verdicts = [finding.verdict for finding in findings]
        seconds = sum(finding.seconds for finding in findings)
        worst = next((f for f in findings if f.verdict == Verdict.REFUTED), None)
        worst = worst or next((f for f in findings if f.verdict == Verdict.UNDECIDED), findings[0])
        if set(verdicts) == {Verdict.CONFIRMED}:
            bound = sum(finding.bound or 0.0 for finding in findings)
            where = " and ".join(finding.detail for finding in findings)
            detail = (
                f"proved for all inputs in general position, at {where}; wrong with "
                f"probability at most 2^{_exponent(bound)}"
            )
            worst = dataclasses.replace(worst, bound=bound, detail=detail)
        merged.append(dataclasses.replace(worst, seconds=seconds))
    return merged


def _exponent(probability: float) -> str:
    return f"-{math.floor(-math.log2(probability))}" if probability > 0 else "-1074"
