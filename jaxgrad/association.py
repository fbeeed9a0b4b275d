"""Products with what does not depend on a mask, put together before the masks come in.

A linear layer after a linear layer multiplies every masked sample twice, (X W₁ᵀ) W₂ᵀ. Since a product of matrices is
associative, X (W₁ᵀ W₂ᵀ) is the same, and there the samples are multiplied once, and their gradients once instead of three
times. Of c samples of r rows, with X (c r × k), W₁ᵀ (k × l) and W₂ᵀ (l × q), that is cheaper when

    k l q + c r k q  <  c r (k l + l q)

which is the choice that dynamic programming makes for a chain of three matrices (Godbole 1973). It holds in exact
arithmetic; rounding differs, so whoever needs a bound on it must measure it on the associated program.

Where such a product ends in a sum of squares, as of a squared error, that sum is taken by `jaxgrad.squares`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.arrays import dtype_of
from jaxgrad.programs import equations
from jaxgrad.squares import Residual, Square

SAMPLES = 16
"""So many samples are taken to share one product; a constant, so that the program does not depend on the chunk's size."""


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
        return [i for i in range(self.moving.ndim) if i not in moving], [i for i in range(self.fixed.ndim) if i not in fixed]

    def take(self) -> Any:
        """Take the product."""
        moving, fixed = self.contracted
        if self.moving_first:
            return self._dot(self.moving, self.fixed, moving, fixed)
        return self._dot(self.fixed, self.moving, fixed, moving)

    def times(self, other: Any, mine: Sequence[int], others: Sequence[int], first: bool, params: dict[str, Any]) -> "_Product | None":
        """Multiply with another fixed array; None unless that is cheaper done on the fixed side, and possible there."""
        if other.dtype != self.fixed.dtype or any(params[k] != self.params[k] for k in ("precision", "preferred_element_type")):
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
        if inner * between * outer + together * inner * outer >= together * between * (inner + outer):
            return None
        fixed = self._dot(self.fixed, other, [columns[i - begin] for i in mine], others)
        kept = sorted(self.contracted[1])
        contracted = self.contracted[0], tuple(kept.index(i) for i in self.contracted[1])
        return replace(self, fixed=fixed, contracted=contracted, moving_first=first)

    def _dot(self, a: Any, b: Any, axes_a: Sequence[int], axes_b: Sequence[int]) -> Any:
        return jax.lax.dot_general(
            a, b, ((tuple(axes_a), tuple(axes_b)), ((), ())),
            precision=self.params["precision"], preferred_element_type=self.params["preferred_element_type"],
        )  # fmt: skip


@dataclass(frozen=True)
class _Moving:
    """A value that depends on the mask."""

    value: Any


_LAZY = (_Product, Residual, Square)
"""Values that depend on the mask and are not computed yet."""


def associated(f: Callable[..., Any], args: tuple[Any, ...], draw: Any, reference: Any = None) -> Any:
    """Return ``f(*args, mask=draw)``, with the products that do not depend on the draw taken first.

    Args:
        f: a function of arrays.
        args: its positional arguments.
        draw: its argument `mask`; traced, as under `jax.vmap`, it is one sample.
        reference: another draw, the same for all samples, about which sums of squares are taken; without it they stay as they are.

    >>> w1, w2 = jax.numpy.ones((2, 3)), jax.numpy.ones((3, 2))
    >>> f = lambda w1, w2, mask: mask @ w1 @ w2
    >>> product = jax.make_jaxpr(lambda *args: associated(f, args[:2], args[2]))(w1, w2, jax.numpy.ones((9, 2)))
    >>> [str(v.aval.shape) for eqn in product.eqns for v in eqn.outvars]
    ['(2, 2)', '(9, 2)']
    """
    program, shape = jax.make_jaxpr(lambda args, draw: f(*args, mask=draw), return_shape=True)(args, draw)
    names = [eqn.primitive.name for eqn in equations(program.jaxpr)]
    squared = reference is not None and "dot_general" in names and "reduce_sum" in names and not _SQUARES.isdisjoint(names)
    if names.count("dot_general") < 2 and not squared:
        return f(*args, mask=draw)
    features: list[Any] = []

    def run(draw: Any, sums: Callable[[Square, Sequence[int]], Any] | None) -> list[Any]:
        return _run(program.jaxpr, program.consts, [*jax.tree.leaves(args), _Moving(draw)], sums)

    def gather(square: Square, axes: Sequence[int]) -> Any:
        features.append(square.features())
        return jnp.zeros([size for i, size in enumerate(square.shape) if i not in axes], features[-1].dtype)

    def count(draw: Any) -> None:
        run(draw, gather)
        features[:] = [None] * len(features)

    if squared:
        jax.eval_shape(count, draw)
        if features:  # there are such sums; what they are taken about is computed here, and no more than that
            features.clear()
            run(reference, gather)
    at = iter(features)
    outputs = run(draw, (lambda square, axes: square.summed(axes, next(at))) if features else None)
    return jax.tree.unflatten(jax.tree.structure(shape), [_plain(value) for value in outputs])


