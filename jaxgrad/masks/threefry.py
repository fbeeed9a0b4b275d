"""Keys and random words for masks: those of `jax.random`, bit for bit, in less time on a CPU.

JAX evaluates Threefry-2x32 on a CPU as a loop over groups of rounds, each of which reads all words
from memory and writes them back. Here the twenty rounds of a block of counters are one operation,
so that a word is written once. A loop runs over the blocks: without it XLA fuses the rounds into
whatever uses the words, which may be several times slower. The two words that a counter gives leave
it as one of 64 bits: of an operation with two results XLA would make two, and each would go through
all rounds.

Salmon et al., SC (2011) 16, "Parallel random numbers: as easy as 1, 2, 3".
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxgrad.jaxprs.versions import enable_x64

BLOCK = 2**16
"""Counters in a block, at most; each gives two words."""

FEWEST = 2**13
"""Draws of fewer words are left to JAX, whose program is a fraction of the size and so is sooner
compiled, or read.
"""

_MOST = 2**32 - 1
"""Draws of more words than there are counters are left to JAX, which splits the key."""

_PARITY = np.uint32(0x1BD11BDA)
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def words(key: Array, shape: tuple[int, ...]) -> Array:
    """Draw 32 random bits for each entry.

    Both words of a Threefry block are used, which halves the cost of a draw.

    >>> with jax.threefry_partitionable(False):
    ...     bits = jax.random.bits(jax.random.key(1), (99, 99), jnp.uint32)
    >>> bool((words(jax.random.key(1), (99, 99)) == bits).all())
    True
    """
    ours = FEWEST <= math.prod(shape) <= _MOST and jax.default_backend() == "cpu"
    if ours and str(jax.random.key_impl(key)) == "threefry2x32":
        # a raw key is wrapped, as JAX does, and so leaves a sign in programs by which a function
        # that draws is known
        typed = (
            key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
        )
        if typed.shape == ():  # JAX says what is wrong with an array of keys
            return _in_blocks(jax.random.key_data(typed), shape)
    with jax.threefry_partitionable(False):
        return jax.random.bits(key, shape, jnp.uint32)


def key_of(seed: int) -> Array:
    """Return ``jax.random.key(seed)``, for which JAX would compile a program.

    >>> key_of(7) == jax.random.key(7)
    Array(True, dtype=bool)
    """
    if 0 <= seed < 2**32 and jax.config.values["jax_default_prng_impl"] == "threefry2x32":
        return jax.random.wrap_key_data(
            jax.device_put(np.array([0, seed], np.uint32)), impl="threefry2x32"
        )
    return jax.random.key(seed)


@functools.partial(jax.jit, static_argnums=1)
def _in_blocks(key: Array, shape: tuple[int, ...]) -> Array:
    """Return the words of the counters (i, i + half): all first words, then all second ones."""
    size = math.prod(shape)
    half = -(-size // 2)
    fewest = max(2, -(-half // BLOCK))  # XLA would dissolve a loop of one step
    blocks = next(
        (n for n in range(fewest, 2 * fewest) if half % n == 0), fewest
    )  # else words are copied once more
    length = -(-half // blocks)

    def block(_: None, number: Array) -> tuple[None, Array]:
        first = number * np.uint32(length) + jax.lax.iota(np.uint32, length)
        second = first + np.uint32(half)
        if (
            size % 2
        ):  # the last of the counters is none of the 0 … size − 1, and JAX takes 0 in its place
            second = jnp.where(first == np.uint32(half - 1), np.uint32(0), second)
        first, second = (
            jax.lax.convert_element_type(word, np.uint64) for word in _threefry(key, first, second)
        )
        return None, first | jax.lax.shift_left(second, jnp.full_like(second, 32))

    with enable_x64(True):  # for integers of 64 bits
        both = jax.lax.scan(block, None, jax.lax.iota(np.uint32, blocks))[1]
        return (
            jax.lax.bitcast_convert_type(both.ravel()[:half], np.uint32)
            .T.ravel()[:size]
            .reshape(shape)
        )


def _threefry(key: Array, first: Array, second: Array) -> tuple[Array, Array]:
    """Encrypt pairs of words by the twenty rounds of Threefry-2x32."""
    keys = key[0], key[1], key[0] ^ key[1] ^ _PARITY
    first, second = first + keys[0], second + keys[1]
    for i in range(5):
        for shift in _ROTATIONS[i % 2]:
            first = first + second
            second = (second << np.uint32(shift)) | (second >> np.uint32(32 - shift))
            second = second ^ first
        first, second = first + keys[(i + 1) % 3], second + keys[(i + 2) % 3] + np.uint32(i + 1)
    return first, second
