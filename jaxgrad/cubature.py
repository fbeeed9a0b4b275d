"""Exact expectations as weighted sums: E f(M) = Σ_i w_i f(M_i) for every f of a class, with a few masks M_i.

Only values of f are used, no derivatives, so neither a wrong differentiation rule nor `stop_gradient` inside f can bend the
result; and the weights are polynomials in the mask's probabilities, so that it differentiates in them. The classes:

    enumeration   every f. M_i are all masks, w_i their probabilities.
    rows          f a sum over rows of functions of one row. The rows are alike, so M_i repeats the i-th ROW that the
                  distribution can give, in all rows, and w_i is that row's probability.
    coins         f of degree d in entries that hang on independent numbers t_k. The Taylor terms about the mean that hold
                  some t_k − E t_k once vanish, so that at most q = ⌊d/2⌋ numbers leave their mean together:
                  E f = Σ_{|T| ≤ q} ∏_{k∈T} (E_k − δ_k) f, where E_k averages over t_k and δ_k sets it to its mean.
    moments       f of degree 2, any mask: with C the covariance of a row,
                  E f = f(μ) + ½ Σ_j D²f(μ)[e_j, C_j], and D²f[u, v] = f(μ+u+v) − f(μ+u) − f(μ+v) + f(μ).

Where f is a sum over rows, `coins` and `moments` move all rows at once, so that the number of masks does not depend on the
number of rows; otherwise they move one row (of `moments`) or one number (of `coins`) at a time.

Source for `coins`: the anchored decomposition, F. Kuo et al., *Math. Comp.* 79 (2010) 953–966, with the mean as anchor.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgrad.masks import Factors, Mask


class Rule(NamedTuple):
    """A weighted sum over masks.

    Attributes:
        weights: one for each mask, Σ_i w_i = 1.
        places: arrays with one entry for each mask along their first axis.
        mask_at: makes a mask of one entry of each.
    """

    weights: Float[Array, " masks"]
    places: tuple[Any, ...]
    mask_at: Callable[..., Array]


def enumeration(mask: Mask, shape: Sequence[int]) -> Rule:
    """Return all masks.

    >>> from jaxgrad.masks import Bernoulli
    >>> enumeration(Bernoulli(0.5), (2, 2)).weights.shape
    (16,)
    """
    draws, probabilities = mask.support(shape)
    return Rule(probabilities, (draws,), lambda draw: draw)


def rows(mask: Mask, shape: Sequence[int]) -> Rule:
    """Return the masks whose rows are all the same.

    >>> from jaxgrad.masks import Bernoulli
    >>> rows(Bernoulli(0.5), (2, 2)).weights.shape
    (4,)
    """
    draws, probabilities = mask.support(shape[-1:])
    return Rule(probabilities, (draws,), lambda row: jnp.broadcast_to(row, shape))


def at_the_mean(mask: Mask, shape: Sequence[int]) -> Rule:
    """Return the mean alone, for what is of degree 1."""
    mean = jnp.broadcast_to(mask.mean(shape[-1]), shape)
    return Rule(jnp.ones(1), (mean[None],), lambda mean: mean)


def moments_count(shape: Sequence[int], separable: bool) -> int:
    """Return the number of masks of `moments`."""
    return 1 + 3 * shape[-1] * (1 if separable else math.prod(shape[:-1]))


def moments(mask: Mask, shape: Sequence[int], separable: bool) -> Rule:
    """Return masks that find the expectation of a quadratic function from the mean and the covariance of a row.

    >>> from jaxgrad.masks import FixedCount
    >>> moments(FixedCount(2), (5, 3), separable=True).weights.shape
    (10,)
    """
    n, count = shape[-1], math.prod(shape[:-1])
    mean = mask.mean(n)
    covariance = mask.second_moment(n) - mean[:, None] * mean
    unit = jnp.eye(n, dtype=mean.dtype)
    moves = jnp.concatenate([unit + covariance, unit, covariance])
    signs = np.repeat([0.5, -0.5, -0.5], n)
    everywhere = jnp.zeros((1, n), mean.dtype)
    if separable:
        weights = jnp.asarray([1 + n / 2, *signs], mean.dtype)
        places = (jnp.concatenate([everywhere, moves]),)
        return Rule(weights, places, lambda move: jnp.broadcast_to(mean + move, shape))
    weights = jnp.asarray([1 + count * n / 2, *np.tile(signs, count)], mean.dtype)
    which = np.concatenate([[0], np.repeat(np.arange(count), 3 * n)])
    picks = np.concatenate([[0], np.tile(np.arange(1, 3 * n + 1), count)])
    every_move = jnp.concatenate([everywhere, moves])

    def mask_at(row: Array, pick: Array) -> Array:
        here = jnp.arange(count)[:, None] == row
        return (mean + jnp.where(here, every_move[pick], 0.0)).reshape(shape)

    return Rule(weights, (which, picks), mask_at)


def coins_count(factors: Factors, shape: Sequence[int], degree: int, separable: bool) -> int:
    """Return the number of masks of `coins`."""
    numbers = len(factors.members) * (1 if separable else math.prod(shape[:-1]))
    return sum(math.comb(numbers, t) * len(factors.values) ** t for t in range(degree // 2 + 1))


def coins(mask: Mask, factors: Factors, shape: Sequence[int], degree: int, separable: bool) -> Rule:
    """Return masks that find the expectation of a polynomial in independent numbers.

    A mask in which the numbers of a set T are moved and the others stay at their mean has the weight
    Σ_{i ≤ q−|T|} (−1)^i C(N−|T|, i) ∏_{k∈T} w_k: of N numbers, i more could have stayed in a larger set.

    >>> from jaxgrad.masks import Bernoulli
    >>> coins(Bernoulli(0.5), Bernoulli(0.5).factors(3, 2), (5, 3), degree=2, separable=True).weights.shape
    (7,)
    """
    members, values, weights = factors
    size, together, sides = len(members), degree // 2, len(values)
    count = 1 if separable else math.prod(shape[:-1])
    numbers = size * count
    moved, side, scale = [], [], []
    for t in range(together + 1):
        factor = sum((-1) ** i * math.comb(numbers - t, i) for i in range(together - t + 1))
        sets = np.array(list(combinations(range(numbers), t)), int).reshape(math.comb(numbers, t), t)
        choices = np.array(list(product(range(sides), repeat=t)), int).reshape(sides**t, t)
        fill = np.full((len(sets) * len(choices), together - t), -1)  # −1: nothing more is moved
        moved.append(np.concatenate([np.repeat(sets, len(choices), axis=0), fill], axis=1))
        side.append(np.concatenate([np.tile(choices, (len(sets), 1)), np.zeros_like(fill)], axis=1))
        scale.append(np.full(len(fill), float(factor)))
    moved, side, scale = map(np.concatenate, (moved, side, scale))
    every_weight = jnp.where(moved >= 0, weights[moved % size, side], 1.0)
    mean = mask.mean(shape[-1])

    def mask_at(moved: Array, side: Array) -> Array:
        made = jnp.broadcast_to(mean, (count, shape[-1]))
        for t in range(together):
            here = (jnp.arange(count)[:, None] == moved[t] // size) & jnp.asarray(members)[moved[t] % size]
            made = jnp.where(here, jnp.asarray(values, mean.dtype)[side[t]], made)
        return jnp.broadcast_to(made.reshape((1,) * (len(shape) - 1) + shape[-1:] if separable else shape), shape)

    return Rule(jnp.asarray(scale, mean.dtype) * jnp.prod(every_weight, axis=1), (moved, side), mask_at)
