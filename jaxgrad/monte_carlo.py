"""The closed form of an expected gradient against sampling, until the verdict is sure either way.

Samples come in chunks, and after 256, 512, 1024 … chunks their mean ḡ and its standard error se are looked at. With t the
quantile of Student's distribution at false_alarm / (looks · entries), two-sided, an entry of the closed form g is

    refuted      when |ḡ − g| > t·se + r
    confirmed    when |ḡ − g| + t·se + r ≤ resolution · max|g|

where r is what rounding may do (measured, float32 against float64). So both wrong verdicts are bounded by `false_alarm`: a
right closed form refuted, and one confirmed that is off by more than the resolution.
"""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad import shapes
from jaxgrad.association import associated
from jaxgrad.compilation import check_options
from jaxgrad.pictures import Path, heat, histogram
from jaxgrad.problem import Problem, labelled
from jaxgrad.report import Finding, Verdict
from jaxgrad.sampling import Moments, Sampler

FIRST_LOOK = 256
"""Chunks before the first look: enough that a chunk mean's skewness no longer shows in the tails of t."""
CHUNK_BUDGET = 2**20
"""Bytes of intermediate values in a chunk: the first look takes many chunks, so they are smaller than an estimate's."""
PILOT = 8
"""Samples at each candidate draw of the inputs."""
CANDIDATES = 4
"""So many draws of the inputs are tried, and the one whose sampled gradients scatter least is sampled at."""
SUM_ROUNDING = 256.0
"""Roundoffs of an array's largest entry that a mean over many samples may be off by; far below any resolution."""
LARGEST_CHUNK = 32
"""The most samples a chunk: so that a gross error is refuted after a few thousand samples."""
SEEN = 100
"""So many times, on average, each entry of the mask must have been drawn at its rarer value before anything is said: what was
never drawn is in no standard error."""
ROWS = 48
"""Extent of the mask's leading, independent axis where it may be chosen: one sample then averages over many rows."""


def choose_sizes(problem: Problem) -> dict[str, int]:
    """Choose small sizes, but many rows of the mask where the gradient is a sum over them."""
    sizes, declared = problem.choose_sizes(0, few_masks=True), problem.derivation.shapes
    rows, *columns = shapes.parse(declared["mask"], "mask")
    by_row = any(rows in dims for name in problem.wrt for _, dims in shapes.leaves({name: declared[name]}))
    if columns and len(rows) == 1 and rows[0] in sizes and rows[0] not in problem.sizes and not by_row:
        sizes[rows[0]] = ROWS
    return sizes


def monte_carlo(problem: Problem) -> list[Finding]:
    """Compare the closed form with sampled gradients of the loss.

    Args:
        problem: a claim with a mask.

    Returns:
        One finding for each array of the gradient.
    """
    start = time.perf_counter()
    sizes, wrt = choose_sizes(problem), problem.wrt
    derivation = problem.derivation
    distribution = derivation.distribution(sizes)
    assert distribution is not None

    def loss(moving: dict[str, Any], fixed: dict[str, Any], mask: Any) -> Any:
        return derivation.loss(**moving, **fixed, mask=mask)

    sampler = Sampler(loss, distribution, derivation.mask_shape(sizes), 0)
    key = jax.random.key(problem.seed)
    pilot = _Pilot(problem.closed_form(sizes), sampler, key)
    draws = [problem.draw(sizes, number) for number in range(1 if len(problem.given) == len(derivation.input_names) else CANDIDATES)]
    split = [({n: x for n, x in d.items() if n in wrt}, {n: x for n, x in d.items() if n not in wrt}) for d in draws]
    trials = [pilot.run(args) for args in split]
    best = int(np.argmin([trial.noise for trial in trials]))
    args, claimed = split[best], trials[best].claimed
    double, rounding = pilot.rounding(args, trials[best])
    flat = np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in claimed.values()])
    if not np.all(np.isfinite(flat)):
        reason = "the closed form is not finite"
        return [Finding(evidence="monte_carlo", wrt=label, verdict=Verdict.UNDECIDED, detail=reason) for label in claimed]
    with jax.enable_x64(double):
        rarest = _rarest(distribution, derivation.mask_shape(sizes))
        outcome = _Sequence(problem, flat, rounding, _labels(claimed), rarest).run(sampler, key, _cast(args, double))
    seconds = (time.perf_counter() - start) / len(claimed)
    return [outcome.finding(label, seconds, sizes, np.shape(claimed[label])) for label in claimed]


def _rarest(distribution: Any, shape: tuple[int, ...]) -> float:
    """Return the smallest positive probability with which an entry of the mask is kept, or dropped; 1 where none is random."""
    mean = np.ravel(np.asarray(distribution.mean(shape[-1]), np.float64))
    either = np.concatenate([mean, 1 - mean])
    return float(np.min(either[(either > 0) & (either < 1)], initial=1.0))


