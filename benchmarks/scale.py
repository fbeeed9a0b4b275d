"""Time and memory of an estimate of a thousand to ten million samples, a process for each.

The gradient of the masked autoencoder's loss, m=50, n=10. Compilation is left out: each process
first runs the same call on the same chunks. Run with

    python benchmarks/scale.py
"""

import json
import resource
import subprocess
import sys
import time

M, N = 50, 10
SAMPLES = (10**3, 10**4, 10**5, 10**6, 10**7)


def one(samples):
    import jax
    import numpy as np

    import jaxgrad as jg
    from jaxgrad.catalog.autoencoders import masked_loss

    rng = np.random.default_rng(0)
    x, w1, w2 = (jax.numpy.asarray(rng.random(s), "float32") for s in ((M, N), (N, N), (N, N)))
    estimate = jg.estimate(masked_loss, jg.masks.Bernoulli(0.6), (M, N), argnums=(1, 2))
    estimate(jax.random.key(0), x, w1, w2, samples=min(samples, 10**6))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    found = estimate(jax.random.key(1), x, w1, w2, samples=samples)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "samples": found.samples,
        "seconds": seconds,
        "peak": peak / 1024,
        "more": (peak - before) / 1024,
    }


def main():
    print("| samples | seconds | µs a sample | peak memory, MiB | of it in the timed call |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for samples in SAMPLES:
        out = subprocess.run(
            [sys.executable, __file__, str(samples)], capture_output=True, text=True, check=True
        ).stdout
        r = json.loads(out.splitlines()[-1])
        each = r["seconds"] / r["samples"] * 1e6
        print(
            f"| {r['samples']} | {r['seconds']:.3f} | {each:.2f} | {r['peak']:.0f} | "
            f"{r['more']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one(int(sys.argv[1]))))
    else:
        main()
