"""Exact expectation of a function over a random mask.

E f(M) = Σ_i w_i f(M_i), with few masks M_i where the structure of f allows it; see
`jaxgrad.evidence.expectation.cubature` for the ways and `jaxgrad.evidence.expectation.plans` for
how it is found out which of them are exact.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core

from jaxgrad.evidence.expectation.cubature import Rule
from jaxgrad.evidence.expectation.plans import (
    METHODS,
    Plan,
    Structure,
    jaxpr_bytes,
    plans,
    structure,
    trace,
)
from jaxgrad.evidence.expectation.same_program import same
from jaxgrad.jaxprs.user_calls import named, refuse
from jaxgrad.masks import Mask
from jaxgrad.masks.distribution import check_shape, is_known

FEW = 2**8
"""So many masks are enumerated without looking for a shorter way."""
MOST_PROGRAMS = 8
"""So many programs of one expectation are compiled and kept."""
BATCH = 64
"""The most masks at which f is evaluated at once."""
BATCH_BYTES = 2**22
"""So many bytes of f's arrays are held at once; a backward pass holds a few times as many."""


def expectation(
    f: Callable[..., Any], mask: Mask, shape: Sequence[int], *, method: str | None = None
) -> Callable[..., Any]:
    """Return the function of f's other arguments that is the exact expectation of f over the mask.

    E f = Σ_i w_i f(M_i)

    over all masks where these are few; over the possible ROWS where f is a sum over rows, or over
    the moves of a few rows where f is a polynomial; over the moves of one or a few independent
    coins where f is a polynomial and the mask is made of coins, or has the moments of a mixture of
    coins, as a fixed count has; and over 4n + 1 masks made of the mean and the covariance where f
    is quadratic. Degree and rows are read off f's jaxpr, never assumed, and what none of these can
    do is refused. Every way is exact for every f that it is used for.

    Args:
        f: takes a draw as the keyword `mask`, of shape `shape`, and any other arguments; returns a
            pytree of arrays.
        mask: distribution of the mask; its rows are independent and alike.
        shape: shape of a draw.
        method: "enumeration", "rows", "coins" or "moments" to have that way and no other.

    Returns:
        A function of f's other arguments, which composes with grad, jvp, vmap and jit, in the
        mask's probabilities too. It is traced at every call, and compiled where its program is new;
        numbers that change from call to call are best given as arrays.

    Raises:
        ValueError: when no way is exact and short enough; the message names the operation of f that
            stands in the way. Raised when the function is called. Also when `shape` or `method` is
            out of its range, and when f has side effects, draws random numbers, or raises an
            exception, which stands as the cause.
        TypeError: when an argument is of the wrong kind.

    >>> from jaxgrad import masks
    >>> float(expectation(lambda x, mask: (mask * x).sum() ** 2, masks.Bernoulli(0.5), (2,))(1.0))
    1.5
    >>> x = jnp.ones((300, 100))
    >>> float(
    ...     expectation(
    ...         lambda x, mask: jnp.mean((mask * x).sum(axis=1) ** 2), masks.Bernoulli(0.5), x.shape
    ...     )(x)
    ... )
    2525.0
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
    if method is not None and method not in METHODS:
        raise ValueError(
            f"`method` must be one of {', '.join(METHODS)}, or None for the shortest, but is "
            f"{method!r}"
        )
    shape, f = check_shape(shape), named("f", f)

    def directly(mask: Mask, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        refuse(
            trace(f, shape, args, kwargs),
            "f",
            "its expectation over the mask alone is not exact: make what is drawn an argument",
        )
        plan = choose(f, mask, shape, args, kwargs, method)
        total = None
        for weight, rule in plan.build():
            part = _weighted_sum(f, rule, shape, args, kwargs)
            part = jax.tree.map(lambda y, w=weight: w * y, part)
            total = part if total is None else jax.tree.map(jnp.add, total, part)
        return total

    programs: dict[str, Callable[..., Any]] = {}

    def expected(*args: Any, **kwargs: Any) -> Any:
        return _as_one_program(directly, (mask, args, kwargs), programs)

    return expected


def _as_one_program(
    function: Callable[..., Any],
    args: tuple[Mask, tuple[Any, ...], dict[str, Any]],
    programs: dict[Any, Any],
) -> Any:
    """Return ``function(*args)``, not one operation at a time, each of which XLA would compile.

    It is traced at every call, since it may depend on more than its arguments; a program that was
    seen before is not compiled again, and where all that came were different, as with a number that
    changes from call to call, no more are compiled.
    """
    probabilities = jax.tree.leaves(args[0])
    leaves, tree = jax.tree.flatten(args)
    if any(isinstance(leaf, Tracer) for leaf in leaves) or not all(map(is_known, probabilities)):
        return function(*args)
    leaves[: len(probabilities)] = [np.asarray(p, jnp.result_type(float)) for p in probabilities]
    dynamic = [isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves]

    def of_arrays(arrays: list[Any]) -> Any:
        rest = iter(arrays)
        return function(
            *jax.tree.unflatten(
                tree, [next(rest) if d else leaf for d, leaf in zip(dynamic, leaves, strict=True)]
            )
        )

    arrays = [leaf for d, leaf in zip(dynamic, leaves, strict=True) if d]
    try:
        closed, shape = jax.make_jaxpr(of_arrays, return_shape=True)(arrays)
    except Exception:
        # a mask of the user's own may ask for the value of a leaf; all else goes wrong once more,
        # and is told
        return function(*args)
    name = same(closed.jaxpr)
    if name is None or (name not in programs and len(programs) == MOST_PROGRAMS):
        return function(*args)
    if name not in programs:
        programs[name] = jax.jit(
            lambda consts, arrays: core.jaxpr_as_fun(core.ClosedJaxpr(closed.jaxpr, consts))(
                *arrays
            )
        )
    return jax.tree.unflatten(jax.tree.structure(shape), programs[name](closed.consts, arrays))


def choose(
    f: Callable[..., Any],
    mask: Mask,
    shape: Sequence[int],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
    method: str | None = None,
    limits: Mapping[str, int] | None = None,
) -> Plan:
    """Choose the way to the exact expectation of f that needs the fewest evaluations.

    Args:
        f: the function.
        mask: distribution of the mask.
        shape: shape of a draw.
        args: f's positional arguments.
        kwargs: its other keyword arguments.
        method: the only way that will do.
        limits: {method: most evaluations}; then the first way in the order of METHODS that keeps to
            its limit is chosen.

    Raises:
        ValueError: when there is none, with the reasons.
    """
    seen: list[Structure] = []

    def found() -> Structure:
        if not seen:
            seen.append(structure(f, shape, args, kwargs or {}))
        return seen[0]

    offered: list[Plan] = []
    reasons: list[str] = []
    for plan in plans(mask, shape, found):
        if isinstance(plan, str):
            reasons.append(plan)
        elif limits is not None and plan.count > limits.get(plan.method, 0):
            reasons.append(f"by {plan.method} it takes {plan.count} evaluations")
        elif (
            limits is not None
            or method == plan.method
            or (method is None and plan.method == METHODS[0] and plan.count <= FEW)
        ):
            return plan
        elif method is None:
            offered.append(plan)
    if offered:
        return min(offered, key=lambda plan: plan.count)
    why = "; ".join(dict.fromkeys(reason for reason in reasons if reason))
    by = f" by `method` {method!r}" if method else ""
    by += " that is short enough here" if limits is not None else ""
    raise ValueError(
        f"`f` has no exact expectation over this mask{by}: {why}. Use a smaller `shape`, or "
        f"sample with jaxgrad.estimate"
    )


def _weighted_sum(
    f: Callable[..., Any],
    rule: Rule,
    shape: Sequence[int],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Return Σ_i w_i f(M_i), a bounded number of masks at a time."""

    def part(weights: Any, places: Any) -> Any:
        values = jax.vmap(lambda place: f(*args, **kwargs, mask=rule.mask_at(*place)))(places)
        return jax.tree.map(
            lambda y: jnp.sum(weights.reshape(-1, *[1] * (y.ndim - 1)) * y, axis=0), values
        )

    count = len(rule.weights)
    if count == 1:
        value = f(*args, **kwargs, mask=rule.mask_at(*(place[0] for place in rule.places)))
        return jax.tree.map(lambda y: rule.weights[0] * y, value)
    size = jaxpr_bytes(trace(f, shape, args, kwargs).jaxpr)
    batch = int(np.clip(BATCH_BYTES // max(size, 1), 1, BATCH))
    if count <= batch:
        return part(rule.weights, rule.places)
    steps = math.ceil(count / batch)
    index = np.minimum(np.arange(steps * batch), count - 1).reshape(
        steps, batch
    )  # the last mask again, with weight 0
    weights = jnp.where(
        np.arange(steps * batch).reshape(steps, batch) < count, rule.weights[index], 0
    )
    places = tuple(place[index] for place in rule.places)
    summed = jax.checkpoint(
        part, prevent_cse=False
    )  # so that a backward pass holds one batch, not all
    zero = jax.tree.map(
        lambda y: jnp.zeros(y.shape, y.dtype),
        jax.eval_shape(part, weights[0], tuple(p[0] for p in places)),
    )

    def step(total: Any, now: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, summed(*now)), None

    return jax.lax.scan(step, zero, (weights, places))[0]
