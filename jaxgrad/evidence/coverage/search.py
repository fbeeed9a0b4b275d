"""Looks that meet the outcomes of branches: draws first, then a search for what they do not meet.

A *look* is a set of inputs at which both sides of a claim are run in numpy. `cover` begins with the
draws that it is given and with scaled ones, and then searches for every outcome that is not met:
from the looks that come nearest it moves one entry at a time (another size, another sign, zero, a
little noise) and keeps what raises the outcome's margin. Nothing is compiled.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax.extend import core

from jaxgrad.evidence.coverage.branches import Branch, Key, Run, Watched, branches, impossible
from jaxgrad.jaxprs.intervals import Interval, anything
from jaxgrad.jaxprs.numpy_run import FAILURES
from jaxgrad.jaxprs.walker import walk

SCALES = tuple(10.0**k for k in range(-6, 9, 2))
"""Sizes at which draws are looked at again."""
ROUNDS = 40
"""Moves that the search tries from one look, for one outcome."""
STARTS = 3
"""Looks from which it begins."""

Leaves = list[np.ndarray]
Inside = Callable[[Leaves], bool]


@dataclass
class Look:
    """Inputs at which the program was run.

    Attributes:
        leaves: the program's inputs.
        run: what it took.
        scaled: whether they were moved away from what the domain draws.
    """

    leaves: Leaves
    run: Run
    scaled: bool = False


@dataclass
class Coverage:
    """Which outcomes were met, and at which looks.

    Attributes:
        branches: all branches that vary with the inputs.
        met: {(branch, outcome): the look at which it mattered}.
        impossible: outcomes that no input can have.
        reached: outcomes that were taken, but at no look changed a result.
        looks: the looks at which something was first met.
        runs: how often the program was run.
        steps: how many equations were evaluated in all.
    """

    branches: list[Branch]
    met: dict[tuple[Key, str], Look] = field(default_factory=dict)
    reached: set[tuple[Key, str]] = field(default_factory=set)
    impossible: set[tuple[Key, str]] = field(default_factory=set)
    looks: list[Look] = field(default_factory=list)
    runs: int = 0
    steps: int = 0

    def missing(self) -> Iterator[tuple[Branch, str]]:
        """Return the outcomes that were not met, those of equality between real numbers aside."""
        for branch in self.branches:
            for outcome in branch.outcomes:
                point = branch.equality and outcome == (
                    "true" if branch.primitive == "eq" else "false"
                )
                cell = branch.key, outcome
                if not point and cell not in self.met and cell not in self.impossible:
                    yield branch, outcome


def cover(
    closed: core.ClosedJaxpr,
    draws: Sequence[Leaves],
    moving: Sequence[bool],
    inside: Inside = lambda leaves: True,
    seed: int = 0,
    limit: int = 200_000,
    ends: Sequence[Interval] | None = None,
) -> Coverage:
    """Look for inputs that meet every outcome of every branch of a program.

    Args:
        closed: the program; its results are what must change where an outcome is exchanged.
        draws: inputs to begin with, as the program takes them.
        moving: which inputs may be moved; the others stay as they were drawn.
        inside: says whether moved inputs lie in the claim's domain.
        seed: of the random moves.
        limit: the most equations that are evaluated, which bounds the time.
        ends: the interval of each input, by which outcomes may be shown to be impossible.

    >>> import jax, jax.numpy as jnp
    >>> relu6 = jax.make_jaxpr(lambda x: jnp.where((x > 0) & (x < 6), x, 0.0).sum())(np.ones(2))
    >>> found = cover(relu6, [[np.array([0.5, -1.0])]], [True])
    >>> sorted(outcome for branch, outcome in found.missing())
    []
    """
    search = _Search(closed, moving, inside, np.random.default_rng(seed), limit)
    shapes = [var.aval.shape for var in closed.jaxpr.invars]
    every = [anything(shape) for shape in shapes] if ends is None else list(ends)
    search.found.impossible |= impossible(closed, every, search.found.branches)
    return search.all(draws)


class _Search:
    def __init__(
        self,
        closed: core.ClosedJaxpr,
        moving: Sequence[bool],
        inside: Inside,
        rng: np.random.Generator,
        limit: int,
    ) -> None:
        self.closed, self.moving, self.inside, self.rng, self.limit = (
            closed,
            moving,
            inside,
            rng,
            limit,
        )
        listed = branches(closed, [True] * len(closed.jaxpr.invars))
        self.found = Coverage(listed)
        self.wanted = {branch.key: branch for branch in listed}
        self.seen: list[Look] = []

    def all(self, draws: Sequence[Leaves]) -> Coverage:
        if not self.wanted:
            return self.found
        for draw in draws:
            self.look(draw)
        for scale in SCALES:
            for draw in draws[:2]:
                self.look(self.moved(draw, lambda x, s=scale: x * s), scaled=True)
        for branch, outcome in list(self.found.missing()):
            if (branch.key, outcome) not in self.found.met:
                self.search(branch, outcome)
        return self.found

    def moved(self, leaves: Leaves, change: Callable[[np.ndarray], np.ndarray]) -> Leaves:
        return [
            np.asarray(change(x), x.dtype) if may and x.dtype.kind == "f" else x
            for x, may in zip(leaves, self.moving, strict=True)
        ]

    def run(self, leaves: Leaves, exchange: Any = None) -> Run | None:
        """Run the program; None where numpy cannot, or where the runs are used up."""
        if self.found.steps >= self.limit:
            return None
        self.found.runs += 1
        watched = Watched(self.wanted, exchange)
        try:
            outputs = walk(self.closed, leaves, watched)
        except FAILURES:
            return None
        finally:
            self.found.steps += watched.steps
        return Run([np.asarray(x) for x in outputs], watched.margins)

    def look(self, leaves: Leaves, *, scaled: bool = False) -> Look | None:
        """Run the program at some inputs, and enter which outcomes matter there."""
        if scaled and not self.inside(leaves):
            return None
        run = self.run(leaves)
        if run is None or not all(
            np.all(np.isfinite(x)) for x in run.outputs if x.dtype.kind == "f"
        ):
            return None
        look = Look(leaves, run, scaled)
        self.seen.append(look)
        first = False
        for key, outcome in run.margins:
            if (key, outcome) in self.found.met or not run.best(key, outcome) > 0:
                continue
            self.found.reached.add((key, outcome))
            if self.matters(look, key, outcome):
                self.found.met[key, outcome] = look
                first = True
        if first:
            self.found.looks.append(look)
        return look

    def matters(self, look: Look, key: Key, outcome: str) -> bool:
        """Say whether exchanging one outcome alone changes a result."""
        other = self.run(look.leaves, (key, outcome))
        return other is not None and any(
            not np.array_equal(a, b, equal_nan=True)
            for a, b in zip(look.run.outputs, other.outputs, strict=True)
        )

    def search(self, branch: Branch, outcome: str) -> None:
        """Search from the looks that come nearest to an outcome, and from those next to it."""
        key = branch.key
        near = sorted(self.seen, key=lambda look: -look.run.best(key, outcome))[:STARTS]
        beside = [
            self.found.met[key, other]
            for other in branch.outcomes
            if (key, other) in self.found.met
        ]
        for start in dict.fromkeys(map(id, [*beside, *near])):
            look = next(look for look in [*beside, *near] if id(look) == start)
            if self.climb(look, key, outcome):
                return

    def climb(self, best: Look, key: Key, outcome: str) -> bool:
        """Move one entry at a time towards an outcome; return whether it was met."""
        for step in range(ROUNDS):
            leaves = self.root(best, key, outcome) if step % 2 else self.step(best.leaves)
            trial = None if leaves is None else self.look(leaves, scaled=True)
            if (key, outcome) in self.found.met:
                return True
            if trial is not None and trial.run.best(key, outcome) > best.run.best(key, outcome):
                best = trial
        return False

    def root(self, look: Look, key: Key, outcome: str) -> Leaves | None:
        """Move one entry to where the outcome's margin would be zero, and a little further."""
        chosen = self.entry(look.leaves, "fi")
        if chosen is None:
            return None
        i, at = chosen
        value = float(look.leaves[i].flat[at])
        begin, whole = look.run.best(key, outcome), look.leaves[i].dtype.kind == "i"
        step = 1.0 if whole else 1e-3 * (abs(value) or 1.0)
        moved = self.run(self.put(look.leaves, i, at, value + step))
        slope = 0.0 if moved is None else (moved.best(key, outcome) - begin) / step
        if not np.isfinite(begin) or not np.isfinite(slope) or slope == 0:
            return None
        over = self.rng.choice((1.0, 1.0 + 1e-6, 1.1, 2.0))
        goal = value - over * begin / slope
        return self.put(look.leaves, i, at, np.round(goal) if whole else goal)

    def entry(self, leaves: Leaves, kinds: str) -> tuple[int, int] | None:
        """Choose one entry of one input that may be moved."""
        which = [
            i
            for i, (x, may) in enumerate(zip(leaves, self.moving, strict=True))
            if may and x.size and x.dtype.kind in kinds
        ]
        if not which:
            return None
        i = int(self.rng.choice(which))
        return i, int(self.rng.integers(leaves[i].size))

    @staticmethod
    def put(leaves: Leaves, i: int, at: int, value: Any) -> Leaves:
        x = np.array(leaves[i])
        x.flat[at] = value
        return [*leaves[:i], x, *leaves[i + 1 :]]

    def step(self, leaves: Leaves) -> Leaves:
        """Move one entry of one input."""
        chosen = self.entry(leaves, "fiu")
        if chosen is None:
            return leaves
        i, at = chosen
        x = leaves[i]
        value, another = x.flat[at], x.flat[self.rng.integers(x.size)]
        if x.dtype.kind != "f":
            moves = [
                value + 1,
                value - 1,
                2 * value,
                -value,
                self.rng.integers(-1000, 1000),
                another,
            ]
        else:
            size = abs(value) or 1.0
            far = 10 ** self.rng.uniform(-2, 2)
            moves = [
                value * far,
                -value,
                value + size * self.rng.normal(),
                0.0,
                -value * far,
                another,
            ]
        return self.put(leaves, i, at, moves[self.rng.integers(len(moves))])
