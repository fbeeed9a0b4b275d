"""Whether a claim is what the corpus says it is, by differences of the loss alone.

Nothing of what reaches a verdict is used here: only the claim's own functions and draws. Along a
direction v the slopes f′(x; v) and −f′(x; −v) are extrapolated (Ridders 1982) from both sides; a
gradient g is right iff g·v lies between them. An expected loss is the sum over all masks, and for
normal noise over Gauss and Hermite's five points an entry.
"""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.corpus.statement import Claim
from jaxgrad import masks
from jaxgrad.jaxprs.versions import enable_x64

STEPS = 9
"""Steps of a difference, each a third of the one before."""
TOLERANCE = 3e-5
"""A right closed form agrees with differences to this part of the largest slope."""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(5)


def problems(claim: Claim, seeds: int = 2, *, whole: bool = False) -> list[str]:
    """Return what contradicts the corpus about a claim; empty where nothing does."""
    derivation = claim.make()
    with enable_x64(True):
        if claim.right:
            found = []
            for sizes, inputs in ordinary(claim, derivation, seeds, whole):
                wrong = disagreement(claim, derivation, inputs, sizes)
                if wrong:
                    found.append(f"right, but {wrong}")
            return found
        inputs, sizes = witness(claim, derivation)
        wrong = disagreement(claim, derivation, inputs, sizes, gross=True)
        return [] if wrong else ["wrong, but its witness does not show it"]


def witness(claim: Claim, derivation: Any, words: tuple[int, ...] = (5,)) -> tuple[Any, Any]:
    """Return the inputs at which a wrong claim is wrong, what `at` leaves out drawn."""
    sizes = dict(claim.sizes or {})
    given = {name: np.asarray(value) for name, value in claim.at.items()}
    for name, value in given.items():
        text = derivation.shapes[name].split()
        for dim, size in zip(text, value.shape, strict=True):
            if dim.isidentifier():
                sizes.setdefault(dim, size)
    sizes = sized(derivation, sizes)
    inputs = dict(derivation.drawn(words, sizes))
    for name, value in given.items():
        kind = np.asarray(inputs[name]).dtype if name in inputs else float
        inputs[name] = value.astype(kind)
    return inputs, sizes


def sized(derivation: Any, fixed: dict[str, int] | None = None) -> dict[str, int]:
    """Choose sizes, those of a mask so small that all masks can be listed."""
    if derivation.mask is None:
        return derivation.choose_sizes(0, fixed)
    if derivation.shapes["mask"].split()[0].isdigit():
        return {}
    dims = derivation.shapes["mask"].split()
    letters = [d.split("*")[-1] for d in dims if not d.isdigit()]
    small = dict(zip(letters[::-1], (3, 2, 1), strict=False)) | (fixed or {})
    return derivation.choose_sizes(0, small)


def ordinary(claim: Claim, derivation: Any, seeds: int, whole: bool) -> Any:
    """Yield sizes and inputs at which a right claim is looked at."""
    chosen = dict(claim.options.get("sizes", {}))
    every = [sized(derivation, chosen)]
    names = [name for name in every[0] if name not in chosen]
    if "inputs" in claim.options:  # given data are the domain
        given = {name: np.asarray(value) for name, value in claim.options["inputs"].items()}
        yield witness(dataclasses.replace(claim, at=given), derivation)[::-1]
        return
    if whole and names and derivation.mask is None:
        every += [derivation.choose_sizes(1, chosen), dict.fromkeys(names, 1) | chosen]
        every += [dict.fromkeys(names, 2) | {names[0]: 9} | chosen]
    for number, sizes in enumerate(every):
        for seed in range(seeds if not number else 1):
            yield sizes, dict(derivation.drawn((seed, 11), sizes))
        if whole:
            yield sizes, dict(derivation.drawn((3, 12), sizes, special=True))


def disagreement(claim: Claim, derivation: Any, inputs: Any, sizes: Any, gross=False) -> str:
    """Say where the closed form is not the gradient; "" where it is.

    With `gross` only an error far above that of the differences counts.
    """
    inputs = {name: jax.tree.map(jnp.asarray, value) for name, value in inputs.items()}
    distribution = derivation.distribution(sizes)
    given = dict(inputs) if distribution is None else {**inputs, "mask": distribution}
    if claim.dtype != "float64":
        given = {
            name: jax.tree.map(lambda a: jnp.asarray(a, claim.dtype), value)
            for name, value in given.items()
        }
    try:
        gradient = derivation.gradient(**derivation.in_order(given))
        value = None if claim.truth else expected(derivation, distribution, sizes)
    except (TypeError, ValueError) as error:
        if sizes and 1 in sizes.values():
            return ""  # a size that the functions refuse is no part of the claim
        raise AssertionError(f"{claim.name}: {error}") from error
    gradient = {name: jax.tree.map(np.asarray, g) for name, g in gradient.items()}
    wrt = tuple(gradient)
    flat, shape = jax.tree.flatten({name: inputs[name] for name in wrt})
    slopes = jax.tree.leaves({name: gradient[name] for name in wrt})
    if claim.truth is not None:
        true = claim.truth(**inputs)
        error = max(np.max(np.abs(g - t)) for g, t in zip(slopes, true, strict=True))
        return f"off by {error}" if error > 1e-6 else ""
    run = jax.jit(lambda arrays: value({**inputs, **jax.tree.unflatten(shape, arrays)}))

    for v in directions([a.shape for a in flat]):
        product = (
            sum(np.sum(g * d) for g, d in zip(slopes, v, strict=True))
            if not np.ndim(run(flat))
            else sum(np.tensordot(g, d, d.ndim) for g, d in zip(slopes, v, strict=True))
        )
        scale = max(float(np.max(np.abs(a))) for a in flat) or 1.0
        first = min(scale, 1.0) if claim.right or not claim.at else scale
        upper, lower, error = sides(run, flat, v, 0.03 * min(first, scale))
        if not np.all(np.isfinite(upper)) or not np.all(np.isfinite(lower)):
            continue
        size = max(np.max(np.abs(upper)), np.max(np.abs(product)), 1e-12)
        error += 1e-11 * float(np.max(np.abs(run(flat))))
        allowed = TOLERANCE * size + 10 * error
        if gross:
            allowed = max(1e-4 * size, 30 * error)
        if not np.all(np.isfinite(product)):
            return f"not finite at {wrt}"
        least, most = np.minimum(upper, lower), np.maximum(upper, lower)
        if claim.right and np.max(most - least) > allowed:  # a kink, for once
            near = neighbours(run, flat, v)
            least, most = np.minimum(least, near.min(0)), np.maximum(most, near.max(0))
        if np.any(product < least - allowed) or np.any(product > most + allowed):
            return f"g·v = {product}, slopes {lower} and {upper}, error {error:.1e}, at {sizes}"
    return ""


