"""Which exact expectations of a function over a mask there are, and what each costs.

The function is traced; its jaxpr tells its degree in the mask (`jaxgrad.jaxprs.degrees`) and
whether it is a sum over the mask's rows (`jaxgrad.jaxprs.separability`). Neither is ever assumed.
What is not established is not offered, and the reason is kept.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.evidence.expectation import cubature
from jaxgrad.evidence.expectation.cubature import Rule
from jaxgrad.evidence.expectation.cubature_rows import row_sets, row_sets_count
from jaxgrad.jaxprs.degree_bounds import Degree
from jaxgrad.jaxprs.degrees import _Degrees
from jaxgrad.jaxprs.domain import UnsupportedError, describe
from jaxgrad.jaxprs.primitives import dtype_of, shape_of
from jaxgrad.jaxprs.separability import dependence
from jaxgrad.jaxprs.versions import jaxprs_in_params
from jaxgrad.jaxprs.walker import walk
from jaxgrad.masks import SUPPORT_LIMIT, Mask

MOST = 2**20
"""The most masks at which a function is evaluated."""

METHODS = ("enumeration", "rows", "coins", "moments")
"""Names of the ways, from the one that takes least for granted to the one that takes most."""


@dataclass(frozen=True)
class Plan:
    """One way to an exact expectation.

    Attributes:
        method: its name, one of METHODS.
        count: number of masks at which the function is evaluated.
        build: makes the rules, each with its own weight.
    """

    method: str
    count: int
    build: Callable[[], list[tuple[Any, Rule]]]


@dataclass(frozen=True)
class Structure:
    """What a function's jaxpr tells of it.

    Attributes:
        degree: its degree in the mask; None where it is no polynomial.
        separable: whether it is a sum over the mask's rows.
        not_polynomial: why it is no polynomial, "" where it is one.
        not_separable: where rows meet, "" where they do not.
        beyond: the operation that takes the degree beyond a number, in words.
        size: number of bytes of all arrays of one evaluation.
    """

    degree: int | None
    separable: bool
    not_polynomial: str
    not_separable: str
    beyond: Callable[[int], str]
    size: int


def structure(
    f: Callable[..., Any], shape: Sequence[int], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Structure:
    """Trace a function, which takes the draw as keyword `mask`, and analyse it."""
    closed = trace(f, shape, args, kwargs)
    last = len(closed.jaxpr.invars) - 1
    try:
        outputs, _ = _degrees(closed, None)
        separable = dependence(closed, last)
    except UnsupportedError as error:
        reason = f"the analysis stops: {error}"
        return Structure(None, False, reason, reason, lambda _: reason, jaxpr_bytes(closed.jaxpr))
    polynomial = all(d.polynomial for d in outputs)
    meeting = next((d.meeting for d in separable if not d.separable), "")
    obstacle = next((d.obstacle for d in outputs if d.obstacle), "") or next(
        (_first_division(closed) for d in outputs if not d.polynomial), ""
    )
    return Structure(
        degree=max((d.numerator for d in outputs), default=0) if polynomial else None,
        separable=all(d.separable for d in separable),
        not_polynomial=f"it is no polynomial in the mask because of {obstacle}"
        if not polynomial
        else "",
        not_separable=f"it is no sum over the mask's rows because rows meet in {meeting}"
        if meeting
        else "",
        beyond=lambda limit: _degrees(closed, limit)[1],
        size=jaxpr_bytes(closed.jaxpr),
    )


def trace(
    f: Callable[..., Any], shape: Sequence[int], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> core.ClosedJaxpr:
    """Return the jaxpr of f in the arrays among its arguments and, as the last input, the mask."""
    leaves, tree = jax.tree.flatten((args, kwargs))
    dynamic = [isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves]

    def of_arrays(arrays: list[Any], mask: Any) -> Any:
        rest = iter(arrays)
        positional, named = jax.tree.unflatten(
            tree, [next(rest) if d else leaf for d, leaf in zip(dynamic, leaves, strict=True)]
        )
        return f(*positional, **named, mask=mask)

    arrays = [leaf for d, leaf in zip(dynamic, leaves, strict=True) if d]
    return jax.make_jaxpr(of_arrays)(
        arrays, jax.ShapeDtypeStruct(tuple(shape), jnp.result_type(float))
    )


class _Watch(_Degrees):
    """Degrees, and the first operation whose result `found` holds of."""

    def __init__(self, found: Callable[[Degree], bool]) -> None:
        super().__init__(fresh=False)
        self.found, self.first = found, ""

    def rule(self, eqn: core.JaxprEqn, operands: Sequence[Any]) -> Callable[..., Any] | None:
        rule = super().rule(eqn, operands)
        if rule is None:
            return None

        def watched(eqn: core.JaxprEqn, *xs: Any) -> Any:
            result = rule(eqn, *xs)
            results = result if isinstance(result, list) else [result]
            if not self.first and any(self.found(r) for r in results if isinstance(r, Degree)):
                self.first = describe(eqn)
            return result

        return watched


def _degrees(closed: core.ClosedJaxpr, limit: int | None) -> tuple[list[Degree], str]:
    return _walk_degrees(closed, lambda d: limit is not None and d.numerator > limit)


def _first_division(closed: core.ClosedJaxpr) -> str:
    return (
        _walk_degrees(closed, lambda d: bool(d.divisors))[1]
        + ", which divides by what depends on it"
    )


def _walk_degrees(
    closed: core.ClosedJaxpr, found: Callable[[Degree], bool]
) -> tuple[list[Degree], str]:
    domain = _Watch(found)
    last = len(closed.jaxpr.invars) - 1
    inputs = [Degree(v.aval.shape, int(i == last)) for i, v in enumerate(closed.jaxpr.invars)]
    outputs = [
        d if isinstance(d, Degree) else Degree(np.shape(d)) for d in walk(closed, inputs, domain)
    ]
    return outputs, domain.first


def jaxpr_bytes(jaxpr: core.Jaxpr) -> int:
    """Return the size of all arrays that a program makes, those of nested programs once."""
    total = 0
    for eqn in jaxpr.eqns:
        inner = [jaxpr_bytes(j) for j in jaxprs_in_params(eqn.params)]
        shapes = [
            (math.prod(shape_of(v)), dtype_of(v).itemsize)
            for v in eqn.outvars
            if hasattr(v.aval, "dtype")
        ]
        total += sum(inner) + sum(size * width for size, width in shapes)
    return total


def plans(mask: Mask, shape: Sequence[int], found: Callable[[], Structure]) -> Iterator[Plan | str]:
    """Yield every way there is to an exact expectation, and a reason in place of each other one.

    Args:
        mask: the distribution.
        shape: shape of a draw.
        found: the function's structure; asked for only after all masks have been counted.
    """
    sizes = _row_count(mask, shape[-1])
    yield _enumeration(mask, shape, sizes)
    known = found()
    yield _rows(mask, shape, sizes, known)
    if known.degree is None:
        yield known.not_polynomial
        return
    if known.degree <= 1:
        yield Plan("moments", 1, lambda: [(1.0, cubature.at_the_mean(mask, shape))])
        return
    yield _coins(mask, shape, known)
    yield _row_sets(mask, shape, sizes, known)
    if known.degree == 2:
        size = cubature.moments_count(shape, known.separable)
        if size <= MOST:
            yield Plan(
                "moments", size, lambda: [(1.0, cubature.moments(mask, shape, known.separable))]
            )
        else:
            yield f"its second moments need {size} evaluations" + (
                ", since " * bool(known.not_separable) + known.not_separable
            )
    else:
        yield (
            f"its degree in the mask is {known.degree}, because of {known.beyond(2)}, and the "
            f"first two moments of a "
            f"{type(mask).__name__} give expectations up to degree 2 only"
        )


def _row_count(mask: Any, n: int) -> int | None:
    """Return the number of different rows, None where it is not known or infinite."""
    if hasattr(mask, "support_size"):
        return mask.support_size(n)
    try:
        return len(jax.eval_shape(lambda: mask.support((n,)))[0])
    except ValueError:
        return None


def _enumeration(mask: Mask, shape: Sequence[int], rows: int | None) -> Plan | str:
    count = math.prod(shape[:-1])
    if rows is None:
        return f"the masks of a {type(mask).__name__} cannot be listed"
    if count * math.log2(rows) + math.log2(math.prod(shape)) > math.log2(SUPPORT_LIMIT):
        masks = f"{rows}^{count}" if rows < 10**9 else f"2^{count * math.log2(rows):.0f}"
        return f"it has {masks} masks of shape {tuple(shape)}, too many to list"
    return Plan("enumeration", rows**count, lambda: [(1.0, cubature.enumeration(mask, shape))])


def _rows(mask: Mask, shape: Sequence[int], rows: int | None, known: Structure) -> Plan | str:
    if not known.separable:
        return known.not_separable
    if rows is None or rows > MOST or rows * shape[-1] > SUPPORT_LIMIT:
        return "" if rows is None else "and one row alone has too many masks"
    return Plan("rows", rows, lambda: [(1.0, cubature.rows(mask, shape))])


def _row_sets(mask: Mask, shape: Sequence[int], rows: int | None, known: Structure) -> Plan | str:
    if known.separable or known.degree == 2 or rows is None or rows * shape[-1] > SUPPORT_LIMIT:
        return ""
    assert known.degree is not None
    count = math.prod(shape[:-1])
    together = min(known.degree // 2, count)
    size = row_sets_count(count, rows, together)
    if size > MOST:
        return (
            f"its degree in the mask is {known.degree}, because of {known.beyond(3)}, which "
            f"takes {size} sets of rows"
        )
    return Plan("rows", size, lambda: [(1.0, row_sets(mask, shape, together))])


def _coins(mask: Any, shape: Sequence[int], known: Structure) -> Plan | str:
    degree, n = known.degree, shape[-1]
    assert degree is not None
    if hasattr(mask, "mixture"):
        if not known.separable and math.prod(shape[:-1]) > 1:
            return ""
        parts = mask.mixture(n, degree)
    else:
        parts = [(1.0, mask)]
    if not parts or not all(hasattr(part, "factors") for _, part in parts):
        return ""
    rules = [(w, functools.partial(part.factors, n, degree)) for w, part in parts]
    size = sum(
        cubature.coins_count(factors(), shape, degree, known.separable) for _, factors in rules
    )
    if size > MOST:
        return (
            f"its degree in the mask is {degree}, because of {known.beyond(3)}, which takes "
            f"{size} evaluations"
        )
    return Plan(
        "coins",
        size,
        lambda: [
            (w, cubature.coins(factors(), shape, degree, known.separable)) for w, factors in rules
        ],
    )
