"""Closed form and autodiff side by side: compiled as one program, evaluated at draws, and with what
rounding does to both.
"""

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


class Pair:
    """Closed form and autodiff at one choice of sizes, compiled for one draw and run over a stack
    of them.
    """

    def __init__(self, problem: Problem, sizes: dict[str, int], loss: Traceable) -> None:
        """Set up; nothing is compiled yet."""
        self.problem, self.sizes, self.loss, self.wrt = problem, sizes, loss, problem.wrt
        self.discrete = (
            problem.discrete(sizes) | problem.likely_labels
        )  # which rounding leaves as they are
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
        """Return closed form and autodiff at each of some draws, and the loss's largest magnitude
        there.
        """
        claimed, (value, gradient) = self._both.over(stacked)
        return (
            labelled(claimed),
            labelled(gradient),
            np.abs(value).reshape(len(value), -1).max(axis=1, initial=0.0),
        )

    def explained_by_constants(self, draw: dict[str, Tree]) -> dict[str, np.ndarray]:
        """Return what difference of both sides at a draw the rounding of narrow constants
        explains.
        """
        if self._constants[0] is not draw:
            self._constants = (
                draw,
                explained_by_constants(self.problem, self.sizes, self.loss, draw),
            )
        return self._constants[1]

    def rounded(self, stacked: dict[str, Tree], number: int, unit: float) -> Any:
        """Evaluate draw `number` in float32, in float64 at the same inputs, and measure its move
        under random rounding.
        """
        if number not in self._rounded:
            low = jax.tree.map(
                lambda x: x.astype(np.float32) if np.issubdtype(x.dtype, np.floating) else x,
                stacked,
            )
            high = jax.tree.map(
                lambda x: x.astype(np.float64) if np.issubdtype(x.dtype, np.floating) else x, low
            )
            with in_precision(False):
                single = self(low)[:2]
            base = jax.tree.map(lambda x: x[0], stacked)
            self._rounded[number] = single, self(high)[:2], self._moves(base, unit)
        return self._rounded[number]

    def moved(self, draw: dict[str, Tree], unit: float) -> dict[str, np.ndarray]:
        """Measure how far random rounding moves either side at a draw."""
        claimed, reference = self._moves(draw, unit)
        return {label: np.maximum(claimed[label], reference[label]) for label in claimed}

    def _moves(
        self, draw: dict[str, Tree], unit: float
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        moves = movement(self.both, unit, draw, options=check_options())
        return labelled(moves[0]), labelled(moves[1][1])
