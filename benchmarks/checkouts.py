"""jaxgrad's sampling loop as another checkout has it, against this one, in turn in one run.

Each checkout is imported by a process of its own. The two answer in turn, so that whatever else the
machine does slows both. What is told are medians, and the ratio of old to new: more than 1 is
quicker now.
"""

import multiprocessing
import statistics
import sys
import time
from pathlib import Path

from contenders import make_convolution, make_jaxgrad

AWAKE = 0.05
"""Seconds for which a contender runs before the call that is timed."""
PAUSE = 0.2
"""Seconds between two calls, in which the thread pools of the last one fall asleep."""
CONVOLUTION = (8, 28, 8, 1000)
"""Images, their side, channels and N."""


def seconds_text(seconds):
    """Write a time down.

    >>> seconds_text(0.0123), seconds_text(0.2), seconds_text(3)
    ('12.3 ms', '200 ms', '3.00 s')
    """
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1000 * seconds:.1f} ms" if seconds < 0.1 else f"{1000 * seconds:.0f} ms"


def problem_text(problem):
    """Name a problem."""
    m, n, h, samples = problem
    if problem == CONVOLUTION:
        return f"convolutions, m={m}, {n} × {n}, {h} channels, N={samples}"
    model = "" if h == n else f", h={h}, ReLU"
    return f"m={m}, n={n}{model}, N={samples}"


def awake(run):
    """Run until caches, clock rate and threads are awake again."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < AWAKE:
        run()


def serve(pipe, checkout, problem):
    """Send the seconds of the cold call, then answer every "go" with the seconds of one call."""
    sys.path.insert(0, str(checkout))
    import jaxgrad

    assert Path(jaxgrad.__file__).is_relative_to(checkout), jaxgrad.__file__
    make = make_convolution if problem == CONVOLUTION else make_jaxgrad
    run = make(*problem, None)
    start = time.perf_counter()
    run()
    pipe.send(time.perf_counter() - start)
    while pipe.recv() == "go":
        awake(run)
        start = time.perf_counter()
        run()
        pipe.send(time.perf_counter() - start)


def measure(problem, old, new, repeats):
    """Return the seconds of old and new: of the first call, and the median of later ones."""
    context = multiprocessing.get_context("spawn")
    servers, times = [], {old: [], new: []}
    for checkout in times:
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there, checkout, problem), daemon=True)
        process.start()
        times[checkout].append(here.recv())
        servers.append((checkout, here, process))
    for repeat in range(repeats):
        for checkout, pipe, _ in servers if repeat % 2 else servers[::-1]:
            time.sleep(PAUSE)
            pipe.send("go")
            times[checkout].append(pipe.recv())
    for _, pipe, process in servers:
        pipe.send("stop")
        process.join()
    return {
        name: {"cold": times[checkout][0], "warm": statistics.median(times[checkout][1:])}
        for name, checkout in (("old", old), ("new", new))
    }


def compare(problems, checkout, repeats):
    """Measure all problems; return the figures, and print a row of a Markdown table for each."""
    old, new = Path(checkout).resolve(), Path(__file__).resolve().parents[1]
    if not (old / "jaxgrad" / "__init__.py").exists() or old == new:
        raise SystemExit(f"--against {checkout} is no other checkout of jaxgrad")
    print(f"| problem | old | new, medians of {repeats} | old / new | cold, old | new |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    rows = []
    for problem in problems:
        found = measure(problem, old, new, repeats)
        warm, cold = ([found[name][key] for name in ("old", "new")] for key in ("warm", "cold"))
        texts = [*map(seconds_text, warm), f"{warm[0] / warm[1]:.2f}", *map(seconds_text, cold)]
        print(f"| {problem_text(problem)} | {' | '.join(texts)} |", flush=True)
        rows.append({"problem": problem, **found})
    return rows
