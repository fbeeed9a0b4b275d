"""Monte Carlo of a masked autoencoder's expected gradient, side by side with torch in one run.

The problem is that of the original notebook: X (m, n), weights W1 (h, n) and W2 (n, h), a
Bernoulli(0.6) mask, float32, and the mean over N masks of the gradient of mean (φ((M∘X)W1ᵀ)W2ᵀ −
X)² in W1 and in W2, with φ the identity and h = n, or φ = relu. Contenders:

    loop      N calls of torch.autograd.functional.jacobian for W1 and N for W2, a mask for each
    func      torch.func.vmap of torch.func.grad over masks drawn at once
    folded    torch autograd of the mean loss with the masks folded into the batch
    compiled  the same, loss and gradient by torch.compile
    jaxgrad   jaxgrad.estimate(..., argnums=(0, 1)), which returns standard errors too

Each contender runs in a process of its own, so that no thread pool disturbs another, and is called
in turn with the others. "cold" is its first call there: imports are over, compilation and
warming-up are in it. "warm" is the median of later calls, before each of which the contender has
run for 50 ms, so that caches, clock rate and threads are awake again. The torch contenders run with
the quickest of several chunk sizes and numbers of threads, found just before; jaxgrad chooses for
itself. Where the loop would take too long it is timed on fewer masks and scaled up, which the table
marks with ~.

The floor is what the arithmetic alone would take: the products that touch a sample, two of m n n
for the linear model (W2 W1 is known before), five of m n h for the nonlinear one, at the rate of
matrix products measured here, and the mask's entries at the rate of the generator measured here.

    python benchmarks/monte_carlo.py --json results.json
    python benchmarks/monte_carlo.py --against ../older   jaxgrad of two checkouts, in turn
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from pathlib import Path

from checkouts import CONVOLUTION, awake, compare, problem_text, seconds_text
from contenders import MAKE, expected
from floor import floor, rates

PROBLEMS = [
    (50, 10, 10, 1000),
    (50, 10, 10, 100_000),
    (64, 64, 64, 1000),
    (64, 784, 784, 1000),
    (64, 784, 256, 1000),
]
"""m, n, h and N; the model is linear where h = n, and has a ReLU where it is not."""
LOOP_CALLS = {10: 1000, 64: 100, 784: 8}
CHUNKS = {10: (250, 1000, 4000), 64: (64, 250, 1000), 784: (16, 64)}
MEMORY_PROBLEMS = [(50, 10, 10, 10**6), (64, 64, 64, 10**6)]


PAUSE = 0.5
"""Seconds between two calls: a thread pool spins for a while after its work, and would take a core
from the next contender.
"""


def serve(pipe, name, m, n, h, samples, chunks):
    """Send a summary of the cold call, then answer every "go" with the seconds of one call."""
    import numpy as np

    start = time.perf_counter()
    run = MAKE[name](m, n, h, samples, chunks[0])
    imported, threads = time.perf_counter() - start, None

    def timed(run):
        start = time.perf_counter()
        result = run()
        return time.perf_counter() - start, result

    cold, result = timed(run)
    best = chunks[0]
    if name != "jaxgrad":  # torch: find the quickest setting
        import torch

        def quickest(setting):
            chunk, threads = setting
            torch.set_num_threads(threads)
            # of the loop a tenth is enough to choose by, of the others four of the largest chunks
            few = min(samples, 4 * max(chunks))
            trial = MAKE[name](m, n, h, few, max(1, chunk // 10) if name == "loop" else chunk)
            return min(timed(trial)[0] for _ in range(4 if n < 784 else 2))

        best, threads = min(
            ((c, t) for c in chunks for t in {1, torch.get_num_threads()}), key=quickest
        )
        torch.set_num_threads(threads)
        run = MAKE[name](m, n, h, samples, best)
    exact = expected(m, n, h)
    error = exact and max(
        float(np.abs(g - e).max() / np.abs(e).max()) for g, e in zip(result, exact, strict=True)
    )
    pipe.send({"import": imported, "cold": cold, "chunk": best, "threads": threads, "error": error})
    while pipe.recv() == "go":
        if name != "loop":
            awake(run)
        pipe.send(timed(run)[0])


def measure(problem, repeats, seconds):
    """Time all contenders on one problem, in turn."""
    m, n, h, samples = problem
    context = multiprocessing.get_context("spawn")
    workers, rows = {}, {}
    for name in MAKE:
        chunks = {"loop": (min(samples, LOOP_CALLS[n]),), "jaxgrad": (0,)}.get(
            name, tuple(min(c, samples) for c in CHUNKS[n])
        )
        here, there = context.Pipe()
        process = context.Process(
            target=serve,
            args=(there, name, m, n, h, samples, tuple(dict.fromkeys(chunks))),
            daemon=True,
        )
        process.start()
        rows[name] = {"times": []} | here.recv()
        workers[name] = here, process
    start = time.perf_counter()
    for repeat in range(repeats):
        for name, (pipe, _) in workers.items():
            if name == "loop" and repeat >= 3:
                continue
            time.sleep(PAUSE)
            pipe.send("go")
            rows[name]["times"].append(pipe.recv())
        if repeat >= 4 and time.perf_counter() - start > seconds:
            break
    for pipe, process in workers.values():
        pipe.send("stop")
        process.join()
    calls = min(samples, LOOP_CALLS[n])
    for name, row in rows.items():
        scale = samples / calls if name == "loop" else 1
        row |= {
            "warm": scale * statistics.median(row["times"]),
            "cold": scale * row["cold"],
            "scaled_from": calls if scale > 1 else None,
        }
    return {"m": m, "n": n, "h": h, "samples": samples, "contenders": rows}


def peak_memory(pipe, m, n, h, samples):
    """Send the peak resident size of a process in MiB: all in all, and after importing."""

    def peak():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

    run = MAKE["jaxgrad"](m, n, h, samples, None)
    before, start = peak(), time.perf_counter()
    run()
    size = {"m": m, "n": n, "h": h, "samples": samples}
    pipe.send(
        size | {"mib": peak(), "mib_imported": before, "seconds": time.perf_counter() - start}
    )


def alone(function):
    """Call a function in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function)


