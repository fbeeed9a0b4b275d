"""Every mask distribution: its moments against its own list of masks, and its draws against its
moments.
"""

import itertools
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import masks
from jaxgrad.jaxprs.versions import enable_x64
from jaxgrad.masks import choices
from tests.draws import fast

LISTED = {
    "Bernoulli": (masks.Bernoulli(0.3), 4),
    "Bernoulli that keeps all": (masks.Bernoulli(1.0), 3),
    "FeatureBernoulli": (masks.FeatureBernoulli([0.1, 0.5, 1.0, 0.0]), 4),
    "Patches": (masks.Patches(0.7, 2), 6),
    "GridPatches": (masks.GridPatches(0.4, image=(4, 3), patch=(2, 1)), 12),
    "GridPatches that are pixels": (masks.GridPatches(0.4, image=(2, 2), patch=(1, 1)), 4),
    "FixedCount": (masks.FixedCount(2), 5),
    "FixedCount of none": (masks.FixedCount(0), 3),
    "FixedCount of one entry": (masks.FixedCount(1), 1),
    "Spans": (masks.Spans(3), 5),
    "Spans of one": (masks.Spans(1), 4),
    "Spans of all": (masks.Spans(4), 4),
    "Spans that are kept": (masks.Spans(2, keep=True), 5),
    "long Spans": (masks.Spans(4), 5),
    "RandomRatio": (masks.RandomRatio(0.2, 0.9), 4),
    "RandomRatio of one value": (masks.RandomRatio(0.25, 0.25), 3),
    "RandomRatio of all values": (masks.RandomRatio(0, 1), 7),
}
"""{name: (mask, number of columns)}, all that can be listed."""

SAMPLED = {
    **LISTED,
    "FixedCount of long rows": (masks.FixedCount(15), 40),
    "MultiplicativeGaussian": (masks.MultiplicativeGaussian(0.5), 3),
}

listed = pytest.mark.parametrize(("mask", "n"), LISTED.values(), ids=LISTED)
sampled = pytest.mark.parametrize(("mask", "n"), SAMPLED.values(), ids=SAMPLED)


def rows_of(mask, *shape):
    """The rows, or masks, and their probabilities, as numpy arrays in float64."""
    with enable_x64(True):
        return tuple(map(np.asarray, fast(lambda mask: mask.support(shape))(mask)))


def draws_of(mask, seed, *shape):
    """A draw as a numpy array in float64."""
    return np.asarray(
        fast(lambda mask, key: mask.sample(key, shape))(mask, jax.random.key(seed)), np.float64
    )


def moments_of(mask, n):
    """Mean and second moment as numpy arrays."""
    return tuple(map(np.asarray, fast(lambda mask: (mask.mean(n), mask.second_moment(n)))(mask)))


@listed
def test_the_listed_probabilities_are_probabilities_and_sum_to_one(mask, n):
    rows, probabilities = rows_of(mask, n)
    assert rows.dtype == probabilities.dtype == np.float64
    assert (probabilities >= -1e-16).all()
    assert probabilities.sum() == pytest.approx(1, abs=1e-14)


@listed
def test_no_row_is_listed_twice_and_their_number_is_known_beforehand(mask, n):
    rows, _ = rows_of(mask, n)
    assert len({tuple(row) for row in rows}) == len(rows) == mask.support_size(n)
    assert set(rows.ravel()) <= {0.0, 1.0}


@pytest.mark.quick
@listed
def test_mean_and_second_moment_are_those_of_the_listed_masks(mask, n):
    rows, probabilities = rows_of(mask, n)
    with enable_x64(True):
        mean, second = moments_of(mask, n)
    assert mean.dtype == second.dtype == np.float64
    np.testing.assert_allclose(mean, probabilities @ rows, rtol=0, atol=1e-15)
    np.testing.assert_allclose(second, rows.T @ (probabilities[:, None] * rows), rtol=0, atol=1e-15)


