"""What masks say of parameters, keys and sizes that they cannot use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import masks
from tests.masks.test_masks import sampled


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: masks.Bernoulli(1.5), ValueError, r"`prob` must be a probability in \[0, 1\]"),
        (lambda: masks.Bernoulli(float("nan")), ValueError, "`prob` must be a probability"),
        (lambda: masks.Bernoulli("half"), ValueError, "`prob` must be"),
        (lambda: masks.FeatureBernoulli([0.5, -0.1]), ValueError, "`probs` must be a probability"),
        (lambda: masks.FeatureBernoulli(0.5), ValueError, "`probs` must be a vector"),
        (
            lambda: masks.FeatureBernoulli([0.5, 0.5]).mean(3),
            ValueError,
            r"`probs` has shape \(2,\), but the mask has 3 columns",
        ),
        (lambda: masks.Bernoulli(np.array([0.5, 7.0])), ValueError, "`prob` must be a probability"),
        (
            lambda: masks.Bernoulli(jnp.array([[0.5], [-1.0]])),
            ValueError,
            "`prob` must be a probability",
        ),
        (lambda: masks.FeatureBernoulli([[0.5, 1.5]]), ValueError, "`probs` must be a probability"),
        (
            lambda: masks.FeatureBernoulli([[0.5], [0.5, 0.2]]),
            ValueError,
            "`probs` must be a vector",
        ),
        (lambda: masks.FeatureBernoulli({}), ValueError, "`probs` must be a vector"),
        (lambda: masks.Patches(b"1", 2), ValueError, "`prob` must be a number, but is b'1'"),
        (
            lambda: masks.Bernoulli(np.array([0.5, 0.2])).mean(2),
            ValueError,
            r"`prob` holds an array of shape \(2,\).*jax.vmap",
        ),
        (
            lambda: masks.RandomRatio([0, 1], [0, 1]),
            ValueError,
            r"`low` must be a number, but is \[0, 1\]",
        ),
        (
            lambda: masks.RandomRatio(0.1, np.ones(2)).second_moment(2),
            ValueError,
            r"`high` holds an array of shape \(2,\)",
        ),
        (lambda: masks.RandomRatio(b"1", 1.0), ValueError, "`low` must be a number"),
        (
            lambda: masks.MultiplicativeGaussian(np.array([0.5, -3])),
            ValueError,
            "`variance` must be a finite number of at least 0",
        ),
        (
            lambda: masks.MultiplicativeGaussian(None),
            ValueError,
            "`variance` must be a finite number of at least 0, but is None",
        ),
        (
            lambda: masks.MultiplicativeGaussian(b"1"),
            ValueError,
            "`variance` must be a finite number of at least 0",
        ),
        (
            lambda: masks.MultiplicativeGaussian(1 + 0j),
            ValueError,
            "`variance` must be a finite number of at least 0",
        ),
        (lambda: masks.Patches(0.5, 0), ValueError, "`patch_size` must be at least 1, but is 0"),
        (lambda: masks.Patches(0.5, 2.0), TypeError, "`patch_size` must be an integer"),
        (
            lambda: masks.Patches(0.5, 2).mean(5),
            ValueError,
            "`patch_size` 2 does not divide the 5 columns",
        ),
        (lambda: masks.GridPatches(2, (2, 2), (1, 1)), ValueError, "`prob` must be a probability"),
        (
            lambda: masks.GridPatches(0.5, (4, 4), (3, 2)),
            ValueError,
            r"`patch` \(3, 2\) does not divide the `image` \(4, 4\)",
        ),
        (
            lambda: masks.GridPatches(0.5, 16, (2, 2)),
            TypeError,
            "`image` must be a pair of integers",
        ),
        (
            lambda: masks.GridPatches(0.5, (4, 4), (2, 0)),
            ValueError,
            "`patch` must be at least 1, but is 0",
        ),
        (
            lambda: masks.GridPatches(0.5, (4, 4), (2, 2)).mean(15),
            ValueError,
            r"`image` \(4, 4\) has 16 pixels",
        ),
        (lambda: masks.FixedCount(-1), ValueError, "`count` must be at least 0"),
        (lambda: masks.FixedCount(4).mean(3), ValueError, "`count` 4 exceeds the 3 columns"),
        (lambda: masks.Spans(0), ValueError, "`length` must be at least 1"),
        (lambda: masks.Spans(2.5), TypeError, "`length` must be an integer"),
        (lambda: masks.Spans(2, keep=1), TypeError, "`keep` must be True or False"),
        (lambda: masks.Spans(4).second_moment(3), ValueError, "`length` 4 exceeds the 3 columns"),
        (lambda: masks.RandomRatio(0.8, 0.2), ValueError, "`low` 0.8 must not exceed `high` 0.2"),
        (lambda: masks.RandomRatio(-0.1, 0.2), ValueError, "`low` must be a probability"),
        (lambda: masks.RandomRatio(0.1, 1.2), ValueError, "`high` must be a probability"),
        (
            lambda: masks.MultiplicativeGaussian(-1),
            ValueError,
            "`variance` must be a finite number of at least 0",
        ),
        (
            lambda: masks.MultiplicativeGaussian(float("inf")),
            ValueError,
            "`variance` must be a finite number",
        ),
        (
            lambda: masks.MultiplicativeGaussian(1).support((2, 3)),
            ValueError,
            "takes every value, so its masks cannot be listed",
        ),
        (
            lambda: masks.Bernoulli(0.5).sample(jax.random.key(0), 3),
            TypeError,
            "`shape` must be a sequence of integers",
        ),
        (
            lambda: masks.Bernoulli(0.5).sample(jax.random.key(0), (2.5,)),
            TypeError,
            "`shape` must be a sequence of integers",
        ),
        (
            lambda: masks.Bernoulli(0.5).sample(jax.random.key(0), (2, 0)),
            ValueError,
            "`shape` must have at least one axis",
        ),
        (
            lambda: masks.Bernoulli(0.5).support((50, 10)),
            ValueError,
            r"`shape` \(50, 10\) has 1024\^50 masks, too many",
        ),
        (
            lambda: masks.Bernoulli(0.5).support((30,)),
            ValueError,
            r"all masks of 30 independent coins a row, 2\^30",
        ),
        (
            lambda: masks.FixedCount(32).support((64,)),
            ValueError,
            r"C\(64, 32\) masks a row, too many",
        ),
    ],
)
def test_bad_input_is_named_with_what_would_be_right(make, error, message):
    with pytest.raises(error, match=message):
        make()


@sampled
@pytest.mark.parametrize(
    "key",
    [0, None, np.zeros(2), np.zeros(5, np.uint32), jax.random.split(jax.random.key(0))],
    ids=repr,
)
def test_what_is_not_one_key_is_refused_by_name(mask, n, key):
    with pytest.raises(TypeError, match="`key` must be one key such as"):
        mask.sample(key, (n,))


@sampled
@pytest.mark.parametrize(
    ("wrong", "kind"),
    [(0, ValueError), (-2, ValueError), (2.0, TypeError), ("a", TypeError), (None, TypeError)],
)
def test_what_is_no_number_of_columns_is_refused_by_name(mask, n, wrong, kind):
    for of in (mask.mean, mask.second_moment, getattr(mask, "support_size", mask.mean)):
        with pytest.raises(kind, match="`n` must be"):
            of(wrong)