def expected(derivation: Any, distribution: Any, sizes: Any) -> Any:
    """Return the loss of the inputs, or its expectation over the mask."""
    if distribution is None:
        return lambda inputs: derivation.loss(**derivation.in_order(inputs))
    shape = derivation.mask_shape(sizes)
    if isinstance(distribution, masks.MultiplicativeGaussian):
        points = np.array(list(itertools.product(range(5), repeat=int(np.prod(shape)))))
        draws = 1 + np.sqrt(distribution.variance) * NODES[points].reshape(-1, *shape)
        chances = np.prod((WEIGHTS / WEIGHTS.sum())[points], axis=1)
    else:
        draws, chances = distribution.support(shape)
    draws, chances = jnp.asarray(draws), jnp.asarray(chances)

    def value(inputs: Any) -> Any:
        one = jax.vmap(lambda m: derivation.loss(**derivation.in_order({**inputs, "mask": m})))
        return jnp.tensordot(chances, one(draws), 1)

    return value


def directions(shapes: list[Any]) -> Any:
    """Yield directions: at random, all alike, single entries."""
    rng = np.random.default_rng(7)
    yield [rng.standard_normal(s) for s in shapes]
    yield [np.ones(s) for s in shapes]
    sizes = [int(np.prod(s)) for s in shapes]
    places = [(i, j) for i, n in enumerate(sizes) for j in range(n)]
    if len(places) > 6:
        places = [places[i] for i in rng.choice(len(places), 6, replace=False)]
    for i, j in places:
        yield [
            (np.arange(n) == j).reshape(s) * float(k == i)
            for k, (n, s) in enumerate(zip(sizes, shapes, strict=True))
        ]


def sides(run: Any, flat: Any, v: Any, step: float) -> tuple[Any, Any, float]:
    """Return the slopes on both sides along v, and their error.

    Central differences where they converge, which is so where the loss is smooth; else one-sided.
    """

    def at(t: float) -> Any:
        return np.asarray(run([a + t * d for a, d in zip(flat, v, strict=True)]))

    steps = [step / 3**k for k in range(STEPS)]
    middle = at(0.0)
    ahead, behind = [at(h) for h in steps], [at(-h) for h in steps]
    with np.errstate(all="ignore"):
        central = [(a - b) / (2 * h) for a, b, h in zip(ahead, behind, steps, strict=True)]
        slope, error = ridders(central, 9.0, 9.0)
        up, up_error = ridders(
            [(a - middle) / h for a, h in zip(ahead, steps, strict=True)], 3.0, 3.0
        )
        down, down_error = ridders(
            [(middle - b) / h for b, h in zip(behind, steps, strict=True)], 3.0, 3.0
        )
    spread = max(np.max(np.abs(ahead[0] - middle)), np.max(np.abs(behind[0] - middle))) / step
    error, up_error = error + 1e-9 * spread, up_error + 1e-9 * spread
    smooth = np.max(np.abs(up - down)) <= 1e-3 * np.max(np.abs(slope)) + 10 * (
        up_error + down_error
    )
    if smooth:
        return slope, slope, error
    return up, down, max(up_error, down_error)


def neighbours(run: Any, flat: Any, v: Any) -> Any:
    """Return slopes along v close to a kink, whose extremes are those of Clarke's (1983) gradients.

    Kinks of single entries that point to both sides, as a clip's two ends do, leave g·v outside of
    the slopes along v itself, though every entry of g is allowed.
    """
    rng = np.random.default_rng(3)
    found = []
    for _ in range(400):
        near = [a + 1e-5 * rng.standard_normal(np.shape(a)) for a in flat]
        ahead = np.asarray(run([a + 1e-8 * d for a, d in zip(near, v, strict=True)]))
        found.append((ahead - np.asarray(run(near))) / 1e-8)
    return np.array(found)


def ridders(values: list[Any], ratio: float, power: float) -> tuple[Any, float]:
    """Extrapolate quotients to a step of zero; return the limit and its error."""
    best, error = values[-1], np.inf
    row = values[:1]
    for value in values[1:]:
        new, factor = [value], ratio
        for j, old in enumerate(row):
            new.append((factor * new[j] - old) / (factor - 1))
            factor *= power
            change = max(np.max(np.abs(new[-1] - new[-2])), np.max(np.abs(new[-1] - old)))
            if change <= error:
                best, error = new[-1], change
        row = new[: STEPS // 2 + 1]
    return best, float(error)