def _labels(claimed: dict[str, Any]) -> dict[str, slice]:
    parts, begin = {}, 0
    for label, leaf in claimed.items():
        parts[label] = slice(begin, begin + np.size(leaf))
        begin += np.size(leaf)
    return parts


def _cast(args: Any, double: bool) -> Any:
    dtype = np.float64 if double else np.float32
    return jax.tree.map(lambda x: jnp.asarray(x, dtype) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else jnp.asarray(x), args)


class _Trial(NamedTuple):
    """What a few samples tell of one draw of the inputs."""

    claimed: dict[str, Any]
    gradient: Any
    masks: Any
    noise: float


class _Pilot:
    """A few samples in float64, before the many: which draw has the least noise, and whether float32 is good enough."""

    def __init__(self, closed: Any, sampler: Sampler, key: Any) -> None:
        self.sampler, self.key = sampler, key

        def gradients(args: Any, draws: Any) -> Any:
            return jax.vmap(lambda draw: jax.grad(lambda moving: associated(sampler.f, (moving, args[1]), draw))(args[0]))(draws)

        def first(key: Any, mask: Any, args: Any) -> Any:
            draws = mask.sample(key, (PILOT, *sampler.shape))
            return closed({**args[0], **args[1]}), gradients(args, draws), draws

        self.first = jax.jit(first, compiler_options=check_options())
        self.again = jax.jit(gradients, compiler_options=check_options())

    def run(self, args: Any) -> _Trial:
        """Sample a little at one draw of the inputs; the noise is that of a sample relative to the largest entry."""
        claimed, found, masks = self.first(self.key, self.sampler.mask, args)
        claimed, found = labelled(claimed), labelled(found)
        scales = [np.abs(np.asarray(leaf)).max(initial=0.0) for leaf in claimed.values()]
        spreads = [np.std(np.asarray(leaf), axis=0).max(initial=0.0) for leaf in found.values()]
        with np.errstate(divide="ignore", invalid="ignore"):
            noise = float(np.nan_to_num(np.max(np.divide(spreads, scales)), nan=0.0, posinf=1e300))
        return _Trial(claimed, found, masks, noise)

    def rounding(self, args: Any, trial: _Trial) -> tuple[bool, np.ndarray]:
        """Say whether to sample in float64, and what rounding may do to each entry's mean."""
        with jax.enable_x64(False):
            single = labelled(self.again(_cast(args, False), np.asarray(trial.masks, np.float32)))
        exact = [np.asarray(leaf, np.float64).reshape(PILOT, -1) for leaf in trial.gradient.values()]
        moves = [
            np.abs(np.asarray(leaf, np.float64).reshape(PILOT, -1) - e).mean(0) for leaf, e in zip(single.values(), exact, strict=True)
        ]
        scales = [np.abs(e).max(initial=0.0) for e in exact]
        double = not all(np.all(move <= 1e-4 * scale) for move, scale in zip(moves, scales, strict=True))
        eps = float(np.finfo(np.float64 if double else np.float32).eps)
        floors = [np.full(move.shape, SUM_ROUNDING * eps * scale) for move, scale in zip(moves, scales, strict=True)]
        return double, np.concatenate(floors) + (0.0 if double else 8.0) * np.concatenate(moves)


