"""Linear algebra in a finite field, by exact elimination.

The rows of matrices are eliminated in the order in which they stand, except that a pivot which is
zero in every draw is passed over. Floating-point code takes the largest entry for a pivot, so what
an LU factorisation returns depends on comparisons that the field does not make: it carries the bit
`PIVOT`. The solution of a linear system does not depend on them. The rule of `custom_linear_solve`
multiplies it out again, and where A·x = b holds, x is the only such x and the bit is taken off.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jax.extend import core

from jaxgrad.evidence.certificates.fields import signs
from jaxgrad.evidence.certificates.fields.arithmetic import (
    Rule,
    multiply,
    reciprocal,
    square_root,
    subtract,
)
from jaxgrad.evidence.certificates.fields.domain import FieldDomain
from jaxgrad.evidence.certificates.fields.values import PIVOT, FieldValues, either
from jaxgrad.jaxprs.domain import UnsupportedError, describe
from jaxgrad.jaxprs.walker import NESTED, walk


def _part(x: FieldValues, rows: Any, columns: Any) -> FieldValues:
    """Return a block (…, rows, columns) of matrices (…, m, n)."""
    return x.map(lambda v: v[..., rows, :][..., columns])


def _places(x: Any) -> np.ndarray:
    """Return the place of every entry in the flattened array."""
    return np.arange(int(np.prod(x.shape))).reshape(x.shape)


def _stacked(domain: FieldDomain, blocks: Sequence[FieldValues], axis: int) -> FieldValues:
    """Join matrices along rows (axis −2) or columns (axis −1)."""
    offsets = np.cumsum([0, *(int(np.prod(b.shape)) for b in blocks)])
    places = [_places(b) + offset for b, offset in zip(blocks, offsets, strict=False)]
    return domain.rearrange(blocks, np.concatenate(places, axis))


def _transposed(x: FieldValues) -> FieldValues:
    return x.map(lambda v: v.swapaxes(-1, -2))


def lu(domain: FieldDomain, eqn: Any, a: Any) -> list[Any]:
    """Factorise P·A = L·U; return L and U in one matrix, the row swaps, and P as an order."""
    a = domain.settled(a)
    order = domain.pivot_order(a.p, a.shape[-2])
    count, result = min(a.shape[-2:]), _part(a, order, slice(None))
    for k in range(count):
        usable = (result.p[..., k:, k] != 0).any(0).reshape(-1, len(order) - k).all(0)
        if not usable.any():
            raise UnsupportedError(f"{describe(eqn)} meets a singular matrix")
        j = k + int(usable.argmax())
        if j != k:
            swapped = list(range(len(order)))
            swapped[k], swapped[j] = j, k
            result = _part(result, swapped, slice(None))
            order[k], order[j] = order[j], order[k]
        below = slice(k + 1, None)
        inverse = reciprocal(domain, _part(result, slice(k, k + 1), slice(k, k + 1)))
        factors = multiply(domain, eqn, _part(result, below, slice(k, k + 1)), inverse)
        rest = multiply(domain, eqn, factors, _part(result, slice(k, k + 1), below))
        rest = subtract(domain, eqn, _part(result, below, below), rest)
        lower = _stacked(domain, [_part(result, below, slice(None, k)), factors, rest], -1)
        result = _stacked(domain, [_part(result, slice(None, k + 1), slice(None)), lower], -2)
    result = replace(result, taint=either(np.full(result.shape, PIVOT), result.taint))
    batch = a.shape[:-2]
    swaps = np.broadcast_to(np.array(_swaps(order)[:count], np.int32), (*batch, count))
    return [result, swaps, np.broadcast_to(np.array(order, np.int32), (*batch, len(order)))]


def _swaps(order: Sequence[int]) -> list[int]:
    """Return the swaps, one per row, that bring rows into an order."""
    now, swaps = list(range(len(order))), []
    for i, row in enumerate(order):
        j = now.index(row)
        swaps.append(j)
        now[i], now[j] = now[j], now[i]
    return swaps


def _pivots_to_permutation(domain: FieldDomain, eqn: Any, pivots: np.ndarray) -> np.ndarray:
    raise UnsupportedError(f"{describe(eqn)} depends on unknown pivots")


def triangular_solve(domain: FieldDomain, eqn: Any, a: Any, b: Any) -> FieldValues:
    """Solve op(A)·X = B or X·op(A) = B by substitution."""
    p = eqn.params
    if p["conjugate_a"]:
        raise UnsupportedError(f"{describe(eqn)} with a conjugate has no rule")
    a, b = domain.settled(a), domain.settled(b)
    flip = p["transpose_a"] != (not p["left_side"])  # X·M = B is Mᵀ·Xᵀ = Bᵀ
    a, lower = (_transposed(a), not p["lower"]) if flip else (a, p["lower"])
    b = b if p["left_side"] else _transposed(b)
    n = b.shape[-2]
    solved: list[FieldValues] = []
    for i in (
        range(n) if lower else range(n)[::-1]
    ):  # b is what remains of it when the solved unknowns are put in
        row, here = (
            _part(b, slice(0, 1) if lower else slice(-1, None), slice(None)),
            slice(i, i + 1),
        )
        if not p["unit_diagonal"]:
            row = multiply(domain, eqn, row, reciprocal(domain, _part(a, here, here)))
        solved.append(row)
        rest, others = (
            (slice(1, None), slice(i + 1, None)) if lower else (slice(0, -1), slice(0, i))
        )
        if len(solved) < n:
            b = subtract(
                domain,
                eqn,
                _part(b, rest, slice(None)),
                multiply(domain, eqn, _part(a, others, here), row),
            )
    result = _stacked(domain, solved if lower else solved[::-1], -2)
    return result if p["left_side"] else _transposed(result)


def cholesky(domain: FieldDomain, eqn: Any, a: Any) -> FieldValues:
    """Factorise A = L·Lᵀ, reading the lower triangle; bad where a pivot is not positive."""
    a = domain.settled(a)
    places = _places(a)
    rest = domain.rearrange([a], np.tril(places) + np.tril(places, -1).swapaxes(-1, -2))
    columns: list[FieldValues] = []
    for k in range(a.shape[-1]):
        pivot, first, below = (
            _part(rest, slice(0, 1), slice(0, 1)),
            _part(rest, slice(1, None), slice(0, 1)),
            slice(1, None),
        )
        root = square_root(domain, eqn, pivot)
        root = replace(root, sign=np.full(root.shape, signs.POSITIVE))
        above = domain.lift(np.zeros((*a.shape[:-2], k, 1), int))
        columns.append(
            _stacked(
                domain, [above, root, multiply(domain, eqn, first, reciprocal(domain, root))], -2
            )
        )
        both = multiply(
            domain, eqn, multiply(domain, eqn, first, _transposed(first)), reciprocal(domain, pivot)
        )
        rest = subtract(domain, eqn, _part(rest, below, below), both)
    return _stacked(domain, columns, -1)


def linear_solve(domain: FieldDomain, eqn: Any, *operands: Any) -> list[Any]:
    """Solve, multiply out again, and where that gives b forget how it was solved."""
    solutions = NESTED["custom_linear_solve"](eqn, list(operands), domain)
    lengths, programs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    values = [domain.settled(x) for x in solutions]
    if not any(_has(x, PIVOT) for x in values):
        return solutions
    matrix, right = (
        operands[: lengths.matvec],
        [domain.settled(x) for x in operands[sum(lengths) :]],
    )
    products = [
        domain.settled(x) for x in walk(_closed(programs.matvec), [*matrix, *values], domain)
    ]
    if not all(_same(domain, x, b) for x, b in zip(products, right, strict=True)):
        return solutions
    taint = np.uint64(0)
    for x in (*(domain.settled(m) for m in matrix), *right):
        if x.taint is not None:
            taint |= np.bitwise_or.reduce(x.taint, axis=None)
    return [replace(x, taint=np.full(x.shape, taint)) for x in values]


def _closed(program: Any) -> core.ClosedJaxpr:
    return program if isinstance(program, core.ClosedJaxpr) else core.ClosedJaxpr(program, ())


def _has(x: FieldValues, bit: np.uint64) -> bool:
    return x.taint is not None and bool((x.taint & bit).any())


def _same(domain: FieldDomain, a: FieldValues, b: FieldValues) -> bool:
    valid = np.ones(a.p.shape, bool)
    for x in (a, b):
        if x.bad is not None:
            valid &= ~x.bad
    second = (a.q, b.q) if domain.two else (a.p, b.p)
    return bool(
        valid.any() and ((a.p == b.p) | ~valid).all() and ((second[0] == second[1]) | ~valid).all()
    )


ALGEBRA: dict[str, Rule] = {
    "lu": lu,
    "lu_pivots_to_permutation": _pivots_to_permutation,
    "triangular_solve": triangular_solve,
    "cholesky": cholesky,
    "custom_linear_solve": linear_solve,
}
"""Rules of linear algebra."""
