"""The certificate as evidence: the closed form IS the gradient, as an identity between functions.

Both sides are traced once and compared in finite fields (`jaxgrad.certificates`). For a masked loss the left side is the
gradient of its exact expectation, and the mask's probabilities are variables like any other; only where that proves nothing,
as of a loss that holds a probability as a number of its own, are they taken as they are. What a proof does not see is left to
the other evidence: kinks and ties, rounding, and whether the loss's own differentiation rules are right. A domain such as the
simplex is written in free variables, so that a formula is proved on it and not beyond.
"""

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.certificates import Certificate, certify
from jaxgrad.compilation import check_options
from jaxgrad.executables import executable
from jaxgrad.floats import floating
from jaxgrad.problem import Problem, Tree, labelled, probabilities
from jaxgrad.programs import Filled, Picked, Traceable, TracedOnce, has_own_rules, has_stop_gradient
from jaxgrad.report import Finding, Verdict

LARGEST = 4096
"""Sizes at which the inputs or the gradient have more entries than this are not proved at."""


def _cayley(a: Any) -> Any:
    skew, identity = a - jnp.swapaxes(a, -1, -2), jnp.eye(a.shape[-1])
    return jnp.linalg.solve(identity + skew, identity - skew)


_CHARTS: dict[str, Callable[[Any], Any]] = {
    "positive": lambda t: t * t,
    "simplex": lambda t: t * t / jnp.sum(t * t, axis=-1, keepdims=True),
    "spd": lambda t: t @ jnp.swapaxes(t, -1, -2),
    "orthogonal": _cayley,
}
"""Maps from free variables onto the domains that equations or signs define: a formula need only hold there."""

_BOUNDED = ("binary", "probability")
"""Domains without such a map: a difference may lie outside of them."""


def certificate(problem: Problem, sizes: Mapping[str, int], loss: Any) -> list[Finding] | str:
    """Prove or refute that the closed form is the gradient of `loss`.

    Args:
        problem: the claim.
        sizes: sizes at which to prove it.
        loss: function of the inputs and the mask's distribution (None where there is no mask); with a mask a `TracedOnce`.

    Returns:
        One finding for each array of the gradient; its `bound` is the probability that the proof is wrong, and the detail of
        a confirmation the sizes alone, for `merge`. Or the reason why there is none.
    """
    derivation, _ = problem.derivation, problem.wrt  # which draws inputs, and must not do so inside of a trace
    inputs = derivation.drawn([problem.seed], sizes)
    entries = sum(np.size(leaf) for leaf in jax.tree.leaves(inputs))
    if entries > LARGEST:
        return f"there are {entries} entries at the smallest sizes, more than the {LARGEST} that are proved at"
    distribution = derivation.distribution(sizes)
    charts = {name: _CHARTS.get(domain) if isinstance(domain, str) else None for name, domain in derivation.domains.items()}

    def on_domain(function: Traceable) -> Traceable:
        if not any(charts.values()):
            return function

        def of_free(free: dict[str, Tree], *mask: Any) -> Any:
            return function({name: jax.tree.map(chart, x) if (chart := charts.get(name)) else x for name, x in free.items()}, *mask)

        return TracedOnce(of_free)

    def claimed(function: Traceable) -> Traceable:
        return Picked(on_domain(function), lambda result: labelled(dict(result)))

    loss, closed = problem.loss if distribution is None else loss, problem.closed_form(sizes)
    args = (inputs,) if distribution is None else (inputs, probabilities(distribution))
    reference = Picked(on_domain(problem.differentiated(loss)), lambda result: labelled(result[1]))
    programs = loss.program(*args)[0], closed.program(inputs)[0]
    values = [_evaluated(program, tree) for program, tree in zip(programs, (args, inputs), strict=True)]
    odd = [name for name, domain in derivation.domains.items() if callable(domain) or domain in _BOUNDED]
    doubt = _doubt(programs[0], values)
    believed = not doubt
    doubt = doubt or (f"the domain of `{odd[0]}` may have equations, or bounds, that a proof does not know" if odd else "")
    where = " ".join(f"{name}={size}" for name, size in sizes.items()) or "these sizes"
    ways: list[tuple[Traceable, Traceable, Any, str]] = []
    if distribution is None or problem.is_general(problem.gradient, sizes):
        ways.append((claimed(problem.gradient), reference, args, where))
    if jax.tree.leaves(distribution) or not ways:
        # The loss may hold the mask's probability as a number of its own, as dropout that divides by it does, or a function ask for it.
        at_this_mask = claimed(closed), Filled(reference, args[1:]), args[:1]
        ways.append((*at_this_mask, f"{where}, the mask's probabilities as they are"))
    labels = list(claimed(closed).program(inputs)[1])
    zero = {label for label, value in zip(labels, values[1], strict=True) if not np.any(value)}
    found, where = _prove(ways, labels, problem.seed)
    for label, proof in found.items() if believed else ():
        problem.remember_ratio(sizes, label, Fraction(1) if proof.verdict == Verdict.CONFIRMED else proof.ratio)
    return [_finding(label, proof, doubt, where, label in zero) for label, proof in found.items()]


