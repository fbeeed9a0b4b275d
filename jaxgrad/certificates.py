"""Certificates: two JAX functions are equal, up to a stated probability of error, or they are not.

Two functions built from + − × ÷ are equal iff they agree at a random point of a large finite field, up to probability
degree/p (Schwartz 1980, Zippel 1979). `certify` traces both once, runs them together on residues modulo many primes
(`jaxgrad.fields`), and compares. In such a field exp, log, roots and signs have counterparts with the same laws, so that
most losses and their gradients are proved in the same way.

What a certificate says. *confirmed*: f and g are the same function, where the reals have their usual laws and decimal constants
mean the decimals they show; it speaks of points in general position, so a·b/b equals a, and at kinks and ties, where
derivatives are a convention, it says nothing. *refuted*: they are not. *undecided*: neither is known, for the reason given.

The bound. A polynomial that is not zero vanishes at a random point with probability at most degree/q, in each draw anew. A
result that depends on m coins, branches that a draw decides, is tested in any one branch by at least 2⁻ᵐ of the draws, so n
draws leave (1 − 2⁻ᵐ + degree/q)ⁿ. The sign of a root is a coin unless the draws show that its argument, given the others, is
not always positive. For exponentials the bound counts each as a variable of its own (Wu et al., Mirage, OSDI 2025,
arXiv 2405.05751, discuss what that assumes).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from jaxgrad.degrees import degrees
from jaxgrad.fields import Draws
from jaxgrad.identity import Outcome, common_ratio, compare
from jaxgrad.interpreter import UnsupportedError, walk
from jaxgrad.observation import Observation, observe, same_domain
from jaxgrad.report import Verdict
from jaxgrad.residue_algebra import ALGEBRA
from jaxgrad.residue_arrays import STRUCTURAL
from jaxgrad.residue_rules import ELEMENTWISE
from jaxgrad.residues import BRANCH, CONSTANT, EXP, OPAQUE, PIVOT, STEP, ResidueDomain
from jaxgrad.tracing import Traced, largest, trace

_FEW, _MOST = 8, 4096
_RULES = ELEMENTWISE | STRUCTURAL | ALGEBRA
_LOGARITHMIC = frozenset({"log", "log1p"})
_EXPONENTIAL = _LOGARITHMIC | {"exp", "exp2", "expm1", "logistic", "tanh", "sinh", "cosh", "pow"}
_MEANING = {
    BRANCH: "comparisons",
    STEP: "steps such as floor",
    EXP: "exponentials",
    OPAQUE: "functions that are not interpreted",
    CONSTANT: "constants that are no simple rational",
    PIVOT: "pivoting",
}


@dataclass(frozen=True)
class Mismatch:
    """One output in which the functions differ.

    Attributes:
        output: path of the output in the tree, such as ``['w1']``; empty for a single array.
        entries: how many entries differ.
        size: how many there are.
        index: the first that differs.
        values: f and g there at a random point in float64; None where they could not be computed.
    """

    output: str
    entries: int
    size: int
    index: tuple[int, ...]
    values: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What `certify` found.

    Attributes:
        verdict: confirmed, refuted or undecided.
        error_probability: bound on the probability that a confirmation is wrong; 1 where nothing is confirmed.
        mismatches: outputs in which a difference was found.
        ratio: g/f where it is the same rational number for all entries and is not 1; None otherwise.
        reason: what was shown, or why neither could be.
        draws: number of random points.
        degree: bound on the degree of f − g that the error probability rests on.
        coins: the most branches that one entry depends on and that the draws decided.
        seconds: wall-clock time, tracing included.
    """

    verdict: Verdict
    error_probability: float = 1.0
    mismatches: tuple[Mismatch, ...] = ()
    ratio: Fraction | None = None
    reason: str = ""
    draws: int = 0
    degree: int = 0
    coins: int = 0
    seconds: float = 0.0


