"""Verdicts on the two-sided corpus of right and wrong claims, and the time they take.

    python benchmarks/field.py [--kind K] [--json OUT] [--jobs 2] [--limit 60] [--check-grads]

Worker processes verify one claim after another; one that is over the limit is killed, and the next
claim gets a new process. `seconds` are those of `verify` alone, compilation included: every program
of a claim is new. With `--check-grads` the same process also asks `jax.test_util.check_grads`: the
loss gets a `jax.custom_vjp` whose rule is the claimed closed form, and that is held against its
differences in float64, at one draw of the usual sizes. It has no say on expectations and Jacobians.
"""

import argparse
import functools
import json
import multiprocessing
import pathlib
import statistics
import sys
import threading
import time
import warnings
from collections import Counter

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

WANTED = {True: "confirmed", False: "refuted"}
SECONDS = {"verdict": "seconds", "check_grads": "check_grads_seconds"}
OPPOSITE = {True: "refuted", False: "confirmed"}


def timed(job):
    """Return what a job says, or the error it ends in, and its seconds."""
    start = time.perf_counter()
    try:
        said = job()
    except Exception as error:
        said = f"error: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}"
    return said, time.perf_counter() - start


def check_grads(claim):
    """Return what `jax.test_util.check_grads` says of a claim; "" where it cannot be asked."""
    import jax
    import numpy as np
    from jax.test_util import check_grads as check

    from jaxgrad.jaxprs.versions import enable_x64

    derivation = claim.make()
    if derivation.mask is not None:
        return ""
    sizes = derivation.choose_sizes(0, dict(claim.options.get("sizes", {})))
    with enable_x64(True):
        inputs = dict(derivation.drawn((0, 1), sizes)) | dict(claim.options.get("inputs", {}))
        inputs = jax.tree.map(jax.numpy.asarray, inputs)
        wrt = tuple(jax.eval_shape(lambda i: derivation.gradient(**i), inputs))
        moved = {name: inputs[name] for name in wrt}

        def value(moving):
            return derivation.loss(**derivation.in_order({**inputs, **moving}))

        if np.ndim(value(moved)):
            return ""

        def slope(moving, g):
            found = derivation.gradient(**derivation.in_order({**inputs, **moving}))
            return (jax.tree.map(lambda a: g * a, dict(found)),)

        f = jax.custom_vjp(value)
        f.defvjp(lambda moving: (value(moving), moving), slope)

        try:
            check(f, (moved,), order=1, modes=("rev",))
        except AssertionError:
            return "refuted"
    return "confirmed"


def work(pipe):
    """Answer what comes through a pipe: the name of a claim, and who is asked."""
    warnings.simplefilter("ignore")
    import jaxgrad
    from benchmarks.corpus import CLAIMS

    jaxgrad.verify(
        jaxgrad.Derivation(  # so that no claim pays for what is loaded once
            name="first",
            loss=lambda x: (x**2).sum(),
            gradient=lambda x: {"x": 2 * x},
            shapes={"x": "n"},
        )
    )

    def verdict(claim):
        return str(jaxgrad.verify(claim.make(), **claim.options).verdict)

    pipe.send("ready")
    while (asked := pipe.recv()) is not None:
        name, who = asked
        claim = CLAIMS[name]
        ask = check_grads if who == "check_grads" else verdict
        said, seconds = timed(functools.partial(ask, claim))
        pipe.send((said, seconds))


class Worker:
    """A process that verifies claims, and is replaced when it is late."""

    def __init__(self, limit, beside):
        """Take the limit a claim, and whether check_grads is asked too."""
        self.limit, self.beside, self.process = limit, beside, None

    def start(self):
        """Start the process, and wait until it is ready."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()

    def stop(self):
        """End the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None

    def answer(self, name):
        """Return what a worker found of a claim; who is late does not cost the other its turn."""
        found = {}
        for who, spent in SECONDS.items() if self.beside else [("verdict", "seconds")]:
            if self.process is None:
                self.start()
            self.pipe.send((name, who))
            found |= {who: "no answer", spent: self.limit}
            try:
                if self.pipe.poll(self.limit):
                    found[who], found[spent] = self.pipe.recv()
                else:
                    self.stop()
            except (EOFError, ConnectionError):
                self.stop()
                found[who] = "error: the process ended"
        return found


