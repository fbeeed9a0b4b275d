"""What a mask distribution must offer, and what all of them share.

`Mask` is the protocol. The rest checks arguments, tosses coins and lists rows.
"""

import math
import operator
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from jaxgrad.masks.threefry import words

M = TypeVar("M")

SUPPORT_LIMIT = 2**24
"""The most entries (masks × entries of a mask) that `support` will list."""


@runtime_checkable
class Mask(Protocol):
    """What a mask distribution must offer; its rows are independent and alike.

    Rows run along all axes but the last.

    Three further methods are optional, and make more expectations exact: ``support_size(n)``, the
    number of different rows; ``factors(n, degree)``, the `Factors` of a row; ``mixture(n,
    degree)``, pairs of a weight and a mask, such that a polynomial of that degree in ONE row has
    the weighted sum of its expectations under those masks as its expectation.
    """

    def sample(self, key: Array, shape: Sequence[int]) -> Float[Array, "..."]:
        """Draw a mask of this shape."""
        ...

    def mean(self, n: int) -> Float[Array, " n"]:
        """Return E[m] of one row."""
        ...

    def second_moment(self, n: int) -> Float[Array, "n n"]:
        """Return E[m mᵀ] of one row."""
        ...

    def support(self, shape: Sequence[int]) -> tuple[Float[Array, "k ..."], Float[Array, " k"]]:
        """List every mask of this shape with its probability."""
        ...


class Factors(NamedTuple):
    """The independent random numbers t_1 … t_c that a row is made of, m_j = Σ_k members_kj t_k.

    Attributes:
        members: which entries of the row are t_k; each entry is one of them.
        values: places at which each t is evaluated.
        weights: of those places, such that Σ_i weights_ki g(values_i) = E g(t_k) for every
            polynomial g of the degree asked for.
    """

    members: Bool[np.ndarray, "c n"]
    values: Float[np.ndarray, " s"]
    weights: Float[Array, "c s"]


def registered(cls: type[M]) -> type[M]:
    """Register the dataclass of a mask as a pytree of its fields, the static ones apart.

    It is put together unchecked: in a tree may stand gradients, shapes or placeholders in the place
    of probabilities.
    """
    all_of_them = fields(cls)  # type: ignore[arg-type]  # a dataclass, which `type` does not say
    static = [f.name for f in all_of_them if f.metadata.get("static")]
    leaves = [f.name for f in all_of_them if f.name not in static]

    def flatten(mask: M) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(mask, name) for name in leaves], tuple(
            getattr(mask, name) for name in static
        )

    def flatten_with_keys(mask: M) -> tuple[list[Any], tuple[Any, ...]]:
        children, rest = flatten(mask)
        return [
            (jax.tree_util.GetAttrKey(name), child)
            for name, child in zip(leaves, children, strict=True)
        ], rest

    def unflatten(rest: tuple[Any, ...], children: Iterable[Any]) -> M:
        mask = object.__new__(cls)
        vars(mask).update(zip([*leaves, *static], [*children, *rest], strict=True))
        return mask

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def check_probabilities(name: str, value: Any, ndim: int) -> None:
    """Refuse known numbers that are no probability (`ndim` 0) or vector of them (1)."""
    array = _known(
        name, value, ndim, "a vector with one probability per feature" if ndim else "a number"
    )
    if array is not None and not np.all((array >= 0) & (array <= 1)):
        raise ValueError(
            f"`{name}` must be a probability in [0, 1] (that an entry is KEPT), but is {value!r}"
        )


def check_variance(name: str, value: Any) -> None:
    """Refuse what is known, and is no finite number of at least 0."""
    what = "a finite number of at least 0"
    array = _known(name, value, 0, what)
    if array is not None and not np.all(np.isfinite(array) & (array >= 0)):
        raise ValueError(f"`{name}` must be {what}, but is {value!r}")


def _known(name: str, value: Any, ndim: int, what: str) -> np.ndarray | None:
    """Return real numbers as an array of at least so many axes; None where not known yet."""
    if isinstance(value, (Tracer, jax.ShapeDtypeStruct)):
        return None
    try:
        array = (
            np.asarray(value)
            if is_known(value) or (ndim and isinstance(value, (list, tuple)))
            else None
        )
    except (TypeError, ValueError):  # keys, ragged lists
        array = None
    real = array is not None and (
        jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)
    )
    if array is None or not real or array.ndim < ndim or not array.size:
        raise ValueError(f"`{name}` must be {what}, but is {value!r}")
    return array


