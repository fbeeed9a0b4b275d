"""Distributions of random masks over the rows of a data matrix, with their exact moments.

A mask M has the shape of the data it multiplies, ``(…, n)``: 1 keeps an entry, 0 drops it, and `prob` is always the
probability that an entry is KEPT. Rows are independent and alike; what differs between the families is how the n entries
m of one row hang together. That is told by

    mu = E[m]          (n,)      the mean
    S  = E[m mᵀ]       (n, n)    the second moment, not centred

Every mask is a pytree whose probabilities are leaves, so that an expectation can be differentiated in them.

Sources: the moments of independent coins are elementary; a fixed number of kept entries is sampling without replacement
(Cochran, *Sampling Techniques*, 1977, ch. 2), and it is what masked autoencoders do (He et al. 2022, arXiv 2111.06377).
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

SUPPORT_LIMIT = 2**24
"""The most entries (masks × entries of a mask) that `support` will list."""


@runtime_checkable
class Mask(Protocol):
    """What a mask distribution must offer."""

    def sample(self, key: Array, shape: Sequence[int]) -> Float[Array, "..."]:
        """Draw a mask of this shape, of zeros and ones."""
        ...

    def mean(self, n: int) -> Float[Array, " n"]:
        """Return E[m] of one row."""
        ...

    def second_moment(self, n: int) -> Float[Array, "n n"]:
        """Return E[m mᵀ] of one row."""
        ...

    def support(self, shape: Sequence[int]) -> tuple[Float[Array, "k ..."], Float[Array, " k"]]:
        """List every mask of this shape with its probability."""
        ...


def _check_probabilities(name: str, value: Any, ndim: int) -> None:
    if isinstance(value, Tracer) or not isinstance(value, (int, float, np.generic, np.ndarray, jax.Array, list, tuple)):
        return  # traced, or a placeholder of a tree transformation: nothing is known yet
    array = np.asarray(value)
    if array.dtype == object or array.ndim < ndim:
        kind = "a number" if ndim == 0 else "a vector with one probability per feature"
        raise ValueError(f"`{name}` must be {kind}, but is {value!r}")
    if array.ndim == ndim and not np.all((array >= 0) & (array <= 1)):
        raise ValueError(f"`{name}` must be a probability in [0, 1] (that an entry is KEPT), but is {value!r}")


def _check_integer(name: str, value: Any, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"`{name}` must be an integer, but is {value!r}") from None
    if number < least:
        raise ValueError(f"`{name}` must be at least {least}, but is {number}")
    return number


def _check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    try:
        shape = tuple(int(s) for s in shape)
    except TypeError:
        raise TypeError(f"`shape` must be a sequence of integers such as (m, n), but is {shape!r}") from None
    if not shape or min(shape) < 1:
        raise ValueError(f"`shape` must have at least one axis and no empty one, but is {shape!r}")
    return shape


def _words(key: Array, shape: tuple[int, ...]) -> Array:
    """Draw 32 random bits for each entry; both words of a threefry block are used, which halves the cost of a draw."""
    with jax.threefry_partitionable(False):
        return jax.random.bits(key, shape, jnp.uint32)


def _coins(key: Array, prob: Any, shape: tuple[int, ...]) -> Array:
    """Toss coins that are 1 with probability ⌊2³² p⌋/2³²: a random word is compared, so that rare events keep their odds."""
    threshold = jnp.asarray(prob, jnp.float32) * np.float32(2.0**32)
    words = _words(key, shape)
    certain = threshold >= np.float32(2.0**32)
    return (certain | (words < jnp.where(certain, 0.0, threshold).astype(jnp.uint32))).astype(float)


def _every_row(rows: np.ndarray, probabilities: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Combine the support of one row into that of independent rows stacked to `shape`."""
    count = math.prod(shape[:-1])
    total = len(rows) ** count
    if total * math.prod(shape) > SUPPORT_LIMIT:
        raise ValueError(
            f"`shape` {shape} has {len(rows)}^{count} masks, too many to list; "
            "use a smaller shape, or the moments from `mean` and `second_moment`"
        )
    index = np.indices((len(rows),) * count).reshape(count, total).T
    dtype = jnp.result_type(float)
    return jnp.asarray(rows[index].reshape(total, *shape), dtype), jnp.prod(probabilities[index], axis=-1)


