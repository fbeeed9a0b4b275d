"""Derivatives that are a matter of convention: kinks, and rules that the loss brings along.

At a kink a loss has two one-sided derivatives. They are measured by extrapolated one-sided
differences, and compared with what the closed form and autodiff return. A loss whose own
differentiation rule contradicts its value makes autodiff wrong, and a closed form copied from it
too.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxgrad.diagnosis.cases import Case
from jaxgrad.diagnosis.hypothesis import Hypothesis, at, zero
from jaxgrad.diagnosis.proportions import Cases, same
from jaxgrad.evidence.problem import labelled
from jaxgrad.jaxprs.programs import equations, is_own_rule

STEP = 1e-4
"""Size of a one-sided step, relative to the entry or to 1."""
CLEAR = 1e-3
"""One-sided derivatives that differ by less than this part of the error are taken for equal."""
MOST = 12
"""The most entries of a case whose one-sided derivatives are measured."""


def own_rule(label: str, cases: Cases) -> Iterator[Hypothesis]:
    """C is what autodiff returns, by a rule of the loss that contradicts the loss's value."""
    setting = cases.plain[0].setting
    if not setting.own_rules:
        return
    program = jax.make_jaxpr(setting.loss)(setting.example, setting.mask)
    rule = next((eqn for eqn in equations(program.jaxpr) if is_own_rule(eqn)), None)
    debug = getattr(
        getattr(getattr(rule, "params", {}).get("call_jaxpr"), "jaxpr", None), "debug_info", None
    )
    name = str(getattr(debug, "func_src_info", "") or "a function").split(" at ")[0]

    def predict(case: Case) -> np.ndarray:
        return case.setting.autodiff(case.inputs, case.mask)[label]

    if not same(predict(cases.plain[0]), cases.plain[0].truth[label]):
        words = (
            f"the closed form for {label} is what autodiff gives, but the differentiation rule of "
            f"`{name}` in the loss contradicts the loss's value"
        )
        yield Hypothesis("own rule", words, predict)


def kinks(label: str, cases: Cases) -> Iterator[Hypothesis]:
    """C is right except at kinks, where it takes another one-sided derivative than autodiff."""
    example: tuple[tuple[int, ...], float, float, float, float] | None = None
    for case in cases.plain:
        if case.setting.value(case.inputs, case.mask)["value"].ndim:
            return
        wrong = ~zero(case.claimed[label] - case.truth[label], case.scale(label))
        entries = np.argwhere(wrong)
        if len(entries) > max(1, wrong.size // 2) and wrong.size > 2:
            return
        for entry in entries[:MOST]:
            index = tuple(int(i) for i in entry)
            left, right = _sides(case, label, index)
            off = abs(float(case.claimed[label][index] - case.truth[label][index]))
            if not np.isfinite(left + right) or abs(right - left) <= CLEAR * off:
                return
            if example is None:
                ruled = (
                    case.setting.autodiff(case.inputs, case.mask)
                    if case.setting.own_rules
                    else case.truth
                )
                example = (
                    index,
                    float(case.claimed[label][index]),
                    float(ruled[label][index]),
                    left,
                    right,
                )
    if example is None:
        return
    index, claimed, true, left, right = example
    words = (
        f"the closed form for {label} is right except at kinks: at {at(label, index)} the "
        f"one-sided derivatives are {left:.4g} (left) and {right:.4g} (right), the closed form "
        f"takes {_side(claimed, left, right)} and autodiff {_side(true, left, right)}"
    )
    yield Hypothesis("kink", words, lambda case: case.claimed[label])


def _side(value: float, left: float, right: float) -> str:
    near = CLEAR * abs(right - left)
    for name, number in (
        ("the left one", left),
        ("the right one", right),
        ("their mean", (left + right) / 2),
    ):
        if abs(value - number) <= near:
            return name
    return f"{value:.4g}"


def _sides(case: Case, label: str, index: tuple[int, ...]) -> tuple[float, float]:
    """Return the left and right derivative of the loss in one entry.

    They are one-sided differences, extrapolated once.
    """
    at = float(np.asarray(labelled(case.inputs)[label])[index])
    h = STEP * max(abs(at), 1.0)

    def value(step: float) -> float:
        return float(
            case.setting.value(_moved(case.inputs, label, index, step), case.mask)["value"]
        )

    base = value(0.0)
    right, left = ([(value(s * h / k) - base) / (s * h / k) for k in (1, 2)] for s in (1, -1))
    return 2 * left[1] - left[0], 2 * right[1] - right[0]


def _moved(
    inputs: dict[str, Any], label: str, index: tuple[int, ...], step: float
) -> dict[str, Any]:
    leaves, tree = jax.tree.flatten(inputs)
    place = list(labelled(inputs)).index(label)
    x = np.array(leaves[place], np.float64)
    x[index] += step
    return jax.tree.unflatten(tree, [*leaves[:place], x, *leaves[place + 1 :]])
