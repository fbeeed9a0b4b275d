"""Forked copies: each case runs in a process of its own, since this one has started its backend."""

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="twins are forked on Linux only"
)


def script(text, **options):
    """Run a program and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


START = """
    import os, signal, sys, time
    from jaxgrad.runtime.workers import Twin, TwinLostError, can_fork
"""


def test_a_twin_answers_from_another_process_and_passes_on_what_it_prints_and_reports():
    lines = script(
        START
        + """
    told = []
    def answer(number, tell):
        print("printed", number)
        tell("differences", 0.5, "half")
        return os.getpid(), number * number
    assert can_fork()
    twin = Twin(answer)
    (pid, square) = twin.ask(7, lambda *progress: told.append(progress))
    twin.stop()
    print(pid != os.getpid(), square, told)
    """
    )
    assert lines == ["printed 7", "True 49 [('differences', 0.5, 'half')]"]


def test_the_death_of_a_twin_is_told_and_not_waited_for():
    lines = script(
        START
        + """
    twin = Twin(lambda number, tell: os.kill(os.getpid(), signal.SIGKILL))
    try:
        twin.ask(0, print)
    except TwinLostError:
        print("lost")
    twin.stop()
    """
    )
    assert lines == ["lost"]


def test_a_busy_twin_is_stopped_at_once():
    lines = script(
        START
        + """
    def answer(number, tell):
        tell("monte_carlo", 0.0, "")
        time.sleep(1000)
    def interrupt(*progress):
        raise KeyboardInterrupt
    twin = Twin(answer)
    try:
        twin.ask(0, interrupt)
    except KeyboardInterrupt:
        twin.stop()
        print("stopped")
    """
    )
    assert lines == ["stopped"]


def test_there_is_no_fork_once_the_backend_runs():
    assert script(
        START + "    import jax\n    print(can_fork())\n    jax.devices()\n    print(can_fork())"
    ) == ["True", "False"]


RUN = """
    import os, signal, sys
    import jax
    from jaxgrad.command import running
    from jaxgrad.runtime import threads, workers
    from jaxgrad.catalog import all as everything
    threads.cores = running.cores = lambda: 3
    chosen = [d for d in everything() if d.mask is None][:8]
    options = dict(seed=0, evidence=("certificate",), inputs=None, quiet=True, parallel=True)
    asked = []
    ask = workers.Twin.ask
    def watched(self, number, tell):
        asked.append(number)
        return ask(self, number, tell)
    workers.Twin.ask = watched
"""


def test_a_run_shares_its_derivations_with_twins_and_keeps_their_order():
    lines = script(
        RUN
        + """
    outcome = running.run(chosen, **options)
    assert len(asked) >= 1, "the twin was never asked"
    assert [r.name for r in outcome.reports] == [d.name for d in chosen]
    print(outcome.verdict, outcome.status)
    """
    )
    assert lines[-1] == "confirmed 0"


def test_what_a_lost_twin_was_asked_is_done_here():
    lines = script(
        RUN
        + """
    parent = os.getpid()
    verify, deaths = running.verify, os.pipe()
    def fatal(*args, **kwargs):
        if os.getpid() != parent:
            os.write(deaths[1], b"died")
            os.kill(os.getpid(), signal.SIGKILL)
        return verify(*args, **kwargs)
    running.verify = fatal
    outcome = running.run(chosen, **options)
    assert asked and os.read(deaths[0], 4) == b"died", "the twin was never asked"
    print(len(outcome.reports), outcome.verdict)
    """
    )
    assert lines[-1] == "8 confirmed"


def test_a_mistake_found_by_a_twin_is_told_as_here():
    lines = script(
        RUN
        + """
    import dataclasses
    def broken(**inputs):
        raise RuntimeError("no such gradient")
    chosen = [dataclasses.replace(d, name=f"bad_{i}", gradient=broken) for i, d in enumerate(chosen)]
    outcome = running.run(chosen, **options)
    assert asked and outcome.status == 2, outcome
    print(len(outcome.errors), all("no such gradient" in message for message in outcome.errors.values()))
    """
    )
    assert lines[-1] == "8 True"


ONE = """
    import dataclasses, json, os, signal, sys
    import jax
    from jaxgrad.command import running
    from jaxgrad.runtime import workers
    from jaxgrad.verification import applicable
    from jaxgrad.catalog import get
    running.cores = lambda: 2
    claim = get("masked_autoencoder_features")
    twice = lambda **inputs: jax.tree.map(lambda x: 2 * x, claim.gradient(**inputs))
    wrong = dataclasses.replace(claim, name="twice", gradient=twice)
    asked, forks = [], []
    answer, made = workers.Twin.answer, workers.Twin.__init__
    def watched(self, tell):
        asked.append(answer(self, tell))
        return asked[-1]
    def counted(self, function):
        forks.append(1)
        made(self, function)
    workers.Twin.answer, workers.Twin.__init__ = watched, counted
    options = dict(seed=0, evidence=None, inputs=None, quiet=True, max_samples=2**14)
    def told(outcome):
        found = outcome.reports[0].to_dict()["findings"]
        return [[f[k] for k in ("evidence", "wrt", "verdict", "error", "detail", "diagnosis")] for f in found]
