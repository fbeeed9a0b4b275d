"""Sums of squares of what is linear in a mask's features, by Gram matrices.

A squared error of a linear last layer is Σ (Z A + C)², where Z (r rows of k features) depends on the mask, and A (k × q) and C do
not. With a constant Z₀, D = Z − Z₀ and R = Z₀ A + C,

    Σ (Z A + C)² = Σ D ∘ (D G) + 2 Σ D ∘ (R Aᵀ) + Σ R²      G = A Aᵀ
    half its gradient:  in Z   D G + R Aᵀ        in A   (DᵀD) A + (Σ D)ᵀ R + Z₀ᵀ (…)

so that over c samples only D G and DᵀD are products that touch them, in place of Z A and its two transposes. With what is
computed once a chunk that takes 2 c r k² + 3 k² q + 3 r k q multiplications for 3 c r k q, and it is done where they are half as
many: D has to be formed and summed up, which eats smaller gains. Z₀ is Z at some draw of the mask: then every term is of the
size of the error that is squared, and no digits cancel that the plain sum would have kept. A is scaled to entries of order 1,
and D by as much the other way, so that the range of the type is not left where the plain sum does not leave it. Rounding
differs otherwise: whoever needs a bound on it must measure it on the rewritten program.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

TOGETHER = 64
"""So many samples are taken to share what is computed once; a constant, so that the program does not depend on the chunk's size."""

_EXPONENTS = {"float32": (np.int32, 0x7F800000), "float64": (np.int64, 0x7FF0000000000000)}
"""Integers as wide as a type, and the bits of its exponent."""


@dataclass(frozen=True)
class Residual:
    """A product not yet taken (`jaxgrad.association`) plus an array that does not depend on the mask, or the negative of the sum."""

    product: Any
    offset: Any
    sign: int = 1

    def take(self) -> Any:
        """Compute it."""
        value = self.product.take() + self.offset
        return value if self.sign > 0 else -value


@dataclass(frozen=True)
class Square:
    """The square of a residual, times a number."""

    residual: Residual
    scale: Any = None

    def take(self) -> Any:
        """Compute it."""
        value = jnp.square(self.residual.take())
        return value if self.scale is None else self.scale * value

    def sums_up(self, axes: Sequence[int]) -> bool:
        """Say whether its sum over these axes can be taken by Gram matrices, and is cheaper so."""
        product = self.residual.product
        _, columns = self._places()
        rows = math.prod(product.moving.shape[i] for i in product.free[0])
        width = math.prod(product.fixed.shape[i] for i in product.free[1])
        features = math.prod(product.fixed.shape[i] for i in product.contracted[1])
        cost = 2 * TOGETHER * rows * features**2 + 3 * features**2 * width + 3 * rows * features * width
        plain = 3 * TOGETHER * rows * features * width
        return set(columns) <= set(axes) and cost < plain / 2 and str(product.moving.dtype) in _EXPONENTS

    def features(self) -> Any:
        """Return Z, of shape (*rows, k)."""
        product = self.residual.product
        rows, _ = product.free
        arranged = product.moving.transpose(*rows, *product.contracted[0])
        return arranged.reshape(*arranged.shape[: len(rows)], -1)

    def summed(self, axes: Sequence[int], reference: Any) -> Any:
        """Return its sum over these axes; `reference` is `features()` at some draw of the mask."""
        product, offset = self.residual.product, self.residual.offset
        rows, columns = self._places()
        z, z0, a = self.features(), jax.lax.stop_gradient(reference), self._matrix()
        c = jnp.broadcast_to(offset, self.shape).transpose(*rows, *columns).reshape(*z.shape[:-1], -1)

        def dot(x: Any, y: Any, axis: int) -> Any:
            return jax.lax.dot_general(
                x, y, (((x.ndim - 1,), (axis,)), ((), ())),
                precision=product.params["precision"], preferred_element_type=product.params["preferred_element_type"],
            )  # fmt: skip

        r = dot(z0, a, 0) + c
        unit = _power_of_two(a)
        a = a / unit
        d = (z - z0) * unit
        still = jax.lax.stop_gradient(d)
        fixed = jax.lax.stop_gradient(a)
        gram = 2 * dot(a, fixed, 1) - dot(fixed, fixed, 1)  # A Aᵀ; what is pulled back to it, DᵀD, is symmetric, so one product will do
        moved = dot(still, gram, 0)  # D G, differentiated in G alone: in D it is known already, as 2 D G
        terms = still * moved + 2 * (d - still) * jax.lax.stop_gradient(moved) + 2 * d * dot(r, a, 1)
        each = jnp.sum(terms, axis=-1) + jnp.sum(jnp.square(r), axis=-1)
        total = jnp.sum(each, axis=tuple(i for i, place in enumerate(rows) if place in axes))
        return total if self.scale is None else self.scale * total

    def _places(self) -> tuple[list[int], list[int]]:
        """Return which axes of the result are rows, and which are columns."""
        rows, columns = (len(part) for part in self.residual.product.free)
        if self.residual.product.moving_first:
            return [*range(rows)], [*range(rows, rows + columns)]
        return [*range(columns, columns + rows)], [*range(columns)]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the residual."""
        product = self.residual.product
        rows = [product.moving.shape[i] for i in product.free[0]]
        columns = [product.fixed.shape[i] for i in product.free[1]]
        return (*rows, *columns) if product.moving_first else (*columns, *rows)

    def _matrix(self) -> Any:
        product = self.residual.product
        count = len(product.contracted[1])
        arranged = product.fixed.transpose(*product.contracted[1], *product.free[1])
        return arranged.reshape(math.prod(arranged.shape[:count]), -1)


def _power_of_two(a: Any) -> Any:
    """Return the power of two below the largest entry, or 1 where that is 0, subnormal or not finite."""
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(a)), initial=0.0)
    integer, exponent = _EXPONENTS[str(a.dtype)]
    bits = jax.lax.bitcast_convert_type(largest, integer) & np.array(exponent, integer)
    power = jax.lax.bitcast_convert_type(bits, a.dtype)
    return jnp.where((power > 0) & jnp.isfinite(power), power, 1.0).astype(a.dtype)
