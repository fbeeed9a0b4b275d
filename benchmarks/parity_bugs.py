"""How many of the mistakes that people make in ports are found, and is the right layer named?

Each mistake is planted in a port that is right otherwise, at 10 seeds and three kinds of inputs: of
unit size, ten times that, and with a mean of 300. "Found" is a refutation, out of the runs in which
the mistake changes anything: at a mean of 300 the two forms of GELU, or a GRU's saturated gates,
are the same to the last bit. "Named" is that the first block the report names is the one where the
mistake is. Fixed tolerances compare outputs and gradients in float32, as ports are usually tested:
`assert_close` is torch's default (rtol 1.3e-6, atol 1e-5), 1e-5 and 1e-4 are rtol and atol both.
Run with

    python benchmarks/parity_bugs.py [--seeds 10]
"""

import argparse
import functools
import pathlib
import sys
import time

import jax
import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from jaxgrad import parity
from parity_tests import jax_models, torch_models

INPUTS = {"unit": (0.0, 1.0), "scale 10": (0.0, 10.0), "mean 300": (300.0, 1.0)}
TOLERANCES = {"1e-5": (1e-5, 1e-5), "assert_close": (1.3e-6, 1e-5), "1e-4": (1e-4, 1e-4)}
MODELS = {
    "MLP": (torch_models.MLP, (7, 6), {}, jax_models.mlp, {}),
    "CNN": (torch_models.CNN, (3, 3, 8, 8), {"train": True}, jax_models.cnn, {"buffers": True}),
    "encoder": (
        torch_models.encoder,
        (2, 5, 8),
        {"train": True},
        jax_models.encoder,
        {"ignore": "layers.?"},
    ),
    "causal encoder": (torch_models.CausalEncoder, (2, 5, 8), {}, jax_models.causal_encoder, {}),
    "GRU": (torch_models.Recurrent, (3, 6, 4), {}, jax_models.recurrent, {}),
    "masked autoencoder": (
        torch_models.MaskedAutoencoder,
        (3, 3, 8, 8),
        {},
        jax_models.masked_autoencoder,
        {},
    ),
}
BUGS = [
    ("MLP", "eps of norm", "norm"),
    ("MLP", "unbiased variance in norm", "norm"),
    ("MLP", "detached mean in norm", "norm"),
    ("MLP", "detached variance in norm", "norm"),
    ("MLP", "tanh in act1", "act1"),
    ("MLP", "no bias in fc1", "fc1"),
    ("MLP", "transposed fc1", "fc1"),
    ("MLP", "transposed fc2", "fc2"),
    ("MLP", "float32 in fc2", "fc2"),
    ("MLP", "wrong rule in act2", "act2"),
    ("MLP", "leaky act2", "act2"),
    ("MLP", "detached input of out", "out"),
    ("CNN", "SAME padding in conv1", "conv1"),
    ("CNN", "eps of bn2", "bn2"),
    ("CNN", "momentum of bn1", "bn1.running_mean updated"),
    ("CNN", "biased running variance in bn2", "bn2.running_var updated"),
    ("CNN", "detached statistics in bn1", "bn1"),
    ("encoder", "q and k swapped in layers.1.self_attn", "layers.1.self_attn[0]"),
    ("encoder", "no scale in layers.1.self_attn", "layers.1.self_attn[0]"),
    ("encoder", "softmax over queries in layers.1.self_attn", "layers.1.self_attn[0]"),
    ("encoder", "transposed out_proj in layers.0.self_attn", "layers.0.self_attn[0]"),
    ("encoder", "detached keys in layers.1.self_attn", "layers.1.self_attn[0]"),
    ("encoder", "detached residual in layers.1", "layers.1.norm1"),
    ("encoder", "no residual in layers.0", "layers.0.norm1"),
    ("encoder", "dropout scale in layers.1.dropout1", "layers.1.dropout1"),
    (
        "causal encoder",
        "mask off by one in encoder.layers.1.self_attn",
        "encoder.layers.1.self_attn[0]",
    ),
    ("GRU", "gates swapped in gru", "gru[0]"),
    ("GRU", "no b_hn in gru", "gru[0]"),
    ("GRU", "no reset in gru", "gru[0]"),
    ("GRU", "update inverted in gru", "gru[0]"),
    ("GRU", "last but one state", "fc"),
    ("masked autoencoder", "patches in another order in embed", "embed"),
    ("masked autoencoder", "tanh in encode.act", "encode.act"),
    ("masked autoencoder", "tokens not put back", "decode.norm1"),
    ("masked autoencoder", "detached mask token", "decode.norm1 or decode.norm2 or decode"),
]


def golden_of(model, inputs, seed):
    """Record a fresh model at inputs of a kind."""
    make, shape, options, _, _ = MODELS[model]
    mean, scale = INPUTS[inputs]
    torch.manual_seed(seed)
    x = mean + scale * np.random.default_rng(seed).standard_normal(shape)
    name = "src" if model == "encoder" else "x"
    return parity.record(make(), {name: x}, seed=seed, **options)


def checker_of(model, bug=""):
    """A checker of a port with a mistake, or of the right one."""
    *_, function, options = MODELS[model]
    port = (
        (lambda p, src: function(p, src, bug))
        if model == "encoder"
        else functools.partial(function, bug=bug)
    )
    return parity.Checker(port, **options)


def named(report):
    """The first block that the report names, or the first updated buffer that differs."""
    first, vjp = report.context.get("first_forward"), report.context.get("first_vjp")
    if first is not None:
        return first
    if vjp:
        return vjp[0] if len(vjp) == 1 else " or ".join(vjp)
    first = next((f for f in report.findings if f.verdict == "refuted"), None)
    probe = first is not None and first.evidence == "probe"
    return first.wrt.removeprefix("d ").removesuffix(" beyond") if probe else first and first.wrt


