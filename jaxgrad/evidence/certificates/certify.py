"""Certificates: two JAX functions are equal, up to a stated probability of error, or they are not.

Two functions built from + − × ÷ are equal iff they agree at a random point of a large finite field,
up to probability degree/p (Schwartz 1980, Zippel 1979). `certify` traces both once, runs them
together in finite fields of many primes (`jaxgrad.evidence.certificates.fields.modular`), and
compares. In such a field exp, log, roots and signs have counterparts with the same laws, so that
most losses and their gradients are proved in the same way.

What a certificate says. *confirmed*: f and g are the same function, where the reals have their
usual laws and decimal constants mean the decimals they show. It speaks of points in general
position, so a·b/b equals a, and at kinks and ties, where derivatives are a convention, it says
nothing. *refuted*: they are not. *undecided*: neither is known, for the reason given.

Constants. A floating-point constant means the simplest rational number within two units in its last
place, so that 0.6**2 and 9/25 are one constant; by design so are 1 + 4e-16 and 1, and x·(1 + 4e-16)
= x is confirmed. Factors further apart, such as 1 + 1e-9 and 1, are different.

Work. A proof that would take more operations or memory than `jaxgrad.jaxprs.cost` allows is not
tried, and the answer is "undecided"; what holds at all shapes is proved at small ones as well.

The bound. A polynomial that is not zero vanishes at a random point with probability at most
degree/q, in each draw anew. A result that depends on m coins, branches that a draw decides, is
tested in any one branch by at least 2⁻ᵐ of the draws, so n draws leave (1 − 2⁻ᵐ + degree/q)ⁿ.
Comparisons of numbers that differ by constants may be decided together, as their order has it
(`jaxgrad.evidence.certificates.fields.lines`): k of them, each by 1/(k + 1) of the draws in any
branch. The sign of a root is a coin unless the draws show that its argument, given the others, is
not always positive. For exponentials the bound counts each as a variable of its own (Wu et al.,
Mirage, OSDI 2025, arXiv 2405.05751, discuss what that assumes).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from jaxgrad.evidence.certificates.fields.identity import common_ratio
from jaxgrad.evidence.certificates.fields.search import Search
from jaxgrad.evidence.certificates.reasons import doubt_of, some, why_unknown
from jaxgrad.evidence.noise.witness import Observation, observe
from jaxgrad.jaxprs.cost import ExhaustedError, Meter
from jaxgrad.jaxprs.domain import DataDependentLoopError, UnsupportedError
from jaxgrad.jaxprs.joint import Traced, trace
from jaxgrad.jaxprs.user_calls import RefusedError, check_seed
from jaxgrad.reports.finding import Verdict

_FAR_APART = "different in float64 at a random point, by more than rounding"


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
        error_probability: bound on the probability that a confirmation is wrong; 1 where nothing is
            confirmed.
        mismatches: outputs in which a difference was found.
        ratio: g/f where it is the same rational number for all entries and is not 1; None
            otherwise.
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


def certify(
    f: Callable[..., Any], g: Callable[..., Any], *example_args: Any, seed: int = 0
) -> Certificate:
    """Say whether two functions are equal: f(*args) = g(*args) for all arguments of these shapes.

    Floating-point constants within two units in the last place of one simple rational number are
    that number: x·(1 + 4e-16) = x is confirmed. At shapes where a proof would take long, the answer
    is "undecided"; certify at smaller ones.

    Args:
        f: a JAX function of pytrees of arrays; jax.grad, jvp, vmap, hessian, jit of functions are
            welcome.
        g: another of the same arguments, with outputs of the same tree and shapes.
        example_args: pytrees of arrays or `jax.ShapeDtypeStruct`. Floating-point entries are
            variables and only their shape matters; integers and booleans are taken as they are.
        seed: chooses the random points.

    Returns:
        A `Certificate`: "confirmed" with a probability of error of at most 2⁻¹⁰⁰, "refuted" with
        the entries that differ, or "undecided" with the reason.

    Raises:
        TypeError: when an argument is no array; when f or g raises a TypeError, or returns what is
            no array.
        ValueError: when f or g raises another exception, which stands as the cause; when the
            outputs differ in tree or shape, or a function draws random numbers, has side effects,
            or loops for a time that depends on the data.

    >>> import jax, jax.numpy as jnp
    >>> w = jnp.ones((3, 2))
    >>> certify(jax.grad(lambda w: jnp.sum(w**2) / 2), lambda w: w, w).verdict
    <Verdict.CONFIRMED: 'confirmed'>
    >>> certify(jax.grad(lambda w: jnp.mean(w**2)), lambda w: 2 * w, w).ratio
    Fraction(6, 1)

    Schwartz, J. ACM 27 (1980) 701; Zippel, EUROSAM (1979) 216; Wu et al., OSDI (2025), arXiv
    2405.05751.
    """
    check_seed(seed)
    return certify_within(Meter(), f, g, *example_args, seed=seed)


def certify_within(
    meter: Meter, f: Callable[..., Any], g: Callable[..., Any], *example_args: Any, seed: int
) -> Certificate:
    """Do the same with no more work than a meter still allows."""
    start = time.perf_counter()
    traced = trace(f, g, example_args)
    try:
        result = _judged(Search(traced, seed, meter))
    except DataDependentLoopError as error:
        raise RefusedError(
            _looping(f, example_args), f"loops for a time that depends on the data: {error}"
        ) from None
    except ExhaustedError as error:
        result = _without_proof(traced, seed, str(error))
    except UnsupportedError as error:
        result = _without_proof(traced, seed, f"no exact arithmetic: {error}")
    return replace(result, seconds=time.perf_counter() - start)


def _looping(f: Callable[..., Any], example_args: Sequence[Any]) -> str:
    """Return which of f and g it is whose loop depends on the data."""
    try:
        Search(trace(f, f, example_args), 0, Meter())
    except DataDependentLoopError:
        return "f"
    return "g"


def _judged(search: Search) -> Certificate:
    """Search until all is proved or something was seen to be wrong, and conclude."""
    seen, exhausted = None, ""
    try:
        for i, _ in enumerate(search.steps()):
            if i == 0:
                seen = observe(search.traced, search.seed)
            if search.done or (seen is not None and some(seen.differs)):
                break
    except ExhaustedError as error:
        if not search.started:
            raise
        exhausted = str(error)
    result = _confirmation(search, seen) if search.done else _difference(search, seen)
    if exhausted and result.verdict == Verdict.UNDECIDED:
        result = replace(result, reason=f"{result.reason}; {exhausted}")
    return replace(
        result, draws=search.draws, degree=max(search.degrees, default=0), coins=search.coins
    )


def _confirmation(search: Search, seen: Observation | None) -> Certificate:
    doubt = doubt_of(search, seen)
    if doubt:
        return Certificate(verdict=Verdict.UNDECIDED, reason=doubt)
    worst = max([-1000.0, *(float(e.max()) for e in search.error if e.size)])
    reason = f"equal at {search.draws} random points of finite fields"
    return Certificate(
        verdict=Verdict.CONFIRMED, error_probability=search.runs * 2.0**worst, reason=reason
    )


def _difference(search: Search, seen: Observation | None) -> Certificate:
    """Refute where exact arithmetic or float64 leaves no doubt; else say why nothing is known."""
    first = search.first
    unequal = [
        ~p & ~c.agree & c.defined for p, c in zip(search.proved, first.comparisons, strict=True)
    ]
    exact = pure = [u & (c.taint == 0) for u, c in zip(unequal, first.comparisons, strict=True)]
    clear = [np.zeros_like(p) for p in pure]
    if seen is not None:
        exact = [p & v for p, v in zip(pure, seen.visible, strict=True)]
        clear = [d & ~p for d, p in zip(seen.differs, search.proved, strict=True)]
    wrong = [e | c for e, c in zip(exact, clear, strict=True)]
    if some(wrong):
        verdict, where = Verdict.REFUTED, wrong
        reason = "different rational functions, by exact arithmetic" if some(exact) else _FAR_APART
    else:
        verdict, where, reason = Verdict.UNDECIDED, unequal, why_unknown(search, pure)
    mismatches = _mismatches(search.traced, where, seen)
    return Certificate(
        verdict=verdict, mismatches=mismatches, ratio=common_ratio(first), reason=reason
    )


def _mismatches(
    traced: Traced, masks: Sequence[np.ndarray], seen: Observation | None
) -> tuple[Mismatch, ...]:
    result = []
    for i, (path, mask) in enumerate(zip(traced.paths, masks, strict=True)):
        if mask.any():
            index = tuple(int(k) for k in np.argwhere(mask)[0])
            values = None
            if seen is not None:
                f, g = seen.values[i]
                values = float(f[index]), float(g[index])
            result.append(Mismatch(path, int(mask.sum()), mask.size, index, values))
    return tuple(result)


def _without_proof(traced: Traced, seed: int, reason: str) -> Certificate:
    """Judge by float64 alone, which can refute."""
    seen = observe(traced, seed)
    if seen is None or not some(seen.differs):
        return Certificate(verdict=Verdict.UNDECIDED, reason=reason)
    return Certificate(
        verdict=Verdict.REFUTED,
        mismatches=_mismatches(traced, seen.differs, seen),
        reason=_FAR_APART,
    )
