"""What is known of a sampling loop before it is compiled, and what is refused."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.programs import equations
from jaxgrad.jaxprs.user_calls import holds_keys
from jaxgrad.jaxprs.user_calls import refuse as refuse_effects

Argnums = int | tuple[int, ...] | None

_LAPACK = frozenset(
    (
        "cholesky",
        "cholesky_update",
        "eig",
        "eigh",
        "geqp3",
        "geqrf",
        "hessenberg",
        "householder_product",
        "lu",
        "ormqr",
        "qr",
        "schur",
        "svd",
        "triangular_solve",
        "tridiagonal",
        "tridiagonal_solve",
    )
)
"""Operations that LAPACK does on the CPU."""


class Known(NamedTuple):
    """What one trace tells of a sampling loop.

    Attributes:
        signature: structure, shapes and types of the arguments.
        one: bytes of intermediate values of one sample.
        out: shapes of the result, in its structure.
        size: entries of the result.
        row: bytes of the result.
        waits: whether it calls LAPACK, which waits for XLA's threads from within them, so that two
            such programs may wait forever.
    """

    signature: Any
    one: int
    out: Any
    size: int
    row: int
    waits: bool

    @property
    def rounding(self) -> np.ndarray:
        """How far rounding may move a chunk's mean, relative to it: two units in its last place."""
        leaves = jax.tree.leaves(self.out)
        units = [
            float(jnp.finfo(leaf.dtype).eps) if jnp.issubdtype(leaf.dtype, jnp.floating) else 0.0
            for leaf in leaves
        ]
        return np.repeat(2 * np.array(units), [math.prod(leaf.shape) for leaf in leaves])


def is_numbers(mask: Any) -> bool:
    """Say whether a mask's distribution is a pytree of numbers, as compiled programs take."""
    return all(
        isinstance(leaf, (int, float, np.ndarray, np.generic, jax.Array))
        for leaf in jax.tree.leaves(mask)
    )


NO_PYTREE = (
    "the mask's distribution is no pytree of numbers, as compiled programs and proofs take; "
    "register its class with "
    "jax.tree_util.register_dataclass"
)


def refuse(
    f: Callable[..., Any], args: tuple[Any, ...], shape: tuple[int, ...], argnums: Argnums
) -> None:
    """Refuse side effects, and random draws whose keys are the same in every sample."""
    draw = jax.ShapeDtypeStruct(shape, jnp.result_type(float))
    if argnums is not None:
        _refuse_arguments(args, argnums)
    program, out = jax.make_jaxpr(lambda args, draw: f(*args, mask=draw), return_shape=True)(
        args, draw
    )
    if not holds_keys(args):
        refuse_effects(program, "f")
    leaves = jax.tree.leaves(out)
    if argnums is not None and [leaf.shape for leaf in leaves] != [()]:
        shapes = ", ".join(str(leaf.shape) for leaf in leaves) or "nothing"
        raise TypeError(
            f"`f` must return one number where `argnums` is given, but returns {shapes}; "
            f"reduce it with .sum() or .mean()"
        )


def _refuse_arguments(args: tuple[Any, ...], argnums: Argnums) -> None:
    """Refuse to differentiate in what is not there, or is no real number."""
    for number in (argnums,) if isinstance(argnums, int) else argnums or ():
        if not -len(args) <= number < len(args):
            raise ValueError(
                f"`argnums` holds {number}, but `f` is called with {len(args)} arguments "
                f"beside the mask, from 0 on"
            )
        whole = [
            x
            for x in map(jnp.result_type, jax.tree.leaves(args[number]))
            if not jnp.issubdtype(x, jnp.floating)
        ]
        if whole:
            raise TypeError(
                f"`argnums` holds {number}, but that argument holds {whole[0]}; give it as "
                f"floating-point numbers"
            )


def known_of(
    signature: Any, drawing: core.ClosedJaxpr, averaging: core.ClosedJaxpr, out: Any, many: int
) -> Known:
    """Return what is known of a loop, from the programs of one chunk of `many` samples.

    Raises:
        TypeError: when the result is complex.
    """
    leaves = jax.tree.leaves(out)
    if any(jnp.issubdtype(leaf.dtype, jnp.complexfloating) for leaf in leaves):
        raise TypeError(
            "`f` returns complex numbers; return their real and imaginary parts as arrays of "
            "their own"
        )
    return Known(
        signature,
        one=max(1, _bytes_of_one(drawing, many) + _bytes_of_one(averaging, many)),
        out=out,
        size=sum(math.prod(leaf.shape) for leaf in leaves),
        row=sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves),
        waits=any(eqn.primitive.name in _LAPACK for eqn in equations(averaging.jaxpr)),
    )


def _bytes_of_one(program: core.ClosedJaxpr, many: int) -> int:
    """Add up the sizes of all intermediate values for one sample of so many.

    That is an upper bound on what is alive at once.
    """
    sizes = [
        math.prod(v.aval.shape)
        * (v.aval.dtype.itemsize if hasattr(v.aval.dtype, "itemsize") else 8)
        for eqn in program.jaxpr.eqns
        for v in eqn.outvars
        if hasattr(v.aval, "shape") and math.prod(v.aval.shape) % many == 0
    ]
    return sum(sizes) // many
