"""What a closed form has left out of the true gradient: a term of the product rule, or a sum over rows.

Here it is the traced TRUE gradient that is changed until it is what the closed form says.
"""

from collections.abc import Iterator

import numpy as np

from jaxgrad.diagnosis.changes import on
from jaxgrad.diagnosis.search import Edit, Search, Stage
from jaxgrad.diagnosis.words import ordinal


def left_out(search: Search) -> Iterator[Edit]:
    """Yield the true gradient without one of its terms."""
    for i, step, j in search.uses():
        if step.name in ("add", "sub", "add_any"):
            other = search.flat.steps[search.flat.maker[step.inputs[j]]] if step.inputs[j] in search.flat.maker else step
            where, text = other.place
            through = f"what comes through `{text}` ({where})" if text else f"the {ordinal(j, step)}"
            yield Edit("left out", i, f"lacks a term: {through} is left out", on(step, j, lambda _, x: 0 * x))


def sums(search: Search) -> Iterator[Edit]:
    """Yield the true gradient with one term, or the mean, in the place of a sum."""
    for i, step in reversed(list(enumerate(search.flat.steps))):
        if step.name != "reduce_sum":
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
            yield Edit("sum not taken", i, f"{what} is not taken: {words}", lambda _, xs, r=run: [r(xs[0])])
        for axis in axes if len(axes) > 1 else ():
            rest = tuple(a for a in axes if a != axis)

            def partly(xs: list[np.ndarray], axis: int = axis, rest: tuple[int, ...] = rest) -> list[np.ndarray]:
                return [_first(xs[0].sum(axis=rest, keepdims=True), (axis, *rest))]

            said = f"{what} is not taken over axis {axis}: only its first term is taken"
            yield Edit("sum not taken", i, said, lambda _, xs, r=partly: r(xs))


def _first(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return x[tuple(0 if axis in axes else slice(None) for axis in range(x.ndim))]


STAGES: tuple[Stage, ...] = (left_out, sums)
"""Kinds of omissions."""
