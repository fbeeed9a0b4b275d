"""The closed form of an expected gradient against sampling, until the verdict is sure either way.

Samples come in chunks, and after 256, 512, 1024 … chunks their mean is looked at
(`jaxgrad.evidence.sampling.sequential`), within bounds that take nothing for normal
(`jaxgrad.evidence.sampling.tails`). Before that a few samples in float64 tell which draw of the
inputs scatters least and what rounding does, and a few built masks tell what rare events would move
(`jaxgrad.evidence.sampling.rare_events`). Both wrong verdicts are bounded by `false_alarm`: a right
closed form refuted, and one confirmed that is off by more than the resolution.
"""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad.claims import shapes
from jaxgrad.claims.shapes import sizes_text
from jaxgrad.evidence.noise.random_rounding import FEW_RUNS, movement
from jaxgrad.evidence.problem import Problem, labelled
from jaxgrad.evidence.sampling.checkpoints import Checkpoint, fingerprint, program
from jaxgrad.evidence.sampling.loop import BRIEF_CHUNK, Sampler
from jaxgrad.evidence.sampling.processes import agree, same
from jaxgrad.evidence.sampling.rare_events import BATCH as PILOT
from jaxgrad.evidence.sampling.rare_events import Rarities, rarities
from jaxgrad.evidence.sampling.sequential import FIRST_LOOK, Limits, Sequence
from jaxgrad.jaxprs.precision import in_precision
from jaxgrad.jaxprs.programs import reached
from jaxgrad.jaxprs.traced import TracedOnce
from jaxgrad.masks.threefry import key_of
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.runtime.compiled import Program, at_once
from jaxgrad.runtime.options import check_options
from jaxgrad.runtime.threads import workers

CHUNK_BUDGET = 2**20
"""Bytes of intermediate values in a chunk: the first look takes many chunks, so they are smaller
than an estimate's.
"""
CANDIDATES, FEW_CANDIDATES = 16, 4
"""So many draws of the inputs, fewer where they are large, are tried, and the one whose sampled
gradients scatter least is taken.
"""
LARGE = 2**14
"""Inputs of more numbers than this are large."""
SHAKEN = 3
"""Samples whose rounding is measured by random rounding."""
_UNITS_RATIO = float(np.finfo(np.float32).eps) / float(np.finfo(np.float64).eps)
SUM_ROUNDING = 256.0
"""Roundoffs of an array's largest entry that a mean over many samples may be off by; far below any
resolution.
"""
NEGLIGIBLE = 1e-3
"""Part of the resolution that a rare event may move the gradient by without being counted."""
BRIEF = 2**20
"""Up to so many samples a loop that compiles quickly is preferred to one that may run a little
quicker.
"""
ROWS = 48
"""Extent of the mask's leading, independent axis where it may be chosen: one sample then averages
over many rows.
"""


def choose_sizes(problem: Problem) -> dict[str, int]:
    """Choose small sizes, but many rows of the mask where the gradient is a sum over them."""
    sizes, declared = problem.choose_sizes(0, few_masks=True), problem.derivation.shapes
    rows, *columns = shapes.parse(declared["mask"], "mask")
    by_row = any(
        rows in dims for name in problem.wrt for _, dims in shapes.leaves({name: declared[name]})
    )
    if (
        columns
        and len(rows) == 1
        and rows[0] in sizes
        and rows[0] not in problem.sizes
        and not by_row
    ):
        sizes[rows[0]] = ROWS
    return sizes


def monte_carlo(problem: Problem) -> list[Finding]:
    """Compare the closed form with sampled gradients of the loss.

    Args:
        problem: a claim with a mask.

    Returns:
        One finding for each array of the gradient.
    """
    start = time.perf_counter()
    sizes, wrt = choose_sizes(problem), problem.wrt
    derivation = problem.derivation
    distribution = derivation.distribution(sizes)
    assert distribution is not None

    def loss(moving: dict[str, Any], fixed: dict[str, Any], mask: Any) -> Any:
        return problem.loss({**moving, **fixed}, mask)

    sampler = Sampler(
        loss, distribution, derivation.mask_shape(sizes), 0, brief=problem.max_samples <= BRIEF
    )
    key = key_of(problem.seed)
    draws = [problem.draw(sizes, number) for number in range(_candidates(problem, sizes))]
    split = [
        ({n: x for n, x in d.items() if n in wrt}, {n: x for n, x in d.items() if n not in wrt})
        for d in draws
    ]
    if workers() > 1:
        with in_precision(
            False
        ):  # as it is mostly; should the pilot find that float64 is needed, that is compiled then
            single = _cast(split[0], False)
            chunk, most = _chunks(problem, sampler, single)
            sampler.begin(key, single, chunk, min(most, FIRST_LOOK))
    pilot = _Pilot(problem.closed_form(sizes), sampler, key)
    trials = [pilot.run(args) for args in split]
    best = int(agree(str(int(np.argmin([trial.noise for trial in trials]))).encode()))
    args, claimed = split[best], trials[best].claimed
    double, rounding = pilot.rounding(args, trials[best])
    double = agree(str(int(double)).encode()) == b"1"
    flat = np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in claimed.values()])
    if not np.all(np.isfinite(flat)):
        reason = "the closed form is not finite"
        return [
            Finding(evidence="monte_carlo", wrt=label, verdict=Verdict.UNDECIDED, detail=reason)
            for label in claimed
        ]
    parts, shape = _labels(claimed), derivation.mask_shape(sizes)
    rare = pilot.rare(args, trials[best], parts, problem.resolution)
    with in_precision(double):
        final = _cast(args, double)
        chunk, most = (
            int(n)
            for n in agree("{} {}".format(*_chunks(problem, sampler, final)).encode()).split()
        )
        limits = Limits(problem.false_alarm, problem.resolution, problem.max_samples, chunk, most)
        sequence = Sequence(
            flat,
            rounding,
            parts,
            limits,
            rarest=_rarest(distribution, shape),
            rare=rare,
            fixed=pilot.fixed(args),
            seed=problem.seed,
            shape=shape,
        )
        checkpoint = None
        if problem.checkpoint is not None or jax.process_count() > 1:
            known = (
                sampler.fingerprint(key, final, chunk, most),
                program(problem.closed_form(sizes), {**final[0], **final[1]}),
            )
            whole = fingerprint(*known, *limits, sorted(sizes.items()), list(parts.items()))
            same(whole)
            checkpoint = (
                None if problem.checkpoint is None else Checkpoint(problem.checkpoint, whole)
            )
            if checkpoint is not None and (state := checkpoint.load()) is not None:
                sequence.restore(state)
        sequence.run(
            lambda first, chunks: sampler.round(key, final, first, chunk, chunks),
            tell=None
            if problem.progress is None
            else lambda done, line: problem.report_progress("monte_carlo", done, line),
            keep=None
            if checkpoint is None
            else lambda state: checkpoint.save({"key": jax.random.key_data(key), **state}),
        )
    seconds = (time.perf_counter() - start) / len(claimed)
    shown = f" at {sizes_text(sizes)}"
    return [
        sequence.finding(label, seconds, shown, np.shape(array)) for label, array in claimed.items()
    ]


