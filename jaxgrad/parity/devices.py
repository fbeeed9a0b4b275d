"""Is the precision that is claimed the precision in force? A canary for matrix products.

On a GPU, products of float32 may be rounded to TF32's 11 bits or to bfloat16's 8 without a word,
and a port is then compared with something else than was asked for. So a product is measured against
float64, and its error must lie between two bounds: neither too wrong (fewer bits than claimed) nor
too right (another precision than claimed).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad.jaxprs.precision import in_precision

BITS = {"float64": 53, "float32": 24, "tf32": 11, "bfloat16": 8}
"""Significant bits of an operand in each precision."""

_SIZE = 128


class Canary(NamedTuple):
    """What a matrix product was seen to do.

    Attributes:
        claimed: the precision that was asked for.
        error: the root mean square error of a product, relative to that of the product.
        found: the precision whose error that is.
        device: where.
    """

    claimed: str
    error: float
    found: str
    device: str

    @property
    def in_force(self) -> bool:
        """Whether the precision found is the one that was claimed."""
        return self.found == self.claimed

    def __str__(self) -> str:
        """Return what was found, in words."""
        state = "in force" if self.in_force else f"NOT in force: {self.found} is"
        return f"{self.claimed} products on {self.device}: {state} (error {self.error:.1e})"


def canary(
    multiply: Callable[[np.ndarray, np.ndarray], Any] | None = None,
    *,
    claimed: str = "float32",
    device: str = "",
) -> Canary:
    """Measure the precision of a matrix product.

    Equation:
        error = ‖fl(AB) − AB‖ / ‖AB‖ for normal A, B of shape 128 × 128, against 2^−bits of each
        precision on a logarithmic scale

    Args:
        multiply: multiplies two float32 (or float64) arrays; by default JAX does, at the precision
            that is set.
        claimed: "float64", "float32", "tf32" or "bfloat16".
        device: name of the place, for the message.

    Raises:
        ValueError: for another precision.

    >>> canary().found, canary(lambda a, b: a.astype(np.float64) @ b).in_force
    ('float32', False)

    Source: the two-sided bound is that of PyTorch/XLA's test_mat_mul_precision.
    """
    if claimed not in BITS:
        raise ValueError(f"`claimed` is {claimed!r}; it is one of {', '.join(BITS)}")
    rng = np.random.default_rng(0)
    dtype = np.float64 if claimed == "float64" else np.float32
    a, b = (rng.standard_normal((_SIZE, _SIZE)).astype(dtype) for _ in range(2))
    product = _by_jax if multiply is None else multiply
    exact = a.astype(np.longdouble) @ b.astype(np.longdouble)
    found = np.asarray(product(a, b)).astype(np.longdouble)
    error = float(np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)))
    seen = -np.log2(max(error, 2.0**-60))
    kind = min(BITS, key=lambda name: abs(BITS[name] - seen))
    return Canary(claimed, error, kind, device or jax.default_backend())


def _by_jax(a: np.ndarray, b: np.ndarray) -> Any:
    with in_precision(a.dtype == np.float64):
        return jnp.matmul(jnp.asarray(a), jnp.asarray(b))
