"""Edits of the closed form that people's mistakes call for.

They are a factor or a sign on one operand, an operand in another form (transposed, shifted,
squared), and another operation. Each generator yields edits for `jaxgrad.diagnosis.search` to try.
`jaxgrad.diagnosis.values` has the edits that bring in another value.
"""

from collections.abc import Callable, Iterator

import numpy as np

from jaxgrad.diagnosis import factors
from jaxgrad.diagnosis.factors import fraction_of
from jaxgrad.diagnosis.flat import Step
from jaxgrad.diagnosis.search import Edit, Search, on
from jaxgrad.diagnosis.step_names import SIGNS, operation, ordinal
from jaxgrad.diagnosis.symbols import symbols

_LINEAR = ("mul", "neg", "broadcast_in_dim", "reshape", "transpose")


def factors_solved(search: Search) -> Iterator[Edit | None]:
    """Yield operands that need a factor: signs, then surplus terms, constants and other factors."""
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
        shown = str(now) if now is not None else factors.times(named.text, "that")
        kind, words = "constant", f"{place} is {was} and should be {shown}"
    else:
        kind, words = "inner factor", f"{place} should be {factors.times(named.text, 'its value')}"
    return Edit(kind, i, words, on(step, j, lambda t, x: named.value(symbols(t.case)) * x))


def other_forms(search: Search) -> Iterator[Edit]:
    """Yield operands in another form, such as transposed or 1 − x, and other operations."""
    for i, step, j in search.uses():
        x = search.tries[0].run.env[step.inputs[j]]
        place = ordinal(j, step)
        for kind, words, form in _FORMS:
            if form(x) is not None:
                yield Edit(kind, i, f"{place} {words}", on(step, j, lambda _, x, f=form: f(x)))
    for i, step in reversed(list(enumerate(search.flat.steps))):
        for words, run in _OTHERWISE.get(step.name, ()):
            name = SIGNS.get(step.name) or operation(step)
            yield Edit("operation", i, f"{name} should be {words}", lambda _, xs, r=run: [r(*xs)])
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
                        f"the exponent should be {power}",
                        lambda _, xs, e=power: [xs[0] ** float(e)],
                    )


def _square(x: np.ndarray) -> bool:
    return x.ndim == 2 and x.shape[0] == x.shape[1] and x.shape[0] > 1


_FORMS: tuple[tuple[str, str, Callable[[np.ndarray], np.ndarray | None]], ...] = (
    ("inner transpose", "should be transposed", lambda x: x.T if _square(x) else None),
    ("complement", "should be subtracted from 1", lambda x: 1 - x),
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
    (
        "power",
        "should be replaced by its square root",
        lambda x: np.sqrt(x) if np.all(x >= 0) else None,
    ),
    ("power", "should be replaced by its reciprocal", lambda x: 1 / x if np.all(x != 0) else None),
)
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
