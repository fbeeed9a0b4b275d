"""How often the sequential verdict is wrong, and how many samples it takes, over thousands of independent runs.

Each run judges claims about the masked autoencoder's expected gradient, at a stated probability of a false verdict of 1e-2. Right
claims must be refuted in at most that share of runs; wrong ones must be refuted whenever there are samples enough; claims off by a
little more than the resolution must be confirmed in at most that share. The chunk means do not depend on the claim, so the runs of one
mask and size are sampled once, many keys at a time, and every claim is judged on them. Run with

    python benchmarks/calibration.py

It prints the table and the power curve's figures, and writes the curve to benchmarks/calibration.png.
"""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jaxgrad import masks
from jaxgrad.catalog.autoencoders import masked_loss
from jaxgrad.report import Verdict
from jaxgrad.sampling import Sampler
from jaxgrad.sequential import Limits, Sequence

HERE = Path(__file__).resolve().parent
FALSE_ALARM = 1e-2
RUNS, CHUNK, CHUNKS = 2000, 4, 1024
FEW, LONG_CHUNK, LONG_CHUNKS = 40, 4, 32768
SIZES = {"m=4, n=4": (4, 4, 2), "m=8, n=6": (8, 6, 3), "m=12, n=8": (12, 8, 4)}
FAMILIES = {"Bernoulli(0.6)": masks.Bernoulli(0.6), "Patches(0.6, 2)": masks.Patches(0.6, 2), "FixedCount(n/2)": None}
RESOLUTION, FINE = 0.1, 2e-3
"""Resolution where right claims are judged, and where wrong ones are, so that none is confirmed before it is refuted."""


def closed_form(x, w1, w2, mean, second):
    a = w2 @ w1 @ (second * (x.T @ x)) - x.T @ (mean * x)
    return np.concatenate([np.ravel(2 / x.size * w2.T @ a), np.ravel(2 / x.size * a @ w1.T)])


def wrong_claims(x, w1, w2, mask, n):
    """Return the mistakes of the notebooks, by name."""
    mean, second = (np.asarray(a, np.float64) for a in (mask.mean(n), mask.second_moment(n)))
    right = closed_form(x, w1, w2, mean, second)
    off = second - np.diag(np.diag(second))
    blocks = np.full((n, n), 0.36)
    for i in range(n):
        blocks[i // 2 : i // 2 + 2, i // 2 : i // 2 + 2] = 0.6
    one = right.copy()
    one[np.argmax(np.abs(right))] *= 1.05
    claims = {
        "scale 1.01": 1.01 * right,
        "no diagonal term": closed_form(x, w1, w2, mean, off + np.diag(mean**2)),
        "p for p²": closed_form(x, w1, w2, mean, np.sqrt(np.maximum(off, 0)) + np.diag(mean)),
        "one entry off by 5%": one,
    }
    if isinstance(mask, masks.Patches):
        claims["misplaced patch"] = closed_form(x, w1, w2, mean, blocks)
    return right, claims


def sampled(sampler, args, runs, chunk, chunks, batch):
    """Yield the chunk means of independent runs, (chunks, size) each."""

    def one(key):
        def step(_, i):
            leaves = sampler.chunk_mean(jax.random.fold_in(key, i), sampler.mask, args, chunk)
            return None, jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])

        return jax.lax.scan(step, None, jnp.arange(chunks, dtype=jnp.uint32))[1]

    several = jax.jit(jax.vmap(one))
    for first in range(0, runs, batch):
        yield from np.asarray(several(jax.random.split(jax.random.key(1000 + first), batch)))


