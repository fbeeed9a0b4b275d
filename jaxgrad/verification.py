"""verify(): which evidence applies to a claim, and how verdicts combine.

A claim without a mask is compared with autodiff of its loss and with differences of it. A claim about an expected gradient is
compared with sampling and with autodiff and differences of the exact expectation, where `jaxgrad.expectations` has one.
"""

import functools
import importlib.metadata
import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgrad.autodiff import autodiff
from jaxgrad.caution import at_data, at_odds, in_range, of_nothing, on_trust
from jaxgrad.derivation import Derivation
from jaxgrad.differences import differences
from jaxgrad.expectations import choose, expectation
from jaxgrad.faults import telling
from jaxgrad.masks import Mask
from jaxgrad.membership import check_domains
from jaxgrad.monte_carlo import monte_carlo
from jaxgrad.plans import METHODS, Plan
from jaxgrad.problem import Problem, Progress, check_functions, check_given
from jaxgrad.programs import Traceable, TracedOnce
from jaxgrad.proof import certificate, merge
from jaxgrad.report import Finding, Report, Verdict
from jaxgrad.statement import statement

MAX_MASKS = 2**13
"""The most masks, or rows, that an exact expectation lists."""
MOST_EXPECTED = 2**28
"""The most entries of masks (masks × entries) at which a loss is evaluated for one exact expectation."""
MOST_DIFFERENCED = 2**21
"""The same where the expectation is differenced, and so evaluated some thousand times."""

MAX_PROVED_MASKS = 2**9
"""The most masks that a certificate sums over; beyond, it takes the moments that the mask's distribution states."""

_NO_PYTREE = (
    "the mask's distribution is no pytree of numbers, as compiled programs and proofs take; register its class with "
    "jax.tree_util.register_dataclass"
)

Loss = Callable[..., Any]


def verify(
    derivation: Derivation,
    *,
    seed: int = 0,
    evidence: str | Sequence[str] | None = None,
    inputs: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int] | None = None,
    false_alarm: float = 1e-6,
    resolution: float = 1e-2,
    max_samples: int = 2**20,
    progress: Progress | None = None,
    checkpoint: str | Path | None = None,
) -> Report:
    """Verify that a closed form is the gradient of a loss, or of its expectation over a random mask.

    Any refutation refutes; else any confirmation confirms; else the verdict is undecided, with the reason.

    Args:
        derivation: the claim.
        seed: all draws follow from it.
        evidence: names of the evidence to gather, of EVIDENCE; all that applies where None.
        inputs: {input name: array}, data to verify at; the rest is drawn.
        sizes: {size name: size}; the rest is chosen, several times.
        false_alarm: probability, at most, that sampling refutes a right closed form.
        resolution: what sampling confirms is right to this part of the gradient's largest entry.
        max_samples: number of mask samples at which sampling gives up, undecided.
        progress: called with (evidence, fraction done, text).
        checkpoint: name of a file in which sampling keeps its state after every round; where it exists, sampling goes on from it, and
            ends with the same numbers as if it had never been interrupted.

    Returns:
        A report with a finding for each piece of evidence and each array of the gradient.

    Raises:
        TypeError: when an argument is of the wrong kind.
        ValueError: when an argument is out of its range, or does not fit the claim; when the closed form returns the wrong
            keys or shapes.

    >>> from jaxgrad import Derivation
    >>> claim = Derivation(name="cube", loss=lambda x: (x**3).sum(), gradient=lambda x: {"x": 3 * x**2}, shapes={"x": "n"})
    >>> verify(claim).verdict
    <Verdict.CONFIRMED: 'confirmed'>
    """
    options = {"seed": seed, "evidence": evidence, "inputs": inputs, "sizes": sizes, "false_alarm": false_alarm,
               "resolution": resolution, "max_samples": max_samples, "progress": progress, "checkpoint": checkpoint}  # fmt: skip
    return verify_beside(derivation, None, **options)


class Gathered(NamedTuple):
    """Evidence that was gathered in another process.

    Attributes:
        findings: what was found.
        ratios: what exact arithmetic found; see `Problem.remember_ratio`.
    """

    findings: list[Finding]
    ratios: dict[Any, Any]


