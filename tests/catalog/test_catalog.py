"""Every closed form of the catalogue against jax.grad, or against the gradient of the enumerated
expectation, in float64.

The tests of this file need no verifier: they are what the verifier's own verdicts are held against.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import catalog
from jaxgrad.catalog import denoising, perceptron, surrogates
from jaxgrad.claims import shapes
from jaxgrad.evidence.expectation.expectation import expectation
from jaxgrad.jaxprs.versions import enable_x64
from tests.draws import draw, fast

NAMES = (
    "inner_product matvec mse mse_matvec two_layer_linear matmul add_bias linear vsum relu "
    "relu_mlp autoencoder_sample autoencoder "
    "autoencoder_mse masked_autoencoder_bernoulli masked_autoencoder_features "
    "masked_autoencoder_patches "
    "masked_autoencoder_fixed_count masked_autoencoder_dropped_loss emphasised_denoising "
    "inverted_dropout marginalised_denoising "
    "mean_gate ridge_map least_squares_map"
).split()
TINY = {"m": 2, "n": 3, "k": 2, "p": 2, "b": 2, "d": 4, "h": 3, "e": 2}


def sizes_of(derivation, variant):
    """Distinct sizes; where a mask has to be enumerated, tiny ones."""
    sizes = derivation.choose_sizes(variant)
    return (
        sizes
        if derivation.mask is None
        else {name: TINY[name] + variant % 2 * (name == "m") for name in sizes}
    )


def claimed_and_true(derivation, variant):
    """The closed form, and the gradient of the loss (or of its expectation, a sum over every mask)
    by jax alone.
    """
    sizes = sizes_of(derivation, variant)
    distribution = derivation.distribution(sizes)

    def both(inputs):
        claimed = derivation.gradient(
            **(inputs if distribution is None else {**inputs, "mask": distribution})
        )

        def loss(wanted):
            if distribution is None:
                return derivation.loss(**{**inputs, **wanted})
            masks, probabilities = distribution.support(
                shapes.evaluate(derivation.shapes["mask"], sizes)
            )
            values = jax.vmap(lambda mask: derivation.loss(**{**inputs, **wanted, "mask": mask}))(
                masks
            )
            return jnp.sum(probabilities * values)

        return claimed, jax.jacrev(loss)({name: inputs[name] for name in claimed})

    with enable_x64(True):
        return fast(both)(draw(derivation, sizes, variant))


def assert_right(derivation, variant):
    claimed, true = claimed_and_true(derivation, variant)
    for wrt in true:
        largest = float(np.max(np.abs(true[wrt])))
        assert largest > 1e-3, f"{wrt}: a gradient of 0 is right for too many formulas"
        assert claimed[wrt].dtype == np.float64
        assert claimed[wrt].shape == true[wrt].shape
        # 1e-12 of the largest entry: a few thousand roundings, and far below any slip worth the
        # name
        np.testing.assert_allclose(
            claimed[wrt], true[wrt], rtol=0, atol=1e-12 * largest, err_msg=wrt
        )


@pytest.mark.parametrize("variant", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_the_closed_form_is_the_gradient(name, variant):
    assert_right(catalog.get(name), variant)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_perceptron_is_right_at_any_depth(depth):
    derivation = perceptron.perceptron_derivation(depth, f"depth_{depth}")
    assert len(derivation.shapes) == 2 + 2 * depth
    assert_right(derivation, 1)


def test_the_catalogue_holds_the_promised_names_in_teaching_order():
    assert [derivation.name for derivation in catalog.all()] == NAMES


def test_an_unknown_name_is_answered_with_the_nearest_ones():
    with pytest.raises(ValueError, match="masked_autoencoder_patches"):
        catalog.get("masked_autoencoder_patch")
    with pytest.raises(ValueError, match="inner_product, matvec"):
        catalog.get("????")


@pytest.mark.parametrize("name", NAMES)
def test_every_derivation_tells_its_formula_and_its_source(name):
    derivation = catalog.get(name)
    assert "\\" in derivation.formula
    assert derivation.formula.count("{") == derivation.formula.count("}")
    assert any(character.isdigit() for character in derivation.reference), "a source has a year"


def test_a_depth_that_is_none_is_refused():
    with pytest.raises(ValueError, match="`depth` must be a positive integer, but is 0"):
        perceptron.perceptron_derivation(0)


def test_the_perceptron_is_tried_exactly_at_its_kink_and_in_general_position():
    derivation = catalog.get("relu_mlp")
    for variant, kinked in ((0, True), (1, False)):
        inputs = draw(derivation, derivation.choose_sizes(variant))
        record = perceptron.forward(
            inputs["x"], [(inputs[f"w{i}"], inputs[f"b{i}"]) for i in (1, 2, 3)]
        )
        at_the_kink = np.asarray(record.z[0]) == 0
        assert (at_the_kink[:, 0] == kinked).all()
        assert not at_the_kink[:, 1:].any()
        assert not np.asarray(record.gates[0])[at_the_kink].any()


def test_the_two_ways_to_write_the_autoencoder_loss_agree():
    inputs = draw(catalog.get("autoencoder"), {"m": 4, "n": 6, "p": 5})
    one, other = (catalog.get(name).loss(**inputs) for name in ("autoencoder", "autoencoder_mse"))
    np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize(("b", "d"), [(3, 5), (5, 5), (7, 5)])
def test_the_ridge_map_is_the_zero_of_the_ridge_gradient_in_both_forms(b, d):
    with enable_x64(True):
        drawn = draw(catalog.get("ridge_map"), {"b": b, "d": d, "e": 4})
        g, gp, delta = drawn["g"], drawn["gp"], 0.1
        m2 = fast(surrogates.ridge_map)(g, gp, delta)
        np.testing.assert_allclose(
            m2, np.linalg.inv(g.T @ g + 0.1 * np.eye(d)) @ g.T @ gp, rtol=1e-10
        )
        slope = fast(jax.grad(surrogates.ridge_loss, argnums=2))(g, gp, m2, delta)
        assert float(jnp.max(jnp.abs(slope))) < 1e-12 * float(jnp.max(jnp.abs(g.T @ gp)))


def test_the_marginalised_map_is_where_the_expected_loss_is_smallest():
    with enable_x64(True):
        x = draw(catalog.get("marginalised_denoising"), {"m": 6, "n": 4})["x"]
        mask = catalog.get("marginalised_denoising").distribution({"n": 4})
        expected = expectation(denoising.marginalised_loss, mask, x.shape)
        best = fast(denoising.marginalised_map)(x, mask)
        assert float(
            jnp.max(jnp.abs(fast(jax.grad(expected, argnums=1))(x, best)))
        ) < 1e-12 * float(jnp.max(jnp.abs(x.T @ x)))
        for seed in range(3):
            away = best + 0.1 * np.random.default_rng(seed).standard_normal(best.shape)
            assert float(expected(x, away)) > float(expected(x, best))


def test_a_dropped_entry_does_not_see_itself_so_the_diagonal_of_the_map_does_not_matter():
    with enable_x64(True):
        derivation = catalog.get("masked_autoencoder_dropped_loss")
        x, mask = draw(derivation, {"m": 5, "n": 4, "p": 3})["x"], derivation.distribution({"n": 4})
        expected = expectation(derivation.loss, mask, x.shape)
        values = [
            float(expected(x, np.eye(4), diagonal * np.eye(4) + 1)) for diagonal in (0.0, 3.0)
        ]
        assert values[0] == pytest.approx(values[1], rel=1e-12)


def test_the_abstraction_experiment_fits_one_batch_and_forgets_it_on_the_next():
    with enable_x64(True):
        errors = map(float, fast(surrogates.abstraction_experiment)(jax.random.key(0)))
    errors = surrogates.SurrogateErrors(*errors)
    assert (
        errors.ridge_fitted_relative < 1e-9
    )  # b < d: the batch is reproduced, its random gates included
    assert errors.mean_gate_fitted_relative < 0.2
    assert errors.mean_gate_fresh_relative < errors.ridge_fresh_relative
    assert errors.mean_gate_fitted == pytest.approx(errors.mean_gate_fresh, rel=0.5)