def passes(checker, golden):
    """Which fixed tolerances let the port pass in float32."""
    with jax.enable_x64(False):
        ours = checker.side("float32", golden.state, golden.inputs)
    pairs = [
        (ours[kind][k], theirs)
        for kind in ("value", "parameter", "input", "buffer")
        for k, theirs in golden.group(f"single/{kind}").items()
        if theirs.dtype.kind == "f"
    ]
    return {
        name: all(np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=False) for a, b in pairs)
        for name, (rtol, atol) in TOLERANCES.items()
    }


def runs(model, bug, seeds, inputs):
    """Check one port at every seed."""
    checker = CHECKERS.setdefault((model, bug), checker_of(model, bug))
    for seed in range(seeds):
        golden = GOLDENS.setdefault((model, inputs, seed), golden_of(model, inputs, seed))
        yield checker(golden), passes(checker, golden)


CHECKERS: dict = {}
GOLDENS: dict = {}


def effects(model, bug, inputs, seed):
    """Say whether a mistake moves float64 more than rounding, compiled and step by step."""
    golden = GOLDENS[model, inputs, seed]
    sides = [CHECKERS[model, b].side for b in (bug, "")]
    for side in sides:
        side.adopt(golden)

    def change():
        wrong, right = (side("float64", golden.state, golden.inputs) for side in sides)
        pairs = [
            (wrong[kind][k], v)
            for kind, group in right.items()
            for k, v in group.items()
            if v.dtype.kind == "f"
        ]
        return max(
            np.max(np.abs(a - b), initial=0.0) / (np.max(np.abs(b), initial=0.0) or 1.0)
            for a, b in pairs
        )

    with jax.enable_x64(True):
        size = change()
        if 1e-12 < size < 1e-6:
            with jax.disable_jit():
                size = min(size, change())
    return bool(size > 1e-12)


def one_bug(model, bug, block, seeds, missed):
    """Print one row, and return how often the mistake could be found, was, and was named."""
    found, able, right, remedies, slipped = [], [], 0, [], dict.fromkeys(TOLERANCES, 0)
    for inputs in INPUTS:
        reports = list(runs(model, bug, seeds, inputs))
        able.append(
            sum(
                effects(model, bug, inputs, seed) or r.verdict == "refuted"
                for seed, (r, _) in enumerate(reports)
            )
        )
        refuted = [r for r, _ in reports if r.verdict == "refuted"]
        found.append(len(refuted))
        right += sum(named(r) == block for r in refuted)
        remedies += [text for r in refuted for text in r.context.get("remedies", {}).values()]
        for seed, (_, passed) in enumerate(reports):
            for name in TOLERANCES:
                slipped[name] += passed[name] and effects(model, bug, inputs, seed)
    CHECKERS.pop((model, bug))
    for name in TOLERANCES:
        missed[name] += slipped[name]
    remedy = max(set(remedies), key=remedies.count) if remedies else ""
    counts = ", ".join(f"{f} of {a}" for f, a in zip(found, able, strict=True))
    cells = [
        model,
        bug,
        counts,
        f"{right} of {sum(found)}",
        ", ".join(map(str, slipped.values())),
        remedy,
    ]
    print(f"| {' | '.join(cells)} |", flush=True)
    return sum(able), sum(found), right


def right_port(model, seeds):
    """Print how often a right port was confirmed, and how often fixed tolerances failed it."""
    verdicts, failed = [], dict.fromkeys(TOLERANCES, 0)
    for inputs in INPUTS:
        for report, passed in runs(model, "", seeds, inputs):
            verdicts.append(str(report.verdict))
            if report.verdict != "confirmed":
                worst = next(f for f in report.findings if f.verdict != "confirmed")
                print(
                    f"{model}, {inputs}: {worst.wrt} {worst.evidence}: {worst.detail} "
                    f"{worst.diagnosis}",
                    file=sys.stderr,
                )
            for name in TOLERANCES:
                failed[name] += not passed[name]
    counts = [str(verdicts.count(v)) for v in ("confirmed", "undecided", "refuted")]
    print(
        f"| {model} | {' | '.join(counts)} | {', '.join(map(str, failed.values()))} of "
        f"{len(verdicts)} |",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", default="", help="models whose name begins so")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    models = [m for m in MODELS if m.startswith(options.only)]
    print("| right port | confirmed | undecided | refuted | failed by 1e-5, assert_close, 1e-4 |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for model in models:
        right_port(model, options.seeds)
    missed = dict.fromkeys(TOLERANCES, 0)
    print(
        "\n| model | mistake | found: unit, scale 10, mean 300 | right block named | missed by "
        "1e-5, assert_close, 1e-4 | remedy |"
    )
    print("| --- | --- | ---: | ---: | ---: | --- |")
    bugs = [b for b in BUGS if b[0] in models]
    able, found, right = (
        sum(column)
        for column in zip(*(one_bug(*bug, options.seeds, missed) for bug in bugs), strict=True)
    )
    print(
        f"\n{len(bugs)} mistakes in {len(bugs) * len(INPUTS) * options.seeds} runs. In {able} the "
        f"mistake changes something: {found} "
        f"were found, and the right block was named in {right}. Missed by fixed tolerances: "
        + ", ".join(f"{name} {missed[name]}" for name in TOLERANCES)
        + f". {time.perf_counter() - start:.0f} s in all."
    )


if __name__ == "__main__":
    main()
