"""The line of progress: what it says, and that it is silent away from a terminal."""

import os
import pty
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad.progress import Pace

CLAIM = ["-m", "jaxgrad", "verify", "masked_autoencoder_bernoulli", "--evidence", "monte_carlo", "--resolution", "2e-3"]


def test_the_line_tells_samples_pace_width_and_time_left():
    told = []
    claim = jg.catalog.get("masked_autoencoder_bernoulli")
    jg.verify(claim, evidence="monte_carlo", progress=lambda evidence, done, text: told.append((done, text)))
    lines = [(done, text) for done, text in told if text]
    assert len(lines) > 3 and [done for done, _ in lines] == sorted(done for done, _ in lines)
    assert all(re.match(r"\d+ samples, [\d.e+]+/s", text) for _, text in lines)
    last = lines[-1][1]
    width = re.search(r"widest interval ([\d.]+) × resolution", last)
    assert width is not None and float(width[1]) <= 1.0 and last.endswith("0 s left")


def test_the_time_left_is_that_of_the_samples_still_needed_at_the_pace_so_far():
    clock = iter([0.0, 10.0])
    assert Pace(1000, lambda: next(clock)).line(2000, np.inf, 13000) == "2000 samples, 1.0e+02/s, 2 min left"


def environment(tmp_path):
    names = {
        "PYTHONPATH": os.getcwd(),
        "JAX_PLATFORMS": "cpu",
        "JAXGRAD_CACHE": str(tmp_path),
        "TERM": "xterm-256color",
        "COLUMNS": "200",
    }
    return {**os.environ, **names, "PYTHONIOENCODING": "utf-8"}


def test_a_terminal_sees_the_line_and_a_pipe_does_not(tmp_path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, *CLAIM], stdout=theirs, stderr=theirs, env=environment(tmp_path))
    os.close(theirs)
    seen = b""
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:
            break
        if not block:
            break
        seen += block
    os.close(ours)
    assert process.wait() in (0, 3)
    assert re.search(r"\d+ samples, [\d.e+]+/s", seen.decode("utf-8", "replace"))
    piped = subprocess.run([sys.executable, *CLAIM], capture_output=True, text=True, env=environment(tmp_path))
    assert piped.returncode in (0, 3) and "/s" not in piped.stdout + piped.stderr and " left" not in piped.stdout + piped.stderr


def not_finite(x, mask):
    """Be infinite where all entries of a row are dropped."""
    return jnp.sum(x) / jnp.min(jnp.sum(mask, axis=1))


def test_a_value_that_is_not_finite_is_reported_with_the_chunk_whose_masks_can_be_drawn_again():
    mask, key = jg.masks.Bernoulli(0.7), jax.random.key(3)
    with pytest.raises(FloatingPointError, match=r"`f` or its gradient is not finite in chunk \d+") as caught:
        jg.estimate(not_finite, mask, (2, 6))(key, jnp.ones(3), samples=20_000)
    expression = re.search(r"(mask\.sample\(.*\)) draws again", str(caught.value))
    assert expression is not None
    draws = eval(expression[1], {"mask": mask, "jax": jax, "key": key})
    assert np.any(~np.isfinite(jax.vmap(lambda draw: not_finite(jnp.ones(3), draw))(draws)))


def test_a_verification_names_the_chunk_that_is_not_finite():
    claim = jg.Derivation(
        name="ratio",
        loss=lambda x, mask: jnp.sum(x) ** 2 / jnp.min(jnp.sum(mask, axis=1)),
        gradient=lambda x, mask: {"x": jnp.ones_like(x)},
        shapes={"x": "n", "mask": "2 6"},
        mask=jg.masks.Bernoulli(0.7),
    )
    finding = jg.verify(claim, evidence="monte_carlo", seed=4).findings[0]
    assert finding.verdict == jg.Verdict.UNDECIDED
    number = re.search(r"not finite in chunk (\d+), whose masks (mask\.sample\(.*\)) draws again", finding.detail)
    assert number is not None
    with jax.enable_x64(False):
        draws = eval(number[2], {"mask": claim.mask, "jax": jax})
    assert np.any(np.min(np.sum(np.asarray(draws), axis=2), axis=1) == 0)


@pytest.mark.parametrize("name", ["masked_autoencoder_patches", "mean_gate"])
def test_an_interval_that_is_still_infinite_does_not_end_the_run(name):
    told = []
    report = jg.verify(jg.catalog.get(name), evidence="monte_carlo", progress=lambda *told_: told.append(told_[2]))
    assert report.verdict == "confirmed" and any("samples" in text for text in told)