def run(claims, jobs, limit, beside, known=(), keep=lambda rows: None):
    """Verify all claims but those known; return a row for each, in their order."""
    rows, lock = {row["name"]: row for row in known}, threading.Lock()
    waiting = [claim for claim in claims if claim.name not in rows]

    def serve():
        worker = Worker(limit, beside)
        while True:
            with lock:
                if not waiting:
                    break
                claim = waiting.pop(0)
            found = worker.answer(claim.name)
            row = {
                "name": claim.name,
                "kind": claim.kind,
                "right": claim.right,
                "below": claim.below,
                **found,
            }
            with lock:
                rows[claim.name] = row
                keep(list(rows.values()))
                if short(row):
                    print(f"{len(rows)}/{len(claims)} {told(row)}", flush=True)
        worker.stop()

    threads = [threading.Thread(target=serve) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [rows[claim.name] for claim in claims]


def short(row):
    """Say whether a claim's verdict is not the true one."""
    return not row["below"] and row["verdict"] != WANTED[row["right"]]


def told(row):
    side = "right" if row["right"] else "wrong"
    mark = "FALSE " if row["verdict"] == OPPOSITE[row["right"]] else ""
    return f"{mark}{side}, {row['verdict']} ({row['seconds']:.1f} s): {row['name']}"


def quantile(values, part):
    values = sorted(values)
    return values[min(int(part * len(values)), len(values) - 1)]


def times(values):
    """Return median, p90, p99 and maximum, as a row's cells."""
    found = statistics.median(values), quantile(values, 0.9), quantile(values, 0.99), max(values)
    return " | ".join(f"{value:.2f}" for value in found)


def counted(rows, field="verdict"):
    """Return right confirmed, undecided, refuted, and wrong refuted, undecided, confirmed."""
    cells = []
    for right in (True, False):
        got = Counter(row.get(field, "") for row in rows if row["right"] == right)
        good, bad = got.pop(WANTED[right], 0), got.pop(OPPOSITE[right], 0)
        cells += [good, sum(got.values()), bad]
    return " | ".join(map(str, cells))


HEAD = """\
| {} | right: confirmed | undecided | refuted | wrong: refuted | undecided | confirmed \
| median, s | p90 | p99 | max |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def report(rows, beside):
    """Return the tables, as Markdown; "undecided" counts errors and no answer too."""
    judged = [row for row in rows if not row["below"]]
    lines = [HEAD.format("kind")]
    for kind in [*dict.fromkeys(row["kind"] for row in judged), "all"]:
        mine = [row for row in judged if kind in (row["kind"], "all")]
        lines.append(f"| {kind} | {counted(mine)} | {times([r['seconds'] for r in mine])} |")
    if beside:
        asked = [row for row in judged if row.get("check_grads")]
        lines += [
            "",
            f"On the {len(asked)} claims that check_grads can be asked about:",
            "",
            HEAD.format("who"),
        ]
        for who, spent in SECONDS.items():
            label = "verify" if who == "verdict" else who
            lines.append(
                f"| {label} | {counted(asked, who)} | {times([r[spent] for r in asked])} |"
            )
        ratio = sum(r["seconds"] for r in asked) / sum(r["check_grads_seconds"] for r in asked)
        lines += ["", f"In sum, verify takes {ratio:.1f} times what check_grads takes."]
    lines += ["", "What falls short:", ""]
    lines += [f"- {told(row)}" for row in judged if short(row)] or ["- nothing"]
    apart = [row for row in rows if row["below"]]
    if apart:
        lines += ["", "Below what an engine says it detects:", ""]
        lines += [f"- {told(row)}" for row in apart]
    return "\n".join(lines)


PREFACE = """\
# Verdicts on the corpus

What `python benchmarks/field.py --check-grads` finds on {} right and {} wrong claims of {} kinds,
of which {} follow named public sources. "Undecided" counts errors and claims without an answer
within {:.0f} s too; what falls short is listed below with what was said. Each claim's truth is
tested without the code that reaches verdicts (`tests/verification/test_corpus.py`). The seconds
are those of `verify` alone, compilation included.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kind", default="", help="only kinds whose name holds this")
    parser.add_argument(
        "--json", type=pathlib.Path, help="file for a row of each claim; a run goes on with it"
    )
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds a claim")
    parser.add_argument("--check-grads", action="store_true", help="ask check_grads beside")
    parser.add_argument("--write", action="store_true", help="write FIELD.md")
    parser.add_argument("--note", default="", help="a sentence on the machine, for FIELD.md")
    options = parser.parse_args()
    from benchmarks.corpus import CLAIMS

    claims = [claim for claim in CLAIMS.values() if options.kind in claim.kind]
    if not claims:
        parser.error(f"no kind holds {options.kind!r}")
    known = []
    if options.json and options.json.exists():
        known = json.loads(options.json.read_text(encoding="utf-8"))

    def keep(rows):
        if options.json:
            text = json.dumps(rows, indent=1, ensure_ascii=False)
            options.json.write_text(text, encoding="utf-8")

    rows = run(claims, options.jobs, options.limit, options.check_grads, known, keep)
    table = report(rows, options.check_grads)
    print(table)
    if options.write:
        right = sum(claim.right for claim in claims)
        kinds = len({claim.kind for claim in claims})
        sourced = sum(bool(claim.source) for claim in claims)
        head = PREFACE.format(right, len(claims) - right, kinds, sourced, options.limit)
        words = f"{head}\n{options.note}\n\n{table}\n"
        ROOT.joinpath("benchmarks", "FIELD.md").write_text(words, encoding="utf-8")
    return int(any(row["verdict"] == OPPOSITE[row["right"]] for row in rows if not row["below"]))


if __name__ == "__main__":
    sys.exit(main())
