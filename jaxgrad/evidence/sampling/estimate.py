"""Monte Carlo over masks: means and standard errors of any function, or of its gradient.

With chunk means ḡ_1 … ḡ_C of the sampling loop (`jaxgrad.evidence.sampling.loop`), all of c
samples,

    mean = 1/C Σ ḡ_i        se² = Σ (ḡ_i − mean)² / (C (C − 1))

and both are gathered in float64 on the host (`jaxgrad.evidence.sampling.moments`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from jaxgrad.evidence.sampling.checkpoints import Checkpoint
from jaxgrad.evidence.sampling.known import NO_PYTREE, Known, is_numbers
from jaxgrad.evidence.sampling.loop import Sampler
from jaxgrad.evidence.sampling.moments import Moments
from jaxgrad.evidence.sampling.processes import agree, unanimous
from jaxgrad.evidence.sampling.progress import Pace, shown
from jaxgrad.jaxprs.user_calls import check_arguments, named, refuse_traced, returning
from jaxgrad.masks import Mask
from jaxgrad.masks.distribution import check_key, check_shape

Tell = Callable[[float, str], None]


class Estimate(NamedTuple):
    """A Monte Carlo estimate.

    Attributes:
        mean: pytree of float64 numpy arrays, the mean over all samples.
        standard_error: pytree of the same shape, the standard error of that mean; with what
            rounding in the precision of the result, which the chunks share, may add to it.
        samples: number of samples drawn, a whole number of chunks.
        chunks: number of chunks; the standard error has one degree of freedom less.
    """

    mean: Any
    standard_error: Any
    samples: int
    chunks: int


def estimate(
    f: Callable[..., Any],
    mask: Mask,
    shape: Sequence[int],
    *,
    argnums: int | Sequence[int] | None = None,
) -> Callable[..., Estimate]:
    """Return a Monte Carlo estimator of E f, or of its gradient.

    E f ≈ 1/N Σ_k f(…, mask=M_k)

    Args:
        f: takes a draw as the keyword `mask`, of shape `shape`, and any positional arguments;
            returns a pytree of arrays.
        mask: distribution of the mask.
        shape: shape of a draw.
        argnums: argument numbers of f; given, the expected gradient of f (then a scalar) in those
            arguments is estimated.

    Returns:
        A function ``(key, *args, samples=…, checkpoint=None, progress=None) -> Estimate``; compiled
        once, quick when called again. The number of samples is rounded up to whole chunks. All
        devices share the work. A `checkpoint` is the name of a file that is written after every
        round, and from which the same call goes on when it was interrupted: to the same last bit
        on the same machine with as many devices and cores, else to rounding.
        With ``progress=True`` a line on the terminal, if there is one, tells samples, samples per
        second, the largest standard error relative to the largest entry of its array, and the time
        left; a function is called after every round with the fraction done and that line.

    Raises:
        ValueError: when `samples` is less than 2, or `checkpoint` names a file that is no
            checkpoint of this call; when f has side effects, or draws random numbers with a key of
            its own.
        TypeError: when an argument is of the wrong kind, or f raised a TypeError.
        FloatingPointError: when f is not finite for some draw; the message says how to draw it
            again.

    >>> from jaxgrad import masks
    >>> square = estimate(lambda x, mask: (mask * x).sum() ** 2, masks.Bernoulli(0.5), (2,))
    >>> mean, se, samples, _ = square(jax.random.key(0), jax.numpy.ones(2), samples=1000)
    >>> bool(abs(mean - 1.5) < 5 * se), samples
    (True, 1008)
    """
    if not callable(f):
        raise TypeError(
            f"`f` must be a function that takes the draw as keyword `mask`, but is {f!r}"
        )
    if not isinstance(mask, Mask):
        raise TypeError(
            f"`mask` must be a mask distribution such as jaxgrad.masks.Bernoulli(0.5), but is "
            f"{mask!r}"
        )
    if not is_numbers(mask):
        raise TypeError(f"`mask`: {NO_PYTREE}")
    argnums = _argument_numbers(argnums)
    checked = returning("f", named("f", f), real=argnums is not None)
    sampler = Sampler(checked, mask, check_shape(shape), argnums, rewrite=True)

    def run(
        key: Array,
        *args: Any,
        samples: int,
        checkpoint: str | Path | None = None,
        progress: bool | Tell | None = None,
    ) -> Estimate:
        if not isinstance(samples, (int, np.integer)) or samples < 2:
            raise ValueError(f"`samples` must be an integer of at least 2, but is {samples!r}")
        samples = int(samples)
        check_key(key)
        refuse_traced("`key`", key)
        refuse_traced("`mask`", mask)
        check_arguments("f", args)
        if isinstance(argnums, Sequence) and len({i + len(args) * (i < 0) for i in argnums}) < len(
            argnums
        ):
            raise ValueError(f"`argnums` {argnums!r} names an argument twice; name each once")
        if progress is None or progress is False:
            return _estimate(sampler, key, args, samples, checkpoint, None)
        if progress is True:
            with shown() as tell:
                return _estimate(sampler, key, args, samples, checkpoint, tell)
        if not callable(progress):
            raise TypeError(
                f"`progress` must be True, or a function of the fraction done and a line of text, "
                f"but is {progress!r}"
            )
        return _estimate(sampler, key, args, samples, checkpoint, progress)

    return run


def _argument_numbers(argnums: Any) -> Any:
    """Refuse what numbers no arguments."""
    numbers = (argnums,) if isinstance(argnums, (int, np.integer)) else argnums
    whole = isinstance(numbers, Sequence) and all(
        isinstance(i, (int, np.integer)) and not isinstance(i, bool) for i in numbers
    )
    if argnums is not None and not (whole and numbers):
        raise TypeError(
            f"`argnums` must be the number of an argument, or a sequence of such as (0, 1), but "
            f"is {argnums!r}"
        )
    return argnums if argnums is None or isinstance(argnums, Sequence) else int(argnums)


def _estimate(
    sampler: Sampler,
    key: Array,
    args: tuple[Any, ...],
    samples: int,
    checkpoint: str | Path | None,
    tell: Tell | None,
) -> Estimate:
    with jax.disable_jit(False):  # what is compiled here cannot do without
        return _compiled_estimate(sampler, key, args, samples, checkpoint, tell)


def _compiled_estimate(
    sampler: Sampler,
    key: Array,
    args: tuple[Any, ...],
    samples: int,
    checkpoint: str | Path | None,
    tell: Tell | None,
) -> Estimate:
    known = sampler.known(args, check=True)
    chunk, chunks = (
        int(n) for n in agree("{} {}".format(*sampler.plan(known, samples)).encode()).split()
    )
    total = -(-samples // chunk)
    moments = Moments.empty(known.size)
    keep = (
        None
        if checkpoint is None
        else Checkpoint(checkpoint, sampler.fingerprint(key, args, chunk, chunks, total))
    )
    if keep is not None and (state := keep.load()) is not None:
        moments = Moments(
            int(state["next_chunk"]),
            *(np.array(state[name]) for name in ("mean", "squares", "unit")),
        )
        quick = bool(state["rewritten"])
    else:
        quick = unanimous(sampler.may_rewrite(key, args, chunk))
    pace = Pace(moments.count * chunk)
    while moments.count < total:
        first = moments.count
        means = sampler.round(key, args, first, chunk, min(chunks, total - first), quick=quick)
        with np.errstate(over="ignore", invalid="ignore"):
            total_means = np.ones(len(means), means.dtype) @ means
        if not np.all(np.isfinite(total_means)) and not np.all(
            finite := np.isfinite(means).all(axis=1)
        ):
            broken = first + int(np.argmin(finite))
            raise FloatingPointError(
                f"`f` or its gradient is not finite in {replay(broken, chunk, sampler.shape)}"
            )
        moments.add(means)
        if keep is not None:
            keep.save(
                {
                    "key": jax.random.key_data(key),
                    "next_chunk": moments.count,
                    "samples": moments.count * chunk,
                    "mean": moments.mean,
                    "squares": moments.squares,
                    "unit": moments.unit,
                    "rewritten": quick,
                }
            )
        if tell is not None:
            tell(
                moments.count / total,
                pace.tell(
                    moments.count * chunk, _precision(sampler, known, moments), total * chunk
                ),
            )
    error = np.hypot(moments.standard_error(), known.rounding * np.abs(moments.mean))
    mean, standard_error = sampler.unflatten(np.stack([moments.mean, error]), known)
    return Estimate(mean, standard_error, total * chunk, total)


def _precision(sampler: Sampler, known: Known, moments: Moments) -> str:
    mean, error = map(
        jax.tree.leaves,
        sampler.unflatten(np.stack([moments.mean, moments.standard_error()]), known),
    )
    scales = [np.abs(m).max(initial=0.0) for m in mean]
    parts = [
        float(e.max(initial=0.0) / scale)
        for e, scale in zip(error, scales, strict=True)
        if scale > 0
    ]
    return (
        f"standard errors up to {max(parts):.1e} of the largest entry"
        if parts and np.isfinite(max(parts))
        else ""
    )


def replay(chunk: int, samples: int, shape: Sequence[int], key: str = "key") -> str:
    """Say which chunk it was, and how to draw its masks again.

    >>> replay(3, 8, (2,))
    'chunk 3, whose masks mask.sample(jax.random.fold_in(key, 3), (8, 2)) draws again'
    """
    return (
        f"chunk {chunk}, whose masks mask.sample(jax.random.fold_in({key}, {chunk}), "
        f"{(samples, *shape)}) draws again"
    )