class _Sequence:
    """The looks at a growing sample, and the verdict on each array."""

    def __init__(self, problem: Problem, closed: np.ndarray, rounding: np.ndarray, parts: dict[str, slice], rarest: float) -> None:
        self.problem, self.closed, self.rounding, self.parts = problem, closed, rounding, parts
        self.scale = {label: float(np.abs(closed[part]).max(initial=0.0)) for label, part in parts.items()}
        self.verdicts = dict.fromkeys(parts, Verdict.UNDECIDED)
        self.rarest = rarest
        self.samples, self.moments, self.t = 0, Moments.empty(len(closed)), np.inf
        self.level, self.path = 0.0, Path()

    def run(self, sampler: Sampler, key: Any, args: Any) -> "_Sequence":
        from scipy.special import stdtrit  # costs a quarter of a second, and only sampling needs it

        problem = self.problem
        chunk, most = sampler.plan(args, problem.max_samples, cache=CHUNK_BUDGET)
        chunk = max(1, min(chunk, LARGEST_CHUNK, problem.max_samples // FIRST_LOOK))
        last = max(2, problem.max_samples // chunk)
        looks = [min(FIRST_LOOK, last)]
        while looks[-1] < last:
            looks.append(min(2 * looks[-1], last))
        self.level = problem.false_alarm / (2 * len(looks) * len(self.closed))
        for look in looks:
            while self.moments.count < look:
                chunks = min(most, FIRST_LOOK, look - self.moments.count)
                means = sampler.round(key, args, self.moments.count, chunk, chunks)
                self.path.begin(means)
                self.moments.add(means)
                self.samples = self.moments.count * chunk
                problem.report_progress("monte_carlo", self.moments.count / last, f"{self.samples} samples")
            self.t = -float(stdtrit(self.moments.count - 1, self.level))
            self.path.look(self.moments.count, self.moments.mean, self.moments.standard_error())
            self._judge()
            if Verdict.UNDECIDED not in self.verdicts.values():
                break
        return self

    def _judge(self) -> None:
        off, reach = self._off_and_reach()
        for label, part in self.parts.items():
            if self.verdicts[label] == Verdict.REFUTED:
                continue
            if self._seen and np.any(off[part] > reach[part]):
                self.verdicts[label] = Verdict.REFUTED
            elif self._seen and np.all(off[part] + reach[part] <= self.problem.resolution * self.scale[label]):
                self.verdicts[label] = Verdict.CONFIRMED
            elif self.verdicts[label] != Verdict.CONFIRMED:
                self.verdicts[label] = Verdict.UNDECIDED

    @property
    def _seen(self) -> bool:
        return self.samples * self.rarest >= SEEN

    def _off_and_reach(self) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(invalid="ignore"):
            off = np.abs(self.moments.mean - self.closed)
            return np.where(np.isfinite(off), off, np.nan), self.t * self.moments.standard_error() + self.rounding

    def finding(self, label: str, seconds: float, sizes: dict[str, int], shape: tuple[int, ...]) -> Finding:
        part, verdict = self.parts[label], self.verdicts[label]
        off, reach = (a[part] for a in self._off_and_reach())
        shown = f"{self.samples} samples at " + " ".join(f"{k}={v}" for k, v in sizes.items())
        scale = self.scale[label]
        if not np.all(np.isfinite(off)):
            return Finding(
                evidence="monte_carlo", wrt=label, verdict=Verdict.UNDECIDED, seconds=seconds,
                detail=f"{shown}; the sampled gradient is not finite",
            )  # fmt: skip
        i = int(np.argmax(off / np.maximum(reach, np.finfo(float).tiny)))
        detail, warning = shown, ""
        if verdict == Verdict.REFUTED:
            se = max(float(self.moments.standard_error()[part][i]), np.finfo(float).tiny)
            detail += (
                f"; flat entry {i}: closed form {self.closed[part][i]:.6g}, sampled {self.moments.mean[part][i]:.6g}, "
                f"{off[i] / se:.3g} standard errors away"
            )
        elif verdict == Verdict.UNDECIDED:
            widest = float((off + reach).max() / (self.problem.resolution * scale)) if scale else np.inf
            if not self._seen:
                detail += f"; an entry of the mask takes its rarer value with probability {self.rarest:.1g}, too seldom to be sampled"
            elif scale == 0:
                detail += "; the closed form is zero, so there is no scale for `resolution`"
            else:
                needed = self.samples * max(widest, 1.0) ** 2
                detail += f"; about {needed:.1g} would be needed for the resolution {self.problem.resolution:g}"
        if self._seen and scale == 0 and np.all(off <= self.rounding[part]) and not np.any(self.moments.squares[part]):
            verdict, warning, detail = Verdict.CONFIRMED, "vacuous: every sampled gradient is zero", shown
        unit = scale or 1.0
        return Finding(
            evidence="monte_carlo", wrt=label, verdict=verdict, error=float(off[i]) / unit, bound=float(reach[i]) / unit,
            detectable=float(reach.max()) / unit, seconds=seconds, detail=detail, warning=warning,
            pictures=self._pictures(part, i, off, reach, unit, shape, verdict != Verdict.CONFIRMED),
        )  # fmt: skip

    def _pictures(
        self, part: slice, i: int, off: np.ndarray, reach: np.ndarray, unit: float, shape: tuple[int, ...], both: bool
    ) -> tuple[Any, ...]:
        entry, place = tuple(map(int, np.unravel_index(i, shape))), part.start + i
        closing = self.path.closing(
            place, entry, self.samples // self.moments.count, float(self.closed[place]), unit, self.problem.resolution,
            self.level, float(self.rounding[place]),
        )  # fmt: skip
        error = np.maximum(self.moments.standard_error()[part], np.finfo(float).tiny)
        spread = histogram((self.moments.mean - self.closed)[part] / error)
        sides = [side[part].reshape(shape) for side in (self.closed, self.moments.mean)]
        values = {"closed": sides[0], "reference": sides[1], "against": "samples"} if both else {}
        return heat(off.reshape(shape), reach.reshape(shape), **values), closing, spread
