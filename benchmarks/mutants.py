"""Mutants of a closed form: the claim with one step of its traced program, or its result, changed.

The closed form is traced, and the trace is run with one step replaced (`OPERATORS`): a constant
changed, a factor dropped or doubled, operands swapped, a transpose dropped or added, + for −, an
index shifted, a term deleted, a mean for a sum, 1 − p for p.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.diagnosis.flat import Flat

PER_CLAIM = 100
"""So many mutants of each closed form, spread evenly over all there are."""


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
        if scalar(step, flat, j) and step.name in (
            "mul",
            "div",
            "add",
            "sub",
            "pow",
            "max",
            "select_n",
        ):
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
            again = (
                (lambda run, xs: run(xs) * xs[0], lambda run, xs: run(xs) * xs[1])[j]
                if step.name == "mul"
                else None
            )
            yield (
                "a factor doubled",
                f"operand {j} twice",
                again or (lambda run, xs: run(xs) / xs[1]),
            )


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
                yield (
                    "an index shifted",
                    f"operand {j}, last axis",
                    replaced(j, lambda x: jnp.roll(x, 1, -1)),
                )
            if x.ndim > 1 and x.shape[0] > 1:
                yield (
                    "an index shifted",
                    f"operand {j}, first axis",
                    replaced(j, lambda x: jnp.roll(x, -1, 0)),
                )


def deletions(step, flat, avals, out):
    if step.name in ("add", "sub", "add_any"):
        for j in (0, 1):
            if fits(avals[j], out):
                yield (
                    "a term deleted",
                    f"operand {j} alone",
                    lambda run, xs, j=j: xs[j] if j == 0 or step.name != "sub" else -xs[1],
                )


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
        key = (
            tree,
            tuple((np.shape(x), jnp.result_type(x)) for x in leaves),
            jax.config.jax_enable_x64,
        )
        if key not in self.traces:

            def gradient(*leaves):
                inputs, mask = jax.tree.unflatten(tree, leaves)
                return dict(
                    self.claim.gradient(**inputs, **({} if mask is None else {"mask": mask}))
                )

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
            env = {
                **flat.constants,
                **dict(zip(flat.inputs, map(jnp.asarray, leaves), strict=True)),
            }
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
        return dataclasses.replace(
            self.claim, gradient=lambda *, mask, **inputs: gradient(mask=mask, **inputs)
        )


def bind(step, operands):
    """Run one step on arrays or tracers; what it stands for keeps its line in the user's code."""
    given = {
        v: x for v, x in zip(step.eqn.invars, operands, strict=True) if isinstance(v, core.Var)
    }
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
            (
                "a mean for a sum",
                "the result over its rows",
                lambda x: x / len(x) if x.ndim else x / 3,
            ),
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
        (
            kind,
            ("result", label, "", 0),
            words,
            dataclasses.replace(claim, gradient=lambda f=f, **x: f(dict(claim.gradient(**x)))),
        )
        for label, kind, words, f in changes
    ]


def mutants(claim):
    """All mutants of a claim: (operator, where, words, mutant)."""
    program = Program(claim)
    sizes = claim.choose_sizes(0)
    leaves, tree = jax.tree.flatten(
        (claim.arrays(jax.random.key(0), sizes), claim.distribution(sizes))
    )
    flat, _, steps = program.trace(
        [jnp.asarray(x, float) if np.ndim(x) == 0 else x for x in leaves], tree
    )
    run = flat.run([np.asarray(x) for x in leaves])
    data = flat.depends_on(
        flat.inputs[: len(jax.tree.leaves(claim.arrays(jax.random.key(0), sizes)))]
    )
    masked = flat.depends_on(flat.inputs) - data
    probabilities = {
        s
        for s in masked
        if run.env[s].dtype.kind == "f" and ((run.env[s] >= 0) & (run.env[s] <= 1)).all()
    }
    found = []
    for step, name in zip(flat.steps, steps, strict=True):
        if len(step.outputs) > 1 or run.env[step.outputs[0]].dtype.kind != "f":
            continue
        avals, out = [run.env[s] for s in step.inputs], run.env[step.outputs[0]]
        for operator in OPERATORS:
            found += [
                (kind, name, words, program.mutant(name, f))
                for kind, words, f in operator(step, flat, avals, out)
            ]
        found += [
            (k, name, words, program.mutant(name, f))
            for k, words, f in complements(step, flat, avals, out, probabilities)
        ]
    keep = np.unique(np.linspace(0, len(found) - 1, min(PER_CLAIM, len(found))).astype(int))
    labels = jax.eval_shape(
        lambda x: dict(claim.gradient(**x[0], **({} if x[1] is None else {"mask": x[1]}))),
        jax.tree.unflatten(tree, leaves),
    )
    return [found[i] for i in keep] + results(claim, labels)
