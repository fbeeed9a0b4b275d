"""Closed forms that are right in float64 and lose digits in float32, and where.

The closed form is run in float32 and, at the same inputs, in float64. A difference beyond the
rounding of float32 comes from cancellation, where large numbers that are nearly equal are
subtracted. The step blamed is the sum or difference whose operands are largest beside its result.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxgrad.claims.derivation import Derivation
from jaxgrad.diagnosis.flat import Flat, Run, leaves_of
from jaxgrad.diagnosis.hypothesis import Diagnosis, Hypothesis, at
from jaxgrad.evidence.problem import Problem, labelled
from jaxgrad.jaxprs.precision import in_precision

UNIT = float(np.finfo(np.float32).eps)
WORTH = 2.0
"""Decimal digits that must be lost to be reported."""
CANCELLING = ("add", "sub", "add_any", "reduce_sum", "dot_general")


def digits_lost(derivation: Derivation, *, seed: int = 0) -> dict[str, Diagnosis]:
    """Say which arrays of a closed form lose digits in float32 that float64 keeps, and where.

    Args:
        derivation: the claim.
        seed: all draws follow from it.

    Returns:
        {label: diagnosis}, for the arrays that lose two digits or more.

    Raises:
        TypeError: when `derivation` is none.

    >>> import jax.numpy as jnp
    >>> shifted = Derivation(
    ...     name="shifted",
    ...     loss=lambda x: jnp.var(x),
    ...     shapes={"x": "n"},
    ...     gradient=lambda x: {"x": 2 * ((x + 1e5) - jnp.mean(x + 1e5)) / x.size},
    ... )
    >>> digits_lost(shifted)["x"].sentence.split(":")[0]
    'the closed form for x is right in float64 but loses 5 of 7 digits in float32'
    """
    if not isinstance(derivation, Derivation):
        raise TypeError(f"`derivation` must be a jaxgrad.Derivation, but is {derivation!r}")
    problem = Problem(derivation, seed)
    with in_precision(True):
        return cancellations(problem, ())


def cancellations(problem: Problem, labels: Sequence[str]) -> dict[str, Diagnosis]:
    """Return what `digits_lost` says of some arrays, or of all where none is named."""
    sizes = problem.choose_sizes(0)
    inputs = jax.tree.map(
        lambda x: np.asarray(x, np.float32) if np.asarray(x).dtype.kind == "f" else x,
        problem.draw(sizes, 0),
    )
    with in_precision(False):
        single, names = _run(problem, sizes, inputs)
    wide = jax.tree.map(
        lambda x: np.asarray(x, np.float64) if np.asarray(x).dtype.kind == "f" else x, inputs
    )
    double, _ = _run(problem, sizes, wide)
    if single is None or double is None:
        return {}
    found = {}
    for name, low, high in zip(names, single.outputs(), double.outputs(), strict=True):
        if (labels and name not in labels) or not np.all(np.isfinite(high)) or not high.size:
            continue
        off, scale = np.abs(np.asarray(low, np.float64) - high), float(np.abs(high).max())
        if not scale or not np.all(np.isfinite(low)):
            continue
        lost = math.log10(max(float(off.max()) / scale / UNIT, 1.0))
        if lost >= WORTH:
            found[name] = _diagnosis(name, lost, off, scale, double)
    return found


def _run(
    problem: Problem, sizes: dict[str, int], inputs: dict[str, Any]
) -> tuple[Run | None, list[str]]:
    distribution = problem.derivation.distribution(sizes)
    extra = {} if distribution is None else {"mask": distribution}

    def closed(
        x: dict[str, Any],
    ) -> dict[str, Any]:  # traced anew, so that every step is known by its place in the user's code
        return labelled(
            dict(problem.derivation.gradient(**problem.derivation.in_order({**x, **extra})))
        )

    program, shaped = jax.make_jaxpr(closed, return_shape=True)(inputs)
    return Flat.of(program).run(leaves_of(inputs, None)), sorted(shaped)


def _diagnosis(label: str, lost: float, off: np.ndarray, scale: float, run: Run) -> Diagnosis:
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(off)), off.shape))
    where, text = _cancelling(run)
    place = f", by cancellation in `{text}` ({where})" if text else ""
    sentence = (
        f"the closed form for {label} is right in float64 but loses {min(round(lost), 7)} of 7 "
        f"digits in float32: at {at(label, worst)} its error is {float(off.max()) / scale:.1g} of "
        f"the largest entry{place}"
    )
    return Diagnosis(
        label,
        "cancellation",
        sentence,
        0.0,
        hypothesis=Hypothesis("cancellation", sentence, lambda case: None),
    )


def _cancelling(run: Run) -> tuple[str, str]:
    """Return the place of the step whose operands are largest beside its result."""
    most, place = 1.0, ("", "")
    for step in run.flat.steps:
        if step.name not in CANCELLING:
            continue
        result = float(np.abs(run.env[step.outputs[0]]).max(initial=0.0))
        sizes = [
            float(np.abs(run.env[s]).max(initial=0.0))
            for s in step.inputs
            if run.env[s].dtype.kind == "f"
        ]
        size = math.prod(sizes) if step.name == "dot_general" else max(sizes, default=0.0)
        if result and size / result > most:
            most, place = size / result, step.place
    return place
