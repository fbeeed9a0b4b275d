"""``verify``: its arguments are checked, evidence is gathered and reconciled, a report is made.

The evidence that applies is in `jaxgrad.verification.applicable`. A claim that is not confirmed is
diagnosed (`jaxgrad.diagnosis`).
"""

import functools
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jaxlib.version
import numpy as np

from jaxgrad.claims.derivation import Derivation
from jaxgrad.claims.membership import check_domains
from jaxgrad.claims.summary import claim_summary
from jaxgrad.claims.user_errors import attributed
from jaxgrad.evidence.problem import Problem, Progress, check_functions, check_given
from jaxgrad.jaxprs.precision import in_precision
from jaxgrad.jaxprs.programs import equations
from jaxgrad.jaxprs.user_calls import check_seed
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.reports.report import Report
from jaxgrad.verification.applicable import EVIDENCE, gather, loss_of_mask
from jaxgrad.verification.reconcile import reconcile


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
    """Verify that a closed form is the gradient of a loss, or of its expectation over a mask.

    Any refutation refutes; else any confirmation confirms; else the verdict is undecided, with the
    reason.

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
        checkpoint: name of a file in which sampling keeps its state after every round; where it
            exists, sampling goes on from it, and ends with the same numbers as if it had never been
            interrupted.

    Returns:
        A report with a finding for each piece of evidence and each array of the gradient.

    Raises:
        TypeError: when an argument is of the wrong kind.
        ValueError: when an argument is out of its range, or does not fit the claim; when the closed
            form returns the wrong keys or shapes.

    >>> from jaxgrad import Derivation
    >>> claim = Derivation(
    ...     name="cube",
    ...     loss=lambda x: (x**3).sum(),
    ...     gradient=lambda x: {"x": 3 * x**2},
    ...     shapes={"x": "n"},
    ... )
    >>> verify(claim).verdict
    <Verdict.CONFIRMED: 'confirmed'>
    """
    if not isinstance(derivation, Derivation):
        raise TypeError(f"`derivation` must be a jaxgrad.Derivation, but is {derivation!r}")
    _check_options(seed, false_alarm, resolution, max_samples)
    for name, value in (("inputs", inputs), ("sizes", sizes)):
        if value is not None and not isinstance(value, Mapping):
            raise TypeError(f"`{name}` must be a mapping from names, but is {value!r}")
    chosen = _check_evidence(evidence)
    if checkpoint is not None and (
        derivation.mask is None or (chosen is not None and "monte_carlo" not in chosen)
    ):
        raise ValueError(
            "`checkpoint` keeps the state of sampling, but nothing is sampled here; leave it out"
        )
    if progress is not None and not callable(progress):
        raise TypeError(
            f"`progress` must be a function of (evidence, fraction, text) or None, but is "
            f"{progress!r}"
        )
    derivation.choose_sizes(0, sizes)
    with in_precision(True), attributed(derivation):
        given, fixed = check_given(derivation, inputs, dict(sizes or {}))
        check_domains(derivation.domains, given, fixed)
        problem = Problem(
            derivation,
            seed,
            given,
            fixed,
            false_alarm,
            resolution,
            max_samples,
            progress,
            frozenset(sizes or {}),
            checkpoint,
        )
        order = check_functions(problem)
        _refuse_data_dependent_loops(problem, chosen)
        findings = [
            finding
            for name in chosen or tuple(EVIDENCE)
            for finding in gather(name, problem, chosen is not None)
        ]
        findings = reconcile(problem, findings)
    if any(finding.verdict != Verdict.CONFIRMED for finding in findings):
        findings = _explained(problem, findings)
    rank = {name: i for i, name in enumerate(order)}
    findings.sort(key=lambda f: rank[f.wrt.split("[")[0].split(".")[0]])
    return Report(
        name=derivation.name,
        findings=tuple(findings),
        context=_context(problem),
        claim=claim_summary(derivation, order),
    )


def _refuse_data_dependent_loops(problem: Problem, chosen: tuple[str, ...] | None) -> None:
    """Refuse loops whose length depends on data where no certificate, which tells, is asked for."""
    sizes = problem.first_sizes
    closed = problem.closed_form(sizes).program(problem.draw(sizes, 0))[0]
    if (
        chosen
        and "certificate" not in chosen
        and any(eqn.primitive.name == "while" for eqn in equations(closed.jaxpr))
    ):
        EVIDENCE["certificate"](problem)


def _explained(problem: Problem, findings: list[Finding]) -> list[Finding]:
    from jaxgrad.diagnosis import explain  # for what is not confirmed alone

    with in_precision(True):
        return explain(problem, findings, lambda sizes: loss_of_mask(problem, sizes))


def _check_options(seed: Any, false_alarm: Any, resolution: Any, max_samples: Any) -> None:
    check_seed(seed)
    for name, value in (("false_alarm", false_alarm), ("resolution", resolution)):
        if not isinstance(value, (int, float)) or not 0 < value < 1:
            raise ValueError(f"`{name}` must lie between 0 and 1, both excluded, but is {value!r}")
    if not isinstance(max_samples, int) or max_samples < 2:
        raise ValueError(f"`max_samples` must be an integer of at least 2, but is {max_samples!r}")


def _check_evidence(evidence: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if evidence is None:
        return None
    if not isinstance(evidence, Iterable):
        raise TypeError(
            f"`evidence` must be a name or a sequence of names, of {', '.join(EVIDENCE)}, but is "
            f"{evidence!r}"
        )
    names = (evidence,) if isinstance(evidence, str) else tuple(evidence)
    for name in names:
        if name not in EVIDENCE:
            raise ValueError(f"`evidence`: {name!r} is unknown; choose among {', '.join(EVIDENCE)}")
    if not names:
        raise ValueError(
            f"`evidence` is empty; choose among {', '.join(EVIDENCE)}, or pass None for all that "
            f"applies"
        )
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
    found = {"jax": jax.__version__, "jaxlib": jaxlib.version.__version__, "numpy": np.__version__}
    return {"python": platform.python_version(), **found}
