"""Products of matrices and convolutions in a finite field.

A contraction is laid out as a product of matrices, one for each batch. A convolution is the sum,
over the offsets in the kernel, of shifted inputs times one slice of the kernel.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from jaxgrad.evidence.certificates.fields import signs
from jaxgrad.evidence.certificates.fields.domain import FieldDomain
from jaxgrad.evidence.certificates.fields.modular import Modulus
from jaxgrad.evidence.certificates.fields.values import Exact, FieldValues, either


def dot_general(domain: FieldDomain, eqn: Any, a: Any, b: Any) -> FieldValues:
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
    """Return how to lay (lead, *shape) out as (lead, batch, rows, columns), and the free shape."""
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


def product(domain: FieldDomain, a: FieldValues, b: FieldValues) -> FieldValues:
    """Return the product of matrices (…, m, c) and (…, c, n)."""
    p, q = domain.on_both(Modulus.matmul, a, b)

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
    return FieldValues(p, q, bad, None, merge(a.taint, b.taint, np.bitwise_or, p.shape[1:]), sign)


def convolution(domain: FieldDomain, eqn: Any, x: Any, w: Any) -> FieldValues:
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
