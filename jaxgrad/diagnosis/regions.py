"""Closed forms that are right on a part of the domain alone.

Each draw is mapped into the part: made positive, symmetric, of sum one. Where the closed form is
then right in every case, and not elsewhere, the part is named. It is also tried near the part, so
that "only" is not claimed by the luck of the draws.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxgrad.diagnosis.cases import Case, uniform_inputs
from jaxgrad.diagnosis.hypothesis import Hypothesis, zero
from jaxgrad.diagnosis.proportions import Cases, same

Map = Callable[[np.ndarray], np.ndarray]


def _polar(x: np.ndarray) -> np.ndarray:
    """Return the orthogonal matrix nearest to a square one."""
    u, _, v = np.linalg.svd(x)
    return u @ v


_REGIONS: tuple[tuple[str, Map, bool], ...] = (
    ("positive", lambda x: np.where(x > 0, x, np.abs(x) + 0.1), False),
    ("negative", lambda x: np.where(x < 0, x, -np.abs(x) - 0.1), False),
    ("symmetric", lambda x: (x + x.T) / 2, True),
    ("antisymmetric", lambda x: (x - x.T) / 2, True),
    ("orthogonal", _polar, True),
    ("between −1 and 1", lambda x: np.where(np.abs(x) <= 1, x, np.sin(x)), False),
    ("greater than 1", lambda x: np.where(x > 1, x, 1.1 + np.abs(x)), False),
    (
        "of sum one along its last axis",
        lambda x: x + (1 - x.sum(axis=-1, keepdims=True)) / x.shape[-1],
        False,
    ),
    ("of mean zero along its last axis", lambda x: x - x.mean(axis=-1, keepdims=True), False),
    (
        "of unit length along its last axis",
        lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True),
        False,
    ),
)
"""Parts of a domain, larger ones first: name, a map onto it, whether it is for square matrices.

The maps leave what lies in the part.

A draw is moved no more than it must be, so that a value at which the closed form is wrong speaks
against each region it lies in.
"""


def regions(label: str, cases: Cases) -> Iterator[Hypothesis]:
    """C is right where an input is positive, symmetric, of sum one …, and wrong elsewhere.

    Discrete inputs have no such parts.
    """
    first = cases.plain[0]
    discrete = first.setting.problem.discrete(first.sizes)
    arrays = {name: x for name, x in uniform_inputs(first).items() if name not in discrete}
    for words, onto, square in _REGIONS:
        for name, x in arrays.items():
            if (square and (x.ndim != 2 or x.shape[0] != x.shape[1])) or (
                not square and not x.ndim and "axis" in words
            ):
                continue

            def holds(case: Case, n: str = name, onto: Map = onto) -> bool:
                return _right_at(case, label, {**case.inputs, n: onto(np.asarray(case.inputs[n]))})

            with np.errstate(all="ignore"):
                if not all(holds(case) for case in cases.plain):
                    continue
                beyond = any(_outside(np.asarray(case.inputs[name]), onto) for case in cases.right)
                beyond = beyond or any(_beyond(case, label, name, onto) for case in cases.plain)
            only, more = (
                ("", " and at some other points, but not everywhere") if beyond else ("only ", "")
            )
            sentence = f"the closed form for {label} is right {only}where {name} is {words}{more}"
            yield Hypothesis(
                "region", sentence, lambda case, h=holds: case.claimed[label] if h(case) else None
            )


_BEYOND = (0.1, 0.3, 0.6)
"""Points outside of a region at which C is tried too: parts of the way back to the draw."""


def _outside(x: np.ndarray, onto: Map) -> bool:
    return not same(onto(x), x)


def _beyond(case: Case, label: str, name: str, onto: Map) -> bool:
    """Say whether the closed form is right at some point outside of a region, too."""
    x = np.asarray(case.inputs[name])
    inside = onto(x)
    points = [inside + part * (x - inside) for part in _BEYOND]
    if x.shape == case.truth[label].shape:
        points.append(
            np.where(zero(case.claimed[label] - case.truth[label], case.scale(label)), x, inside)
        )
    return any(
        _outside(z, onto) and _right_at(case, label, {**case.inputs, name: z}) for z in points
    )


def _right_at(case: Case, label: str, changed: dict[str, Any]) -> bool:
    claimed = case.setting.closed(changed, case.mask)[label]
    true = case.setting.truth(changed, case.mask)[label]
    scale = max(float(np.abs(claimed).max(initial=0.0)), float(np.abs(true).max(initial=0.0)))
    if (
        not np.all(np.isfinite(claimed))
        or not np.all(np.isfinite(true))
        or scale <= 1e-6 * case.scale(label)
    ):
        return False
    return bool(zero(claimed - true, scale).all())
