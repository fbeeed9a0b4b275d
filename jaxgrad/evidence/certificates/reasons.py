"""Why a certificate is undecided, in words.

A proof is doubted where floating point speaks against it: f and g differ in float64, or one of them
is not finite where the other is. Where there is no proof, the words say what stood in its way.
"""

from collections.abc import Sequence

import numpy as np

from jaxgrad.evidence.certificates.fields.search import Search
from jaxgrad.evidence.certificates.fields.values import (
    CONSTANT,
    EXP,
    GATE,
    MANY,
    OPAQUE,
    PIVOT,
    STEP,
)
from jaxgrad.evidence.noise.witness import Observation, same_domain

_MEANING = {
    GATE: "comparisons",
    STEP: "steps such as floor",
    EXP: "exponentials",
    OPAQUE: "uninterpreted functions",
    CONSTANT: "constants that are no simple fraction",
    PIVOT: "pivots",
}


def some(masks: Sequence[np.ndarray] | None) -> bool:
    """Say whether any entry of any mask is true."""
    return any(m.any() for m in masks or ())


def doubt_of(search: Search, seen: Observation | None) -> str:
    """Return why a proof is not believed: what was seen in floating point speaks against it."""
    if seen is not None:
        if some(seen.differs):
            return "equal in finite fields, but different in float64 at a random point"
        if not all(f.all() for f in seen.finite):
            return "equal in finite fields, but not finite in float64 at any random point"
        if some(seen.undefined):
            return (
                "equal where both are defined, but one is not finite in float64 where the other is"
            )
    partial = any(c.partial for outcome in (search.first, search.last) for c in outcome.comparisons)
    if partial and not same_domain(search.traced, search.seed):
        return (
            "equal where both are defined, but one may be undefined (a root or logarithm) "
            "where the other is not"
        )
    return ""


def why_unknown(search: Search, pure: Sequence[np.ndarray]) -> str:
    """Say why nothing is known."""
    if some(pure):
        return (
            "different rational functions by exact arithmetic, but equal up to rounding in float64"
        )
    for p, c in zip(search.proved, search.last.comparisons, strict=True):
        stuck = c.agree & ~p
        if (stuck & ((c.taint & PIVOT) != 0)).any():
            return "equal for one order of pivots only"
        if stuck.any():
            many = (stuck & ((c.taint & MANY) != 0)).any()
            return (
                f"equal in all draws, but these are too few: an entry depends on "
                f"{'very many' if many else c.coins} branches or signs of roots, and f − g has "
                f"degree up to {max(search.degrees)}; certify at smaller shapes"
            )
        if (~p & ~c.defined).any():
            return (
                "undefined in most draws (division by zero, infinity, a root or logarithm of a "
                "negative number)"
            )
    taint = 0
    for outcome in (
        search.first,
        search.last,
    ):  # what the first leaves undefined, another may tell apart
        for p, c in zip(search.proved, outcome.comparisons, strict=True):
            taint |= int(
                np.bitwise_or.reduce(c.taint[~p & ~c.agree & c.defined], initial=np.uint64(0))
            )
    parts = [text for bit, text in _MEANING.items() if taint & int(bit)]
    return "different in a finite field, which proves nothing about " + " or ".join(
        parts or ["roots, whose signs the field chooses"]
    )
