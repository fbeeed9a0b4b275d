"""The search for one change of one step of a program: how a change is run, solved for and judged.

The traced closed form is run again and again with one operand of one step changed. A change that
gives the true gradient in every case IS the difference between what stands there and what should;
where the change is a factor, it is solved for in each case.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jaxgrad.diagnosis import factors
from jaxgrad.diagnosis.cases import Case, Setting, symbols
from jaxgrad.diagnosis.explanations import EXPLAINS
from jaxgrad.diagnosis.flat import Flat, Run, Step, leaves_of

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
    """A program in one case, and what it should return: the closed form and the truth, or,
    mirrored, the other way round.
    """

    def __init__(
        self, flat: Flat, case: Case, labels: Sequence[str], *, mirrored: bool = False
    ) -> None:
        """Run it."""
        self.flat, self.case, self.labels = flat, case, labels
        is_, ought = (case.truth, case.claimed) if mirrored else (case.claimed, case.truth)
        run = flat.run(leaves_of(case.inputs, case.mask))
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
        """Return what remains of the error after a change, in units of the error; None where it
        cannot be run.
        """
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
    """The search for one change that mends the arrays `labels` in all cases whose programs have the
    same steps.

    Args:
        cases: the cases.
        flats: {setting: program}.
        labels: the arrays.
        mirrored: whether it is the true gradient that is changed until it is what the closed form
            says.
        varied: cases with other probabilities of the mask, by which factors are named.
        most: the most steps to run.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        flats: dict[Setting, Flat],
        labels: Sequence[str],
        *,
        mirrored: bool = False,
        varied: Sequence[Case] = (),
        most: int = MOST,
    ) -> None:
        """Nothing is tried yet."""
        self.flat = first = flats[cases[0].setting]
        self.labels, self.mirrored = labels, mirrored

        def tries(given: Sequence[Case]) -> list[Try]:
            alike = [
                c for c in given if c.setting in flats and flats[c.setting].names == first.names
            ]
            return [Try(flats[case.setting], case, labels, mirrored=mirrored) for case in alike]

        self.tries = tries(cases)
        self.count = len(self.tries)
        self.tries += tries(varied)
        self.steps, self.most = 0, most
        self.least = (np.inf, "")

    def found(self, stages: Sequence[Stage]) -> Edit | None:
        """Return the first change of these kinds that mends everything."""
        for stage in stages:
            for edit in stage(self):
                if edit is not None and self._mends(edit):
                    return edit
                if self.steps > self.most:
                    return None
        return None

    def _left(self, number: int, step: int, change: Change) -> np.ndarray | None:
        self.steps += self.tries[number].run.cost(step)
        return self.tries[number].left(step, change)

    def _mends(self, edit: Edit) -> bool:
        """Say whether a change mends the arrays in all cases."""
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
        """Name a factor, by its values with other probabilities of the mask too where all have
        one.
        """
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
        """Improve a factor by Newton's method until it mends the case."""
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
