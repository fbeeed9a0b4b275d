"""Worker processes: each case runs in a process of its own, whose main module they import."""

import subprocess
import sys
import textwrap

import pytest

CLAIMS = """
import os, signal, time
import jaxgrad as jg

PARENT = "IN_WORKER" not in os.environ

def square(number, tell):
    tell("differences", 0.5, "half")
    return os.getpid(), number * number

def killed(number, tell):
    os.kill(os.getpid(), signal.SIGKILL)

def busy(number, tell):
    tell("monte_carlo", 0.0, "")
    time.sleep(1000)

def answering(name):
    return globals()[name]

def claim(i):
    def loss(x):
        return (x**2).sum()
    gradient = lambda x: {"x": 2 * x}
    return jg.Derivation(name=f"claim_{i}", loss=loss, gradient=gradient, shapes={"x": "n"})

every = [claim(i) for i in range(8)]
"""


@pytest.fixture
def script(tmp_path):
    """Run a program beside the claims and return what it printed."""

    def run(text):
        (tmp_path / "claims.py").write_text(CLAIMS)
        (tmp_path / "main.py").write_text(
            "import os, sys, threading, time\n"
            "from claims import answering\n"
            "from jaxgrad.runtime import workers\n"
            "from jaxgrad.runtime.workers import Worker, WorkerLostError\n"
            "def main():\n" + textwrap.indent(textwrap.dedent(text), "    ") + "\n"
            'if __name__ == "__main__":\n    main()\n'
        )
        done = subprocess.run(
            [sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        return done.stdout.splitlines()

    return run


def test_a_worker_answers_from_another_process_and_passes_on_its_progress(script):
    lines = script("""
        told = []
        worker = Worker(answering, "square")
        pid, square = worker.ask(7, lambda *progress: told.append(progress))
        worker.stop()
        print(pid != os.getpid(), square, told)
    """)
    assert lines == ["True 49 [('differences', 0.5, 'half')]"]


def test_the_death_of_a_worker_is_told_and_not_waited_for(script):
    lines = script("""
        worker, other = Worker(answering, "killed"), Worker(answering, "square")
        try:
            worker.ask(0, print)
        except WorkerLostError:
            print("lost")
        print(other.ask(3, lambda *_: None)[1])
        worker.stop(), other.stop()
    """)
    assert lines == ["lost", "9"]


def test_a_busy_worker_is_stopped_at_once_and_the_one_beside_it_is_not(script):
    lines = script("""
        worker, other = Worker(answering, "busy"), Worker(answering, "square")
        begun = threading.Event()
        def wait():
            try:
                worker.ask(0, lambda *_: begun.set())
            except WorkerLostError:
                print("told")
        thread = threading.Thread(target=wait)
        thread.start()
        begun.wait()
        worker.stop()
        thread.join()
        print(other.ask(3, lambda *_: None)[1])
        other.stop()
    """)
    assert lines == ["told", "9"]


RUN = """
    from jaxgrad.command import loading, running
    from jaxgrad.command.worker import serve
    workers.cores = lambda: 2
    chosen, targets = loading.find(["claims.py"]), ["claims.py"]
    asked, ask = [], Worker.ask
    def watched(self, question, tell):
        asked.append(question[0])
        {before}
        return ask(self, question, tell)
    Worker.ask = watched
    verify, ready = running.verify, threading.Event()
    def slow(*args, **options):  # until the worker has begun: this process could do all
        while len(asked) < 2 and len(outcomes) < 5:
            time.sleep(0.01)
        outcomes.append(args)
        return verify(*args, **options)
    outcomes, running.verify = [], slow
    options = dict(seed=0, evidence=("certificate",), inputs=None, quiet=True)
    outcome = running.run(chosen, workers=workers.start(serve, targets), **options)
    assert len(asked) >= {least}, asked
    ordered = [r.name for r in outcome.reports] == [d.name for d in chosen]
    print(ordered, outcome.verdict, len(outcomes))
"""


def test_a_run_shares_its_claims_with_a_worker_that_loads_the_file_and_keeps_their_order(script):
    (line,) = script(RUN.format(before="pass", least=2))
    assert line.startswith("True confirmed") and not line.endswith(" 8")


def test_the_claim_of_a_worker_that_was_lost_is_done_here(script):
    before = 'len(asked) == 2 and (self._process.kill(), asked.append("killed"))'
    (line,) = script(RUN.format(before=before, least=2))
    assert line == "True confirmed 7"


def test_claims_that_a_worker_does_not_know_are_done_here(script):
    text = RUN.replace('["claims.py"]\n', '["absent.py"]\n').replace("len(asked) < 2", "not asked")
    assert script(text.format(before="pass", least=1)) == ["True confirmed 8"]


def test_mistakes_found_by_a_worker_are_told_as_here(script):
    text = RUN.replace("quiet=True", 'quiet=True, sizes={{"k": 3}}')
    text = text[: text.index("    ordered")] + "    print(outcome.status, len(outcome.errors))\n"
    assert script(text.format(before="pass", least=1))[-1] == "2 8"


def test_processes_that_share_the_cores_take_a_part_each_and_draw_the_same_samples():
    program = """
    import os, sys
    from jaxgrad.runtime import threads
    if sys.argv[1] == "shared":
        threads.share_with(threads.cores() - 1)
    import jax, jax.numpy as jnp, numpy as np
    import jaxgrad as jg
    mean = jg.estimate(lambda x, mask: jnp.sin(mask @ x), jg.masks.Bernoulli(0.3), (5,))
    found = mean(jax.random.key(1), jnp.arange(5.0), samples=4096)
    shares = 1 if sys.argv[1] == "shared" else threads.cores()
    print(threads.workers() == shares, os.environ.get("NPROC"))
    print(np.asarray(found.mean).tobytes().hex(), found.samples)
    """
    alone, shared = (
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), how],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for how in ("alone", "shared")
    )
    assert (alone[0], shared[0]) == ("True None", "True 1")
    assert alone[1] == shared[1]
