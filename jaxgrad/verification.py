"""verify(): which evidence applies to a claim, and how verdicts combine.

A claim without a mask is compared with autodiff of its loss and with differences of it. A claim about an expected gradient is
compared with sampling and, at sizes where every mask can be listed, with autodiff and differences of the exact expectation.
"""

import importlib.metadata
import math
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

from jaxgrad.autodiff import autodiff
from jaxgrad.derivation import Derivation
from jaxgrad.differences import differences
from jaxgrad.expectations import expectation
from jaxgrad.monte_carlo import monte_carlo
from jaxgrad.problem import Problem, Progress, Tree, check_functions, check_given
from jaxgrad.report import Finding, Report, Verdict

MAX_MASKS = 2**13
"""The most masks that an exact expectation sums over."""

Loss = Callable[[dict[str, Tree]], Any]


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
    if not isinstance(derivation, Derivation):
        raise TypeError(f"`derivation` must be a jaxgrad.Derivation, but is {derivation!r}")
    _check_options(seed, false_alarm, resolution, max_samples)
    chosen = _check_evidence(evidence)
    derivation.choose_sizes(0, sizes)
    with jax.enable_x64(True):
        given, fixed = check_given(derivation, inputs, dict(sizes or {}))
        problem = Problem(derivation, seed, given, fixed, false_alarm, resolution, max_samples, progress)
        order = check_functions(problem)
        findings = [finding for name in chosen or EVIDENCE for finding in _gather(name, problem, chosen is not None)]
    rank = {name: i for i, name in enumerate(order)}
    findings.sort(key=lambda f: rank[f.wrt.split("[")[0].split(".")[0]])
    return Report(name=derivation.name, findings=tuple(findings), context=_context(problem))


def _gather(name: str, problem: Problem, demanded: bool) -> list[Finding]:
    problem.report_progress(name, 0.0, "")
    result = EVIDENCE[name](problem)
    problem.report_progress(name, 1.0, "")
    if not isinstance(result, str):
        return result
    if not demanded:
        return []
    return [Finding(evidence=name, wrt=wrt, verdict=Verdict.UNDECIDED, detail=result) for wrt in problem.wrt]


def _autodiff(problem: Problem) -> list[Finding] | str:
    if problem.derivation.mask is not None:
        return "autodiff sees one mask at a time, and the claim is about their expectation"
    loss = problem.derivation.loss
    return autodiff(problem, _variants(problem), lambda _: lambda inputs: loss(**inputs))


def _expectation(problem: Problem) -> list[Finding] | str:
    if problem.derivation.mask is None:
        return "there is no mask to take the expectation over"
    variants = _enumerable(problem)
    if not variants:
        return f"there are more than {MAX_MASKS} masks at these sizes"
    return autodiff(problem, variants, lambda sizes: _expected_loss(problem, sizes), "expectation")


def _differences(problem: Problem) -> list[Finding] | str:
    if problem.derivation.mask is None:
        loss = problem.derivation.loss
        return differences(problem, problem.choose_sizes(0), lambda inputs: loss(**inputs))
    variants = _enumerable(problem)
    if not variants:
        return f"there are more than {MAX_MASKS} masks at these sizes"
    return differences(problem, variants[0], _expected_loss(problem, variants[0]))


def _monte_carlo(problem: Problem) -> list[Finding] | str:
    return "there is no mask to sample" if problem.derivation.mask is None else monte_carlo(problem)


EVIDENCE: dict[str, Callable[[Problem], list[Finding] | str]] = {
    "autodiff": _autodiff,
    "expectation": _expectation,
    "differences": _differences,
    "monte_carlo": _monte_carlo,
}
"""Evidence by name: a function of the problem that returns findings, or the reason why it does not apply."""


def _variants(problem: Problem) -> list[dict[str, int]]:
    return _distinct(problem.choose_sizes(variant) for variant in range(3))


def _enumerable(problem: Problem) -> list[dict[str, int]]:
    """Return choices of sizes, small ones first, at which all masks can be listed."""
    small = _distinct(problem.choose_sizes(variant, few_masks=True) for variant in range(2))
    return [sizes for sizes in small if _count_masks(problem, sizes) <= MAX_MASKS]


def _distinct(choices: Iterable[dict[str, int]]) -> list[dict[str, int]]:
    found: list[dict[str, int]] = []
    for sizes in choices:
        if sizes not in found:
            found.append(sizes)
    return found


def _count_masks(problem: Problem, sizes: dict[str, int]) -> float:
    distribution = problem.derivation.distribution(sizes)
    assert distribution is not None
    try:
        return len(jax.eval_shape(lambda: distribution.support(problem.derivation.mask_shape(sizes)))[0])
    except ValueError:
        return math.inf


def _expected_loss(problem: Problem, sizes: dict[str, int]) -> Loss:
    derivation, distribution = problem.derivation, problem.derivation.distribution(sizes)
    assert distribution is not None
    expected = expectation(lambda inputs, mask: derivation.loss(**inputs, mask=mask), distribution, derivation.mask_shape(sizes))
    return lambda inputs: expected(inputs)


def _check_options(seed: Any, false_alarm: Any, resolution: Any, max_samples: Any) -> None:
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"`seed` must be an integer of at least 0, but is {seed!r}")
    for name, value in (("false_alarm", false_alarm), ("resolution", resolution)):
        if not isinstance(value, (int, float)) or not 0 < value < 1:
            raise ValueError(f"`{name}` must lie between 0 and 1, both excluded, but is {value!r}")
    if not isinstance(max_samples, int) or max_samples < 2:
        raise ValueError(f"`max_samples` must be an integer of at least 2, but is {max_samples!r}")


def _check_evidence(evidence: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if evidence is None:
        return None
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
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "numpy")},
    }
