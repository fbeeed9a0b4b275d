"""The closed form of an expected gradient against sampling, until the verdict is sure either way.

Samples come in chunks, and after 256, 512, 1024 … chunks their mean is looked at
(`jaxgrad.evidence.sampling.sequential`), within bounds that take nothing for normal
(`jaxgrad.evidence.sampling.tails`). Before that a few samples in float64 tell which draw of the
inputs scatters least and what rounding does, and a few built masks tell what rare events would move
(`jaxgrad.evidence.sampling.rare_events`). Both wrong verdicts are bounded by `false_alarm`: a right
closed form refuted, and one confirmed that is off by more than the resolution.
"""

import time
from typing import Any

import jax
import numpy as np

from jaxgrad.claims import shapes
from jaxgrad.claims.shapes import sizes_text
from jaxgrad.evidence.problem import Problem
from jaxgrad.evidence.sampling.checkpoints import Checkpoint, fingerprint, program
from jaxgrad.evidence.sampling.loop import BRIEF_CHUNK, Sampler
from jaxgrad.evidence.sampling.pilot import Pilot, cast
from jaxgrad.evidence.sampling.processes import agree, same
from jaxgrad.evidence.sampling.sequential import FIRST_LOOK, Limits, Sequence
from jaxgrad.jaxprs.precision import in_precision
from jaxgrad.masks.threefry import key_of
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.runtime.compiled import at_once
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
            single = cast(split[0], False)
            chunk, most = _chunks(problem, sampler, single)
            sampler.begin(key, single, chunk, min(most, FIRST_LOOK))
    pilot = Pilot(problem.closed_form(sizes), sampler, key)
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
        final = cast(args, double)
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
    """Choose samples a chunk, and chunks a round, at most.

    Chunks are so small that a gross error is refuted after a few thousand samples.
    """
    chunk, most = sampler.plan(sampler.known(args), problem.max_samples, cache=CHUNK_BUDGET)
    return max(1, min(chunk, BRIEF_CHUNK, problem.max_samples // FIRST_LOOK)), most


def _candidates(problem: Problem, sizes: dict[str, int]) -> int:
    if len(problem.given) == len(problem.derivation.input_names):
        return 1
    large = sum(np.size(leaf) for leaf in jax.tree.leaves(problem.draw(sizes, 0))) > LARGE
    return FEW_CANDIDATES if large else CANDIDATES


def _rarest(distribution: Any, shape: tuple[int, ...]) -> float:
    """Return the least positive probability of an entry of the mask being kept, or dropped.

    It is 1 where none is random.
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
