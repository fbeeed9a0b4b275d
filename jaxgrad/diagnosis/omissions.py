"""Parts of the true gradient that a closed form leaves out.

They are a term of the product rule, a factor of the chain rule, or a sum over rows. Here the traced
TRUE gradient is edited until it equals the closed form.
"""

from collections.abc import Iterator

import numpy as np

from jaxgrad.diagnosis.flat import Step
from jaxgrad.diagnosis.search import Edit, Search, on
from jaxgrad.diagnosis.step_names import ordinal


def left_out(search: Search) -> Iterator[Edit]:
    """Yield the true gradient without one of its terms."""
    for i, step, j in search.uses(smooth=True):
        if step.name in ("add", "sub", "add_any"):
            words = f"lacks the term of the gradient through {_through(search, step, j)}"
            yield Edit("left out", i, words, on(step, j, lambda _, x: 0 * x))


def factors_left_out(search: Search) -> Iterator[Edit]:
    """Yield the true gradient without one of its factors, or with a gate that is always open."""
    for i, step, j in search.uses(smooth=True):
        if step.name == "mul" and _known(search, step, j):
            words = f"lacks the factor of the gradient from {_through(search, step, j)}"
            yield Edit("left out", i, words, on(step, j, lambda _, x: np.ones_like(x)))
    for i, step in reversed(list(enumerate(search.flat.steps))):
        if step.name == "select_n" and len(step.inputs) == 3:
            where, text = step.place
            for chosen in (1, 2) if text else ():
                if _known(search, step, chosen):
                    words = (
                        f"lacks the factor of the gradient from {_through(search, step, chosen)}"
                    )
                    yield Edit("left out", i, words, on(step, chosen, lambda _, x: np.ones_like(x)))
                words = f"lacks the gate of `{text}` ({where}): it takes the same branch everywhere"
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
    return f"`{text}` ({where})" if text else ordinal(j, step)


def sums(search: Search) -> Iterator[Edit]:
    """Yield the true gradient with one term, or the mean, in the place of a sum."""
    for i, step in reversed(list(enumerate(search.flat.steps))):
        if step.name != "reduce_sum" or i not in search.flat.smooth:
            continue
        where, text = step.place
        what = f"the sum for `{text}` ({where})" if text else "a sum"
        axes = tuple(step.eqn.params["axes"])
        for words, run in (
            ("takes only the first term of", lambda x, a=axes: _first(x, a)),
            ("takes only the last term of", lambda x, a=axes: _first(np.flip(x, a), a)),
            ("takes the mean in place of", lambda x, a=axes: x.mean(axis=a)),
            ("takes the largest term of", lambda x, a=axes: x.max(axis=a)),
        ):
            yield Edit("sum not taken", i, f"{words} {what}", lambda _, xs, r=run: [r(xs[0])])
        for axis in axes if len(axes) > 1 else ():
            rest = tuple(a for a in axes if a != axis)

            def partly(
                xs: list[np.ndarray], axis: int = axis, rest: tuple[int, ...] = rest
            ) -> list[np.ndarray]:
                return [_first(xs[0].sum(axis=rest, keepdims=True), (axis, *rest))]

            partly_words = f"takes only the first term along axis {axis} of {what}"
            yield Edit("sum not taken", i, partly_words, lambda _, xs, r=partly: r(xs))


def _first(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return x[tuple(0 if axis in axes else slice(None) for axis in range(x.ndim))]
