"""Looks at a growing sample until every array of a claimed gradient is decided.

With ḡ the mean of C chunks, g the claim, and reach = half width (`jaxgrad.evidence.sampling.tails`)
+ rounding + what rare events may hide (`jaxgrad.evidence.sampling.rare_events`), an entry is

    refuted      when |ḡ − g| > reach
    confirmed    when |ḡ − g| + reach ≤ resolution · max|g|

at any of the looks, over which, and over all entries, the probability `false_alarm` is shared out.

A half width is measured by how samples scatter. An entry that hangs on the mask and was all the
same is moved by something that was never drawn, or by nothing: no number of such samples tells
which. It refutes nothing, and an array of such entries alone is not confirmed.
"""

import math
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import numpy as np

from jaxgrad.evidence.noise.rounding import largest
from jaxgrad.evidence.sampling import progress
from jaxgrad.evidence.sampling.estimate import replay
from jaxgrad.evidence.sampling.rare_events import Rarities
from jaxgrad.evidence.sampling.tails import Tails, log_odds
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.reports.pictures import Path, Picture, heat, histogram

FIRST_LOOK = 256
"""Chunks before the first look."""
SEEN = 100
"""So many times, on average, each entry of the mask must have been drawn at its rarer value before
anything is said: what was never drawn is in no standard error.
"""
VERDICTS = tuple(Verdict)


