"""What can be diagnosed where no exact expectation is known: simple hypotheses and sampling.

The true gradient G is known here as a mean Ĝ over sampled masks with its standard error s, entry by
entry. That the closed form C is the gradient at the mean mask, or with every entry kept, needs no
sampling and is tested to rounding. That C = k G, for a k that has a name, or C = Gᵀ, is reported
only where

    |C − k Ĝ| ≤ z |k| s    in every entry, at every choice of sizes,

while every other name, and k = 1, violates it somewhere, and k is known to `SHARP`.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad.claims.derivation import Derivation
from jaxgrad.diagnosis.cases import Case, Setting, case
from jaxgrad.diagnosis.factors import times
from jaxgrad.diagnosis.hypothesis import Diagnosis, Hypothesis
from jaxgrad.diagnosis.proportions import same
from jaxgrad.diagnosis.substitutions import ALL_KEPT, AT_MEAN
from jaxgrad.diagnosis.symbols import symbols
from jaxgrad.evidence.problem import Problem, labelled
from jaxgrad.evidence.sampling.estimate import estimate
from jaxgrad.masks.threefry import key_of

SAMPLES = 2**16
"""Masks that are sampled at each choice of sizes."""
SURE = 8.0
"""Standard errors beyond which an entry is off: chance takes 10⁻¹² of entries that far."""
SHARP = 4e-3
"""The largest relative standard error of a factor that is named."""
NEAR = 5.0
"""Standard errors that a factor may be from its name."""
NUMBERS = ("2", "1/2", "−1", "−2", "−1/2", "3", "1/3", "4", "1/4")


@dataclass(frozen=True)
class Sample:
    """Closed form, sampled gradient and its standard error at one draw of the inputs."""

    case: Case
    mean: Mapping[str, np.ndarray]
    error: Mapping[str, np.ndarray]

    def claimed(self, label: str) -> np.ndarray:
        """What the closed form says."""
        return self.case.claimed[label]


def sampled(problem: Problem, labels: Sequence[str]) -> dict[str, Diagnosis]:
    """Say of some arrays how they are wrong, as far as sampling tells.

    Args:
        problem: a claim with a mask, whose exact expectation is not known.
        labels: the arrays that are wrong.
    """
    samples = list(_samples(problem))
    found = {
        label: _diagnosed(label, samples)
        for label in labels
        if samples and label in samples[0].mean
    }
    return {label: diagnosis for label, diagnosis in found.items() if diagnosis is not None}


def _samples(problem: Problem) -> Iterator[Sample]:
    derivation = problem.derivation
    chosen = [problem.choose_sizes(variant, few_masks=True) for variant in range(2)]
    for sizes in chosen if chosen[0] != chosen[1] else chosen[:1]:
        distribution, shape = derivation.distribution(sizes), derivation.mask_shape(sizes)
        if distribution is None:
            return

        def loss(moving: dict[str, Any], fixed: dict[str, Any], mask: Any) -> Any:
            return derivation.loss(**derivation.in_order({**moving, **fixed, "mask": mask}))

        inputs = jax.tree.map(np.asarray, problem.draw(sizes, 0))
        moving = {name: x for name, x in inputs.items() if name in problem.wrt}
        fixed = {name: x for name, x in inputs.items() if name not in problem.wrt}
        key = key_of(problem.seed)
        found = estimate(loss, distribution, shape, argnums=0)(key, moving, fixed, samples=SAMPLES)
        drawn = case(
            _at_mean(problem, sizes, shape, inputs), inputs, jax.tree.map(np.asarray, distribution)
        )
        if drawn.usable():
            yield Sample(drawn, labelled(found.mean), labelled(found.standard_error))


def _at_mean(
    problem: Problem, sizes: dict[str, int], shape: tuple[int, ...], inputs: dict[str, Any]
) -> Setting:
    """Return the claim at some sizes, with the gradient at the mean mask in place of the truth."""
    at_mean = functools.partial(_loss_at_mean, problem.derivation, shape)
    return Setting(problem, sizes, at_mean, problem.derivation.distribution(sizes), inputs)


def _loss_at_mean(
    derivation: Derivation, shape: tuple[int, ...], inputs: dict[str, Any], mask: Any
) -> Any:
    return derivation.loss(
        **derivation.in_order({**inputs, "mask": jnp.broadcast_to(mask.mean(shape[-1]), shape)})
    )


def _diagnosed(label: str, samples: Sequence[Sample]) -> Diagnosis | None:
    if all(_fits(s.claimed(label), s.mean[label], s.error[label]) for s in samples):
        return None  # sampling does not see that it is wrong
    if all(same(s.claimed(label), s.case.truth[label]) for s in samples):
        at_mean = [s.case.truth[label] for s in samples]
        return _diagnosis(label, "mean mask", AT_MEAN.format(label), at_mean, samples)
    kept = [_kept(s)[label] for s in samples]
    if all(same(s.claimed(label), k) for s, k in zip(samples, kept, strict=True)):
        return _diagnosis(label, "no mask", ALL_KEPT.format(label), kept, samples)
    hypotheses = [*_factors(label, samples), *_transposes(label, samples)]
    standing = [
        h
        for h in hypotheses
        if all(
            _fits(s.claimed(label), m, e)
            for s, m, e in zip(samples, h.means, h.errors, strict=True)
        )
    ]
    if len(standing) != 1:
        return None
    (only,) = standing
    return _diagnosis(label, only.kind, only.words, only.means, samples)


@dataclass(frozen=True)
class _Candidate:
    kind: str
    words: str
    means: list[np.ndarray]
    errors: list[np.ndarray]


def _fits(claimed: np.ndarray, mean: np.ndarray, error: np.ndarray) -> bool:
    """Say whether the closed form lies within the sampling error of a mean, entry by entry."""
    rounding = 1e-9 * max(
        float(np.abs(claimed).max(initial=0.0)), float(np.abs(mean).max(initial=0.0))
    )
    return bool(np.all(np.abs(claimed - mean) <= SURE * error + rounding))


def _factors(label: str, samples: Sequence[Sample]) -> Iterator[_Candidate]:
    measured = [_measured(s.claimed(label), s.mean[label], s.error[label]) for s in samples]
    if any(k is None or not spread <= SHARP * abs(k) for k, spread in measured):
        return
    tables = [symbols(s.case) for s in samples]
    for text, values in _names(tables):
        if any(
            abs(value - k) > NEAR * spread
            for value, (k, spread) in zip(values, measured, strict=True)
            if k is not None
        ):
            continue
        means = [k * s.mean[label] for k, s in zip(values, samples, strict=True)]
        errors = [abs(k) * s.error[label] for k, s in zip(values, samples, strict=True)]
        words = f"the closed form is {times(text, f'the gradient in {label}')}"
        seen = " and ".join(
            f"{k:.4g} ± {spread:.1g}" for k, spread in measured if k is not None
        ).replace("-", "−")
        words += f", as far as {SAMPLES} samples tell: measured {seen}"
        yield _Candidate("sign" if text == "−1" else "factor", words, means, errors)


def _measured(
    claimed: np.ndarray, mean: np.ndarray, error: np.ndarray
) -> tuple[float | None, float]:
    """Return k with C = k Ĝ, by least squares in units of the standard errors, and its error.

    That is what it is if the errors of all entries are one and the same, as they nearly are where
    one sum over the mask is behind them.
    """
    error = np.maximum(error, 1e-9 * np.abs(mean).max(initial=0.0) + np.finfo(float).tiny)
    square, product = (
        float(np.sum((claimed / error) ** 2)),
        float(np.sum(claimed * mean / error**2)),
    )
    if not square or not product:
        return None, np.inf
    inverse = product / square  # Ĝ = C / k, the side with the noise on the left
    return 1 / inverse, float(np.sum(np.abs(claimed) / error)) / square / inverse**2


def _names(tables: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, list[float]]]:
    """Yield each named factor once: numbers, symbols, their squares, products and quotients."""
    shared = [s for s in tables[0] if all(s in table for table in tables)]
    candidates: list[tuple[str, list[float]]] = [
        (text, [_number(text)] * len(tables)) for text in NUMBERS
    ]
    of = {s: np.array([table[s] for table in tables]) for s in shared}
    for s in shared:
        candidates += [
            (s, list(of[s])),
            (f"1/{s}", list(1 / of[s])),
            (f"2·{s}", list(2 * of[s])),
            (f"2/{s}", list(2 / of[s])),
        ]
        candidates += [(f"{s}²", list(of[s] ** 2)), (f"1/{s}²", list(1 / of[s] ** 2))]
    for a, b in combinations(shared, 2):
        candidates += [
            (f"{a}·{b}", list(of[a] * of[b])),
            (f"1/({a}·{b})", list(1 / (of[a] * of[b]))),
        ]
        candidates += [(f"{a}/{b}", list(of[a] / of[b])), (f"{b}/{a}", list(of[b] / of[a]))]
    seen: list[list[float]] = [[1.0] * len(tables)]
    for text, values in candidates:
        if np.all(np.isfinite(values)) and not any(
            np.allclose(values, other, rtol=1e-9, atol=0) for other in seen
        ):
            seen.append(values)
            yield text, [float(v) for v in values]


def _number(text: str) -> float:
    above, _, below = text.replace("−", "-").partition("/")
    return float(above) / float(below or 1)


def _transposes(label: str, samples: Sequence[Sample]) -> Iterator[_Candidate]:
    if all(
        s.mean[label].ndim == 2 and s.mean[label].shape[0] == s.mean[label].shape[1]
        for s in samples
    ):
        words = (
            f"the closed form is the transpose of the gradient in {label}, as far as {SAMPLES} "
            f"samples tell"
        )
        yield _Candidate(
            "transposed",
            words,
            [s.mean[label].T for s in samples],
            [s.error[label].T for s in samples],
        )


def _kept(sample: Sample) -> dict[str, np.ndarray]:
    setting, derivation = sample.case.setting, sample.case.setting.problem.derivation
    shape = derivation.mask_shape(setting.sizes)
    program = setting.gradient_program(
        lambda x, _: derivation.loss(**derivation.in_order({**x, "mask": jnp.ones(shape)}))
    )
    return program(sample.case.inputs, sample.case.mask)


def _diagnosis(
    label: str, kind: str, words: str, means: Sequence[np.ndarray], samples: Sequence[Sample]
) -> Diagnosis:
    left = max(
        float(np.abs(s.claimed(label) - m).max(initial=0.0)) / _off(s, label)
        for s, m in zip(samples, means, strict=True)
    )
    return Diagnosis(
        label, kind, words, left, hypothesis=Hypothesis(kind, words, lambda case: None)
    )


def _off(sample: Sample, label: str) -> float:
    return float(np.abs(sample.claimed(label) - sample.mean[label]).max(initial=0.0)) or 1.0
