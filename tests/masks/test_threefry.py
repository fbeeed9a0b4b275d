"""Random words in blocks: the bits of JAX's own generator, whatever the shape, the key, the
precision and the transformation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad.jaxprs.versions import enable_x64
from jaxgrad.masks import threefry
from jaxgrad.masks.threefry import key_of, words


def expected(key, shape):
    with jax.threefry_partitionable(False):
        return jax.random.bits(key, shape, jnp.uint32)


def blocks_in(function, *args):
    return "_in_blocks" in str(jax.make_jaxpr(function)(*args))


SHAPES = [
    (8192,),
    (8193,),
    (99, 99),
    (3, 2**17 + 5),
    (63, 64, 64),
    (2**17 + 2,),
    (2 * 65537,),
    (7, 31, 777),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("x64", [False, True])
def test_they_are_the_words_of_jax_bit_for_bit(shape, x64):
    with enable_x64(x64):
        for key in (
            jax.random.key(7),
            jax.random.PRNGKey(2**31 - 1),
            jax.random.fold_in(jax.random.key(0), 2**32 - 1),
        ):
            assert blocks_in(lambda key: words(key, shape), key)
            found = words(key, shape)
            assert found.dtype == jnp.uint32 and found.shape == shape
            assert (found == expected(key, shape)).all()


def test_keys_in_a_batch_and_in_a_loop_give_the_words_of_each():
    keys, shape = jax.random.split(jax.random.key(1), 4), (31, 301)
    wanted = np.stack([expected(key, shape) for key in keys])
    assert (jax.vmap(lambda key: words(key, shape))(keys) == wanted).all()
    assert (jax.lax.map(lambda key: words(key, shape), keys) == wanted).all()


def test_small_draws_other_generators_and_other_devices_are_left_to_jax(monkeypatch):
    key, large = jax.random.key(0), (threefry.FEWEST,)
    assert blocks_in(lambda key: words(key, large), key)
    assert not blocks_in(lambda key: words(key, (threefry.FEWEST - 1,)), key)
    for other in ("rbg", "unsafe_rbg"):
        assert not blocks_in(lambda key: words(key, large), jax.random.key(0, impl=other))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not blocks_in(lambda key: words(key, large), key)


@pytest.mark.parametrize("shape", [(3, 4), (100, 100)], ids=str)
@pytest.mark.parametrize(
    "key",
    [jax.random.split(jax.random.key(0), 2), np.zeros((2, 2), np.uint32), 0, [0, 1]],
    ids=["typed keys", "raw keys", "a number", "a list"],
)
def test_what_is_no_key_is_refused_alike_at_all_sizes(key, shape):
    with pytest.raises(TypeError, match="`key` must be one key"):
        jg.masks.Bernoulli(0.5).sample(key, shape)


@pytest.mark.parametrize("key", [jax.random.key(0), jax.random.PRNGKey(0)], ids=["typed", "raw"])
def test_a_function_that_draws_with_a_key_of_its_own_is_refused_as_random(key):
    def noisy(x):
        return x * jg.masks.Bernoulli(0.5).sample(key, (100, 100)).sum()

    with pytest.raises(ValueError, match="`f` draws random numbers"):
        jg.certify(noisy, lambda x: x, jnp.ones(()))


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, -1])
def test_a_key_is_that_of_jax_whatever_the_seed_the_precision_and_the_generator(seed):
    for x64 in (False, True):
        for generator in ("threefry2x32", "rbg"):
            with enable_x64(x64), jax.default_prng_impl(generator):
                wanted, found = (outcome(make, seed) for make in (jax.random.key, key_of))
                assert found == wanted


def outcome(make, seed):
    """Return the kind of a key and its words, or the kind of the error in its place."""
    try:
        key = make(seed)
    except Exception as error:
        return type(error)
    return key.dtype, np.asarray(jax.random.key_data(key)).tolist()
