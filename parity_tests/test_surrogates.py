"""The abstraction experiment against torch: the maps themselves, at the notebook's sizes and at
small ones.
"""

import jax
import numpy as np
import pytest
import torch

from jaxgrad.catalog import surrogates
from parity_tests.tolerances import assert_same, precision

B, D_IN, HIDDEN, D_OUT, DELTA = 128, 512, 256, 128, 1e-9


@pytest.mark.parametrize(("b", "d"), [(3, 5), (7, 4)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_ridge_map_is_torchs_in_its_primal_and_its_dual_form(b, d, dtype):
    rng = np.random.default_rng(b)
    g, gp = rng.standard_normal((b, d)).astype(dtype), rng.standard_normal((b, 6)).astype(dtype)
    with precision(dtype):
        ours = surrogates.ridge_map(g, gp, np.asarray(0.5, dtype))
    tg, tgp = torch.from_numpy(g.copy()), torch.from_numpy(gp.copy())
    theirs = torch.linalg.inv(tg.T @ tg + 0.5 * torch.eye(d, dtype=tg.dtype)) @ tg.T @ tgp
    assert_same(ours, theirs)


def test_torchs_gradient_of_the_ridge_loss_vanishes_at_our_map_and_only_there():
    rng = np.random.default_rng(0)
    g, gp = (
        torch.from_numpy(rng.standard_normal((7, 4))),
        torch.from_numpy(rng.standard_normal((7, 3))),
    )
    with precision("float64"):
        m2 = torch.from_numpy(np.array(surrogates.ridge_map(g.numpy(), gp.numpy(), 0.5)))
    for m, vanishes in ((m2, True), (m2 * (1 + 1e-6), False)):
        m = m.clone().requires_grad_()
        (((gp - g @ m) ** 2).sum() + 0.5 * (m**2).sum()).backward()
        assert (float(m.grad.abs().max()) < 1e-12 * float((g.T @ gp).abs().max())) is vanishes


def notebook_batch():
    """The notebook's data, with the integer sizes that it meant."""
    rng = np.random.RandomState(12)
    g, w = rng.rand(B, D_IN), rng.rand(D_IN, HIDDEN)
    r, w2 = rng.randint(2, size=(B, HIDDEN)).astype(float), rng.rand(HIDDEN, D_OUT)
    return g, w, r, w2


def test_at_the_notebooks_sizes_the_maps_do_what_the_notebooks_do():
    g, w, r, w2 = notebook_batch()
    tg, tw, tr, tw2 = map(torch.from_numpy, (g, w, r, w2))
    tgp = tg @ tw * tr @ tw2
    primal = torch.linalg.solve(tg.T @ tg + DELTA * torch.eye(D_IN, dtype=tg.dtype), tg.T @ tgp)
    with precision("float64"):
        gp = surrogates.gated_map(g, w, w2, r)
        m2, m3 = surrogates.ridge_map(g, gp, DELTA), surrogates.mean_gate_map(w, w2, r.mean(0))
    assert_same(gp, tgp, "gated map")
    assert_same(m3, tw @ (tw2 * tr.mean(0).reshape(-1, 1)), "mean-gate map")
    gp, m2, m3 = map(np.asarray, (gp, m2, m3))
    residual, residual_of_torch = gp - g @ m2, (tgp - tg @ primal).numpy()
    bias = DELTA * np.linalg.solve(
        g @ g.T + DELTA * np.eye(B), gp
    )  # what the penalty alone leaves of Gp
    assert np.linalg.norm(residual_of_torch - bias) < 0.1 * np.linalg.norm(
        bias
    )  # 512 unknowns, of rank 128
    assert np.linalg.norm(residual - bias) < 0.1 * np.linalg.norm(
        bias
    )  # 128 unknowns, of full rank
    assert np.linalg.norm(gp - g @ m3) > 1e6 * np.linalg.norm(residual)


def test_the_experiment_returns_the_errors_of_both_maps_on_both_batches():
    with precision("float64"):
        errors = jax.tree.map(float, jax.jit(surrogates.abstraction_experiment)(jax.random.key(12)))
    assert errors.ridge_fitted_relative < 1e-10
    assert 0.01 < errors.mean_gate_fitted_relative < errors.ridge_fresh_relative
    assert errors.mean_gate_fresh_relative < errors.ridge_fresh_relative
