"""The closed form against reverse-mode differentiation, both in float64, entry by entry.

Generic draws, at several sizes, are compared with measured bounds on rounding; draws with exact
zeros and ties, and draws that reach other branches, in their leading digits
(`jaxgrad.evidence.numerical.looks`). Most mistakes that need many entries show in the leading
digits at larger sizes: there one draw is looked at in numpy. An entry where the two sides disagree
is refuted only after differences of the loss have spoken
(`jaxgrad.evidence.numerical.disagreements`).
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad.claims.labels import sweep
from jaxgrad.claims.shapes import sizes_text
from jaxgrad.evidence.noise.rounding import COPIES, noisy_copies, roughly_equal
from jaxgrad.evidence.numerical.both_sides import BothSides, Look
from jaxgrad.evidence.numerical.disagreements import SMALL
from jaxgrad.evidence.numerical.looks import COARSE, at_further, at_generic, at_special
from jaxgrad.evidence.numerical.summary import Summary, judge
from jaxgrad.evidence.problem import Problem
from jaxgrad.jaxprs.cost import estimate
from jaxgrad.jaxprs.numpy_run import floating, leaves_range
from jaxgrad.jaxprs.programs import equations, working_unit
from jaxgrad.jaxprs.traced import Traceable
from jaxgrad.reports.finding import Finding

DRAWS = 2
"""Generic draws at each choice of sizes."""
SPECIAL_DRAWS = 4
"""Draws with exact zeros, ties and ends of the domains at each choice of sizes."""
BRANCHED_DRAWS = 30
"""Further generic draws at each choice of sizes where the programs branch, so that an error in one
branch is not missed.
"""
BRANCHES = frozenset(
    "select_n cond max min reduce_max reduce_min cummax cummin reduce_window_max "
    "reduce_window_min select_and_scatter_add select_and_gather_add scatter-max scatter-min sort "
    "top_k sign abs clamp floor ceil round rem".split()
)
"""Primitives that do one thing at some inputs and another at others. So does each that makes of
real numbers what is none, as > does.
"""
LARGER_WORK = 2**27
"""The most work, in the units of `jaxgrad.jaxprs.cost`, of a program that is run at larger sizes:
about a tenth of a second in numpy.
"""

LossOf = Callable[[dict[str, int]], Traceable]


def autodiff(
    problem: Problem,
    variants: list[dict[str, int]],
    loss_of: LossOf,
    evidence: str = "autodiff",
    beyond: dict[str, int] | None = None,
) -> list[Finding]:
    """Compare the closed form with autodiff of the loss, or of its exact expectation.

    Args:
        problem: the claim.
        variants: choices of sizes.
        loss_of: gives at each choice the function of the inputs that is differentiated.
        evidence: name of the findings.
        beyond: larger sizes, at which a refutation counts, and nothing else.

    Returns:
        One finding for each array of the gradient.
    """
    start = time.perf_counter()
    summaries: dict[str, Summary] = {}
    for i, sizes in enumerate(variants):
        problem.report_progress(evidence, i / len(variants), sizes_text(sizes))
        if summaries and all(summary.refuted for summary in summaries.values()):
            break
        _compare_at(problem, BothSides(problem, sizes, loss_of(sizes)), summaries)
    where = (
        f"{DRAWS} draws at each of {len(variants)} choices of sizes"
        if len(variants) > 1
        else f"{DRAWS} draws at {sizes_text(variants[0])}"
    )
    if (
        beyond is not None
        and not all(summary.refuted for summary in summaries.values())
        and _agree_at_larger(problem, beyond, loss_of, summaries)
    ):
        where += f" and one at {sizes_text(beyond)}"
    seconds = (time.perf_counter() - start) / max(1, len(summaries))
    return [judge(evidence, label, summary, where, seconds) for label, summary in summaries.items()]


def _compare_at(problem: Problem, sides: BothSides, summaries: dict[str, Summary]) -> None:
    """Compare both sides at all draws of one choice of sizes, which are run as one stack."""
    draws = [problem.draw(sides.sizes, number) for number in range(DRAWS)]
    special = [problem.draw(sides.sizes, number, special=True) for number in range(SPECIAL_DRAWS)]
    programs = sides.programs(draws[0])
    further = _further_draws(problem, sides, draws[0], programs)
    once = jax.tree.map(lambda *x: np.stack(x), *special, *further)
    unit = max(map(working_unit, programs))
    copied = [noisy_copies(draw, unit, number, sides.discrete) for number, draw in enumerate(draws)]
    claimed, reference, losses = sides(jax.tree.map(lambda *x: np.concatenate(x), *copied, once))
    finite, rows = np.isfinite(losses), COPIES + 1
    for number in range(DRAWS):
        problem.remember(
            sides.sizes, number, {label: array[number * rows] for label, array in claimed.items()}
        )
    for label in claimed:
        summary = summaries.setdefault(label, Summary())

        def look(draw: Any, row: int, label: str = label) -> Look:
            return Look(sides, draw, label, claimed[label][row], reference[label][row], unit)

        for number, draw in enumerate(draws):
            first = number * rows
            if summary.refuted:
                break
            if not finite[first]:
                summary.vacuous = False
                summary.doubts.append(
                    f"the loss is not finite at {sizes_text(sides.sizes)}; give its inputs a "
                    f"narrower domain"
                )
                continue
            copies = (side[label][first : first + rows] for side in (claimed, reference))
            measure = partial(sides.rounded, copied[number], number, unit)
            at_generic(summary, look(draw, first), tuple(copies), measure)
        for row, draw in enumerate([*special, *further], start=DRAWS * rows):
            if not summary.refuted and finite[row]:
                compare = at_special if row < DRAWS * rows + len(special) else at_further
                compare(summary, look(draw, row))


def _agree_at_larger(
    problem: Problem, sizes: dict[str, int], loss_of: LossOf, summaries: dict[str, Summary]
) -> bool:
    """Say whether both sides have the same leading digits at a draw of larger sizes.

    Where not, all draws there are compared, and a refutation is kept.
    """
    try:
        sides, draw = BothSides(problem, sizes, loss_of(sizes)), problem.draw(sizes, 0)
        programs = sides.programs(draw)
        if any(estimate(program.jaxpr, 1) > LARGER_WORK for program in programs):
            return False
        claimed, reference = (floating(program, jax.tree.leaves(draw)) for program in programs)
        if claimed is not None and reference is not None:
            matched = zip(
                claimed, reference[-len(claimed) :], strict=True
            )  # the gradient follows the value
            if all(roughly_equal(c, r, COARSE) for c, r in matched):
                return True
        if any(leaves_range(program, jax.tree.leaves(draw)) for program in programs):
            return False
        seen: dict[str, Summary] = {}
        _compare_at(problem, sides, seen)
    except Exception:  # a claim may be made for some sizes alone, and refuse others
        return False
    summaries.update(
        {
            label: summary
            for label, summary in seen.items()
            if summary.refuted and not summaries[label].refuted
        }
    )
    return False


def _further_draws(
    problem: Problem, sides: BothSides, draw: Any, programs: Sequence[Any]
) -> list[Any]:
    """Return more draws where programs branch or inputs are discrete."""
    entries = max(1, sum(np.size(leaf) for leaf in jax.tree.leaves(draw)))
    branches = any(_branches(eqn) for program in programs for eqn in equations(program.jaxpr))
    if not (branches or sides.discrete) or entries > SMALL // BRANCHED_DRAWS:
        return []
    further = [problem.draw(sides.sizes, number) for number in range(DRAWS, DRAWS + BRANCHED_DRAWS)]
    swept = sweep(
        problem.derivation, sides.sizes, sorted(problem.discrete(sides.sizes) - set(problem.given))
    )
    room = SMALL // entries - BRANCHED_DRAWS
    return further + [
        {**further[i % BRANCHED_DRAWS], **labels} for i, labels in enumerate(swept[:room])
    ]


def _branches(eqn: Any) -> bool:
    """Say whether an equation does one thing at some inputs and another at others."""
    real, made = (
        [jnp.issubdtype(v.aval.dtype, np.floating) for v in side]
        for side in (eqn.invars, eqn.outvars)
    )
    return eqn.primitive.name in BRANCHES or (any(real) and not any(made))
