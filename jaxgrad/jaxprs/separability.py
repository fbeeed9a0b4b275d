"""Whether a function of a mask is a sum over the mask's rows, read off its jaxpr.

Let m_1, m_2, … be the rows of the mask. An entry of an array of the program is one of

    CONSTANT    it does not depend on the mask
    r ≥ 0       it is a function of row r alone
    SUM         Σ_r g_r(m_r), a sum of functions of one row each
    MIXED       anything else: rows meet in a product, or in a function that is not linear

and each operation says what its results are: linear ones make sums, the others mix unless all
operands hang on one row. The rows of an expectation are independent, so a SUM needs the
distribution of one row only.

    dependence(closed, mask=…)    what each output of a program is: Dependence.separable, .meeting
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.domain import Domain, describe, has_value
from jaxgrad.jaxprs.primitives import dtype_of, shape_of
from jaxgrad.jaxprs.rearrangements import REARRANGEMENTS
from jaxgrad.jaxprs.walker import walk

CONSTANT, SUM, MIXED = -1, -2, -3
_PAIRS = 2**23
"""So many products of entries are looked at one by one in a contraction; where there are more, it
is judged as a whole.
"""


@dataclass(frozen=True)
class Dependence:
    """How the entries of an array depend on the rows of the mask.

    Attributes:
        rows: for each entry CONSTANT, SUM, MIXED or the number of a row.
        meeting: "`mul` at file.py:12" where rows first meet on the way to this array, else "".
    """

    rows: np.ndarray
    meeting: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.rows.shape

    @property
    def separable(self) -> bool:
        """Whether every entry is a sum of functions of one row each."""
        return not np.any(self.rows == MIXED)

    @property
    def constant(self) -> bool:
        """Whether no entry depends on the mask."""
        return bool(np.all(self.rows == CONSTANT))


def dependence(closed: core.ClosedJaxpr, mask: int) -> list[Dependence]:
    """Say how a program's outputs depend on the rows of its input number `mask`.

    Rows run along all axes but the last.

    Raises:
        UnsupportedError: when a loop or branch is steered by the mask, or by data.

    >>> import jax, jax.numpy as jnp
    >>> def separable(f):
    ...     return dependence(jax.make_jaxpr(f)(jnp.ones((3, 2))), mask=0)[0].separable
    >>> (
    ...     separable(lambda m: jnp.sum(jnp.exp(m.sum(axis=1)) ** 2)),
    ...     separable(lambda m: jnp.sum(m.T @ m)),
    ... )
    (True, True)
    >>> separable(lambda m: jnp.sum(m) ** 2), separable(lambda m: jnp.sum(m @ m.T))
    (False, False)
    """
    values = []
    for i, var in enumerate(closed.jaxpr.invars):
        shape = var.aval.shape
        rows = _constant(shape).rows
        if i == mask:
            rows[...] = np.arange(math.prod(shape[:-1])).reshape(*shape[:-1], 1)
        values.append(Dependence(rows))
    return [_lift(value) for value in walk(closed, values, _Rows())]


def _lift(value: Any) -> Dependence:
    return value if isinstance(value, Dependence) else _constant(np.shape(value))


def _constant(shape: tuple[int, ...]) -> Dependence:
    return Dependence(np.full(shape, CONSTANT, np.int32))


# --- how entries combine


def _add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Combine entries linearly, with unknown but constant coefficients."""
    mixed = (a == MIXED) | (b == MIXED)
    return np.where(
        a == CONSTANT, b, np.where((b == CONSTANT) | (a == b), a, np.where(mixed, MIXED, SUM))
    )


def _multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Multiply entries: a sum stays one under a constant factor only."""
    return np.where(a == CONSTANT, b, np.where((b == CONSTANT) | ((a == b) & (a >= 0)), a, MIXED))


def _bend(a: np.ndarray) -> np.ndarray:
    """Apply a function that is not linear to each entry."""
    return np.where(a == SUM, MIXED, a)


def _reduce(rows: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Combine entries linearly along axes."""
    axes = tuple(axes)
    depends = rows != CONSTANT
    high = np.max(np.where(depends, rows, -9), axis=axes, initial=-9)
    low = np.min(
        np.where(depends, rows, np.iinfo(rows.dtype).max),
        axis=axes,
        initial=np.iinfo(rows.dtype).max,
    )
    mixed, any_depends = low == MIXED, high != -9
    return np.where(
        ~any_depends, CONSTANT, np.where(mixed, MIXED, np.where(high == low, high, SUM))
    ).astype(np.int32)


