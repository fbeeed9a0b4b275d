"""Looks at a claim: the search for inputs that meet its branches, within its domains."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxgrad.claims.domains import kind
from jaxgrad.evidence.coverage.search import Coverage, Leaves, cover
from jaxgrad.evidence.problem import Problem
from jaxgrad.jaxprs.cost import estimate
from jaxgrad.jaxprs.intervals import Interval, anything
from jaxgrad.jaxprs.programs import equations

ENDS = {"positive": (0.0, np.inf), "probability": (0.0, 1.0)}
"""Domains whose entries are free between two numbers, both excluded."""
FREE = frozenset(("real", "integer", *ENDS))
"""Domains of which one entry may be moved alone."""
STEPS = 200_000
"""The most equations that one search evaluates, about two seconds."""
ENTRIES = 2**31
"""The most work of one search, in the units of `jaxgrad.jaxprs.cost`."""


def find_looks(
    problem: Problem, program: core.ClosedJaxpr, draws: Sequence[Any]
) -> tuple[list[Any], Coverage]:
    """Return inputs that meet the branches of a program of a claim's inputs, and what they cover.

    Args:
        problem: the claim.
        program: of the leaves of a draw.
        draws: inputs to begin with.
    """
    names = [path[0].key for path, _ in jax.tree_util.tree_leaves_with_path(draws[0])]
    kinds = [kind(problem.derivation.domains.get(name, "real")) for name in names]
    moving = [
        kind in FREE and name not in problem.given for name, kind in zip(names, kinds, strict=True)
    ]

    def inside(leaves: Leaves) -> bool:
        return all(
            np.all((x > ENDS[kind][0]) & (x < ENDS[kind][1]) & np.isfinite(x))
            if kind in ENDS
            else bool(np.all(np.isfinite(x)))
            for x, kind in zip(leaves, kinds, strict=True)
            if x.dtype.kind == "f"
        )

    leaves = [[np.asarray(x) for x in jax.tree.leaves(draw)] for draw in draws]
    ends = [
        Interval(float(np.min(x)), float(np.max(x)), x.shape)
        if name in problem.given
        else Interval(*ENDS[kind], x.shape)
        if kind in ENDS
        else anything(x.shape)
        for name, kind, x in zip(names, kinds, leaves[0], strict=True)
    ]
    work = max(1, estimate(program.jaxpr, 1))
    limit = int(min(STEPS, len(list(equations(program.jaxpr))) * ENTRIES / work))
    found = cover(program, leaves, moving, inside, problem.seed, limit, ends)
    structure = jax.tree.structure(draws[0])
    return [jax.tree.unflatten(structure, look.leaves) for look in found.looks], found
