"""How often the sequential verdict is wrong and how many samples it takes, over thousands of runs.

Each run judges claims about the masked autoencoder's expected gradient, at a stated probability of
a false verdict of 1e-2. Right claims must be refuted in at most that share of runs; wrong ones must
be refuted whenever there are samples enough; claims off by a little more than the resolution must
be confirmed in at most that share. The chunk means do not depend on the claim, so the runs of one
mask and size are sampled once, many keys at a time, and every claim is judged on them. Run with

    python benchmarks/calibration.py

It prints two tables and the power curve's figures, and writes the curve to
benchmarks/calibration.png; ``--wrong`` prints only the table of wrong claims.
"""

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jaxgrad import masks
from jaxgrad.catalog.autoencoders import masked_loss
from jaxgrad.evidence.sampling.loop import Sampler
from jaxgrad.evidence.sampling.sequential import Limits, Sequence
from jaxgrad.reports.finding import Verdict

HERE = Path(__file__).resolve().parent
FALSE_ALARM = 1e-2
RUNS, CHUNK, CHUNKS = 2000, 4, 1024
FEW, LONG_CHUNK, LONG_CHUNKS = 40, 4, 32768
"""Runs of the power curve."""
MANY, STAGES = 200, (4096, 16384, 32768, 65536, 131072)
"""Runs of wrong claims, and the chunks of 4 samples up to which those still undecided are taken,
one stage after another.
"""
SIZES = {"m=4, n=4": (4, 4, 2), "m=8, n=6": (8, 6, 3), "m=12, n=8": (12, 8, 4)}
FAMILIES = {
    "Bernoulli(0.6)": masks.Bernoulli(0.6),
    "Patches(0.6, 2)": masks.Patches(0.6, 2),
    "FixedCount(n/2)": None,
}
RESOLUTION, FINE = 0.1, 2e-3
"""Resolution where right claims are judged, and where wrong ones are, so that none is confirmed
before it is refuted.
"""


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
    several = stretches(sampler, args, chunk, chunks)
    for first in range(0, runs, batch):
        yield from np.asarray(several(jax.random.split(jax.random.key(1000 + first), batch), 0))


def stretches(sampler, args, chunk, chunks):
    """Compile a function of several runs' keys and the first chunk to the means of their chunks."""

    def one(key, first):
        def step(_, i):
            leaves = sampler.means.mean(jax.random.fold_in(key, i), sampler.mask, args, chunk)
            return None, jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])

        return jax.lax.scan(step, None, first + jnp.arange(chunks, dtype=jnp.uint32))[1]

    return jax.jit(jax.vmap(one, in_axes=(0, None)))


def refutations(sampler, args, wrong):
    """Return {name: (verdict, samples)} of the wrong claims in MANY runs, as long as they take."""
    batch, step = 20, STAGES[0]
    several = stretches(sampler, args, LONG_CHUNK, step)
    keys = jax.random.split(jax.random.key(7), MANY)
    rows = [np.zeros((0, 0), np.float32)] * MANY
    outcomes, left = [{}] * MANY, list(range(MANY))
    for stage in STAGES:
        for begin in range(0, len(left), batch):
            some = left[begin : begin + batch]
            padded = np.resize(some, batch)
            for first in range(len(rows[some[0]]), stage, step):
                for i, more in zip(
                    some, np.asarray(several(keys[padded], np.uint32(first))), strict=False
                ):
                    rows[i] = np.concatenate([rows[i], more]) if first else more
            for i in some:
                outcomes[i] = judge(rows[i], wrong, LONG_CHUNK, FINE, STAGES[-1])
        left = [
            i
            for i in left
            if any(verdict == Verdict.UNDECIDED for verdict, _ in outcomes[i].values())
        ]
        for i in set(range(MANY)) - set(left):
            rows[i] = np.zeros((0, 0), np.float32)
        if not left:
            break
    return outcomes


