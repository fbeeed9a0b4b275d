"""Discrete logarithms modulo safe primes, for whole arrays at once.

For p = 2q + 1 and x not 0 let L(x) be the number modulo q with 4^L = x² and so L(ab) = L(a) + L(b),
L(−x) = L(x); of a square x it is twice the logarithm to base 4. Every x is a/b modulo p with |a|,
|b| < √p < 2¹⁶ (Thue's lemma; Euclid's algorithm on p and x finds them), so a table of L below 2¹⁶
is all that is needed, and L(x) = L(a) − L(b).

The table holds L of the primes below 2⁶ by baby and giant steps (Shanks 1971). Larger primes r
follow block after block: 4ᵏ·t·r ≡ a/b is written, for some k and t, until a and b have no prime
factors but known ones; then L(r) = L(a) − L(b) − L(t) − 2k. Composite numbers follow by addition.
"""

from functools import cache, lru_cache

import numpy as np

_SIZE = 2**16
_FIRST = 2**6
_BABY = 2**18
_SHIFT = 17


def log4(p: int, squares: np.ndarray) -> np.ndarray:
    """Return the a modulo (p − 1)/2 with 4^a = x modulo p, for an array of nonzero squares x.

    Args:
        p: a safe prime below 2³², p ≡ 3 modulo 4.
        squares: nonzero squares modulo p.

    >>> log4(2204099999, np.array([1, 4, 64]))
    array([0, 1, 3])
    """
    q = (p - 1) // 2
    table = _table(p)
    a, b = small_fraction(p, np.asarray(squares, np.int64))
    return (table[a] - table[b]) % q * ((q + 1) // 2) % q


def small_fraction(p: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a, b with 0 ≤ a, b < √p and b·x ≡ ±a modulo p, by Euclid's algorithm.

    >>> small_fraction(2204099999, np.array([5 * pow(7, -1, 2204099999) % 2204099999]))
    (array([5]), array([7]))
    """
    bound = int(np.sqrt(float(p)))
    shape, x = x.shape, x.ravel()
    before, after = np.full(x.shape, p, np.int64), x.astype(np.int64)
    u, v = np.zeros(x.shape, np.int64), np.ones(x.shape, np.int64)  # b·x ≡ ±after, up to signs
    going = np.flatnonzero(after > bound)
    while going.size:
        quotient, rest = np.divmod(before[going], after[going])
        before[going], after[going] = after[going], rest
        u[going], v[going] = v[going], u[going] + quotient * v[going]
        going = going[rest > bound]
    return after.reshape(shape), v.reshape(shape)


@cache
def _factors() -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and the largest prime factor of every number below 2¹⁶; 1 of 0 and 1."""
    smallest, largest = np.ones(_SIZE, np.int64), np.ones(_SIZE, np.int64)
    for n in range(2, _SIZE):
        if n * n >= _SIZE:
            break
        if smallest[n] == 1:
            multiples = smallest[n * n :: n]
            multiples[multiples == 1] = n
    prime = smallest == 1
    prime[:2] = False
    smallest[prime] = np.flatnonzero(prime)
    for n in np.flatnonzero(prime):
        largest[n::n] = n
    return smallest, largest


def _sum(table: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return L of numbers, the sum over their prime factors; L of these must be known."""
    smallest, _ = _factors()
    total, numbers = np.zeros(numbers.shape, np.int64), numbers.copy()
    while (numbers > 1).any():
        factor = smallest[numbers]
        total += table[factor]
        numbers //= factor
    return total


@lru_cache(maxsize=8)
def _table(p: int) -> np.ndarray:
    """Return L of every number below 2¹⁶; of 0 and 1 it is 0."""
    q = (p - 1) // 2
    smallest, largest = _factors()
    numbers = np.arange(_SIZE)
    primes = numbers[(smallest == numbers) & (numbers > 1)]
    table = np.zeros(_SIZE, np.int64)
    table[primes[primes < _FIRST]] = _steps(p, primes[primes < _FIRST])
    known = _FIRST
    while known < _SIZE:
        block = primes[(primes >= known) & (primes < 2 * known)]
        factors, k = numbers[1:_FIRST][: max(1, 2**12 // len(block))], 0
        while block.size:
            k += _SHIFT
            a, b = small_fraction(p, block[:, None] * factors % p * pow(4, k, p) % p)
            good = (largest[a] < known) & (largest[b] < known)
            found, first = good.any(1), good.argmax(1)
            at = np.flatnonzero(found), first[found]
            table[block[found]] = (
                _sum(table, a[at]) - _sum(table, b[at]) - _sum(table, factors[at[1]]) - 2 * k
            ) % q
            block = block[~found]
        known *= 2
    for low in 2 ** np.arange(2, 16):
        part = numbers[low : 2 * low]
        part = part[smallest[part] < part]
        table[part] = (table[smallest[part]] + table[part // smallest[part]]) % q
    return table


def _steps(p: int, values: np.ndarray) -> np.ndarray:
    """Return L of a few numbers by baby and giant steps: 4^i = x²·4^(−j·number of baby steps)."""

    def powers(base: int, count: int) -> np.ndarray:
        result = np.ones(1, np.int64)
        while len(result) < count:
            result = np.concatenate([result, result * pow(base, len(result), p) % p])
        return result

    q = (p - 1) // 2
    babies = powers(4, _BABY)
    order = np.argsort(babies)
    ordered = babies[order]
    giants = powers(pow(4, -_BABY, p), q // _BABY + 1)
    reached = giants * (values * values % p)[:, None] % p
    place = np.minimum(np.searchsorted(ordered, reached), _BABY - 1)
    hit = ordered[place] == reached
    giant = hit.argmax(1)
    baby = order[place[np.arange(len(values)), giant]]
    return (giant * _BABY + baby) % q
