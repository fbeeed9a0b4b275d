"""Rewriting of the program of a chunk of samples: the same numbers, in less time on a CPU.

The program of a chunk is walked over once, and an operation for which `RULES` has a rule may be
computed in another way. In exact arithmetic the result is the same; in floating point it differs by
rounding. Whoever uses a rewritten program asks `is_same` first, which compares it with the plain
one on two samples. Together with `jaxgrad.evidence.sampling.association`, which rewrites the
program of one sample, this is all that is done to a loop.

**Products.** XLA gives a product of matrices in float32 to YNNPACK if the left factor lies row by
row, and else to Eigen, which is slower at it. The gradient in a weight, δᵀ X, sums over all samples
of a chunk, so its left factor lies column by column. It is turned over first: of δᵀ X and Xᵀ δ,
which are each other's transpose, the one with the narrower left factor is taken. Where a long array
meets a narrow matrix, the matrix becomes the left factor instead, so that YNNPACK has long rows.
Without a barrier behind what was turned over, XLA would turn it back.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.evidence.noise.rounding import compare, noisy_copies, repeated
from jaxgrad.jaxprs.numpy_run import floating
from jaxgrad.jaxprs.primitives import dtype_of, shape_of
from jaxgrad.jaxprs.programs import equations, working_unit
from jaxgrad.jaxprs.rewrite import apply, evaluate, evaluated_equations
from jaxgrad.runtime.compiled import executable
from jaxgrad.runtime.options import check_options

Rewriting = Callable[..., Any]
"""Computes one equation in another way, from the equation and its operands."""

LARGE = 2**18
"""Multiplications from which a product is rewritten."""
NARROW = 32
"""Rows and columns of a matrix up to which it is narrow."""
NOISY = 2
"""Noisy copies of the arguments at which programs are compared."""


def can_be_rewritten(program: core.ClosedJaxpr) -> bool:
    """Say whether a program has operations that there are rules for."""
    return jax.default_backend() == "cpu" and any(
        eqn.primitive.name in RULES for eqn in equations(program.jaxpr)
    )


def names_of(program: core.ClosedJaxpr) -> list[str]:
    """Return the names of all operations, in the order of `chosen`."""
    return [eqn.primitive.name for eqn in evaluated_equations(program.jaxpr)]


def chosen(program: core.ClosedJaxpr) -> list[Rewriting | None]:
    """Return for each equation, in the order of `evaluate`, how it is computed in another way.

    >>> program = jax.make_jaxpr(lambda a: jnp.tensordot(a, a, (0, 0)))(jnp.ones((4096, 64)))
    >>> [choice and choice.__name__ for choice in chosen(program)]
    ['turned']
    """
    return [
        rule(eqn) if (rule := RULES.get(eqn.primitive.name)) else None
        for eqn in evaluated_equations(program.jaxpr)
    ]


def rewritten(
    program: core.ClosedJaxpr, choices: Sequence[Rewriting | None], args: Sequence[Any]
) -> list[Any]:
    """Evaluate a program with its equations computed as `chosen` says.

    The choices may be those of the same program for another number of samples.
    """
    left = iter(choices)

    def step(jaxpr: core.Jaxpr, eqn: core.JaxprEqn, operands: Sequence[Any]) -> Sequence[Any]:
        choice = next(left)
        return apply(jaxpr, eqn, operands) if choice is None else [choice(eqn, *operands)]

    return evaluate(program.jaxpr, program.consts, args, step)


def is_same(
    plain: core.ClosedJaxpr, other: core.ClosedJaxpr, args: Sequence[Any], draws: Any
) -> bool:
    """Say whether two programs of the same arguments differ by no more than rounding.

    Both are run in numpy, or compiled where numpy cannot run them or would be slow, as it is at
    convolutions. They are run at the arguments and at copies of these with noise of one unit in the
    last place; the bound is that of `jaxgrad.evidence.noise.rounding`.

    Args:
        plain: a program.
        other: one that should compute the same.
        args: all arguments but the last.
        draws: the last argument, to which no noise is added.
    """
    types = [aval.dtype for aval in plain.in_avals]
    if any(jnp.issubdtype(dtype, jax.dtypes.prng_key) for dtype in types):
        return False  # keys are no numbers, and cannot be given to numpy
    inputs = [np.asarray(x, dtype) for x, dtype in zip((*args, draws), types, strict=True)]
    unit = working_unit(plain)
    noisy = noisy_copies(inputs[:-1], unit, seed=0)
    copies = [x[: NOISY + 1] for x in (*noisy, repeated(inputs[-1]))]
    found = [_at_copies(program, copies) for program in (plain, other)]
    return all(np.all(compare(b, a, unit).agrees) for a, b in zip(*found, strict=True))


def _at_copies(program: core.ClosedJaxpr, copies: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return each output of a program at each copy of its inputs, stacked."""
    rows = [_values(program, values) for values in zip(*copies, strict=True)]
    return [
        np.stack([np.asarray(row, np.float64) for row in column])
        for column in zip(*rows, strict=True)
    ]


