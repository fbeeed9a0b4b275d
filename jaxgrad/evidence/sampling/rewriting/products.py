"""Products of matrices whose last bits do not depend on how many threads there are.

The gradient in a weight is one product whose sum runs over the samples of a chunk. On the CPU XLA
hands a product to one of two libraries. Eigen, which takes those whose left factor is transposed,
as it is in such a gradient, cuts a long sum into as many pieces as there are threads; YNNPACK,
which takes float32 in the usual order of axes, cuts the result alone. So before a chunk is compiled
each of its products that is worth a second thread is either written down in that order, or, where
its type or narrow matrices leave it to Eigen, summed in pieces too short to be cut. To write
products down in that order arrays have to be turned over; where
`jaxgrad.evidence.sampling.rewriting.orientation` finds orders of axes in which fewer are, they are
kept in those. That the bits are then the same on 1, 2, 3 and 8 threads was measured
(``benchmarks/NOTES.md``) and is tested; in float64 they are from two threads on, and one may differ
from two. Convolutions with long sums are written as products before
(`jaxgrad.evidence.sampling.rewriting.convolutions`).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxgrad.evidence.sampling.rewriting.convolutions import SHORT, are_long, as_products
from jaxgrad.evidence.sampling.rewriting.orders import Tally
from jaxgrad.evidence.sampling.rewriting.orientation import Orienting
from jaxgrad.jaxprs.primitives import dtype_of, shape_of
from jaxgrad.jaxprs.programs import equations
from jaxgrad.jaxprs.rewrite import apply, evaluate
from jaxgrad.jaxprs.traced import Traceable, TracedOnce

ALONE = 2**18 * 0.95
"""Multiplications up to which Eigen gives a product to one thread."""
NARROW = 32
"""Columns and rows of a matrix up to which Eigen is quicker than YNNPACK at multiplying many rows
with it.
"""


def are_narrow(jaxpr: core.Jaxpr) -> bool:
    """Say whether all products of a program are of long with narrow matrices, for which YNNPACK is
    not made.
    """
    sides = [sorted(_sides(eqn)) for eqn in equations(jaxpr) if eqn.primitive.name == "dot_general"]
    return all(middle <= NARROW for _, middle, _ in sides)


def steady(function: Callable[..., Any], *args: Any, narrow: bool | None = None) -> Any:
    """Return ``function(*args)``, whose products are the same to the last bit with any number of
    threads.

    Args:
        function: of arrays, to a pytree of arrays; traced, unless it is a
            `jaxgrad.jaxprs.traced.Traceable` and has been.
        args: its arguments, of which the last is what differs from sample to sample.
        narrow: whether Eigen takes all products; by default where `are_narrow` says so.

    >>> a = jnp.ones((4096, 64))
    >>> program = jax.make_jaxpr(lambda a: steady(lambda a: a.T @ a, a))(a)
    >>> [eqn.primitive.name for eqn in program.eqns]
    ['transpose', 'optimization_barrier', 'dot_general', 'optimization_barrier']
    """
    if jax.default_backend() != "cpu":
        return function(*args)
    traced = function if isinstance(function, Traceable) else TracedOnce(function)
    program, shape = traced.program(*args)
    if are_long(program.jaxpr):
        program = jax.make_jaxpr(
            lambda *leaves: as_products(program.jaxpr, program.consts, leaves)
        )(*jax.tree.leaves(args))
    narrow = are_narrow(program.jaxpr) if narrow is None else narrow
    leaves, fixed = jax.tree.leaves(args), len(jax.tree.leaves(args[:-1]))
    outputs = None if narrow else _oriented(program, leaves, fixed)
    if outputs is None:
        outputs = _run(program.jaxpr, program.consts, leaves, narrow)
    return jax.tree.unflatten(jax.tree.structure(shape), outputs)


def _oriented(program: core.ClosedJaxpr, leaves: Sequence[Any], fixed: int) -> list[Any] | None:
    """Evaluate a program with its arrays in the order in which its products take them; None where
    fewer are turned without.

    Args:
        program: a program.
        leaves: its arguments.
        fixed: how many of these, the first ones, do not depend on the samples.
    """
    large = [
        eqn
        for eqn in equations(program.jaxpr)
        if eqn.primitive.name == "dot_general" and _may_be_cut(eqn)
    ]
    if not large or not all(_is_single(eqn) for eqn in large):
        return None

    def run(*, weights_first: bool, dry: bool = False) -> tuple[list[Any], int]:
        orienting = Orienting(_matrix_product, _with_steady_products, weights_first, Tally(dry))
        held = [orienting.lying(leaf, jnp.shape(leaf), i >= fixed) for i, leaf in enumerate(leaves)]
        outputs = [out.usual for out in orienting.run(program.jaxpr, program.consts, held)]
        return outputs, orienting.tally.turned

    turned = run(weights_first=False, dry=True)[1]
    if not turned or run(weights_first=True, dry=True)[1] >= turned:
        return None
    return run(weights_first=True)[0]


def _matrix_product(eqn: core.JaxprEqn, left: Any, right: Any, terms_last: bool) -> Any:
    """Take the product of (rows, terms) with (terms, columns), or with (columns, terms)."""

    def dot(left: Any) -> Any:
        return jax.lax.dot_general(
            left,
            right,
            (((1,), (1 if terms_last else 0,)), ((), ())),
            precision=eqn.params["precision"],
            preferred_element_type=eqn.params["preferred_element_type"],
        )

    barrier = jax.lax.optimization_barrier
    return barrier(dot(barrier(left))) if _may_be_cut(eqn) else dot(left)


def _with_steady_products(
    jaxpr: core.Jaxpr, eqn: core.JaxprEqn, operands: Sequence[Any], narrow: bool = False
) -> Sequence[Any]:
    if eqn.primitive.name == "dot_general" and _may_be_cut(eqn):
        return [_product(eqn, *operands, narrow=narrow)]
    return apply(jaxpr, _inside(eqn, narrow), operands)


def _run(jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Any], narrow: bool) -> list[Any]:
    def step(jaxpr: core.Jaxpr, eqn: core.JaxprEqn, operands: Sequence[Any]) -> Sequence[Any]:
        return _with_steady_products(jaxpr, eqn, operands, narrow=narrow)

    return evaluate(jaxpr, consts, args, step)


def _inside(eqn: core.JaxprEqn, narrow: bool) -> core.JaxprEqn:
    """Do the same in the programs that an equation carries."""

    def rewritten(value: Any) -> Any:
        if isinstance(value, core.ClosedJaxpr):
            if not any(
                e.primitive.name == "dot_general" and _may_be_cut(e) for e in equations(value.jaxpr)
            ):
                return value
            return jax.make_jaxpr(lambda *xs: _run(value.jaxpr, value.consts, xs, narrow))(
                *value.in_avals
            )
        if isinstance(value, (tuple, list)) and any(isinstance(v, core.ClosedJaxpr) for v in value):
            return jax.tree.map(rewritten, value, is_leaf=lambda v: v is not value)
        return value

    changed = {name: rewritten(value) for name, value in eqn.params.items()}
    return (
        eqn
        if all(changed[name] is value for name, value in eqn.params.items())
        else eqn.replace(params=changed)
    )


def _sides(eqn: core.JaxprEqn) -> tuple[int, int, int]:
    """Return the number of rows, terms and columns of a product, of one where there are many."""
    ((axes, _), (batch, _)), left = eqn.params["dimension_numbers"], shape_of(eqn.invars[0])
    terms, many = math.prod(left[i] for i in axes), math.prod(left[i] for i in batch)
    rows = math.prod(left) // max(1, terms * many)
    return rows, terms, math.prod(shape_of(eqn.outvars[0])) // max(1, many * rows)


def _may_be_cut(eqn: core.JaxprEqn) -> bool:
    rows, terms, columns = _sides(eqn)
    floating = jnp.issubdtype(dtype_of(eqn.outvars[0]), jnp.inexact)
    return floating and rows * terms * columns > ALONE and terms > SHORT


def _is_single(eqn: core.JaxprEqn) -> bool:
    return {dtype_of(v) for v in (*eqn.invars, *eqn.outvars)} == {jnp.dtype("float32")}


def _product(eqn: core.JaxprEqn, left: Any, right: Any, narrow: bool) -> Any:
    ((axes_l, axes_r), (batch_l, batch_r)) = eqn.params["dimension_numbers"]
    free_l = [i for i in range(left.ndim) if i not in (*axes_l, *batch_l)]
    free_r = [i for i in range(right.ndim) if i not in (*axes_r, *batch_r)]
    several, (rows, terms, columns) = len(batch_l), _sides(eqn)
    many = [left.shape[i] for i in batch_l]

    def dot(left: Any, right: Any, axis_l: int, axis_r: int, several: int) -> Any:
        batch = tuple(range(several))
        return jax.lax.dot_general(
            left,
            right,
            (((axis_l,), (axis_r,)), (batch, batch)),
            precision=eqn.params["precision"],
            preferred_element_type=eqn.params["preferred_element_type"],
        )

    right = right.transpose(*batch_r, *axes_r, *free_r)
    if _is_single(eqn) and not narrow:
        left = left.transpose(*batch_l, *free_l, *axes_l).reshape(*many, rows, terms)
        right = right.reshape(*many, terms, columns)
        product = dot(jax.lax.optimization_barrier(left), right, several + 1, several, several)
        return jax.lax.optimization_barrier(product).reshape(shape_of(eqn.outvars[0]))
    pieces, length = _pieces(terms, max(SHORT, int(ALONE // (rows * columns))))
    left = _divided(
        left.transpose(*batch_l, *axes_l, *free_l), (*many, terms, rows), pieces, length
    )
    right = _divided(right, (*many, terms, columns), pieces, length)
    parts = dot(left, right, several + 1, several + 1, several + 1)
    return jnp.sum(jax.lax.optimization_barrier(parts), axis=several).reshape(
        shape_of(eqn.outvars[0])
    )


def _pieces(terms: int, most: int) -> tuple[int, int]:
    """Divide a sum into pieces of at most so many terms, evenly where that takes less than twice as
    many; returns number and length.

    >>> _pieces(6250, 2490), _pieces(257, 128)
    ((5, 1250), (3, 86))
    """
    least = -(-terms // most)
    pieces = next((n for n in range(least, 2 * least) if terms % n == 0), least)
    return pieces, -(-terms // pieces)


def _divided(x: Any, shape: Sequence[int], pieces: int, length: int) -> Any:
    """Cut the last axis but one into pieces, the last filled up with zeros."""
    *many, terms, width = shape
    x = x.reshape(shape)
    if missing := pieces * length - terms:
        x = jnp.concatenate([x, jnp.zeros((*many, missing, width), x.dtype)], axis=-2)
    return x.reshape(*many, pieces, length, width)
