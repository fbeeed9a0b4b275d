"""No verdict on a random network is wrong, whichever evidence is asked for; the networks are others
every week.
"""

import numpy as np
import pytest

from jaxgrad import verify
from tests.draws import WEEK
from tests.random_claims import AT_A_LABEL, RIGHT, Network, claim, drawn

BATCHES, CLAIMS = 12, 20


def judged(network, seed, evidence=None):
    """Return the report; where there is a mask the sizes are small, since the claim lists all
    masks.
    """
    sizes = None if network.mask is None else {"m": 2, "n": 3}
    return verify(claim(network), seed=seed, evidence=evidence, sizes=sizes, max_samples=2**13)


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_verdict_on_a_random_network_is_wrong(batch):
    rng, wrong, decided = np.random.default_rng([WEEK, batch]), [], 0
    for _ in range(CLAIMS):
        network, seed = drawn(rng), int(rng.integers(2**31))
        kinds = (
            "certificate",
            "differences",
            "autodiff" if network.mask is None else "expectation",
        )
        evidence = None if rng.random() < 0.7 else str(rng.choice(kinds))
        report = judged(network, seed, evidence)
        right = network.change == RIGHT
        decided += report.verdict != "undecided"
        if report.verdict == ("refuted" if right else "confirmed"):
            wrong.append(
                (
                    network,
                    seed,
                    evidence,
                    [(f.evidence, f.verdict.value, f.detail) for f in report.findings],
                )
            )
    assert not wrong, wrong
    assert decided > 0.7 * CLAIMS


@pytest.mark.parametrize(
    "network",
    [
        Network(("silu", "layer norm"), "gate", "mean square", 1e6, None, RIGHT),
        Network(("silu", "layer norm"), "gate", "mean square", 1e6, None, "0.1%"),
        Network(("attention",), None, "log-sum-exp", 1e-6, 0, RIGHT),
        Network(("attention",), None, "log-sum-exp", 1e-6, 0, "a thousandth added"),
        Network(("tanh",), None, "sum of squares", 1e2, None, RIGHT, "class", data=True),
        Network(("tanh",), None, "sum of squares", 1e2, None, AT_A_LABEL, "class", data=True),
        pytest.param(
            Network(("silu",), None, "mean square", 1.0, 1, RIGHT, "switched"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Network(("silu",), None, "mean square", 1.0, 1, AT_A_LABEL, "switched"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=[
        f"{verdict}{more}"
        for more in ("", " with a mask", " with labels and data", " with a mask and labels")
        for verdict in ("right", "wrong")
    ],
)
def test_networks_of_the_fuzz_are_decided(network):
    assert judged(network, 3).verdict == ("confirmed" if network.change == RIGHT else "refuted")