def judge(rows, claims, chunk, resolution, planned=None):
    """Judge claims on one run of so many planned chunks; return {name: (verdict, samples)}."""
    size, last = rows.shape[1], len(rows)
    limits = Limits(FALSE_ALARM, resolution, (planned or last) * chunk, chunk, 256)
    parts = {"w1": slice(0, size // 2), "w2": slice(size // 2, size)}
    rounding = 1e-6 * np.abs(next(iter(claims.values()))).max() * np.ones(size)
    sequences = {name: Sequence(claim, rounding, parts, limits) for name, claim in claims.items()}
    tails, found, done = next(iter(sequences.values())).tails, {}, 0
    for look in (look for look in limits.looks if look <= last):
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
    """Return samples to a refutation of claims off by a factor, (effects, runs); nan for none."""
    claims = {f"{e:.4g}": (1 + e) * right for e in effects}
    outcomes = [judge(rows, claims, LONG_CHUNK, FINE) for rows in rows_of_runs]
    return np.array(
        [
            [o[name][1] if o[name][0] == Verdict.REFUTED else np.nan for o in outcomes]
            for name in claims
        ]
    )


def cases():
    """Yield each family and size with its problem: sampler, arguments, right and wrong claims."""
    for family, given in FAMILIES.items():
        for size, (m, n, p) in SIZES.items():
            mask = given or masks.FixedCount(n // 2)
            rng = np.random.default_rng(n)
            x, w1, w2 = (rng.standard_normal(s) for s in ((m, n), (p, n), (n, p)))
            args = tuple(jnp.asarray(a, jnp.float32) for a in (x, w1, w2))
            yield (
                family,
                size,
                Sampler(masked_loss, mask, (m, n), (1, 2)),
                args,
                *wrong_claims(x, w1, w2, mask, n),
            )


def right_table():
    print(f"{RUNS} runs each of up to {CHUNK * CHUNKS} samples, resolution {RESOLUTION}\n")
    print(
        "| mask | size | right: refuted | confirmed | 1.05 × resolution off: confirmed | 2 × off |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for family, size, sampler, args, right, _ in cases():
        claims = {
            "right": right,
            "over": (1 + 1.05 * RESOLUTION) * right,
            "twice": (1 + 2 * RESOLUTION) * right,
        }
        outcomes = [
            judge(rows, claims, CHUNK, RESOLUTION)
            for rows in sampled(sampler, args, RUNS, CHUNK, CHUNKS, 100)
        ]
        shares = [share(outcomes, "right", v) for v in (Verdict.REFUTED, Verdict.CONFIRMED)]
        shares += [share(outcomes, name, Verdict.CONFIRMED) for name in ("over", "twice")]
        print(f"| {family} | {size} | " + " | ".join(f"{s:.2%}" for s in shares) + " |", flush=True)


def wrong_table():
    print(
        f"{MANY} runs each of up to {LONG_CHUNK * STAGES[-1]} samples, resolution {FINE}: "
        f"refuted, and the median and most samples\n"
    )
    print(
        "| mask | size | scale 1.01 | no diagonal term | p for p² | one entry off by 5% | "
        "misplaced patch |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for family, size, sampler, args, _, wrong in cases():
        outcomes = refutations(sampler, args, wrong)
        told = []
        for name in wrong:
            samples = [o[name][1] for o in outcomes]
            count = sum(o[name][0] == Verdict.REFUTED for o in outcomes)
            told.append(f"{count}/{MANY}, {np.median(samples):.0f}, {max(samples)}")
        print(
            f"| {family} | {size} | " + " | ".join(told + [""] * (5 - len(told))) + " |", flush=True
        )


def curves():
    """Draw the samples to a refutation against the error, and print the medians."""
    found = {}
    for family, size, sampler, args, right, _ in cases():
        if size == "m=8, n=6":
            effects = np.geomspace(0.006, 1.0, 14)
            long = list(sampled(sampler, args, FEW, LONG_CHUNK, LONG_CHUNKS, 10))
            found[family] = effects, power_curve(long, right, effects)
    plt.style.use(HERE.parent / "notebooks" / "style.mplstyle")
    figure, axis = plt.subplots(figsize=(6.4, 4))
    for i, (family, (effects, samples)) in enumerate(found.items()):
        always = ~np.isnan(samples).any(axis=1)
        low, middle, high = np.quantile(samples[always], [0.1, 0.5, 0.9], axis=1)
        axis.plot(effects[always], middle, "o-", color=f"C{i}", label=family)
        axis.fill_between(effects[always], low, high, color=f"C{i}", alpha=0.15, linewidth=0)
        print(
            family,
            *(f"{e:.2%}: {s:.0f}" for e, s in zip(effects[always], middle, strict=True)),
            sep="  ",
        )
    effects, samples = found["Bernoulli(0.6)"]
    always = ~np.isnan(samples).any(axis=1)
    anchor = np.flatnonzero(always)[0]
    axis.plot(
        effects,
        np.median(samples[anchor]) * (effects[anchor] / effects) ** 2,
        "k:",
        linewidth=1,
        label="1/effect²",
    )
    axis.axhline(256 * LONG_CHUNK, color="0.6", linewidth=0.8, linestyle="--")
    axis.text(0.0062, 256 * LONG_CHUNK * 1.08, "first look", color="0.4", fontsize=8)
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="error of the claim, relative",
        ylabel="samples until it is refuted",
        ylim=(8e2, 2e5),
    )
    axis.set_title("Samples to a refutation; median and 80% of 40 runs")
    axis.legend()
    figure.savefig(HERE / "calibration.png")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wrong", action="store_true", help="only the table of wrong claims")
    only, start = parser.parse_args().wrong, time.perf_counter()
    for part in (wrong_table,) if only else (right_table, wrong_table, curves):
        part()
        print(f"\n{time.perf_counter() - start:.0f} s\n")


if __name__ == "__main__":
    main()
