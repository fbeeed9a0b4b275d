"""Random numbers of masks at 10⁸ entries: mean, second moment, and independence of neighbouring
rows and chunks.
"""

import jax
import numpy as np
import pytest

from jaxgrad import masks
from jaxgrad.jaxprs.versions import enable_x64

ROWS, CHUNKS, N = 50_000, 100, 20
FAR = 6.5
"""Standard errors that none of some thousand normal numbers exceeds but once in ten million
tests.
"""

MASKS = {
    "Bernoulli": masks.Bernoulli(0.3),
    "FeatureBernoulli": masks.FeatureBernoulli(np.linspace(0.05, 0.95, N)),
    "Patches": masks.Patches(0.6, 4),
    "FixedCount": masks.FixedCount(7),
}


@pytest.mark.slow
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_hundred_million_entries_have_the_moments_and_the_independence_that_are_stated(mask):
    draw = jax.jit(
        lambda i: mask.sample(jax.random.fold_in(jax.random.key(0), i), (ROWS, N))
    )  # as the sampling loop draws its chunks
    with enable_x64(True):
        mean, second = (
            np.asarray(mask.mean(N), np.float64),
            np.asarray(mask.second_moment(N), np.float64),
        )
    spread = np.sqrt(np.diagonal(second) - mean**2)
    total, products, rows, chunks = (
        np.zeros(N),
        np.zeros((N, N)),
        np.zeros((N, N)),
        np.zeros((N, N)),
    )
    before = None
    for i in range(CHUNKS):
        drawn = np.asarray(draw(i), np.float64)
        centred = (drawn - mean) / spread
        total += drawn.sum(axis=0)
        products += drawn.T @ drawn
        rows += centred[:-1].T @ centred[1:]
        if before is not None:
            chunks += before.T @ centred
        before = centred
    count = ROWS * CHUNKS
    assert count * N == 10**8
    assert np.all(np.abs(total / count - mean) < FAR * spread / count**0.5)
    certain = second * (1 - second) < 1e-12
    assert np.all(
        np.abs(products / count - second)[~certain]
        < FAR * np.sqrt(second * (1 - second) / count)[~certain]
    )
    assert np.all(np.abs(rows) < FAR * ((ROWS - 1) * CHUNKS) ** 0.5)
    assert np.all(np.abs(chunks) < FAR * (ROWS * (CHUNKS - 1)) ** 0.5)


@pytest.mark.slow
def test_a_row_of_many_entries_has_a_fixed_count_and_the_moments_stated():
    n, mask = 200, masks.FixedCount(50)  # long rows are drawn otherwise than short ones
    draw = jax.jit(lambda i: mask.sample(jax.random.fold_in(jax.random.key(1), i), (10_000, n)))
    products, count = np.zeros((n, n)), 500_000
    for i in range(count // 10_000):
        drawn = np.asarray(draw(i), np.float64)
        assert np.all(drawn.sum(axis=1) == 50)
        products += drawn.T @ drawn
    second = np.asarray(mask.second_moment(n), np.float64)
    assert count * n == 10**8
    assert np.all(np.abs(products / count - second) < FAR * np.sqrt(second * (1 - second) / count))
