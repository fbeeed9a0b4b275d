"""Arithmetic modulo primes: products, and discrete logarithms."""

import numpy as np
import pytest

from jaxgrad.evidence.certificates.fields.logarithms import log4, small_fraction
from jaxgrad.evidence.certificates.fields.modular import PRIMES, Draws


@pytest.mark.parametrize("p", [PRIMES[0], PRIMES[-1]])
def test_logarithms_undo_powers(p):
    rng = np.random.default_rng(p)
    exponents = rng.integers(0, (p - 1) // 2, (40, 5))
    powers = np.array([pow(4, int(a), p) for a in exponents.flat]).reshape(exponents.shape)
    assert (log4(p, powers) == exponents).all()


def test_every_number_is_a_fraction_of_small_ones():
    p = PRIMES[3]
    x = np.concatenate(
        [np.arange(1, 9), p - np.arange(1, 9), np.random.default_rng(0).integers(1, p, 1000)]
    )
    a, b = small_fraction(p, x)
    assert a.max() < 2**16
    assert b.max() < 2**16
    assert all(
        (int(b) * int(x) - int(a)) % p == 0 or (int(b) * int(x) + int(a)) % p == 0
        for a, b, x in zip(a, b, x, strict=True)
    )


def test_logarithms_invert_exponentials_of_every_draw():
    draws = Draws(6, 1, PRIMES[:2])
    _, exponents = draws.uniform((30,))
    assert (draws.log(draws.exp(exponents)) == exponents).all()


@pytest.mark.parametrize("shape", [(3, 5, 4), (40, 30, 50), (2, 20000, 3)])
def test_products_of_matrices_are_exact_at_the_largest_remainders(shape):
    m, c, n = shape
    draws, rng = Draws(3, 2), np.random.default_rng(0)
    top = draws.p.of.reshape(-1, 1, 1) - 1
    a, b = top - rng.integers(0, 2, (3, m, c)), top - rng.integers(0, 2, (3, c, n))
    exact = (a.astype(object) @ b.astype(object)) % (top + 1)
    assert (draws.p.matmul(a, b) == exact).all()
