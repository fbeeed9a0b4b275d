"""Sums, products and convolutions of residues."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from jaxgrad.evidence.certificates.fields import signs
from jaxgrad.evidence.certificates.fields.arithmetic import Rule, add, multiply
from jaxgrad.evidence.certificates.fields.choices import CHOICES, maximum, minimum
from jaxgrad.evidence.certificates.fields.domain import ResidueDomain
from jaxgrad.evidence.certificates.fields.fields import Modulus
from jaxgrad.evidence.certificates.fields.values import Exact, Residues, either
from jaxgrad.jaxprs.indexing import scatter_places
from jaxgrad.jaxprs.walker import UnsupportedError, describe


def _combined(
    domain: ResidueDomain, values: Sequence[Residues], shape: tuple[int, ...]
) -> tuple[Any, None, Any]:
    """Taint every entry of a result with all that any entry of the operands carries."""
    bad = taint = None
    for v in values:
        if v.bad is not None:
            bad = either(bad, np.asarray(v.bad.reshape(domain.draws.count, -1).any(1)))
        if v.taint is not None:
            taint = either(taint, np.bitwise_or.reduce(v.taint, axis=None))
    if bad is not None:
        bad = np.broadcast_to(bad.reshape(-1, *(1,) * len(shape)), (domain.draws.count, *shape))
    return bad, None, None if taint is None else np.full(shape, taint)


def _on_both(
    domain: ResidueDomain, operation: Callable[..., np.ndarray], *values: Residues
) -> tuple[Any, Any]:
    p = operation(domain.draws.p, *(v.p for v in values))
    return p, operation(domain.draws.q, *(v.q for v in values)) if domain.two else None


def reduce_sum(domain: ResidueDomain, eqn: Any, x: Any) -> Any:
    """Sum over axes."""
    axes = tuple(eqn.params["axes"])
    if isinstance(x, Exact):
        return Exact(np.asarray(x.array.sum(axes) + Fraction(0), object), x.meant)
    x = domain.settled(x)
    behind = tuple(a + 1 for a in axes)
    p, q = _on_both(domain, lambda m, a: m.reduce(a.sum(behind)), x)
    bad = None if x.bad is None else x.bad.any(behind)
    taint = None if x.taint is None else np.bitwise_or.reduce(x.taint, axes)
    return Residues(p, q, bad, None, taint, signs.total(x.sign, axes))


def _entries(x: Any, axes: Sequence[int]) -> np.ndarray:
    """Return indices (…, n) of the n entries that are reduced over `axes`."""
    index = np.arange(math.prod(x.shape)).reshape(x.shape)
    axes = tuple(axes)
    kept = [a for a in range(len(x.shape)) if a not in axes]
    return index.transpose(*kept, *axes).reshape(*(x.shape[a] for a in kept), -1)


def _fold(operation: Rule) -> Rule:
    def rule(domain: ResidueDomain, eqn: Any, x: Any) -> Any:
        index = _entries(x, eqn.params["axes"])
        if not index.shape[-1]:
            raise UnsupportedError(f"{describe(eqn)} reduces over nothing")
        result = domain.rearrange([x], index[..., 0])
        for i in range(1, index.shape[-1]):
            result = operation(domain, eqn, result, domain.rearrange([x], index[..., i]))
        return result

    return rule


def _cumulative(operation: Rule) -> Rule:
    def rule(domain: ResidueDomain, eqn: Any, x: Any) -> Any:
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

    def rule(domain: ResidueDomain, eqn: Any, x: Any) -> Any:
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


# --- products of matrices ---


def dot_general(domain: ResidueDomain, eqn: Any, a: Any, b: Any) -> Residues:
    """Lay both out as matrices, multiply, and lay the product out again."""
    (contract_a, contract_b), (batch_a, batch_b) = eqn.params["dimension_numbers"]
    a, b = domain.settled(a), domain.settled(b)
    left, free_a = _matrix(a.shape, batch_a, contract_a, last=True)
    right, free_b = _matrix(b.shape, batch_b, contract_b, last=False)
    left_of, right_of = a.map(left), b.map(right)
    shape = (*(eqn.invars[0].aval.shape[i] for i in batch_a), *free_a, *free_b)
    result = product(domain, left_of, right_of)
    if (
        a.p is b.p and (contract_a, batch_a) == (contract_b, batch_b) and not free_a
    ):  # a sum of squares
        sign = signs.total(signs.square(left_of.sign, left_of.shape), -1)
        assert sign is not None  # that of a square is known
        result = replace(result, sign=sign[..., None])
    return result.map(lambda x: x.reshape(len(x), *shape))


def _matrix(
    shape: Any, batch: Any, contract: Any, last: bool
) -> tuple[Callable[[np.ndarray], np.ndarray], list[int]]:
    """Return how to lay out (lead, *shape) as (lead, batch, rows, columns), and the shape of the
    free axes.
    """
    free = [i for i in range(len(shape)) if i not in batch and i not in contract]
    sizes = [math.prod(shape[i] for i in axes) for axes in (batch, free, contract)]
    order, dims = (
        ([*batch, *free, *contract], sizes)
        if last
        else ([*batch, *contract, *free], [sizes[0], sizes[2], sizes[1]])
    )
    return lambda x: x.transpose(0, *(i + 1 for i in order)).reshape(x.shape[0], *dims), [
        shape[i] for i in free
    ]


def product(domain: ResidueDomain, a: Residues, b: Residues) -> Residues:
    """Return the product of matrices (…, m, c) and (…, c, n)."""
    p, q = _on_both(domain, Modulus.matmul, a, b)

    def merge(
        x: np.ndarray | None, y: np.ndarray | None, union: np.ufunc, shape: tuple[int, ...]
    ) -> np.ndarray | None:
        rows = None if x is None else union.reduce(x, -1, keepdims=True)
        columns = None if y is None else union.reduce(y, -2, keepdims=True)
        both = either(rows, columns)
        return None if both is None else np.broadcast_to(both, shape)

    bad = merge(a.bad, b.bad, np.logical_or, p.shape)
    sign = None
    if a.sign is not None and b.sign is not None:
        every = np.bitwise_and.reduce(a.sign, axis=None) & np.bitwise_and.reduce(b.sign, axis=None)
        sign = np.full(
            p.shape[1:], every & signs.POSITIVE if every & signs.NONNEGATIVE else np.uint8(0)
        )
    return Residues(p, q, bad, None, merge(a.taint, b.taint, np.bitwise_or, p.shape[1:]), sign)


def convolution(domain: ResidueDomain, eqn: Any, x: Any, w: Any) -> Residues:
    """Sum over the kernel's offsets of shifted inputs times one slice of the kernel."""
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    groups, batches = params["feature_group_count"], params["batch_group_count"]
    x, w = domain.settled(x), domain.settled(w)
    images = np.arange(math.prod(x.shape)).reshape(x.shape).transpose(numbers.lhs_spec)
    kernel = np.arange(math.prod(w.shape)).reshape(w.shape).transpose(numbers.rhs_spec)
    zero = math.prod(x.shape)
    padding = [
        (0, 0, 0),
        (0, 0, 0),
        *(
            (a, b, d - 1)
            for (a, b), d in zip(params["padding"], params["lhs_dilation"], strict=True)
        ),
    ]
    images = _padded(images, padding, zero)
    out = tuple(eqn.outvars[0].aval.shape[i] for i in numbers.out_spec)
    n, o = out[:2]
    # (groups, n, c, …) and (groups, o, c, …): either the features or the images are split, and the
    # outputs with them
    if batches > 1:
        images = images.reshape(batches, n, *images.shape[1:])
    else:
        images = images.reshape(n, groups, -1, *images.shape[2:]).swapaxes(0, 1)
    kernel = kernel.reshape(max(groups, batches), -1, *kernel.shape[1:])
    total: Any = None
    for at in np.ndindex(*kernel.shape[3:]):
        starts = [i * d for i, d in zip(at, params["rhs_dilation"], strict=True)]
        window = images[
            (slice(None),) * 3
            + tuple(
                slice(s, s + (k - 1) * t + 1, t)
                for s, k, t in zip(starts, out[2:], params["window_strides"], strict=True)
            )
        ]
        left = np.moveaxis(window, 2, -1).reshape(
            len(window), -1, window.shape[2]
        )  # (groups, n·positions, c)
        right = kernel[(slice(None),) * 3 + at].swapaxes(1, 2)  # (groups, c, o)
        border = Exact(np.array([Fraction(0)], object))
        term = product(domain, domain.rearrange([x, border], left), domain.rearrange([w], right))
        total = (
            term
            if total is None
            else domain.elementwise(lambda m, s, t: m.reduce(s + t), total, term)
        )
    size = max(groups, batches)
    index = np.arange(math.prod(out)).reshape(size, n, *out[2:], o // size)
    index = np.moveaxis(np.moveaxis(index, -1, 0), 1, 0).reshape(o, n, *out[2:]).swapaxes(0, 1)
    return domain.rearrange([total], index.transpose(np.argsort(numbers.out_spec)))


def _padded(x: np.ndarray, config: Sequence[tuple[int, int, int]], value: int) -> np.ndarray:
    for axis, (low, high, inside) in enumerate(config):
        if inside and x.shape[axis]:
            x = np.insert(x, np.repeat(np.arange(1, x.shape[axis]), inside), value, axis)
        widths = [(0, 0)] * x.ndim
        widths[axis] = (max(low, 0), max(high, 0))
        x = np.pad(x, widths, constant_values=value)
        x = x.take(np.arange(max(-low, 0), x.shape[axis] - max(-high, 0)), axis)
    return x


# --- sums into places ---


def scatter_add(domain: ResidueDomain, eqn: Any, x: Any, indices: Any, updates: Any) -> Residues:
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

    p, q = _on_both(domain, sums, x, updates)
    bad = added("bad", False, np.logical_or, domain.draws.count)
    result = Residues(p, q, bad, None, added("taint", np.uint64(0), np.bitwise_or, 1))
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
