"""Edits that bring in a value at hand: in place of an operand, as a factor, or as a term.

The values at hand at a step are the inputs, the mask's moments, Gram matrices of inputs, and the
results of other steps that do not depend on this one. Each generator yields edits for
`jaxgrad.diagnosis.search` to try.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jaxgrad.diagnosis import factors
from jaxgrad.diagnosis.cases import Case
from jaxgrad.diagnosis.factors import Factor
from jaxgrad.diagnosis.flat import Step
from jaxgrad.diagnosis.search import Change, Edit, Search, Try, on
from jaxgrad.diagnosis.step_names import ordinal, value_of
from jaxgrad.diagnosis.symbols import symbols

ValueOf = Callable[[Try], "np.ndarray | None"]


def _pool(search: Search, i: int) -> list[tuple[str, ValueOf]]:
    """Return (name, value) of all that may stand at step i: inputs, moments, other results."""
    flat, below = search.flat, search.flat.below[i] | {i}
    case = search.tries[0].case
    found: list[tuple[str, ValueOf]] = []
    for name, slot in zip(_input_names(case), flat.inputs, strict=False):
        found.append((name, lambda t, s=slot: t.run.env[s]))
    for kind in search.tries[0].known:
        found.append((f"the mask's {kind}", lambda t, k=kind: t.known[k]))
        found.append((f"1 − the mask's {kind}", lambda t, k=kind: 1 - t.known[k]))
    found += _grams(search)
    for k, step in enumerate(flat.steps):
        if (
            k not in below
            and not step.eqn.primitive.multiple_results
            and step.name not in ("broadcast_in_dim", "reshape")
        ):
            found.append((value_of(step), lambda t, s=step.outputs[0]: t.run.env[s]))
    return found


def _fitting(
    search: Search, i: int, shape: tuple[int, ...], *, exact: bool
) -> Iterator[tuple[str, ValueOf]]:
    first, seen = search.tries[0], []
    for words, of in _pool(search, i):
        v = _known(of(first))
        for suffix, turn in _TURNS:
            turned = turn(v)
            if (
                turned is None
                or turned.dtype.kind != "f"
                or not (turned.shape == shape if exact else _spreads(turned.shape, shape))
            ):
                continue
            if any(turned.shape == other.shape and np.array_equal(turned, other) for other in seen):
                continue
            seen.append(turned)
            yield words + suffix, lambda t, of=of, turn=turn: turn(_known(of(t)))


def other_values(search: Search) -> Iterator[Edit]:
    """Yield operands in whose place another value at hand should stand."""
    for i, step, j in search.uses():
        shape = search.tries[0].run.env[step.inputs[j]].shape
        for words, of in _fitting(search, i, shape, exact=True):
            yield Edit(
                "another value",
                i,
                f"{ordinal(j, step)} should be {words}",
                on(step, j, lambda t, x, of=of: of(t)),
            )


def more_factors(search: Search) -> Iterator[Edit]:
    """Yield operands that a value at hand should multiply, or divide."""
    for i, step, j in search.uses():
        shape = search.tries[0].run.env[step.inputs[j]].shape
        for words, of in _fitting(search, i, shape, exact=False):
            place = ordinal(j, step)
            yield Edit(
                "missing factor",
                i,
                f"{place} should be multiplied by {words}",
                on(step, j, lambda t, x, of=of: x * of(t)),
            )
            yield Edit(
                "surplus factor",
                i,
                f"{place} should be divided by {words}",
                on(step, j, lambda t, x, of=of: x / of(t)),
            )


def matrix_factors(search: Search) -> Iterator[Edit]:
    """Yield matrices that another one at hand, or its inverse, should multiply."""
    for i, step, j in search.uses():
        shape = search.tries[0].run.env[step.inputs[j]].shape
        for extent, side in ((shape[1], "right"), (shape[0], "left")) if len(shape) == 2 else ():
            for words, of in _fitting(search, i, (extent, extent), exact=True):
                for what, turn in (("", np.asarray), ("the inverse of ", np.linalg.inv)):

                    def times(
                        t: Try, x: np.ndarray, of: ValueOf = of, turn: Any = turn, side: str = side
                    ) -> np.ndarray:
                        return x @ turn(of(t)) if side == "right" else turn(of(t)) @ x

                    needed = f"should be multiplied on the {side} by {what}{words}"
                    yield Edit(
                        "missing factor", i, f"{ordinal(j, step)} {needed}", on(step, j, times)
                    )


def _grams(search: Search) -> Iterator[tuple[str, ValueOf]]:
    first = search.tries[0]
    for name, slot in zip(_input_names(first.case), search.flat.inputs, strict=False):
        x = first.run.env[slot]
        if x.ndim == 2:
            yield f"{name}{name}ᵀ", lambda t, s=slot: t.run.env[s] @ t.run.env[s].T
            yield f"{name}ᵀ{name}", lambda t, s=slot: t.run.env[s].T @ t.run.env[s]


def fixed_terms(search: Search) -> Iterator[Edit | None]:
    """Yield operands that lack a multiple of 1 or of the identity."""
    return _terms(search, lambda i, shape: _fixed(shape))


def more_terms(search: Search) -> Iterator[Edit | None]:
    """Yield operands that lack a multiple of a value at hand."""
    return _terms(search, lambda i, shape: _fitting(search, i, shape, exact=False))


def _terms(
    search: Search, at_hand: Callable[[int, tuple[int, ...]], Iterable[tuple[str, Any]]]
) -> Iterator[Edit | None]:
    for i, step, j in search.uses(smooth=True):
        shape = search.tries[0].run.env[step.inputs[j]].shape
        for words, of in at_hand(i, shape):

            def more(k: float, s: Step = step, j: int = j, of: Any = of) -> Change:
                return on(s, j, lambda t, x: x + (k - 1) * _term(of, t, x))

            values = search.solved(i, more)
            named = None if values is None else search.name([k - 1 for k in values])
            if named is None:
                continue
            amount = factors.product_text(named.text, words)

            def right(t: Try, x: np.ndarray, of: Any = of, named: Factor = named) -> np.ndarray:
                return x + named.value(symbols(t.case)) * _term(of, t, x)

            yield Edit(
                "missing term", i, f"{ordinal(j, step)} lacks the term {amount}", on(step, j, right)
            )


def _known(x: np.ndarray | None) -> np.ndarray:
    assert x is not None
    return x


def _spreads(shape: tuple[int, ...], onto: tuple[int, ...]) -> bool:
    """Say whether an array of a shape multiplies one of another without changing that."""
    return len(shape) <= len(onto) and all(
        a in (1, b) for a, b in zip(shape[::-1], onto[::-1], strict=False)
    )


def _input_names(case: Case) -> list[str]:
    flat = jax.tree_util.tree_flatten_with_path(case.inputs)[0]
    return [path[0].key + jax.tree_util.keystr(path[1:]) for path, _ in flat]


def _fixed(shape: tuple[int, ...]) -> list[tuple[str, ValueOf | None]]:
    square = len(shape) == 2 and shape[0] == shape[1]
    return [("1", lambda t: np.ones(())), *([("the identity", None)] if square else [])]


def _term(of: Callable[[Try], Any] | None, t: Try, x: np.ndarray) -> np.ndarray:
    return np.eye(len(x)) if of is None else of(t)


_TURNS: tuple[tuple[str, Callable[[np.ndarray], np.ndarray | None]], ...] = (
    ("", lambda v: v),
    ("ᵀ", lambda v: v.T if v.ndim == 2 else None),
    (", as a column", lambda v: v[:, None] if v.ndim == 1 else None),
)
