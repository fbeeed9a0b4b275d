"""What a hypothesis on a wrong gradient is, and how it is tested.

A hypothesis is a sentence together with a prediction of the closed form. It is tested by the part
of the error that its prediction leaves. `Trial` tests one after the other and keeps the first that
explains the error, as a `Diagnosis`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxgrad.diagnosis.cases import Case
from jaxgrad.diagnosis.factors import Factor

EXPLAINS = 1e-6
"""Largest part of the error that a hypothesis may leave."""
NEGLIGIBLE = 1e-12
"""Parts of the error that are rounding, and not worth a word."""
TOO_SMALL = 1e-9
"""Errors below this part of the largest entry are too close to rounding to be diagnosed."""

Prediction = Callable[[Case], "np.ndarray | None"]
"""The closed form in a case if the hypothesis is right; None where it predicts nothing."""


@dataclass(frozen=True)
class Hypothesis:
    """A sentence about one array of the gradient, and what it predicts.

    Attributes:
        kind: what sort of mistake it is, such as "factor" or "transposed".
        sentence: what is wrong, in words.
        predict: the closed form as it would be if the hypothesis were right.
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
        hypothesis: what the sentence predicts.
        exact: number of choices of sizes at which exact arithmetic in finite fields says the same;
            0 where it says nothing.
    """

    label: str
    kind: str
    sentence: str
    residual: float
    runner_up: str = ""
    runner_up_residual: float = np.inf
    hypothesis: Hypothesis | None = None
    exact: int = 0

    @property
    def factor(self) -> Factor | None:
        """The factor that the whole array is off by, where it has a name."""
        return None if self.hypothesis is None else self.hypothesis.factor

    def __str__(self) -> str:
        """Return the sentence, and how much of the error it explains."""
        parts = ["all" if self.residual < NEGLIGIBLE else f"all but {self.residual:.0e}"]
        parts[0] = f"explains {parts[0]} of the error"
        if self.exact:
            choices = f"{self.exact} choice{'s' * (self.exact > 1)} of sizes"
            parts.append(f"exact in finite fields at {choices}")
        if self.runner_up and self.runner_up_residual < 0.995:
            left = f"{100 * self.runner_up_residual:.2g} %"
            parts.append(f"the next best hypothesis leaves {left} of it")
        elif self.runner_up:
            parts.append("no other hypothesis reduces it")
        return f"{self.sentence} ({'; '.join(parts)})"


def _misfit(hypothesis: Hypothesis, label: str, case: Case) -> np.ndarray | None:
    """Return how far a prediction is from the closed form; None where nothing is predicted."""
    predicted = hypothesis.predict(case)
    if (
        predicted is None
        or np.shape(predicted) != case.claimed[label].shape
        or not np.all(np.isfinite(predicted))
    ):
        return None
    return np.abs(predicted - case.claimed[label])


def residual(
    hypothesis: Hypothesis, label: str, cases: Sequence[Case], stop: float = np.inf
) -> float:
    """Return the largest part of the error that a hypothesis leaves in any case.

    It is infinite where the hypothesis predicts nothing. Cases after one in which more than `stop`
    is left are skipped.
    """
    worst = 0.0
    for case in cases:
        misfit = _misfit(hypothesis, label, case)
        if misfit is None:
            return np.inf
        smallest = max(TOO_SMALL * case.scale(label), np.finfo(float).tiny)
        worst = max(worst, float(misfit.max(initial=0.0)) / max(case.error(label), smallest))
        if worst > stop:
            return worst
    return worst


class Trial:
    """Explanations of one array, tried one after the other.

    Args:
        label: the array.
        cases: what each must explain.
        holds_elsewhere: says of a hypothesis that explains them whether it holds in other cases.
    """

    def __init__(
        self, label: str, cases: Sequence[Case], holds_elsewhere: Callable[[Hypothesis], bool]
    ) -> None:
        """Nothing is tried yet."""
        self.label, self.cases, self.holds_elsewhere = label, cases, holds_elsewhere
        self.best: tuple[float, Hypothesis] | None = None
        self.runner_up: tuple[float, str] = (np.inf, "")  # the part it leaves, and its kind

    def __call__(self, hypothesis: Hypothesis) -> bool:
        """Try one; say whether it explains everything."""
        left = residual(hypothesis, self.label, self.cases, stop=1e-2)
        if left <= EXPLAINS and self.holds_elsewhere(hypothesis):
            if self.best is None:
                self.best = left, hypothesis
            elif self.best[1].kind != hypothesis.kind:
                self.runner_up = min(self.runner_up, (left, hypothesis.kind))
            return True
        if left > EXPLAINS:
            self.runner_up = min(self.runner_up, (left, hypothesis.kind))
        return False

    def diagnosis(self) -> Diagnosis:
        """Return the first that explained everything; there must be one."""
        assert self.best is not None
        left, found = self.best
        return Diagnosis(
            self.label,
            found.kind,
            found.sentence,
            left,
            self.runner_up[1],
            self.runner_up[0],
            found,
        )


def differs(case: Case, label: str) -> bool:
    """Say whether the closed form is wrong in a case, beyond rounding."""
    return case.error(label) > TOO_SMALL * case.scale(label) and case.error(label) > 0


def contradicted(hypothesis: Hypothesis, label: str, case: Case) -> bool:
    """Say whether a case contradicts a hypothesis; one that predicts nothing there is not."""
    misfit = _misfit(hypothesis, label, case)
    allowed = (
        10 * EXPLAINS * case.error(label) if differs(case, label) else EXPLAINS * case.scale(label)
    )
    return misfit is not None and not bool(np.all(misfit <= allowed))


def zero(x: Any, scale: float) -> np.ndarray:
    """Say where an array is zero, to rounding."""
    return np.abs(x) <= TOO_SMALL * scale


def at(label: str, index: Sequence[int]) -> str:
    """Return the name of an entry.

    >>> at("w", (1, 2)), at("b", ())
    ('w[1, 2]', 'b')
    """
    return f"{label}[{', '.join(map(str, index))}]" if len(index) else label