@listed
def test_rows_are_listed_as_independent(mask, n):
    if mask.support_size(n) ** 2 > 5000:
        n, mask = 3, masks.RandomRatio(0.2, 0.9)
    rows, probabilities = rows_of(mask, n)
    pairs, chances = rows_of(mask, 2, n)
    expected = {
        (*a, *b): p * q
        for (a, p), (b, q) in itertools.product(zip(rows, probabilities, strict=True), repeat=2)
    }
    found = {tuple(pair.ravel()): chance for pair, chance in zip(pairs, chances, strict=True)}
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(
        [found[k] for k in expected], list(expected.values()), rtol=1e-12, atol=1e-16
    )


@pytest.mark.quick
@sampled
def test_draws_have_the_mean_and_the_second_moment_to_five_standard_errors(mask, n):
    samples = 20_000
    with enable_x64(True):
        draws = draws_of(mask, 1, samples, n)
        mean, second = moments_of(mask, n)
    products = draws[:, :, None] * draws[:, None, :]
    for values, expected in ((draws, mean), (products, second)):
        error = values.std(axis=0) / math.sqrt(samples)
        assert (np.abs(values.mean(axis=0) - expected) <= 5 * error + 1e-15).all()


@listed
def test_what_is_drawn_is_among_what_is_listed(mask, n):
    rows, probabilities = rows_of(mask, n)
    possible = {tuple(row) for row, p in zip(rows, probabilities, strict=True) if p > 1e-15}
    drawn = {tuple(row) for row in draws_of(mask, 2, 500, n)}
    assert drawn <= possible
    assert len(drawn) > 1 or len(possible) == 1


@sampled
def test_the_rows_of_a_draw_are_independent(mask, n):
    """The products of two neighbouring rows of a three-dimensional draw have the products of the
    means as their mean.
    """
    samples = 10_000
    draws = draws_of(mask, 3, samples, 2, n)
    products = draws[:, 0, :, None] * draws[:, 1, None, :]
    mean = moments_of(mask, n)[0].astype(np.float64)
    error = products.std(axis=0) / math.sqrt(samples)
    assert (np.abs(products.mean(axis=0) - mean[:, None] * mean) <= 5 * error + 1e-6).all()


@sampled
def test_a_mask_keeps_its_type_through_jit_and_its_draws_do_not_change(mask, n):
    key = jax.random.key(0)
    drawn, again = fast(lambda m: (m.sample(key, (3, n)), m))(mask)
    assert type(again) is type(mask)
    np.testing.assert_allclose(drawn, mask.sample(key, (3, n)), rtol=1e-6)
    assert isinstance(mask, masks.Mask)


@pytest.mark.parametrize(
    ("make", "at"),
    [
        (masks.Bernoulli, 0.3),
        (lambda p: masks.GridPatches(p, image=(2, 2), patch=(1, 2)), 0.3),
        (lambda a: masks.RandomRatio(a, 0.8), 0.3),
        (lambda b: masks.RandomRatio(0.1, b), 0.4),
    ],
)
def test_second_moments_differentiate_in_the_probabilities_as_the_listed_masks_do(make, at):
    def by_list(p):
        rows, probabilities = make(p).support((4,))
        return rows.T @ (probabilities[:, None] * rows)

    with enable_x64(True):
        found, expected = (
            jax.jacfwd(lambda p: make(p).second_moment(4))(at),
            jax.jacfwd(by_list)(at),
        )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    assert np.abs(found).max() > 0.1


