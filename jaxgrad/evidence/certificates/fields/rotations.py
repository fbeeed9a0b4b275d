"""Fields in which sine and cosine have their laws, in place of exponentials.

For a prime p ≡ 3 modulo 4 the numbers a + bi modulo p with a² + b² = 1 are a group of order p + 1,
the rotations. Where a prime r divides p + 1, some rotation z has order r, and z^a = cos a + i·sin a
makes of the numbers modulo r what rotation by an angle makes of the reals: cos² + sin² = 1, both
sums of angles, cos even and sin odd. Angles are carried modulo r, as exponents are modulo q in
`jaxgrad.evidence.certificates.fields.modular`; one field does not have both. Signs and roots modulo
p are as they are there.
"""

from functools import cached_property

import numpy as np

from jaxgrad.evidence.certificates.fields.modular import Draws, Modulus

PRIMES = (
    3032086151,
    3017640071,
    3008320871,
    3002110151,
    2992643111,
    2987764391,
    2976382631,
    2960225831,
    2959417991,
    2953028711,
    2945043911,
    2923049351,
    2918536871,
    2911922471,
    2870677031,
    2866098791,
)
"""Primes p = 24r − 1 ≡ 7 (mod 8) with r prime, r ≡ 3 (mod 4) and 2, 3, 5, … 31 squares modulo p."""

_COFACTOR = 24

Pair = tuple[np.ndarray, np.ndarray]


class Rotations(Draws):
    """Draws whose second numbers are angles: modulo r = (p + 1)/24 instead of q.

    Args:
        count: number of draws.
        seed: chooses the primes, the rotations and all random values.
    """

    def __init__(self, count: int, seed: int) -> None:
        """Choose primes and rotations."""
        super().__init__(count, seed, PRIMES)
        self.q = Modulus((self.p.of + 1) // _COFACTOR)
        self.generators = [self._generator(int(p)) for p in self.primes]

    def _generator(self, p: int) -> tuple[int, int]:
        """Return a random rotation of order r: the 24th power of z̄/z."""
        while True:
            a, b = (int(x) for x in self.random.integers(1, p, 2))
            inverse = pow(a * a + b * b, -1, p)
            turn = (a * a - b * b) * inverse % p, -2 * a * b * inverse % p
            result = 1, 0
            for _ in range(_COFACTOR):
                result = (
                    (result[0] * turn[0] - result[1] * turn[1]) % p,
                    (result[0] * turn[1] + result[1] * turn[0]) % p,
                )
            if result != (1, 0):
                return result

    @cached_property
    def _turns(self) -> Pair:
        """z^(d·2^(8i)) for each prime, i < 4 and d < 256."""
        p = Modulus(self.primes)
        step: Pair = (
            np.array([[g[0]] for g in self.generators]),
            np.array([[g[1]] for g in self.generators]),
        )
        windows: list[Pair] = []
        for _ in range(4):
            turns: Pair = (np.ones_like(step[0]), np.zeros_like(step[0]))
            while turns[0].shape[-1] < 256:
                more = _turned(p, turns, step)
                turns = (
                    np.concatenate([turns[0], more[0]], -1),
                    np.concatenate([turns[1], more[1]], -1),
                )
                step = _turned(p, step, step)
            windows.append(turns)
        return np.stack([w[0] for w in windows], 1), np.stack([w[1] for w in windows], 1)

    def rotation(self, angle: np.ndarray) -> Pair:
        """Return the cosine and the sine, numbers modulo p, of angles modulo r."""
        rows = self.which.reshape(-1, *(1,) * (angle.ndim - 1))
        cosines, sines = self._turns
        parts = [
            (cosines[rows, i, angle >> 8 * i & 0xFF], sines[rows, i, angle >> 8 * i & 0xFF])
            for i in range(4)
        ]
        result = parts[0]
        for part in parts[1:]:
            result = _turned(self.p, result, part)
        return result


def _turned(p: Modulus, x: Pair, y: Pair) -> Pair:
    """Return the product of two rotations."""
    (a, b), (c, d) = x, y
    return p.reduce(p.multiply(a, c) - p.multiply(b, d)), p.reduce(
        p.multiply(a, d) + p.multiply(b, c)
    )
