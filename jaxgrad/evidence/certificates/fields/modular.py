"""Arithmetic modulo many primes at once, with signs, roots, exponentials and logarithms.

For a prime q with p = 2q + 1 prime too, the nonzero numbers modulo p are ±1 times the squares. The
squares are a group of order q: what the exponential makes of the numbers modulo q. So the field has
what the real line has:

    positive  x is positive when it is a square; products and signs behave, since −1 is no square
    exp, log  exp(a) = ω^(a mod q) maps the numbers modulo q one to one onto the positive ones
    roots     √x = x^((p+1)/4) is the positive root of a positive x, and uʳ = exp(r·log u)

A number is therefore carried modulo p and modulo q. (Wu et al., Mirage, OSDI 2025, arXiv
2405.05751, use such pairs for the exponential; here the index of the squares is 2, so that signs
and logarithms fit in as well.) Order is not what the reals have: positive numbers can sum to a
negative one.

Every draw has its own prime out of `PRIMES`, so that no constant is zero or of the wrong sign in
all of them. The primes are those between 2³¹ and 2^31.5 with p ≡ 7 (mod 8) and with 2, 3, 5, … 47
squares: products fit in 64 bits, and the constants of programs are positive when they look so.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from jaxgrad.evidence.certificates.fields.logarithms import log4
from jaxgrad.jaxprs.hashing import scramble

PRIMES = (
    3024630839,
    3023947079,
    3022032719,
    3010205519,
    2987875679,
    2979318359,
    2960181839,
    2952375599,
    2940126719,
    2936016599,
    2929911599,
    2925076439,
    2893729439,
    2876836199,
    2864981759,
    2839848959,
    2828975159,
    2825626319,
    2801845199,
    2798772479,
    2782929239,
    2774022599,
    2763864479,
    2763137159,
    2746183079,
    2702334599,
    2701785239,
    2671104959,
    2668187759,
    2656988879,
    2639931719,
    2639429399,
    2634158159,
    2611020359,
    2607732599,
    2605466639,
    2603268359,
    2571620999,
    2546952119,
    2511508919,
    2510073719,
    2502041519,
    2458135319,
    2443279439,
    2441622959,
    2428280399,
    2398878719,
    2387379959,
    2357451599,
    2316843359,
    2310685439,
    2302576559,
    2240631839,
    2222964119,
    2216435399,
    2204099999,
)
"""Safe primes p = 2q + 1; both p and q are prime."""

_TERMS = 2**14
_LARGE = 2**16


class Modulus:
    """Arithmetic of arrays (draw, …) of numbers, the k-th draw modulo ``of[k]``."""

    def __init__(self, of: np.ndarray) -> None:
        """Take one modulus per draw."""
        self.of = of

    def like(self, x: np.ndarray) -> np.ndarray:
        """Return the moduli, shaped so that they broadcast against `x`."""
        return self.of.reshape(-1, *(1,) * (x.ndim - 1))

    def reduce(self, x: np.ndarray) -> np.ndarray:
        """Return x mod the moduli, in [0, modulus)."""
        return x % self.like(x)

    def multiply(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return a·b."""
        return self.reduce(a * b)

    def matmul(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the product of matrices (draw, …, m, c) and (draw, …, c, n).

        It is computed in halves, so that sums fit in 64 bits.
        """
        multiply = self._in_floats if a.size * b.shape[-1] > _LARGE else self._in_integers
        total = np.zeros((), np.int64)
        for k in range(0, max(1, a.shape[-1]), _TERMS):
            part = multiply(a[..., k : k + _TERMS], b[..., k : k + _TERMS, :])
            total = part if k == 0 else self.reduce(total + part)
        return total

    def _in_integers(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        high = self.reduce((a >> 16) @ b) << 16
        return self.reduce(high + (a & 0xFFFF) @ b)

    def _in_floats(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Multiply halves of 16 bits in float64, which BLAS is fast at.

        Sums of 2·2¹⁴ products stay below 2⁵³ and exact.
        """
        above, below = (a >> 16).astype(float), (a & 0xFFFF).astype(float)
        over, under = (b >> 16).astype(float), (b & 0xFFFF).astype(float)
        middle = (above @ under + below @ over).astype(np.int64)
        high = self.reduce((self.reduce((above @ over).astype(np.int64)) << 16) + middle) << 16
        return self.reduce(high + (below @ under).astype(np.int64))

    def power(self, x: np.ndarray, exponent: np.ndarray | int) -> np.ndarray:
        """Return x^exponent for exponents ≥ 0, one number or an array that broadcasts against x."""
        exponent = np.asarray(exponent, np.int64)
        result = np.ones(np.broadcast_shapes(x.shape, exponent.shape), np.int64)
        bits = int(exponent.max(initial=0)).bit_length()
        for i in reversed(range(bits)):
            result = self.multiply(result, result)
            result = np.where(exponent >> i & 1, self.multiply(result, x), result)
        return result

    def inverse(self, x: np.ndarray) -> np.ndarray:
        """Return 1/x; 0 where x is 0."""
        return self.power(x, self.like(x) - 2)

    def root(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return √x, itself a square, and whether x is a square; else the root of −x."""
        result = self.power(x, (self.like(x) + 1) // 4)
        return result, self.multiply(result, result) == x

    def fraction(self, numerator: int, denominator: int) -> np.ndarray:
        """Return a fraction modulo the prime of each draw."""
        if denominator == 1 and abs(numerator) < 2**62:
            return numerator % self.of
        if len(self.of) > len(self._different[0]):
            return Modulus(self._different[0]).fraction(numerator, denominator)[self._different[1]]
        return np.array(
            [numerator * pow(denominator, -1, int(m)) % int(m) for m in self.of], np.int64
        )

    @cached_property
    def _different(self) -> tuple[np.ndarray, np.ndarray]:
        """The moduli, each once, and which of them every draw has."""
        return np.unique(self.of, return_inverse=True)


class Draws:
    """The fields of `count` draws: numbers modulo p and modulo q, and what only p knows.

    Args:
        count: number of draws.
        seed: chooses the primes, the bases of exp, and all random values.
        primes: choose among these; tables for logarithms are kept for each of them.
    """

    def __init__(self, count: int, seed: int, primes: Sequence[int] = PRIMES) -> None:
        """Choose primes and bases."""
        self.count, self.seed = count, seed
        self.random = np.random.default_rng(seed)
        pool = np.array(primes, np.int64)
        chosen = self.random.permutation(pool)[: max(1, count)]
        self.which = np.arange(count) % len(chosen)
        self.p, self.q = Modulus(chosen[self.which]), Modulus((chosen[self.which] - 1) // 2)
        self.salt = scramble(chosen.astype(np.uint64) + np.uint64(seed))[self.which]
        bases = [int(pow(int(self.random.integers(2, m - 1)), 2, int(m))) for m in chosen]
        self.bases, self.primes = bases, chosen

    @property
    def smallest(self) -> int:
        """The smallest modulus."""
        return int(min(self.p.of.min(), self.q.of.min()))

    @cached_property
    def _windows(self) -> np.ndarray:
        """ω^(d·2^(8i)) for each prime, i < 4 and d < 256."""
        p = Modulus(self.primes)
        steps = np.ones((len(self.primes), 4, 1), np.int64)
        base = np.stack([p.power(np.array(self.bases), 1 << s) for s in (0, 8, 16, 24)], 1)[
            ..., None
        ]
        while steps.shape[-1] < 256:
            steps = np.concatenate([steps, p.multiply(steps, base)], -1)
            base = p.multiply(base, base)
        return steps

    def uniform(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Draw numbers modulo p and modulo q."""
        shape = (self.count, *shape)
        words = self.random.integers(0, 2**62, (2, *shape))
        return self.p.reduce(words[0]), self.q.reduce(words[1])

    def hashed(self, name: str, *keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return numbers modulo p and q that are a random but fixed function of the keys."""
        words = scramble(
            self.salt ^ np.uint64(int.from_bytes(name.encode()[:32], "little") % (2**64 - 59))
        )
        words = words.reshape(-1, *(1,) * (keys[0].ndim - 1))
        for key in keys:
            words = scramble(words ^ scramble(key.astype(np.uint64)))
        p, q = (
            (words >> np.uint64(1)).astype(np.int64),
            (scramble(words) >> np.uint64(1)).astype(np.int64),
        )
        return self.p.reduce(p), self.q.reduce(q)

    def positive(self, x: np.ndarray) -> np.ndarray:
        """Say where x is a nonzero square modulo p."""
        return self.p.root(x)[1] & (x != 0)

    def exp(self, a: np.ndarray) -> np.ndarray:
        """Return ω^a modulo p of residues a modulo q."""
        rows = self.which.reshape(-1, *(1,) * (a.ndim - 1))
        result = self._windows[rows, 0, a & 0xFF]
        for i in (1, 2, 3):
            result = self.p.multiply(result, self._windows[rows, i, a >> 8 * i & 0xFF])
        return result

    def log(self, x: np.ndarray) -> np.ndarray:
        """Return the a modulo q with ω^a = x, for positive x."""
        result = np.zeros(x.shape, np.int64)
        for k in np.unique(self.which):
            mine, p = self.which == k, int(self.primes[k])
            q = (p - 1) // 2
            scale = pow(int(log4(p, np.array(self.bases[k]))), -1, q)
            result[mine] = log4(p, x[mine]) * scale % q
        return result