def _run(
    jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Any], sums: Callable[[Square, Sequence[int]], Any] | None
) -> list[Any]:
    """Evaluate, with `sums` to take the sums of squares if that is not None."""
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        if eqn.primitive.name in ("jit", "pjit"):
            inner = eqn.params["jaxpr"]
            outputs = _run(inner.jaxpr, inner.consts, operands, sums)
        elif eqn.primitive.name == "dot_general" and (product := _product(eqn, *operands)) is not None:
            outputs = [product]
        elif sums is not None and (lazy := _residual(eqn, *operands)) is not None:
            outputs = [lazy]
        elif sums is not None and eqn.primitive.name == "reduce_sum" and _sums_up(eqn, *operands):
            outputs = [_Moving(sums(operands[0], eqn.params["axes"]))]
        else:
            outputs = apply(jaxpr, eqn, [_plain(x) for x in operands])
            if any(isinstance(x, (_Moving, *_LAZY)) for x in operands):
                outputs = [_Moving(x) for x in outputs]
        env.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def is_spread(eqn: core.JaxprEqn) -> bool:
    """Say whether an axis of an operation's result is spread over devices."""
    sharding = eqn.params.get("out_sharding")
    return sharding is not None and any(axis is not None for axis in sharding.spec)


def apply(jaxpr: core.Jaxpr, eqn: core.JaxprEqn, operands: Sequence[Any]) -> Sequence[Any]:
    """Compute one equation of a program."""
    variables = [atom for atom in eqn.invars if isinstance(atom, core.Var)]
    values = [x for atom, x in zip(eqn.invars, operands, strict=True) if isinstance(atom, core.Var)]
    debug = jaxpr.debug_info.with_unknown_names()
    alone = jaxpr.replace(constvars=[], invars=variables, outvars=eqn.outvars, eqns=[eqn], debug_info=debug)
    return core.jaxpr_as_fun(core.ClosedJaxpr(alone, ()))(*values)


_SQUARES = frozenset(("square", "integer_pow", "mul"))


def _residual(eqn: core.JaxprEqn, a: Any = None, b: Any = None, *_: Any) -> Residual | Square | None:
    """Return a product plus or minus what is fixed, or the square of such, not yet computed; None where it is something else."""
    name, lazy = eqn.primitive.name, (_Product, Residual)
    moving = tuple(isinstance(x, (_Moving, *_LAZY)) for x in (a, b))
    if len({dtype_of(v) for v in (*eqn.invars, *eqn.outvars)}) > 1:
        return None
    if name == "square" or (name == "integer_pow" and eqn.params["y"] == 2) or (name == "mul" and a is b):
        if isinstance(a, _Product):
            return Square(Residual(a, jnp.zeros((), dtype_of(eqn.outvars[0]))))
        return Square(a) if isinstance(a, Residual) else None
    if moving == (False, False) or all(moving):
        return None
    x, fixed = (a, b) if moving[0] else (b, a)
    if name in ("add", "sub") and isinstance(x, lazy):
        residual = x if isinstance(x, Residual) else Residual(x, None)
        sign = -residual.sign if name == "sub" and moving[1] else residual.sign
        offset = fixed if sign * (-1 if name == "sub" and moving[0] else 1) > 0 else -fixed
        return Residual(residual.product, offset if residual.offset is None else residual.offset + offset, sign)
    if name in ("mul", "div") and isinstance(x, Square) and np.ndim(fixed) == 0 and (name == "mul" or moving[0]):
        factor = fixed if name == "mul" else 1 / fixed
        return Square(x.residual, factor if x.scale is None else factor * x.scale)
    return None


def _sums_up(eqn: core.JaxprEqn, operand: Any) -> bool:
    return isinstance(operand, Square) and operand.sums_up(eqn.params["axes"])


def _product(eqn: core.JaxprEqn, a: Any, b: Any) -> _Product | None:
    """Return the product of a moving and a fixed array, not yet taken."""
    (axes_a, axes_b), batch = eqn.params["dimension_numbers"]
    moving = isinstance(a, (_Moving, *_LAZY)), isinstance(b, (_Moving, *_LAZY))
    if any(batch) or all(moving) or not any(moving) or is_spread(eqn):
        return None
    if len({dtype_of(v) for v in (*eqn.invars, *eqn.outvars)}) > 1:  # what changes its type is rounded, or wraps, where it stands
        return None
    x, fixed, axes_x, axes_fixed = (a, b, axes_a, axes_b) if moving[0] else (b, a, axes_b, axes_a)
    if isinstance(x, _Product) and (together := x.times(fixed, axes_x, axes_fixed, first=moving[0], params=eqn.params)) is not None:
        return together
    return _Product(_plain(x), fixed, (tuple(axes_x), tuple(axes_fixed)), moving[0], eqn.params)


def _plain(value: Any) -> Any:
    if isinstance(value, _LAZY):
        return value.take()
    return value.value if isinstance(value, _Moving) else value
