"""Programs run in numpy, without compiling them.

`floating` runs one as it is, or with each value changed by a function. `Ranges` notes where numbers
overflow or underflow on the way. What numpy cannot do gives None.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.domain import Domain, Rule, UnsupportedError
from jaxgrad.jaxprs.walker import walk

Change = Callable[[core.JaxprEqn, np.ndarray], np.ndarray]

EXACT = frozenset(
    "abs argmax argmin broadcast_in_dim ceil clamp concatenate convert_element_type copy copy_p "
    "cummax cummin device_put "
    "dynamic_slice dynamic_update_slice eq expand_dims floor gather ge gt imag is_finite le lt "
    "max min ne neg not pad real "
    "reduce_max reduce_min reduce_precision reshape rev round scatter select_n sign slice sort "
    "split squeeze stop_gradient "
    "transpose".split()
)
"""Operations that only move or choose values."""

FAILURES = (UnsupportedError, np.linalg.LinAlgError, ValueError, TypeError)
"""What running a program in numpy may raise."""
_UNDERFLOWING = frozenset(("exp", "exp2", "logistic"))

_OVERFLOWING = frozenset(
    "add add_any cosh cumsum div dot_general exp exp2 expm1 integer_pow mul pow reduce_prod "
    "one_minus_square polynomial reduce_sum sinh square sub".split()
)
"""Operations that may make an infinite number of finite ones without a pole."""


class Floats(Domain):
    """Floating point."""

    rules: Mapping[str, Rule] = {}

    def __init__(self, change: Change | None = None) -> None:
        """Set up; `change` takes each equation with its result, and returns what replaces it."""
        self.change = change

    def rearrange(self, operands: Sequence[np.ndarray], index: np.ndarray) -> np.ndarray:
        """Return the entries at `index` of the operands, flattened and concatenated."""
        return np.concatenate([*(np.ravel(x) for x in operands), [np.nan]])[index]

    def computed(self, eqn: core.JaxprEqn, operands: Sequence[np.ndarray], array: Any) -> Any:
        """Return the value of one result of an equation."""
        value = self.constant(array)
        if not isinstance(value, np.ndarray) or not jnp.issubdtype(value.dtype, jnp.floating):
            return value
        self.see(eqn, operands, value)
        return value if self.change is None else np.asarray(self.change(eqn, value), value.dtype)

    def see(self, eqn: core.JaxprEqn, operands: Sequence[np.ndarray], value: np.ndarray) -> None:
        """Take note of a result in floating point."""


class Ranges(Floats):
    """Floating point that takes note of where its range was left.

    Attributes:
        overflows: whether something became infinite, or an exponential zero, on the way.
        left: whether finite numbers became infinite where there is no pole, or products of what is
            not 0 lost digits, or all.
    """

    def __init__(self, change: Change | None = None) -> None:
        """Set up, as above."""
        super().__init__(change)
        self.overflows = self.left = False

    def see(self, eqn: core.JaxprEqn, operands: Sequence[np.ndarray], value: np.ndarray) -> None:
        """Take note of a result in floating point."""
        name = eqn.primitive.name
        if name not in EXACT:
            self.overflows |= bool(
                (name in _UNDERFLOWING and (value == 0).any()) or np.isinf(value).any()
            )
            self.left |= _leaves_range(name, operands, value)


def _leaves_range(name: str, operands: Sequence[np.ndarray], value: np.ndarray) -> bool:
    if name not in _OVERFLOWING or not all(np.isfinite(x).all() for x in operands):
        return False
    zero = [x == 0 for x in operands]
    if np.isinf(value).any():
        return not (name == "div" and zero[1].any()) and not (
            name in ("integer_pow", "pow") and zero[0].any()
        )
    if name not in ("mul", "div", "square", "integer_pow"):
        return False
    tiny = np.abs(value) < float(jnp.finfo(value.dtype).tiny)
    return bool((tiny & ~np.logical_or.reduce(np.broadcast_arrays(*zero))).any())


def leaves_range(program: core.ClosedJaxpr, args: Sequence[Any]) -> bool:
    """Say whether numbers overflow or underflow in a program, as far as numpy can tell.

    >>> import jax
    >>> leaves_range(jax.make_jaxpr(lambda x: 1 / (x * x))(1.0), [np.float32(1e30)])
    True
    """
    ranges = Ranges()
    _walked(program, args, ranges)
    return ranges.left


def floating(
    program: core.ClosedJaxpr, args: Sequence[Any], change: Change | None = None
) -> list[np.ndarray] | None:
    """Run a program in numpy; None where it has an operation that is only JAX's."""
    return _walked(program, args, Floats(change))


def _walked(
    program: core.ClosedJaxpr, args: Sequence[Any], floats: Floats
) -> list[np.ndarray] | None:
    try:
        return walk(program, [np.asarray(x) for x in args], floats)
    except FAILURES:
        return None