class Limits(NamedTuple):
    """What a sequence is asked to reach.

    Attributes:
        false_alarm: probability, at most, of a wrong verdict.
        resolution: what is confirmed is right to this part of an array's largest entry.
        max_samples: number of samples at which to give up.
        chunk: samples a chunk.
        round: chunks a round, at most.
    """

    false_alarm: float
    resolution: float
    max_samples: int
    chunk: int
    round: int

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of chunks at which to look: 256, 512, 1024 … up to the last."""
        last = max(2, self.max_samples // self.chunk)
        looks = [min(FIRST_LOOK, last)]
        while looks[-1] < last:
            looks.append(min(2 * looks[-1], last))
        return tuple(looks)


class Sequence:
    """The looks at a growing sample, and the verdict on each array.

    Args:
        claimed: the closed form, flat.
        rounding: what rounding may do to each entry of the mean.
        parts: {label: slice of the entries}.
        limits: what is to be reached.
        rarest: least probability of an entry of the mask being kept, or dropped.
        rare: events that may be missed.
        fixed: labels of the arrays that do not depend on the mask.
        seed: of the chunks' keys, for messages.
        shape: of a draw, likewise.
    """

    def __init__(
        self,
        claimed: np.ndarray,
        rounding: np.ndarray,
        parts: Mapping[str, slice],
        limits: Limits,
        *,
        rarest: float = 1.0,
        rare: Rarities | None = None,
        fixed: Collection[str] = (),
        seed: int = 0,
        shape: tuple[int, ...] = (),
    ) -> None:
        """Set up, with nothing sampled."""
        self.claimed, self.rounding, self.parts, self.limits = claimed, rounding, parts, limits
        self.rarest, self.seed, self.shape = rarest, seed, shape
        self.rare = rare or Rarities(np.zeros(0), np.zeros((0, len(claimed))))
        self.hanging = np.concatenate(
            [np.full(part.stop - part.start, n not in fixed) for n, part in parts.items()]
        )
        self.scale = {
            label: float(np.abs(claimed[part]).max(initial=0.0)) for label, part in parts.items()
        }
        self.wanted = np.concatenate(
            [
                np.full(part.stop - part.start, limits.resolution * self.scale[n])
                for n, part in parts.items()
            ]
        )
        self.verdicts = dict.fromkeys(parts, Verdict.UNDECIDED)
        self.odds = log_odds(limits.false_alarm, len(limits.looks), len(claimed))
        self.tails = Tails.empty(len(claimed))
        self.broken: int | None = None
        self.path = Path()

    @property
    def samples(self) -> int:
        """Samples drawn so far."""
        return self.tails.count * self.limits.chunk

    def run(
        self,
        sample: Callable[[int, int], np.ndarray],
        *,
        tell: Callable[[float, str], None] | None = None,
        keep: Callable[[dict[str, np.ndarray]], None] | None = None,
    ) -> "Sequence":
        """Sample and look until all is decided, or the last look is done.

        Args:
            sample: (first chunk, number of chunks) to their means, (chunks, size).
            tell: told the fraction done and a line of progress after each round.
            keep: given the state after each round; see `restore`.
        """
        pace = progress.Pace(self.samples)
        for look in self.limits.looks:
            if look < self.tails.count:
                continue  # a run that was resumed has looked here
            while self.tails.count < look and self.broken is None:
                first = self.tails.count
                block = sample(first, min(self.limits.round, FIRST_LOOK, look - first))
                if not first:
                    self.path.begin(block)
                self.tails.add(block)
                if not np.all(finite := np.isfinite(block)):
                    self.broken = first + int(np.argmin(finite.all(axis=1)))
                if keep is not None:
                    keep(self.state())
                if tell is not None:
                    tell(
                        self.tails.count / self.limits.looks[-1],
                        pace.line(self.samples, *self._ahead()),
                    )
            if self.broken is not None:
                break
            self._judge()
            if not any(map(self._open, self.parts)):
                break
        if keep is not None:
            keep(self.state())
        return self

    def state(self) -> dict[str, np.ndarray]:
        """Return all that is needed to go on."""
        return {
            "next_chunk": np.array(self.tails.count),
            "samples": np.array(self.samples),
            "pivot": self.tails.pivot,
            "unit": self.tails.unit,
            "sums": self.tails.sums,
            "verdicts": np.array([VERDICTS.index(v) for v in self.verdicts.values()], np.int8),
            "broken": np.array(-1 if self.broken is None else self.broken),
            **self.path.state(),
        }  # fmt: skip

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up a state."""
        self.tails = Tails(
            int(state["next_chunk"]), *(np.array(state[name]) for name in ("pivot", "unit", "sums"))
        )
        self.verdicts = dict(zip(self.parts, (VERDICTS[i] for i in state["verdicts"]), strict=True))
        self.broken = None if state["broken"] < 0 else int(state["broken"])
        self.path.restore(state)

    def _judge(self) -> None:
        off, reach = self._off_and_reach()
        untold = self._untold()
        self.path.look(self.tails.count, self.tails.mean - self.claimed, reach)
        if not self._seen:
            return
        for label, part in self.parts.items():
            if self.verdicts[label] == Verdict.REFUTED:
                continue
            if np.any((off[part] > reach[part]) & ~untold[part]):
                self.verdicts[label] = Verdict.REFUTED
            elif (
                self.scale[label] > 0
                and np.all(off[part] + reach[part] <= self.wanted[part])
                and not np.all(untold[part])
            ):
                self.verdicts[label] = Verdict.CONFIRMED

    def _open(self, label: str) -> bool:
        """Say whether more samples may decide."""
        return self.verdicts[label] == Verdict.UNDECIDED and not self._silent(label)

    def _silent(self, label: str) -> bool:
        """Say whether the closed form is zero and no sample differed from another."""
        return (
            self._seen
            and self.scale[label] == 0
            and not np.any(self.tails.variance[self.parts[label]])
        )

    @property
    def _seen(self) -> bool:
        return self.samples * self.rarest >= SEEN

    def _off_and_reach(self, times: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        samples = max(self.samples * times, 1.0)
        allowed = self.rare.allowance(samples, self.odds)
        return np.abs(self.tails.mean - self.claimed), self.tails.half_width(
            self.odds, times=times
        ) + self.rounding + allowed

    def _untold(self) -> np.ndarray:
        """Return which entries depend on the mask and were the same in all samples."""
        return self.hanging & (self.tails.unit * np.sqrt(self.tails.variance) <= self.rounding)

    def _ahead(self) -> tuple[float, float]:
        """Return the widest interval in units of the resolution, and the samples it may need."""
        widest = self._widest(slice(None))
        needed = self.samples * max(widest, 1.0) * max(widest, 1.0)  # infinite where it overflows
        return widest, min(needed, self.limits.looks[-1] * self.limits.chunk)

    def _widest(self, part: slice, times: float = 1.0) -> float:
        off, reach = self._off_and_reach(times)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(
                np.max(
                    np.nan_to_num(
                        (off + reach)[part] / self.wanted[part], nan=np.inf, posinf=np.inf
                    ),
                    initial=0.0,
                )
            )

    def needed(self, part: slice) -> float:
        """Return the samples at which a part may be decided, by those seen; infinite if never."""
        low, high = 1.0, 2.0
        while not self._decided(part, high):
            low, high = high, 2 * high
            if high > 2.0**60:
                return math.inf
        for _ in range(8):
            middle = math.sqrt(low * high)
            low, high = (low, middle) if self._decided(part, middle) else (middle, high)
        return self.samples * high

    def _decided(self, part: slice, times: float) -> bool:
        """Say whether so many times as many samples would decide.

        Two standard errors of the distance may be chance.
        """
        off, reach = (a[part] for a in self._off_and_reach(times))
        chance = np.minimum(off, 2 * self.tails.standard_error()[part])
        likely, untold = off - chance, self._untold()[part]
        near = np.all(
            likely + chance / math.sqrt(times) + reach <= self.wanted[part]
        ) and not np.all(untold)
        return bool(near or np.any((likely > reach) & ~untold))

    def finding(
        self, label: str, seconds: float, shown: str, shape: tuple[int, ...] = ()
    ) -> Finding:
        """Put into words and pictures what was found on one array.

        Without its shape there are no pictures.
        """
        part, verdict, scale = self.parts[label], self.verdicts[label], self.scale[label]
        shown = f"{self.samples} samples{shown}"
        if self.broken is not None and not np.all(np.isfinite(self.tails.sums[0][part])):
            where = replay(
                self.broken, self.limits.chunk, self.shape, f"jax.random.key({self.seed})"
            )
            detail = f"{shown}; the sampled gradient is not finite in {where}"
            return Finding(
                evidence="monte_carlo",
                wrt=label,
                verdict=Verdict.UNDECIDED,
                seconds=seconds,
                detail=detail,
            )
        off, reach = (a[part] for a in self._off_and_reach())
        if self.tails.count:
            reach = np.where(self._untold()[part] & (off > reach), np.inf, reach)
        with np.errstate(over="ignore"):
            i = int(np.argmax(np.nan_to_num(off / np.maximum(reach, np.finfo(float).tiny))))
        detail, warning = shown, ""
        if verdict == Verdict.REFUTED:
            se = float(self.tails.standard_error()[part][i])
            away = (
                f"{float(off[i]) / se:.3g} standard errors away"
                if se > float(off[i]) * 1e-9
                else "the same in all samples"
            )
            detail += (
                f"; flat entry {i}: closed form {self.claimed[part][i]:.6g}, sampled "
                f"{self.tails.mean[part][i]:.6g}, {away}"
            )
        elif verdict == Verdict.UNDECIDED:
            detail += self._reason(label)
        if (
            self._silent(label)
            and np.all(off <= self.rounding[part])
            and not np.any(self.hanging[part])
        ):
            verdict, warning, detail = (
                Verdict.CONFIRMED,
                "vacuous: every sampled gradient is zero",
                shown,
            )
        unit = (
            max(scale, float(np.nan_to_num(np.abs(self.tails.mean[part])).max(initial=0.0))) or 1.0
        )
        (worst,) = largest(np.nan_to_num(off), off > reach)
        return Finding(
            evidence="monte_carlo",
            wrt=label,
            verdict=verdict,
            error=float(off[worst]) / unit,
            bound=float(reach[worst]) / unit,
            detectable=float(reach.max(initial=0.0)) / unit,
            seconds=seconds,
            detail=detail,
            warning=warning,
            pictures=self._pictures(part, i, off, reach, scale or 1.0, shape, verdict)
            if math.prod(shape) == len(off)
            else (),
        )

    def _pictures(
        self,
        part: slice,
        i: int,
        off: np.ndarray,
        reach: np.ndarray,
        unit: float,
        shape: tuple[int, ...],
        verdict: Verdict,
    ) -> tuple[Picture, ...]:
        place = part.start + i

        def before(means: np.ndarray) -> tuple[float, float]:
            tails = Tails.empty(1)
            tails.add(means[:, None])
            allowed = np.broadcast_to(
                self.rare.allowance(len(means) * self.limits.chunk, self.odds), len(self.claimed)
            )[place]
            return float(tails.mean[0] - self.claimed[place]), float(
                tails.half_width(self.odds)[0] + self.rounding[place] + allowed
            )

        entry = tuple(map(int, np.unravel_index(i, shape)))
        closing = self.path.closing(
            place, entry, self.limits.chunk, unit, self.limits.resolution, before
        )
        error = np.maximum(self.tails.standard_error()[part], np.finfo(float).tiny)
        with np.errstate(over="ignore"):
            spread = histogram((self.tails.mean - self.claimed)[part] / error)
        sides = [side[part].reshape(shape) for side in (self.claimed, self.tails.mean)]
        values = (
            {"closed": sides[0], "reference": sides[1], "against": "samples"}
            if verdict != Verdict.CONFIRMED
            else {}
        )
        return heat(off.reshape(shape), reach.reshape(shape), **values), closing, spread

    def _reason(self, label: str) -> str:
        part = self.parts[label]
        if self.broken is not None:
            return "; another array of the gradient is not finite, which ended the run"
        if not self._seen:
            return (
                f"; an entry of the mask takes its rarer value with probability "
                f"{self.rarest:.1g}, too seldom to be sampled; "
                f"about {SEEN / self.rarest:.1g} would be needed"
            )
        if self.scale[label] == 0:
            return (
                "; the closed form is zero: there is no scale for `resolution`, and samples "
                "cannot tell zero from what is hidden"
            )
        needed = self.needed(part)
        allowed = self.rare.allowance(self.samples, self.odds)
        said = (
            f"; about {needed:.1g} would be needed for the resolution {self.limits.resolution:g}"
            if math.isfinite(needed)
            else ""
        )
        if np.max(np.broadcast_to(allowed, len(self.claimed))[part] / self.wanted[part]) > 0.5:
            probability, shift = self.rare.worst(self.samples, self.odds)
            said = (
                f"; entries of the mask that fall together with a probability of "
                f"{probability:.1g}, too seldom to be sampled, move the "
                f"gradient by {shift / self.scale[label]:.1g} times its largest entry{said}"
            )
        elif np.any(
            (untold := self._untold()[part]) & (self._off_and_reach()[0][part] > self.wanted[part])
        ) or np.all(untold):
            if np.any(untold & (self.rounding[part] > self.wanted[part])):
                most = float(np.max(self.rounding[part][untold])) / self.scale[label]
                return (
                    f"; rounding may move an entry by {most:.1g} times the largest, and "
                    f"samples vary by no more: they tell nothing"
                )
            what = (
                "all samples are the same"
                if np.all(untold)
                else "an entry is off that was the same in all samples"
            )
            said = f"; {what}, though it hangs on the mask: what moves it may never have been drawn"
        elif not np.all(np.isfinite(self.tails.half_width(self.odds)[part])):
            said = f"; the chunks' means scatter with too heavy tails{said}"
        return said or "; rounding alone exceeds the resolution"
