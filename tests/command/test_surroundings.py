"""Whatever the command is started in, it runs, or says in one line what to set, with status 2."""

import os
import signal
import subprocess
import sys
import time

import pytest

CHECK = [sys.executable, "-m", "jaxgrad", "verify", "mse", "--evidence", "autodiff", "--quiet"]


def check(command=CHECK, **environment):
    environment = {**os.environ, "JAXGRAD_CACHE": "off", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)


def test_switches_against_compiling_and_against_copies_change_nothing():
    done = check(JAX_DISABLE_JIT="1", JAX_TRANSFER_GUARD="disallow")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_device_that_is_absent_is_told_with_what_to_set(platform):
    done = check(JAX_PLATFORMS=platform)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"JAX finds no device (JAX_PLATFORMS={platform}); set JAX_PLATFORMS=cpu" in done.stderr


def test_a_jax_that_is_too_old_is_told_with_the_version_needed(tmp_path):
    (tmp_path / "jax-0.4.38.dist-info").mkdir()
    (tmp_path / "jax-0.4.38.dist-info" / "METADATA").write_text("Name: jax\nVersion: 0.4.38\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = check(PYTHONPATH=path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "needs jax 0.7.2 or newer, and finds 0.4.38; " in done.stderr
    assert "run: pip install -U 'jax>=0.7.2'" in done.stderr


def test_a_cache_that_others_can_write_is_told_in_one_line_and_the_command_runs(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept").chmod(0o777)
    done = check(JAXGRAD_CACHE=str(tmp_path / "kept"))
    assert done.returncode == 0 and done.stderr.count("\n") == 1
    assert "is not used, since others can write" in done.stderr
    assert list((tmp_path / "kept").iterdir()) == []


# a shell's background jobs inherit that interrupts are ignored
HEEDING = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
STARTS = {
    "module": [sys.executable, "-m", "jaxgrad", "verify"],
    "script": [
        sys.executable,
        "-c",
        "import sys; sys.argv = ['jaxgrad', 'verify']\n"
        "from jaxgrad.__main__ import command; command()",
    ],
}


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="a terminal interrupts a group of processes")
@pytest.mark.parametrize("start", STARTS)
def test_an_interrupt_while_jax_is_imported_ends_with_130_and_one_line(tmp_path, start):
    (tmp_path / "jax").mkdir()  # its import never ends
    (tmp_path / "jax" / "__init__.py").write_text(
        "import os, time\n"
        "os.write(1, b'importing')\n"
        "while True:\n"
        "    try:\n        time.sleep(100)\n"
        "    except BaseException:\n        pass\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, "-c", HEEDING, *STARTS[start]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    ) as process:
        process.stdout.read(len("importing"))
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        told = process.stderr.readline()
        assert (process.wait(100), told) == (130, "jaxgrad: interrupted\n")
        os.killpg(process.pid, signal.SIGKILL)  # the worker, whose import never ends either


def test_unfinished_files_of_a_killed_process_are_removed_by_the_next_that_writes(tmp_path):
    from jaxgrad.runtime import files

    old, fresh, other = (
        tmp_path / f".{name}.part" for name in ("a.json.x", "a.json.y", "b.json.x")
    )
    for path in (old, fresh, other):
        path.write_text("half")
    for path in (old, other):
        os.utime(path, (1000, 1000))
    files.write_atomically(tmp_path / "a.json", "whole")
    assert (old.exists(), fresh.exists(), other.exists()) == (False, True, True)
