"""Terms of low rank too many or missing: outer products, or the same amount along an axis.

The error D = C − G of the closed form C is compared with u vᵀ, where u and v are vectors at hand:
inputs, sums of rows and columns, products of a matrix and a vector, ones. An error of rank one
without such a name is reported as that alone. Gradients that have rank one themselves, and sizes at
which every matrix has, tell nothing.
"""

from collections.abc import Iterator, Sequence
from itertools import permutations

import numpy as np

from jaxgrad.diagnosis.cases import Case, uniform_inputs
from jaxgrad.diagnosis.factors import Factor, product_text
from jaxgrad.diagnosis.hypothesis import Hypothesis, zero
from jaxgrad.diagnosis.proportions import SLACK, ArrayOf, Cases, error, fitted, term_sentence
from jaxgrad.diagnosis.symbols import symbols

Vectors = dict[str, np.ndarray]
ONES = "1"
"""The name of the vector of ones, of any length."""


def outer_products(label: str, cases: Cases) -> Iterator[Hypothesis]:
    """C = G + k u vᵀ, with vectors u and v that are at hand."""
    factored = _factored(label, cases)
    if factored is None:
        return
    rows, columns = (list(_alike(cases, [pair[side] for pair in factored])) for side in (0, 1))
    for u in rows:
        for v in columns:

            def product(case: Case, u: str = u, v: str = v) -> np.ndarray:
                length, width = case.truth[label].shape
                return np.outer(_vector(case, u, length), _vector(case, v, width))

            named = cases.factor(error(label), product)
            if named is None or named[1] is None:
                continue
            factor = named[1]

            def predict(
                case: Case, factor: Factor = factor, product: ArrayOf = product
            ) -> np.ndarray:
                return case.truth[label] + factor.value(symbols(case)) * np.asarray(product(case))

            term = _outer_text(factor.text.removeprefix("−"), u, v)
            yield Hypothesis("term", term_sentence(label, factor, term), predict)


def _outer_text(amount: str, u: str, v: str) -> str:
    product = (
        f"{v} in every row" if u == ONES else f"{u} in every column" if v == ONES else f"{u} {v}ᵀ"
    )
    return product_text(amount, product)


def same_along_an_axis(label: str, cases: Cases) -> Iterator[Hypothesis]:
    """C = G + T with a T that is the same in all entries, in every row or in every column."""
    errors = [case.claimed[label] - case.truth[label] for case in cases.plain]
    ndim = errors[0].ndim
    if not ndim or all(min(e.shape) < 2 for e in errors):
        return
    whole, *parts = [tuple(range(ndim)), *([(0,), (1,)] if ndim == 2 else [])]
    for axes in (whole, *parts):
        if not all(
            _constant(e, axes, case.scale(label))
            for e, case in zip(errors, cases.plain, strict=True)
        ):
            continue
        if all(_constant(case.truth[label], axes, case.scale(label)) for case in cases.plain):
            continue  # then this is how such gradients are, and not how the error is
        where = "entry" if axes == whole else ("row", "column")[axes[0]]
        text = (
            f"the closed form for {label} is off by the same amount in every entry, as where a "
            f"mean is not subtracted"
            if where == "entry"
            else f"the closed form for {label} is off by the same amounts in every {where}, as "
            f"where a sum or mean over its {where}s is missing or should not be there"
        )
        yield Hypothesis(
            "term",
            text,
            lambda case, a=axes: (
                case.truth[label] + _mean(case.claimed[label] - case.truth[label], a)
            ),
        )
        return


def rank_one(label: str, cases: Cases) -> Iterator[Hypothesis]:
    """C = G + T with a T of rank one that has no name."""
    factored = _factored(label, cases)
    if factored is None:
        return
    if all(
        min(np.count_nonzero(~zero(vector, float(np.abs(vector).max()))) for vector in pair) == 1
        for pair in factored
    ):
        return  # one row or column is of rank one whatever is wrong with it
    known = [next(_alike(cases, [pair[side] for pair in factored]), None) for side in (0, 1)]
    sides = [
        f"whose {line}s are multiples of {name}"
        for line, name in zip(("column", "row"), known, strict=True)
        if name
    ]
    vectors = f" {' and '.join(sides)}" if sides else ""
    text = (
        f"the closed form for {label} is off by a matrix of rank one{vectors}, as where an outer "
        f"product is missing or should not be there"
    )
    yield Hypothesis(
        "term",
        text,
        lambda case: case.truth[label] + _nearest(case.claimed[label] - case.truth[label]),
    )


def vectors(case: Case) -> Vectors:
    """Return the vectors at hand, by name, the simple ones first."""
    inputs = uniform_inputs(case)
    found: Vectors = {}
    plain = {name: x for name, x in inputs.items() if x.ndim == 1}
    matrices = {
        f"{name}{t}": x
        for name, y in inputs.items()
        if y.ndim == 2
        for t, x in (("", y), ("ᵀ", y.T))
    }
    found |= plain
    found |= {f"({name} 1)": x.sum(1) for name, x in matrices.items()}
    for (a, x), (b, v) in ((m, p) for m in matrices.items() for p in plain.items()):
        if x.shape[1] == len(v):
            found[f"({a} {b})"] = x @ v
    for (a, v), (b, w) in permutations(plain.items(), 2):
        if len(v) == len(w):
            found[f"({a} − {b})"] = v - w
            found[f"({a}∘{b})"] = v * w
    return found


def _vector(case: Case, name: str, length: int) -> np.ndarray:
    return np.ones(length) if name == ONES else vectors(case)[name]


def _alike(cases: Cases, seen: Sequence[np.ndarray]) -> Iterator[str]:
    """Yield the names of the vectors that, in every case, are multiples of what was seen there."""
    known = [
        {ONES: np.ones(len(x)), **vectors(case)} for x, case in zip(seen, cases.plain, strict=True)
    ]
    for name in known[0]:
        if all(
            fitted(x, table.get(name)) is not None for x, table in zip(seen, known, strict=True)
        ):
            yield name


def _constant(x: np.ndarray, axes: tuple[int, ...], scale: float) -> bool:
    return bool(zero(x - _mean(x, axes), scale).all())


def _mean(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(x.mean(axis=axes, keepdims=True), x.shape)


def _factored(label: str, cases: Cases) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Return the error as (u, v) with D = u vᵀ in every case.

    None where its rank is not one, or where that tells nothing.
    """
    found = []
    for case in cases.plain:
        if case.truth[label].ndim != 2 or min(case.truth[label].shape) < 2:
            return None
        pair = _singular(case.claimed[label] - case.truth[label])
        if pair is None:
            return None
        found.append(pair)
    if all(
        _singular(side[label]) is not None or not side[label].any()
        for case in cases.plain
        for side in (case.truth, case.claimed)
    ):
        return None
    return found or None


def _singular(x: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return u and v with x = u vᵀ, or None where the rank of x is not one."""
    if not np.all(np.isfinite(x)) or not x.any():
        return None
    left, sizes, right = np.linalg.svd(x, full_matrices=False)
    return (left[:, 0] * sizes[0], right[0]) if sizes[1] <= SLACK * sizes[0] else None


def _nearest(x: np.ndarray) -> np.ndarray:
    left, sizes, right = np.linalg.svd(x, full_matrices=False)
    return sizes[0] * np.outer(left[:, 0], right[0])
