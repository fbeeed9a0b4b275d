"""The line of progress: what it says, and that it is silent away from a terminal."""

import io
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
from jaxgrad.evidence.sampling.loop import Sampler
from jaxgrad.evidence.sampling.progress import Pace
from jaxgrad.jaxprs.versions import enable_x64

CLAIM = [
    "-m",
    "jaxgrad",
    "verify",
    "masked_autoencoder_bernoulli",
    "--evidence",
    "monte_carlo",
    "--resolution",
    "2e-3",
]


def test_the_line_tells_samples_pace_width_and_time_left():
    told = []
    claim = jg.catalog.get("masked_autoencoder_bernoulli")
    jg.verify(
        claim,
        evidence="monte_carlo",
        progress=lambda evidence, done, text: told.append((done, text)),
    )
    lines = [(done, text) for done, text in told if text]
    assert len(lines) > 3 and [done for done, _ in lines] == sorted(done for done, _ in lines)
    assert all(re.match(r"\d+ samples, [\d.e+]+/s", text) for _, text in lines)
    last = lines[-1][1]
    width = re.search(r"widest interval ([\d.]+) × resolution", last)
    assert width is not None and float(width[1]) <= 1.0 and last.endswith("0 s left")


def test_the_time_left_is_that_of_the_samples_still_needed_at_the_pace_so_far():
    clock = iter([0.0, 10.0])
    assert (
        Pace(1000, lambda: next(clock)).line(2000, np.inf, 13000)
        == "2000 samples, 1.0e+02/s, 2 min left"
    )


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
    process = subprocess.Popen(
        [sys.executable, *CLAIM], stdout=theirs, stderr=theirs, env=environment(tmp_path)
    )
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
    piped = subprocess.run(
        [sys.executable, *CLAIM], capture_output=True, text=True, env=environment(tmp_path)
    )
    assert (
        piped.returncode in (0, 3)
        and "/s" not in piped.stdout + piped.stderr
        and " left" not in piped.stdout + piped.stderr
    )


def estimated(monkeypatch, **options):
    monkeypatch.setattr(Sampler, "plan", lambda self, known, samples: (64, 16))
    f = jg.estimate(lambda x, mask: jnp.sum(mask * x) ** 2, jg.masks.Bernoulli(0.5), (3, 4))
    return f(jax.random.key(0), jnp.ones(4), samples=10_000, **options)


def test_an_estimate_tells_its_progress_to_a_function(monkeypatch):
    told = []
    found = estimated(monkeypatch, progress=lambda done, line: told.append((done, line)))
    assert (
        len(told) == 10
        and [done for done, _ in told] == sorted(done for done, _ in told)
        and told[-1][0] == 1.0
    )
    pattern = (
        r"\d+ samples, [\d.e+]+/s, standard errors up to ([\d.e-]+) of the largest entry, .* left"
    )
    errors = [re.fullmatch(pattern, line) for _, line in told]
    assert (
        all(errors)
        and told[-1][1].startswith(f"{found.samples} samples")
        and told[-1][1].endswith(" 0 s left")
    )
    assert errors[-1] is not None and float(errors[-1][1]) == pytest.approx(
        found.standard_error / found.mean, rel=0.06
    )
    assert found == estimated(monkeypatch)


def test_the_line_of_an_estimate_is_shown_on_a_terminal_alone(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, seen in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        estimated(monkeypatch, progress=True)
        assert ("samples, " in stream.getvalue()) == seen
        assert stream.getvalue().endswith("\r\x1b[2K") == seen and "\n" not in stream.getvalue()
    with pytest.raises(TypeError, match="`progress` must be True, or a function"):
        estimated(monkeypatch, progress="yes")


def not_finite(x, mask):
    """Be infinite where all entries of a row are dropped."""
    return jnp.sum(x) / jnp.min(jnp.sum(mask, axis=1))


def test_a_value_that_is_not_finite_is_reported_with_the_chunk_whose_masks_can_be_drawn_again():
    mask, key = jg.masks.Bernoulli(0.7), jax.random.key(3)
    with pytest.raises(
        FloatingPointError, match=r"`f` or its gradient is not finite in chunk \d+"
    ) as caught:
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
    number = re.search(
        r"not finite in chunk (\d+), whose masks (mask\.sample\(.*\)) draws again", finding.detail
    )
    assert number is not None
    with enable_x64(False):
        draws = eval(number[2], {"mask": claim.mask, "jax": jax})
    assert np.any(np.min(np.sum(np.asarray(draws), axis=2), axis=1) == 0)


@pytest.mark.parametrize("name", ["masked_autoencoder_patches", "mean_gate"])
def test_an_interval_that_is_still_infinite_does_not_end_the_run(name):
    told = []
    report = jg.verify(
        jg.catalog.get(name), evidence="monte_carlo", progress=lambda *told_: told.append(told_[2])
    )
    assert report.verdict == "confirmed" and any("samples" in text for text in told)