def judge(rows, claims, chunk, resolution):
    """Judge claims on one run; return {name: (verdict, samples at which it fell)}."""
    size, last = rows.shape[1], len(rows)
    limits = Limits(FALSE_ALARM, resolution, last * chunk, chunk, 256)
    parts = {"w1": slice(0, size // 2), "w2": slice(size // 2, size)}
    rounding = 1e-6 * np.abs(next(iter(claims.values()))).max() * np.ones(size)
    sequences = {name: Sequence(claim, rounding, parts, limits) for name, claim in claims.items()}
    tails, found, done = next(iter(sequences.values())).tails, {}, 0
    for look in limits.looks:
        tails.add(rows[done:look])
        done = look
        for name, sequence in sequences.items():
            if name in found:
                continue
            sequence.tails = tails
            sequence._judge()
            verdicts = list(sequence.verdicts.values())
            if Verdict.REFUTED in verdicts:
                found[name] = Verdict.REFUTED, look * chunk
            elif Verdict.UNDECIDED not in verdicts:
                found[name] = Verdict.CONFIRMED, look * chunk
    return {name: found.get(name, (Verdict.UNDECIDED, last * chunk)) for name in claims}


def share(outcomes, name, verdict):
    return np.mean([outcome[name][0] == verdict for outcome in outcomes])


def power_curve(rows_of_runs, right, effects):
    """Return the samples to a refutation of claims that are off by a factor, (effects, runs); nan where there is none."""
    claims = {f"{e:.4g}": (1 + e) * right for e in effects}
    outcomes = [judge(rows, claims, LONG_CHUNK, FINE) for rows in rows_of_runs]
    return np.array([[o[name][1] if o[name][0] == Verdict.REFUTED else np.nan for o in outcomes] for name in claims])


def main():
    start = time.perf_counter()
    print(f"{RUNS} runs each of up to {CHUNK * CHUNKS} samples, resolution {RESOLUTION}; {FEW} of up to {LONG_CHUNK * LONG_CHUNKS}\n")
    print("| mask | size | right: refuted | confirmed | 1.05 × resolution off: confirmed | 2 × off | wrong: refuted, in samples |")
    print("| --- | --- | ---: | ---: | ---: | ---: | --- |")
    curves = {}
    for family, given in FAMILIES.items():
        for size, (m, n, p) in SIZES.items():
            mask = given or masks.FixedCount(n // 2)
            rng = np.random.default_rng(n)
            x, w1, w2 = (rng.standard_normal(s) for s in ((m, n), (p, n), (n, p)))
            right, wrong = wrong_claims(x, w1, w2, mask, n)
            claims = {"right": right, "over": (1 + 1.05 * RESOLUTION) * right, "twice": (1 + 2 * RESOLUTION) * right}
            sampler = Sampler(masked_loss, mask, (m, n), (1, 2))
            args = tuple(jnp.asarray(a, jnp.float32) for a in (x, w1, w2))
            outcomes = [judge(rows, claims, CHUNK, RESOLUTION) for rows in sampled(sampler, args, RUNS, CHUNK, CHUNKS, 100)]
            long = list(sampled(sampler, args, FEW, LONG_CHUNK, LONG_CHUNKS, 10))
            refuted = [judge(rows, wrong, LONG_CHUNK, FINE) for rows in long]
            told = "; ".join(
                f"{name} {sum(o[name][0] == Verdict.REFUTED for o in refuted)}/{FEW}, {np.median([o[name][1] for o in refuted]):.0f}"
                for name in wrong
            )
            shares = [share(outcomes, "right", v) for v in (Verdict.REFUTED, Verdict.CONFIRMED)]
            shares += [share(outcomes, name, Verdict.CONFIRMED) for name in ("over", "twice")]
            print(f"| {family} | {size} | " + " | ".join(f"{s:.2%}" for s in shares) + f" | {told} |", flush=True)
            if size == "m=8, n=6":
                effects = np.geomspace(0.006, 1.0, 14)
                curves[family] = effects, power_curve(long, right, effects)
    print(f"\n{time.perf_counter() - start:.0f} s")

    plt.style.use(HERE.parent / "notebooks" / "style.mplstyle")
    figure, axis = plt.subplots(figsize=(6.4, 4))
    for i, (family, (effects, samples)) in enumerate(curves.items()):
        always = ~np.isnan(samples).any(axis=1)
        low, middle, high = np.quantile(samples[always], [0.1, 0.5, 0.9], axis=1)
        axis.plot(effects[always], middle, "o-", color=f"C{i}", label=family)
        axis.fill_between(effects[always], low, high, color=f"C{i}", alpha=0.15, linewidth=0)
        print(family, *(f"{e:.2%}: {s:.0f}" for e, s in zip(effects[always], middle, strict=True)), sep="  ")
    effects, samples = curves["Bernoulli(0.6)"]
    always = ~np.isnan(samples).any(axis=1)
    anchor = np.flatnonzero(always)[0]
    axis.plot(effects, np.median(samples[anchor]) * (effects[anchor] / effects) ** 2, "k:", linewidth=1, label="1/effect²")
    axis.axhline(256 * LONG_CHUNK, color="0.6", linewidth=0.8, linestyle="--")
    axis.text(0.0062, 256 * LONG_CHUNK * 1.08, "first look", color="0.4", fontsize=8)
    axis.set(xscale="log", yscale="log", xlabel="error of the claim, relative", ylabel="samples until it is refuted", ylim=(8e2, 2e5))
    axis.set_title("Samples to a refutation; median and 80% of 40 runs")
    axis.legend()
    figure.savefig(HERE / "calibration.png")


if __name__ == "__main__":
    main()
