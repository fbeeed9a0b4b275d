"""What a closed form has left out of the true gradient: a term of the product rule, a factor of the
chain rule, or a sum over rows.

Here it is the traced TRUE gradient that is changed until it is what the closed form says.
"""

from collections.abc import Iterator

import numpy as np

from jaxgrad.diagnosis.changes import on
from jaxgrad.diagnosis.flat import Step
from jaxgrad.diagnosis.search import Edit, Search, Stage
from jaxgrad.diagnosis.words import ordinal


def left_out(search: Search) -> Iterator[Edit]:
    """Yield the true gradient without one of its terms."""
    for i, step, j in search.uses(smooth=True):
        if step.name in ("add", "sub", "add_any"):
            words = f"lacks a term: {_through(search, step, j)} is left out"
            yield Edit("left out", i, words, on(step, j, lambda _, x: 0 * x))


def factors_left_out(search: Search) -> Iterator[Edit]:
    """Yield the true gradient without one of its factors, or with a gate that is always open."""
    for i, step, j in search.uses(smooth=True):
        if step.name == "mul" and _known(search, step, j):
            words = f"lacks a factor: {_through(search, step, j)} is left out"
            yield Edit("left out", i, words, on(step, j, lambda _, x: np.ones_like(x)))
    for i, step in reversed(list(enumerate(search.flat.steps))):
        if step.name == "select_n" and len(step.inputs) == 3:
            where, text = step.place
            for chosen in (1, 2) if text else ():
                if _known(search, step, chosen):
                    words = f"lacks a factor: {_through(search, step, chosen)} is left out"
                    yield Edit("left out", i, words, on(step, chosen, lambda _, x: np.ones_like(x)))
                words = (
                    f"lacks the gate of `{text}` ({where}): one of its two cases is always taken"
                )
                yield Edit(
                    "left out",
                    i,
                    words,
                    lambda _, xs, c=chosen: [np.broadcast_to(xs[c], np.shape(xs[1]))],
                )


def _known(search: Search, step: Step, j: int) -> bool:
    """Say whether it is known by which expression of the user's an operand was computed."""
    maker = search.flat.maker.get(step.inputs[j])
    return maker is not None and bool(search.flat.steps[maker].place[1])


def _through(search: Search, step: Step, j: int) -> str:
    other = (
        search.flat.steps[search.flat.maker[step.inputs[j]]]
        if step.inputs[j] in search.flat.maker
        else step
    )
    where, text = other.place
    return f"what comes through `{text}` ({where})" if text else ordinal(j, step)


def sums(search: Search) -> Iterator[Edit]:
    """Yield the true gradient with one term, or the mean, in the place of a sum."""
    for i, step in reversed(list(enumerate(search.flat.steps))):
        if step.name != "reduce_sum" or i not in search.flat.smooth:
            continue
        where, text = step.place
        what = f"the sum that belongs to `{text}` ({where})" if text else "a sum"
        axes = tuple(step.eqn.params["axes"])
        for words, run in (
            ("only its first term is taken", lambda x, a=axes: _first(x, a)),
            ("only its last term is taken", lambda x, a=axes: _first(np.flip(x, a), a)),
            ("its mean is taken", lambda x, a=axes: x.mean(axis=a)),
            ("its largest term is taken", lambda x, a=axes: x.max(axis=a)),
        ):
            yield Edit(
                "sum not taken", i, f"{what} is not taken: {words}", lambda _, xs, r=run: [r(xs[0])]
            )
        for axis in axes if len(axes) > 1 else ():
            rest = tuple(a for a in axes if a != axis)

            def partly(
                xs: list[np.ndarray], axis: int = axis, rest: tuple[int, ...] = rest
            ) -> list[np.ndarray]:
                return [_first(xs[0].sum(axis=rest, keepdims=True), (axis, *rest))]

            said = f"{what} is not taken over axis {axis}: only its first term is taken"
            yield Edit("sum not taken", i, said, lambda _, xs, r=partly: r(xs))


def _first(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return x[tuple(0 if axis in axes else slice(None) for axis in range(x.ndim))]


STAGES: tuple[Stage, ...] = (left_out, sums, factors_left_out)
"""Kinds of omissions."""