@pytest.mark.quick
@pytest.mark.parametrize("p", [0.0, 1e-9, 0.3, 0.5, 1 - 2**-30, 1.0])
@pytest.mark.parametrize("x64", [False, True])
def test_a_coin_is_1_for_as_many_words_as_its_probability_in_the_default_precision_says(
    p, x64, monkeypatch
):
    below = math.floor((p if x64 else float(np.float32(p))) * 2**32)
    some = [word for word in (0, below - 1, below, 2**32 - 1) if 0 <= word < 2**32]
    monkeypatch.setattr(
        "jaxgrad.masks.distribution.words", lambda key, shape: jnp.array(some, jnp.uint32)
    )
    with enable_x64(x64):
        found = masks.Bernoulli(p).sample(jax.random.key(0), (len(some),))
    assert found.tolist() == [word < below for word in some]


@sampled
def test_a_mask_is_a_tree_of_its_probabilities_that_is_put_together_whatever_stands_in_it(mask, n):
    leaves, tree = jax.tree.flatten(mask)
    again = pickle.loads(pickle.dumps(jax.tree.unflatten(tree, leaves)))
    assert repr(again) == repr(mask)
    for path, leaf in jax.tree_util.tree_leaves_with_path(again):
        np.testing.assert_array_equal(getattr(mask, jax.tree_util.keystr(path)[1:]), leaf)
    below = jax.tree.map(lambda p: -9 - p, mask)
    assert [np.sum(p) < -8 for p in jax.tree.leaves(below)] == [True] * len(leaves)
    assert (
        jax.tree.structure(jax.tree.map(lambda _: object(), mask))
        == tree
        != jax.tree.structure(masks.Patches(0.5, 1))
    )


@pytest.mark.parametrize(
    "mask", [masks.Bernoulli(0.5), masks.FeatureBernoulli([0.5, 0.25, 1.0]), masks.Patches(0.5, 3)]
)
def test_expectations_differentiate_in_a_mask(mask):
    slope = jax.grad(lambda m: 10 * m.mean(3).sum())(mask)
    assert type(slope) is type(mask)
    assert sum(np.sum(leaf) for leaf in jax.tree.leaves(slope)) == 30
    np.testing.assert_array_equal(
        jnp.sum(jax.tree.leaves(jax.jacobian(lambda m: m.mean(3))(mask))[0]), 3
    )


def test_masks_map_over_their_probabilities_as_trees():
    several = masks.GridPatches(jnp.array([0.25, 0.5]), image=(1, 2), patch=(1, 1))
    np.testing.assert_array_equal(
        jax.vmap(lambda m: m.mean(2))(several), [[0.25, 0.25], [0.5, 0.5]]
    )


FACTORED = {
    "Bernoulli": (masks.Bernoulli(0.3), 3),
    "FeatureBernoulli": (masks.FeatureBernoulli([0.1, 0.5, 1.0]), 3),
    "Patches": (masks.Patches(0.7, 2), 6),
    "GridPatches": (masks.GridPatches(0.4, image=(4, 2), patch=(2, 1)), 8),
}


@pytest.mark.parametrize(("mask", "n"), FACTORED.values(), ids=FACTORED)
def test_the_factors_of_a_row_make_the_listed_rows(mask, n):
    with enable_x64(True):
        members, values, weights = mask.factors(n, 3)
        weights = np.asarray(weights)
    assert (members.sum(axis=0) == 1).all(), "every entry hangs on exactly one coin"
    made = {}
    for sides in itertools.product(range(len(values)), repeat=len(members)):
        row = tuple(values[list(sides)] @ members)
        made[row] = math.prod(weights[k, side] for k, side in enumerate(sides))
    rows, probabilities = rows_of(mask, n)
    np.testing.assert_allclose([made[tuple(row)] for row in rows], probabilities, rtol=1e-14)
    assert len(made) == len(rows)


