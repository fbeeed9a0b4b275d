"""Masks with a random keeping ratio, and noise that is not 0 or 1."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgrad.masks.bernoulli import Bernoulli
from jaxgrad.masks.distribution import (
    Factors,
    check_integer,
    check_key,
    check_probabilities,
    check_shape,
    check_variance,
    every_outcome,
    every_row,
    is_known,
    number,
    registered,
    toss,
)


def interpolatory_weights(
    nodes: Sequence[int], moments: Sequence[Fraction | int]
) -> list[Fraction]:
    """Return weights w with Σ_i w_i nodes_i^d = moments_d for d = 0 … len(nodes) − 1, exactly.

    >>> interpolatory_weights([0, 1, 2], [2, 2, Fraction(8, 3)])  # Simpson's rule, on [0, 2]
    [Fraction(1, 3), Fraction(4, 3), Fraction(1, 3)]
    """
    size = len(nodes)
    rows = [[*(Fraction(x) ** d for x in nodes), Fraction(moments[d])] for d in range(size)]
    for i in range(size):
        pivot = next(r for r in range(i, size) if rows[r][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [entry / rows[i][i] for entry in rows[i]]
        for r in range(size):
            if r != i:
                rows[r] = [a - rows[r][i] * b for a, b in zip(rows[r], rows[i], strict=True)]
    return [row[-1] for row in rows]


@registered
@dataclass(frozen=True)
class RandomRatio:
    """Each row draws its own p, uniform on [low, high], and keeps each entry with probability p.

    μ_j = S_jj = (a + b)/2;  S_jk = (a² + ab + b²)/3 for j ≠ k, with a = `low` and b = `high`.
    Entries of a row are positively correlated, since they share p.

    Args:
        low: least probability a that an entry is kept; a leaf.
        high: greatest probability b that an entry is kept, at least `low`; a leaf.

    Raises:
        ValueError: when `low` or `high` is no probability, or `low` exceeds `high`.

    Source: masking with a ratio drawn anew for each sample, arXiv 2509.21650.

    >>> RandomRatio(0.0, 0.75).second_moment(2).tolist()
    [[0.375, 0.1875], [0.1875, 0.375]]
    """

    low: Any
    high: Any

    def __post_init__(self) -> None:
        """Refuse what is no interval of probabilities."""
        check_probabilities("low", self.low, 0)
        check_probabilities("high", self.high, 0)
        if (
            is_known(self.low)
            and is_known(self.high)
            and np.any(np.asarray(self.low) > np.asarray(self.high))
        ):
            raise ValueError(f"`low` {self.low!r} must not exceed `high` {self.high!r}; swap them")

    def _at(self, fraction: Any) -> Array:
        low, high = number("low", self.low), number("high", self.high)
        return low + (high - low) * fraction

    def sample(self, key: Array, shape: Sequence[int]) -> Float[Array, "..."]:
        """Draw a mask of `shape` with ``key``."""
        shape = check_shape(shape)
        check_key(key)
        for_ratio, for_coins = jax.random.split(key)
        return toss(
            for_coins,
            self._at(jax.random.uniform(for_ratio, (*shape[:-1], 1), dtype=jnp.float32)),
            shape,
        )

    def mean(self, n: int) -> Float[Array, " n"]:
        """Return E[m], the vector of (a + b)/2."""
        return jnp.full((check_integer("n", n, 1),), self._at(0.5), dtype=float)

    def second_moment(self, n: int) -> Float[Array, "n n"]:
        """Return E[m mᵀ]: (a + b)/2 on the diagonal, (a² + ab + b²)/3 elsewhere."""
        a, b = number("low", self.low), number("high", self.high)
        return jnp.where(
            np.eye(check_integer("n", n, 1), dtype=bool), (a + b) / 2, (a * a + a * b + b * b) / 3
        )

    def support(self, shape: Sequence[int]) -> tuple[Float[Array, "k ..."], Float[Array, " k"]]:
        """List all masks; k of n entries kept has probability ∫ p^k (1−p)^(n−k) dp / (b − a)."""
        shape = check_shape(shape)
        outcomes = every_outcome(shape[-1])
        nodes, weights = np.polynomial.legendre.leggauss(
            shape[-1] // 2 + 1
        )  # exact up to the degree n of the integrand
        p = self._at((nodes[:, None] + 1) / 2)
        kept = outcomes.sum(-1)
        return every_row(outcomes, weights / 2 @ (p**kept * (1 - p) ** (shape[-1] - kept)), shape)

    def support_size(self, n: int) -> int:
        """Return the number of different rows."""
        return 2 ** check_integer("n", n, 1)

    def mixture(self, n: int, degree: int) -> list[tuple[float, Bernoulli]]:
        """Return coins at evenly spaced ratios with Newton–Cotes weights, exact to this degree."""
        last = max(degree // 2 * 2, 2)
        weights = interpolatory_weights(
            range(last + 1), [Fraction(last**d, d + 1) for d in range(last + 1)]
        )
        return [(float(w), Bernoulli(self._at(i / last))) for i, w in enumerate(weights)]


@registered
@dataclass(frozen=True)
class MultiplicativeGaussian:
    """Every entry is multiplied by its own normal number of mean 1; nothing is dropped.

    μ_j = 1;  S_jk = 1 for j ≠ k, S_jj = 1 + σ².

    Args:
        variance: σ² ≥ 0, a leaf; (1 − p)/p has the moments of inverted dropout that keeps with
            probability p.

    Raises:
        ValueError: when `variance` is negative.

    Source: N. Srivastava et al., *JMLR* 15 (2014) 1929–1958, sec. 10.

    >>> MultiplicativeGaussian(0.5).second_moment(2).tolist()
    [[1.5, 1.0], [1.0, 1.5]]
    """

    variance: Any

    def __post_init__(self) -> None:
        """Refuse what is no variance."""
        check_variance("variance", self.variance)

    def sample(self, key: Array, shape: Sequence[int]) -> Float[Array, "..."]:
        """Draw a mask of `shape` with ``key``."""
        check_key(key)
        return 1 + jnp.sqrt(number("variance", self.variance)) * jax.random.normal(
            key, check_shape(shape), dtype=float
        )

    def mean(self, n: int) -> Float[Array, " n"]:
        """Return E[m], ones."""
        return jnp.ones((check_integer("n", n, 1),))

    def second_moment(self, n: int) -> Float[Array, "n n"]:
        """Return E[m mᵀ]: 1 + σ² on the diagonal, 1 elsewhere."""
        return jnp.where(
            np.eye(check_integer("n", n, 1), dtype=bool), 1 + number("variance", self.variance), 1.0
        )

    def support(self, shape: Sequence[int]) -> tuple[Float[Array, "k ..."], Float[Array, " k"]]:
        """Refuse: a normal number takes every value."""
        raise ValueError(
            f"`shape` {check_shape(shape)}: a MultiplicativeGaussian takes every value, so its "
            f"masks cannot be listed; "
            "use the moments from `mean` and `second_moment`, or sample"
        )

    def factors(self, n: int, degree: int) -> Factors:
        """Return the n normal numbers, at 1, 1 ± 1, 1 ± 2, … with weights that give their moments.

        The d-th central moment is (d−1)!! σ^d for even d and 0 for odd d, so the weights are
        polynomials in σ².
        """
        n, half = check_integer("n", n, 1), max(degree // 2, 1)
        nodes = list(range(-half, half + 1))
        variance = number("variance", self.variance)
        weights = jnp.zeros(len(nodes))
        for d in range(half + 1):
            unit = [int(k == 2 * d) for k in range(len(nodes))]
            column = np.array([float(w) for w in interpolatory_weights(nodes, unit)])
            weights = weights + column * math.prod(range(1, 2 * d, 2)) * variance**d
        return Factors(
            np.eye(n, dtype=bool), 1.0 + np.array(nodes), jnp.broadcast_to(weights, (n, len(nodes)))
        )