def shares(derivation: Derivation, evidence: Sequence[str] | None) -> tuple[str, ...]:
    """Return the evidence that may be gathered in another process while this one samples; empty where there is none."""
    names = tuple(evidence or EVIDENCE)
    sampled = derivation.mask is not None and "monte_carlo" in names
    return tuple(name for name in names if name not in ("monte_carlo", "autodiff")) if sampled else ()


def gather_beside(derivation: Derivation, **options: Any) -> Gathered:
    """Gather all evidence but sampling, for the process that samples; the options are those of `verify`."""
    with _prepared(derivation, **options) as (problem, _, chosen):
        findings = [f for name in shares(derivation, chosen) for f in _gather(name, problem, chosen is not None)]
        return Gathered(findings, problem.all_ratios)


def verify_beside(derivation: Derivation, others: Callable[[], Gathered | None] | None, **options: Any) -> Report:
    """Verify, and take all evidence but sampling from another process once this one has sampled.

    Args:
        derivation: the claim.
        others: waits for what `gather_beside` returned there; None where it failed, and then that evidence is gathered here.
        **options: those of `verify`.
    """
    with _prepared(derivation, **options) as (problem, order, chosen):
        names, findings = chosen or tuple(EVIDENCE), []
        if others is not None:
            findings += _gather("monte_carlo", problem, chosen is not None)
            gathered, names = others(), tuple(name for name in names if name != "monte_carlo")
            if gathered is not None:
                names = tuple(name for name in names if name not in shares(derivation, chosen))
                problem.all_ratios.update(gathered.ratios)
                findings += gathered.findings
        findings += [finding for name in names for finding in _gather(name, problem, chosen is not None)]
        findings.sort(key=lambda finding: (chosen or tuple(EVIDENCE)).index(finding.evidence))
        findings = at_data(problem, at_odds(problem, on_trust(problem, of_nothing(problem, in_range(problem, findings)))))
    if any(finding.verdict != Verdict.CONFIRMED for finding in findings):
        findings = _explained(problem, findings)
    rank = {name: i for i, name in enumerate(order)}
    findings.sort(key=lambda f: rank[f.wrt.split("[")[0].split(".")[0]])
    return Report(name=derivation.name, findings=tuple(findings), context=_context(problem), claim=statement(derivation, order))


@contextmanager
def _prepared(
    derivation: Derivation, *, seed: int = Problem.seed, evidence: str | Sequence[str] | None = None,
    inputs: Mapping[str, Any] | None = None, sizes: Mapping[str, int] | None = None, false_alarm: float = Problem.false_alarm,
    resolution: float = Problem.resolution, max_samples: int = Problem.max_samples, progress: Progress | None = None,
    checkpoint: str | Path | None = None,
) -> Iterator[tuple[Problem, tuple[str, ...], tuple[str, ...] | None]]:  # fmt: skip
    """Check all that was given, and yield the problem, the names of the gradient's arrays and those of the evidence asked for."""
    if not isinstance(derivation, Derivation):
        raise TypeError(f"`derivation` must be a jaxgrad.Derivation, but is {derivation!r}")
    _check_options(seed, false_alarm, resolution, max_samples)
    for name, value in (("inputs", inputs), ("sizes", sizes)):
        if value is not None and not isinstance(value, Mapping):
            raise TypeError(f"`{name}` must be a mapping from names, but is {value!r}")
    chosen = _check_evidence(evidence)
    if checkpoint is not None and (derivation.mask is None or (chosen is not None and "monte_carlo" not in chosen)):
        raise ValueError("`checkpoint` keeps the state of sampling, and nothing is sampled here; leave it out")
    if progress is not None and not callable(progress):
        raise TypeError(f"`progress` must be a function of (evidence, fraction, text) or None, but is {progress!r}")
    derivation.choose_sizes(0, sizes)
    with jax.enable_x64(True), telling(derivation):
        given, fixed = check_given(derivation, inputs, dict(sizes or {}))
        check_domains(derivation.domains, given)
        chosen_sizes = frozenset(sizes or {})
        problem = Problem(derivation, seed, given, fixed, false_alarm, resolution, max_samples, progress, chosen_sizes, checkpoint)
        yield problem, check_functions(problem), chosen


