"""Closed form and autodiff at one choice of sizes, compiled as one program and run at many draws.

Besides their values, `BothSides` measures what rounding does to either: in float32, under random
rounding of every intermediate value, and where low-precision constants change by one unit in the
last place. A `Look` is one array of them at one draw.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxgrad.evidence.noise.low_precision_constants import explained_by_constants
from jaxgrad.evidence.noise.random_rounding import movement
from jaxgrad.evidence.numerical.slopes import Prober
from jaxgrad.evidence.problem import Problem, Tree, labelled
from jaxgrad.jaxprs.precision import in_precision
from jaxgrad.jaxprs.traced import Together, Traceable
from jaxgrad.runtime.compiled import Program
from jaxgrad.runtime.options import check_options


class BothSides:
    """Closed form and autodiff at one choice of sizes, run over a stack of draws."""

    def __init__(self, problem: Problem, sizes: dict[str, int], loss: Traceable) -> None:
        """Set up; nothing is compiled yet."""
        self.problem, self.sizes, self.loss, self.wrt = problem, sizes, loss, problem.wrt
        # which rounding leaves as they are
        self.discrete = problem.discrete(sizes) | problem.likely_labels
        self._sides = problem.closed_form(sizes), problem.differentiated(loss)
        self.both = Together(self._sides)
        self._both = Program(self.both, check_options())
        self.prober = Prober(loss, self.wrt)
        self._rounded: dict[int, Any] = {}
        self._constants: tuple[Any, dict[str, np.ndarray]] = (None, {})

    def programs(self, draw: dict[str, Tree]) -> tuple[Any, ...]:
        """Return closed form and autodiff as traced programs."""
        return tuple(side.program(draw)[0] for side in self._sides)

    def __call__(
        self, stacked: dict[str, Tree]
    ) -> tuple[dict[str, Any], dict[str, Any], np.ndarray]:
        """Return closed form, autodiff and the loss's largest magnitude, at each of some draws."""
        claimed, (value, gradient) = self._both.over(stacked)
        return (
            labelled(claimed),
            labelled(gradient),
            np.abs(value).reshape(len(value), -1).max(axis=1, initial=0.0),
        )

    def explained_by_constants(self, draw: dict[str, Tree]) -> dict[str, np.ndarray]:
        """Return how far low-precision constants may set both sides apart at a draw."""
        if self._constants[0] is not draw:
            self._constants = (
                draw,
                explained_by_constants(self.problem, self.sizes, self.loss, draw),
            )
        return self._constants[1]

    def rounded(self, stacked: dict[str, Tree], number: int, unit: float) -> Any:
        """Return both sides of draw `number` in float32, in float64, and under random rounding."""
        if number not in self._rounded:
            low = _as_type(stacked, np.float32)
            with in_precision(False):
                single = self(low)[:2]
            base = jax.tree.map(lambda x: x[0], stacked)
            double = self(_as_type(low, np.float64))[:2]
            self._rounded[number] = single, double, self._movement(base, unit)
        return self._rounded[number]

    def moved(self, draw: dict[str, Tree], unit: float) -> dict[str, np.ndarray]:
        """Measure how far random rounding moves either side at a draw."""
        claimed, reference = self._movement(draw, unit)
        return {label: np.maximum(claimed[label], reference[label]) for label in claimed}

    def _movement(
        self, draw: dict[str, Tree], unit: float
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        moves = movement(self.both, unit, draw, options=check_options())
        return labelled(moves[0]), labelled(moves[1][1])


@dataclass(frozen=True)
class Look:
    """One array of both sides at one draw.

    Attributes:
        sides: closed form and autodiff at these sizes.
        draw: the inputs.
        label: the array's name.
        claimed: its values by the closed form.
        reference: its values by autodiff.
        unit: the unit roundoff of the programs.
    """

    sides: BothSides
    draw: Any
    label: str
    claimed: np.ndarray
    reference: np.ndarray
    unit: float

    @property
    def error(self) -> np.ndarray:
        """How far apart both sides are."""
        return np.abs(self.claimed - self.reference)

    @property
    def scale(self) -> float:
        """The largest entry of either side."""
        sides = np.abs(self.claimed), np.abs(self.reference)
        return max(float(side.max(initial=0.0)) for side in sides)


def _as_type(tree: Any, dtype: Any) -> Any:
    """Return a tree of arrays with those of floating-point numbers in another type."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if np.issubdtype(x.dtype, np.floating) else x, tree
    )
