"""No verdict on a port is wrong at any scale or shift: the losses of `tests.extreme_claims`, in
torch, and ported rightly and wrongly.

The ports are others every week, so that a scheduled run sees new ones; a failure names all that is
needed to see it again.
"""

import jax
import numpy as np
import pytest
import torch

from jaxgrad import parity
from tests.draws import WEEK
from tests.extreme_claims import LOSSES, POSITIVE, SCALES, InJax

BATCHES, PORTS = 8, 25


class InTorch:
    """The functions that the losses are made of, in torch."""

    sum, mean, exp, log, cos, sqrt, tanh, abs, max, prod = (
        torch.sum,
        torch.mean,
        torch.exp,
        torch.log,
        torch.cos,
        torch.sqrt,
        torch.tanh,
        torch.abs,
        torch.max,
        torch.prod,
    )
    sigmoid, softplus, relu = torch.sigmoid, torch.nn.functional.softplus, torch.relu

    @staticmethod
    def lse(x):
        """Return the log of the sum of exponentials."""
        return torch.logsumexp(x, 0)

    @staticmethod
    def var(x):
        """Return the variance of a population."""
        return torch.var(x, correction=0)

    @staticmethod
    def places(x):
        """Return 0, 1, 2 … in the shape and type of x."""
        return torch.arange(x.numel(), dtype=x.dtype)


def of_gradient(change):
    """Return a port whose value is right and whose gradient is that of something else."""
    return lambda loss, x: jax.lax.stop_gradient(loss(x) - change(loss, x)) + change(loss, x)


RIGHT = "right"
PORTED = {
    RIGHT: lambda loss, x: loss(x),
    "1%": lambda loss, x: 1.01 * loss(x),
    "sign": lambda loss, x: -loss(x),
    "another x": lambda loss, x: loss(x[::-1] * 1.01),
    "gradient doubled": of_gradient(lambda loss, x: 2 * loss(x)),
    "gradient negative": of_gradient(lambda loss, x: -loss(x)),
}


def verdict(name, c, port, seed):
    """Record the loss in torch, check a port of it, and return the report."""
    loss, x = (
        LOSSES[name][0],
        np.random.default_rng([seed, 7]).standard_normal(5).astype(np.float32),
    )
    golden = parity.record(
        lambda x: loss(InTorch, x, c), {"x": np.abs(x) + 0.1 if name in POSITIVE else x}, seed=seed
    )
    return parity.check(lambda params, x: PORTED[port](lambda x: loss(InJax, x, c), x), golden)


def wrong_verdicts(ports, seed):
    """Return the ports on which the verdict is wrong, with it, and how many were decided.

    A right formula may be a bad port in float32, and be called so: XLA contracts c·x − max(c·x),
    and JAX's logsumexp is NaN then.
    """
    wrong, decided = [], 0
    for which in ports:
        report = verdict(*which, seed)
        alarm = any(f.evidence == "semantic" and f.verdict == "refuted" for f in report.findings)
        if alarm if which[-1] == RIGHT else report.verdict == "confirmed":
            wrong.append(
                (
                    *which,
                    seed,
                    [
                        (f.evidence, f.wrt, f.verdict.value, f.detail, f.warning)
                        for f in report.findings
                    ],
                )
            )
        decided += report.verdict != "undecided"
    return wrong, decided


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_verdict_on_a_port_is_wrong_at_any_scale(batch):
    everything = [(name, c, port) for name in LOSSES for c in SCALES for port in PORTED]
    chosen = np.random.default_rng([WEEK, batch]).choice(len(everything), PORTS, replace=False)
    wrong, decided = wrong_verdicts([everything[i] for i in chosen], WEEK)
    assert not wrong, wrong
    assert decided > PORTS / 2


def test_at_scales_that_hide_nothing_all_is_decided():
    ports = [
        (name, 1.0, port)
        for name in list(LOSSES)[::9]
        for port in (RIGHT, "1%", "gradient negative")
    ]
    assert wrong_verdicts(ports, 0) == ([], len(ports))


@pytest.mark.parametrize("name", ["a shift undone, cubed", "logsumexp shifted"])
def test_what_rounding_absorbs_in_one_of_the_frameworks_is_no_fault_of_a_port(name):
    """XLA makes x of (x + 1e30) - 1e30, where torch has 0, and the two take different forms of a
    softmax's gradient.
    """
    report = verdict(name, 1e30, RIGHT, 103)
    told = [f.detail for f in report.findings if "rounding inside the JAX function" in f.detail]
    assert report.verdict == "undecided" and told
    assert not any(f.verdict == "refuted" for f in report.findings), "and no block is blamed for it"


def test_a_wrong_port_is_refuted_where_rounding_explains_less():
    """Rounding moves this gradient by about 1e-11 of its entries, and it is off by a millionth."""
    loss, x = LOSSES["a shift undone, squared"][0], np.linspace(-1, 1, 6).astype(np.float32)
    golden = parity.record(lambda x: loss(InTorch, x, 1e4), {"x": x})
    report = parity.check(lambda params, x: (1 + 1e-6) * loss(InJax, x, 1e4), golden)
    assert report.verdict == "refuted"
    assert parity.check(lambda params, x: loss(InJax, x, 1e4), golden).verdict == "confirmed"
