"""Sampling that is killed and goes on, to the same last bit, and files that are refused."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad.evidence.sampling import checkpoints
from jaxgrad.evidence.sampling.checkpoints import Checkpoint
from jaxgrad.evidence.sampling.loop import Sampler

KILLS = 20
ROUNDS = 1500

RUNS = textwrap.dedent(
    f"""
    import os, random, signal, sys, time
    import jax, jax.numpy as jnp, numpy as np
    from jaxgrad import estimate, masks
    from jaxgrad.evidence.sampling.loop import Sampler

    state, end, other, whole, cache = sys.argv[1:]
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    Sampler.plan = lambda self, known, samples, **_: (16, 16)  # many short rounds

    def run(checkpoint, numbers, ready):
        f = estimate(lambda x, mask: (mask @ x) ** 2, masks.Bernoulli(0.3), (3, 4))
        f(jax.random.key(5), jnp.arange(4.0), samples=256)  # compiled
        os.write(ready, b"!")
        options = dict(samples={ROUNDS} * 256, checkpoint=checkpoint)
        mean, error, samples, chunks = f(jax.random.key(5), jnp.arange(4.0), **options)
        np.savez(numbers, mean=mean, error=error, samples=samples, chunks=chunks)

    def start(checkpoint, numbers):
        # a copy of this process, which has imported all and not yet started JAX's backend
        reading, writing = os.pipe()
        if (process := os.fork()) == 0:
            try:
                run(checkpoint, numbers, writing)
                os._exit(0)
            finally:
                os._exit(1)
        os.close(writing)
        assert os.read(reading, 1) == b"!"
        os.close(reading)
        return process

    delays = random.Random(0)
    for _ in range({KILLS}):
        process = start(state, end)
        time.sleep(delays.uniform(0, 0.15))
        os.kill(process, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
        if os.path.exists(state):
            print(int(np.load(state)["state_next_chunk"]))
    for checkpoint, numbers in ((state, end), (other, whole)):
        assert os.waitpid(start(checkpoint, numbers), 0)[1] == 0
    """
)


def test_a_run_killed_at_twenty_random_moments_ends_with_the_numbers_of_one_that_was_not(tmp_path):
    files = [
        tmp_path / name for name in ("state.npz", "end.npz", "other.npz", "whole.npz", "cache")
    ]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", RUNS, *map(str, files)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    seen = [int(line) for line in done.stdout.split()]
    assert seen == sorted(seen) and len(set(seen)) > 3  # it never went back, and it went on
    end, whole = np.load(files[1]), np.load(files[3])
    for name in ("mean", "error", "samples", "chunks"):
        np.testing.assert_array_equal(end[name], whole[name])


@pytest.fixture
def rounds(monkeypatch):
    """Make rounds short, and let the third be interrupted."""
    monkeypatch.setattr(Sampler, "plan", lambda self, known, samples, **_: (8, 16))


def interrupted(monkeypatch, call, after):
    whole, left = Sampler.round, [after]

    def few(self, *args, **options):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return whole(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "round", few)
        with pytest.raises(KeyboardInterrupt):
            call()


def estimate(path, *, scale=1.0, key=0, mask=None, power=2, samples=1000):
    f = jg.estimate(
        lambda x, mask: (scale * mask * x).sum() ** power,
        mask or jg.masks.Bernoulli(0.5),
        (3,),
        argnums=0,
    )
    return f(jax.random.key(key), jnp.ones(3), samples=samples, checkpoint=path)


def test_an_estimate_goes_on_where_it_was_interrupted(rounds, monkeypatch, tmp_path):
    interrupted(monkeypatch, lambda: estimate(tmp_path / "a.npz"), after=3)
    assert int(np.load(tmp_path / "a.npz")["state_next_chunk"]) == 48
    resumed, whole, again = (
        estimate(tmp_path / "a.npz"),
        estimate(tmp_path / "b.npz"),
        estimate(tmp_path / "a.npz"),
    )
    for other in (whole, again):
        assert resumed.samples == other.samples
        np.testing.assert_array_equal(resumed.mean, other.mean)
        np.testing.assert_array_equal(resumed.standard_error, other.standard_error)


@pytest.mark.parametrize("after", [1, 3, 4])
def test_a_verification_goes_on_where_it_was_interrupted(monkeypatch, tmp_path, after):
    def verify(name):
        options = {"evidence": "monte_carlo", "resolution": 3e-3, "max_samples": 2**16}
        report = jg.verify(jg.catalog.get("mean_gate"), checkpoint=tmp_path / name, **options)
        return [
            (f.wrt, f.verdict, f.error, f.bound, f.detectable, f.detail, repr(f.pictures))
            for f in report.findings
        ]

    interrupted(monkeypatch, lambda: verify("a.npz"), after)
    assert verify("a.npz") == verify("b.npz")


def test_a_checkpoint_is_plain_arrays_and_tells_what_the_next_chunk_is(rounds, tmp_path):
    estimate(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert (
            str(file["format"]) == "jaxgrad checkpoint"
            and int(file["version"]) == checkpoints.VERSION
        )
        assert int(file["state_next_chunk"]) == 125 and int(file["state_samples"]) == 1000
        np.testing.assert_array_equal(file["state_key"], jax.random.key_data(jax.random.key(0)))
        assert file["state_mean"].dtype == np.float64


def refused(path, call, match):
    before = path.read_bytes()
    with pytest.raises(ValueError, match=match):
        call()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "other",
    [
        {"scale": 2.0},
        {"key": 1},
        {"mask": jg.masks.Bernoulli(0.6)},
        {"mask": jg.masks.FixedCount(1)},
        {"power": 3},
        {"samples": 1008},
    ],
    ids=str,
)
def test_a_checkpoint_of_another_problem_is_refused_and_left_alone(rounds, tmp_path, other):
    estimate(tmp_path / "a.npz")
    refused(tmp_path / "a.npz", lambda: estimate(tmp_path / "a.npz", **other), "another problem")


def test_a_verification_with_other_options_is_another_problem(tmp_path):
    claim, path = jg.catalog.get("masked_autoencoder_bernoulli"), tmp_path / "a.npz"
    jg.verify(claim, evidence="monte_carlo", max_samples=2**12, checkpoint=path)
    for other in (
        {"seed": 1},
        {"resolution": 0.02},
        {"false_alarm": 1e-5},
        {"max_samples": 2**13},
        {"sizes": {"n": 4}},
    ):
        options = {"max_samples": 2**12, **other}
        refused(
            path,
            lambda options=options: jg.verify(
                claim, evidence="monte_carlo", checkpoint=path, **options
            ),
            "another problem",
        )


def test_a_checkpoint_cut_short_or_damaged_anywhere_is_refused_or_read_as_it_was_written(tmp_path):
    path = tmp_path / "a.npz"
    kept = Checkpoint(path, "p")
    state = {"next_chunk": np.array(7), "mean": np.arange(5.0)}
    kept.save(state)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        refused(path, kept.load, "no checkpoint, or cut short or damaged")
    harmless = 0
    for place in range(0, len(whole), 13):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            found = kept.load()
        except ValueError as error:
            assert "it is left as it is" in str(error)
        else:
            harmless += 1  # a date, or another field of the archive that nothing hangs on
            assert found is not None and set(found) == set(state)
            for name in state:
                np.testing.assert_array_equal(found[name], state[name])
    assert harmless < len(whole) / 13 / 2


@pytest.mark.parametrize(
    "change", [("VERSION", 99), ("software", lambda: "jaxgrad 99")], ids=["format", "software"]
)
def test_a_checkpoint_of_another_version_is_refused(monkeypatch, tmp_path, change):
    kept = Checkpoint(tmp_path / "a.npz", "p")
    kept.save({"mean": np.zeros(2)})
    monkeypatch.setattr(checkpoints, *change)
    refused(tmp_path / "a.npz", kept.load, "is from jaxgrad")


@pytest.mark.parametrize("content", ["arrays", "array", "pickle", "text"])
def test_files_that_are_no_checkpoints_are_refused(rounds, tmp_path, content):
    path = tmp_path / "data.npz"
    if content == "text":
        path.write_text("my notes")
    else:
        with open(path, "wb") as file:
            {
                "arrays": np.savez,
                "array": np.save,
                "pickle": lambda f, x: np.savez(f, np.array([{}], object)),
            }[content](file, np.ones(3))
    refused(path, lambda: estimate(path), "is no checkpoint")


def test_a_name_that_is_no_text_is_taken_and_named_in_the_refusal(rounds, tmp_path):
    path = tmp_path / os.fsdecode(b"a\xff.npz")
    assert estimate(path).samples == estimate(path).samples
    refused(path, lambda: estimate(path, key=1), "a\udcff.npz belongs to another problem")


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_sampled(tmp_path):
    with pytest.raises(ValueError, match=r"`checkpoint`.*no folder"):
        estimate(tmp_path / "none" / "a.npz")


def test_links_are_followed_and_rings_of_links_pipes_and_devices_are_refused(rounds, tmp_path):
    link, ring, pipe = tmp_path / "link.npz", tmp_path / "ring.npz", tmp_path / "pipe"
    link.symlink_to(tmp_path / "a.npz")
    estimate(link)
    assert link.is_symlink() and int(np.load(tmp_path / "a.npz")["state_next_chunk"]) == 125
    ring.symlink_to(ring)
    os.mkfifo(pipe)
    for path, match in (
        (ring, "cannot be written"),
        (pipe, "a device or a pipe"),
        ("/dev/full", "a device or a pipe"),
    ):
        with pytest.raises(ValueError, match=rf"`checkpoint`.*{match}"):
            estimate(path)
    with pytest.raises(TypeError, match="`checkpoint` must be the name of a file"):
        estimate(5)


def test_a_checkpoint_of_what_is_not_sampled_is_refused(tmp_path):
    for claim, evidence in (("mse", None), ("masked_autoencoder_bernoulli", "certificate")):
        with pytest.raises(ValueError, match="`checkpoint` keeps the state of sampling"):
            jg.verify(jg.catalog.get(claim), evidence=evidence, checkpoint=tmp_path / "a.npz")
