"""The search for one edit of one step that turns a program into the right one.

The traced closed form is run again and again with one operand of one step changed. An edit that
gives the true gradient in every case is the difference between what stands there and what should.
Where the edit is a factor, it is solved for in each case. In a mirrored search the true gradient is
edited until it is the closed form.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jaxgrad.diagnosis import factors
from jaxgrad.diagnosis.cases import Case
from jaxgrad.diagnosis.flat import Flat, Run, Step, leaves_of
from jaxgrad.diagnosis.hypothesis import EXPLAINS, Hypothesis
from jaxgrad.diagnosis.symbols import symbols

MOST = 40_000
"""The most steps that all searches for one claim run, about a second's."""

Change = Callable[["Try", list[np.ndarray]], list[np.ndarray]]
Stage = Callable[["Search"], "Iterator[Edit | None]"]


@dataclass(frozen=True)
class Edit:
    """A change of one step.

    Attributes:
        kind: what sort of change.
        step: number of the step.
        words: what should be there, as the end of a sentence that begins with the place.
        change: from a run and the operands of the step to its results.
    """

    kind: str
    step: int
    words: str
    change: Change


class Try:
    """A program in one case, and what it should return.

    That is the closed form and the truth or, mirrored, the other way round.
    """

    def __init__(
        self, flat: Flat, case: Case, labels: Sequence[str], *, mirrored: bool = False
    ) -> None:
        """Run it."""
        self.flat, self.case, self.labels = flat, case, labels
        is_, ought = (case.truth, case.claimed) if mirrored else (case.claimed, case.truth)
        run = flat.run(leaves_of(case.inputs, case.mask)) if mirrored else case.run
        if run is None:
            raise ValueError("the program cannot be run step by step")
        self.run: Run = run
        names = case.setting.closed.labels
        self.index = [names.index(label) for label in labels]
        self.units = [max(case.error(label), 1e-9 * case.scale(label)) or 1.0 for label in labels]
        self.goal = self._vector([ought[label] for label in labels])
        self.base = self._vector([is_[label] for label in labels]) - self.goal
        self.known = case.setting.moments

    def _vector(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(
            [np.ravel(a).astype(float) / unit for a, unit in zip(arrays, self.units, strict=True)]
        )

    def left(self, step: int, change: Change) -> np.ndarray | None:
        """Return the error that a change leaves, relative to the error; None if it cannot run."""
        outputs = self.run.with_step(step, lambda operands: change(self, operands))
        if outputs is None:
            return None
        found = self._vector([outputs[i] for i in self.index]) - self.goal
        return found if np.all(np.isfinite(found)) else None

    def outputs(self, edit: Edit) -> dict[str, np.ndarray] | None:
        """Return what the changed closed form returns."""
        found = self.run.with_step(edit.step, lambda operands: edit.change(self, operands))
        return (
            None
            if found is None
            else dict(zip(self.case.setting.closed.labels, found, strict=True))
        )


class Search:
    """The search for one edit that corrects the arrays `labels` in all cases with the same steps.

    Args:
        cases: the cases.
        labels: the arrays.
        mirrored: whether it is the true gradient that is changed until it is what the closed form
            says.
        varied: cases with other probabilities of the mask, by which factors are named.
        most: the most steps to run.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        labels: Sequence[str],
        *,
        mirrored: bool = False,
        varied: Sequence[Case] = (),
        most: int = MOST,
    ) -> None:
        """Nothing is tried yet."""
        self.labels, self.mirrored = labels, mirrored
        self.flat = self.program(cases[0])

        def tries(given: Sequence[Case]) -> list[Try]:
            alike = [c for c in given if self.program(c).names == self.flat.names]
            return [Try(self.program(case), case, labels, mirrored=mirrored) for case in alike]

        self.tries = tries(cases)
        self.count = len(self.tries)
        self.tries += tries(varied)
        self.steps, self.most = 0, most
        self.least = (np.inf, "")

    def program(self, case: Case) -> Flat:
        """Return the program that is changed, at the sizes of a case."""
        return case.setting.flat_truth if self.mirrored else case.setting.flat

    def attempt(self, case: Case) -> Try | None:
        """Return a case that the search has not seen, ready; None if its steps are others."""
        flat = self.program(case)
        if flat.names != self.flat.names:
            return None
        try:
            return Try(flat, case, self.labels, mirrored=self.mirrored)
        except ValueError:
            return None

    def found(self, stages: Sequence[Stage]) -> Edit | None:
        """Return the first change of these kinds that corrects everything."""
        for stage in stages:
            for edit in stage(self):
                if edit is not None and self._corrects(edit):
                    return edit
                if self.steps > self.most:
                    return None
        return None

    def _left(self, number: int, step: int, change: Change) -> np.ndarray | None:
        self.steps += self.tries[number].flat.costs[step]
        return self.tries[number].left(step, change)

    def _corrects(self, edit: Edit) -> bool:
        """Say whether a change corrects the arrays in all cases."""
        for number in range(self.count):
            left = self._left(number, edit.step, edit.change)
            size = np.inf if left is None else float(np.abs(left).max(initial=0.0))
            if size > EXPLAINS:
                if number == 0:
                    self.least = min(self.least, (size, edit.kind))
                return False
        return True

    def uses(self, *, smooth: bool = False) -> Iterator[tuple[int, Step, int]]:
        """Yield every operand of every step that computes, the last steps first.

        With `smooth` only those that the result varies with: one that is compared may be changed by
        much and nothing is seen.
        """
        for i in reversed(range(len(self.flat.steps))):
            step = self.flat.steps[i]
            if step.eqn.primitive.multiple_results or (smooth and i not in self.flat.smooth):
                continue
            for j, slot in enumerate(step.inputs):
                if self.tries[0].run.env[slot].dtype.kind == "f":
                    yield i, step, j

    def solved(self, step: int, of: Callable[[float], Change]) -> list[float] | None:
        """Solve for the factor in every case; None where there is none."""
        found: list[float] = []
        for number in range(len(self.tries)):
            k = self._solve(number, step, of, found[-1] if found else None)
            if k is None:
                return found if number >= self.count else None
            found.append(k)
        return found

    def name(self, values: Sequence[float]) -> factors.Factor | None:
        """Name a factor, also by its values at other probabilities of the mask if all have one."""
        known = [symbols(t.case) for t in self.tries]
        named = None
        if len(values) == len(self.tries) > self.count:
            named = factors.name(values, known, 1e-7)
        return named or factors.name(values[: self.count], known[: self.count], 1e-7)

    def _solve(
        self, number: int, step: int, of: Callable[[float], Change], hint: float | None
    ) -> float | None:
        base, left = self.tries[number].base, self._left(number, step, of(2.0))
        if left is None or not np.any(slope := left - base):
            return None
        square = float(slope @ slope)
        if square > 0 and np.isfinite(square):
            k = 1 - float(slope @ base) / square
            if np.abs(base + (k - 1) * slope).max() <= 1e-3:
                return self._polished(number, step, of, k)
        for k in (-1.0, 0.0, 0.5) if hint is None else (hint,):
            now = self._left(number, step, of(k))
            if now is not None and np.abs(now).max() < 0.3:
                return self._polished(number, step, of, k)
        return None

    def _polished(
        self, number: int, step: int, of: Callable[[float], Change], k: float
    ) -> float | None:
        """Improve a factor by Newton's method until it corrects the case."""
        for _ in range(8):
            now = self._left(number, step, of(k))
            if now is None:
                return None
            if np.abs(now).max() <= EXPLAINS:
                return k
            near = self._left(number, step, of(k + 1e-4))
            slope = None if near is None else (near - now) / 1e-4
            if slope is None or not np.any(slope):
                return None
            k -= float(slope @ now) / float(slope @ slope)
        return None


def with_operand(operands: list[np.ndarray], j: int, new: np.ndarray | None) -> list[np.ndarray]:
    """Return operands with one of them replaced."""
    if new is None:
        raise ValueError("there is nothing to put there")
    return [*operands[:j], np.asarray(new, operands[j].dtype), *operands[j + 1 :]]


def on(step: Step, j: int, f: Callable[[Try, np.ndarray], "np.ndarray | None"]) -> Change:
    """Return the change that replaces operand j of a step by a function of it."""
    return lambda t, operands: step(with_operand(operands, j, f(t, operands[j])))


def edit_hypotheses(search: Search, edit: Edit, labels: Sequence[str]) -> dict[str, Hypothesis]:
    """Return, for each array that an edit corrects, what is wrong.

    Where programs differ in their steps from one choice of sizes to another, nothing is predicted
    at the others.
    """
    where, text = search.flat.steps[edit.step].place
    tries = {t.case: t for t in search.tries}
    outputs: dict[Case, dict[str, np.ndarray] | None] = {}

    def predict(case: Case, label: str) -> np.ndarray | None:
        if case not in outputs:
            attempt = tries.get(case) or search.attempt(case)
            outputs[case] = None if attempt is None else attempt.outputs(edit)
        edited = outputs[case]
        if edited is None:
            return None
        if search.mirrored:
            return edited[label]
        return case.claimed[label] - edited[label] + case.truth[label]

    def sentence(label: str) -> str:
        subject = f"the closed form for {label}"
        if search.mirrored:
            return f"{subject} {edit.words}"
        return f"{subject} is wrong{f' in `{text}` ({where})' if text else ''}: {edit.words}"

    return {
        label: Hypothesis(edit.kind, sentence(label), lambda case, k=label: predict(case, k))
        for label in labels
    }
