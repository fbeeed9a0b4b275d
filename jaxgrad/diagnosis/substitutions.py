"""The gradient of another problem: some input forgotten, swapped or squared, another mask, or right
on part of the domain.

Each of these evaluates the TRUE gradient with something changed, and asks whether the closed form
is that. So a cotangent that is ignored is a gradient at a cotangent of ones, and a forgotten
variance term is the gradient of the loss at the mean mask.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgrad.diagnosis.cases import Case, Program, Setting, uniform_inputs
from jaxgrad.diagnosis.explanations import Explanation, zero
from jaxgrad.diagnosis.proportions import Cases, same
from jaxgrad.masks import FeatureBernoulli

_CHANGES: tuple[tuple[str, str, Callable[[np.ndarray], np.ndarray]], ...] = (
    ("taken for ones, that is, ignored", "ones", np.ones_like),
    ("forgotten, as if it were 0", "zeros", np.zeros_like),
    ("squared", "square", np.square),
    ("taken with the wrong sign", "sign of an input", np.negative),
    ("replaced by its absolute value", "absolute value", np.abs),
    ("used transposed", "transposed input", lambda x: x.T),
    ("doubled", "doubled input", lambda x: 2 * x),
    ("halved", "halved input", lambda x: x / 2),
)
_TO_BE_SQUARE = frozenset({"transposed input"})
_IGNORED = frozenset({"ones", "zeros"})


def inputs(label: str, cases: Cases) -> Iterator[Explanation]:
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
                f"in {label}, {name} is {words}",
                lambda case, n=name, f=change: {n: f(case.inputs[n])},
            )
    for i, a in enumerate(order):
        for b in order[:i]:
            if arrays[a].shape == arrays[b].shape:
                words = f"in {label}, {b} and {a} are swapped"
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
        yield Explanation(
            "order of factors", f"the factors of {label} stand in the wrong order",
            lambda case: case.at({n: np.asarray(case.inputs[n]).T for n in square})[label].T,
        )  # fmt: skip


def _reads(label: str, name: str, cases: Cases) -> bool:
    """Say whether the closed form depends on an input, as far as the other draws at the same sizes
    tell.
    """
    pairs = [
        (a, b) for a in cases.plain for b in cases.plain if a is not b and a.setting is b.setting
    ]
    moved = (
        (a, a.setting.closed({**a.inputs, name: b.inputs[name]}, a.mask)[label]) for a, b in pairs
    )
    return not pairs or any(not same(other, a.claimed[label]) for a, other in moved)


def _seen(
    label: str, first: Case, kind: str, words: str, changed: Callable[[Case], dict[str, Any]]
) -> Iterator[Explanation]:
    """Yield the explanation if the change makes a difference to the true gradient."""
    with np.errstate(all="ignore"):
        other = first.at(changed(first))[label]
    if np.all(np.isfinite(other)) and not same(other, first.truth[label]):
        yield Explanation(kind, words, lambda case: case.at(changed(case))[label])


def masks(label: str, cases: Cases) -> Iterator[Explanation]:
    """C is the gradient under another mask: its mean, its complement, none at all, or independent
    entries.
    """
    if cases.plain[0].setting.problem.derivation.mask is None:
        return
    told = (
        (
            "mean mask",
            "the variance of the mask is forgotten: {} is the gradient of the loss at the "
            "mean mask",
            _at_mean,
        ),
        (
            "complement",
            "the mask is taken for its complement: {} is the gradient under 1 − m",
            _at_complement,
        ),
        (
            "no mask",
            "the mask is forgotten: {} is the gradient of the loss with everything kept",
            _at_ones,
        ),
        (
            "mask family",
            "the entries of the mask are taken for independent: {} is right for coins of the same "
            "means",
            _independent,
        ),
    )
    for kind, words, loss_of in told:
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
            yield Explanation(kind, words.format(label), predict)


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


def _at_complement(setting: Setting) -> Loss | None:
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


# --- right on part of the domain ---

Map = Callable[[np.ndarray], np.ndarray]


def _polar(x: np.ndarray) -> np.ndarray:
    """Return the orthogonal matrix nearest to a square one."""
    u, _, v = np.linalg.svd(x)
    return u @ v


_REGIONS: tuple[tuple[str, Map, bool], ...] = (
    ("positive", lambda x: np.where(x > 0, x, np.abs(x) + 0.1), False),
    ("negative", lambda x: np.where(x < 0, x, -np.abs(x) - 0.1), False),
    ("symmetric", lambda x: (x + x.T) / 2, True),
    ("antisymmetric", lambda x: (x - x.T) / 2, True),
    ("orthogonal", _polar, True),
    ("between −1 and 1", lambda x: np.where(np.abs(x) <= 1, x, np.sin(x)), False),
    ("greater than 1", lambda x: np.where(x > 1, x, 1.1 + np.abs(x)), False),
    (
        "of sum one along its last axis",
        lambda x: x + (1 - x.sum(axis=-1, keepdims=True)) / x.shape[-1],
        False,
    ),
    ("of mean zero along its last axis", lambda x: x - x.mean(axis=-1, keepdims=True), False),
    (
        "of unit length along its last axis",
        lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True),
        False,
    ),
)
"""Parts of a domain, larger ones first: the words, a map onto it that leaves what lies in it, and
whether it is for square matrices.