def _all_of(rows: np.ndarray) -> np.ndarray:
    return _reduce(rows, range(rows.ndim))


# --- rules: (equation, rows of the operands) -> rows of the result


def _shape(eqn: core.JaxprEqn) -> tuple[int, ...]:
    return shape_of(eqn.outvars[0])


def _elementwise(eqn: core.JaxprEqn, *operands: np.ndarray) -> np.ndarray:
    return reduce(_multiply, map(_bend, operands))


def _linear_reduction(eqn: core.JaxprEqn, x: np.ndarray) -> np.ndarray:
    return _reduce(x, eqn.params["axes"])


def _reduction(eqn: core.JaxprEqn, x: np.ndarray) -> np.ndarray:
    return _bend(_reduce(x, eqn.params["axes"]))


def _cumulative(eqn: core.JaxprEqn, x: np.ndarray) -> np.ndarray:
    return np.broadcast_to(
        np.expand_dims(_reduce(x, (eqn.params["axis"],)), eqn.params["axis"]), x.shape
    )


def _convert(eqn: core.JaxprEqn, x: np.ndarray) -> np.ndarray:
    return x if jnp.issubdtype(dtype_of(eqn.outvars[0]), jnp.inexact) else _bend(x)


def _select(eqn: core.JaxprEqn, which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    return _multiply(np.broadcast_to(_bend(which), cases[0].shape), reduce(_add, cases))


def _dot(eqn: core.JaxprEqn, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    (a_sum, b_sum), (a_batch, b_batch) = eqn.params["dimension_numbers"]
    a, b = _matrix(a, a_batch, a_sum), _matrix(b, b_batch, b_sum)
    batch, i, k = a.shape
    if np.all(a == CONSTANT) or np.all(b == CONSTANT) or batch * i * k * b.shape[1] > _PAIRS:
        out = _multiply(_reduce(a, (2,))[:, :, None], _reduce(b, (2,))[:, None, :])
    else:
        out = _reduce(_multiply(a[:, :, None, :], b[:, None, :, :]).astype(np.int32), (3,))
    return out.reshape(_shape(eqn))


def _matrix(x: np.ndarray, batch: Sequence[int], contracted: Sequence[int]) -> np.ndarray:
    """Bring an operand of a contraction to the axes (batch, free, contracted)."""
    free = [i for i in range(x.ndim) if i not in (*batch, *contracted)]
    sizes = [math.prod(x.shape[i] for i in axes) for axes in (batch, free, contracted)]
    return x.transpose([*batch, *free, *contracted]).reshape(sizes)


def _convolution(eqn: core.JaxprEqn, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    numbers = eqn.params["dimension_numbers"]
    if eqn.params["batch_group_count"] != 1:
        return np.broadcast_to(_multiply(_all_of(x), _all_of(kernel)), _shape(eqn))
    sample = _reduce(np.moveaxis(x, numbers.lhs_spec[0], 0), range(1, x.ndim))
    spread = [1] * len(_shape(eqn))
    spread[numbers.out_spec[0]] = len(sample)
    return np.broadcast_to(_multiply(sample, _all_of(kernel)).reshape(spread), _shape(eqn))


def _scatter_add(
    eqn: core.JaxprEqn, x: np.ndarray, indices: np.ndarray, updates: np.ndarray
) -> np.ndarray:
    landing = _multiply(_bend(_all_of(indices)), _all_of(updates))
    return _add(_multiply(_bend(_all_of(indices)), x), landing)


_LINEAR = "add sub add_any neg real imag".split()
_ELEMENTWISE = (
    "square integer_pow pow exp exp2 expm1 log log1p tanh logistic sin cos tan sqrt rsqrt cbrt "
    "abs sign floor ceil round erf erfc "
    "erf_inv lgamma digamma max min rem atan2 eq ne lt le gt ge and or xor not is_finite clamp "
    "nextafter asin acos atan sinh cosh "
    "asinh acosh atanh"
).split()
_REDUCTIONS = "reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin".split()

_RULES: dict[str, Callable[..., np.ndarray]] = {
    **dict.fromkeys(_LINEAR, lambda eqn, *xs: reduce(_add, xs)),
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    "mul": lambda eqn, a, b: _multiply(a, b),
    "div": lambda eqn, a, b: _multiply(a, _bend(b)),
    "reduce_sum": _linear_reduction,
    "cumsum": _cumulative,
    **dict.fromkeys(
        "cumprod cummax cummin cumlogsumexp".split(), lambda eqn, x: _bend(_cumulative(eqn, x))
    ),
    "convert_element_type": _convert,
    "select_n": _select,
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "scatter-add": _scatter_add,
}
"""Operations about which more is known than which operands they have."""


class _Rows(Domain):
    rules: Mapping[str, Callable[..., Any]] = _RULES

    def constant(self, array: Any) -> Any:
        return np.asarray(array) if has_value(array) else _constant(array.shape)

    def rearrange(self, operands: Sequence[Any], index: np.ndarray) -> Dependence:
        values = [_lift(x) for x in operands]
        flat = np.concatenate([*(v.rows.ravel() for v in values), np.array([CONSTANT], np.int32)])
        return Dependence(flat[index], _meeting(values))  # −1, outside, is the constant at the end

    def rule(self, eqn: core.JaxprEqn, operands: Sequence[Any]) -> Callable[..., Any] | None:
        unknown = [x for x in operands if isinstance(x, Dependence)]
        if unknown and all(x.constant for x in unknown):
            return lambda eqn, *_: self._results(eqn, operands, np.int32(CONSTANT))
        rule = self.rules.get(eqn.primitive.name)
        if rule is None or (
            eqn.primitive.name == "select_n" and not isinstance(operands[0], Dependence)
        ):
            return None  # a choice that is known only moves entries
        return lambda eqn, *xs: self._results(
            eqn, operands, rule(eqn, *(_lift(x).rows for x in xs))
        )

    def choose(self, eqn: core.JaxprEqn, which: Any, cases: Sequence[Any]) -> Dependence:
        """Return a case chosen by an unknown number: entries depend on it and on every case."""
        operands = [_lift(x) for x in (which, *cases)]
        steering, *rows = (x.rows for x in operands)
        result = _multiply(_bend(_all_of(steering)), reduce(_add, rows))
        mixed = describe(eqn) if np.any(result == MIXED) else ""
        return Dependence(np.asarray(result, np.int32), _meeting(operands) or mixed)

    def otherwise(self, eqn: core.JaxprEqn, operands: Sequence[Any]) -> Any:
        """Take an operation for a function of all entries; one that moves them is linear."""
        values = [_lift(x) for x in operands]
        moving = (
            list(REARRANGEMENTS[eqn.primitive.name](eqn, operands))
            if eqn.primitive.name in REARRANGEMENTS
            else []
        )
        steering = [_bend(_all_of(v.rows)) for i, v in enumerate(values) if i not in moving]
        moved = reduce(
            _add, (_all_of(values[i].rows) for i in moving), np.asarray(CONSTANT, np.int32)
        )
        return self._results(eqn, operands, reduce(_multiply, steering, moved))

    def _results(self, eqn: core.JaxprEqn, operands: Sequence[Any], rows: Any) -> Any:
        rows = np.asarray(rows, np.int32)
        meeting = _meeting([x for x in operands if isinstance(x, Dependence)])
        if not meeting and np.any(rows == MIXED):
            meeting = describe(eqn)
        results = [Dependence(np.broadcast_to(rows, shape_of(v)), meeting) for v in eqn.outvars]
        return results if eqn.primitive.multiple_results else results[0]


def _meeting(values: Sequence[Dependence]) -> str:
    return next((v.meeting for v in values if v.meeting), "")
