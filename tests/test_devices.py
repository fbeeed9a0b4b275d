"""Chunks spread over devices: the same means, to the last bit, on one device, two and eight."""

import os
import subprocess
import sys
import textwrap

import pytest

SCRIPT = textwrap.dedent(
    """
    import hashlib, sys
    import jax, jax.numpy as jnp, numpy as np
    import jaxgrad as jg
    from jaxgrad.sampling import Sampler

    def loss(x, w1, w2, mask):
        return jnp.mean((jax.nn.relu((mask * x) @ w1.T) @ w2.T - x) ** 2)

    digest = lambda *arrays: hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in arrays)).hexdigest()
    print(len(jax.devices()))
    for m, n, p in ((5, 4, 3), (50, 10, 10), (32, 32, 16)):
        rng = np.random.default_rng(0)
        args = tuple(jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((m, n), (p, n), (n, p)))
        for mask in (jg.masks.Bernoulli(0.6), jg.masks.FixedCount(2)):
            rows = Sampler(loss, mask, (m, n), (1, 2)).round(jax.random.key(1), args, 3, 40, 21)  # 21 chunks do not divide evenly
            found = jg.estimate(loss, mask, (m, n), argnums=(1, 2))(jax.random.key(2), *args, samples=2000)
            print(m, n, rows.shape, digest(rows), digest(*found.mean, *found.standard_error), found.samples)
    claim = jg.catalog.get("masked_autoencoder_patches")
    finding = jg.verify(claim, evidence="monte_carlo").findings[0]
    print(finding.verdict, finding.error, finding.bound, finding.detail)
    """
)


def run(devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    count, *lines = done.stdout.splitlines()
    assert int(count) == devices
    return lines


@pytest.fixture(scope="module")
def alone():
    return run(1)


@pytest.mark.parametrize("devices", [2, 8])
def test_chunk_means_estimates_and_verdicts_are_the_same_bit_for_bit_on_one_device_and_on_more(alone, devices):
    assert len(alone) == 7
    assert run(devices) == alone
