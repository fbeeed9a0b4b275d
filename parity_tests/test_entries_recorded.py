"""Every entry of the catalogue without a mask, recorded in torch and checked: its loss and jax's
gradient, in both precisions.
"""

import pytest

from jaxgrad import catalog, parity
from parity_tests.originals import ORIGINALS
from tests.draws import draw

INITIALISED = {
    "relu_mlp"
}  # its original makes modules, whose first numbers torch draws; test_hooks.py compares it
UNMASKED = [
    derivation.name
    for derivation in catalog.all()
    if derivation.mask is None and derivation.name not in INITIALISED
]


def torch_loss(name):
    """The original's loss as a function of the inputs by name."""
    original = ORIGINALS[name]

    def loss(**inputs):
        if original.how != "cotangent":
            return original.function(**inputs)
        cotangent = inputs.pop("cotangent")
        return (original.function(*inputs.values()) * cotangent).sum()

    return loss


@pytest.mark.parametrize("name", UNMASKED)
def test_the_loss_and_its_gradient_are_torchs(name):
    derivation = catalog.get(name)
    golden = parity.record(torch_loss(name), draw(derivation, derivation.choose_sizes()), name=name)
    report = parity.check(lambda _, **inputs: derivation.loss(**inputs), golden, isolate=False)
    report.assert_confirmed()
    assert len(report.by_input) >= 2
