"""Masks of independent coins: an entry, or a group of entries, is kept with a probability.

Let entry j depend on coin c(j), which is 1 with probability p_c. Then μ_j = p_c(j). Since a coin is
its own square, S_jk = p_c(j) where c(j) = c(k), and p_c(j) p_c(k) otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgrad.masks.distribution import (
    Factors,
    check_integer,
    check_pair,
    check_probabilities,
    check_shape,
    every_outcome,
    every_row,
    number,
    registered,
    toss,
)


class _Coins:
    """What follows from `_coin_of`, the coin of each column, and `_chances`, of each coin."""

    def _coin_of(self, n: int) -> np.ndarray:
        return np.arange(n)

    def _chances(self, n: int) -> Array:
        raise NotImplementedError

    def sample(self, key: Array, shape: Sequence[int]) -> Float[Array, "..."]:
        """Draw a mask of `shape` with ``key``."""
        *lead, n = check_shape(shape)
        coin_of, chances = self._coin_of(n), self._chances(n)
        coins = toss(key, chances, (*lead, len(chances)))
        return coins if len(chances) == n else coins[..., coin_of]

    def mean(self, n: int) -> Float[Array, " n"]:
        """Return E[m], the probability of each entry's coin."""
        chances = self._chances(check_integer("n", n, 1))
        return chances if len(chances) == n else chances[self._coin_of(n)]

    def second_moment(self, n: int) -> Float[Array, "n n"]:
        """Return E[m mᵀ]: p where two entries share a coin, p_j p_k elsewhere."""
        p, coin_of = self.mean(n), self._coin_of(n)
        return jnp.where(coin_of[:, None] == coin_of, p, p[:, None] * p)

    def support(self, shape: Sequence[int]) -> tuple[Float[Array, "k ..."], Float[Array, " k"]]:
        """List all 2^(coins) masks and their probabilities."""
        shape = check_shape(shape)
        chances = jax.lax.optimization_barrier(
            self._chances(shape[-1])
        )  # XLA takes long to fold the products of known chances
        outcomes = every_outcome(len(chances))
        probabilities = jnp.prod(jnp.where(outcomes == 1, chances, 1 - chances), axis=-1)
        return every_row(outcomes[:, self._coin_of(shape[-1])], probabilities, shape)

    def support_size(self, n: int) -> int:
        """Return the number of different rows."""
        return 2 ** int(self._coin_of(check_integer("n", n, 1)).max() + 1)

    def factors(self, n: int, degree: int) -> Factors:
        """Return the coins: both sides of each, with their probabilities, whatever the degree."""
        chances, coin_of = self._chances(check_integer("n", n, 1)), self._coin_of(n)
        members = coin_of == np.arange(len(chances))[:, None]
        return Factors(members, np.array([0.0, 1.0]), jnp.stack([1 - chances, chances], axis=-1))


@registered
@dataclass(frozen=True)
class Bernoulli(_Coins):
    """Every entry is kept by its own coin with the same probability.

    μ_j = p;  S_jk = p² for j ≠ k, S_jj = p.

    Args:
        prob: probability p in [0, 1] that an entry is kept; a leaf.

    Raises:
        ValueError: when `prob` is no probability.

    >>> Bernoulli(0.5).second_moment(2).tolist()
    [[0.5, 0.25], [0.25, 0.5]]
    """

    prob: Any

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        check_probabilities("prob", self.prob, 0)

    def _chances(self, n: int) -> Array:
        return jnp.full((n,), number("prob", self.prob))


@registered
@dataclass(frozen=True)
class FeatureBernoulli(_Coins):
    """Every entry is kept by its own coin, with a probability for each feature (column).

    μ_j = p_j;  S_jk = p_j p_k for j ≠ k, S_jj = p_j.

    Args:
        probs: probabilities (p_1 … p_n) that an entry of column j is kept; a leaf of shape (n,).

    Raises:
        ValueError: when an entry of `probs` is no probability, or a size does not fit it.

    >>> FeatureBernoulli([0.5, 1.0]).second_moment(2).tolist()
    [[0.5, 0.5], [0.5, 1.0]]
    """

    probs: Any

    def __post_init__(self) -> None:
        """Refuse what is no vector of probabilities."""
        check_probabilities("probs", self.probs, 1)
        if isinstance(self.probs, (list, tuple)):
            object.__setattr__(self, "probs", np.asarray(self.probs, float))

    def _chances(self, n: int) -> Array:
        probs = jnp.asarray(self.probs, float)
        if probs.shape != (n,):
            raise ValueError(
                f"`probs` has shape {probs.shape}, but the mask has {n} columns; give one "
                f"probability per column"
            )
        return probs


