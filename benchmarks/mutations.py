"""Mutation score: every closed form of the catalogue with one step of its program changed, verified and diagnosed.

    python benchmarks/mutations.py [--seconds S] [--claims NAME …] [--write]

The traced closed form is changed at one step (`OPERATORS`). A mutant that the certificate proves right is equivalent to the
original; every other one must be refuted. Its diagnosis counts as a name if each wrong array of the gradient gets one, and as a wrong
name if what it predicts fails at sizes and draws that no search has seen. Results are kept in `--store`, so that a run goes on where
the last one stopped; `--write` makes the table `MUTATIONS.md` of them.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

import jaxgrad as jg
from jaxgrad.diagnosis import diagnose
from jaxgrad.diagnosis.cases import case, settings
from jaxgrad.diagnosis.explanations import differs, residual
from jaxgrad.diagnosis.flat import Flat
from jaxgrad.problem import Problem
from jaxgrad.report import Verdict
from jaxgrad.verification import EVIDENCE, _loss_of_mask

HERE = pathlib.Path(__file__).parent
PREFACE = """\
What `python benchmarks/mutations.py` finds: the closed forms of the catalogue, changed at one step of their traced programs or in
their results. Every mutant is verified by the certificate, and where that does not refute it by autodiff (or the exact expectation) and
by differences. *Equivalent* are those that the certificate proves right; *undecided* those that no evidence refutes and that the
certificate does not prove. *Named* are the refuted ones of which every wrong array gets a diagnosis, and a name is *wrong* if what it
predicts fails at a seed and draws that no search has seen. Every refuted mutant counts as one that has a name.
"""

PER_CLAIM = 100
"""So many mutants of each closed form, spread evenly over all there are."""
UNSEEN = 1e-5
"""The largest part of the error that a right name may leave at an unseen draw."""
CHANGED = "changed"


def scalar(step, flat, j):
    """Whether operand j of a step is a floating-point number that stands in the program."""
    constant = flat.constants.get(step.inputs[j])
    return constant is not None and constant.ndim == 0 and constant.dtype.kind == "f"


def fits(x, out):
    return x.shape == out.shape


def square(x):
    return x.ndim == 2 and x.shape[0] == x.shape[1]


def replaced(j, f):
    """The step with operand j changed by f."""
    return lambda run, xs: run([*xs[:j], f(xs[j]), *xs[j + 1 :]])


def constants(step, flat, avals, out):
    for j in range(len(step.inputs)):
        if scalar(step, flat, j) and step.name in ("mul", "div", "add", "sub", "pow", "max", "select_n"):
            yield "a constant changed", f"operand {j} doubled", replaced(j, lambda x: 2 * x)
            yield "a constant changed", f"operand {j} plus one", replaced(j, lambda x: x + 1)
            yield "a constant changed", f"operand {j} negated", replaced(j, lambda x: -x)
    if step.name == "integer_pow":
        yield "a constant changed", "power plus one", lambda run, xs: xs[0] * run(xs)


def factors(step, flat, avals, out):
    if step.name not in ("mul", "div"):
        return
    for j in (0, 1) if step.name == "mul" else (0,):
        if fits(avals[j], out):
            yield "a factor dropped", f"operand {j} alone", lambda run, xs, j=j: xs[j]
    for j in (0, 1) if step.name == "mul" else (1,):
        if not scalar(step, flat, j):
            again = (lambda run, xs: run(xs) * xs[0], lambda run, xs: run(xs) * xs[1])[j] if step.name == "mul" else None
            yield "a factor doubled", f"operand {j} twice", again or (lambda run, xs: run(xs) / xs[1])


def swaps(step, flat, avals, out):
    if step.name in ("sub", "div") and fits(avals[0], out) and fits(avals[1], out):
        yield "operands swapped", "", lambda run, xs: run(xs[::-1])
    if step.name == "dot_general" and square(avals[0]) and square(avals[1]):
        yield "operands swapped", "", lambda run, xs: run(xs[::-1])
    if step.name == "select_n" and len(avals) == 3 and fits(avals[1], avals[2]):
        yield "operands swapped", "", lambda run, xs: run([xs[0], xs[2], xs[1]])


def transposes(step, flat, avals, out):
    if step.name == "transpose" and square(out):
        yield "a transpose dropped", "", lambda run, xs: xs[0]
    elif step.name in ("dot_general", "mul", "add", "sub"):
        for j, x in enumerate(avals):
            if square(x):
                yield "a transpose added", f"operand {j}", replaced(j, jnp.transpose)


def signs(step, flat, avals, out):
    if step.name in ("add", "add_any"):
        yield "+ for −", "", lambda run, xs: xs[0] - xs[1]
    if step.name == "sub":
        yield "+ for −", "", lambda run, xs: xs[0] + xs[1]
    if step.name == "neg":
        yield "+ for −", "", lambda run, xs: xs[0]


def shifts(step, flat, avals, out):
    if step.name in ("mul", "dot_general", "sub"):
        for j, x in enumerate(avals):
            if x.ndim and x.shape[-1] > 1:
                yield "an index shifted", f"operand {j}, last axis", replaced(j, lambda x: jnp.roll(x, 1, -1))
            if x.ndim > 1 and x.shape[0] > 1:
                yield "an index shifted", f"operand {j}, first axis", replaced(j, lambda x: jnp.roll(x, -1, 0))


def deletions(step, flat, avals, out):
    if step.name in ("add", "sub", "add_any"):
        for j in (0, 1):
            if fits(avals[j], out):
                yield "a term deleted", f"operand {j} alone", lambda run, xs, j=j: xs[j] if j == 0 or step.name != "sub" else -xs[1]


def means(step, flat, avals, out):
    if step.name == "reduce_sum":
        count = np.prod([avals[0].shape[a] for a in step.eqn.params["axes"]])
        yield "a mean for a sum", "", lambda run, xs, n=count: run(xs) / n


def complements(step, flat, avals, out, probabilities):
    if step.name in ("mul", "add", "sub", "div", "dot_general"):
        for j, slot in enumerate(step.inputs):
            if slot in probabilities:
                yield "1 − p for p", f"operand {j}", replaced(j, lambda x: 1 - x)


OPERATORS = (constants, factors, swaps, transposes, signs, shifts, deletions, means)


class Program:
    """A claim's closed form, traced once for each kind of arguments."""

    def __init__(self, claim):
        """Nothing is traced yet."""
        self.claim, self.traces = claim, {}

    def trace(self, leaves, tree):
        """Trace at arguments like these, or remember."""
        key = tree, tuple((np.shape(x), jnp.result_type(x)) for x in leaves), jax.config.jax_enable_x64
        if key not in self.traces:

            def gradient(*leaves):
                inputs, mask = jax.tree.unflatten(tree, leaves)
                return dict(self.claim.gradient(**inputs, **({} if mask is None else {"mask": mask})))

            shaped = [jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(x)) for x in leaves]
            closed, out = jax.make_jaxpr(gradient, return_shape=True)(*shaped)
            flat = Flat.of(closed)
            self.traces[key] = flat, jax.tree.structure(out), names(flat)
        return self.traces[key]

    def mutant(self, name, change):
        """The claim with the step of that name changed."""

        def gradient(*, mask=None, **inputs):
            leaves, tree = jax.tree.flatten((inputs, mask))
            flat, out, steps = self.trace(leaves, tree)
            env = {**flat.constants, **dict(zip(flat.inputs, map(jnp.asarray, leaves), strict=True))}
            for step, own in zip(flat.steps, steps, strict=True):
                run = functools.partial(bind, step)
                operands = [env[s] for s in step.inputs]
                if own == name:
                    (slot,) = step.outputs
                    env[slot] = change(lambda xs, r=run: r(xs)[0], operands)
                else:
                    env.update(zip(step.outputs, run(operands), strict=True))
            return jax.tree.unflatten(out, [env[s] for s in flat.outputs])

        if self.claim.mask is None:
            return dataclasses.replace(self.claim, gradient=lambda **inputs: gradient(**inputs))
        return dataclasses.replace(self.claim, gradient=lambda *, mask, **inputs: gradient(mask=mask, **inputs))