def _coin_support(probs: Array, count: int) -> tuple[np.ndarray, Array]:
    if count > 24:
        raise ValueError(f"`shape` asks for all masks of {count} independent coins a row, 2^{count} of them; use a smaller one")
    rows = np.indices((2,) * count).reshape(count, -1).T
    return rows, jnp.prod(jnp.where(rows == 1, probs, 1 - probs), axis=-1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bernoulli:
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
        _check_probabilities("prob", self.prob, 0)

    def sample(self, key: Array, shape: Sequence[int]) -> Float[Array, "..."]:
        """Draw a mask of `shape` with ``key``."""
        shape = _check_shape(shape)
        return _coins(key, self.prob, shape)

    def mean(self, n: int) -> Float[Array, " n"]:
        """Return E[m], the vector of p's."""
        return jnp.full((n,), self.prob, dtype=float)

    def second_moment(self, n: int) -> Float[Array, "n n"]:
        """Return E[m mᵀ]: p on the diagonal, p² elsewhere."""
        p = jnp.asarray(self.prob, float)
        return jnp.where(np.eye(n, dtype=bool), p, p * p)

    def support(self, shape: Sequence[int]) -> tuple[Float[Array, "k ..."], Float[Array, " k"]]:
        """List all 2^(entries) masks and their probabilities."""
        shape = _check_shape(shape)
        rows, probabilities = _coin_support(jnp.full((shape[-1],), self.prob, dtype=float), shape[-1])
        return _every_row(rows, probabilities, shape)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FeatureBernoulli:
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
        _check_probabilities("probs", self.probs, 1)
        if isinstance(self.probs, (list, tuple)):
            object.__setattr__(self, "probs", np.asarray(self.probs, float))

    def _probs(self, n: int) -> Array:
        probs = jnp.asarray(self.probs, float)
        if probs.shape != (n,):
            raise ValueError(f"`probs` has shape {probs.shape}, but the mask has {n} columns; give one probability per column")
        return probs

    def sample(self, key: Array, shape: Sequence[int]) -> Float[Array, "..."]:
        """Draw a mask of `shape` with ``key``."""
        shape = _check_shape(shape)
        return _coins(key, self._probs(shape[-1]), shape)

    def mean(self, n: int) -> Float[Array, " n"]:
        """Return E[m], the probabilities themselves."""
        return self._probs(n)

    def second_moment(self, n: int) -> Float[Array, "n n"]:
        """Return E[m mᵀ]: p_j on the diagonal, p_j p_k elsewhere."""
        p = self._probs(n)
        return jnp.where(np.eye(n, dtype=bool), p, p[:, None] * p)

    def support(self, shape: Sequence[int]) -> tuple[Float[Array, "k ..."], Float[Array, " k"]]:
        """List all 2^(entries) masks and their probabilities."""
        shape = _check_shape(shape)
        rows, probabilities = _coin_support(self._probs(shape[-1]), shape[-1])
        return _every_row(rows, probabilities, shape)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Patches:
    """Runs of `patch_size` neighbouring entries are kept or dropped together, each by its own coin.

    μ_j = p;  S_jk = p when j and k lie in the same patch, ⌊j/s⌋ = ⌊k/s⌋, and p² otherwise.

    Args:
        prob: probability p in [0, 1] that a patch is kept; a leaf.
        patch_size: number s of entries in a patch; it must divide the number of columns.

    Raises:
        ValueError: when `prob` is no probability, or `patch_size` is not positive or does not divide a size.

    >>> Patches(0.5, 2).second_moment(4)[0].tolist()
    [0.5, 0.5, 0.25, 0.25]
    """

    prob: Any
    patch_size: int = field(metadata={"static": True})

    def __post_init__(self) -> None:
        """Refuse what is no probability and no patch size."""
        _check_probabilities("prob", self.prob, 0)
        object.__setattr__(self, "patch_size", _check_integer("patch_size", self.patch_size, 1))

    def _patches(self, n: int) -> int:
        if n % self.patch_size:
            raise ValueError(
                f"`patch_size` {self.patch_size} does not divide the {n} columns of the mask; use a patch size that divides {n}"
            )
        return n // self.patch_size

    def sample(self, key: Array, shape: Sequence[int]) -> Float[Array, "..."]:
        """Draw a mask of `shape` with ``key``."""
        *lead, n = _check_shape(shape)
        coins = _coins(key, self.prob, (*lead, self._patches(n)))
        return jnp.repeat(coins, self.patch_size, axis=-1)

    def mean(self, n: int) -> Float[Array, " n"]:
        """Return E[m], the vector of p's."""
        self._patches(n)
        return jnp.full((n,), self.prob, dtype=float)

    def second_moment(self, n: int) -> Float[Array, "n n"]:
        """Return E[m mᵀ]: p inside the diagonal blocks, p² outside."""
        self._patches(n)
        patch = np.arange(n) // self.patch_size
        p = jnp.asarray(self.prob, float)
        return jnp.where(patch[:, None] == patch, p, p * p)

    def support(self, shape: Sequence[int]) -> tuple[Float[Array, "k ..."], Float[Array, " k"]]:
        """List all 2^(patches) masks and their probabilities."""
        shape = _check_shape(shape)
        patches = self._patches(shape[-1])
        rows, probabilities = _coin_support(jnp.full((patches,), self.prob, dtype=float), patches)
        return _every_row(np.repeat(rows, self.patch_size, axis=-1), probabilities, shape)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FixedCount:
    """Exactly k of the n entries of a row are kept, every such choice equally likely.

    μ_j = k/n;  S_jk = k(k−1)/(n(n−1)) for j ≠ k, S_jj = k/n: entries of a row are negatively correlated.

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
        object.__setattr__(self, "count", _check_integer("count", self.count, 0))

    def _count(self, n: int) -> int:
        if self.count > n:
            raise ValueError(f"`count` {self.count} exceeds the {n} columns of the mask; keep at most {n}")
        return self.count

    def sample(self, key: Array, shape: Sequence[int]) -> Float[Array, "..."]:
        """Draw a mask of `shape` with ``key``: a row of k ones is sorted by random words."""
        shape = _check_shape(shape)
        row = (np.arange(shape[-1]) < self._count(shape[-1])).astype(np.uint8)
        words = _words(key, shape)
        _, mask = jax.lax.sort((words, jnp.broadcast_to(row, shape)), dimension=-1, num_keys=1)
        return mask.astype(float)

    def mean(self, n: int) -> Float[Array, " n"]:
        """Return E[m], the vector of k/n."""
        return jnp.full((n,), self._count(n) / n, dtype=float)

    def second_moment(self, n: int) -> Float[Array, "n n"]:
        """Return E[m mᵀ]: k/n on the diagonal, k(k−1)/(n(n−1)) elsewhere."""
        k = self._count(n)
        return jnp.where(np.eye(n, dtype=bool), k / n, k * (k - 1) / (n * max(n - 1, 1))).astype(float)

    def support(self, shape: Sequence[int]) -> tuple[Float[Array, "k ..."], Float[Array, " k"]]:
        """List all C(n, k) choices in each row, equally likely."""
        shape = _check_shape(shape)
        n, k = shape[-1], self._count(shape[-1])
        choices = math.comb(n, k)
        if choices * n > SUPPORT_LIMIT:
            raise ValueError(f"`shape` {shape} has C({n}, {k}) masks a row, too many to list; use a smaller shape")
        rows = np.zeros((choices, n))
        kept = np.array(list(combinations(range(n), k)), dtype=int).reshape(choices, k)
        np.put_along_axis(rows, kept, 1, axis=-1)
        return _every_row(rows, jnp.full((choices,), 1 / choices, dtype=float), shape)