def _evaluated(program: core.ClosedJaxpr, tree: Any) -> list[Any]:
    leaves = jax.tree.leaves(tree)
    outputs = floating(program, leaves)
    return list(executable(program, leaves, check_options())(*leaves)) if outputs is None else outputs


def _prove(ways: list[tuple[Traceable, Traceable, Any, str]], labels: list[str], seed: int) -> tuple[dict[str, Certificate], str]:
    """Prove all arrays at once in one of some ways, and else one by one; return what the last way tried found, and where."""
    found, where = {}, ""
    for apart in (False, True) if len(labels) > 1 else (False,):
        for claimed, reference, args, where in ways:
            if apart:
                parts = {label: [Picked(side, operator.itemgetter(label)) for side in (reference, claimed)] for label in labels}
                found = {label: certify(*sides, *args, seed=seed) for label, sides in parts.items()}
            else:
                whole = certify(reference, claimed, *args, seed=seed)
                found = {label: dataclasses.replace(whole, seconds=whole.seconds / len(labels)) for label in labels}
            if all(proof.verdict == Verdict.CONFIRMED for proof in found.values()):
                return found, where
    return found, where


def _doubt(loss: core.ClosedJaxpr, values: list[list[Any]]) -> str:
    """Say what keeps a proof about real functions from being a verdict on these programs at these inputs; empty where nothing does."""
    if not all(np.all(np.isfinite(leaf)) for outputs in values for leaf in outputs):
        return "the loss or the closed form is not finite at a draw; give the inputs a narrower domain"
    if has_own_rules(loss):
        return "the loss is differentiated by a rule of its own"
    if has_stop_gradient(loss):
        return "the loss uses stop_gradient"
    return ""


def _finding(label: str, proof: Certificate, doubt: str, where: str, zero: bool) -> Finding:
    verdict, diagnosis = proof.verdict, ""
    if verdict == Verdict.CONFIRMED:
        detail = where
    else:
        detail = f"at {where}: {proof.reason}"
    if proof.ratio is not None:
        diagnosis = f"{label}: the closed form is {proof.ratio} times the gradient, exactly, at {where}"
    if "not finite" in doubt or (doubt and verdict == Verdict.REFUTED):
        verdict, detail, diagnosis = Verdict.UNDECIDED, f"{doubt}; {detail}", ""
    return Finding(
        evidence="certificate", wrt=label, verdict=verdict, seconds=proof.seconds, detail=detail, diagnosis=diagnosis,
        bound=proof.error_probability if verdict == Verdict.CONFIRMED else None,
        warning="vacuous: the gradient is zero" if zero and verdict == Verdict.CONFIRMED else "",
    )  # fmt: skip


def merge(runs: list[list[Finding]]) -> list[Finding]:
    """Merge the findings at several choices of sizes: proved when proved at each, refuted when refuted at one."""
    merged = []
    for findings in zip(*runs, strict=True):
        verdicts = [finding.verdict for finding in findings]
        seconds = sum(finding.seconds for finding in findings)
        worst = next((f for f in findings if f.verdict == Verdict.REFUTED), None)
        worst = worst or next((f for f in findings if f.verdict == Verdict.UNDECIDED), findings[0])
        if set(verdicts) == {Verdict.CONFIRMED}:
            bound = sum(finding.bound or 0.0 for finding in findings)
            where = " and ".join(finding.detail for finding in findings)
            detail = f"proved for all inputs in general position, at {where}; wrong with probability at most 2^{_exponent(bound)}"
            worst = dataclasses.replace(worst, bound=bound, detail=detail)
        merged.append(dataclasses.replace(worst, seconds=seconds))
    return merged


def _exponent(probability: float) -> str:
    return f"-{math.floor(-math.log2(probability))}" if probability > 0 else "-1074"
