"""Recorded draws: what torch drew is handed to the JAX function, by name.

Two frameworks never draw the same dropout mask. So the draws are recorded in torch, in order, and
replayed: inside a check `noise` returns the recorded array, and everywhere else it draws.
"""

import contextlib
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

_CONTEXT = jax.make_user_context(
    default_value=0
)  # what is traced with a recorded_draws is never taken for what is traced without


class RecordedDraws:
    """Recorded draws, and which of them were asked for."""

    count = 0

    def __init__(self, draws: Mapping[str, Any]) -> None:
        """Start with none used."""
        self.draws, self.used = dict(draws), dict.fromkeys(draws, 0)
        RecordedDraws.count += 1
        self.number = RecordedDraws.count

    @contextlib.contextmanager
    def replay(self) -> Iterator[None]:
        """Hand out the draws inside."""
        token = _RECORDED.set(self)
        try:
            with _CONTEXT(self.number):
                yield
        finally:
            _RECORDED.reset(token)

    def demand_all_used(self) -> None:
        """Refuse a function that did not ask for every draw.

        Raises:
            ValueError: with the names of the draws that nobody asked for.
        """
        unused = [name for name, times in self.used.items() if not times]
        if unused:
            raise ValueError(
                f"torch drew {_listed(unused)}, but the JAX function never asked for it; take it "
                f"with "
                f"jaxgrad.parity.noise({unused[0]!r}, shape, draw) where the draw is used"
            )


_RECORDED: ContextVar[RecordedDraws | None] = ContextVar("recorded draws", default=None)


def noise(
    name: str, shape: Sequence[int], draw: Callable[[tuple[int, ...]], Any] | None = None
) -> jax.Array:
    """Return torch's recorded draw inside a check, and ``draw(shape)`` everywhere else.

    Args:
        name: the draw's name in the golden: the module's path, such as ``"encoder.dropout"``,
            ``"noise"`` in the outermost module; several draws in one module are told apart as
            ``"attention"``, ``"attention#1"``. ``print(golden)`` lists them.
        shape: the draw's shape, without units; for dropout it is the mask's, with 1 where an entry
            is kept.
        draw: makes the draw outside of a check, as ``lambda shape: jax.random.bernoulli(key, 0.9,
            shape)``. Its dtype is that of the result.

    Returns:
        An array of that shape.

    Raises:
        ValueError: when there is no such draw, when its shape differs, or when there is neither a
            check nor `draw`.

    >>> noise("dropout", (2,), lambda shape: jnp.ones(shape)).shape
    (2,)

    Source: the same mask on both sides is what Flax's parity tests of dropout lack; see jaxgrad's
    notes on ports.
    """
    shape, recorded_draws = tuple(shape), _RECORDED.get()
    if recorded_draws is None:
        if draw is None:
            raise ValueError(
                f"`draw` is missing: outside of a check, noise {name!r} must be drawn; pass a "
                f"function of the shape"
            )
        return draw(shape)
    if name not in recorded_draws.draws:
        near = difflib.get_close_matches(name, recorded_draws.draws, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"torch drew no noise {name!r}; {hint}it drew "
            f"{_listed(list(recorded_draws.draws)) or 'none'}"
        )
    recorded = recorded_draws.draws[name]
    if recorded.shape != shape:
        smaller = len(shape) == recorded.ndim and all(
            n in (1, m) for n, m in zip(shape, recorded.shape, strict=True)
        )
        hint = (
            " (torch draws for each entry; in flax's attention that is broadcast_dropout=False)"
            if smaller
            else ""
        )
        raise ValueError(
            f"noise {name!r} has shape {recorded.shape} in torch, and {shape} is asked for; "
            f"ask for torch's, outside of any vmap, and rearrange it{hint}"
        )
    recorded_draws.used[name] += 1
    default = float if jnp.issubdtype(recorded.dtype, jnp.floating) else int
    dtype = jax.eval_shape(lambda: draw(shape)).dtype if draw is not None else default
    return jnp.asarray(recorded).astype(dtype)


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:8])) + (
        f" and {len(names) - 8} more" if len(names) > 8 else ""
    )