def measure_memory(problem):
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=peak_memory, args=(there, *problem), daemon=True)
    process.start()
    result = here.recv()
    process.join()
    return result


def table(results):
    """Return the ratios as a Markdown table."""
    lines = [
        "| problem | loop | torch.func | folded | torch.compile | jaxgrad cold | warm | over loop "
        "| over best of torch | over floor |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in results["problems"]:
        c = r["contenders"]
        warm = {name: row["warm"] for name, row in c.items()}
        loop = ("~" if c["loop"]["scaled_from"] else "") + seconds_text(warm["loop"])
        torch = [warm[name] for name in ("func", "folded", "compiled")]
        problem = r["m"], r["n"], r["h"], r["samples"]
        least = floor(problem, results["rates"])
        lines.append(
            f"| {problem_text(problem)} | {loop} | "
            f"{' | '.join(map(seconds_text, torch))} "
            f"| {seconds_text(c['jaxgrad']['cold'])} | {seconds_text(warm['jaxgrad'])} "
            f"| {warm['loop'] / warm['jaxgrad']:.0f}× | {min(torch) / warm['jaxgrad']:.2f}× | "
            f"{warm['jaxgrad'] / least:.2f}× |"
        )
    lines += [
        "",
        f"Rates: {results['rates']['operations'] / 1e9:.0f} Gflop/s, "
        f"{results['rates']['entries'] / 1e6:.0f} M mask entries/s.",
    ]
    if results["memory"]:
        lines += [
            "",
            "| one process | peak memory | of that after imports | seconds |",
            "| --- | ---: | ---: | ---: |",
        ]
        lines += [
            f"| m={r['m']}, n={r['n']}, N={r['samples']} | {r['mib']:.0f} MiB | "
            f"{r['mib_imported']:.0f} MiB | {r['seconds']:.1f} |"
            for r in results["memory"]
        ]
    return "\n".join(lines)


def machine():
    import importlib.metadata

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
    versions = {
        package: importlib.metadata.version(package)
        for package in ("jax", "jaxlib", "torch", "numpy")
    }
    return {"cpu": model, "cores": os.cpu_count(), "load": os.getloadavg()[0], "versions": versions}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument(
        "--repeats",
        type=int,
        default=25,
        help="warm calls of each contender, at most (default 25; of the loop 3)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        help="stop repeating a problem after this long (default 60)",
    )
    parser.add_argument(
        "--only",
        type=int,
        nargs="+",
        help=f"numbers of the problems to run, of {dict(enumerate([*PROBLEMS, CONVOLUTION]))}",
    )
    parser.add_argument(
        "--no-memory", action="store_true", help="leave out the memory at 10⁶ samples"
    )
    parser.add_argument(
        "--against", metavar="CHECKOUT", type=Path, help="compare jaxgrad with that of a checkout"
    )
    options = parser.parse_args()
    if options.against:
        problems = [
            problem
            for number, problem in enumerate([*PROBLEMS, CONVOLUTION])
            if options.only is None or number in options.only
        ]
        rows = compare(problems, options.against, 7)
        if options.json:
            figures = {"machine": machine(), "problems": rows}
            options.json.write_text(json.dumps(figures, indent=2) + "\n")
        return
    results = {"machine": machine(), "rates": alone(rates), "problems": [], "memory": []}
    for number, problem in enumerate(PROBLEMS):
        if options.only is None or number in options.only:
            print("m={} n={} h={} N={} …".format(*problem), file=sys.stderr)
            results["problems"].append(measure(problem, options.repeats, options.seconds))
    if not options.no_memory:
        results["memory"] = [measure_memory(problem) for problem in MEMORY_PROBLEMS]
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
