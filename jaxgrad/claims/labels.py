"""Discrete inputs, such as labels: which they are, and the values at which a claim is proved.

An identity of functions of real numbers holds at points in general position, and a discrete domain
has none: a proof for all real y says nothing of ``y == 1``, and a label that is drawn once is but
one of many. So a claim is proved at every value of its discrete inputs, where these can be listed.
Where they cannot, a proof for all real values holds for the discrete ones as well if both sides are
smooth in them (`is_smooth`); a proof at some values refutes, and confirms nothing.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.claims import shapes
from jaxgrad.claims.derivation import Derivation
from jaxgrad.claims.domains import DISCRETE, count, decode, kind
from jaxgrad.jaxprs.programs import CALLS
from jaxgrad.jaxprs.traced import TracedOnce

MOST = 256
"""The most values that are listed."""
ENTRIES = 2**14
"""The most entries that the inputs may have over all values that are listed."""
SOME = 16
"""So many values are drawn where they cannot be listed."""
EQUAL = 64
"""Where a cell has up to so many values, all cells take each of them together."""
LOOKS = 64
"""The most draws that decide whether a function draws an input from a few values."""
ENOUGH = 128
"""Entries that are enough to decide that."""
ALONE = 8
"""A domain has few values if at most one entry in so many has a value that no other has."""

SMOOTH = frozenset(
    "add add_any sub mul neg dot_general conv_general_dilated exp exp2 expm1 logistic tanh sin "
    "cos sinh cosh erf square one_minus_square polynomial stop_gradient "
    "reduce_sum cumsum broadcast_in_dim reshape transpose squeeze expand_dims concatenate pad "
    "slice rev copy".split()
)
"""Operations that are smooth in all their operands, at all real numbers."""


@dataclass(frozen=True)
class Values:
    """Values of a claim's discrete inputs.

    Attributes:
        stacked: {input name: its values, stacked along a first axis}.
        every: whether there are no others.
        words: what they are, such as "each of the 8 values of y".
    """

    stacked: dict[str, Any]
    every: bool
    words: str

    def fill(self, function: Callable[..., Any]) -> TracedOnce:
        """Return a function of the inputs at each of the values, stacked.

        Values of these inputs that it is given are ignored.
        """

        def filled(inputs: dict[str, Any], *more: Any) -> Any:
            return jax.vmap(lambda some: function({**inputs, **some}, *more))(
                jax.tree.map(jnp.asarray, self.stacked)
            )

        return TracedOnce(filled)


def discrete_inputs(derivation: Derivation, sizes: Mapping[str, int], seed: int = 0) -> set[str]:
    """Return the names of the discrete inputs, by their domains or by what a function draws.

    >>> import jaxgrad as jg
    >>> claim = jg.Derivation(
    ...     name="c",
    ...     loss=lambda x, y: (x * y).sum(),
    ...     gradient=lambda x, y: {"x": y},
    ...     shapes={"x": "n", "y": "n"},
    ...     domains={"y": lambda key, shape: jax.random.rademacher(key, shape, float)},
    ... )
    >>> discrete_inputs(claim, {"n": 3})
    {'y'}
    """
    named = {name for name, domain in derivation.domains.items() if kind(domain) in DISCRETE}
    drawn = [name for name, domain in derivation.domains.items() if callable(domain)]
    if not drawn:
        return named
    looks: list[dict[str, Any]] = []
    while len(looks) < LOOKS and (
        not looks or len(looks) * min(map(_entries, map(looks[0].get, drawn))) < ENOUGH
    ):
        looks.append(derivation.drawn([seed, 1, len(looks)], sizes))
    return named | {
        name
        for name in drawn
        if has_few_values([leaf for look in looks for leaf in jax.tree.leaves(look[name])])
    }


def _entries(tree: Any) -> int:
    return sum(np.size(leaf) for leaf in jax.tree.leaves(tree))


def has_few_values(leaves: list[np.ndarray]) -> bool:
    """Say whether arrays hold whole numbers, or hardly a value that comes but once.

    >>> (
    ...     has_few_values([np.array([0.5, 0.25, 0.5]), np.array([0.25, 0.5, 0.5])]),
    ...     has_few_values([np.array([0.1, 0.2, 0.3])]),
    ... )
    (True, False)
    """
    if any(not jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        return True
    entries = np.concatenate([leaf.ravel() for leaf in leaves])
    alone = np.sum(np.unique(entries, return_counts=True)[1] == 1)
    return bool(np.all(entries == np.round(entries)) or alone * ALONE <= len(entries))


def values(
    derivation: Derivation, sizes: Mapping[str, int], names: set[str], entries: int, seed: int = 0
) -> Values:
    """Return all values of the inputs `names`, or some where there are too many to list.

    Args:
        derivation: the claim.
        sizes: its sizes.
        names: inputs with discrete domains.
        entries: of all inputs together.
        seed: chooses those that are drawn.
    """
    order = [name for name in derivation.input_names if name in names]
    named = f"{', '.join(order[:-1])} and {order[-1]}" if len(order) > 1 else order[0]
    cells = {name: _cells(derivation, sizes, name) for name in order}
    known = [found for *_, counts in cells.values() for found in counts]
    total = math.prod(each**many for each, many in filter(None, known))
    most = min(MOST, ENTRIES // max(entries, 1))
    if None in known or total > most:
        some = [derivation.drawn([seed, 2, i], sizes, special=i % 2 == 1) for i in range(SOME)]
        some += [
            {**some[i % SOME], **swept}
            for i, swept in enumerate(sweep(derivation, sizes, names)[: max(most - SOME, 0)])
        ]
        stacked = {
            name: jax.tree.map(lambda *x: np.stack(x), *(draw[name] for draw in some))
            for name in order
        }
        return Values(stacked, False, f"{len(some)} values of {named}")
    digits = np.stack(
        np.unravel_index(np.arange(total), [each for each, many in known for _ in range(many)]),
        axis=1,
    )
    stacked, begin = {}, 0
    for name, (tree, forms, counts) in cells.items():
        arrays = []
        for form, (_, many) in zip(forms, counts, strict=True):
            arrays.append(decode(derivation.domains[name], digits[:, begin : begin + many], form))
            begin += many
        stacked[name] = jax.tree.unflatten(tree, arrays)
    return Values(stacked, True, f"each of the {total} values of {named}")


def _cells(
    derivation: Derivation, sizes: Mapping[str, int], name: str
) -> tuple[Any, list[tuple[int, ...]], list[Any]]:
    """Return an input's tree structure, the shapes of its arrays, and the `count` of each."""
    texts, tree = jax.tree.flatten(derivation.shapes[name])
    forms = [shapes.evaluate(text, sizes, name) for text in texts]
    return tree, forms, [count(derivation.domains[name], form, sizes) for form in forms]