A draw is moved no more than it must be, so that a value at which the closed form is wrong speaks
against each region it lies in.
"""


def regions(label: str, cases: Cases) -> Iterator[Explanation]:
    """C is right where an input is positive, symmetric, of sum one … and wrong elsewhere; discrete
    inputs have no such parts.
    """
    first = cases.plain[0]
    discrete = first.setting.problem.discrete(first.sizes)
    arrays = {name: x for name, x in uniform_inputs(first).items() if name not in discrete}
    for words, onto, square in _REGIONS:
        for name, x in arrays.items():
            if (square and (x.ndim != 2 or x.shape[0] != x.shape[1])) or (
                not square and not x.ndim and "axis" in words
            ):
                continue

            def holds(case: Case, n: str = name, onto: Map = onto) -> bool:
                return _right_at(case, label, {**case.inputs, n: onto(np.asarray(case.inputs[n]))})

            with np.errstate(all="ignore"):
                if not all(holds(case) for case in cases.plain):
                    continue
                beyond = any(_outside(np.asarray(case.inputs[name]), onto) for case in cases.right)
                beyond = beyond or any(_beyond(case, label, name, onto) for case in cases.plain)
            only = f"{label} is right only where {name} is {words}"
            sentence = (
                f"{label} is right where {name} is {words}, and at other points too, but not "
                f"everywhere"
                if beyond
                else only
            )
            yield Explanation(
                "region", sentence, lambda case, h=holds: case.claimed[label] if h(case) else None
            )


_BEYOND = (0.1, 0.3, 0.6)
"""How far outside of a region it is looked whether the closed form is right there too: parts of the
way back to the draw.
"""


def _outside(x: np.ndarray, onto: Map) -> bool:
    return not same(onto(x), x)


def _beyond(case: Case, label: str, name: str, onto: Map) -> bool:
    """Say whether the closed form is right at some point outside of a region, too: near it, or
    where its entries are right.
    """
    x = np.asarray(case.inputs[name])
    inside = onto(x)
    points = [inside + part * (x - inside) for part in _BEYOND]
    if x.shape == case.truth[label].shape:
        points.append(
            np.where(zero(case.claimed[label] - case.truth[label], case.scale(label)), x, inside)
        )
    return any(
        _outside(z, onto) and _right_at(case, label, {**case.inputs, name: z}) for z in points
    )


def _right_at(case: Case, label: str, changed: dict[str, Any]) -> bool:
    claimed = case.setting.closed(changed, case.mask)[label]
    true = case.setting.truth(changed, case.mask)[label]
    scale = max(float(np.abs(claimed).max(initial=0.0)), float(np.abs(true).max(initial=0.0)))
    if (
        not np.all(np.isfinite(claimed))
        or not np.all(np.isfinite(true))
        or scale <= 1e-6 * case.scale(label)
    ):
        return False
    return bool(zero(claimed - true, scale).all())