def certify(f: Callable[..., Any], g: Callable[..., Any], *example_args: Any, seed: int = 0) -> Certificate:
    """Say whether two functions are equal: f(*args) = g(*args) for all arguments of these shapes.

    Args:
        f: a JAX function of pytrees of arrays; jax.grad, jvp, vmap, hessian, jit of functions are welcome.
        g: another of the same arguments, with outputs of the same tree and shapes.
        example_args: pytrees of arrays or `jax.ShapeDtypeStruct`. Floating-point entries are variables and only their
            shape matters; integers and booleans are taken as they are.
        seed: chooses the random points.

    Returns:
        A `Certificate`: "confirmed" with a probability of error of at most 2⁻¹⁰⁰, "refuted" with the entries that differ,
        or "undecided" with the reason.

    Raises:
        TypeError: when an argument is no array.
        ValueError: when the outputs differ in tree or shape, or a function draws random numbers, has side effects, or loops
            for a time that depends on the data.

    >>> import jax, jax.numpy as jnp
    >>> w = jnp.ones((3, 2))
    >>> certify(jax.grad(lambda w: jnp.sum(w**2) / 2), lambda w: w, w).verdict
    <Verdict.CONFIRMED: 'confirmed'>
    >>> certify(jax.grad(lambda w: jnp.mean(w**2)), lambda w: 2 * w, w).ratio
    Fraction(6, 1)

    Schwartz, J. ACM 27 (1980) 701; Zippel, EUROSAM (1979) 216; Wu et al., OSDI (2025), arXiv 2405.05751.
    """
    start = time.perf_counter()
    traced = trace(f, g, example_args)
    try:
        result = _Search(traced, seed).run()
    except UnsupportedError as error:
        result = _without_proof(traced, seed, f"{error}: no exact arithmetic for it")
    return Certificate(**{**vars(result), "seconds": time.perf_counter() - start})


