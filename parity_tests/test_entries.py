"""Every entry of the catalogue against its torch original: the loss, the closed form, and jax's own
gradient.

Both sides get the same numbers, as numpy copies, and the same masks where there are any.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxgrad import catalog
from jaxgrad.claims import shapes
from parity_tests.originals import MASKS, ORIGINALS, every_mask, value_and_gradient
from parity_tests.tolerances import (
    DEVICES,
    TOLERANCE,
    TORCH_DEVICE,
    assert_same,
    distance,
    precision,
)
from tests.draws import draw, fast
from tests.wrong_variants import VARIANTS

NAMES = [derivation.name for derivation in catalog.all()]
UNMASKED = [derivation.name for derivation in catalog.all() if derivation.mask is None]
MASKED = [derivation.name for derivation in catalog.all() if derivation.mask is not None]
TINY = {"m": 2, "n": 3, "k": 2, "p": 2, "b": 2, "d": 4, "h": 3, "e": 2}
everywhere = pytest.mark.parametrize("device", DEVICES)
in_both_precisions = pytest.mark.parametrize("dtype", ["float64", "float32"])


def inputs_for(name, dtype, sizes=None):
    """Numpy inputs of an entry in a dtype, without its mask."""
    derivation = catalog.get(name)
    drawn = draw(derivation, sizes or derivation.choose_sizes())
    return {k: v.astype(dtype) for k, v in drawn.items()}


def as_torch(arrays, device="cpu"):
    """The same numbers as tensors; copies, so that neither side can write into the other's."""
    return {k: torch.from_numpy(np.array(v)).to(TORCH_DEVICE[device]) for k, v in arrays.items()}


def scale_of(name, tensors):
    """The size of the terms that the loss adds up: the loss at the absolute values of the
    inputs.
    """
    return (
        value_and_gradient(ORIGINALS[name], {k: v.abs() for k, v in tensors.items()}, ())[0]
        .detach()
        .abs()
        .max()
    )


def differentiate(loss, inputs, wrt):
    """Value and Jacobian by jax, compiled as one."""

    def both(wanted, given):
        return loss(**wanted, **given), jax.jacrev(lambda w: loss(**w, **given))(wanted)

    wanted = {k: inputs[k] for k in wrt}
    given = {k: v for k, v in inputs.items() if k not in wrt}
    return fast(both)(wanted, given)


def test_every_entry_of_the_catalogue_has_an_original_and_every_mask_its_masks():
    assert set(ORIGINALS) == set(NAMES)
    assert set(MASKS) == set(MASKED)


@everywhere
@in_both_precisions
@pytest.mark.parametrize("name", UNMASKED)
def test_loss_closed_form_and_autodiff_agree_with_torch(name, dtype, device):
    derivation, inputs = catalog.get(name), inputs_for(name, dtype)
    with precision(dtype, device):
        closed = fast(derivation.gradient)(**inputs)
        value, autodiff = differentiate(derivation.loss, inputs, tuple(closed))
        tensors = as_torch(inputs, device)
        torch_value, torch_gradient = value_and_gradient(ORIGINALS[name], tensors, tuple(closed))
        scale = scale_of(name, tensors)
    assert_same(value, torch_value, "loss", scale)
    for wrt, theirs in torch_gradient.items():
        assert_same(closed[wrt], theirs, f"closed form in {wrt}")
        assert_same(autodiff[wrt], theirs, f"jax's gradient in {wrt}")


@pytest.mark.parametrize("name", UNMASKED)
def test_the_tolerance_lets_no_wrong_variant_pass(name):
    inputs = inputs_for(name, "float32")
    wrongs = VARIANTS[name]
    with precision("float32"):
        claims = fast(lambda inputs: [wrong.gradient(**inputs) for _, wrong in wrongs])(inputs)
    _, torch_gradient = value_and_gradient(ORIGINALS[name], as_torch(inputs), tuple(claims[0]))
    for (label, _), claim in zip(wrongs, claims, strict=True):
        furthest = max(distance(claim[wrt], theirs) for wrt, theirs in torch_gradient.items())
        assert furthest > 1000 * TOLERANCE["float32"], label


@everywhere
@in_both_precisions
@pytest.mark.parametrize("name", MASKED)
def test_under_the_same_masks_loss_and_gradient_agree_with_torch(name, dtype, device):
    derivation, inputs = catalog.get(name), inputs_for(name, dtype)
    sizes = derivation.choose_sizes()
    shape = (3, *shapes.evaluate(derivation.shapes["mask"], sizes))  # three draws at once
    masks = MASKS[name].draw(torch.Generator().manual_seed(0), shape).numpy().astype(dtype)
    wrt = tuple(fast(derivation.gradient)(**inputs, mask=derivation.distribution(sizes)))
    with precision(dtype, device):

        def batched(masks, **rest):
            return jax.vmap(lambda mask: derivation.loss(**rest, mask=mask))(masks)

        values, gradients = differentiate(batched, {**inputs, "masks": masks}, wrt)
        for i, mask in enumerate(masks):
            tensors = as_torch({**inputs, "mask": mask}, device)
            torch_value, torch_gradient = value_and_gradient(ORIGINALS[name], tensors, wrt)
            assert_same(values[i], torch_value, f"loss under mask {i}", scale_of(name, tensors))
            for k, theirs in torch_gradient.items():
                assert_same(gradients[k][i], theirs, f"gradient in {k} under mask {i}")


@everywhere
@in_both_precisions
@pytest.mark.parametrize("name", MASKED)
def test_the_expected_gradient_is_torchs_mean_over_every_mask(name, dtype, device):
    derivation, inputs = catalog.get(name), inputs_for(name, dtype, TINY)
    masks, chances = every_mask(name, shapes.evaluate(derivation.shapes["mask"], TINY))
    assert np.sum(chances) == pytest.approx(1, rel=1e-12)
    with precision(dtype, device):
        closed = fast(derivation.gradient)(**inputs, mask=derivation.distribution(TINY))
        tensors, weights = (
            as_torch(inputs, device),
            torch.from_numpy(chances.astype(dtype)).to(TORCH_DEVICE[device]),
        )

        def expected(**tensors):
            losses = [
                ORIGINALS[name].function(**tensors, mask=m)
                for m in as_torch({"": masks.astype(dtype)}, device)[""]
            ]
            return torch.dot(torch.stack(losses), weights)

        _, theirs = value_and_gradient(
            ORIGINALS[name]._replace(function=expected), tensors, tuple(closed)
        )
        jax_masks, jax_chances = fast(
            lambda: derivation.distribution(TINY).support(masks.shape[1:])
        )()

        def expected_by_jax(masks, chances, **rest):
            return jnp.dot(
                jax.vmap(lambda mask: derivation.loss(**rest, mask=mask))(masks), chances
            )

        _, autodiff = differentiate(
            expected_by_jax, {**inputs, "masks": jax_masks, "chances": jax_chances}, tuple(closed)
        )
    assert len(jax_masks) == len(masks)
    for wrt in theirs:
        assert_same(closed[wrt], theirs[wrt], f"closed form in {wrt}")
        assert_same(autodiff[wrt], theirs[wrt], f"jax's expected gradient in {wrt}")
