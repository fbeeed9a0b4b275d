"""Operations that combine entries of an array in a finite field: sums, windows, products."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from jaxgrad.evidence.certificates.fields import signs
from jaxgrad.evidence.certificates.fields.arithmetic import Rule, add, multiply
from jaxgrad.evidence.certificates.fields.choices import CHOICES, maximum, minimum
from jaxgrad.evidence.certificates.fields.domain import FieldDomain
from jaxgrad.evidence.certificates.fields.modular import Modulus
from jaxgrad.evidence.certificates.fields.products import convolution, dot_general
from jaxgrad.evidence.certificates.fields.values import Exact, FieldValues
from jaxgrad.jaxprs.domain import UnsupportedError, describe
from jaxgrad.jaxprs.indexing import scatter_places


def reduce_sum(domain: FieldDomain, eqn: Any, x: Any) -> Any:
    """Sum over axes."""
    axes = tuple(eqn.params["axes"])
    if isinstance(x, Exact):
        return Exact(np.asarray(x.array.sum(axes) + Fraction(0), object), x.meant)
    x = domain.settled(x)
    behind = tuple(a + 1 for a in axes)
    p, q = domain.on_both(lambda m, a: m.reduce(a.sum(behind)), x)
    bad = None if x.bad is None else x.bad.any(behind)
    taint = None if x.taint is None else np.bitwise_or.reduce(x.taint, axes)
    return FieldValues(p, q, bad, None, taint, signs.total(x.sign, axes))


def _entries(x: Any, axes: Sequence[int]) -> np.ndarray:
    """Return indices (…, n) of the n entries that are reduced over `axes`."""
    index = np.arange(math.prod(x.shape)).reshape(x.shape)
    axes = tuple(axes)
    kept = [a for a in range(len(x.shape)) if a not in axes]
    return index.transpose(*kept, *axes).reshape(*(x.shape[a] for a in kept), -1)


def _fold(operation: Rule) -> Rule:
    def rule(domain: FieldDomain, eqn: Any, x: Any) -> Any:
        index = _entries(x, eqn.params["axes"])
        if not index.shape[-1]:
            raise UnsupportedError(f"{describe(eqn)} reduces over nothing")
        result = domain.rearrange([x], index[..., 0])
        for i in range(1, index.shape[-1]):
            result = operation(domain, eqn, result, domain.rearrange([x], index[..., i]))
        return result

    return rule


def _cumulative(operation: Rule) -> Rule:
    def rule(domain: FieldDomain, eqn: Any, x: Any) -> Any:
        axis, n = eqn.params["axis"], x.shape[eqn.params["axis"]]
        index = _entries(x, (axis,))
        order = range(n)[::-1] if eqn.params["reverse"] else range(n)
        parts: list[Any] = [None] * n
        previous = None
        for i in order:
            entry = domain.rearrange([x], index[..., i])
            parts[i] = previous = (
                entry if previous is None else operation(domain, eqn, previous, entry)
            )
        stacked = np.moveaxis(np.arange(math.prod(x.shape)).reshape(n, *index.shape[:-1]), 0, axis)
        return domain.rearrange(parts, stacked)

    return rule


def _window(operation: Rule, empty: float) -> Rule:
    """Fold windows; what lies outside the array is `empty`."""

    def rule(domain: FieldDomain, eqn: Any, x: Any) -> Any:
        p = eqn.params
        size, strides, padding = p["window_dimensions"], p["window_strides"], p["padding"]
        if any(d != 1 for d in p["base_dilation"]):
            raise UnsupportedError(f"{describe(eqn)} with a dilated base has no rule")
        outside = math.prod(x.shape)
        index = np.pad(np.arange(outside).reshape(x.shape), padding, constant_values=outside)
        border = Exact(np.array([Fraction(0) if empty == 0 else empty], object))
        out, result = eqn.outvars[0].aval.shape, None
        for at in np.ndindex(*size):
            starts = [i * d for i, d in zip(at, p["window_dilation"], strict=True)]
            window = index[
                tuple(
                    slice(s, s + (n - 1) * t + 1, t)
                    for s, n, t in zip(starts, out, strides, strict=True)
                )
            ]
            entry = domain.rearrange([x, border], window)
            result = entry if result is None else operation(domain, eqn, result, entry)
        return result

    return rule


def scatter_add(domain: FieldDomain, eqn: Any, x: Any, indices: Any, updates: Any) -> FieldValues:
    """Add each update to the entry it goes to."""
    if not isinstance(indices, np.ndarray):
        raise UnsupportedError(f"{describe(eqn)} adds into places that are not known")
    places = scatter_places(eqn.params, x.shape, indices, updates.shape).ravel()
    sign = -1 if eqn.primitive.name == "scatter-sub" else 1
    source = np.flatnonzero(places >= 0)
    to = places[source]
    entries: Any = slice(None), to  # numpy's `at` takes slices, but does not declare so
    x, updates = domain.settled(x).map(_flat), domain.settled(updates).map(_flat)

    def added(channel: str, empty: Any, union: np.ufunc, lead: int) -> Any:
        a, b = getattr(x, channel), getattr(updates, channel)
        if a is None and b is None:
            return None
        target = np.full((lead, *x.shape), empty) if a is None else np.array(a).reshape(lead, -1)
        if b is not None:
            union.at(target, entries, b.reshape(lead, -1)[:, source])
        return target if lead > 1 or channel == "bad" else target[0]

    def sums(m: Modulus, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        target = a.copy()
        np.add.at(target, entries, sign * b[:, source])
        return m.reduce(target)

    p, q = domain.on_both(sums, x, updates)
    bad = added("bad", False, np.logical_or, domain.draws.count)
    result = FieldValues(p, q, bad, None, added("taint", np.uint64(0), np.bitwise_or, 1))
    return result.map(lambda v: v.reshape(len(v), *eqn.outvars[0].aval.shape))


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


STRUCTURAL: dict[str, Rule] = {
    "reduce_sum": reduce_sum,
    "reduce_prod": _fold(multiply),
    "reduce_max": _fold(maximum),
    "reduce_min": _fold(minimum),
    "reduce_and": _fold(CHOICES["and"]),
    "reduce_or": _fold(CHOICES["or"]),
    "cumsum": _cumulative(add),
    "cumprod": _cumulative(multiply),
    "cummax": _cumulative(maximum),
    "cummin": _cumulative(minimum),
    "reduce_window_sum": _window(add, 0.0),
    "reduce_window_max": _window(maximum, -math.inf),
    "reduce_window_min": _window(minimum, math.inf),
    "dot_general": dot_general,
    "conv_general_dilated": convolution,
    "scatter-add": scatter_add,
    "scatter-sub": scatter_add,
}
"""Rules that combine entries."""
