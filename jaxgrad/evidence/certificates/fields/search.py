"""The search for a proof: runs of f and g in finite fields until every entry is proved.

Each run reads the program in another way and costs more than the one before: comparisons relaxed or
decided by draws, logarithms exact, angles, numbers in their order. Draws are added where too few
left a doubt.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import permutations, product

import numpy as np

from jaxgrad.evidence.certificates.fields.algebra import ALGEBRA
from jaxgrad.evidence.certificates.fields.arithmetic import ARITHMETIC
from jaxgrad.evidence.certificates.fields.arrays import STRUCTURAL
from jaxgrad.evidence.certificates.fields.choices import CHOICES
from jaxgrad.evidence.certificates.fields.domain import FieldDomain
from jaxgrad.evidence.certificates.fields.functions import FUNCTIONS
from jaxgrad.evidence.certificates.fields.identity import Outcome, compare
from jaxgrad.evidence.certificates.fields.lines import CONSTANTS, Lines, Name, differences
from jaxgrad.evidence.certificates.fields.modular import PRIMES, Draws
from jaxgrad.evidence.certificates.fields.rotations import Rotations
from jaxgrad.evidence.certificates.fields.values import BRANCH, COINS, MANY, PIVOT
from jaxgrad.jaxprs.cost import Meter, estimate, most_draws
from jaxgrad.jaxprs.degrees import bounds
from jaxgrad.jaxprs.joint import Traced
from jaxgrad.jaxprs.programs import constants
from jaxgrad.jaxprs.rationals import rational
from jaxgrad.jaxprs.walker import walk

RULES = ARITHMETIC | FUNCTIONS | CHOICES | STRUCTURAL | ALGEBRA
"""What each primitive does in a finite field."""

FEW, MOST, WITH_LOGS = 8, 4096, 2048
"""Draws: of the first run, and at most; those with logarithms modulo q have but two primes."""

LEARNING = 128
"""Draws of a run that learns where lines are cut."""

WINDOWS = 8
"""How many times other coins are told apart."""

ORDERS = 24
"""The most orders of pivots that are tried one by one."""

_ROOTS = frozenset({"sqrt", "rsqrt", "pow", "cholesky"})
_CIRCULAR = frozenset({"sin", "cos", "tan"})
_LOGARITHMIC = frozenset({"log", "log1p", "log2"})
_EXPONENTIAL = _LOGARITHMIC | {"exp", "exp2", "expm1", "logistic", "tanh", "sinh", "cosh", "pow"}


@dataclass(frozen=True)
class _Reading:
    """How a program is read.

    Attributes:
        relaxed: comparisons are unknowns, and not decided by draws.
        logs: logarithms are computed modulo q.
        angles: so are angles.
        ordered: comparisons follow the order of numbers that lie on one line.
        cuts: where these lines are cut; None where that is to be learned.
    """

    relaxed: bool
    logs: bool = False
    angles: bool = False
    ordered: bool = False
    cuts: Mapping[Name, Sequence[int]] | None = None


class Search:
    """What has been proved so far, entry by entry.

    Args:
        traced: f and g.
        seed: chooses the draws.
        meter: counts the work, and ends it.

    Attributes:
        proved: for each output, the entries that are proved.
        error: for each output, log2 of the probability of error where it is proved.
        degrees: for each output, a bound on the degree of f − g.
        first, last: the outcomes of the first and of the last run.
        runs, draws, coins: how many runs, the most draws of one, the most coins of an entry.
    """

    first: Outcome
    last: Outcome

    def __init__(self, traced: Traced, seed: int, meter: Meter) -> None:
        """Bound the degrees; nothing is proved yet."""
        self.traced, self.seed, self.meter = traced, seed, meter
        self.limit = most_draws(traced.program)
        self.meter.check(estimate(traced.program.jaxpr, FEW))
        found, self.inner = bounds(traced.program, [value is None for value in traced.values])
        half = len(found) // 2
        self.degrees = [
            max(a.numerator + b.denominator, b.numerator + a.denominator, 1)
            for a, b in zip(found[:half], found[half:], strict=True)
        ]
        self.two = not traced.primitives.isdisjoint(_EXPONENTIAL)
        self.rooted = not traced.primitives.isdisjoint(_ROOTS)
        self.proved = [np.zeros(shape, bool) for shape in traced.shapes]
        self.error = [np.zeros(shape) for shape in traced.shapes]
        self.runs = self.draws = self.coins = 0

    @property
    def started(self) -> bool:
        """Whether there is an outcome."""
        return "first" in vars(self)

    @property
    def done(self) -> bool:
        """Whether every entry is proved."""
        return all(p.all() for p in self.proved)

    def steps(self) -> Iterator[Outcome]:
        """Try one reading after the other.

        They are: relaxed; with exact logarithms; sampled; both; with angles; with numbers
        in order.
        """
        self.first = self._attempt(_Reading(True), FEW)
        yield self.first
        logs = self.two and not self.traced.primitives.isdisjoint(_LOGARITHMIC)
        branches = any((c.taint & BRANCH).any() for c in self.first.comparisons)
        ways = [_Reading(True, logs=True), _Reading(False), _Reading(False, logs=True)]
        if not self.traced.primitives.isdisjoint(_CIRCULAR):
            ways += [_Reading(True, angles=True), _Reading(False, angles=True)]
        for way in ways:
            differ = any(
                (~p & ~c.agree).any()
                for p, c in zip(self.proved, self.first.comparisons, strict=True)
            )
            if differ and (logs or not way.logs) and (branches or way.relaxed):
                yield self._attempt(way, 16 if way.relaxed else 128)
        if branches and not self.done and self.steps_apart is not None:
            for exact in (False, True) if logs else (False,):
                way = _Reading(False, logs=exact, ordered=True)
                lines = self._run(way, LEARNING).domain.lines
                if lines is not None and any(
                    len(cut) > 1 for cut in lines.cuts.values()
                ):  # else it is what was tried before
                    yield self._attempt(replace(way, cuts=lines.cuts), 128)

    @cached_property
    def steps_apart(self) -> list[Fraction] | None:
        """How far apart numbers are that differ by constants; None where there are too many."""
        small = [
            np.asarray(c, float).ravel()
            for c in constants(self.traced.program)
            if np.size(c) <= CONSTANTS
        ]
        readings = [
            rational(float(x)) for x in np.unique(np.concatenate([*small, [0.0]])) if np.isfinite(x)
        ]
        return differences([fraction for fraction, meant in readings if meant])

    def _attempt(self, way: _Reading, draws: int) -> Outcome:
        """Run, and run again with other coins told apart where there were too many."""
        proved, outcome = 0, self._settled(way, draws, 0)
        for window in range(1, WINDOWS):
            before, proved = proved, sum(int(p.sum()) for p in self.proved)
            if proved == before or not self._crowded(outcome):
                break
            outcome = self._settled(way, draws, window * COINS)
        self.last = outcome
        return outcome

    def _crowded(self, outcome: Outcome) -> bool:
        """Say whether an entry that agrees depends on coins that were not told apart."""
        return any(
            (~p & c.agree & ((c.taint & MANY) != 0)).any()
            for p, c in zip(self.proved, outcome.comparisons, strict=True)
        )

    def _settled(self, way: _Reading, draws: int, skip: int) -> Outcome:
        """Run, and run again with more draws where those were too few."""
        most = min(self.limit, WITH_LOGS if way.logs else MOST)
        outcome = self._run(way, draws, skip=skip)
        for _ in range(4):
            both = list(zip(self.proved, outcome.comparisons, strict=True))
            open_ = [c for p, c in both if (~p & c.agree & ~c.proved).any()]
            wanted = max((c.needed for c in open_), default=0)
            if wanted > most:  # out of reach, unless few draws made coins of roots
                wanted = min(most, max(c.resolution for c in open_))
            if any((~p & ~c.defined & c.hope).any() for p, c in both):  # all draws were bad
                wanted = max(wanted, min(most, 4 * outcome.domain.draws.count))
            if wanted <= outcome.domain.draws.count:
                break
            outcome = self._run(way, math.ceil(wanted), skip=skip)
        self._record(
            outcome, [c.bound for c in outcome.comparisons], [c.proved for c in outcome.comparisons]
        )
        self._all_pivots(way, outcome)
        return outcome

    def _record(
        self, outcome: Outcome, bounds: Sequence[np.ndarray], proofs: Sequence[np.ndarray]
    ) -> None:
        for proved, error, bound, proof in zip(
            self.proved, self.error, bounds, proofs, strict=True
        ):
            new = ~proved & proof
            error[new], proved[new] = bound[new], True
        self.coins = max(self.coins, *(c.coins for c in outcome.comparisons), 0)

    def _all_pivots(self, way: _Reading, outcome: Outcome) -> None:
        """Prove what depends on pivots, where it holds for every order of elimination."""
        waiting = [
            (c.agree & ((c.taint & PIVOT) != 0) & ~p)
            for c, p in zip(outcome.comparisons, self.proved, strict=True)
        ]
        sizes = [len(order) for order in outcome.domain.matrices.values()]
        if (
            not any(w.any() for w in waiting)
            or math.prod(math.factorial(n) for n in sizes) > ORDERS
        ):
            return
        proofs, bounds = waiting, [np.full(w.shape, -math.inf) for w in waiting]
        for orders in product(*(permutations(range(n)) for n in sizes)):
            run = self._run(way, outcome.domain.draws.count, orders)
            proofs = [p & c.proved for p, c in zip(proofs, run.comparisons, strict=True)]
            bounds = [np.maximum(b, c.bound) for b, c in zip(bounds, run.comparisons, strict=True)]
            if not any(p.any() for p in proofs):
                return
        self._record(outcome, bounds, proofs)

    def _run(
        self,
        way: _Reading,
        count: int,
        orders: Sequence[Sequence[int]] | None = None,
        *,
        skip: int = 0,
    ) -> Outcome:
        self.meter.check(estimate(self.traced.program.jaxpr, count))
        self.runs, self.draws = self.runs + 1, max(self.draws, count)
        seed = hash((self.seed, self.runs)) & 0xFFFFFFFF
        draws = (
            Rotations(count, seed)
            if way.angles
            else Draws(count, seed, PRIMES[:2] if way.logs else PRIMES)
        )
        lines = (
            Lines(draws, self.steps_apart, way.cuts) if way.ordered and self.steps_apart else None
        )
        domain = FieldDomain(
            draws,
            RULES,
            relaxed=way.relaxed,
            two=self.two or way.angles,
            logs=way.logs,
            orders=orders or (),
            rooted=self.rooted,
            skip=skip,
            meter=self.meter,
            lines=lines,
        )
        inputs = [
            domain.variable(v.aval.shape) if value is None else value
            for v, value in zip(self.traced.program.jaxpr.invars, self.traced.values, strict=True)
        ]
        outputs = [domain.settled(x) for x in walk(self.traced.program, inputs, domain)]
        half = len(outputs) // 2
        pairs = zip(self.degrees, outputs[:half], outputs[half:], strict=True)
        return Outcome(
            domain,
            [compare(domain, d, self.inner, f, g, pivots=orders is not None) for d, f, g in pairs],
        )
