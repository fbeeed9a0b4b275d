"""Several processes on this machine: the same numbers as one, one report, and an end when one of
them is lost.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import jax
import numpy as np
import pytest
from click.testing import CliRunner

from jaxgrad.command.cli import main
from jaxgrad.evidence.sampling import processes as machines
from jaxgrad.evidence.sampling import rendezvous
from jaxgrad.evidence.sampling.processes import LOST, Membership
from jaxgrad.evidence.sampling.rendezvous import Line, Place, place


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start(tmp_path, count, *options, slurm=False):
    """Start the command in so many processes."""
    port, processes = free_port(), []
    for index in range(count):
        environment = {
            **os.environ,
            "PYTHONPATH": os.getcwd(),
            "JAX_PLATFORMS": "cpu",
            "JAXGRAD_CACHE": str(tmp_path / "cache"),
        }
        joined = [
            "--coordinator",
            f"127.0.0.1:{port}",
            "--num-processes",
            count,
            "--process-id",
            index,
        ]
        if slurm:
            job = (port - (2**16 - 2**12)) % 2**12 if port >= 2**16 - 2**12 else None
            assert job is not None
            names = {
                "JOB_ID": job,
                "STEP_NODELIST": "localhost",
                "NTASKS": count,
                "PROCID": index,
                "LOCALID": index,
            }
            environment |= {f"SLURM_{name}": str(value) for name, value in names.items()}
            joined = []
        command = [
            sys.executable,
            "-m",
            "jaxgrad",
            "verify",
            "masked_autoencoder_bernoulli",
            "--evidence",
            "monte_carlo",
        ]
        command += [str(item) for item in (*joined, *options)]
        processes.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
            )
        )
    return processes


def wait_for(state):
    """Wait until a round has been sampled."""
    deadline = time.monotonic() + 150
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def numbers(text):
    findings = json.loads(text)["reports"][0]["findings"]
    return [
        {name: value for name, value in finding.items() if name != "seconds"}
        for finding in findings
    ]


@pytest.fixture(scope="module")
def alone():
    done = CliRunner().invoke(
        main, ["verify", "masked_autoencoder_bernoulli", "--evidence", "monte_carlo", "--json", "-"]
    )
    assert done.exit_code == 0
    return numbers(done.stdout)


@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_find_what_one_finds_and_the_first_alone_reports(tmp_path, alone, count):
    processes = start(tmp_path, count, "--json", "-")
    output = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0] * count, [
        error for _, error in output
    ]
    assert numbers(output[0][0]) == alone
    assert all(text == "" for text, _ in output[1:])


def test_slurm_is_enough(tmp_path, alone, monkeypatch):
    monkeypatch.setattr(
        sys.modules[__name__], "free_port", lambda: 2**16 - 2**12 + os.getpid() % 2**12
    )
    processes = start(tmp_path, 2, "--json", "-", slurm=True)
    output = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], [error for _, error in output]
    assert numbers(output[0][0]) == alone and output[1][0] == ""


@pytest.mark.parametrize("victim", [0, 2])
def test_when_a_process_is_lost_the_others_end_at_once_and_say_so_and_the_checkpoint_is_whole(
    tmp_path, victim
):
    state = tmp_path / "state.npz"
    processes = start(
        tmp_path, 3, "--resolution", "1e-4", "--max-samples", "1e12", "--checkpoint", state
    )
    wait_for(state)
    processes[victim].send_signal(signal.SIGKILL)
    lost = time.monotonic()
    for index, process in enumerate(processes):
        _, error = process.communicate(timeout=60)
        if index != victim:
            assert process.returncode == LOST, error
            assert f"process {victim} of 3 was lost, so process {index} ends" in error
    assert time.monotonic() - lost < 60
    with np.load(state) as file:
        assert int(file["state_next_chunk"]) > 0


CLAIM = """
import jax.numpy as jnp
import jaxgrad as jg