@pytest.mark.parametrize("degree", range(1, 9))
def test_the_places_of_a_normal_number_have_its_moments(degree):
    with enable_x64(True):
        members, values, weights = masks.MultiplicativeGaussian(0.3).factors(2, degree)
        weights = np.asarray(weights)
    assert (members == np.eye(2, dtype=bool)).all()
    for d in range(degree + 1):
        central = 0.3 ** (d / 2) * math.prod(range(1, d, 2)) if d % 2 == 0 else 0.0
        np.testing.assert_allclose(weights @ (values - 1) ** d, central, rtol=1e-10, atol=1e-12)
    assert (
        np.abs(
            weights @ (values - 1) ** (2 * degree + 4)
            - 0.3 ** (degree + 2) * math.prod(range(1, 2 * degree + 4, 2))
        ).min()
        > 1e-6
    )


@pytest.mark.parametrize("degree", range(1, 8))
def test_the_mixture_of_a_random_ratio_has_its_moments(degree):
    mask = masks.RandomRatio(0.2, 0.9)
    with enable_x64(True):
        parts = [(w, float(m.prob)) for w, m in mask.mixture(5, degree)]
    for d in range(degree + 1):
        found = sum(w * p**d for w, p in parts)
        assert found == pytest.approx((0.9 ** (d + 1) - 0.2 ** (d + 1)) / (d + 1) / 0.7, rel=1e-13)


@sampled
def test_a_raw_key_draws_as_a_new_one_does(mask, n):
    drawn = mask.sample(jax.random.key(3), (4, n))
    for raw in (jax.random.PRNGKey(3), np.array([0, 3], np.uint32)):
        np.testing.assert_array_equal(mask.sample(raw, (4, n)), drawn)


def test_one_patch_grid_and_rows_of_patches_agree():
    grid, rows = masks.GridPatches(0.3, image=(1, 6), patch=(1, 2)), masks.Patches(0.3, 2)
    np.testing.assert_array_equal(grid.second_moment(6), rows.second_moment(6))
    key = jax.random.key(0)
    np.testing.assert_array_equal(grid.sample(key, (4, 6)), rows.sample(key, (4, 6)))


def test_a_patch_of_an_image_is_dropped_whole():
    draws = np.asarray(
        masks.GridPatches(0.5, image=(4, 6), patch=(2, 3)).sample(jax.random.key(0), (50, 24))
    )
    blocks = draws.reshape(
        50, 2, 2, 2, 3
    )  # (image, patch row, line in it, patch column, column in it)
    assert (blocks == blocks[:, :, :1, :, :1]).all()
    assert 0.3 < blocks.mean() < 0.7


def test_inverted_dropout_and_multiplicative_noise_have_the_same_two_moments():
    p = 0.4
    coins, noise = masks.Bernoulli(p), masks.MultiplicativeGaussian((1 - p) / p)
    np.testing.assert_allclose(coins.mean(3) / p, noise.mean(3), rtol=1e-6)
    np.testing.assert_allclose(coins.second_moment(3) / p**2, noise.second_moment(3), rtol=1e-6)


def test_masks_vmap_over_their_probabilities():
    means = jax.vmap(lambda p: masks.Bernoulli(p).mean(2))(jnp.array([0.25, 0.5]))
    np.testing.assert_array_equal(means, [[0.25, 0.25], [0.5, 0.5]])


@pytest.mark.parametrize("n", [1, 2, 5, choices.RANKED, choices.RANKED + 1, 300])
@pytest.mark.parametrize(
    "values", [2, 5, 2**32], ids=["mostly ties", "many ties", "hardly any tie"]
)
def test_the_smallest_words_are_those_that_a_stable_sort_puts_first(n, values):
    drawn = np.random.default_rng(n).integers(0, values, (20, n), dtype=np.uint64).astype(np.uint32)
    drawn[0], drawn[1] = 0, 2**32 - 1
    order = np.argsort(drawn, axis=-1, kind="stable")
    for k in {0, 1, n // 3, n - 1, n}:
        kept = np.zeros(drawn.shape, bool)
        np.put_along_axis(kept, order[:, :k], True, axis=-1)
        np.testing.assert_array_equal(choices.smallest(jnp.asarray(drawn), k), kept)
