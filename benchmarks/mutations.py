"""Mutation score: every closed form of the catalogue, one step changed, verified and diagnosed.

    python -m benchmarks.mutations [--seconds S] [--claims NAME …] [--write]

The traced closed form is changed at one step (`benchmarks.mutants`). A mutant that the certificate
proves right is equivalent to the original; every other one must be refuted. Its diagnosis counts as
a name if each wrong array of the gradient gets one, and as a wrong name if what it predicts fails
at sizes and draws that no search has seen. Results are kept in `--store`, so that a run goes on
where the last one stopped; `--write` makes the table `MUTATIONS.md` of them.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import statistics
import time

import jax
import numpy as np

import jaxgrad as jg
from benchmarks.mutants import mutants
from jaxgrad.diagnosis import diagnose
from jaxgrad.diagnosis.cases import case, settings
from jaxgrad.diagnosis.hypothesis import differs, residual
from jaxgrad.evidence.problem import Problem
from jaxgrad.reports.finding import Verdict
from jaxgrad.verification.applicable import EVIDENCE, loss_of_mask

HERE = pathlib.Path(__file__).parent
PREFACE = """\
What `python -m benchmarks.mutations` finds: the closed forms of the catalogue, changed at one
step of their traced programs or in their results. Every mutant is verified by the certificate,
and where that does not refute it by autodiff (or the exact expectation) and by differences.
*Equivalent* are those that the certificate proves right, or, where that would take too long at
the usual sizes, proves right at sizes of one and two while all other evidence confirms them at
the usual ones; *undecided* those that no evidence refutes and that the certificate does not
prove. *Named* are the refuted ones of which every wrong array gets a diagnosis, and a name is
*wrong* if what it predicts fails at a seed and draws that no search has seen. Every refuted
mutant counts as one that has a name.
"""

UNSEEN = 1e-5
"""The largest part of the error that a right name may leave at an unseen draw."""


def verdict_on(problem):
    """What verify would say, by the certificate, then by what sees kinks and rounding.

    What all evidence confirms but the certificate, because a proof would be too long, is proved at
    sizes of one and two.
    """
    by = {}
    for evidence in ("certificate", "autodiff", "expectation", "differences"):
        found = EVIDENCE[evidence](problem)
        if isinstance(found, str):
            continue
        by[evidence] = [f.verdict for f in found]
        if Verdict.REFUTED in by[evidence]:
            return "refuted", evidence
    if set(by.pop("certificate", ())) == {Verdict.CONFIRMED}:
        return "equivalent", "certificate"
    if (
        by
        and all(set(verdicts) == {Verdict.CONFIRMED} for verdicts in by.values())
        and proved_small(problem)
    ):
        return "equivalent", "certificate at small sizes"
    return "undecided", ""


def proved_small(problem):
    """Whether the certificate proves a claim at some sizes of one and two."""
    names = list(problem.choose_sizes(0))
    for ones in ({}, names[:1], {names[0], names[-1]}):
        sizes = {name: 1 if name in ones else 2 for name in names}
        found = EVIDENCE["certificate"](
            dataclasses.replace(problem, sizes=sizes, chosen=frozenset(names))
        )
        if not isinstance(found, str) and all(f.verdict == Verdict.CONFIRMED for f in found):
            return True
    return False


def judge(claim, seed=0):
    """Verify and diagnose one mutant."""
    with jax.enable_x64(True):
        problem = Problem(claim, seed)
        verdict, by = verdict_on(problem)
        result = {"verdict": verdict, "by": by}
        if verdict != "refuted":
            return result
        loss_of = functools.lru_cache(None)(lambda sizes: loss_of_mask(problem, dict(sizes)))
        begin = time.perf_counter()
        found = diagnose(problem, problem.wrt, lambda sizes: loss_of(tuple(sizes.items())))
        result["seconds"] = time.perf_counter() - begin
        other = Problem(claim, seed + 1)
        unseen = []
        for setting in settings(other, lambda sizes: loss_of(tuple(sizes.items()))):
            unseen.append(
                case(setting, jax.tree.map(np.asarray, other.draw(setting.sizes, 5)), setting.mask)
            )
        wrong = {
            label for c in unseen if c.usable() for label in c.truth if differs(c, label)
        } or set(found)
        result["wrong arrays"] = sorted(wrong)
        result["kinds"] = sorted({d.kind for d in found.values()})
        result["sentences"] = {label: d.sentence for label, d in found.items()}
        result["named"] = wrong <= set(found) and bool(found)
        result["false"] = sorted(label for label, d in found.items() if not holds(d, label, unseen))
    return result


def holds(diagnosis, label, unseen):
    """Whether a diagnosis predicts right at unseen draws; other programs are left out."""
    seen = [c for c in unseen if c.usable() and differs(c, label)]
    predicted = [c for c in seen if diagnosis.hypothesis.predict(c) is not None]
    return residual(diagnosis.hypothesis, label, predicted) <= UNSEEN


def run(store, seconds, wanted):
    done = json.loads(store.read_text()) if store.exists() else {}
    begin = time.perf_counter()
    for claim in jg.catalog.all():
        if wanted and claim.name not in wanted:
            continue
        with jax.enable_x64(True):
            every = mutants(claim)
        for number, (operator, name, words, mutant) in enumerate(every):
            key = f"{claim.name}:{number}"
            if key in done:
                continue
            if time.perf_counter() - begin > seconds:
                store.write_text(json.dumps(done))
                print(f"{len(done)} done; run again to go on")
                return done
            place = " ".join(str(part) for part in name[:3])
            done[key] = {"operator": operator, "words": words, "place": place, **judge(mutant)}
        store.write_text(json.dumps(done))
    store.write_text(json.dumps(done))
    print(f"all {len(done)} done")
    return done


def table(done):
    """The table, as Markdown."""
    rows = [
        "| operator | mutants | equivalent | refuted | undecided | named | wrong name |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    every = list(done.values())
    for operator in [*dict.fromkeys(r["operator"] for r in every), "all"]:
        mine = [r for r in every if operator in (r["operator"], "all")]
        refuted = [r for r in mine if r["verdict"] == "refuted"]
        named, false = sum(r["named"] for r in refuted), sum(bool(r["false"]) for r in refuted)
        share = f" ({100 * named / len(refuted):.0f} %)" if refuted else ""
        wrong = f" ({100 * false / len(refuted):.1f} %)" if refuted else ""
        counts = [
            sum(r["verdict"] == v for r in mine) for v in ("equivalent", "refuted", "undecided")
        ]
        rows.append(
            f"| {operator} | {len(mine)} | {counts[0]} | {counts[1]} | {counts[2]} | "
            f"{named}{share} | {false}{wrong} |"
        )
    times = sorted(r["seconds"] for r in every if "seconds" in r)
    most = times[int(0.99 * len(times))]
    middle = statistics.median(times)
    rows += [
        "",
        f"A diagnosis takes {middle:.2f} s in the median; 99 of 100 take at most {most:.1f} s, "
        f"and all {times[-1]:.1f} s.",
    ]
    kinds = {}
    for r in every:
        for kind in r.get("kinds", ()):
            kinds.setdefault(r["operator"], {}).setdefault(kind, 0)
            kinds[r["operator"]][kind] += 1
    rows += ["", "| operator | named as |", "| --- | --- |"]
    for operator, counts in kinds.items():
        told = ", ".join(
            f"{kind} {n}" for kind, n in sorted(counts.items(), key=lambda item: -item[1])
        )
        rows.append(f"| {operator} | {told} |")
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--claims", nargs="*", default=[], help="only these")
    parser.add_argument(
        "--store", type=pathlib.Path, default=HERE / "mutations.json", help="where results are kept"
    )
    parser.add_argument("--count", action="store_true", help="only count the mutants")
    parser.add_argument("--write", action="store_true", help="write MUTATIONS.md")
    options = parser.parse_args()
    if options.count:
        with jax.enable_x64(True):
            print({claim.name: len(mutants(claim)) for claim in jg.catalog.all()})
        return
    done = run(options.store, options.seconds, options.claims)
    print(table(done))
    if options.write:
        HERE.joinpath("MUTATIONS.md").write_text(
            f"# Mutation score\n\n{PREFACE}\n{table(done)}\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
