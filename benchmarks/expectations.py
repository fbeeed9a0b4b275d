"""Time and memory of exact expectations of the masked autoencoder, compile time included.

Each line runs in a process of its own, so that its memory is its own peak. Beside it stands the
closed form's relative distance, and what Monte Carlo reaches in the time that the exact expectation
took. Run with

    python benchmarks/expectations.py
"""

import json
import resource
import subprocess
import sys
import time

CASES = [
    ("Bernoulli(0.6)", 50, 10, 6),
    ("FixedCount(5)", 50, 10, 6),
    ("Bernoulli(0.6)", 64, 256, 64),
    ("Patches(0.6, 16)", 64, 256, 64),
    ("GridPatches(0.6, (16, 16), (4, 4))", 64, 256, 64),
    ("FixedCount(64)", 64, 256, 64),
    ("Spans(64)", 64, 256, 64),
    ("RandomRatio(0.2, 0.9)", 64, 256, 64),
    ("MultiplicativeGaussian(0.5)", 64, 256, 64),
    ("Bernoulli(0.6)", 1797, 64, 32),
    ("FixedCount(32)", 1797, 64, 32),
]
"""(mask, samples m, features n, hidden p); the last two have the size of the digits."""


def one(text: str, m: int, n: int, p: int) -> dict[str, object]:
    import jax
    import numpy as np

    import jaxgrad as jg
    from jaxgrad.catalog import autoencoders
    from jaxgrad.evidence.expectation.expectation import choose

    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    x, w1, w2 = (rng.standard_normal(s) / s[1] ** 0.5 for s in ((m, n), (p, n), (n, p)))
    mask = eval(text, vars(jg.masks))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    expected = jg.expectation(autoencoders.masked_loss, mask, (m, n))
    compiled = jax.jit(jax.value_and_grad(expected, argnums=(1, 2))).lower(x, w1, w2).compile()
    built = time.perf_counter()
    _, gradient = jax.block_until_ready(compiled(x, w1, w2))
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    claimed = autoencoders.masked_expected_gradient(x, w1, w2, mask)
    plan = choose(autoencoders.masked_loss, mask, (m, n), (x, w1, w2))

    def distance(found: object) -> float:
        pairs = zip(found, claimed.values(), strict=True)
        return max(float(abs(np.asarray(a) - b).max() / abs(b).max()) for a, b in pairs)

    estimator = jg.estimate(autoencoders.masked_loss, mask, (m, n), argnums=(1, 2))
    samples, sampled = 256, None
    while True:
        begin = time.perf_counter()
        estimate = jax.block_until_ready(estimator(jax.random.key(0), x, w1, w2, samples=samples))
        spent = time.perf_counter() - begin
        if (sampled is not None and spent > done - start) or samples >= 2**16:
            sampled = (samples, spent, distance(estimate.mean))
            break
        sampled, samples = (samples, spent, distance(estimate.mean)), 4 * samples
    return {
        "way": plan.method,
        "masks": plan.count,
        "compile": built - start,
        "run": done - built,
        "distance": distance(gradient),
        "peak": peak / 2**20,
        "own": (peak - before) / 2**20,
        "sampled": sampled,
    }


def main() -> None:
    header = (
        f"{'mask':36}{'m':>5}{'n':>5}{'p':>4}  "
        f"{'way':12}{'masks':>6}{'compile':>9}{'run':>8}{'off':>9}{'peak':>9}   Monte Carlo"
    )
    print(header)
    for text, m, n, p in CASES:
        out = subprocess.run(
            [sys.executable, __file__, text, str(m), str(n), str(p)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        r = json.loads(out.splitlines()[-1])
        samples, spent, off = r["sampled"]
        print(
            f"{text:36}{m:5}{n:5}{p:4}  {r['way']:12}{r['masks']:6}{r['compile']:7.2f} "
            f"s{r['run']:6.2f} s{r['distance']:9.0e}"
            f"{r['peak']:5.2f} GiB   {samples} samples, {spent:.2f} s, off {off:.0e}",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one(sys.argv[1], *map(int, sys.argv[2:]))))
    else:
        main()
