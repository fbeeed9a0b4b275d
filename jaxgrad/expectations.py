"""Exact expectation of a function over a random mask.

E f(M) = Σ_k P(M = M_k) f(M_k), a sum over the support of the mask's distribution.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxgrad.masks import Mask


def expectation(f: Callable[..., Any], mask: Mask, shape: Sequence[int]) -> Callable[..., Any]:
    """Return the function of f's other arguments that is the exact expectation of f over the mask.

    E f = Σ_k P(M_k) f(M_k)

    Args:
        f: takes a draw as the keyword `mask`, of shape `shape`, and any positional arguments; returns a pytree of arrays.
        mask: distribution of the mask.
        shape: shape of a draw.

    Returns:
        A function of f's positional arguments, which composes with grad, jvp, vmap and jit, in the mask's probabilities too.

    Raises:
        ValueError: when the support is too large to be listed.

    >>> from jaxgrad import masks
    >>> float(expectation(lambda x, mask: (mask * x).sum() ** 2, masks.Bernoulli(0.5), (2,))(1.0))
    1.5
    """

    def expected(*args: Any) -> Any:
        draws, probabilities = mask.support(shape)

        def term(draw_and_probability: Any) -> Any:
            draw, probability = draw_and_probability
            return jax.tree.map(lambda y: probability * y, f(*args, mask=draw))

        terms = jax.lax.map(term, (draws, probabilities), batch_size=min(len(draws), 256))
        return jax.tree.map(lambda y: jnp.sum(y, axis=0), terms)

    return expected
