"""Programs whose large arrays lie in memory as their products take them, so that none is turned
over.

A gradient in a weight is a product δᵀ X whose sum runs over all samples of a chunk.
`jaxgrad.evidence.sampling.rewriting.products` takes its left factor row by row, δᵀ and not δ, and
to turn δ over takes about as long as the product itself. If instead every layer writes its features
one after the other, each for all samples, as Zᵀ = W Xᵀ with the weight on the left, then δᵀ is what
is there; of a right factor either order will do. So an array is kept with its axes in any order,
which operations on single entries, sums, reshapes and transpositions hand on, and a product chooses
its left factor:

    what does not depend on the samples                        where one factor depends on them
    what can be had without turning, the first one else        otherwise

What no rule is known of takes and returns arrays in the usual order. All of that is first done
without numbers, to count the entries that are turned; the program is changed only if they are
fewer.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jax.extend import core

from jaxgrad.evidence.sampling.rewriting.association import is_spread
from jaxgrad.evidence.sampling.rewriting.orders import Held, Lying, Made, Order, Tally, reshaped
from jaxgrad.jaxprs.primitives import shape_of
from jaxgrad.jaxprs.programs import CALLS
from jaxgrad.jaxprs.rewrite import apply

ENTRYWISE = frozenset(
    "abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp "
    "convert_element_type copy cos cosh digamma div eq erf "
    "erf_inv erfc exp exp2 expm1 floor ge gt integer_pow is_finite le lgamma log log1p logistic "
    "lt max min mul ne neg nextafter not or "
    "pow real imag reduce_precision rem round rsqrt select_n sign sin sinh sqrt square "
    "stop_gradient sub tan tanh xor".split()
)
"""Operations of which an entry of the result depends on the same entry of the operands alone."""

STEPS = 16
"""Operations that are put off until it is known in which order their result is wanted."""

_REDUCTIONS = frozenset(
    ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or")
)
_CALLS = CALLS.keys() - {"checkpoint"}


@dataclass
class Orienting:
    """Evaluates a program with its arrays held in any order.

    Attributes:
        product: takes the product that an equation tells of, of (rows, terms) with (terms, columns)
            or with (columns, terms).
        other: evaluates an equation whose operands are in the usual order.
        weights_first: whether what does not depend on the samples is made the left factor.
        tally: whether anything is computed, and what is turned over.
        products: products that were taken, by their factors.
        matrices: arrays that were reshaped, by themselves and their shapes.
    """

    product: Callable[..., Any]
    other: Callable[..., Sequence[Any]]
    weights_first: bool
    tally: Tally = field(default_factory=Tally)
    products: dict[Any, Any] = field(default_factory=dict)
    matrices: dict[Any, Any] = field(default_factory=dict)

    def lying(
        self, value: Any, shape: Sequence[int], moving: bool, order: Order | None = None
    ) -> Held:
        """Return an array in memory as one that can be had in any order."""
        return Lying(
            value,
            tuple(shape),
            moving,
            tuple(range(len(shape))) if order is None else order,
            self.tally,
        )

    def run(self, jaxpr: core.Jaxpr, consts: Sequence[Any], args: Sequence[Held]) -> list[Held]:
        """Return the results of a program."""
        env: dict[Any, Held] = dict(zip(jaxpr.invars, args, strict=True))
        env |= {
            var: self.lying(value, shape_of(var), False)
            for var, value in zip(jaxpr.constvars, consts, strict=True)
        }

        def read(atom: Any) -> Held:
            return (
                self.lying(atom.val, shape_of(atom), False)
                if isinstance(atom, core.Literal)
                else env[atom]
            )

        for eqn in jaxpr.eqns:
            operands = [read(atom) for atom in eqn.invars]
            env.update(zip(eqn.outvars, self._results(jaxpr, eqn, operands), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _results(
        self, jaxpr: core.Jaxpr, eqn: core.JaxprEqn, operands: Sequence[Held]
    ) -> Sequence[Held]:
        name = eqn.primitive.name
        inner, rule = eqn.params.get(CALLS[name]) if name in _CALLS else None, _RULES.get(name)
        if isinstance(inner, core.ClosedJaxpr) and len(inner.jaxpr.invars) == len(operands):
            return self.run(inner.jaxpr, inner.consts, operands)
        if rule is not None and (result := rule(self, jaxpr, eqn, *operands)) is not None:
            return [result]
        values = [None] * len(eqn.outvars)
        usual = [x.usual for x in operands]
        if not self.tally.dry:
            values = self.other(jaxpr, eqn, usual)
        moving = any(x.moving for x in operands)
        return [
            self.lying(value, shape_of(var), moving)
            for value, var in zip(values, eqn.outvars, strict=True)
        ]

    def _apply(
        self, jaxpr: core.Jaxpr, eqn: core.JaxprEqn, values: Sequence[Any], **params: Any
    ) -> Any:
        return (
            None
            if self.tally.dry
            else apply(jaxpr, eqn.replace(params=eqn.params | params) if params else eqn, values)[0]
        )

    def _put_off(
        self, make: Callable[[Order], Any], shape: tuple[int, ...], *operands: Held
    ) -> Held:
        """Return an array that is made where it is used, unless too many others wait within it."""
        steps, moving = (
            1 + max((x.steps for x in operands if isinstance(x, Made)), default=0),
            any(x.moving for x in operands),
        )
        if steps <= STEPS:
            return Made(make, shape, moving, steps)
        return self.lying(make(tuple(range(len(shape)))), shape, moving)

    def _entrywise(self, jaxpr: core.Jaxpr, eqn: core.JaxprEqn, *operands: Held) -> Held | None:
        shape = shape_of(eqn.outvars[0])
        if any(len(x.shape) not in (0, len(shape)) for x in operands):
            return None
        moving = any(x.moving for x in operands)

        def make(order: Order) -> Any:
            return self._apply(jaxpr, eqn, [x.get(order if x.shape else ()) for x in operands])

        lying = [x for x in operands if x.order is not None and (x.shape or not shape)]
        if not lying:
            return self._put_off(make, shape, *operands)
        order = max(lying, key=lambda x: (x.moving, math.prod(x.shape))).order
        assert order is not None
        return self.lying(make(order), shape, moving, order)

    def _spread(self, jaxpr: core.Jaxpr, eqn: core.JaxprEqn, x: Held, *rest: Held) -> Held | None:
        shape, axes = (
            shape_of(eqn.outvars[0]),
            [int(axis) for axis in eqn.params["broadcast_dimensions"]],
        )
        if rest:
            return None

        def make(order: Order) -> Any:
            small = x.get(tuple(axes.index(axis) for axis in order if axis in axes))
            places = tuple(place for place, axis in enumerate(order) if axis in axes)
            return self._apply(
                jaxpr,
                eqn,
                [small],
                shape=tuple(shape[axis] for axis in order),
                broadcast_dimensions=places,
            )

        return self._put_off(make, shape, x)

    def _reduced(self, jaxpr: core.Jaxpr, eqn: core.JaxprEqn, x: Held) -> Held:
        order, axes = (
            x.order or tuple(range(len(x.shape))),
            {int(axis) for axis in eqn.params["axes"]},
        )
        value = self._apply(
            jaxpr,
            eqn,
            [x.get(order)],
            axes=tuple(k for k, axis in enumerate(order) if axis in axes),
        )
        kept = [axis for axis in range(len(x.shape)) if axis not in axes]
        return self.lying(
            value,
            shape_of(eqn.outvars[0]),
            x.moving,
            tuple(kept.index(axis) for axis in order if axis in kept),
        )

    def _transposed(self, _: core.Jaxpr, eqn: core.JaxprEqn, x: Held) -> Held:
        axes = [int(axis) for axis in eqn.params["permutation"]]
        shape = shape_of(eqn.outvars[0])
        if x.order is None:
            return self._put_off(lambda order: x.get(tuple(axes[axis] for axis in order)), shape, x)
        return self.lying(
            x.get(x.order), shape, x.moving, tuple(axes.index(axis) for axis in x.order)
        )

    def _reshaped(self, jaxpr: core.Jaxpr, eqn: core.JaxprEqn, x: Held) -> Held | None:
        shape = shape_of(eqn.outvars[0])
        if (
            eqn.params["dimensions"] is not None
            or x.order is None
            or (order := reshaped(x.shape, shape, x.order)) is None
        ):
            return None
        value = self._apply(
            jaxpr, eqn, [x.get(x.order)], new_sizes=tuple(shape[axis] for axis in order)
        )
        return self.lying(value, shape, x.moving, order)

    def _squeezed(self, jaxpr: core.Jaxpr, eqn: core.JaxprEqn, x: Held) -> Held | None:
        gone = {int(axis) for axis in eqn.params["dimensions"]}
        if x.order is None:
            return None
        value = self._apply(
            jaxpr,
            eqn,
            [x.get(x.order)],
            dimensions=tuple(k for k, axis in enumerate(x.order) if axis in gone),
        )
        kept = [axis for axis in range(len(x.shape)) if axis not in gone]
        return self.lying(
            value,
            shape_of(eqn.outvars[0]),
            x.moving,
            tuple(kept.index(axis) for axis in x.order if axis in kept),
        )

    def _sliced(self, jaxpr: core.Jaxpr, eqn: core.JaxprEqn, x: Held) -> Held | None:
        order = x.order
        if order is None:
            return None
        names = ("start_indices", "limit_indices", "strides")
        params = {
            name: eqn.params[name] and tuple(eqn.params[name][axis] for axis in order)
            for name in names
        }
        return self.lying(
            self._apply(jaxpr, eqn, [x.get(order)], **params),
            shape_of(eqn.outvars[0]),
            x.moving,
            order,
        )

    def _product(self, _jaxpr: core.Jaxpr, eqn: core.JaxprEqn, a: Held, b: Held) -> Held | None:
        (axes_a, axes_b), (batch, _) = eqn.params["dimension_numbers"]
        if batch or is_spread(eqn):
            return None
        left, right = (
            _Factor(a, tuple(axes_a), 0),
            _Factor(b, tuple(axes_b), len(a.shape) - len(axes_a)),
        )
        if self.weights_first and (b.moving, not right.ready) < (a.moving, not left.ready):
            left, right = right, left
        last = right.ends_with_terms
        first, second = (
            self._matrix(*factor.matrix(left.pairs, terms_last=end))
            for factor, end in ((left, True), (right, last))
        )
        value = (
            None
            if self.tally.dry
            else self._once(eqn, first, second, last).reshape(left.sizes + right.sizes)
        )
        return self.lying(
            value, shape_of(eqn.outvars[0]), a.moving or b.moving, left.places + right.places
        )

    def _matrix(self, value: Any, shape: tuple[int, int]) -> Any:
        """Reshape an array, unless it has been reshaped so."""
        if value is None or value.shape == shape:
            return value
        if (id(value), shape) not in self.matrices:
            self.matrices[id(value), shape] = value, value.reshape(shape)
        return self.matrices[id(value), shape][-1]

    def _once(self, eqn: core.JaxprEqn, left: Any, right: Any, terms_last: bool) -> Any:
        """Take a product, unless it has been taken."""
        how = tuple(str(eqn.params[name]) for name in ("precision", "preferred_element_type"))
        known = id(left), id(right), terms_last, *how
        if known not in self.products:
            self.products[known] = left, right, self.product(eqn, left, right, terms_last)
        return self.products[known][-1]


@dataclass(frozen=True)
class _Factor:
    """A factor of a product: an array, its axes that are summed over, and the place of its first
    other axis in the result.
    """

    held: Held
    axes: Order
    begin: int

    @property
    def order(self) -> Order:
        """The axes as they lie, the free ones first where that is open."""
        usual = range(len(self.held.shape))
        return self.held.order or (*(axis for axis in usual if axis not in self.axes), *self.axes)

    @property
    def free(self) -> Order:
        """The axes that stay, as they lie."""
        return tuple(axis for axis in self.order if axis not in self.axes)

    @property
    def pairs(self) -> Order:
        """Numbers of the axes that are summed over, as they lie."""
        return tuple(self.axes.index(axis) for axis in self.order if axis in self.axes)

    @property
    def sizes(self) -> Order:
        """Lengths of the axes that stay."""
        return tuple(self.held.shape[axis] for axis in self.free)

    @property
    def places(self) -> Order:
        """Where the axes that stay are in the result."""
        usual = [axis for axis in range(len(self.held.shape)) if axis not in self.axes]
        return tuple(self.begin + usual.index(axis) for axis in self.free)

    @property
    def ready(self) -> bool:
        """Whether it can be the left factor as it lies."""
        return self.order[: len(self.free)] == self.free

    @property
    def ends_with_terms(self) -> bool:
        """Whether the last axis is summed over."""
        return bool(self.axes) and self.order[-1] in self.axes

    def matrix(self, pairs: Order, *, terms_last: bool) -> tuple[Any, tuple[int, int]]:
        """Return the array of its rows, or its columns, of terms, and the shape of that as a
        matrix.
        """
        summed = tuple(self.axes[i] for i in pairs)
        value = self.held.get(self.free + summed if terms_last else summed + self.free)
        many, terms = math.prod(self.sizes), math.prod(self.held.shape[axis] for axis in self.axes)
        return value, (many, terms) if terms_last else (terms, many)


_RULES: dict[str, Callable[..., Held | None]] = {
    **dict.fromkeys(ENTRYWISE, Orienting._entrywise),
    **dict.fromkeys(_REDUCTIONS, Orienting._reduced),
    "broadcast_in_dim": Orienting._spread,
    "dot_general": Orienting._product,
    "reshape": Orienting._reshaped,
    "slice": Orienting._sliced,
    "squeeze": Orienting._squeezed,
    "transpose": Orienting._transposed,
}
