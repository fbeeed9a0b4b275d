"""Products with what does not depend on a mask, put together before the masks come in.

A linear layer after a linear layer multiplies every masked sample twice, (X W₁ᵀ) W₂ᵀ. Since a
product of matrices is associative, X (W₁ᵀ W₂ᵀ) is the same, and there the samples are multiplied
once, and their gradients once instead of three times. Of c samples of r rows, with X (c r × k), W₁ᵀ
(k × l) and W₂ᵀ (l × q), that is cheaper when

    k l q + c r k q  <  c r (k l + l q)

which is the choice that dynamic programming makes for a chain of three matrices (Godbole 1973). It
holds in exact arithmetic; rounding differs, so whoever needs a bound on it must measure it on the
associated program.

W₁ᵀ W₂ᵀ may leave the range of the type where X W₁ᵀ does not. So each row of W₁ᵀ is divided by a
power of two near its largest entry, and that column of X multiplied by it: then X is of the size of
the terms of X W₁ᵀ, and W₁ᵀ W₂ᵀ of that of W₂ᵀ. Types of 16 bits, whose range is that of everyday
numbers, are left alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.primitives import dtype_of
from jaxgrad.jaxprs.programs import equations
from jaxgrad.jaxprs.rewrite import apply, evaluate

SAMPLES = 16
"""So many samples are taken to share one product; a constant, so that the program does not depend
on the chunk's size.
"""

_EXPONENTS = {"float32": (np.int32, 0x7F800000), "float64": (np.int64, 0x7FF0000000000000)}
"""Integers as wide as a type whose products are put together, and the bits of its exponent."""


@dataclass(frozen=True)
class _Product:
    """A product not yet taken: `moving`, which depends on the mask, with `fixed`, which does not.

    Attributes:
        moving: an array.
        fixed: an array.
        contracted: the axes of `moving` that are summed over, and those of `fixed`.
        moving_first: whether the free axes of `moving` come first in the result.
        params: of the `dot_general` it stands for.
    """

    moving: Any
    fixed: Any
    contracted: tuple[tuple[int, ...], tuple[int, ...]]
    moving_first: bool
    params: dict[str, Any]

    @property
    def free(self) -> tuple[list[int], list[int]]:
        """The axes that stay, of `moving` and of `fixed`."""
        moving, fixed = self.contracted
        return [i for i in range(self.moving.ndim) if i not in moving], [
            i for i in range(self.fixed.ndim) if i not in fixed
        ]

    def take(self) -> Any:
        """Take the product."""
        moving, fixed = self.contracted
        if self.moving_first:
            return self._dot(self.moving, self.fixed, moving, fixed)
        return self._dot(self.fixed, self.moving, fixed, moving)

    def times(
        self,
        other: Any,
        mine: Sequence[int],
        others: Sequence[int],
        first: bool,
        params: dict[str, Any],
    ) -> "_Product | None":
        """Multiply with another fixed array; None unless the fixed side can, and at less cost."""
        if other.dtype != self.fixed.dtype or any(
            params[k] != self.params[k] for k in ("precision", "preferred_element_type")
        ):
            return None
        if str(other.dtype) not in _EXPONENTS:
            return None
        rows, columns = self.free
        begin = len(rows) if self.moving_first else 0
        if sorted(mine) != list(range(begin, begin + len(columns))):
            return None
        inner, between, outer = (
            math.prod(self.fixed.shape[i] for i in self.contracted[1]),
            math.prod(self.fixed.shape[i] for i in columns),
            math.prod(size for i, size in enumerate(other.shape) if i not in others),
        )
        together = SAMPLES * math.prod(self.moving.shape[i] for i in rows)
        if inner * between * outer + together * inner * outer >= together * between * (
            inner + outer
        ):
            return None
        units = _powers_of_two(self.fixed, columns)
        fixed = self._dot(self.fixed / units, other, [columns[i - begin] for i in mine], others)
        kept = sorted(self.contracted[1])
        contracted = self.contracted[0], tuple(kept.index(i) for i in self.contracted[1])
        pairs = sorted(zip(*self.contracted, strict=True))
        units = units.transpose(*(i for _, i in pairs), *columns).reshape(
            [self.moving.shape[i] for i, _ in pairs]
        )
        moving = self.moving * jax.lax.broadcast_in_dim(
            units, self.moving.shape, [i for i, _ in pairs]
        )
        return replace(self, moving=moving, fixed=fixed, contracted=contracted, moving_first=first)

    def _dot(self, a: Any, b: Any, axes_a: Sequence[int], axes_b: Sequence[int]) -> Any:
        return jax.lax.dot_general(
            a,
            b,
            ((tuple(axes_a), tuple(axes_b)), ((), ())),
            precision=self.params["precision"],
            preferred_element_type=self.params["preferred_element_type"],
        )


@dataclass(frozen=True)
class _Moving:
    """A value that depends on the mask."""

    value: Any


def associated(f: Callable[..., Any], args: tuple[Any, ...], draw: Any) -> Any:
    """Return ``f(*args, mask=draw)``, with the products that do not depend on the draw taken first.

    Args:
        f: a function of arrays.
        args: its positional arguments.
        draw: its argument `mask`; traced, as under `jax.vmap`, it is one sample.

    >>> w1, w2 = jax.numpy.ones((2, 3)), jax.numpy.ones((3, 2))
    >>> f = lambda w1, w2, mask: mask @ w1 @ w2
    >>> program = jax.make_jaxpr(lambda *args: associated(f, args[:2], args[2]))(
    ...     w1, w2, jax.numpy.ones((9, 2))
    ... )
    >>> [
    ...     str(eqn.outvars[0].aval.shape)
    ...     for eqn in program.eqns
    ...     if eqn.primitive.name == "dot_general"
    ... ]
    ['(2, 2)', '(9, 2)']
    """
    program, shape = jax.make_jaxpr(lambda args, draw: f(*args, mask=draw), return_shape=True)(
        args, draw
    )
    if sum(eqn.primitive.name == "dot_general" for eqn in equations(program.jaxpr)) < 2:
        return f(*args, mask=draw)
    outputs = evaluate(
        program.jaxpr, program.consts, [*jax.tree.leaves(args), _Moving(draw)], _step
    )
    return jax.tree.unflatten(jax.tree.structure(shape), [_plain(value) for value in outputs])


def _step(jaxpr: core.Jaxpr, eqn: core.JaxprEqn, operands: Sequence[Any]) -> Sequence[Any]:
    if eqn.primitive.name == "dot_general" and (product := _product(eqn, *operands)) is not None:
        return [product]
    outputs = apply(jaxpr, eqn, [_plain(x) for x in operands])
    return (
        [_Moving(x) for x in outputs]
        if any(isinstance(x, (_Moving, _Product)) for x in operands)
        else outputs
    )


def _powers_of_two(a: Any, axes: Sequence[int]) -> Any:
    """Return the powers of two below the largest entries along some axes.

    They are 1 where these are 0, subnormal or not finite.
    """
    largest = jnp.max(
        jnp.abs(jax.lax.stop_gradient(a)), axis=tuple(axes), keepdims=True, initial=0.0
    )
    integer, exponent = _EXPONENTS[str(a.dtype)]
    bits = jax.lax.bitcast_convert_type(largest, integer) & np.array(exponent, integer)
    powers = jax.lax.bitcast_convert_type(bits, a.dtype)
    return jnp.where((powers > 0) & jnp.isfinite(powers), powers, 1.0).astype(a.dtype)


def is_spread(eqn: core.JaxprEqn) -> bool:
    """Say whether an axis of an operation's result is spread over devices."""
    sharding = eqn.params.get("out_sharding")
    return sharding is not None and any(axis is not None for axis in sharding.spec)


def _product(eqn: core.JaxprEqn, a: Any, b: Any) -> _Product | None:
    """Return the product of a moving and a fixed array, not yet taken."""
    (axes_a, axes_b), batch = eqn.params["dimension_numbers"]
    moving = isinstance(a, (_Moving, _Product)), isinstance(b, (_Moving, _Product))
    if any(batch) or all(moving) or not any(moving) or is_spread(eqn):
        return None
    if (
        len({dtype_of(v) for v in (*eqn.invars, *eqn.outvars)}) > 1
    ):  # what changes its type is rounded, or wraps, where it stands
        return None
    x, fixed, axes_x, axes_fixed = (a, b, axes_a, axes_b) if moving[0] else (b, a, axes_b, axes_a)
    if (
        isinstance(x, _Product)
        and (together := x.times(fixed, axes_x, axes_fixed, first=moving[0], params=eqn.params))
        is not None
    ):
        return together
    return _Product(_plain(x), fixed, (tuple(axes_x), tuple(axes_fixed)), moving[0], eqn.params)


def _plain(value: Any) -> Any:
    if isinstance(value, _Product):
        return value.take()
    return value.value if isinstance(value, _Moving) else value