def _values(program: core.ClosedJaxpr, args: Sequence[np.ndarray]) -> Sequence[Any]:
    slow = any(eqn.primitive.name == "conv_general_dilated" for eqn in equations(program.jaxpr))
    outputs = None if slow else floating(program, args)
    return executable(program, args, check_options())(*args) if outputs is None else outputs


def _product(eqn: core.JaxprEqn) -> Rewriting | None:
    ((axes, _), (batch, _)) = eqn.params["dimension_numbers"]
    left, right = shape_of(eqn.invars[0]), shape_of(eqn.invars[1])
    terms = math.prod(left[i] for i in axes)
    rows, columns = math.prod(left) // max(1, terms), math.prod(right) // max(1, terms)
    single = {dtype_of(v) for v in (*eqn.invars, *eqn.outvars)} == {jnp.dtype("float32")}
    if batch or not single or rows * terms * columns < LARGE:
        return None
    if sorted((rows, terms, columns))[1] <= NARROW:
        if terms > max(rows, columns):
            return both_by_rows
        return narrow_left if columns >= rows else narrow_right
    if (*axes,) == (*range(len(left) - len(axes), len(left)),):
        return None
    return turned if rows <= columns else turned_right


def _matrix(x: Any, axes: Sequence[int], *, terms_last: bool) -> Any:
    """Return an array as a matrix, of the axes that are summed over and of the others."""
    free = [i for i in range(x.ndim) if i not in axes]
    terms = math.prod(x.shape[i] for i in axes)
    if terms_last:
        return x.transpose(*free, *axes).reshape(-1, terms)
    return x.transpose(*axes, *free).reshape(terms, -1)


def _dot(eqn: core.JaxprEqn, left: Any, right: Any, axis: int) -> Any:
    """Multiply (rows, terms) with a matrix whose terms lie along an axis."""
    return jax.lax.dot_general(
        left,
        right,
        (((1,), (axis,)), ((), ())),
        precision=eqn.params["precision"],
        preferred_element_type=eqn.params["preferred_element_type"],
    )


def turned(eqn: core.JaxprEqn, left: Any, right: Any) -> Any:
    """Take a product whose left factor is turned over first."""
    (axes, others), _ = eqn.params["dimension_numbers"]
    rows = jax.lax.optimization_barrier(_matrix(left, axes, terms_last=True))
    product = _dot(eqn, rows, _matrix(right, others, terms_last=False), 0)
    return product.reshape(shape_of(eqn.outvars[0]))


def turned_right(eqn: core.JaxprEqn, left: Any, right: Any) -> Any:
    """Take a product whose right factor is turned over and becomes the left one."""
    (axes, others), _ = eqn.params["dimension_numbers"]
    rows = jax.lax.optimization_barrier(_matrix(right, others, terms_last=True))
    product = _dot(eqn, rows, _matrix(left, axes, terms_last=False), 0)
    # without a barrier XLA would take the transpose of a product as the product of transposes
    return jax.lax.optimization_barrier(product).T.reshape(shape_of(eqn.outvars[0]))


def narrow_left(eqn: core.JaxprEqn, left: Any, right: Any) -> Any:
    """Take a product with a narrow left factor and long rows."""
    (axes, others), _ = eqn.params["dimension_numbers"]
    return _long_rows(eqn, left, axes, right, others).reshape(shape_of(eqn.outvars[0]))


def narrow_right(eqn: core.JaxprEqn, left: Any, right: Any) -> Any:
    """Take a product with a narrow right factor, which becomes the left one, and long rows."""
    (axes, others), _ = eqn.params["dimension_numbers"]
    return _long_rows(eqn, right, others, left, axes).T.reshape(shape_of(eqn.outvars[0]))


def _long_rows(
    eqn: core.JaxprEqn, narrow: Any, axes: Sequence[int], wide: Any, others: Sequence[int]
) -> Any:
    rest = jax.lax.optimization_barrier(_matrix(wide, others, terms_last=False))
    product = _dot(eqn, _matrix(narrow, axes, terms_last=True), rest, 0)
    return jax.lax.optimization_barrier(product)


def both_by_rows(eqn: core.JaxprEqn, left: Any, right: Any) -> Any:
    """Take a product of two factors with few and long rows."""
    axes, _ = eqn.params["dimension_numbers"]
    rows, columns = jax.lax.optimization_barrier(
        [_matrix(x, summed, terms_last=True) for x, summed in zip((left, right), axes, strict=True)]
    )
    return _dot(eqn, rows, columns, 1).reshape(shape_of(eqn.outvars[0]))


RULES: dict[str, Callable[[core.JaxprEqn], Rewriting | None]] = {
    "dot_general": _product,
}
"""For each primitive, what says in which other way an equation is to be computed, if at all."""