def sweep(
    derivation: Derivation, sizes: Mapping[str, int], names: Collection[str]
) -> list[dict[str, Any]]:
    """Return values of the inputs `names` such that each cell takes each of its values.

    Where a cell has few, all cells of an array have the same one, once each; where it has many, the
    cells share them.

    >>> import jaxgrad as jg
    >>> claim = jg.Derivation(
    ...     name="c",
    ...     loss=lambda x, k: x[k].sum(),
    ...     gradient=lambda x, k: {"x": x},
    ...     shapes={"x": "n", "k": "m"},
    ...     domains={"k": "index n"},
    ... )
    >>> (
    ...     [draw["k"].tolist() for draw in sweep(claim, {"n": 3, "m": 2}, ["k"])],
    ...     len(sweep(claim, {"n": 300, "m": 2}, ["k"])),
    ... )
    ([[0, 0], [1, 1], [2, 2]], 150)
    """
    columns = {}
    for name in names:
        tree, forms, counts = _cells(derivation, sizes, name)
        if None not in counts:
            digits = [_digits(*found) for found in counts]
            columns[name] = (
                tree,
                [
                    decode(derivation.domains[name], d, form)
                    for d, form in zip(digits, forms, strict=True)
                ],
            )
    rows = max((len(array) for _, each in columns.values() for array in each), default=0)
    return [
        {
            name: jax.tree.unflatten(tree, [a[i % len(a)] for a in each])
            for name, (tree, each) in columns.items()
        }
        for i in range(rows)
    ]


