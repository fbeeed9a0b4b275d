"""Chunks spread over devices and threads: the same means, to rounding, on one, two and eight."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

SCRIPT = textwrap.dedent(
    """
    import sys
    import jax, jax.numpy as jnp, numpy as np
    import jaxgrad as jg
    from jaxgrad.evidence.sampling.loop import Sampler

    def relu(x, w1, w2, mask):
        return jnp.mean((jax.nn.relu((mask * x) @ w1.T) @ w2.T - x) ** 2)

    def linear(x, w1, w2, mask):
        return jnp.mean(((mask * x) @ w1.T @ w2.T - x) ** 2)

    def columns(x, w1, w2, mask):
        return jnp.mean((w2 @ jnp.tanh(w1 @ (mask * x).T) - x.T) ** 2)

    def attention(x, w1, w2, mask):
        z = mask * x
        return jnp.mean((jax.nn.softmax((z @ w1.T) @ (z @ w2).T) @ z - x) ** 2)

    def scanned(x, w1, w2, mask):
        step = lambda z, _: (jnp.tanh(z @ w1.T @ w2.T), None)
        return jnp.mean(jax.lax.scan(step, mask * x, None, length=3)[0] ** 2)

    def curved(x, w1, w2, mask):
        slope = jax.grad(lambda w1: jnp.mean((jnp.tanh((mask * x) @ w1.T) @ w2.T - x) ** 2))
        return jnp.sum(jax.jvp(slope, (w1,), (w1,))[1] ** 2)

    def second(x, w1, w2, mask):
        slope = jax.grad(lambda w1: jnp.mean(jax.nn.softplus((mask * x) @ w1.T)))
        return jnp.sum(slope(w1) ** 2) + jnp.sum(w2)

    def convolved(x, w1, w2, mask):
        kernel, back = w1.reshape(4, 1, 5, 5), w1.reshape(1, 4, 5, 5)
        z = jax.lax.conv_general_dilated((mask * x)[None, None], kernel, (1, 1), "SAME")
        out = jax.lax.conv_general_dilated(jax.nn.relu(z), back, (2, 2), "SAME")
        return jnp.mean(out ** 2) + jnp.sum(w2)

    found, path = {"devices": len(jax.devices())}, sys.argv[2]
    def normal(*shapes):
        return tuple(jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes)

    problems = [(relu, 5, 4, 3, 40), (linear, 50, 10, 10, 1000), (attention, 64, 64, 64, 16),
                (linear, 64, 784, 784, 20)]
    if sys.argv[1] == "all":
        problems += [(relu, 50, 10, 10, 40), (linear, 64, 64, 64, 300), (columns, 64, 64, 64, 64),
                     (scanned, 64, 64, 32, 64), (relu, 64, 128, 64, 40), (curved, 24, 160, 136, 13),
                     (second, 24, 48, 40, 13), (convolved, 28, 25, 4, 16)]
    for loss, m, n, p, chunk in problems:
        rng = np.random.default_rng(0)
        args = normal((m, n), (p, n), (n, p))
        chunks = 21 if n < 64 else 3  # neither divides evenly
        sampler = Sampler(loss, jg.masks.Bernoulli(0.6), (m, n), (1, 2), rewrite=True)
        for quick in (False, True):
            rows = sampler.round(jax.random.key(1), args, 3, chunk, chunks, quick=quick)
            found[f"{loss.__name__} {m} {n} {quick}"] = rows
    for mask in (jg.masks.Bernoulli(0.6), jg.masks.FixedCount(2)):
        args = normal((32, 32), (16, 32), (32, 16))
        f = jg.estimate(relu, mask, (32, 32), argnums=(1, 2))
        leaves = jax.tree.leaves(f(jax.random.key(2), *args, samples=2000)[:2])
        found[type(mask).__name__] = np.concatenate([np.ravel(x) for x in leaves])
    claim = jg.catalog.get("masked_autoencoder_patches")
    finding = jg.verify(claim, evidence="monte_carlo").findings[0]
    found["verdict"] = str(finding.verdict)
    np.savez(path, **found)
    """
)


def run(folder, devices, threads, problems):
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {
        **os.environ,
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.getcwd(),
        "NPROC": str(threads),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, problems, folder / "found.npz"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = dict(np.load(folder / "found.npz"))
    assert int(found.pop("devices")) == devices
    return found


@pytest.mark.parametrize(
    ("problems", "others"),
    [
        ("four", [(2, 2), (8, 8)]),
        pytest.param("all", [(2, 2), (8, 8), (1, 3), (2, 8), (3, 2)], marks=pytest.mark.slow),
    ],
)
def test_means_are_the_same_to_rounding_on_other_devices_and_bit_for_bit_on_the_same(
    tmp_path, problems, others
):
    alone = run(tmp_path, 1, 1, problems)
    assert len(alone) == (27 if problems == "all" else 11)
    for devices, threads in others:
        found = run(tmp_path, devices, threads, problems)
        assert found.keys() == alone.keys()
        assert found["verdict"] == alone["verdict"]
        for name in found.keys() - {"verdict"}:
            scale = np.abs(alone[name]).max()
            np.testing.assert_allclose(
                found[name], alone[name], rtol=0, atol=1e-5 * scale, err_msg=name
            )
        if devices == threads == 2:
            again = run(tmp_path, devices, threads, problems)
            for name, values in found.items():
                np.testing.assert_array_equal(values, again[name], err_msg=name)
