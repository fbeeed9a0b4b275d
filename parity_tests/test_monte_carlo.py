"""The expected gradients against torch's own Monte Carlo, judged by the standard error of its mean.

The seed is fixed, so a run gives what the last one gave; the bound would let a right formula fail
once in a million seeds.
"""

import functools
from statistics import NormalDist

import numpy as np
import pytest
import torch

from jaxgrad import catalog
from jaxgrad.claims import shapes
from parity_tests.originals import MASKS, ORIGINALS
from parity_tests.tolerances import precision
from tests.draws import draw
from tests.wrong_variants import VARIANTS

SAMPLES = 30_000
FALSE_ALARM = 1e-6
RESOLUTION = 0.05
"""The widest band t·se, relative to the gradient's largest entry, in which passing still says
something.
"""


@functools.cache
def torch_monte_carlo(name):
    """Mean over sampled masks of torch's gradients in every input that is claimed, and its standard
    error.
    """
    derivation = catalog.get(name)
    sizes = derivation.choose_sizes()
    tensors = {k: torch.from_numpy(np.array(v)) for k, v in draw(derivation, sizes).items()}
    shape = shapes.evaluate(derivation.shapes["mask"], sizes)
    masks = MASKS[name].draw(torch.Generator().manual_seed(12), (SAMPLES, *shape))
    wanted = {k: tensors.pop(k) for k in claimed(derivation)}

    def loss(wanted, mask):
        return ORIGINALS[name].function(**wanted, **tensors, mask=mask)

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(wanted, masks)
    return {k: (g.mean(0).numpy(), (g.std(0) / SAMPLES**0.5).numpy()) for k, g in gradients.items()}


def claimed(derivation):
    sizes = derivation.choose_sizes()
    with precision("float64"):
        gradient = derivation.gradient(
            **draw(derivation, sizes), mask=derivation.distribution(sizes)
        )
        return {k: np.asarray(v) for k, v in gradient.items()}


def furthest(name, derivation):
    """The largest distance of a claim from torch's mean in units of what chance allows, and the
    largest allowance.
    """
    estimates, claim = torch_monte_carlo(name), claimed(derivation)
    t = NormalDist().inv_cdf(1 - FALSE_ALARM / (2 * sum(array.size for array in claim.values())))
    ratios, allowances = [], []
    for wrt, (mean, se) in estimates.items():
        allowed = (
            t * se + 1e-12 * np.abs(mean).max()
        )  # an entry on which the mask has no influence has se 0, and rounding
        ratios.append(np.max(np.abs(claim[wrt] - mean) / allowed))
        allowances.append(allowed.max() / np.abs(mean).max())
    return max(ratios), max(allowances)


@pytest.mark.parametrize("name", MASKS)
def test_the_closed_form_is_within_chance_of_torchs_monte_carlo(name):
    ratio, allowance = furthest(name, catalog.get(name))
    assert ratio < 1
    assert allowance < RESOLUTION, "so wide a band would let a wrong formula pass"


@pytest.mark.parametrize("name", MASKS)
def test_no_wrong_variant_is_within_chance_of_torchs_monte_carlo(name):
    for label, wrong in VARIANTS[name]:
        if (
            wrong.mask is catalog.get(name).mask
        ):  # what is wrong is the closed form, and not the mask of the loss
            assert furthest(name, wrong)[0] > 1, label
