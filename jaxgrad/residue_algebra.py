"""Linear algebra of residues by exact elimination.

The rows of matrices are eliminated in the order in which they stand, except that a pivot which is zero in every draw
is passed over. Floating-point code takes the largest entry for a pivot, so what an LU factorisation returns depends
on comparisons that the field does not make: it carries the bit `PIVOT`. The solution of a linear system does not
depend on them. The rule of `custom_linear_solve` multiplies it out again, and where A·x = b holds, x is the only
such x and the bit is taken off.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jax.extend import core

from jaxgrad import signs
from jaxgrad.interpreter import NESTED, UnsupportedError, describe, walk
from jaxgrad.residue_rules import Rule, multiply, reciprocal, square_root, subtract
from jaxgrad.residues import PIVOT, ResidueDomain, Residues, either


def _rows(x: Residues) -> list[Residues]:
    """Return the rows (…, n) of matrices (…, m, n)."""
    return [x.map(lambda v, i=i: v[..., i, :]) for i in range(x.shape[-2])]


def _cell(row: Residues, j: int) -> Residues:
    """Return one column (…, 1) of a row."""
    return row.map(lambda v: v[..., j : j + 1])


def _matrix(domain: ResidueDomain, rows: Sequence[Residues]) -> Residues:
    """Stack rows (…, n) into matrices (…, m, n)."""
    index = np.arange(len(rows) * int(np.prod(rows[0].shape))).reshape(len(rows), *rows[0].shape)
    return domain.rearrange(rows, np.moveaxis(index, 0, -2))


def _joined(domain: ResidueDomain, cells: Sequence[Residues]) -> Residues:
    """Join columns (…, 1) into a row (…, n)."""
    index = np.arange(len(cells) * int(np.prod(cells[0].shape))).reshape(len(cells), *cells[0].shape)
    return domain.rearrange(cells, np.moveaxis(index, 0, -2)[..., 0])


def _transposed(x: Residues) -> Residues:
    return x.map(lambda v: v.swapaxes(-1, -2))


def lu(domain: ResidueDomain, eqn: Any, a: Any) -> list[Any]:
    """Factorise P·A = L·U; returns L and U in one matrix, the row swaps, and P as an order of rows."""
    a = domain.settled(a)
    rows, count = _rows(a), min(a.shape[-2:])
    order = domain.pivot_order(a.p, len(rows))
    rows = [rows[i] for i in order]
    for k in range(count):
        usable = [i for i in range(k, len(rows)) if (_cell(rows[i], k).p != 0).any(0).all()]
        if not usable:
            raise UnsupportedError(f"{describe(eqn)} meets a singular matrix")
        if usable[0] != k:
            rows[k], rows[usable[0]] = rows[usable[0]], rows[k]
            order[k], order[usable[0]] = order[usable[0]], order[k]
        inverse = reciprocal(domain, _cell(rows[k], k))
        for i in range(k + 1, len(rows)):
            factor = multiply(domain, eqn, _cell(rows[i], k), inverse)
            reduced = subtract(domain, eqn, rows[i], multiply(domain, eqn, factor, rows[k]))
            cells = [_cell(rows[i], j) if j < k else factor if j == k else _cell(reduced, j) for j in range(a.shape[-1])]
            rows[i] = _joined(domain, cells)
    result = _matrix(domain, rows)
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


def _pivots_to_permutation(domain: ResidueDomain, eqn: Any, pivots: np.ndarray) -> np.ndarray:
    raise UnsupportedError(f"{describe(eqn)} depends on pivots that are not known")


def triangular_solve(domain: ResidueDomain, eqn: Any, a: Any, b: Any) -> Residues:
    """Solve op(A)·X = B or X·op(A) = B by substitution."""
    p = eqn.params
    if p["conjugate_a"]:
        raise UnsupportedError(f"{describe(eqn)} with a conjugate has no rule")
    a, b = domain.settled(a), domain.settled(b)
    flip = p["transpose_a"] != (not p["left_side"])  # X·M = B is Mᵀ·Xᵀ = Bᵀ
    a, lower = (_transposed(a), not p["lower"]) if flip else (a, p["lower"])
    b = b if p["left_side"] else _transposed(b)
    matrix, rows = _rows(a), _rows(b)
    n = len(rows)
    order = range(n) if lower else range(n)[::-1]
    solved: dict[int, Residues] = {}
    for i in order:
        row = rows[i]
        for j, x in solved.items():
            row = subtract(domain, eqn, row, multiply(domain, eqn, _cell(matrix[i], j), x))
        solved[i] = row if p["unit_diagonal"] else multiply(domain, eqn, row, reciprocal(domain, _cell(matrix[i], i)))
    result = _matrix(domain, [solved[i] for i in range(n)])
    return result if p["left_side"] else _transposed(result)


def cholesky(domain: ResidueDomain, eqn: Any, a: Any) -> Residues:
    """Factorise A = L·Lᵀ, reading the lower triangle; bad where a pivot is not positive."""
    a = domain.settled(a)
    n = a.shape[-1]
    left = {(i, j): a.map(lambda v, i=i, j=j: v[..., i, j : j + 1]) for i in range(n) for j in range(i + 1)}
    zero = domain.lift(np.zeros((*a.shape[:-2], 1), int))
    cells = {(i, j): zero for i in range(n) for j in range(n)}
    for k in range(n):
        root = square_root(domain, eqn, left[k, k])
        inverse, pivot = reciprocal(domain, root), reciprocal(domain, left[k, k])
        cells[k, k] = replace(root, sign=np.full(root.shape, signs.POSITIVE))
        for i in range(k + 1, n):
            cells[i, k] = multiply(domain, eqn, left[i, k], inverse)
            for j in range(k + 1, i + 1):
                both = multiply(domain, eqn, left[i, k], left[j, k])
                left[i, j] = subtract(domain, eqn, left[i, j], multiply(domain, eqn, both, pivot))
    return _matrix(domain, [_joined(domain, [cells[i, j] for j in range(n)]) for i in range(n)])


def linear_solve(domain: ResidueDomain, eqn: Any, *operands: Any) -> list[Any]:
    """Solve, multiply out again, and where that gives b forget how it was solved."""
    solutions = NESTED["custom_linear_solve"](eqn, list(operands), domain)
    lengths, programs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    values = [domain.settled(x) for x in solutions]
    if not any(_has(x, PIVOT) for x in values):
        return solutions
    matrix, right = operands[: lengths.matvec], [domain.settled(x) for x in operands[sum(lengths) :]]
    products = [domain.settled(x) for x in walk(_closed(programs.matvec), [*matrix, *values], domain)]
    if not all(_same(domain, x, b) for x, b in zip(products, right, strict=True)):
        return solutions
    taint = np.uint64(0)
    for x in (*(domain.settled(m) for m in matrix), *right):
        if x.taint is not None:
            taint |= np.bitwise_or.reduce(x.taint, axis=None)
    return [replace(x, taint=np.full(x.shape, taint)) for x in values]


def _closed(program: Any) -> core.ClosedJaxpr:
    return program if isinstance(program, core.ClosedJaxpr) else core.ClosedJaxpr(program, ())


def _has(x: Residues, bit: np.uint64) -> bool:
    return x.taint is not None and bool((x.taint & bit).any())


def _same(domain: ResidueDomain, a: Residues, b: Residues) -> bool:
    valid = np.ones(a.p.shape, bool)
    for x in (a, b):
        if x.bad is not None:
            valid &= ~x.bad
    q: Callable[[Residues], Any] = lambda x: x.q if domain.two else x.p  # noqa: E731  (a one-line helper)
    return bool(valid.any() and ((a.p == b.p) | ~valid).all() and ((q(a) == q(b)) | ~valid).all())


ALGEBRA: dict[str, Rule] = {
    "lu": lu,
    "lu_pivots_to_permutation": _pivots_to_permutation,
    "triangular_solve": triangular_solve,
    "cholesky": cholesky,
    "custom_linear_solve": linear_solve,
}
"""Rules of linear algebra."""
