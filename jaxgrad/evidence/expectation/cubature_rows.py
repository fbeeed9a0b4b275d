"""Exact expectations of polynomials in which rows of the mask meet, from a row's support.

Rows are independent, so what `jaxgrad.evidence.expectation.cubature` says of coins holds of them:
for f of degree d,

    E f = Σ_{|T| ≤ q} ∏_{r∈T} (E_r − δ_r) f,   q = ⌊d/2⌋,

where E_r averages over row r and δ_r sets it to its mean. Terms that hold the deviation of some row
once vanish, and a polynomial of degree d cannot hold those of more than q rows twice.

Source: the anchored decomposition, F. Kuo et al., *Math. Comp.* 79 (2010) 953–966, with the mean as
anchor.
"""

import math
from collections.abc import Sequence
from itertools import combinations, product

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxgrad.evidence.expectation.cubature import Rule
from jaxgrad.masks import Mask


def row_sets_count(count: int, rows: int, together: int) -> int:
    """Return the number of masks of `row_sets`, for `count` rows that are each one of `rows`.

    >>> row_sets_count(3, 5, 1)
    16
    """
    return sum(math.comb(count, t) * rows**t for t in range(together + 1))


def row_sets(mask: Mask, shape: Sequence[int], together: int) -> Rule:
    """Return masks in which at most `together` rows come from the support, the others the mean.

    >>> from jaxgrad.masks import Spans
    >>> row_sets(Spans(2), (3, 6), together=1).weights.shape
    (16,)
    """
    count = math.prod(shape[:-1])
    rows, probabilities = mask.support(shape[-1:])
    mean, places, sides, scales = probabilities @ rows, [], [], []
    for t in range(together + 1):
        factor = sum((-1) ** i * math.comb(count - t, i) for i in range(together - t + 1))
        sets = np.array(list(combinations(range(count), t)), int).reshape(math.comb(count, t), t)
        choices = np.array(list(product(range(len(rows)), repeat=t)), int).reshape(
            len(rows) ** t, t
        )
        fill = np.full((len(sets) * len(choices), together - t), -1)  # −1: no further row
        places.append(np.concatenate([np.repeat(sets, len(choices), axis=0), fill], axis=1))
        sides.append(
            np.concatenate([np.tile(choices, (len(sets), 1)), np.zeros_like(fill)], axis=1)
        )
        scales.append(np.full(len(fill), float(factor)))
    place, side, scale = map(np.concatenate, (places, sides, scales))
    weights = jnp.asarray(scale, mean.dtype) * jnp.prod(
        jnp.where(place >= 0, probabilities[side], 1.0), axis=1
    )

    def mask_at(place: Array, side: Array) -> Array:
        made = jnp.broadcast_to(mean, (count, shape[-1]))
        for t in range(together):
            made = jnp.where(jnp.arange(count)[:, None] == place[t], rows[side[t]], made)
        return made.reshape(shape)

    return Rule(weights, (place, side), mask_at)
