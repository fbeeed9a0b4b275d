"""Changes of a block's equations that undo a difference in convention.

Each function looks at a block and yields attempts: which equations get another meaning, and how
that is said. Nothing here knows whether an attempt is right; that is measured.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.domain import location
from jaxgrad.jaxprs.primitives import dtype_of, shape_of
from jaxgrad.jaxprs.taps import bind
from jaxgrad.parity.blocks import Block, Substitutes


class Attempt(NamedTuple):
    """Equations with another meaning, and what that is in words."""

    substitutes: Substitutes
    words: str


class ModuleBlock(NamedTuple):
    """A block, and what torch's module has that it stands for.

    Attributes:
        block: the block.
        options: the module's plain options.
        vectors: parameters of one axis, of the module and of those within it, by their name in
            torch's state dict.
    """

    block: Block
    options: dict[str, Any]
    vectors: Mapping[str, np.ndarray]

    def each(self, *names: str) -> Iterator[tuple[int, core.JaxprEqn]]:
        """Yield the equations of some primitives, with their number."""
        for i, eqn in enumerate(self.block.equations):
            if eqn.primitive.name in names or (
                eqn.primitive.name in ("jit", "pjit") and eqn.params.get("name") in names
            ):
                yield i, eqn

    def literals(self, *names: str) -> Iterator[tuple[int, int, float]]:
        """Yield the plain real numbers among operands: equation, operand and value."""
        for i, eqn in self.each(*names) if names else enumerate(self.block.equations):
            for k, atom in enumerate(eqn.invars):
                if (
                    isinstance(atom, core.Literal)
                    and dtype_of(atom).kind == "f"
                    and not shape_of(atom)
                ):
                    yield i, k, float(atom.val)

    def producers(self) -> dict[Any, core.JaxprEqn]:
        """Return for each variable the equation that gives it."""
        return {v: eqn for eqn in self.block.equations for v in eqn.outvars}


def with_operand(
    k: int, change: Callable[[Any], Any]
) -> Callable[[core.JaxprEqn, Sequence[Any]], list[Any]]:
    """Run an equation with one operand changed."""
    return lambda eqn, xs: bind(eqn, [change(x) if i == k else x for i, x in enumerate(xs)])


def times(factor: float) -> Callable[[core.JaxprEqn, Sequence[Any]], list[Any]]:
    """Run an equation and multiply its results."""
    return lambda eqn, xs: [out * factor for out in bind(eqn, xs)]


def short(value: float) -> str:
    """Write a number."""
    return f"{value:.8g}"


def at(eqn: core.JaxprEqn) -> str:
    """Say in which line an equation stands, after a word; "" where that is unknown."""
    place = location(eqn)
    return "" if place == "an unknown line" else f" at {place.rpartition('/')[2]}"
