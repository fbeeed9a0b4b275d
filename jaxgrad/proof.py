"""The certificate as evidence: the closed form IS the gradient, as an identity between functions.

Both sides are traced once and compared in finite fields (`jaxgrad.certificates`). For a masked loss the left side is the
gradient of its exact expectation, and the mask's probabilities are variables like any other: a formula that is right only
for p = ½ fails. What a proof does not see is left to the other evidence: kinks and ties, rounding, and whether the loss's own
differentiation rules are right.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad.certificates import Certificate, certify
from jaxgrad.compilation import check_options
from jaxgrad.problem import Problem, Tree, gradient_of, labelled
from jaxgrad.programs import has_own_rules, has_stop_gradient
from jaxgrad.report import Finding, Verdict

LARGEST = 4096
"""Sizes at which the inputs or the gradient have more entries than this are not proved at."""

Loss = Callable[[dict[str, Tree], Any], Any]


def certificate(problem: Problem, sizes: Mapping[str, int], loss: Loss) -> list[Finding] | str:
    """Prove or refute that the closed form is the gradient of `loss`.

    Args:
        problem: the claim.
        sizes: sizes at which to prove it.
        loss: function of the inputs and the mask's distribution (None where there is no mask).

    Returns:
        One finding for each array of the gradient; its `bound` is the probability that the proof is wrong. Or the reason
        why there is none.
    """
    derivation, wrt = problem.derivation, problem.wrt
    inputs = derivation.arrays(jax.random.key(problem.seed), sizes)
    entries = sum(np.size(leaf) for leaf in jax.tree.leaves(inputs))
    if entries > LARGEST:
        return f"there are {entries} entries at the smallest sizes, more than the {LARGEST} that are proved at"
    distribution = derivation.distribution(sizes)
    gradient = derivation.gradient

    def claimed(inputs: dict[str, Tree], mask: Any) -> dict[str, Any]:
        return labelled(dict(gradient(**inputs, **({} if mask is None else {"mask": mask}))))

    def reference(inputs: dict[str, Tree], mask: Any) -> dict[str, Any]:
        return labelled(gradient_of(lambda x: loss(x, mask), inputs, wrt))

    args = inputs, jax.tree.map(lambda leaf: jnp.asarray(leaf, float), distribution)
    doubt = _doubt(claimed, lambda x, mask: loss(x, mask), args)
    found = _prove(claimed, reference, args, problem.seed)
    where = " ".join(f"{name}={size}" for name, size in sizes.items()) or "these sizes"
    return [_finding(label, proof, doubt, where) for label, proof in found.items()]


def _prove(claimed: Any, reference: Any, args: Any, seed: int) -> dict[str, Certificate]:
    """Prove all arrays at once, and one by one where that fails."""
    labels = list(jax.eval_shape(claimed, *args))
    whole = certify(reference, claimed, *args, seed=seed)
    if whole.verdict == Verdict.CONFIRMED or len(labels) == 1:
        return {label: Certificate(**{**vars(whole), "seconds": whole.seconds / len(labels)}) for label in labels}
    return {
        label: certify(lambda *a, k=label: reference(*a)[k], lambda *a, k=label: claimed(*a)[k], *args, seed=seed) for label in labels
    }


def _doubt(claimed: Any, loss: Any, args: Any) -> str:
    """Say what keeps a proof about real functions from being a verdict on these; empty where nothing does."""
    values = jax.jit(lambda *a: (loss(*a), claimed(*a)), compiler_options=check_options())(*args)
    if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(values)):
        return "the loss or the closed form is not finite at a draw; give the inputs a narrower domain"
    if has_own_rules(loss, *args):
        return "the loss is differentiated by a rule of its own"
    if has_stop_gradient(loss, *args):
        return "the loss uses stop_gradient"
    return ""


def _finding(label: str, proof: Certificate, doubt: str, where: str) -> Finding:
    verdict, diagnosis = proof.verdict, ""
    if verdict == Verdict.CONFIRMED:
        power = math.floor(-math.log2(proof.error_probability)) if proof.error_probability > 0 else math.inf
        detail = f"proved at {where} for all inputs, in general position, but for a probability of 2^-{power}"
    else:
        detail = f"at {where}: {proof.reason}"
    if proof.ratio is not None:
        diagnosis = f"{label}: the closed form is {proof.ratio} times the gradient, exactly, at {where}"
    if "not finite" in doubt or (doubt and verdict == Verdict.REFUTED):
        verdict, detail, diagnosis = Verdict.UNDECIDED, f"{doubt}; {detail}", ""
    return Finding(
        evidence="certificate", wrt=label, verdict=verdict, seconds=proof.seconds, detail=detail, diagnosis=diagnosis,
        bound=proof.error_probability if verdict == Verdict.CONFIRMED else None,
    )  # fmt: skip