@registered
@dataclass(frozen=True)
class Patches(_Coins):
    """Runs of `patch_size` neighbouring entries are kept or dropped together, each by its own coin.

    μ_j = p;  S_jk = p when j and k lie in the same patch, ⌊j/s⌋ = ⌊k/s⌋, and p² otherwise.

    Args:
        prob: probability p in [0, 1] that a patch is kept; a leaf.
        patch_size: number s of entries in a patch; it must divide the number of columns.

    Raises:
        ValueError: when `prob` is no probability, or `patch_size` is not positive or does not
            divide a size.

    >>> Patches(0.5, 2).second_moment(4)[0].tolist()
    [0.5, 0.5, 0.25, 0.25]
    """

    prob: Any
    patch_size: int = field(metadata={"static": True})

    def __post_init__(self) -> None:
        """Refuse what is no probability and no patch size."""
        check_probabilities("prob", self.prob, 0)
        object.__setattr__(self, "patch_size", check_integer("patch_size", self.patch_size, 1))

    def _coin_of(self, n: int) -> np.ndarray:
        if n % self.patch_size:
            raise ValueError(
                f"`patch_size` {self.patch_size} does not divide the {n} columns of the mask; use "
                f"a patch size that divides {n}"
            )
        return np.arange(n) // self.patch_size

    def _chances(self, n: int) -> Array:
        return jnp.full((n // self.patch_size,), number("prob", self.prob))


@registered
@dataclass(frozen=True)
class GridPatches(_Coins):
    """Rectangles of an image are kept or dropped together; a row is an image, line by line.

    μ_j = p;  S_jk = p when pixels j and k lie in the same patch, and p² otherwise.

    Args:
        prob: probability p in [0, 1] that a patch is kept; a leaf.
        image: height and width (h, w) of the image; the mask has h·w columns, and pixel (y, x) is
            column y·w + x.
        patch: height and width (a, b) of a patch; a must divide h, and b must divide w.

    Raises:
        ValueError: when `prob` is no probability, `patch` does not divide `image`, or a size is not
            h·w.
        TypeError: when `image` or `patch` is no pair of integers.

    Source: the patches of D. Dosovitskiy et al. 2021, arXiv 2010.11929, and of He et al. 2022,
    arXiv 2111.06377.

    >>> GridPatches(0.5, image=(2, 4), patch=(2, 2)).second_moment(8)[0].tolist()
    [0.5, 0.5, 0.25, 0.25, 0.5, 0.5, 0.25, 0.25]
    """

    prob: Any
    image: tuple[int, int] = field(metadata={"static": True})
    patch: tuple[int, int] = field(metadata={"static": True})

    def __post_init__(self) -> None:
        """Refuse what is no probability and no grid."""
        check_probabilities("prob", self.prob, 0)
        object.__setattr__(self, "image", check_pair("image", self.image))
        object.__setattr__(self, "patch", check_pair("patch", self.patch))
        if self.image[0] % self.patch[0] or self.image[1] % self.patch[1]:
            raise ValueError(
                f"`patch` {self.patch} does not divide the `image` {self.image}; use sides that "
                f"divide its sides"
            )

    def _coin_of(self, n: int) -> np.ndarray:
        (height, width), (a, b) = self.image, self.patch
        if n != height * width:
            raise ValueError(
                f"`image` {self.image} has {height * width} pixels, but the mask has {n} columns; "
                f"make them equal"
            )
        y, x = np.divmod(np.arange(n), width)
        return y // a * (width // b) + x // b

    def _chances(self, n: int) -> Array:
        (height, width), (a, b) = self.image, self.patch
        return jnp.full((height // a * (width // b),), number("prob", self.prob))
