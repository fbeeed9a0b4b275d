"""Closed forms that are the gradient of another problem: another input, or another mask.

Each hypothesis evaluates the TRUE gradient with something changed, and asks whether the closed form
is that. So an ignored cotangent is a gradient at a cotangent of ones, and a missing variance term
is the gradient of the loss at the mean mask.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgrad.diagnosis.cases import Case, Program, Setting, uniform_inputs
from jaxgrad.diagnosis.hypothesis import Hypothesis
from jaxgrad.diagnosis.proportions import Cases, same
from jaxgrad.masks import FeatureBernoulli

_CHANGES: tuple[tuple[str, str, Callable[[np.ndarray], np.ndarray]], ...] = (
    ("ignores {0}: it uses 1 in its place", "ones", np.ones_like),
    ("ignores {0}: it uses 0 in its place", "zeros", np.zeros_like),
    ("uses {0}² in place of {0}", "square", np.square),
    ("uses −{0} in place of {0}", "sign of an input", np.negative),
    ("uses |{0}| in place of {0}", "absolute value", np.abs),
    ("uses {0}ᵀ in place of {0}", "transposed input", lambda x: x.T),
    ("uses 2·{0} in place of {0}", "doubled input", lambda x: 2 * x),
    ("uses {0}/2 in place of {0}", "halved input", lambda x: x / 2),
)
AT_MEAN = (
    "the closed form for {} ignores the variance of the mask: it is the gradient at the mean mask"
)
ALL_KEPT = "the closed form for {} ignores the mask: it is the gradient with every entry kept"
_TO_BE_SQUARE = frozenset({"transposed input"})
_IGNORED = frozenset({"ones", "zeros"})


def inputs(label: str, cases: Cases) -> Iterator[Hypothesis]:
    """C is the gradient at inputs of which one is changed, or two are swapped."""
    first = cases.plain[0]
    arrays = uniform_inputs(first)
    order = sorted(arrays, key=lambda name: name != "cotangent")
    for name in order:
        x = arrays[name]
        reads = _reads(label, name, cases)
        for words, kind, change in _CHANGES:
            if kind not in _IGNORED and not reads:
                # a gradient of steps may be the same at other inputs, and yet these are not what is
                # wrong
                continue
            if kind in _TO_BE_SQUARE and (x.ndim != 2 or x.shape[0] != x.shape[1]):
                continue
            if name == label and (kind in ("ones", "zeros") or len(cases.plain) < 2):
                continue  # at one point alone, too much about the point itself is true by chance
            found = "cotangent" if name == "cotangent" else kind
            yield from _seen(
                label,
                first,
                found,
                f"the closed form for {label} {words.format(name)}",
                lambda case, n=name, f=change: {n: f(case.inputs[n])},
            )
    for i, a in enumerate(order):
        for b in order[:i]:
            if arrays[a].shape == arrays[b].shape:
                words = f"the closed form for {label} swaps {b} and {a}"
                yield from _seen(
                    label,
                    first,
                    "swapped inputs",
                    words,
                    lambda case, a=a, b=b: {a: case.inputs[b], b: case.inputs[a]},
                )
    square = [
        name
        for name in order
        if arrays[name].ndim == 2 and arrays[name].shape[0] == arrays[name].shape[1]
    ]
    shape = first.truth[label].shape
    if square and len(shape) == 2 and shape[0] == shape[1]:
        yield Hypothesis(
            "order of factors", f"the closed form for {label} multiplies in the wrong order",
            lambda case: case.at({n: np.asarray(case.inputs[n]).T for n in square})[label].T,
        )  # fmt: skip


def _reads(label: str, name: str, cases: Cases) -> bool:
    """Say whether the closed form depends on an input, as far as other draws show."""
    pairs = [
        (a, b) for a in cases.plain for b in cases.plain if a is not b and a.setting is b.setting
    ]
    moved = (
        (a, a.setting.closed({**a.inputs, name: b.inputs[name]}, a.mask)[label]) for a, b in pairs
    )
    return not pairs or any(not same(other, a.claimed[label]) for a, other in moved)


def _seen(
    label: str, first: Case, kind: str, words: str, changed: Callable[[Case], dict[str, Any]]
) -> Iterator[Hypothesis]:
    """Yield the hypothesis if the change makes a difference to the true gradient."""
    with np.errstate(all="ignore"):
        other = first.at(changed(first))[label]
    if np.all(np.isfinite(other)) and not same(other, first.truth[label]):
        yield Hypothesis(kind, words, lambda case: case.at(changed(case))[label])


def masks(label: str, cases: Cases) -> Iterator[Hypothesis]:
    """C is the gradient under another mask: its mean, its complement, none, independent entries."""
    if cases.plain[0].setting.problem.derivation.mask is None:
        return
    for kind, words, loss_of in (
        ("mean mask", AT_MEAN, _at_mean),
        (
            "complement",
            "the closed form for {} uses the complement 1 − m of the mask m",
            _complement,
        ),
        ("no mask", ALL_KEPT, _at_ones),
        (
            "mask family",
            "the closed form for {} takes the entries of the mask for independent: it is right for "
            "independent entries with the same means",
            _independent,
        ),
    ):
        programs: dict[Setting, Program | None] = {}

        def predict(
            case: Case, loss_of: Any = loss_of, programs: dict[Setting, Any] = programs
        ) -> np.ndarray | None:
            key = case.setting
            if key not in programs:
                loss = loss_of(case.setting)
                programs[key] = None if loss is None else case.setting.gradient_program(loss)
            program = programs[key]
            return None if program is None else program(case.inputs, case.mask)[label]

        first = cases.plain[0]
        if not same(predict(first), first.truth[label]):
            yield Hypothesis(kind, words.format(label), predict)


Loss = Callable[[dict[str, Any], Any], Any]


def _shape(setting: Setting) -> tuple[int, ...]:
    return setting.problem.derivation.mask_shape(setting.sizes)


def _at_mean(setting: Setting) -> Loss:
    derivation, shape = setting.problem.derivation, _shape(setting)
    return lambda x, mask: derivation.loss(
        **derivation.in_order({**x, "mask": jnp.broadcast_to(mask.mean(shape[-1]), shape)})
    )


def _at_ones(setting: Setting) -> Loss:
    derivation, shape = setting.problem.derivation, _shape(setting)
    return lambda x, mask: derivation.loss(**derivation.in_order({**x, "mask": jnp.ones(shape)}))


def _complement(setting: Setting) -> Loss | None:
    return _expected(setting, complement=True)


def _independent(setting: Setting) -> Loss | None:
    return _expected(setting, independent=True)


def _expected(
    setting: Setting, *, complement: bool = False, independent: bool = False
) -> Loss | None:
    from jaxgrad.evidence.expectation.expectation import choose, expectation

    derivation, shape = setting.problem.derivation, _shape(setting)

    def other(x: dict[str, Any], mask: Any) -> Any:
        return derivation.loss(
            **derivation.in_order({**x, "mask": 1 - mask if complement else mask})
        )

    def distribution(mask: Any) -> Any:
        return FeatureBernoulli(mask.mean(shape[-1])) if independent else mask

    try:
        plan = choose(other, distribution(setting.mask), shape, (setting.example,), limits=_LIMITS)
    except ValueError:
        return None
    return lambda x, mask: expectation(other, distribution(mask), shape, method=plan.method)(x)


_LIMITS = {"enumeration": 2**9, "rows": 2**9, "coins": 2**13, "moments": 2**13}