"""


@pytest.mark.parametrize("which", ["claim", "wrong"])
def test_one_claim_is_sampled_here_while_a_twin_gathers_the_rest_and_the_report_is_the_same(which):
    beside, alone = (
        script(
            ONE
            + f"    print(json.dumps(told(running.run([{which}], beside={beside}, **options))), "
            f"len(forks), len(asked))"
        )[-1]
        for beside in (True, False)
    )
    assert beside.endswith(" 1 1") and alone.endswith(" 0 0")
    assert beside[:-4] == alone[:-4]
    assert '"certificate"' in alone and '"monte_carlo"' in alone
    assert ("exact in finite fields" in alone) == (which == "wrong")


def test_what_a_twin_that_was_lost_or_failed_should_have_gathered_is_gathered_here():
    for failure in ("os.kill(os.getpid(), signal.SIGKILL)", "raise RuntimeError"):
        lines = script(
            ONE
            + f"""
    parent, certificate = os.getpid(), applicable.EVIDENCE["certificate"]
    def fatal(problem):
        if os.getpid() != parent:
            {failure}
        return certificate(problem)
    applicable.EVIDENCE["certificate"] = fatal
    outcome = running.run([claim], beside=True, **options)
    print(len(forks), asked in ([], [None]), outcome.verdict, len(outcome.reports[0].findings))
    """
        )
        assert lines[-1] == "1 True confirmed 8"


def test_what_a_loss_prints_in_the_twin_is_not_mixed_with_what_it_prints_here():
    lines = script(
        ONE
        + """
    def told_of(**inputs):
        print("traced", "in", "words", "that", "are", "written", "one", "by", "one")
        return claim.loss(**inputs)
    running.run([dataclasses.replace(claim, loss=told_of)], beside=True, **options)
    """
    )
    printed = [line for line in lines if "traced" in line]
    assert len(printed) > 1 and set(printed) == {"traced in words that are written one by one"}


def test_a_claim_without_a_mask_or_with_sampling_alone_has_nothing_to_share():
    lines = script(
        ONE
        + """
    running.run([get("mse")], beside=True, **options)
    running.run([claim], beside=True, **options | {"evidence": ("monte_carlo",)})
    print(len(forks))
    """
    )
    assert lines[-1] == "0"


def test_processes_that_share_the_cores_take_a_part_each_and_draw_the_same_samples():
    program = """
    import os, sys
    from jaxgrad.runtime import threads
    if sys.argv[1] == "shared":
        threads.limit(1)
    import jax, jax.numpy as jnp, numpy as np
    import jaxgrad as jg
    mean = jg.estimate(lambda x, mask: jnp.sin(mask @ x), jg.masks.Bernoulli(0.3), (5,))
    found = mean(jax.random.key(1), jnp.arange(5.0), samples=4096)
    print(threads.workers() == (1 if sys.argv[1] == "shared" else threads.cores()), os.environ.get("NPROC"))
    print(np.asarray(found.mean).tobytes().hex(), found.samples)
    """
    alone, shared = (
        script(f"import sys; sys.argv = ['', {how!r}]\n" + textwrap.dedent(program))
        for how in ("alone", "shared")
    )
    assert (alone[0], shared[0]) == ("True None", "True 1")
    assert alone[1] == shared[1]
