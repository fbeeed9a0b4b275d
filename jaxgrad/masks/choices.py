"""Masks whose rows are one of finitely many, all equally likely.

`FixedCount` keeps exactly k of n entries; `Spans` drops, or keeps, one run of neighbouring entries.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgrad.masks.bernoulli import Bernoulli
from jaxgrad.masks.distribution import (
    SUPPORT_LIMIT,
    check_integer,
    check_key,
    check_shape,
    every_row,
    registered,
)
from jaxgrad.masks.noise import interpolatory_weights
from jaxgrad.masks.threefry import words

RANKED = 32
"""In rows of up to so many entries the k smallest words are found by counting, in longer ones by
their bits.
"""


@registered
@dataclass(frozen=True)
class FixedCount:
    """Exactly k of the n entries of a row are kept, every such choice equally likely.

    μ_j = k/n;  S_jk = k(k−1)/(n(n−1)) for j ≠ k, S_jj = k/n. Entries of a row are negatively
    correlated.

    Args:
        count: number k of entries kept in each row, 0 ≤ k ≤ n.

    Raises:
        ValueError: when `count` is negative or exceeds a size.
        TypeError: when `count` is no integer.

    >>> float(FixedCount(1).second_moment(2)[0, 1])
    0.0
    """

    count: int = field(metadata={"static": True})

    def __post_init__(self) -> None:
        """Refuse what is no count."""
        object.__setattr__(self, "count", check_integer("count", self.count, 0))

    def _count(self, n: int) -> int:
        if self.count > check_integer("n", n, 1):
            raise ValueError(
                f"`count` {self.count} exceeds the {n} columns of the mask; keep at most {n}"
            )
        return self.count

    def sample(self, key: Array, shape: Sequence[int]) -> Float[Array, "..."]:
        """Draw a mask of `shape`: kept are the entries with the k smallest of n random words."""
        shape = check_shape(shape)
        check_key(key)
        return smallest(words(key, shape), self._count(shape[-1])).astype(float)

    def mean(self, n: int) -> Float[Array, " n"]:
        """Return E[m], the vector of k/n."""
        return jnp.full((n,), self._count(n) / n, dtype=float)

    def second_moment(self, n: int) -> Float[Array, "n n"]:
        """Return E[m mᵀ]: k/n on the diagonal, k(k−1)/(n(n−1)) elsewhere."""
        k = self._count(n)
        return jnp.where(np.eye(n, dtype=bool), k / n, k * (k - 1) / (n * max(n - 1, 1))).astype(
            float
        )

    def support(self, shape: Sequence[int]) -> tuple[Float[Array, "k ..."], Float[Array, " k"]]:
        """List all C(n, k) choices in each row, equally likely."""
        shape = check_shape(shape)
        n, choices = shape[-1], self.support_size(shape[-1])
        if choices * n > SUPPORT_LIMIT:
            raise ValueError(
                f"`shape` {shape} has C({n}, {self.count}) masks a row, too many to list; use a "
                f"smaller shape"
            )
        rows = np.zeros((choices, n))
        kept = np.array(list(combinations(range(n), self.count)), dtype=int).reshape(
            choices, self.count
        )
        np.put_along_axis(rows, kept, 1, axis=-1)
        return every_row(rows, jnp.full((choices,), 1 / choices, dtype=float), shape)

    def support_size(self, n: int) -> int:
        """Return the number of different rows."""
        return math.comb(n, self._count(n))

    def mixture(self, n: int, degree: int) -> list[tuple[float, Bernoulli]]:
        """Return coins at evenly spaced ratios with signed weights; none up to degree 2.

        There the moments are enough.

        The product of t different entries has the expectation k(k−1)…(k−t+1)/(n(n−1)…(n−t+1)) here
        and θᵗ under coins that keep with probability θ, so weights that give these numbers as the
        moments of θ make polynomials agree.
        """
        if degree <= 2:
            return []
        k, last = self._count(n), min(degree, n)
        falling = [Fraction(math.perm(k, t), math.perm(n, t)) for t in range(last + 1)]
        weights = interpolatory_weights(
            range(last + 1), [last**t * e for t, e in enumerate(falling)]
        )
        return [(float(w), Bernoulli(i / last)) for i, w in enumerate(weights)]


def smallest(words: Array, k: int) -> Array:
    """Say which entries of each row are its k smallest; of equal ones the first are.

    Rows are not sorted, which is slow. In short rows each entry counts those before it, n²
    comparisons. In long ones the k-th smallest word is found bit by bit, as the largest t that
    fewer than k words are below, 32 n comparisons.
    """
    n = words.shape[-1]
    if n <= RANKED:
        one, other, index = words[..., :, None], words[..., None, :], np.arange(n)
        before = (other < one) | ((other == one) & (index < index[:, None]))
        return jnp.sum(before, axis=-1, dtype=jnp.uint8) < k

    def below(t: Array) -> Array:
        return jnp.sum(words < t, axis=-1, keepdims=True, dtype=jnp.int32)

    def refine(i: Array, t: Array) -> Array:
        higher = t | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
        return jnp.where(below(higher) < k, higher, t)

    t = jax.lax.fori_loop(0, 32, refine, jnp.zeros((*words.shape[:-1], 1), jnp.uint32))
    tied = words == t
    return (words < t) | (tied & (jnp.cumsum(tied, axis=-1, dtype=jnp.int32) <= k - below(t)))


@registered
@dataclass(frozen=True)
class Spans:
    """One span of `length` neighbouring entries is dropped in each row, at any place alike.

    With N_j and N_jk how many of the n−k+1 places of the span cover entry j, or both j and k, and N
    the number of places: in the span E s_j = N_j/N and E s_j s_k = N_jk/N. With `keep` the mask is
    s, else 1 − s, so μ_j = 1 − N_j/N and S_jk = 1 − (N_j + N_k − N_jk)/N.

    Args:
        length: number k of entries in the span, 1 ≤ k ≤ n.
        keep: whether the span is what is kept, and the rest is dropped.

    Raises:
        ValueError: when `length` is not positive or exceeds a size.
        TypeError: when `length` is no integer, or `keep` is no bool.

    Source: spans as masks: Joshi et al. 2020, SpanBERT, arXiv 1907.10529.

    >>> Spans(2).mean(4).round(2).tolist()
    [0.6..., 0.3..., 0.3..., 0.6...]
    """

    length: int = field(metadata={"static": True})
    keep: bool = field(default=False, metadata={"static": True})

    def __post_init__(self) -> None:
        """Refuse what is no length."""
        object.__setattr__(self, "length", check_integer("length", self.length, 1))
        if not isinstance(self.keep, bool):
            raise TypeError(f"`keep` must be True or False, but is {self.keep!r}")

    def support_size(self, n: int) -> int:
        """Return the number n−k+1 of places, each of which gives another row."""
        if self.length > check_integer("n", n, 1):
            raise ValueError(
                f"`length` {self.length} exceeds the {n} columns of the mask; use a span of at "
                f"most {n}"
            )
        return n - self.length + 1

    def sample(self, key: Array, shape: Sequence[int]) -> Float[Array, "..."]:
        """Draw a mask of `shape` with ``key``."""
        *lead, n = check_shape(shape)
        check_key(key)
        start = jax.random.randint(key, (*lead, 1), 0, self.support_size(n))
        entry = jnp.arange(n)
        return (((entry >= start) & (entry < start + self.length)) == self.keep).astype(float)

    def _places(self, n: int) -> np.ndarray:
        """Return N_jk, the number of places of the span that cover both entries."""
        last = (
            self.support_size(n) - 1
        )  # a span covers j from the places j−k+1 … j, as far as they are places
        j, k = np.indices((n, n))
        return np.maximum(
            0,
            np.minimum(np.minimum(j, k), last)
            - np.maximum(np.maximum(j, k) - self.length + 1, 0)
            + 1,
        )

    def mean(self, n: int) -> Float[Array, " n"]:
        """Return E[m], by counting places."""
        inside = np.diagonal(self._places(n)) / self.support_size(n)
        return jnp.asarray(inside if self.keep else 1 - inside, float)

    def second_moment(self, n: int) -> Float[Array, "n n"]:
        """Return E[m mᵀ], by counting places."""
        both = self._places(n) / self.support_size(n)
        one = np.diagonal(both)
        return jnp.asarray(both if self.keep else 1 - one[:, None] - one + both, float)

    def support(self, shape: Sequence[int]) -> tuple[Float[Array, "k ..."], Float[Array, " k"]]:
        """List all n−k+1 places of the span in each row, equally likely."""
        shape = check_shape(shape)
        places = self.support_size(shape[-1])
        away = np.arange(shape[-1]) - np.arange(places)[:, None]
        rows = (((away >= 0) & (away < self.length)) == self.keep).astype(float)
        return every_row(rows, jnp.full((places,), 1 / places, dtype=float), shape)