def bind(step, operands):
    """Run one step on arrays or tracers; what it stands for keeps its line in the user's code."""
    given = {v: x for v, x in zip(step.eqn.invars, operands, strict=True) if isinstance(v, core.Var)}
    jaxpr = core.Jaxpr([], list(given), step.eqn.outvars, [step.eqn], debug_info=step.debug)
    return core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, ()))(*given.values())


def names(flat):
    """A name for every step: its operation, its place, and which one it is of those with both."""
    seen, found = {}, []
    for step in flat.steps:
        key = step.name, *step.place
        seen[key] = seen.get(key, 0) + 1
        found.append((*key, seen[key]))
    return found


def results(claim, labels):
    """Mutants whose whole result is changed: (operator, where, words, mutant)."""
    shape = {label: np.shape(x) for label, x in labels.items()}
    changes = [
        (label, kind, words, lambda g, label=label, f=f: {**g, label: f(g[label])})
        for label in labels
        for kind, words, f in (
            ("a constant changed", "the result doubled", lambda x: 2 * x),
            ("+ for −", "the result negated", lambda x: -x),
            ("a mean for a sum", "the result over its rows", lambda x: x / len(x) if x.ndim else x / 3),
            ("a term deleted", "its first entry", lambda x: x.at[(0,) * x.ndim].set(0.0)),
            ("a term deleted", "its last row", lambda x: x.at[-1].set(0.0) if x.ndim else 0 * x),
        )
    ]
    changes += [
        (a, "operands swapped", f"with {b}", lambda g, a=a, b=b: {**g, a: g[b]})
        for a in labels
        for b in labels
        if a != b and shape[a] == shape[b]
    ]
    changes += [
        (a, "a transpose added", "the result", lambda g, a=a: {**g, a: g[a].T})
        for a in labels
        if len(shape[a]) == 2 and len(set(shape[a])) == 1
    ]
    return [
        (kind, ("result", label, "", 0), words, dataclasses.replace(claim, gradient=lambda f=f, **x: f(dict(claim.gradient(**x)))))
        for label, kind, words, f in changes
    ]