def _explained(problem: Problem, findings: list[Finding]) -> list[Finding]:
    from jaxgrad.diagnosis import explain  # for what is not confirmed alone

    with jax.enable_x64(True):
        return explain(problem, findings, lambda sizes: _loss_of_mask(problem, sizes))


def _gather(name: str, problem: Problem, demanded: bool) -> list[Finding]:
    problem.report_progress(name, 0.0, "")
    result = EVIDENCE[name](problem)
    problem.report_progress(name, 1.0, "")
    if not isinstance(result, str):
        return result
    if not demanded:
        return []
    return [Finding(evidence=name, wrt=wrt, verdict=Verdict.UNDECIDED, detail=result) for wrt in problem.wrt]


def _certificate(problem: Problem) -> list[Finding] | str:
    derivation = problem.derivation
    fixed = {name: size for name, size in problem.sizes.items() if name in problem.chosen}
    masked = derivation.mask is not None
    if masked and not _is_numbers(derivation.distribution(problem.choose_sizes(0, few_masks=True))):
        return _NO_PYTREE
    results = []
    for sizes in _distinct(derivation.choose_sizes(variant, fixed, few_masks=masked) for variant in range(2)):
        loss = _loss_of_mask(problem, sizes)
        found = loss if isinstance(loss, str) else certificate(problem, sizes, loss)
        if isinstance(found, str):
            return found
        results.append(found)
    return merge(results)


def _is_numbers(mask: Mask | None) -> bool:
    return all(isinstance(leaf, (int, float, np.ndarray, np.generic, jax.Array)) for leaf in jax.tree.leaves(mask))


def _loss_of_mask(problem: Problem, sizes: dict[str, int]) -> Loss | str:
    """Return the loss, or its exact expectation, as a function of the inputs and the mask's distribution."""
    derivation = problem.derivation
    if derivation.mask is None:
        return lambda inputs, _: problem.loss(inputs)
    loss, distribution, shape = _masked_loss(problem, sizes)
    limits = {name: MAX_PROVED_MASKS if name in METHODS[:2] else MAX_MASKS for name in METHODS}
    draw = derivation.drawn([problem.seed], sizes)
    try:
        plan = choose(loss, distribution, shape, (draw,), limits=limits)
    except ValueError as error:
        return str(error)
    return _expected(problem, sizes, plan.method)


def _autodiff(problem: Problem) -> list[Finding] | str:
    if problem.derivation.mask is not None:
        return "autodiff sees one mask at a time, and the claim is about their expectation"
    return autodiff(problem, _variants(problem), lambda _: problem.loss)


def _expectation(problem: Problem) -> list[Finding] | str:
    if problem.derivation.mask is None:
        return "there is no mask to take the expectation over"
    ways, reason = _ways(problem, MOST_EXPECTED)
    if not ways:
        return reason
    plans = {tuple(sizes.items()): plan for sizes, plan in ways}
    variants = [sizes for sizes, _ in ways]
    found = autodiff(problem, variants, lambda sizes: _expected_loss(problem, sizes, plans[tuple(sizes.items())]), "expectation")
    return [replace(finding, detail=f"{finding.detail}; {_told(ways)}") for finding in found]


def _differences(problem: Problem) -> list[Finding] | str:
    if problem.derivation.mask is None:
        return differences(problem, problem.choose_sizes(0), problem.loss)
    ways, reason = _ways(problem, MOST_DIFFERENCED)
    if not ways:
        return reason
    sizes, plan = ways[0]
    found = differences(problem, sizes, _expected_loss(problem, sizes, plan))
    return [replace(finding, detail=f"{finding.detail}; {_told(ways[:1])}") for finding in found]


def _monte_carlo(problem: Problem) -> list[Finding] | str:
    derivation = problem.derivation
    if derivation.mask is None:
        return "there is no mask to sample"
    return monte_carlo(problem) if _is_numbers(derivation.distribution(problem.choose_sizes(0))) else _NO_PYTREE


EVIDENCE: dict[str, Callable[[Problem], list[Finding] | str]] = {
    "certificate": _certificate,
    "autodiff": _autodiff,
    "expectation": _expectation,
    "differences": _differences,
    "monte_carlo": _monte_carlo,
}
"""Evidence by name: a function of the problem that returns findings, or the reason why it does not apply."""


