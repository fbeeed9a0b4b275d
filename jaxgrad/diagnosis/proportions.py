"""Closed forms that are proportional to something at hand, or off by a multiple of it.

Each hypothesis says that the closed form C, or its error D = C − G from the true gradient G, is k
times a known array T: G itself, its transpose, the gradient in another input, an input, ones, the
identity. The factor k is measured by least squares in every case and then named
(`jaxgrad.diagnosis.factors`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jaxgrad.diagnosis import factors
from jaxgrad.diagnosis.cases import Case, uniform_inputs
from jaxgrad.diagnosis.factors import Factor
from jaxgrad.diagnosis.hypothesis import Hypothesis
from jaxgrad.diagnosis.symbols import symbols

ArrayOf = Callable[[Case], "np.ndarray | None"]
SLACK = 1e-7
"""Part of an array that a multiple of another may leave when its factor is fitted."""


@dataclass(frozen=True)
class Cases:
    """The cases that a hypothesis must hold in.

    In those `varied` the mask has other probabilities, by which p is distinguished from a number; a
    loss or closed form that holds a probability as its own number makes them useless. In those that
    are `right` an array has no error.
    """

    plain: Sequence[Case]
    varied: Sequence[Case] = ()
    right: Sequence[Case] = ()

    def factor(
        self, of: ArrayOf, against: ArrayOf, *, wrong: bool = False
    ) -> tuple[list[float], Factor | None] | None:
        """Fit `of` = k · `against` in every case; return k in the plain ones, and its name if any.

        Where k is `wrong` it is not 1, and is far nearer to its name than to 1.
        """
        near = tolerance if wrong else lambda _: SLACK
        plain = [fitted(of(case), against(case)) for case in self.plain]
        if any(k is None for k in plain):
            return None
        values = [k for k in plain if k is not None]
        more = [(fitted(of(case), against(case)), symbols(case)) for case in self.varied]
        named = None
        if more and all(k is not None for k, _ in more):
            both = values + [k for k, _ in more if k is not None]
            named = factors.name(
                both, [*map(symbols, self.plain), *(s for _, s in more)], near(both)
            )
        return values, named or factors.name(values, list(map(symbols, self.plain)), near(values))


def tolerance(values: Sequence[float]) -> float:
    """Return how far factors may be from their name: far less than they are from 1."""
    return SLACK * min(1.0, max(abs(k - 1) for k in values) or 1.0)


def fitted(of: np.ndarray | None, against: np.ndarray | None) -> float | None:
    """Return k with `of` = k · `against`; None where there is none or an array is zero."""
    if of is None or against is None or np.shape(of) != np.shape(against):
        return None
    square = float(np.vdot(against, against))
    if square == 0 or not np.isfinite(square) or not np.all(np.isfinite(of)):
        return None
    k = float(np.vdot(against, of)) / square
    size = float(np.abs(of).max(initial=0.0))
    return k if size > 0 and float(np.abs(of - k * against).max()) <= SLACK * size else None


def claimed(label: str) -> ArrayOf:
    """Return what the closed form says."""
    return lambda case: case.claimed[label]


def truth(label: str) -> ArrayOf:
    """Return what is true."""
    return lambda case: case.truth[label]


def error(label: str) -> ArrayOf:
    """Return by how much the closed form is off."""
    return lambda case: case.claimed[label] - case.truth[label]


def factor(label: str, cases: Cases) -> Iterator[Hypothesis]:
    """C = k G."""
    if not any(case.claimed[label].any() for case in cases.plain):
        yield Hypothesis(
            "zero",
            f"the closed form is zero, and the gradient in {label} is not",
            lambda case: np.zeros_like(case.truth[label]),
        )
        return
    found = cases.factor(claimed(label), truth(label), wrong=True)
    if found is None:
        return
    values, named = found
    if named is not None:
        kind = "sign" if named.text == "−1" else "factor"
        sentence = factors.comparison(label, named, cases.plain[0].sizes)
        yield Hypothesis(
            kind, sentence, lambda case: named.value(symbols(case)) * case.truth[label], named
        )
    elif max(values) - min(values) <= tolerance(values) * max(map(abs, values)):
        k = values[0]
        yield Hypothesis(
            "factor",
            f"the closed form is {k:.12g} times the gradient in {label}",
            lambda case: k * case.truth[label],
        )


def unnamed_factor(label: str, cases: Cases) -> Iterator[Hypothesis]:
    """C = k G with a k that changes from case to case as nothing at hand does."""
    found = cases.factor(claimed(label), truth(label), wrong=True)
    if found is None or found[1] is not None:
        return
    if max(found[0]) - min(found[0]) <= SLACK * max(map(abs, found[0])):
        return
    shown = ", ".join(
        dict.fromkeys(
            f"{k:.4g} at {_sizes(case)}" for k, case in zip(found[0], cases.plain, strict=True)
        )
    )
    sentence = (
        f"the closed form is a multiple of the gradient in {label}, by a factor that changes with "
        f"sizes or inputs: {shown}"
    )

    def predict(case: Case) -> np.ndarray | None:
        k = fitted(case.claimed[label], case.truth[label])
        return None if k is None else k * case.truth[label]

    yield Hypothesis("factor", sentence, predict)


def _sizes(case: Case) -> str:
    return " ".join(f"{name}={size}" for name, size in case.sizes.items()) or "these sizes"


def rearranged(label: str, cases: Cases) -> Iterator[Hypothesis]:
    """C is k times the transpose of G, or the gradient in another input."""
    shape = cases.plain[0].truth[label].shape
    targets: list[tuple[str, str, ArrayOf]] = []
    for i in range(len(shape)):
        for j in range(i):
            axes = list(range(len(shape)))
            axes[i], axes[j] = j, i
            words = f"the gradient in {label} with axes {j} and {i} swapped"
            if len(shape) == 2:
                words = f"the transpose of the gradient in {label}"
            targets.append(
                (
                    "transposed",
                    words,
                    lambda case, a=tuple(axes): np.transpose(case.truth[label], a),
                )
            )
    for other in cases.plain[0].truth:
        if other != label:
            targets.append(("another input", f"the gradient in {other}", truth(other)))
            words = f"the transpose of the gradient in {other}"
            targets.append(
                (
                    "another input",
                    words,
                    lambda case, o=other: case.truth[o].T if case.truth[o].ndim == 2 else None,
                )
            )
    for kind, words, target in targets:
        if any(same(target(case), case.truth[label]) for case in cases.plain):
            continue
        found = cases.factor(claimed(label), target)
        if found is None or found[1] is None:
            continue
        subject = "the closed form" if kind == "transposed" else f"the closed form for {label}"
        named = found[1]

        def predict(
            case: Case, named: Factor = named, target: ArrayOf = target
        ) -> np.ndarray | None:
            direction = target(case)
            return None if direction is None else named.value(symbols(case)) * direction

        yield Hypothesis(kind, f"{subject} is {factors.times(named.text, words)}", predict)


def same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    """Say whether two arrays are equal, to rounding."""
    if a is None or b is None or np.shape(a) != np.shape(b):
        return False
    return bool(
        np.all(
            np.abs(a - b) <= SLACK * max(float(np.abs(b).max(initial=0.0)), np.finfo(float).tiny)
        )
    )


def terms(label: str, cases: Cases) -> Iterator[Hypothesis]:
    """C = G + kT, with an input, its transpose, another gradient, ones or the identity as T."""
    first = cases.plain[0]
    shape = first.truth[label].shape
    targets: list[tuple[str, ArrayOf]] = []
    for name, x in uniform_inputs(first).items():
        if x.shape == shape:
            targets.append((name, lambda case, n=name: case.inputs[n]))
        if x.ndim == 2 and x.T.shape == shape:
            targets.append((f"{name}ᵀ", lambda case, n=name: case.inputs[n].T))
    targets += [(f"∇{other}", truth(other)) for other in first.truth if other != label]
    targets.append(("1 in every entry", lambda case: np.ones(case.truth[label].shape)))
    if len(shape) == 2 and shape[0] == shape[1]:
        targets.append(("the identity", lambda case: np.eye(case.truth[label].shape[0])))
    for words, target in targets:
        found = cases.factor(error(label), target)
        if found is None or found[1] is None:
            continue
        named = found[1]
        text = named.text.removeprefix("−")
        amount = f"{text} in every entry" if words[0] == "1" else factors.product_text(text, words)

        def predict(case: Case, named: Factor = named, target: ArrayOf = target) -> np.ndarray:
            return case.truth[label] + named.value(symbols(case)) * np.asarray(target(case))

        yield Hypothesis("term", term_sentence(label, named, amount), predict)


def term_sentence(label: str, factor: Factor, term: str) -> str:
    """Return the sentence that a closed form lacks a term, or has one too many."""
    verb = "lacks the term" if factor.fraction < 0 else "has an extra term:"
    return f"the closed form for {label} {verb} {term}"