def mutants(claim):
    """All mutants of a claim: (operator, where, words, mutant)."""
    program = Program(claim)
    sizes = claim.choose_sizes(0)
    leaves, tree = jax.tree.flatten((claim.arrays(jax.random.key(0), sizes), claim.distribution(sizes)))
    flat, _, steps = program.trace([jnp.asarray(x, float) if np.ndim(x) == 0 else x for x in leaves], tree)
    run = flat.run([np.asarray(x) for x in leaves])
    data = flat.depends_on(flat.inputs[: len(jax.tree.leaves(claim.arrays(jax.random.key(0), sizes)))])
    masked = flat.depends_on(flat.inputs) - data
    probabilities = {s for s in masked if run.env[s].dtype.kind == "f" and ((run.env[s] >= 0) & (run.env[s] <= 1)).all()}
    found = []
    for step, name in zip(flat.steps, steps, strict=True):
        if len(step.outputs) > 1 or run.env[step.outputs[0]].dtype.kind != "f":
            continue
        avals, out = [run.env[s] for s in step.inputs], run.env[step.outputs[0]]
        for operator in OPERATORS:
            found += [(kind, name, words, program.mutant(name, f)) for kind, words, f in operator(step, flat, avals, out)]
        found += [(k, name, words, program.mutant(name, f)) for k, words, f in complements(step, flat, avals, out, probabilities)]
    keep = np.unique(np.linspace(0, len(found) - 1, min(PER_CLAIM, len(found))).astype(int))
    labels = jax.eval_shape(
        lambda x: dict(claim.gradient(**x[0], **({} if x[1] is None else {"mask": x[1]}))), jax.tree.unflatten(tree, leaves)
    )
    return [found[i] for i in keep] + results(claim, labels)