def is_known(value: Any) -> bool:
    """Say whether a leaf is a number or numbers: neither traced nor a placeholder."""
    return isinstance(value, (int, float, np.generic, np.ndarray, jax.Array)) and not isinstance(
        value, Tracer
    )


def number(name: str, value: Any) -> Array:
    """Return one number, known or traced, in the default precision; refuse an array of several."""
    if np.shape(value):
        several = f"an array of shape {np.shape(value)}, of several masks"
        raise ValueError(
            f"`{name}` holds {several}; give one number, or map over the mask with jax.vmap"
        )
    return jnp.asarray(value, float)


def check_integer(name: str, value: Any, least: int) -> int:
    """Return an integer of at least `least`."""
    try:
        number = operator.index(value)
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
    except TypeError:
        raise TypeError(f"`{name}` must be an integer, but is {value!r}") from None
    if number < least:
        raise ValueError(f"`{name}` must be at least {least}, but is {number}")
    return number


def check_pair(name: str, value: Any) -> tuple[int, int]:
    """Return a pair of positive integers."""
    try:
        first, second = value
    except (TypeError, ValueError):
        raise TypeError(
            f"`{name}` must be a pair of integers (height, width), but is {value!r}"
        ) from None
    return check_integer(name, first, 1), check_integer(name, second, 1)


def check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of a mask as a tuple."""
    try:
        shape = tuple(operator.index(s) for s in shape)
    except TypeError:
        raise TypeError(
            f"`shape` must be a sequence of integers such as (m, n), but is {shape!r}"
        ) from None
    if not shape or min(shape) < 1:
        raise ValueError(f"`shape` must have at least one axis and no empty one, but is {shape!r}")
    return shape


def check_key(key: Any) -> None:
    """Refuse what is not one key of random numbers, new or raw."""
    aval = None
    with suppress(AttributeError, TypeError):
        aval = jax.ShapeDtypeStruct(key.shape, key.dtype)
        aval = jax.eval_shape(jax.random.wrap_key_data, aval) if aval.dtype == np.uint32 else aval
    if aval is None or not jnp.issubdtype(aval.dtype, jax.dtypes.prng_key) or aval.shape:
        raise TypeError(f"`key` must be one key such as jax.random.key(0), but is {key!r}")


def toss(key: Array, prob: Any, shape: tuple[int, ...]) -> Array:
    """Toss coins that are 1 with probability ⌊2³² p⌋/2³², so that rare events keep their odds."""
    check_key(key)
    threshold = jnp.asarray(prob, float) * 2.0**32
    certain = threshold >= 2.0**32
    return (
        certain | (words(key, shape) < jnp.where(certain, 0.0, threshold).astype(jnp.uint32))
    ).astype(float)


def every_row(
    rows: np.ndarray, probabilities: Array, shape: tuple[int, ...]
) -> tuple[Array, Array]:
    """Combine the support of one row into that of independent rows stacked to `shape`."""
    count = math.prod(shape[:-1])
    total = len(rows) ** count
    if total * math.prod(shape) > SUPPORT_LIMIT:
        raise ValueError(
            f"`shape` {shape} has {len(rows)}^{count} masks, too many to list; "
            "use a smaller shape, or the moments from `mean` and `second_moment`"
        )
    places = len(rows) ** np.arange(count)[::-1] if len(rows) > 1 else np.ones(count, int)
    index = np.arange(total)[:, None] // places % len(rows)
    dtype = jnp.result_type(float)
    return jnp.asarray(rows[index].reshape(total, *shape), dtype), jnp.prod(
        probabilities[index], axis=-1
    )


def every_outcome(count: int) -> np.ndarray:
    """List the 2^count outcomes of `count` coins, one a row."""
    if count * 2**count > SUPPORT_LIMIT:
        raise ValueError(
            f"`shape` asks for all masks of {count} independent coins a row, 2^{count} of them; "
            f"use a smaller one"
        )
    return np.arange(2**count)[:, None] >> np.arange(count)[::-1] & 1
