"""A few samples in float64, before the many."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad.evidence.noise.random_rounding import FEW_RUNS, movement
from jaxgrad.evidence.problem import labelled
from jaxgrad.evidence.sampling.loop import Sampler
from jaxgrad.evidence.sampling.rare_events import BATCH as PILOT
from jaxgrad.evidence.sampling.rare_events import Rarities, rarities
from jaxgrad.jaxprs.precision import in_precision
from jaxgrad.jaxprs.programs import reached
from jaxgrad.jaxprs.traced import TracedOnce
from jaxgrad.runtime.compiled import Program
from jaxgrad.runtime.options import check_options

SHAKEN = 3
"""Samples whose rounding is measured by random rounding."""
_UNITS_RATIO = float(np.finfo(np.float32).eps) / float(np.finfo(np.float64).eps)
SUM_ROUNDING = 256.0
"""Roundoffs of an array's largest entry that a mean over many samples may be off by; far below any
resolution.
"""
NEGLIGIBLE = 1e-3
"""Part of the resolution that a rare event may move the gradient by without being counted."""


def cast(args: Any, double: bool) -> Any:
    """Return arguments with their real numbers in float64, or in float32."""
    dtype = np.float64 if double else np.float32
    return jax.tree.map(
        lambda x: np.asarray(
            x, dtype if jnp.issubdtype(jnp.result_type(x), jnp.floating) else None
        ),
        args,
    )


class Trial(NamedTuple):
    """What a few samples tell of one draw of the inputs."""

    claimed: dict[str, Any]
    gradient: Any
    noise: float


class Pilot:
    """A few samples in float64, before the many.

    They tell which draw has the least noise, and whether float32 is good enough.
    """

    def __init__(self, closed: Any, sampler: Sampler, key: Any) -> None:
        """Draw the masks; the closed form and the sampled gradient are not traced yet."""
        self.sampler = sampler

        def gradient(draw: Any, args: Any) -> Any:
            return jax.grad(lambda moving: sampler.of_draw((moving, args[1]), draw))(args[0])

        self.traced = TracedOnce(gradient)
        self.closed, self.gradient = (
            Program(closed, check_options()),
            Program(self.traced, check_options()),
        )
        draw = Program(lambda key, mask: mask.sample(key, (PILOT, *sampler.shape)), check_options())
        self.masks = np.asarray(draw(key, sampler.mask), np.float64)

    def run(self, args: Any) -> Trial:
        """Sample a little at one draw of the inputs.

        The noise is that of a sample relative to the largest entry.
        """
        claimed, found = (
            labelled(self.closed({**args[0], **args[1]})),
            labelled(self.gradient.over(self.masks, args)),
        )
        scales = [np.abs(np.asarray(leaf)).max(initial=0.0) for leaf in claimed.values()]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            spreads = [np.std(np.asarray(leaf), axis=0).max(initial=0.0) for leaf in found.values()]
            noise = float(np.nan_to_num(np.max(np.divide(spreads, scales)), nan=0.0, posinf=1e300))
        return Trial(claimed, found, noise)

    def rounding(self, args: Any, trial: Trial) -> tuple[bool, np.ndarray]:
        """Say whether to sample in float64, and what rounding may do to each entry's mean."""
        with in_precision(False):
            single = labelled(
                self.gradient.over(np.asarray(self.masks, np.float32), cast(args, False))
            )
        exact = [
            np.asarray(leaf, np.float64).reshape(PILOT, -1) for leaf in trial.gradient.values()
        ]
        with np.errstate(invalid="ignore", over="ignore"):
            off = [
                np.asarray(leaf, np.float64).reshape(PILOT, -1) - e
                for leaf, e in zip(single.values(), exact, strict=True)
            ]
            moves = [np.abs(move).mean(0) for move in off]
        shaken = self._shaken(args, exact)
        low = [
            np.maximum(move, _UNITS_RATIO * shake)
            for move, shake in zip(moves, shaken, strict=True)
        ]
        scales = [np.abs(e).max(initial=0.0) for e in exact]
        double = not all(
            np.all(move <= 1e-4 * scale) for move, scale in zip(low, scales, strict=True)
        )
        eps = float(np.finfo(np.float64 if double else np.float32).eps)
        floors = [
            np.full(move.shape, SUM_ROUNDING * eps * scale)
            for move, scale in zip(moves, scales, strict=True)
        ]
        return double, np.concatenate(floors) + 8.0 * np.concatenate(shaken if double else low)

    def _shaken(self, args: Any, exact: list[np.ndarray]) -> list[np.ndarray]:
        """Return how far random rounding in float64 moves each entry.

        That is at a mask of ones and at the masks of the largest gradients. XLA may simplify away
        what floating point absorbs, as in (x + 1e8) − 1e8, in one compiled program and not in
        another; so comparing compiled programs does not show all that the loop may lose.
        """
        sizes = np.sum([np.abs(e).max(axis=1, initial=0.0) for e in exact], axis=0)
        largest = np.argsort(np.nan_to_num(sizes, nan=-1.0, posinf=-1.0))[::-1][:SHAKEN]
        unit = float(np.finfo(np.float64).eps)
        runs = [
            labelled(
                movement(self.traced, unit, mask, args, options=check_options(), runs=FEW_RUNS)
            )
            for mask in (np.ones_like(self.masks[0]), *self.masks[largest])
        ]
        shaken = []
        for label, e in zip(runs[0], exact, strict=True):
            moves = np.stack([np.ravel(run[label]) for run in runs])
            # what rounding takes out of the domain may be anything; at a mask of ones the function
            # may be undefined from the start
            defined = np.concatenate([np.zeros((1, e.shape[1]), bool), np.isfinite(e[largest])])
            shaken.append(
                np.where(np.isfinite(moves), moves, np.where(defined, np.inf, 0.0)).mean(0)
            )
        return shaken

    def fixed(self, args: Any) -> list[str]:
        """Return the labels of the arrays whose program does not take the mask."""
        program, shape = self.traced.program(self.masks[0], args)
        given = [True, *(False for _ in jax.tree.leaves(args))]
        return [
            label
            for label, taken in zip(labelled(shape), reached(program.jaxpr, given), strict=True)
            if not taken
        ]

    def rare(self, args: Any, trial: Trial, parts: dict[str, slice], resolution: float) -> Rarities:
        """Look for rare events of the mask that move the gradient."""

        def evaluate(masks: np.ndarray) -> np.ndarray:
            found = labelled(self.gradient.over(masks, args))
            return np.concatenate(
                [np.asarray(leaf, np.float64).reshape(PILOT, -1) for leaf in found.values()], axis=1
            )

        scales = [np.abs(np.asarray(leaf)).max(initial=0.0) for leaf in trial.claimed.values()]
        lengths = [part.stop - part.start for part in parts.values()]
        tolerance = NEGLIGIBLE * resolution * np.repeat(scales, lengths)
        return rarities(
            self.sampler.mask, self.sampler.shape, evaluate, self.masks, tolerance, seed=0
        )
