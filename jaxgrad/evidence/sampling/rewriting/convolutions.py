"""Convolutions whose sums are long, written as products.

The gradient in a kernel is a convolution of the input with the cotangent, which is as large as the
whole image. At each of the few places p that the kernel has,

    out[n, o, p] = Σ_{c, k} x[n, c, s p + d k] w[o, c, k]      (strides s, dilation d, x padded)

is a sum over all samples and pixels of a chunk. XLA's convolution on the CPU cuts such a sum into
as many pieces as there are threads. A product can be kept from that
(`jaxgrad.evidence.sampling.rewriting.products`), so each place becomes one, and is quicker so.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxgrad.jaxprs.primitives import dtype_of, shape_of
from jaxgrad.jaxprs.programs import equations
from jaxgrad.jaxprs.rewrite import apply, evaluate

PLACES = 128
"""The most places of a result that are written as a product each."""
SHORT = 128
"""Terms of a sum up to which no way of cutting it changes its order."""


def are_long(jaxpr: core.Jaxpr) -> bool:
    """Say whether a program has convolutions that are better written as products."""
    return any(_is_long(eqn) for eqn in equations(jaxpr))


def as_products(jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """Evaluate a program with its long convolutions as products.

    >>> def loss(kernel, x):
    ...     return jnp.sum(jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME") ** 2)
    >>> gradient = jax.make_jaxpr(jax.grad(loss))(jnp.ones((2, 1, 3, 3)), jnp.ones((4, 1, 9, 9)))
    >>> written = jax.make_jaxpr(lambda *args: as_products(gradient.jaxpr, gradient.consts, args))(
    ...     *gradient.in_avals
    ... )
    >>> [
    ...     sum(eqn.primitive.name == "dot_general" for eqn in equations(p.jaxpr))
    ...     for p in (gradient, written)
    ... ]
    [0, 9]
    """

    def step(jaxpr: core.Jaxpr, eqn: core.JaxprEqn, operands: Sequence[Any]) -> Sequence[Any]:
        return [_as_products(eqn, *operands)] if _is_long(eqn) else apply(jaxpr, eqn, operands)

    return evaluate(jaxpr, consts, args, step)


def _is_long(eqn: core.JaxprEqn) -> bool:
    if eqn.primitive.name != "conv_general_dilated":
        return False
    params = eqn.params
    numbers, kernel, out = (
        params["dimension_numbers"],
        shape_of(eqn.invars[1]),
        shape_of(eqn.outvars[0]),
    )
    terms = math.prod(kernel) // max(1, kernel[numbers.rhs_spec[0]])
    places = math.prod(out[i] for i in numbers.out_spec[2:])
    alone = params["feature_group_count"] == params["batch_group_count"] == 1
    return (
        alone
        and terms > SHORT
        and 0 < places <= PLACES
        and jnp.issubdtype(dtype_of(eqn.outvars[0]), jnp.inexact)
    )


def _as_products(eqn: core.JaxprEqn, x: Any, w: Any) -> Any:
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    x, w = x.transpose(numbers.lhs_spec), w.transpose(numbers.rhs_spec)
    holes = [dilation - 1 for dilation in params["lhs_dilation"]]
    padding = [
        (low, high, hole) for (low, high), hole in zip(params["padding"], holes, strict=True)
    ]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), *padding])
    size, dilation, strides = w.shape[2:], params["rhs_dilation"], params["window_strides"]
    shape = [shape_of(eqn.outvars[0])[i] for i in numbers.out_spec]
    w = w.reshape(w.shape[0], -1)

    def at(place: Sequence[int]) -> Any:
        begin = [p * stride for p, stride in zip(place, strides, strict=True)]
        end = [b + (k - 1) * d + 1 for b, k, d in zip(begin, size, dilation, strict=True)]
        window = jax.lax.slice(x, [0, 0, *begin], [*x.shape[:2], *end], [1, 1, *dilation]).reshape(
            x.shape[0], -1
        )
        return jax.lax.dot_general(
            window, w, (((1,), (1,)), ((), ())),
            precision=params["precision"], preferred_element_type=params["preferred_element_type"],
        )  # fmt: skip

    rows = jnp.stack([at(place) for place in itertools.product(*map(range, shape[2:]))], axis=2)
    back = sorted(range(len(shape)), key=lambda i: numbers.out_spec[i])
    return rows.reshape(shape).transpose(back)
