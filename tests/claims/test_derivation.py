"""The claim: its shapes, domains and draws, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad import Derivation, masks
from jaxgrad.claims import shapes
from jaxgrad.claims.domains import DOMAINS, draw_from
from jaxgrad.jaxprs.versions import enable_x64

GOOD = {
    "name": "square",
    "loss": lambda x: (x**2).sum(),
    "gradient": lambda x: {"x": 2 * x},
    "shapes": {"x": "m n"},
}


def test_equal_keys_draw_equal_inputs_and_other_keys_others():
    derivation = Derivation(**GOOD)
    first, again, other = (derivation.inputs(jax.random.key(seed))["x"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize("entry", jg.catalog.all(), ids=lambda d: d.name)
def test_inputs_have_the_declared_shapes_and_the_precision_in_force(entry):
    for x64 in (False, True):
        with enable_x64(x64):
            sizes = entry.choose_sizes(0)
            drawn = entry.inputs(jax.random.key(0))
            assert list(drawn) == list(entry.shapes)
            for name, array in drawn.items():
                assert array.shape == shapes.evaluate(entry.shapes[name], sizes)
                assert array.dtype == (jnp.float64 if x64 else jnp.float32)
            entry.loss(**drawn)


@pytest.mark.parametrize("entry", jg.catalog.all(), ids=lambda d: d.name)
def test_sizes_are_distinct_and_each_pair_comes_in_both_orders(entry):
    names = shapes.names(entry.shapes)
    choices = [entry.choose_sizes(variant) for variant in range(2)]
    for sizes in choices:
        assert len(set(sizes.values())) == len(names)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert (choices[0][a] < choices[0][b]) != (choices[1][a] < choices[1][b])


def test_domains_draw_what_they_say():
    rng = np.random.default_rng(0)
    draws = {name: draw(rng, (5, 5)) for name, draw in DOMAINS.items()}
    assert draws["real"].min() < 0 < draws["real"].max()
    assert draws["positive"].min() > 0
    assert 0 < draws["probability"].min() and draws["probability"].max() < 1
    assert set(np.unique(draws["binary"])) == {0.0, 1.0}
    assert set(np.unique(draws["sign"])) == {-1.0, 1.0}
    assert set(np.unique(draws["one_hot"])) == {0.0, 1.0} and np.all(draws["one_hot"].sum(-1) == 1)
    assert set(np.unique(draw_from("index n", rng, (50,), {"n": 3}))) == {0, 1, 2}
    assert set(np.unique(draw_from("index n", rng, (50,), {"n": 3}, special=True))) == {0, 2}
    assert np.issubdtype(draws["integer"].dtype, np.integer) and draws["integer"].min() < 0
    np.testing.assert_allclose(draws["simplex"].sum(-1), 1, rtol=1e-12)
    np.testing.assert_allclose(draws["spd"], draws["spd"].T)
    assert np.linalg.eigvalsh(draws["spd"]).min() > 0
    np.testing.assert_allclose(draws["orthogonal"] @ draws["orthogonal"].T, np.eye(5), atol=1e-12)


def test_special_draws_hold_an_exact_zero_and_a_tie():
    derivation = Derivation(**GOOD)
    for seed in range(20):
        x = np.ravel(derivation.arrays(jax.random.key(seed), {"m": 2, "n": 2}, special=True)["x"])
        assert 0.0 in x and len(np.unique(x)) < 4


def test_the_cotangent_of_a_vjp_gets_the_shape_of_the_output():
    derivation = Derivation.from_vjp(
        "matmul", lambda x, y: x @ y, lambda x, y, ct: {"x": ct @ y.T}, {"x": "m n", "y": "n p"}
    )
    assert derivation.shapes["cotangent"] == "m p"
    given = Derivation.from_vjp(
        "flat",
        lambda x: x.ravel(),
        lambda x, ct: {"x": ct.reshape(x.shape)},
        {"x": "m n"},
        cotangent="m*n",
    )
    assert jg.verify(given).verdict == "confirmed"


def test_a_mask_may_depend_on_sizes():
    entry = jg.catalog.get("masked_autoencoder_features")
    assert entry.distribution({"m": 3, "n": 6, "p": 2}).mean(6).shape == (6,)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"name": ""}, TypeError, "`name`"),
        ({"loss": 3}, TypeError, "`loss` must be a function"),
        ({"shapes": {}}, TypeError, "`shapes` must map"),
        ({"shapes": {"x": 3}}, TypeError, "'m n'"),
        ({"shapes": {"x": "m 2+n"}}, ValueError, "is not a shape"),
        ({"shapes": {"y": "m n"}}, ValueError, "does not fit the inputs"),
        ({"mask": masks.Bernoulli(0.5)}, ValueError, "no entry 'mask'"),
        ({"domains": {"y": "real"}}, ValueError, "not an input"),
        ({"domains": {"x": "reel"}}, ValueError, "unknown; use one of real"),
        (
            {"domains": {"x": lambda key, shape: jnp.zeros(3)}},
            ValueError,
            r"must return shape .*, but returned \(3,\)",
        ),
        ({"domains": {"x": "spd"}}, ValueError, "square matrix"),
    ],
)
def test_a_claim_that_contradicts_itself_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        Derivation(**{**GOOD, **change}).inputs(jax.random.key(0))


def test_unknown_and_impossible_sizes_are_refused():
    derivation = Derivation(**GOOD)
    with pytest.raises(ValueError, match=r"`sizes` names q; the sizes of square are m, n"):
        derivation.inputs(jax.random.key(0), {"q": 3})
    with pytest.raises(ValueError, match="positive integer"):
        derivation.inputs(jax.random.key(0), {"m": 0})
