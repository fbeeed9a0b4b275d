"""Changes of the closed form that people's mistakes call for: a sign, a factor, a transpose,
another operation or value, a term.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jaxgrad.diagnosis.cases import Case, symbols
from jaxgrad.diagnosis.factors import Factor, fraction_of
from jaxgrad.diagnosis.flat import Step
from jaxgrad.diagnosis.search import Change, Edit, Search, Stage, Try, with_operand
from jaxgrad.diagnosis.words import operation, ordinal, value_of

ValueOf = Callable[[Try], "np.ndarray | None"]
_LINEAR = ("mul", "neg", "broadcast_in_dim", "reshape", "transpose")


def on(step: Step, j: int, f: Callable[[Try, np.ndarray], "np.ndarray | None"]) -> Change:
    """Return the change that replaces operand j of a step by a function of it."""
    return lambda t, operands: step(with_operand(operands, j, f(t, operands[j])))


def factors_solved(search: Search) -> Iterator[Edit | None]:
    """Yield operands that a factor mends: signs first, then terms that should not be there,
    constants and other factors.
    """
    waiting: list[Edit] = []
    for i, step, j in search.uses(smooth=True):
        if step.name in _LINEAR and _passed_on(search, i) and j != _constant_at(search, step):
            continue  # the same as a factor on what reads it
        values = search.solved(i, lambda k, j=j, s=step: on(s, j, lambda _, x: k * x))
        if values is None:
            continue
        edit = _named_factor(search, i, step, j, values)
        if edit is None:
            continue
        if edit.kind == "sign":
            yield edit
        else:
            waiting.append(edit)
    order = ("surplus term", "constant", "inner factor")
    yield from sorted(waiting, key=lambda edit: order.index(edit.kind))


def _passed_on(search: Search, index: int) -> bool:
    """Say whether the result of a step is read once, by a step that computes."""
    (slot, *_) = search.flat.steps[index].outputs
    readers = search.flat.readers.get(slot, [])
    return (
        len(readers) == 1
        and slot not in search.flat.outputs
        and list(search.flat.steps[readers[0]].inputs).count(slot) == 1
    )


def _constant_at(search: Search, step: Step) -> int:
    return next((j for j, slot in enumerate(step.inputs) if slot in search.flat.constants), -1)


def _named_factor(search: Search, i: int, step: Step, j: int, values: list[float]) -> Edit | None:
    rounded = [0.0 if abs(k) < 1e-5 else k for k in values]
    env = search.tries[0].run.env
    place = ordinal(j, step)
    if not any(rounded):
        removed = "should not be there" if step.name in ("add", "sub", "add_any") else "should be 0"
        return Edit("surplus term", i, f"{place} {removed}", on(step, j, lambda _, x: 0 * x))
    named = search.name(rounded)
    if named is None:
        return None
    constant = search.flat.constants.get(step.inputs[j])
    if named.text == "−1" and constant is None:
        kind, words = "sign", f"{place} has the wrong sign"
    elif (
        constant is not None
        and constant.ndim == 0
        and (was := fraction_of(float(env[step.inputs[j]]))) is not None
    ):
        now = named.fraction * was if not named.powers else None
        shown = str(now) if now is not None else f"{named.text} times that"
        kind, words = "constant", f"{place} is {was} and should be {shown}"
    else:
        kind, words = "inner factor", f"{place} should be {named.text} times what it is"
    return Edit(kind, i, words, on(step, j, lambda t, x: named.value(symbols(t.case)) * x))


def other_forms(search: Search) -> Iterator[Edit]:
    """Yield operands in another form (transposed, 1 − x, shifted), and operations replaced by
    others.
    """
    for i, step, j in search.uses():
        x = search.tries[0].run.env[step.inputs[j]]
        place = ordinal(j, step)
        for kind, words, form in _FORMS:
            if form(x) is not None:
                yield Edit(kind, i, f"{place} {words}", on(step, j, lambda _, x, f=form: f(x)))
    for i, step in reversed(list(enumerate(search.flat.steps))):
        for words, run in _OTHERWISE.get(step.name, ()):
            said = _SIGNS.get(step.name) or operation(step)
            yield Edit("operation", i, f"{said} should be {words}", lambda _, xs, r=run: [r(*xs)])
        if step.name == "dot_general":
            yield Edit(
                "order of factors",
                i,
                "the two factors of the product should be swapped",
                lambda _, xs, s=step: s(xs[::-1]),
            )
        if step.name == "integer_pow":
            for power in (-2, -1, 1, 2, 3, 4):
                if power != step.eqn.params["y"]:
                    yield Edit(
                        "power",
                        i,
                        f"the power should be {power}",
                        lambda _, xs, e=power: [xs[0] ** float(e)],
                    )


def _pool(search: Search, i: int) -> list[tuple[str, ValueOf]]:
    """Return the values that may stand at step i, as (words, function): inputs, moments, and what
    other steps computed.
    """
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
                f"{place} lacks the factor {words}",
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

                    said = f"{ordinal(j, step)} lacks {what}{words} as its factor on the {side}"
                    yield Edit("missing factor", i, said, on(step, j, times))


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
            amount = (
                named.text
                if words == "1"
                else {"1": words, "−1": f"−{words}"}.get(named.text, f"{named.text}·{words}")
            )

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


def _square(x: np.ndarray) -> bool:
    return x.ndim == 2 and x.shape[0] == x.shape[1] and x.shape[0] > 1


_TURNS: tuple[tuple[str, Callable[[np.ndarray], np.ndarray | None]], ...] = (
    ("", lambda v: v),
    ("ᵀ", lambda v: v.T if v.ndim == 2 else None),
    (", as a column", lambda v: v[:, None] if v.ndim == 1 else None),
)
_FORMS: tuple[tuple[str, str, Callable[[np.ndarray], np.ndarray | None]], ...] = (
    ("inner transpose", "should be transposed", lambda x: x.T if _square(x) else None),
    ("complement", "should be 1 minus what it is", lambda x: 1 - x),
    (
        "index shift",
        "should be shifted by one along its first axis",
        lambda x: np.roll(x, 1, 0) if x.ndim and len(x) > 1 else None,
    ),
    (
        "index shift",
        "should be shifted back by one along its first axis",
        lambda x: np.roll(x, -1, 0) if x.ndim and len(x) > 2 else None,
    ),
    (
        "index shift",
        "should be shifted by one along its last axis",
        lambda x: np.roll(x, 1, -1) if x.ndim > 1 and x.shape[-1] > 1 else None,
    ),
    (
        "index shift",
        "should be shifted back by one along its last axis",
        lambda x: np.roll(x, -1, -1) if x.ndim > 1 and x.shape[-1] > 2 else None,
    ),
    (
        "index shift",
        "should be in reverse order along its first axis",
        lambda x: x[::-1] if x.ndim and len(x) > 2 else None,
    ),
    ("power", "should be squared", lambda x: x * x),
    ("power", "should be its square root", lambda x: np.sqrt(x) if np.all(x >= 0) else None),
    ("power", "should be inverted", lambda x: 1 / x if np.all(x != 0) else None),
)
_SIGNS = {"gt": ">", "lt": "<", "ge": "≥", "le": "≤", "eq": "=", "ne": "≠"}
_OTHERWISE: dict[str, tuple[tuple[str, Callable[..., np.ndarray]], ...]] = {
    "add": (("a product", np.multiply), ("a difference", np.subtract)),
    "sub": (("a sum", np.add), ("a product", np.multiply)),
    "mul": (
        ("a quotient", np.divide),
        ("a sum", np.add),
        ("a difference", np.subtract),
        ("a quotient", lambda a, b: b / a),
    ),
    "div": (("a product", np.multiply), ("a quotient the other way round", lambda a, b: b / a)),
    "max": (("a minimum", np.minimum),),
    "min": (("a maximum", np.maximum),),
    "gt": (("<", np.less), ("≥", np.greater_equal), ("≤", np.less_equal)),
    "lt": ((">", np.greater), ("≤", np.less_equal), ("≥", np.greater_equal)),
    "ge": ((">", np.greater), ("<", np.less), ("≤", np.less_equal)),
    "le": (("<", np.less), (">", np.greater), ("≥", np.greater_equal)),
    "eq": (("≠", np.not_equal),),
    "ne": (("=", np.equal),),
}

STAGES: tuple[Stage, ...] = (
    factors_solved,
    other_forms,
    fixed_terms,
    other_values,
    more_factors,
    matrix_factors,
    more_terms,
)
"""Kinds of changes, simple ones first."""