def _digits(values: int, cells: int) -> np.ndarray:
    if values <= EQUAL:
        return np.repeat(np.arange(values)[:, None], cells, axis=1)
    rows = -(-values // cells)
    return np.arange(rows * cells).reshape(rows, cells) % values


def is_smooth(jaxpr: core.Jaxpr, inputs: list[bool]) -> bool:
    """Say whether only smooth operations act on the marked inputs and on what follows from them.

    >>> is_smooth(jax.make_jaxpr(lambda x, y: jnp.abs(x) * y)(1.0, 2.0).jaxpr, [False, True])
    True
    >>> is_smooth(
    ...     jax.make_jaxpr(lambda x, y: jnp.where(y == 1, x, 0.0))(1.0, 2.0).jaxpr, [False, True]
    ... )
    False
    """
    return not any(any(marked) for marked in _unsmooth(jaxpr, [[mark] for mark in inputs]))


def branches_on(jaxpr: core.Jaxpr, inputs: list[bool]) -> bool:
    """Say whether an operation that is not smooth acts on what follows from marked inputs alone.

    >>> branches_on(
    ...     jax.make_jaxpr(lambda x, y: jnp.where(y == 1, x, 0.0))(1.0, 2.0).jaxpr, [False, True]
    ... )
    True
    >>> branches_on(jax.make_jaxpr(lambda x, y: jnp.abs(x * y))(1.0, 2.0).jaxpr, [False, True])
    False
    """
    return any(
        mark and not other
        for mark, other in _unsmooth(jaxpr, [[mark, not mark] for mark in inputs])
    )


def _unsmooth(jaxpr: core.Jaxpr, inputs: list[list[bool]]) -> list[list[bool]]:
    """Return from which kinds of inputs each operand of an operation that is not smooth follows."""
    return _followed(jaxpr, inputs)[1]


def _followed(
    jaxpr: core.Jaxpr, inputs: list[list[bool]]
) -> tuple[list[list[bool]], list[list[bool]]]:
    """Return from which kinds of inputs each output follows, and each operand of `_unsmooth`."""
    none = [False] * len(inputs[0]) if inputs else []
    kinds, unsmooth = dict(zip(jaxpr.invars, inputs, strict=True)), []
    for eqn in jaxpr.eqns:
        operands = [
            none if isinstance(atom, core.Literal) else kinds.get(atom, none) for atom in eqn.invars
        ]
        inner = eqn.params.get(CALLS.get(eqn.primitive.name, ""))
        inner = getattr(inner, "jaxpr", inner)
        if inner is not None and len(inner.invars) == len(operands):
            outputs, more = _followed(inner, operands)
            unsmooth += more
        else:
            outputs = [[any(kind) for kind in zip(*operands, strict=True)] or none] * len(
                eqn.outvars
            )
            if eqn.primitive.name not in SMOOTH and not _is_smooth_here(eqn):
                unsmooth += operands
        kinds.update(zip(eqn.outvars, outputs, strict=True))
    return [
        none if isinstance(atom, core.Literal) else kinds.get(atom, none) for atom in jaxpr.outvars
    ], unsmooth


def _is_smooth_here(eqn: core.JaxprEqn) -> bool:
    """Of operations that are smooth at times: whole powers, and conversions between real types."""
    if eqn.primitive.name == "integer_pow":
        return eqn.params["y"] >= 0
    if eqn.primitive.name != "convert_element_type":
        return False
    both = [getattr(var.aval, "dtype", bool) for var in (eqn.invars[0], eqn.outvars[0])]
    return all(jnp.issubdtype(dtype, jnp.floating) for dtype in both)
