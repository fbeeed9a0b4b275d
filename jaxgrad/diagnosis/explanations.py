"""What an explanation of a wrong gradient is, and how it is measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxgrad.diagnosis.cases import Case
from jaxgrad.diagnosis.factors import Factor

EXPLAINS = 1e-6
"""Largest part of the error that an explanation may leave."""
TOO_SMALL = 1e-9
"""Errors below this part of the largest entry cannot be told from rounding well enough to be
named.
"""

Prediction = Callable[[Case], "np.ndarray | None"]
"""What the closed form returns in a case if the explanation is right; None where it says
nothing.
"""


@dataclass(frozen=True)
class Explanation:
    """A sentence about one array of the gradient, and what it predicts.

    Attributes:
        kind: what sort of mistake it is, such as "factor" or "transposed".
        sentence: what is wrong, in words.
        predict: the closed form as it would be if the explanation were right.
        factor: the factor that the sentence names, where it says that the whole array is off by
            one.
    """

    kind: str
    sentence: str
    predict: Prediction
    factor: Factor | None = None


@dataclass(frozen=True)
class Diagnosis:
    """How one array of a gradient is wrong.

    Attributes:
        label: the array, such as ``w`` or ``params['w']``.
        kind: what sort of mistake it is.
        sentence: what is wrong, in words.
        residual: the part of the error that is not explained, in the worst case.
        runner_up: what explains the error second best; empty where nothing else was tried.
        runner_up_residual: the part of the error that this leaves.
        explanation: what the sentence predicts.
        exact: number of choices of sizes at which exact arithmetic in finite fields says the same;
            0 where it says nothing.
    """

    label: str
    kind: str
    sentence: str
    residual: float
    runner_up: str = ""
    runner_up_residual: float = np.inf
    explanation: Explanation | None = None
    exact: int = 0

    @property
    def factor(self) -> Factor | None:
        """The factor that the whole array is off by, where it has a name."""
        return None if self.explanation is None else self.explanation.factor

    def __str__(self) -> str:
        """Return the sentence with the residual and the runner-up."""
        told = (
            f"explains all but {self.residual:.0e} of the error"
            if self.residual
            else "explains all of the error"
        )
        if self.exact:
            told += (
                f", exactly, over finite fields, at {self.exact} "
                f"choice{'s' * (self.exact > 1)} of sizes"
            )
        if self.runner_up and np.isfinite(self.runner_up_residual):
            told += f"; next best, “{self.runner_up}”, leaves {self.runner_up_residual:.1g}"
        return f"{self.sentence} ({told})"


def residual(
    explanation: Explanation, label: str, cases: Sequence[Case], stop: float = np.inf
) -> float:
    """Return the largest part of the error that an explanation leaves in any case; infinite where
    it says nothing.

    Cases after one in which more than `stop` is left are not looked at.
    """
    worst = 0.0
    for case in cases:
        predicted = explanation.predict(case)
        if (
            predicted is None
            or np.shape(predicted) != case.claimed[label].shape
            or not np.all(np.isfinite(predicted))
        ):
            return np.inf
        left = float(np.abs(predicted - case.claimed[label]).max(initial=0.0))
        if left:
            worst = max(
                worst,
                left / max(case.error(label), TOO_SMALL * case.scale(label), np.finfo(float).tiny),
            )
        if worst > stop:
            return worst
    return worst


class Trial:
    """Explanations of one array, tried one after the other.

    Args:
        label: the array.
        cases: what each must explain.
        stands: says of what explains them whether it stands elsewhere too.
    """

    def __init__(
        self, label: str, cases: Sequence[Case], stands: Callable[[Explanation], bool]
    ) -> None:
        """Nothing is tried yet."""
        self.label, self.cases, self.stands = label, cases, stands
        self.best: tuple[float, Explanation] | None = None
        self.second: tuple[float, str] = (np.inf, "")  # what is left, and of which kind

    def __call__(self, explanation: Explanation) -> bool:
        """Try one; say whether it explains everything."""
        left = residual(explanation, self.label, self.cases, stop=1e-2)
        if left <= EXPLAINS and self.stands(explanation):
            if self.best is None:
                self.best = left, explanation
            elif self.best[1].kind != explanation.kind:
                self.second = min(self.second, (left, explanation.kind))
            return True
        if left > EXPLAINS:
            self.second = min(self.second, (left, explanation.kind))
        return False

    def diagnosis(self) -> Diagnosis | None:
        """Return the first that explained everything."""
        if self.best is None:
            return None
        left, found = self.best
        return Diagnosis(
            self.label, found.kind, found.sentence, left, self.second[1], self.second[0], found
        )


def differs(case: Case, label: str) -> bool:
    """Say whether the closed form is visibly wrong in a case."""
    return case.error(label) > TOO_SMALL * case.scale(label) and case.error(label) > 0


def denied(explanation: Explanation, label: str, case: Case) -> bool:
    """Say whether a case speaks against an explanation, which may also say nothing of it, or call
    right what is.
    """
    predicted = explanation.predict(case)
    if (
        predicted is None
        or np.shape(predicted) != case.claimed[label].shape
        or not np.all(np.isfinite(predicted))
    ):
        return False
    room = (
        10 * EXPLAINS * case.error(label) if differs(case, label) else EXPLAINS * case.scale(label)
    )
    return not bool(np.all(np.abs(predicted - case.claimed[label]) <= room))


def zero(x: Any, scale: float) -> np.ndarray:
    """Say where an array is zero, to rounding."""
    return np.abs(x) <= TOO_SMALL * scale