def verdict_on(problem):
    """What verify would say, by the certificate, and where that does not refute by what sees kinks and rounding."""
    by = {}
    for evidence in ("certificate", "autodiff", "expectation", "differences"):
        found = EVIDENCE[evidence](problem)
        if isinstance(found, str):
            continue
        by[evidence] = [f.verdict for f in found]
        if Verdict.REFUTED in by[evidence]:
            return "refuted", evidence
    if set(by.get("certificate", ())) == {Verdict.CONFIRMED}:
        return "equivalent", "certificate"
    return "undecided", ""


def judge(claim, seed=0):
    """Verify and diagnose one mutant."""
    with jax.enable_x64(True):
        problem = Problem(claim, seed)
        verdict, by = verdict_on(problem)
        result = {"verdict": verdict, "by": by}
        if verdict != "refuted":
            return result
        loss_of = functools.lru_cache(None)(lambda sizes: _loss_of_mask(problem, dict(sizes)))
        begin = time.perf_counter()
        found = diagnose(problem, problem.wrt, lambda sizes: loss_of(tuple(sizes.items())))
        result["seconds"] = time.perf_counter() - begin
        other = Problem(claim, seed + 1)
        unseen = []
        for setting in settings(other, lambda sizes: loss_of(tuple(sizes.items()))):
            unseen.append(case(setting, jax.tree.map(np.asarray, other.draw(setting.sizes, 5)), setting.mask))
        wrong = {label for c in unseen if c.usable() for label in c.truth if differs(c, label)} or set(found)
        result["wrong arrays"] = sorted(wrong)
        result["kinds"] = sorted({d.kind for d in found.values()})
        result["sentences"] = {label: d.sentence for label, d in found.items()}
        result["named"] = wrong <= set(found) and bool(found)
        result["false"] = sorted(label for label, d in found.items() if not holds(d, label, unseen))
    return result


def holds(diagnosis, label, unseen):
    """Whether what a diagnosis predicts is so where nobody has looked; programs that differ in their steps are left out."""
    seen = [c for c in unseen if c.usable() and differs(c, label)]
    predicted = [c for c in seen if diagnosis.explanation.predict(c) is not None]
    return residual(diagnosis.explanation, label, predicted) <= UNSEEN


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
        counts = [sum(r["verdict"] == v for r in mine) for v in ("equivalent", "refuted", "undecided")]
        rows.append(f"| {operator} | {len(mine)} | {counts[0]} | {counts[1]} | {counts[2]} | {named}{share} | {false}{wrong} |")
    times = sorted(r["seconds"] for r in every if "seconds" in r)
    most = times[int(0.99 * len(times))]
    rows += ["", f"A diagnosis takes {statistics.median(times):.2f} s in the median; 99 of 100 take at most {most:.1f} s."]
    kinds = {}
    for r in every:
        for kind in r.get("kinds", ()):
            kinds.setdefault(r["operator"], {}).setdefault(kind, 0)
            kinds[r["operator"]][kind] += 1
    rows += ["", "| operator | named as |", "| --- | --- |"]
    for operator, counts in kinds.items():
        told = ", ".join(f"{kind} {n}" for kind, n in sorted(counts.items(), key=lambda item: -item[1]))
        rows.append(f"| {operator} | {told} |")
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--claims", nargs="*", default=[], help="only these")
    parser.add_argument("--store", type=pathlib.Path, default=HERE / "mutations.json", help="where results are kept")
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
        HERE.joinpath("MUTATIONS.md").write_text(f"# Mutation score\n\n{PREFACE}\n{table(done)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
