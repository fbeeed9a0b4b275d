"""Exact expectations as weighted sums over masks: E f(M) = Σ_i w_i f(M_i) for a class of f.

Only values of f are used, no derivatives, so neither a wrong differentiation rule nor
`stop_gradient` inside f can bend the result; and the weights are polynomials in the mask's
probabilities, so that it differentiates in them. The classes:

    enumeration  every f. M_i are all masks, w_i their probabilities.
    rows         f a sum over rows of functions of one row. The rows are alike, so M_i repeats the
                 i-th ROW of the support in all rows, and w_i is that row's probability.
    coins        f of degree d in entries that depend on independent numbers t_k. The Taylor terms
                 about the mean that hold some t_k − E t_k once vanish, so that at most q = ⌊d/2⌋
                 numbers leave their mean together. With q = 1, E f = f(μ) + Σ_k (v_k ∂_k²f/2 +
                 κ_k ∂_k³f/6), v_k and κ_k the second and third central moment of t_k; and always
                 E f = Σ_{|T| ≤ q} ∏_{k∈T} (E_k − δ_k) f, where E_k averages over t_k and δ_k sets
                 it to its mean.
    moments      f of degree 2, any mask: E f = f(μ) + ½ Σ_j D²f(μ)[e_j, C_j] with C the covariance
                 of a row.

Derivatives of a polynomial are differences of its values, at any step L: L²∂²f = f(μ+L) − 2f(μ) +
f(μ−L), exactly. The step is a power of 2 near half the root of how many there are; then all weights
together are of the order 1, and nothing cancels.

`enumeration`, `rows` and `coins` do not use the mean and the second moment that a mask states, on
which closed forms are built: they are independent evidence of a closed form, and `moments` is
evidence of it given these. Where f is a sum over rows, `coins` and `moments` move all rows at once,
so that the number of masks does not depend on the number of rows; otherwise they move one row (of
`moments`) or one number (of `coins`) at a time.

Source for `coins`: the anchored decomposition, F. Kuo et al., *Math. Comp.* 79 (2010) 953–966, with
the mean as anchor.
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


def _step(count: int) -> float:
    """Return the power of 2 nearest to √count/2."""
    return 2.0 ** round(math.log2(count) / 2 - 1)


def moments_count(shape: Sequence[int], separable: bool) -> int:
    """Return the number of masks of `moments`."""
    return 1 + 4 * shape[-1] * (1 if separable else math.prod(shape[:-1]))


def moments(mask: Mask, shape: Sequence[int], separable: bool) -> Rule:
    """Return masks for a quadratic function, from the mean and the covariance of a row.

    D²f[u, v] = ¼ (D²f[u+v, u+v] − D²f[u−v, u−v]) with u = e_j/2 and v = 2C_j, which are of one size
    where C_jj is that of a coin.

    >>> from jaxgrad.masks import FixedCount
    >>> moments(FixedCount(2), (5, 3), separable=True).weights.shape
    (13,)
    """
    n, count = shape[-1], 1 if separable else math.prod(shape[:-1])
    mean = mask.mean(n)
    u, v = jnp.eye(n, dtype=mean.dtype) / 2, 2 * (mask.second_moment(n) - mean[:, None] * mean)
    step = _step(n * count)
    moves = step * jnp.concatenate([jnp.zeros((1, n), mean.dtype), u + v, -u - v, u - v, v - u])
    weights = np.concatenate([[1.0], np.tile(np.repeat([1, 1, -1, -1], n), count) / (8 * step**2)])
    which = np.concatenate([[0], np.repeat(np.arange(count), 4 * n)])
    picks = np.concatenate([[0], np.tile(np.arange(1, 4 * n + 1), count)])

    def mask_at(row: Array, pick: Array) -> Array:
        here = jnp.arange(count)[:, None] == row
        return _shaped(mean + jnp.where(here, moves[pick], 0.0), shape)

    return Rule(jnp.asarray(weights, mean.dtype), (which, picks), mask_at)


def _shaped(rows: Array, shape: Sequence[int]) -> Array:
    """Return rows as a mask, one row repeated where there is but one."""
    return rows.reshape(shape) if rows.size == math.prod(shape) else jnp.broadcast_to(rows, shape)


def coins_count(factors: Factors, shape: Sequence[int], degree: int, separable: bool) -> int:
    """Return the number of masks of `coins`."""
    numbers = len(factors.members) * (1 if separable else math.prod(shape[:-1]))
    if degree <= 3:
        return 1 + 2 * (degree - 1) * numbers
    return sum(math.comb(numbers, t) * len(factors.values) ** t for t in range(degree // 2 + 1))


def coins(factors: Factors, shape: Sequence[int], degree: int, separable: bool) -> Rule:
    """Return masks for a polynomial of degree 2 or more in independent numbers.

    >>> from jaxgrad.masks import Bernoulli
    >>> coins(Bernoulli(0.5).factors(3, 2), (5, 3), degree=2, separable=True).weights.shape
    (7,)
    """
    count = 1 if separable else math.prod(shape[:-1])
    if degree <= 3:
        return _one_by_one(factors, shape, degree, count)
    return _together(factors, shape, min(degree // 2, len(factors.members) * count), count)


def _one_by_one(factors: Factors, shape: Sequence[int], degree: int, count: int) -> Rule:
    """Return the rule for q = 1: steps ±L, and ±2L for the third derivative, of one number."""
    members, values, weights = factors
    size, center = len(members), jnp.sum(weights * values, axis=1)
    mean = center[np.argmax(members, axis=0)]
    step = _step(size * count)
    variance, skewness = (
        jnp.sum(weights * (values - center[:, None]) ** d, axis=1) for d in (2, 3)
    )
    second, third = variance / (2 * step**2), skewness / (12 * step**3)
    if degree == 2:
        steps, every = [1, -1], [second, second]
    else:
        steps, every = [1, -1, 2, -2], [second - 2 * third, second + 2 * third, third, -third]
    first = 1 - 2 * count * jnp.sum(second)
    moved = np.concatenate(
        [[-1], np.tile(np.arange(size * count), len(steps))]
    )  # −1: nothing is moved
    move = step * np.concatenate([[0], np.repeat(steps, size * count)])

    def mask_at(moved: Array, move: Array) -> Array:
        here = (jnp.arange(count)[:, None] == moved // size) & jnp.asarray(members)[moved % size]
        return _shaped(mean + jnp.where(here, move, 0.0).astype(mean.dtype), shape)

    return Rule(
        jnp.concatenate([first[None], *(jnp.tile(w, count) for w in every)]), (moved, move), mask_at
    )


def _together(factors: Factors, shape: Sequence[int], together: int, count: int) -> Rule:
    """Return the rule for any q: numbers of a set T take their values, others their mean.

    Such a mask has the weight Σ_{i ≤ q−|T|} (−1)^i C(N−|T|, i) ∏_{k∈T} w_k: of N numbers, i more
    could be in a larger set.
    """
    members, values, weights = factors
    size, sides = len(members), len(values)
    numbers = size * count
    moved, side, scale = [], [], []
    for t in range(together + 1):
        factor = sum((-1) ** i * math.comb(numbers - t, i) for i in range(together - t + 1))
        sets = np.array(list(combinations(range(numbers), t)), int).reshape(
            math.comb(numbers, t), t
        )
        choices = np.array(list(product(range(sides), repeat=t)), int).reshape(sides**t, t)
        fill = np.full((len(sets) * len(choices), together - t), -1)  # −1: nothing more is moved
        moved.append(np.concatenate([np.repeat(sets, len(choices), axis=0), fill], axis=1))
        side.append(np.concatenate([np.tile(choices, (len(sets), 1)), np.zeros_like(fill)], axis=1))
        scale.append(np.full(len(fill), float(factor)))
    moved, side, scale = map(np.concatenate, (moved, side, scale))
    every_weight = jnp.where(moved >= 0, weights[moved % size, side], 1.0)
    mean = jnp.sum(weights * values, axis=1)[np.argmax(members, axis=0)]

    def mask_at(moved: Array, side: Array) -> Array:
        made = jnp.broadcast_to(mean, (count, shape[-1]))
        for t in range(together):
            here = (jnp.arange(count)[:, None] == moved[t] // size) & jnp.asarray(members)[
                moved[t] % size
            ]
            made = jnp.where(here, jnp.asarray(values, mean.dtype)[side[t]], made)
        return _shaped(made, shape)

    return Rule(
        jnp.asarray(scale, mean.dtype) * jnp.prod(every_weight, axis=1), (moved, side), mask_at
    )