mine = jg.Derivation(
    name="mine",
    loss=lambda x, mask: jnp.sum((mask * x) ** 2),
    gradient=lambda x, mask: {"x": 2 * PROBABILITY * x},
    shapes={"x": "n", "mask": "n"},
    mask=jg.masks.Bernoulli(PROBABILITY),
)
"""


@pytest.mark.parametrize(
    ("probabilities", "match"),
    [
        ((0.5, 0.7), "what process 1 is to sample is not what process 0 is to"),
        ((None, None), "there is no file"),
    ],
    ids=["other files", "no files"],
)
def test_what_all_processes_cannot_do_ends_all_with_the_reason(tmp_path, probabilities, match):
    """That is one reason in all; of numbers of two problems, mixed, a right gradient would be
    refuted.
    """
    port, processes = free_port(), []
    for index, probability in enumerate(probabilities):
        (tmp_path / str(index)).mkdir()
        if probability is not None:
            (tmp_path / str(index) / "mine.py").write_text(
                CLAIM.replace("PROBABILITY", str(probability))
            )
        command = [
            sys.executable,
            "-m",
            "jaxgrad",
            "verify",
            "mine.py",
            "--evidence",
            "monte_carlo",
        ]
        command += [
            "--coordinator",
            f"127.0.0.1:{port}",
            "--num-processes",
            "2",
            "--process-id",
            str(index),
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": os.getcwd(),
            "JAX_PLATFORMS": "cpu",
            "JAXGRAD_CACHE": str(tmp_path / "cache"),
        }
        folder = tmp_path / str(index)
        processes.append(
            subprocess.Popen(
                command, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder
            )
        )
    said = [process.communicate(timeout=100)[1] for process in processes]
    ends = {process.returncode for process in processes}
    assert 2 in ends and ends <= {2, LOST}, said  # who is told of the other's end first says that
    assert any(match in error for error in said) and not any(
        "Aborted" in error or "fatal" in error for error in said
    )


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_process_stands_still_the_other_ends_and_says_so(tmp_path, victim):
    state = tmp_path / "state.npz"
    processes = start(
        tmp_path, 2, "--resolution", "1e-4", "--max-samples", "1e12", "--checkpoint", state
    )
    wait_for(state)
    processes[victim].send_signal(signal.SIGSTOP)
    try:
        _, error = processes[1 - victim].communicate(timeout=60)
    finally:
        processes[victim].kill()
        processes[victim].communicate()
    assert processes[1 - victim].returncode == LOST
    assert error.splitlines()[-1].startswith(
        f"jaxgrad: process {victim} of 2 was lost, so process {1 - victim} ends."
    )


@pytest.fixture
def watching(monkeypatch):
    """A process that watches over process 1 of 2, the latter's end of the line, and the statuses
    that it would have ended with.
    """
    ended = []
    monkeypatch.setattr(machines, "BEAT", 0.02)
    monkeypatch.setattr(machines, "SILENCE", 10)
    monkeypatch.setattr(os, "_exit", ended.append)
    near, far = socket.socketpair()
    member = object.__new__(Membership)
    member.where, member.leaving, member.peers = Place("a:1", 2, 0), False, {1: Line(near)}
    other = Line(far)
    yield member, other, ended
    member.leaving = True
    other.close()
    time.sleep(0.1)
    member.peers[1].close()


def test_a_process_counts_as_lost_only_after_it_has_been_silent_for_long(watching, capsys):
    member, other, ended = watching
    member._attend()
    for _ in range(20):
        other.send({})
        time.sleep(0.02)
    assert ended == [] and other.receive(time.monotonic() + 1) == {}
    time.sleep(0.6)
    assert (
        ended == [LOST] and "process 1 of 2 was lost, so process 0 ends" in capsys.readouterr().err
    )


def test_a_process_that_stood_still_itself_blames_nobody(watching, monkeypatch):
    member, other, ended = watching
    stood = threading.Event()

    def stand_still(_):
        if not stood.is_set():
            time.sleep(0.6)
            stood.set()

    monkeypatch.setattr(member, "_send", stand_still)
    member._attend()
    assert stood.wait(5)
    for _ in range(5):
        other.send({})
        time.sleep(0.02)
    assert ended == []


def test_a_process_that_is_done_waits_for_the_others_and_still_notices_when_one_is_lost(
    watching, monkeypatch
):
    member, other, ended = watching
    left = []
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: left.append("left"))
    member._attend()
    thread = threading.Thread(target=member.leave, daemon=True)
    thread.start()
    time.sleep(0.1)
    assert thread.is_alive() and not left
    other.connection.shutdown(socket.SHUT_RDWR)
    time.sleep(0.1)
    assert ended == [LOST] and not left
    member.gone[1].set()
    thread.join(5)
    assert left == ["left"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (("a:1", None, None), "--num-processes and --process-id is missing"),
        ((None, 2, 0), "--coordinator is missing"),
        (("nowhere", 2, 0), "must be HOST:PORT"),
        (("a:99999", 2, 0), "must be HOST:PORT"),
        (("a:1", 2, 2), "`--process-id` must be at least 0 and less than"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        place(*options, {})


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("node[003-005,9]", "node003"),
        ("node[7,9],x", "node7"),
        ("a1,node[3-5]", "a1"),
    ],
)
def test_the_first_node_of_a_slurm_step_is_the_coordinator(nodes, host):
    names = {"JOB_ID": 5, "STEP_NODELIST": nodes, "NTASKS": 3, "PROCID": 2, "LOCALID": 0}
    environment = {f"SLURM_{name}": str(value) for name, value in names.items()}
    assert place(None, None, None, environment) == Place(f"{host}:{5 + 2**16 - 2**12}", 3, 2)
    assert place(None, None, None, {**environment, "SLURM_NTASKS": "1"}) is None
    with pytest.raises(
        ValueError, match="SLURM_NTASKS is '4 x' in the environment, but must be a whole number"
    ):
        place(None, None, None, {**environment, "SLURM_NTASKS": "4 x"})
    assert place(None, None, None, {}) is None


def test_a_coordinator_that_does_not_answer_is_named():
    with pytest.raises(
        ValueError,
        match=r"`--coordinator` 127\.0\.0\.1:\d+ does not answer .*is process 0 running there",
    ):
        Membership(Place(f"127.0.0.1:{free_port()}", 2, 1), timeout=0.5)


def test_processes_that_do_not_come_are_named():
    with pytest.raises(ValueError, match="of 3 processes 1, 2 did not come in time"):
        Membership(Place(f"127.0.0.1:{free_port()}", 3, 0), timeout=0.5)


def test_a_port_that_is_taken_is_named():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(ValueError, match="cannot be listened at"),
    ):
        Membership(Place(f"127.0.0.1:{server.getsockname()[1]}", 2, 0), timeout=0.5)


def test_another_program_at_the_port_is_told_apart():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(ValueError, match="does not answer as jaxgrad does"):
            Membership(Place(f"127.0.0.1:{server.getsockname()[1]}", 2, 1), timeout=2)


def test_a_stranger_that_connects_and_says_nothing_keeps_nobody_out(monkeypatch):
    monkeypatch.setattr(rendezvous, "PATIENCE", 0.2)
    port, met = free_port(), []
    where = Place(f"127.0.0.1:{port}", 2, 0)
    thread = threading.Thread(
        target=lambda: met.append(rendezvous.gather(where, "127.0.0.1", port, time.monotonic() + 5))
    )
    thread.start()
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            stranger = socket.create_connection(("127.0.0.1", port))
            break
        time.sleep(0.05)
    found = rendezvous.report(
        Place(where.coordinator, 2, 1), "127.0.0.1", port, time.monotonic() + 4
    )
    thread.join()
    assert found[-1] == (met[0][-1][0], 1, 2)
    for line in (found[0], met[0][1], stranger):
        line.close()


@pytest.mark.parametrize(
    ("count", "index", "task", "match"),
    [
        (3, 1, "", "make them equal"),
        (2, 0, "", "given to two processes"),
        (2, 1, "other", "other derivations, options or versions than process 0"),
    ],
)
def test_processes_that_contradict_each_other_are_refused_on_both_sides(count, index, task, match):
    port, refused = free_port(), []

    def first():
        try:
            Membership(Place(f"127.0.0.1:{port}", 2, 0), timeout=10)
        except ValueError as error:
            refused.append(str(error))

    thread = threading.Thread(target=first)
    thread.start()
    with pytest.raises(ValueError, match=match):
        rendezvous.report(
            Place(f"127.0.0.1:{port}", count, index, task), "127.0.0.1", port, time.monotonic() + 10
        )
    thread.join()
    assert len(refused) == 1 and match in refused[0]


@pytest.mark.parametrize("devices", [1, 0])
def test_more_processes_than_devices_are_refused(monkeypatch, devices):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: None)
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    monkeypatch.setattr(jax, "local_device_count", lambda: devices)
    member = object.__new__(Membership)
    member.where = Place("a:1", 2, 1)
    with pytest.raises(ValueError, match="`--num-processes` 2 is more than there are devices"):
        member._start("a:2", None, 1.0)


def test_the_checkpoint_of_several_derivations_is_refused(tmp_path):
    done = CliRunner().invoke(
        main, ["verify", "mse", "matvec", "--checkpoint", str(tmp_path / "a.npz")]
    )
    assert done.exit_code == 2 and "keeps the state of one derivation" in done.output


ESTIMATE = textwrap.dedent(
    """
    import sys
    import jax, jax.numpy as jnp, numpy as np
    import jaxgrad as jg
    from jaxgrad.evidence.sampling import processes, rewriting
    from jaxgrad.evidence.sampling.loop import Sampler
    from jaxgrad.evidence.sampling.rendezvous import Place

    coordinator, index, wrong = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if index == wrong:
        rule = rewriting.RULES["dot_general"]

        def off(eqn):
            choice = rule(eqn)
            return choice and (lambda eqn, *operands: 1.001 * choice(eqn, *operands))

        rewriting.RULES["dot_general"] = off
    decided, taken = Sampler.may_rewrite, Sampler.round
    says, uses = [], set()

    def may_rewrite(self, *args):
        says.append(decided(self, *args))
        return says[-1]

    def round(self, *args, quick):
        uses.add(quick)
        return taken(self, *args, quick=quick)

    Sampler.may_rewrite, Sampler.round = may_rewrite, round

    def loss(w, x, mask):
        return jnp.mean(((mask * x) @ w - x) ** 2)

    rng = np.random.default_rng(0)
    w, x = (rng.standard_normal(s).astype(np.float32) for s in ((10, 10), (80, 10)))
    with processes.part(Place(coordinator, 2, index)):
        f = jg.estimate(loss, jg.masks.Bernoulli(0.6), (80, 10), argnums=0)
        mean = f(jax.random.key(0), w, x, samples=640).mean
    print(says, uses, np.asarray(mean, np.float64).tobytes().hex())
    """
)


@pytest.mark.parametrize("wrong", [None, 0, 1])
def test_processes_agree_on_whether_the_program_is_rewritten(wrong):
    """Where one finds a difference, here since a rule is wrong there, none uses what it made."""
    coordinator = f"127.0.0.1:{free_port()}"
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "JAX_PLATFORMS": "cpu"}
    running = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                ESTIMATE,
                coordinator,
                str(index),
                str(-1 if wrong is None else wrong),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for index in range(2)
    ]
    ends = [process.communicate(timeout=200) for process in running]
    assert [process.returncode for process in running] == [0, 0], ends
    lines = [out for out, _ in ends]
    for index, line in enumerate(lines):
        assert line.startswith(f"[{index != wrong}]")
        assert f"{{{wrong is None}}}" in line
    assert lines[0].split()[-1] == lines[1].split()[-1]
