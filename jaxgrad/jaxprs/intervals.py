"""Intervals: between which numbers every value of a program lies, whatever the inputs are.

Each array is known by its least and its largest possible entry, in floating point, where exp is
[0, ∞] with both ends. An operation without a rule may give anything. What holds for the intervals
holds for every run whose numbers are no NaN (Moore 1966).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.domain import Domain
from jaxgrad.jaxprs.primitives import dtype_of, shape_of
from jaxgrad.jaxprs.walker import walk


@dataclass(frozen=True)
class Interval:
    """An array whose entries lie between two numbers."""

    low: float
    high: float
    shape: tuple[int, ...] = ()

    def __and__(self, other: "Interval") -> "Interval":
        """Return the smallest interval that holds both."""
        return Interval(min(self.low, other.low), max(self.high, other.high), self.shape)


def interval(x: Any) -> Interval:
    """Return an array's interval.

    >>> interval(np.array([3.0, -1.0]))
    Interval(low=-1.0, high=3.0, shape=(2,))
    """
    if isinstance(x, Interval):
        return x
    array = np.asarray(x)
    if array.dtype.kind not in "biuf" or not array.size:
        return Interval(-math.inf, math.inf, array.shape)
    low, high = float(array.min()), float(array.max())
    return Interval(low, high, array.shape) if low <= high else anything(array.shape)


def anything(shape: Sequence[int] = ()) -> Interval:
    """Return the interval of all numbers."""
    return Interval(-math.inf, math.inf, tuple(shape))


class Intervals(Domain):
    """The values and rules of interval arithmetic.

    Args:
        see: called with every equation that does not lie in a loop, and its operands.
    """

    def __init__(self, see: Callable[[core.JaxprEqn, Sequence[Interval]], None]) -> None:
        """Set up."""
        self.see = see

    def rule(self, eqn: core.JaxprEqn, operands: Sequence[Any]) -> Any:
        """Return the rule for an equation."""
        name = eqn.primitive.name
        if name in ("while", "scan", "custom_linear_solve", "cond"):
            return self._unknown  # what is inside of it may meet anything
        if eqn.params.get("name") in FUNCTIONS:
            return self._apply
        return self._apply if name in RULES else None

    def _apply(self, eqn: core.JaxprEqn, *operands: Any) -> Any:
        values = [interval(x) for x in operands]
        self.see(eqn, values)
        rule = FUNCTIONS.get(eqn.params.get("name")) or RULES[eqn.primitive.name]
        low, high = rule(eqn, *values)
        shape = shape_of(eqn.outvars[0])
        found = Interval(low, high, shape) if low <= high else anything(shape)
        return [found] if eqn.primitive.multiple_results else found

    @staticmethod
    def _unknown(eqn: core.JaxprEqn, *operands: Any) -> Any:
        every = [anything(shape_of(var)) for var in eqn.outvars]
        return every if eqn.primitive.multiple_results else every[0]

    def otherwise(self, eqn: core.JaxprEqn, operands: Sequence[Any]) -> Any:
        """Return all numbers where there is no rule."""
        self.see(eqn, [interval(x) for x in operands])
        return self._unknown(eqn)

    def rearrange(self, operands: Sequence[Any], index: np.ndarray) -> Interval:
        """Return the interval of all operands together."""
        values = [interval(x) for x in operands]
        whole = values[0]
        for value in values[1:]:
            whole = whole & value
        return Interval(whole.low, whole.high, np.shape(index))


def run(closed: core.ClosedJaxpr, args: Sequence[Any], see: Callable[..., None]) -> list[Any]:
    """Run a program with intervals in place of its inputs.

    >>> import jax, jax.numpy as jnp
    >>> program = jax.make_jaxpr(lambda x: jnp.exp(-(x**2)) + 1)(0.0)
    >>> run(program, [anything()], lambda eqn, operands: None)
    [Interval(low=1.0, high=2.0, shape=())]
    """
    return walk(closed, args, Intervals(see))


Ends = tuple[float, float]


def _monotone(f: Callable[[float], float]) -> Callable[..., Ends]:
    def ends(eqn: core.JaxprEqn, x: Interval) -> Ends:
        return _value(f, x.low), _value(f, x.high)

    return ends


def _value(f: Callable[[float], float], x: float) -> float:
    with np.errstate(all="ignore"):
        return float(f(np.float64(x)))


def _products(eqn: core.JaxprEqn, a: Interval, b: Interval) -> Ends:
    ends = [0.0 if 0 in (x, y) else x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    return min(ends), max(ends)


def _power(eqn: core.JaxprEqn, x: Interval) -> Ends:
    y = eqn.params.get("y", 2)
    if y < 0:
        return -math.inf if y % 2 and x.low < 0 else 0.0, math.inf
    ends = _value(lambda v: v**y, x.low), _value(lambda v: v**y, x.high)
    least = 0.0 if y % 2 == 0 and x.low <= 0 <= x.high else min(ends)
    return (1.0, 1.0) if y == 0 else (least, max(ends))


def _quotient(eqn: core.JaxprEqn, a: Interval, b: Interval) -> Ends:
    if b.low <= 0 <= b.high:
        return -math.inf, math.inf
    ends = [0.0 if math.isinf(y) else x / y for x in (a.low, a.high) for y in (b.low, b.high)]
    if any(map(math.isinf, (a.low, a.high))) and any(map(math.isinf, (b.low, b.high))):
        return -math.inf, math.inf
    return min(ends), max(ends)


def _sum(eqn: core.JaxprEqn, x: Interval) -> Ends:
    terms = math.prod(x.shape[i] for i in eqn.params["axes"])
    return (0.0 if not terms else x.low * terms), (0.0 if not terms else x.high * terms)


def _selected(eqn: core.JaxprEqn, which: Interval, *cases: Interval) -> Ends:
    first, last = max(0, int(which.low)) if math.isfinite(which.low) else 0, len(cases) - 1
    last = min(last, int(which.high)) if math.isfinite(which.high) else last
    possible = cases[first : last + 1] or cases
    return min(c.low for c in possible), max(c.high for c in possible)


def _absolute(eqn: core.JaxprEqn, x: Interval) -> Ends:
    ends = abs(x.low), abs(x.high)
    return 0.0 if x.low <= 0 <= x.high else min(ends), max(ends)


def _compared(eqn: core.JaxprEqn, a: Interval, b: Interval) -> Ends:
    true, false = possible(eqn.primitive.name, a, b)
    return (0.0 if false else 1.0), (1.0 if true else 0.0)


def possible(name: str, a: Interval, b: Interval) -> tuple[bool, bool]:
    """Say whether a comparison may be true, and whether it may be false.

    >>> possible("gt", Interval(0.0, 1.0), Interval(2.0, 3.0))
    (False, True)
    """
    if name in ("gt", "ge"):
        name, a, b = {"gt": "lt", "ge": "le"}[name], b, a
    if name == "lt":
        return a.low < b.high, a.high >= b.low
    if name == "le":
        return a.low <= b.high, a.high > b.low
    same = a.low <= b.high and b.low <= a.high
    other = not a.low == a.high == b.low == b.high
    return (same, other) if name == "eq" else (other, same)


def _unit(eqn: core.JaxprEqn, x: Interval) -> Ends:
    return -1.0, 1.0


_same = _monotone(lambda x: x)
RULES: dict[str, Callable[..., Ends]] = {
    "add": lambda eqn, a, b: (a.low + b.low, a.high + b.high),
    "add_any": lambda eqn, a, b: (a.low + b.low, a.high + b.high),
    "sub": lambda eqn, a, b: (a.low - b.high, a.high - b.low),
    "mul": _products,
    "div": _quotient,
    "rem": lambda eqn, a, b: (min(0.0, a.low), max(0.0, a.high)),
    "neg": lambda eqn, x: (-x.high, -x.low),
    "max": lambda eqn, a, b: (max(a.low, b.low), max(a.high, b.high)),
    "min": lambda eqn, a, b: (min(a.low, b.low), min(a.high, b.high)),
    "clamp": lambda eqn, low, x, high: (
        min(max(x.low, low.low), high.low),
        min(max(x.high, low.high), high.high),
    ),
    "abs": _absolute,
    "integer_pow": _power,
    "square": _power,
    "sqrt": lambda eqn, x: (math.sqrt(max(x.low, 0.0)), math.sqrt(max(x.high, 0.0))),
    "rsqrt": lambda eqn, x: (0.0, math.inf),
    "exp": _monotone(np.exp),
    "exp2": _monotone(np.exp2),
    "expm1": _monotone(np.expm1),
    "log": lambda eqn, x: (_value(np.log, max(x.low, 0.0)), _value(np.log, max(x.high, 0.0))),
    "log1p": lambda eqn, x: (
        _value(np.log1p, max(x.low, -1.0)),
        _value(np.log1p, max(x.high, -1.0)),
    ),
    "logistic": lambda eqn, x: (0.0, 1.0),
    "tanh": _monotone(np.tanh),
    "erf": _unit,
    "sin": _unit,
    "cos": _unit,
    "sign": _monotone(np.sign),
    "floor": _monotone(np.floor),
    "ceil": _monotone(np.ceil),
    "round": _monotone(np.round),
    "convert_element_type": lambda eqn, x: (
        (_value(np.trunc, x.low), _value(np.trunc, x.high))
        if eqn.outvars[0].aval.dtype.kind in "iu"
        else (x.low, x.high)
    ),
    "reduce_precision": _same,
    "copy": _same,
    "stop_gradient": _same,
    "reduce_max": _same,
    "reduce_min": _same,
    "argmax": lambda eqn, x: (0.0, math.inf),
    "argmin": lambda eqn, x: (0.0, math.inf),
    "reduce_sum": _sum,
    "reduce_and": _same,
    "reduce_or": _same,
    "and": lambda eqn, a, b: (min(a.low, b.low), min(a.high, b.high)) if _is_bool(eqn) else _any(),
    "or": lambda eqn, a, b: (max(a.low, b.low), max(a.high, b.high)) if _is_bool(eqn) else _any(),
    "not": lambda eqn, x: (1 - x.high, 1 - x.low) if _is_bool(eqn) else _any(),
    "select_n": _selected,
    **dict.fromkeys(("lt", "le", "gt", "ge", "eq", "ne"), _compared),
}
"""The least and the largest result of an operation, of those of its operands."""


def _floor_divide(eqn: core.JaxprEqn, a: Interval, b: Interval) -> Ends:
    low, high = _quotient(eqn, a, b)
    return _value(np.floor, low), _value(np.floor, high)


FUNCTIONS: dict[Any, Callable[..., Ends]] = {"floor_divide": _floor_divide}
"""The same of functions of JAX's arithmetic, whose own steps would give wider intervals."""


def _is_bool(eqn: core.JaxprEqn) -> bool:
    return dtype_of(eqn.outvars[0]).kind == "b"


def _any() -> Ends:
    return -math.inf, math.inf
