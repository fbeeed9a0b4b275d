"""The mean over one chunk of samples, by the plain program or by one rewritten for speed."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxgrad.evidence.sampling.association import associated
from jaxgrad.evidence.sampling.known import Argnums
from jaxgrad.evidence.sampling.rewriting import (
    can_be_rewritten,
    chosen,
    is_same,
    names_of,
    rewritten,
)
from jaxgrad.jaxprs.traced import TracedOnce
from jaxgrad.masks import Mask
from jaxgrad.runtime.compiled import at_once


def _wide(dtype: Any) -> Any:
    """Return the type in which a mean is taken: float32 for types of fewer bits, else None."""
    return (
        jnp.float32 if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32 else None
    )


class ChunkMeans:
    """Means of a function, or of its gradient, over chunks of draws.

    Args:
        f: takes positional arguments and the draw as keyword `mask`.
        mask: distribution of the mask.
        shape: shape of a draw.
        argnums: None for the mean of f; else that of its gradient in these arguments.
    """

    def __init__(
        self, f: Callable[..., Any], mask: Mask, shape: tuple[int, ...], argnums: Argnums
    ) -> None:
        """Set up; nothing is traced yet."""
        self.mask, self.shape, self.argnums = mask, shape, argnums
        self.of_draw = TracedOnce(lambda args, draw: f(*args, mask=draw))
        quick = TracedOnce(lambda args, draw: associated(f, args, draw))
        self.plain = TracedOnce(functools.partial(self._mean, self.of_draw))
        self.associated = TracedOnce(functools.partial(self._mean, quick))

    def mean(
        self, key: Array, mask: Mask, args: tuple[Any, ...], chunk: int, *, quick: bool = False
    ) -> Any:
        """Return the mean over one chunk, of f or of its gradient; `quick`: as rewritten."""
        draws = mask.sample(key, (chunk, *self.shape))
        if not quick:
            return self.plain(args, draws)
        closed, out = self.associated.program(args, draws)
        leaves = rewritten(closed, chosen(closed), jax.tree.leaves((args, draws)))
        return jax.tree.unflatten(jax.tree.structure(out), leaves)

    def is_same(self, key: Array, args: tuple[Any, ...], chunk: int) -> bool:
        """Say whether both programs give the same on two samples of the first chunk."""

        def draw() -> Array:
            return self.mask.sample(jax.random.fold_in(key, 0), (chunk, *self.shape))

        whole = self.associated.program(args, jax.eval_shape(draw))[0]
        if not can_be_rewritten(whole):
            return False
        two = at_once(lambda: draw()[:2])
        choices, leaves = chosen(whole), jax.tree.leaves((args, two))
        closed = self.associated.program(args, two)[0]
        if names_of(closed) != names_of(whole):  # no rule of the one can be tried on the other
            return False
        quick = jax.make_jaxpr(lambda *leaves: rewritten(closed, choices, leaves))(*leaves)
        return is_same(self.plain.program(args, two)[0], quick, leaves[:-1], leaves[-1])

    def _mean(self, of_draw: Callable[..., Any], args: tuple[Any, ...], draws: Array) -> Any:
        def of_args(*args: Any) -> Any:
            values = jax.vmap(lambda draw: of_draw(args, draw))(draws)
            return jax.tree.map(lambda v: jnp.mean(v, axis=0, dtype=_wide(v.dtype)), values)

        return (
            of_args(*args)
            if self.argnums is None
            else jax.grad(of_args, argnums=self.argnums)(*args)
        )