def _variants(problem: Problem) -> list[dict[str, int]]:
    return _distinct(problem.choose_sizes(variant) for variant in range(2))


def _ways(problem: Problem, most: int) -> tuple[list[tuple[dict[str, int], Plan]], str]:
    """Return small choices of sizes, each with a way to the exact expectation, or the reason why there is none.

    A way that does not believe the mask's own moments is preferred to one that does.
    """
    ways, reason = [], ""
    for sizes in _distinct(problem.choose_sizes(variant, few_masks=True) for variant in range(2)):
        loss, distribution, shape = _masked_loss(problem, sizes)
        most_here = most // math.prod(shape)
        limits = {name: min(MAX_MASKS, most_here) if name in METHODS[:2] else most_here for name in METHODS}
        try:
            ways.append((sizes, choose(loss, distribution, shape, (problem.draw(sizes, 0),), limits=limits)))
        except ValueError as error:
            reason = reason or f"{error}"
    return ways, reason


def _told(ways: list[tuple[dict[str, int], Plan]]) -> str:
    methods = list(dict.fromkeys(plan.method for _, plan in ways))
    told = "expectation by " + " and ".join(methods)
    return told + (", that is, from the moments that the mask states" if methods == ["moments"] else "")


def _distinct(choices: Iterable[dict[str, int]]) -> list[dict[str, int]]:
    found: list[dict[str, int]] = []
    for sizes in choices:
        if sizes not in found:
            found.append(sizes)
    return found


def _masked_loss(problem: Problem, sizes: dict[str, int]) -> tuple[Loss, Mask, tuple[int, ...]]:
    derivation, distribution = problem.derivation, problem.derivation.distribution(sizes)
    assert distribution is not None
    return lambda inputs, mask: problem.loss(inputs, mask), distribution, derivation.mask_shape(sizes)


def _expected(problem: Problem, sizes: dict[str, int], method: str) -> TracedOnce:
    """Return the exact expectation as a function of the inputs and the mask's distribution, traced once for all evidence."""
    loss, _, shape = _masked_loss(problem, sizes)
    return problem.once(
        ("expected", *sizes.items(), method),
        lambda: TracedOnce(lambda inputs, mask: expectation(loss, mask, shape, method=method)(inputs)),
    )


def _expected_loss(problem: Problem, sizes: dict[str, int], plan: Plan) -> Traceable:
    """Return the exact expectation: that of certificates where the mask lets its probabilities be traced, else of this mask alone."""
    return problem.at_mask(_expected(problem, sizes, plan.method), sizes)


def _check_options(seed: Any, false_alarm: Any, resolution: Any, max_samples: Any) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise ValueError(f"`seed` must be an integer of at least 0 and below 2**63, but is {seed!r}")
    for name, value in (("false_alarm", false_alarm), ("resolution", resolution)):
        if not isinstance(value, (int, float)) or not 0 < value < 1:
            raise ValueError(f"`{name}` must lie between 0 and 1, both excluded, but is {value!r}")
    if not isinstance(max_samples, int) or max_samples < 2:
        raise ValueError(f"`max_samples` must be an integer of at least 2, but is {max_samples!r}")


def _check_evidence(evidence: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if evidence is None:
        return None
    if not isinstance(evidence, Iterable):
        raise TypeError(f"`evidence` must be a name or a sequence of names, of {', '.join(EVIDENCE)}, but is {evidence!r}")
    names = (evidence,) if isinstance(evidence, str) else tuple(evidence)
    for name in names:
        if name not in EVIDENCE:
            raise ValueError(f"`evidence`: {name!r} is unknown; choose among {', '.join(EVIDENCE)}")
    if not names:
        raise ValueError(f"`evidence` is empty; choose among {', '.join(EVIDENCE)}, or pass None for all that applies")
    return names


def _context(problem: Problem) -> dict[str, Any]:
    return {
        "seed": problem.seed,
        "sizes": dict(problem.sizes),
        "given": sorted(problem.given),
        "false_alarm": problem.false_alarm,
        "resolution": problem.resolution,
        "max_samples": problem.max_samples,
        "device": str(jax.devices()[0].device_kind),
        "versions": dict(_versions()),
    }


@functools.cache
def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "numpy")}
