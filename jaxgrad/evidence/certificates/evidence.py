"""The certificate as evidence: the closed form IS the gradient, as an identity between functions.

Both sides are traced once and compared in finite fields (`jaxgrad.evidence.certificates.certify`).
For a masked loss the left side is the gradient of its exact expectation, and the mask's
probabilities are variables like any other; only where that proves nothing, as of a loss that holds
a probability as a number of its own, are they taken as they are. What a proof does not see is left
to the other evidence: kinks and ties, rounding, and whether the loss's own differentiation rules
are right. A domain such as the simplex is written in free variables, so that a formula is proved on
it and not beyond; labels and other discrete inputs take each of their values
(`jaxgrad.claims.labels`).
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

from jaxgrad.claims.labels import Values, branches_on, is_smooth
from jaxgrad.claims.labels import values as values_of
from jaxgrad.evidence.certificates.certify import Certificate, certify, certify_within
from jaxgrad.evidence.problem import Problem, Tree, labelled, probabilities
from jaxgrad.jaxprs.cost import Meter
from jaxgrad.jaxprs.traced import (
    Filled,
    Picked,
    Traceable,
    TracedOnce,
    Unstopped,
    has_own_rules,
    has_stop_gradient,
)
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.runtime.compiled import evaluated
from jaxgrad.runtime.options import check_options

VAIN = 4.0
"""So many times over what was spent in vain is taken from what a claim's further certificates may
cost.
"""
LARGEST = 4096
"""Sizes at which the inputs or the gradient have more entries than this are not proved at."""


def _cayley(a: Any) -> Any:
    skew, identity = a - jnp.swapaxes(a, -1, -2), jnp.eye(a.shape[-1])
    return jnp.linalg.solve(identity + skew, identity - skew)


def _turned(a: Any) -> Any:
    """Return Cayley's rotation, its first column times the sign of an entry that the rotation does
    not use.
    """
    rotation = _cayley(a)
    return jnp.concatenate(
        [rotation[..., :1] * jnp.sign(a[..., :1, :1]), rotation[..., 1:]], axis=-1
    )


_STOPPED = "the loss uses stop_gradient"

_CHARTS: dict[str, Callable[[Any], Any]] = {
    "positive": lambda t: t * t,
    "probability": lambda t: t * t / (1 + t * t),
    "simplex": lambda t: t * t / jnp.sum(t * t, axis=-1, keepdims=True),
    "spd": lambda t: t @ jnp.swapaxes(t, -1, -2),
    "orthogonal": _cayley,
}
"""Maps from free variables onto the domains that equations or signs define: a formula need only
hold there.
"""
_WHOLE_CHARTS = {**_CHARTS, "orthogonal": _turned}
"""The same where those reach a part alone, on which a difference is exact: these have branches, and
reach reflections too.
"""


@dataclasses.dataclass(frozen=True)
class _Way:
    """A way to prove a claim: two functions to compare, and their arguments.

    Attributes:
        claimed: the closed form.
        reference: the gradient.
        args: what both are functions of.
        where: the sizes and whatever else the proof is restricted to.
        partial: why a proof this way is no proof of the whole claim; empty where it is one.
        doubt: why a refutation this way is none of the claim; empty where it is one.
    """

    claimed: Traceable
    reference: Traceable
    args: tuple[Any, ...]
    where: str
    partial: str = ""
    doubt: str = ""

    def at(self, values: Values) -> "_Way":
        """Return the same way at values of the discrete inputs."""
        partial = (
            ""
            if values.every
            else f"proved at {values.words} that were drawn, and there are others"
        )
        where = f"{self.where} with {values.words}"
        return dataclasses.replace(
            self,
            claimed=values.fill(self.claimed),
            reference=values.fill(self.reference),
            where=where,
            partial=partial,
            doubt="",
        )

    def of(self, label: str) -> "_Way":
        """Return the same way for one array of the gradient."""
        pick = operator.itemgetter(label)
        return dataclasses.replace(
            self, claimed=Picked(self.claimed, pick), reference=Picked(self.reference, pick)
        )


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
            f"there are {entries} entries at the smallest sizes, more than the {LARGEST} that "
            f"are proved at"
        )
    distribution = derivation.distribution(sizes)
    domains = {
        name: domain
        for name, domain in derivation.domains.items()
        if isinstance(domain, str) and domain in _CHARTS
    }
    atlas = [_CHARTS, _WHOLE_CHARTS] if "orthogonal" in domains.values() else [_CHARTS]

    def on_domain(function: Traceable) -> Traceable:
        if not domains:
            return function

        def of_free(free: dict[str, Tree], *mask: Any) -> Any:
            points = [
                {
                    n: jax.tree.map(charts[domains[n]], x) if n in domains else x
                    for n, x in free.items()
                }
                for charts in atlas
            ]
            return jax.tree.map(
                lambda *sides: jnp.stack(sides), *(function(point, *mask) for point in points)
            )

        return TracedOnce(of_free)

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

    def proofs(of: Traceable) -> dict[str, tuple[Certificate, _Way]]:
        """Prove that the closed form is the gradient of a loss."""
        reference = Picked(
            on_domain(problem.differentiated(of)), lambda result: labelled(result[1])
        )
        ways = []
        if distribution is None or problem.is_general(problem.gradient, sizes):
            ways.append(_Way(claimed(problem.gradient), reference, args, where))
        if jax.tree.leaves(distribution) or not ways:
            # The loss may hold a probability as a number of its own, as dropout that divides by it
            # does, or a function ask for it.
            at_this_mask = claimed(closed), Filled(reference, args[1:]), args[:1]
            ways.append(_Way(*at_this_mask, f"{where}, the mask's probabilities as they are"))
        return _prove(_on_domains(problem, sizes, ways, entries), labels, problem)

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
    """Say what a proof without stop_gradient leaves of the doubt that a refutation with it is
    none.
    """
    match slope.verdict:
        case Verdict.REFUTED:
            return ""
        case Verdict.CONFIRMED:
            return f"{_STOPPED}, and the closed form is the slope of its value"
    return _STOPPED


def _on_domains(
    problem: Problem, sizes: Mapping[str, int], ways: list[_Way], entries: int
) -> list[_Way]:
    """Return the ways that prove or refute on the domains of the inputs."""
    derivation = problem.derivation
    discrete = problem.discrete(sizes)
    unknown = [
        name
        for name, domain in derivation.domains.items()
        if callable(domain) and name not in discrete
    ]
    doubt = (
        f"the domain of `{unknown[0]}` may have equations, or bounds, that a proof does not know"
        if unknown
        else ""
    )
    ways = [dataclasses.replace(way, doubt=doubt) for way in ways]
    likely = problem.likely_labels
    if likely and any(
        branches_on(side, _marked(way, likely)) for way in ways for side in _programs(way)
    ):
        first = min(likely)
        hint = (
            f"`{first}` is given in few values; if these are labels, name their domain, such "
            f"as 'binary' or 'index n', in `domains`"
        )
        ways = [dataclasses.replace(way, doubt=hint, partial=hint) for way in ways]
    if not discrete:
        return ways
    listed = values_of(derivation, sizes, discrete, entries, problem.seed)
    fixed = [dataclasses.replace(way.at(listed), doubt=doubt) for way in ways]
    outside = f"the values of {', '.join(sorted(discrete))} are no others"
    free = [
        dataclasses.replace(way, doubt=outside)
        for way in ways
        if not listed.every and _is_smooth(way, discrete)
    ]
    return free + fixed


def _is_smooth(way: _Way, discrete: set[str]) -> bool:
    """Say whether discrete inputs may be any real numbers in a proof: both sides are smooth in
    them.
    """
    if not all(
        jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in jax.tree.leaves(way.args)
    ):
        return False
    return all(is_smooth(program, _marked(way, discrete)) for program in _programs(way))


def _marked(way: _Way, names: set[str]) -> list[bool]:
    """Mark these inputs among all arguments of a way."""
    marked = [name in names for name, x in sorted(way.args[0].items()) for _ in jax.tree.leaves(x)]
    return marked + [False] * (len(jax.tree.leaves(way.args)) - len(marked))


def _programs(way: _Way) -> list[core.Jaxpr]:
    return [side.program(*way.args)[0].jaxpr for side in (way.claimed, way.reference)]


def _prove(
    ways: list[_Way], labels: list[str], problem: Problem
) -> dict[str, tuple[Certificate, _Way]]:
    """Prove all arrays at once in one of some ways, and else one by one; return of each what proved
    it, or the last that was tried.
    """
    found: dict[str, tuple[Certificate, _Way]] = {}
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


def _certified(way: _Way, problem: Problem) -> Certificate:
    """Try a way; the more was spent in vain on other arrays of the claim, or at other sizes, the
    less is spent now.
    """
    vain = problem.once("work in vain", Meter)
    meter = Meter(before := VAIN * vain.spent)
    found = certify_within(meter, way.reference, way.claimed, *way.args, seed=problem.seed)
    if found.verdict == Verdict.UNDECIDED:
        vain.spent += meter.spent - before
    return found


def _is_proof(proof: Certificate, way: _Way) -> bool:
    return proof.verdict == Verdict.CONFIRMED and not way.partial


def _doubt(loss: core.ClosedJaxpr, values: list[list[Any]]) -> str:
    """Say what keeps a proof about real functions from being a verdict on these programs at these
    inputs; empty where nothing does.
    """
    if not all(np.all(np.isfinite(leaf)) for outputs in values for leaf in outputs):
        return (
            "the loss or the closed form is not finite at a draw; give the inputs a narrower domain"
        )
    if has_own_rules(loss):
        return "the loss is differentiated by a rule of its own"
    if has_stop_gradient(loss):
        return _STOPPED
    return ""


def _finding(label: str, proof: Certificate, way: _Way, doubt: str, zero: bool) -> Finding:
    verdict, diagnosis, reason, detail = proof.verdict, "", "", f"at {way.where}: {proof.reason}"
    if verdict == Verdict.CONFIRMED:
        detail = way.where
        reason = doubt if "not finite" in doubt else way.partial
    if proof.ratio is not None:
        diagnosis = (
            f"{label}: the closed form is {proof.ratio} times the gradient, exactly, at {way.where}"
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


def _is_zero(way: _Way, seed: int) -> bool:
    """Say whether the gradient is zero everywhere."""
    nothing = TracedOnce(lambda *args: jax.tree.map(jnp.zeros_like, way.claimed(*args)))
    return certify(way.claimed, nothing, *way.args, seed=seed).verdict == Verdict.CONFIRMED


def merge(runs: list[list[Finding]]) -> list[Finding]:
    """Merge the findings at several choices of sizes: proved when proved at each, refuted when
    refuted at one.
    """
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
