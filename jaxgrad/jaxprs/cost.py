"""How much a proof costs, known before it is tried.

The unit is one operation on one number of one draw, some nanoseconds. A run of a program costs what
its equations cost, times the draws; loops as often as they run. `estimate` adds that up from the
program alone, and a `Meter` counts what has been spent while a program runs, since the length of a
while loop is known only then.
"""

import math
import time
from typing import Any

from jax.extend import core

from jaxgrad.jaxprs.primitives import shape_of
from jaxgrad.jaxprs.versions import jaxprs_in_params
from jaxgrad.jaxprs.walker import NESTED

BUDGET = 2**33
"""What one certificate may cost, about ten seconds."""

MEMORY = 2**31
"""The bytes that the numbers of one run may take."""

SECONDS = 120.0
"""A certificate ends after so long, whatever its cost was thought to be."""

_CALL = 20_000
_INVERSE = 64
_PER_ENTRY = {
    **dict.fromkeys(
        "div tanh logistic rsqrt sqrt cbrt sin cos tan sinh cosh erf log log1p".split(),
        2 * _INVERSE,
    ),
    "pow": 3 * _INVERSE,
    **dict.fromkeys(
        "max min gt ge lt le abs sign clamp reduce_max reduce_min cummax cummin".split(), _INVERSE
    ),
    **dict.fromkeys("exp exp2 expm1 integer_pow eq ne".split(), 16),
}
_FOLDED = frozenset("reduce_max reduce_min reduce_prod cumsum cumprod cummax cummin".split())


class ExhaustedError(Exception):
    """A proof would cost more than it may."""


class Meter:
    """What has been spent, and may be.

    Attributes:
        spent: operations so far.
    """

    def __init__(self, spent: float = 0.0) -> None:
        """Start with what was spent before."""
        self.spent, self.start = spent, time.perf_counter()

    def check(self, further: float) -> None:
        """Raise `ExhaustedError` when so many operations more would be too many."""
        if self.spent + further > BUDGET:
            about = _power_of_ten(self.spent + further)
            raise ExhaustedError(
                f"a proof takes about {about} operations, more than its budget of "
                f"{_power_of_ten(BUDGET)}; {_REMEDY}"
            )
        if time.perf_counter() - self.start > SECONDS:
            raise ExhaustedError(f"a proof was not found in {SECONDS:.0f} s; {_REMEDY}")

    def charge(self, amount: float) -> None:
        """Count operations, and raise `ExhaustedError` when they are too many."""
        self.check(amount)
        self.spent += amount


_REMEDY = "certify at smaller shapes, where what holds at all shapes is proved as well"


def _power_of_ten(count: float) -> str:
    """Return a large number in words, such as 9·10^9."""
    digits, _, exponent = f"{count:.0e}".partition("e+")
    return f"{digits}·10^{int(exponent)}"


def cost(eqn: core.JaxprEqn, draws: int) -> float:
    """Return what an equation costs in so many draws, without the programs nested in it."""
    name = eqn.primitive.name
    if name in NESTED:
        return _CALL
    shapes = [shape_of(v) for v in (*eqn.invars, *eqn.outvars)]
    entries = sum(map(math.prod, shapes))
    calls = 1
    per_draw = entries * _PER_ENTRY.get(name, 4)
    if name == "dot_general":
        ((contract, _), _), first = eqn.params["dimension_numbers"], shapes[0]
        per_draw = 8 * entries + math.prod(shapes[-1]) * math.prod(first[i] for i in contract) / 6
    elif name == "conv_general_dilated":
        inside = math.prod(shapes[1]) / max(
            1, shapes[1][eqn.params["dimension_numbers"].rhs_spec[0]]
        )
        per_draw, calls = (
            8 * entries + 2 * math.prod(shapes[2]) * inside,
            max(1, int(math.prod(shapes[1]))),
        )
    elif name in ("lu", "cholesky", "triangular_solve"):
        n = shapes[0][-1]
        per_draw, calls = 4 * n * entries + n * _INVERSE, 10 * n
    elif name in _FOLDED:
        calls = 10 * max(1, math.prod(shapes[0]) // max(1, math.prod(shapes[1])), *shapes[0])
    return calls * _CALL + 2 * per_draw * draws


def estimate(jaxpr: core.Jaxpr, draws: int) -> float:
    """Return what a program costs; a while loop is counted as if it ran once."""
    total = 0.0
    for eqn in jaxpr.eqns:
        times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        total += cost(eqn, draws) + times * sum(
            estimate(inner, draws) for inner in jaxprs_in_params(eqn.params)
        )
    return total


def size(jaxpr: core.Jaxpr) -> int:
    """Return the number of entries of all arrays that a program makes; in a loop, of one turn."""
    made = sum(math.prod(shape_of(v)) for eqn in jaxpr.eqns for v in eqn.outvars)
    return made + sum(size(inner) for eqn in jaxpr.eqns for inner in jaxprs_in_params(eqn.params))


def most_draws(program: Any) -> int:
    """Return how many draws fit into memory at once.

    Raises:
        ExhaustedError: when not even one does.
    """
    per_draw = 32 * max(1, size(program.jaxpr))
    if per_draw * 8 > MEMORY:
        gigabytes = per_draw * 8 / 2**30
        raise ExhaustedError(
            f"a proof takes about {gigabytes:.0f} GiB of memory, more than its budget of "
            f"{MEMORY // 2**30}; {_REMEDY}"
        )
    return MEMORY // per_draw