def _chunks(problem: Problem, sampler: Sampler, args: Any) -> tuple[int, int]:
    """Choose samples a chunk, so few that a gross error is refuted after a few thousand samples,
    and chunks a round, at most.
    """
    chunk, most = sampler.plan(sampler.known(args), problem.max_samples, cache=CHUNK_BUDGET)
    return max(1, min(chunk, BRIEF_CHUNK, problem.max_samples // FIRST_LOOK)), most


def _candidates(problem: Problem, sizes: dict[str, int]) -> int:
    if len(problem.given) == len(problem.derivation.input_names):
        return 1
    large = sum(np.size(leaf) for leaf in jax.tree.leaves(problem.draw(sizes, 0))) > LARGE
    return FEW_CANDIDATES if large else CANDIDATES


def _rarest(distribution: Any, shape: tuple[int, ...]) -> float:
    """Return the smallest positive probability with which an entry of the mask is kept, or dropped;
    1 where none is random.
    """
    mean = np.ravel(np.asarray(at_once(lambda: distribution.mean(shape[-1])), np.float64))
    either = np.concatenate([mean, 1 - mean])
    return float(np.min(either[(either > 0) & (either < 1)], initial=1.0))


def _labels(claimed: dict[str, Any]) -> dict[str, slice]:
    parts, begin = {}, 0
    for label, leaf in claimed.items():
        parts[label] = slice(begin, begin + np.size(leaf))
        begin += np.size(leaf)
    return parts


def _cast(args: Any, double: bool) -> Any:
    dtype = np.float64 if double else np.float32
    return jax.tree.map(
        lambda x: np.asarray(
            x, dtype if jnp.issubdtype(jnp.result_type(x), jnp.floating) else None
        ),
        args,
    )


class _Trial(NamedTuple):
    """What a few samples tell of one draw of the inputs."""

    claimed: dict[str, Any]
    gradient: Any
    noise: float


class _Pilot:
    """A few samples in float64, before the many: which draw has the least noise, and whether
    float32 is good enough.
    """

    def __init__(self, closed: Any, sampler: Sampler, key: Any) -> None:
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

    def run(self, args: Any) -> _Trial:
        """Sample a little at one draw of the inputs; the noise is that of a sample relative to the
        largest entry.
        """
        claimed, found = (
            labelled(self.closed({**args[0], **args[1]})),
            labelled(self.gradient.over(self.masks, args)),
        )
        scales = [np.abs(np.asarray(leaf)).max(initial=0.0) for leaf in claimed.values()]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            spreads = [np.std(np.asarray(leaf), axis=0).max(initial=0.0) for leaf in found.values()]
            noise = float(np.nan_to_num(np.max(np.divide(spreads, scales)), nan=0.0, posinf=1e300))
        return _Trial(claimed, found, noise)

    def rounding(self, args: Any, trial: _Trial) -> tuple[bool, np.ndarray]:
        """Say whether to sample in float64, and what rounding may do to each entry's mean."""
        with in_precision(False):
            single = labelled(
                self.gradient.over(np.asarray(self.masks, np.float32), _cast(args, False))
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
        """Return how far random rounding in float64 moves each entry, at a mask of ones and at the
        masks of the largest gradients.

        XLA's algebraic simplification, which the loop goes without, may undo what floating point
        absorbs, as in (x + 1e8) − 1e8; so that a comparison of compiled programs alone would not
        see what the loop's arithmetic loses.
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

    def rare(
        self, args: Any, trial: _Trial, parts: dict[str, slice], resolution: float
    ) -> Rarities:
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
