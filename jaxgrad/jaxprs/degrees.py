"""The degree of a function in some of its inputs, read off its jaxpr.

Every array of the program gets a fraction N/D that bounds all its entries, all over the one
denominator D:

    deg(a + b) ≤ max(deg a, deg b)     deg(a·b) = deg a + deg b     (a/b) = N_a·D_b / (D_a·N_b)

Denominators are kept factored, D = ∏ Dᵢ^eᵢ with one Dᵢ for each array that the program divides by,
so that adding what has been divided by the same thing costs nothing. What is no fraction of
polynomials (`exp`, a comparison, a root) is an *obstacle* unless its argument does not depend on
the chosen inputs; the first one is remembered with its line. With ``fresh=True`` obstacles count as
fresh variables: for the bound of Schwartz and Zippel.

    degree(f, *args, argnums=0)  bounds for the outputs of f, each a `Degree`
    degrees(closed, varying)     the same for a jaxpr; varying[i] says whether input i is chosen

Sources: Schwartz, Fast probabilistic algorithms for verification of polynomial identities, J. ACM
27 (1980); Zippel, Probabilistic algorithms for sparse polynomials, EUROSAM 1979.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.degree_bounds import Degree, join, power, product, reciprocal, root
from jaxgrad.jaxprs.domain import Domain, describe, has_value, known
from jaxgrad.jaxprs.precision import in_precision
from jaxgrad.jaxprs.primitives import dtype_of, shape_of
from jaxgrad.jaxprs.rearrangements import REARRANGEMENTS
from jaxgrad.jaxprs.walker import walk


def degree(f: Callable[..., Any], *args: Any, argnums: int | Sequence[int] = 0) -> Any:
    """Bound the degree of every output of a function in some of its arguments.

    Args:
        f: a JAX function of pytrees of arrays.
        args: example arguments, arrays or `jax.ShapeDtypeStruct`; only shapes and dtypes matter.
        argnums: position or positions of the arguments whose entries are the variables.

    Returns:
        f's output tree with a `Degree` in place of every array.

    Raises:
        UnsupportedError: when a loop or branch is steered by the chosen arguments, or an operation
            is not known at all.

    >>> import jax.numpy as jnp
    >>> degree(lambda m, x: jnp.sum((m * x) ** 2), jnp.ones(3), jnp.ones(3))
    Degree(shape=(), numerator=2, obstacle='')
    >>> degree(lambda m: jnp.sum(m) / m[0], jnp.ones(3)).polynomial
    False
    """
    chosen = {argnums} if isinstance(argnums, int) else set(argnums)
    with in_precision(True):
        closed, out = jax.make_jaxpr(f, return_shape=True)(*args)
    varying = [i in chosen for i, arg in enumerate(args) for _ in jax.tree.leaves(arg)]
    return jax.tree.unflatten(jax.tree.structure(out), degrees(closed, varying))


def degrees(
    closed: core.ClosedJaxpr, varying: Sequence[bool], *, fresh: bool = False
) -> list[Degree]:
    """Bound the degrees of a program's outputs in the chosen inputs.

    Args:
        closed: the program.
        varying: for each of its inputs, whether its entries are variables; the others are unknown
            constants.
        fresh: count the result of an obstacle as variables of its own (as a root or a random value
            is one in a certificate) instead of recording the obstacle.

    Raises:
        UnsupportedError: when a loop or branch is steered by the chosen inputs.
    """
    return _analysed(closed, varying, fresh)[0]


def bounds(closed: core.ClosedJaxpr, varying: Sequence[bool]) -> tuple[list[Degree], int]:
    """Return `degrees` with fresh variables, and the largest degree of an obstacle's operands."""
    return _analysed(closed, varying, True)


def _analysed(
    closed: core.ClosedJaxpr, varying: Sequence[bool], fresh: bool
) -> tuple[list[Degree], int]:
    domain = _Degrees(fresh)
    inputs = [
        Degree(v.aval.shape, int(chosen))
        for v, chosen in zip(closed.jaxpr.invars, varying, strict=True)
    ]
    return [_lift(value) for value in walk(closed, inputs, domain)], domain.inner