class _Search:
    """Runs of growing cost until every entry is proved or nothing is left to try."""

    def __init__(self, traced: Traced, seed: int) -> None:
        self.traced, self.seed = traced, seed
        varying = [value is None for value in traced.values]
        bounds = degrees(traced.program, varying, fresh=True)
        half = len(bounds) // 2
        self.degrees = [
            max(a.numerator + b.denominator, b.numerator + a.denominator, 1) for a, b in zip(bounds[:half], bounds[half:], strict=True)
        ]
        self.two = not traced.primitives.isdisjoint(_EXPONENTIAL)
        self.limit = max(64, 2**22 // largest(traced.program.jaxpr))
        self.proved = [np.zeros(shape, bool) for shape in traced.shapes]
        self.error = [np.zeros(shape) for shape in traced.shapes]  # log2 of the error probability, where proved
        self.attempts = self.draws = self.coins = 0

    def attempt(self, relaxed: bool, logs: bool, draws: int) -> Outcome:
        """Run, and run again with more draws where those were too few."""
        outcome = self._run(relaxed, logs, draws)
        for _ in range(3):
            wanted = math.ceil(min(outcome.needed, self.limit, 256 if logs else _MOST))
            enough = all((p | c.proved | ~c.agree).all() for p, c in zip(self.proved, outcome.comparisons, strict=True))
            if enough or wanted <= outcome.domain.draws.count:
                break
            outcome = self._run(relaxed, logs, wanted)
        for proved, error, c in zip(self.proved, self.error, outcome.comparisons, strict=True):
            new = ~proved & c.proved
            error[new], proved[new] = c.bound[new], True
        self.coins = max(self.coins, *(c.coins for c in outcome.comparisons), 0)
        return outcome

    def _run(self, relaxed: bool, logs: bool, count: int) -> Outcome:
        self.attempts, self.draws = self.attempts + 1, max(self.draws, count)
        draws = Draws(count, hash((self.seed, self.attempts)) & 0xFFFFFFFF, **({"primes": 2} if logs else {}))
        domain = ResidueDomain(draws, _RULES, relaxed=relaxed, two=self.two, logs=logs)
        inputs = [domain.variable(v.aval.shape) if value is None else value
                  for v, value in zip(self.traced.program.jaxpr.invars, self.traced.values, strict=True)]  # fmt: skip
        outputs = [domain.settled(x) for x in walk(self.traced.program, inputs, domain)]
        half = len(outputs) // 2
        pairs = zip(self.degrees, outputs[:half], outputs[half:], strict=True)
        return Outcome(domain, [compare(domain, degree, f, g) for degree, f, g in pairs])

    def run(self) -> Certificate:
        """Try the relaxed reading, exact logarithms, the sampled reading, and say what came of it."""
        first = last = self.attempt(True, False, _FEW)
        seen = observe(self.traced, self.seed)
        logs = self.two and not self.traced.primitives.isdisjoint(_LOGARITHMIC)
        branches = any((c.taint & BRANCH).any() for c in first.comparisons)
        for relaxed, exact in ((True, True), (False, False), (False, True)):
            if self._done() or (exact and not logs) or not (relaxed or branches) or _any(seen and seen.differs):
                continue
            last = self.attempt(relaxed, exact, 16 if relaxed else 128)
        return self._conclude(first, last, seen)

    def _done(self) -> bool:
        return all(p.all() for p in self.proved)

    def _conclude(self, first: Outcome, last: Outcome, seen: Observation | None) -> Certificate:
        about = {"draws": self.draws, "degree": max(self.degrees, default=0), "coins": self.coins}
        if self._done():
            doubt = _doubt(self.traced, self.seed, first, seen)
            if doubt:
                return Certificate(verdict=Verdict.UNDECIDED, reason=doubt, **about)
            error = self.attempts * 2.0 ** max([-1000.0, *(float(e.max()) for e in self.error if e.size)])
            reason = f"equal at {self.draws} random points of finite fields"
            return Certificate(verdict=Verdict.CONFIRMED, error_probability=error, reason=reason, **about)
        unequal = [~p & ~c.agree & c.defined for p, c in zip(self.proved, first.comparisons, strict=True)]
        pure = [u & (c.taint == 0) for u, c in zip(unequal, first.comparisons, strict=True)]
        if seen is not None:
            exact = [p & v for p, v in zip(pure, seen.visible, strict=True)]
            clear = [d & ~p for d, p in zip(seen.differs, self.proved, strict=True)]
        else:
            exact, clear = pure, [np.zeros_like(p) for p in pure]
        ratio = common_ratio(first)
        if not _any(exact) and not _any(clear):
            reason = _why(self, first, last, unequal, pure)
            return Certificate(
                verdict=Verdict.UNDECIDED,
                mismatches=_mismatches(self.traced, unequal, seen),
                ratio=ratio,
                reason=reason,
                **about,
            )
        how = (
            "different rational functions, by exact arithmetic"
            if _any(exact)
            else "further apart in float64 at a random point than rounding explains"
        )
        wrong = [e | c for e, c in zip(exact, clear, strict=True)]
        return Certificate(verdict=Verdict.REFUTED, mismatches=_mismatches(self.traced, wrong, seen), ratio=ratio, reason=how, **about)


def _any(masks: Sequence[np.ndarray] | None) -> bool:
    return any(m.any() for m in masks or ())


def _doubt(traced: Traced, seed: int, first: Outcome, seen: Observation | None) -> str:
    """Return why a proof is not believed: what was seen in floating point speaks against it."""
    if seen is not None:
        if _any(seen.differs):
            return "equal in the field, yet far apart in float64 at a random point"
        if not all(f.all() for f in seen.finite):
            return "equal in the field, but not finite in float64 at any of the random points"
        if _any(seen.undefined):
            return "equal where both are defined, but one is not finite in float64 where the other is"
    if any(c.one_sided for c in first.comparisons) and not same_domain(traced, seed):
        return "equal where both are defined, but one may be undefined (a root or logarithm) where the other is not"
    return ""


def _why(search: _Search, first: Outcome, last: Outcome, unequal: Sequence[np.ndarray], pure: Sequence[np.ndarray]) -> str:
    """Say why nothing is known."""
    if _any(pure):
        return "different rational functions in exact arithmetic, yet not visibly different in float64"
    for c in last.comparisons:
        stuck = c.agree & ~c.proved
        if (stuck & ((c.taint & PIVOT) != 0)).any():
            return "equal for one choice of pivots only"
        if stuck.any():
            return f"equal in all draws, but an entry depends on {c.coins} coins (branches, signs of roots): too many to exclude"
    if any((~c.defined).any() for c in last.comparisons):
        return "undefined (a division by zero, a root or logarithm of a negative number, infinity) in too many of the draws"
    taint = np.bitwise_or.reduce(
        [np.bitwise_or.reduce(c.taint[u], initial=np.uint64(0)) for c, u in zip(first.comparisons, unequal, strict=True)]
        or [np.uint64(0)]
    )
    parts = [text for bit, text in _MEANING.items() if taint & bit]
    return "different in the field, which proves nothing of " + " or ".join(parts or ["roots, whose signs it chooses"])


def _mismatches(traced: Traced, masks: Sequence[np.ndarray], seen: Observation | None) -> tuple[Mismatch, ...]:
    result = []
    for i, (path, mask) in enumerate(zip(traced.paths, masks, strict=True)):
        if mask.any():
            index = tuple(int(k) for k in np.argwhere(mask)[0])
            values = None if seen is None else tuple(float(v[index]) for v in seen.values[i])
            result.append(Mismatch(path, int(mask.sum()), mask.size, index, values))
    return tuple(result)


def _without_proof(traced: Traced, seed: int, reason: str) -> Certificate:
    """Judge by float64 alone, which can refute."""
    seen = observe(traced, seed)
    if seen is None or not _any(seen.differs):
        return Certificate(verdict=Verdict.UNDECIDED, reason=reason)
    how = "further apart in float64 at a random point than rounding explains"
    return Certificate(verdict=Verdict.REFUTED, mismatches=_mismatches(traced, seen.differs, seen), reason=how)
