"""Chunks spread over devices and threads: the same means, to the last bit, on one device, two and
eight.
"""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad.evidence.sampling.rewriting.products import steady
from jaxgrad.jaxprs.versions import enable_x64

SCRIPT = textwrap.dedent(
    """
    import hashlib, sys
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
        return jnp.mean(jax.lax.scan(lambda z, _: (jnp.tanh(z @ w1.T @ w2.T), None), mask * x, None, length=3)[0] ** 2)

    def curved(x, w1, w2, mask):
        slope = jax.grad(lambda w1: jnp.mean((jnp.tanh((mask * x) @ w1.T) @ w2.T - x) ** 2))
        return jnp.sum(jax.jvp(slope, (w1,), (w1,))[1] ** 2)

    def second(x, w1, w2, mask):
        slope = jax.grad(lambda w1: jnp.mean(jax.nn.softplus((mask * x) @ w1.T)))
        return jnp.sum(slope(w1) ** 2) + jnp.sum(w2)

    def convolved(x, w1, w2, mask):
        kernel = w1.reshape(4, 1, 5, 5)
        z = jax.nn.relu(jax.lax.conv_general_dilated((mask * x)[None, None], kernel, (1, 1), "SAME"))
        return jnp.mean(jax.lax.conv_general_dilated(z, kernel.transpose(1, 0, 2, 3), (2, 2), "SAME") ** 2) + jnp.sum(w2)

    digest = lambda *arrays: hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in arrays)).hexdigest()
    print(len(jax.devices()))
    problems = [(relu, 5, 4, 3, 40), (linear, 50, 10, 10, 1000), (attention, 64, 64, 64, 16), (linear, 64, 784, 784, 20)]
    if sys.argv[1] == "all":
        problems += [(relu, 50, 10, 10, 40), (linear, 64, 64, 64, 300), (columns, 64, 64, 64, 64), (scanned, 64, 64, 32, 64),
                     (relu, 64, 128, 64, 40), (curved, 24, 160, 136, 13), (second, 24, 48, 40, 13),
                     (convolved, 28, 25, 4, 16)]
    for loss, m, n, p, chunk in problems:
        rng = np.random.default_rng(0)
        args = tuple(jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((m, n), (p, n), (n, p)))
        chunks = 21 if n < 64 else 3  # neither divides evenly
        rows = Sampler(loss, jg.masks.Bernoulli(0.6), (m, n), (1, 2)).round(jax.random.key(1), args, 3, chunk, chunks)
        print(loss.__name__, m, n, rows.shape, digest(rows))
    for mask in (jg.masks.Bernoulli(0.6), jg.masks.FixedCount(2)):
        args = tuple(jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((32, 32), (16, 32), (32, 16)))
        found = jg.estimate(relu, mask, (32, 32), argnums=(1, 2))(jax.random.key(2), *args, samples=2000)
        print(digest(*found.mean, *found.standard_error), found.samples)
    claim = jg.catalog.get("masked_autoencoder_patches")
    finding = jg.verify(claim, evidence="monte_carlo").findings[0]
    print(finding.verdict, finding.error, finding.bound, finding.detail)
    """
)


def run(devices, threads, problems):
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {
        **os.environ,
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.getcwd(),
        "NPROC": str(threads),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, problems],
        capture_output=True,
        text=True,
        env=environment,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    count, *lines = done.stdout.splitlines()
    assert int(count) == devices
    return lines


@pytest.mark.parametrize(
    ("problems", "others"),
    [
        ("four", [(2, 2), (8, 8)]),
        pytest.param("all", [(2, 2), (8, 8), (1, 3), (2, 8), (3, 2)], marks=pytest.mark.slow),
    ],
)
def test_chunk_means_estimates_and_verdicts_are_the_same_bit_for_bit_with_more_devices_and_threads(
    problems, others
):
    alone = run(1, 1, problems)
    assert len(alone) == (15 if problems == "all" else 7)
    for devices, threads in others:
        assert run(devices, threads, problems) == alone


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("narrow", [False, True])
def test_a_steady_product_is_the_product_whatever_its_axes(dtype, narrow):
    rng = np.random.default_rng(0)
    for subscripts, left, right in (
        ("ki,kj->ij", (3001, 20), (3001, 17)),
        ("abi,bja->ij", (30, 41, 20), (41, 17, 30)),
        ("aki,kaj->aij", (3, 1500, 20), (1500, 3, 17)),
        ("ik,kj->ij", (40, 513), (513, 30)),
        ("ik,k->i", (600, 900), (900,)),
    ):
        with enable_x64(True):
            a, b = (jnp.asarray(rng.standard_normal(shape), dtype) for shape in (left, right))
            found = jax.jit(
                lambda a, b, s=subscripts: steady(
                    lambda a, b: jnp.einsum(s, a, b), a, b, narrow=narrow
                )
            )(a, b)
            exact = np.einsum(subscripts, np.asarray(a, np.float64), np.asarray(b, np.float64))
            assert found.dtype == dtype and found.shape == exact.shape
            assert np.abs(found - exact).max() < 300 * jnp.finfo(dtype).eps * np.abs(exact).max()