def _lift(value: Any) -> Degree:
    return value if isinstance(value, Degree) else Degree(np.shape(value))


# --- arithmetic of degrees ---


# --- rules ---


def _out(eqn: core.JaxprEqn) -> tuple[int, ...]:
    return shape_of(eqn.outvars[0])


def _linear(eqn: core.JaxprEqn, *operands: Any) -> Degree:
    return join(_out(eqn), [_lift(x) for x in operands])


def _bilinear(eqn: core.JaxprEqn, *operands: Any) -> Degree:
    return product(_out(eqn), [_lift(x) for x in operands])


def _divide(eqn: core.JaxprEqn, a: Any, b: Any) -> Degree:
    return product(_out(eqn), [_lift(a), reciprocal(_lift(b))])


def _integer_power(x: Degree, n: int) -> Degree:
    return power(x if n >= 0 else reciprocal(x), abs(n))


def _polynomial(eqn: core.JaxprEqn, x: Any, *coefficients: Any) -> Degree:
    x = _lift(x)
    terms = [product(_out(eqn), [_lift(a), power(x, i)]) for i, a in enumerate(coefficients)]
    return join(_out(eqn), terms)


def _over_axes(eqn: core.JaxprEqn, x: Degree) -> Degree:
    return replace(power(x, math.prod(x.shape) // max(math.prod(_out(eqn)), 1)), shape=_out(eqn))


_LINEAR = "add sub add_any neg reduce_sum cumsum real imag reduce_window_sum".split()
_BILINEAR = "mul dot_general conv_general_dilated".split()

_RULES: dict[str, Callable[..., Degree]] = {
    **dict.fromkeys(_LINEAR, _linear),
    **dict.fromkeys(_BILINEAR, _bilinear),
    "div": _divide,
    "integer_pow": lambda eqn, x: _integer_power(x, eqn.params["y"]),
    "square": lambda eqn, x: power(x, 2),
    "one_minus_square": lambda eqn, x: power(x, 2),
    "polynomial": _polynomial,
    "reduce_prod": _over_axes,
    "cumprod": lambda eqn, x: power(x, x.shape[eqn.params["axis"]]),
}
"""Operations that are polynomials or fractions of all their operands."""


def _convert(eqn: core.JaxprEqn, x: Degree) -> Degree | None:
    rounds = jnp.issubdtype(dtype_of(eqn.invars[0]), jnp.inexact) and not jnp.issubdtype(
        dtype_of(eqn.outvars[0]), jnp.inexact
    )
    return None if rounds else replace(x, shape=_out(eqn))


def _scatter(eqn: core.JaxprEqn, x: Any, indices: Any, updates: Any) -> Degree | None:
    if not _lift(indices).constant:
        return None
    if eqn.primitive.name == "scatter-mul":
        updates = power(
            _lift(updates), math.prod(updates.shape)
        )  # all updates may land on one entry
        return _bilinear(eqn, x, updates)
    return _linear(eqn, x, updates)


def _pow(eqn: core.JaxprEqn, x: Any, y: Any) -> Degree | None:
    if not known(y) or y.size == 0 or np.any(y != y.flat[0]) or not float(y.flat[0]).is_integer():
        return None
    return _integer_power(_lift(x), int(y.flat[0]))


def _triangular_solve(eqn: core.JaxprEqn, a: Any, b: Any) -> Degree | None:
    return _linear(eqn, b) if _lift(a).constant else None


_SOMETIMES: dict[str, Callable[..., Degree | None]] = {
    "convert_element_type": _convert,
    "scatter-add": _scatter,
    "scatter-sub": _scatter,
    "scatter-mul": _scatter,
    "pow": _pow,
    "triangular_solve": _triangular_solve,
}
"""Operations that are so for some operands and parameters; None otherwise."""


def _elimination(eqn: core.JaxprEqn, *operands: Any) -> Degree:
    """LU, Cholesky, triangular solves: quotients of minors, of degree ≤ n times an entry's."""
    a, rest = _lift(operands[0]), [_lift(x) for x in operands[1:]]
    minors = power(a, a.shape[-1])
    minors = replace(minors, shape=(*a.shape[:-2], a.shape[-1]))
    return product((), [minors, reciprocal(minors), *rest])


_FRESH: dict[str, Callable[..., Degree]] = {
    "sqrt": lambda eqn, x: root(x),
    "rsqrt": lambda eqn, x: reciprocal(root(x)),
    "cbrt": lambda eqn, x: root(x),
    "lu": _elimination,
    "cholesky": _elimination,
    "triangular_solve": _elimination,
}
"""What an obstacle counts as in a certificate; twice the degree of its operands where nothing
better is known.
"""


class _Degrees(Domain):
    rules: Mapping[str, Callable[..., Any]] = _RULES

    def __init__(self, fresh: bool) -> None:
        self.fresh, self.inner = fresh, 1

    def constant(self, array: Any) -> Any:
        return np.asarray(array) if has_value(array) else Degree(array.shape)

    def rearrange(self, operands: Sequence[Any], index: np.ndarray) -> Degree:
        bound = join(index.shape, [_lift(x) for x in operands])
        if len(operands) == 1 and isinstance(operands[0], Degree):
            return replace(bound, origin=operands[0].origin or operands[0])
        return bound

    def choose(self, eqn: core.JaxprEqn, which: Any, cases: Sequence[Any]) -> Degree:
        which, either = _lift(which), join(np.shape(cases[0]), [_lift(x) for x in cases])
        if which.constant:
            return either
        if self.fresh:
            return product(either.shape, [either, power(which, 2)])
        return replace(either, obstacle=either.obstacle or describe(eqn))

    def rule(self, eqn: core.JaxprEqn, operands: Sequence[Any]) -> Callable[..., Any] | None:
        if operands and all(isinstance(x, Degree) and x.constant for x in operands):
            return lambda eqn, *_: self._all(eqn, Degree(()))
        name = eqn.primitive.name
        if name == "custom_linear_solve":
            return self._solve if self._fixed_operator(eqn, operands) else None
        if name in _SOMETIMES:
            result = _SOMETIMES[name](eqn, *operands)
            return None if result is None else lambda eqn, *_: result
        return self.rules.get(name)

    def _fixed_operator(self, eqn: core.JaxprEqn, operands: Sequence[Any]) -> bool:
        return all(_lift(x).constant for x in operands[: sum(eqn.params["const_lengths"])])

    def _solve(self, eqn: core.JaxprEqn, *operands: Any) -> Any:
        return self._all(
            eqn, join((), [_lift(x) for x in operands[sum(eqn.params["const_lengths"]) :]])
        )

    def otherwise(self, eqn: core.JaxprEqn, operands: Sequence[Any]) -> Any:
        values = [_lift(x) for x in operands]
        bound = join((), values)
        if bound.constant:
            return self._all(eqn, bound)
        name = eqn.primitive.name
        if name in REARRANGEMENTS:
            data = REARRANGEMENTS[name](eqn, operands)
            moving, steering = (
                [values[i] for i in data],
                [v for i, v in enumerate(values) if i not in data],
            )
            if all(v.constant for v in steering):
                return self._all(eqn, join((), moving))
            if self.fresh:
                return self._all(eqn, product((), [join((), moving), *steering]))
        if self.fresh:
            self.inner = max(self.inner, sum(v.numerator + v.denominator for v in values))
            bound = _FRESH[name](eqn, *operands) if name in _FRESH else power(bound, 2)
            return self._all(eqn, bound)
        return self._all(eqn, replace(bound, obstacle=bound.obstacle or describe(eqn)))

    def _all(self, eqn: core.JaxprEqn, bound: Degree) -> Any:
        outputs = [replace(bound, shape=shape_of(v)) for v in eqn.outvars]
        return outputs if eqn.primitive.multiple_results else outputs[0]
