"""What primitives do to plain numpy arrays: to known numbers, and to the indices of unknown ones.

Most run in numpy, which costs microseconds where a compiled call costs milliseconds the first time;
the rest are handed to JAX. `evaluate` computes an equation, and `moved` runs one that only moves
elements on arrays of indices.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.jaxprs import linear_algebra
from jaxgrad.jaxprs.indexing import gather_places, scatter_places
from jaxgrad.jaxprs.numpy_functions import ELEMENTWISE, REDUCTIONS
from jaxgrad.jaxprs.precision import in_precision

_LARGE = 2**16


def shape_of(atom: core.Var | core.Literal) -> tuple[int, ...]:
    """Return the shape of a variable or literal of a program."""
    # jax declares abstract values without shape and dtype
    return atom.aval.shape  # pyright: ignore[reportAttributeAccessIssue]


def dtype_of(atom: core.Var | core.Literal) -> np.dtype:
    """Return the dtype of a variable or literal of a program."""
    # jax declares abstract values without shape and dtype
    return atom.aval.dtype  # pyright: ignore[reportAttributeAccessIssue]


def _gather(eqn: core.JaxprEqn, operand: np.ndarray, indices: np.ndarray) -> np.ndarray:
    places = gather_places(eqn.params, operand.shape, indices, shape_of(eqn.outvars[0]))
    return np.where(places < 0, -1, operand.ravel()[places])


def _scatter(
    eqn: core.JaxprEqn, operand: np.ndarray, indices: np.ndarray, updates: np.ndarray
) -> np.ndarray:
    places = scatter_places(eqn.params, operand.shape, indices, updates.shape)
    result = operand.ravel().copy()
    result[places[places >= 0]] = updates[places >= 0]
    return result.reshape(operand.shape)


def _scatter_add(
    eqn: core.JaxprEqn, operand: np.ndarray, indices: np.ndarray, updates: np.ndarray
) -> np.ndarray:
    places = scatter_places(eqn.params, operand.shape, indices, updates.shape)
    result = operand.ravel().copy()
    np.add.at(result, places[places >= 0], updates[places >= 0])
    return result.reshape(operand.shape)


def _dynamic_slice(eqn: core.JaxprEqn, x: np.ndarray, *starts: np.ndarray) -> np.ndarray:
    return x[_window(x.shape, eqn.params["slice_sizes"], starts)]


def _dynamic_update_slice(
    eqn: core.JaxprEqn, x: np.ndarray, update: np.ndarray, *starts: np.ndarray
) -> np.ndarray:
    result = x.copy()
    result[_window(x.shape, update.shape, starts)] = update
    return result


def _window(
    shape: Sequence[int], sizes: Sequence[int], starts: Sequence[np.ndarray]
) -> tuple[slice, ...]:
    at = [min(max(int(s), 0), n - k) for s, n, k in zip(starts, shape, sizes, strict=True)]
    return tuple(slice(a, a + k) for a, k in zip(at, sizes, strict=True))


def _pad(eqn: core.JaxprEqn, x: np.ndarray, value: np.ndarray) -> np.ndarray:
    config = eqn.params["padding_config"]
    low, high = [max(c[0], 0) for c in config], [max(c[1], 0) for c in config]
    inside = [n + max(n - 1, 0) * c[2] for n, c in zip(x.shape, config, strict=True)]
    result = np.full(
        [a + n + b for a, n, b in zip(low, inside, high, strict=True)],
        value,
        np.result_type(x, value),
    )
    result[
        tuple(slice(a, a + n, c[2] + 1) for a, n, c in zip(low, inside, config, strict=True))
    ] = x
    return result[
        tuple(
            slice(max(-c[0], 0), n - max(-c[1], 0))
            for c, n in zip(config, result.shape, strict=True)
        )
    ]


def _select(eqn: core.JaxprEqn, which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    choice = np.broadcast_to(which.astype(np.int64), cases[0].shape)
    return np.take_along_axis(np.stack(cases), choice[None], axis=0)[0]


def _reshape(
    x: np.ndarray, *, new_sizes: Sequence[int], dimensions: Sequence[int] | None, **_: Any
) -> np.ndarray:
    return (x if dimensions is None else x.transpose(dimensions)).reshape(new_sizes)


def _broadcast(eqn: core.JaxprEqn, x: np.ndarray) -> np.ndarray:
    shape = eqn.params["shape"]
    spread = [1] * len(shape)
    for n, axis in zip(x.shape, eqn.params["broadcast_dimensions"], strict=True):
        spread[axis] = n
    return np.broadcast_to(x.reshape(spread), shape)


def _slice(eqn: core.JaxprEqn, x: np.ndarray) -> np.ndarray:
    p = eqn.params
    strides = p["strides"] or (1,) * x.ndim
    return x[
        tuple(slice(*s) for s in zip(p["start_indices"], p["limit_indices"], strides, strict=True))
    ]


def _dot_general(eqn: core.JaxprEqn, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    (contract_a, contract_b), (batch_a, batch_b) = eqn.params["dimension_numbers"]
    left, right = list(range(a.ndim)), [a.ndim + i for i in range(b.ndim)]
    for i, j in zip((*contract_a, *batch_a), (*contract_b, *batch_b), strict=True):
        right[j] = left[i]
    shared = [left[i] for i in batch_a]
    summed = {left[i] for i in contract_a}
    out = [*shared, *(i for i in (*left, *right) if i not in shared and i not in summed)]
    wide = np.result_type(
        a, b, dtype_of(eqn.outvars[0])
    )  # small integers would wrap before they are widened
    return np.einsum(
        a.astype(wide), left, b.astype(wide), right, out, optimize=a.size * b.size > _LARGE
    )


def _convert(eqn: core.JaxprEqn, x: np.ndarray) -> np.ndarray:
    target = np.dtype(eqn.params["new_dtype"])
    if x.dtype.kind == "c" and target.kind in "fiu":
        x = np.real(x)  # as numpy would do with a warning
    if (
        x.dtype.kind == "f" and target.kind in "iu"
    ):  # outside of its range XLA clamps, and numpy does not
        limits = np.iinfo(target)
        if not np.all((x > limits.min - 1.0) & (x < limits.max) & np.isfinite(x)):
            return _bind(eqn, [x])
    return x.astype(target)


def _triangular_solve(eqn: core.JaxprEqn, a: np.ndarray, b: np.ndarray) -> Any:
    if a.shape[-1] > linear_algebra.SMALL or eqn.params["conjugate_a"]:
        return _bind(eqn, [a, b])
    return linear_algebra.triangular_solve(eqn.params, a, b)


def _lu(eqn: core.JaxprEqn, a: np.ndarray) -> Any:
    if (
        a.ndim != 2
        or len(a) > linear_algebra.SMALL
        or a.dtype.kind != "f"
        or not np.isfinite(a).all()
    ):
        return _bind(eqn, [a])
    return linear_algebra.lu(a)


def _sort(eqn: core.JaxprEqn, *operands: np.ndarray) -> Any:
    keys = operands[: eqn.params["num_keys"]]
    if any(k.dtype.kind not in "biuf" or (k.dtype.kind == "f" and np.isnan(k).any()) for k in keys):
        return _bind(eqn, operands)
    return linear_algebra.ordered(keys, operands, eqn.params["dimension"])


def _cumulative(f: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def run(eqn: core.JaxprEqn, x: np.ndarray) -> np.ndarray:
        axis, reverse = eqn.params["axis"], eqn.params["reverse"]
        return np.flip(f(np.flip(x, axis), axis=axis), axis) if reverse else f(x, axis=axis)

    return run


_ON_ARRAYS: dict[str, Callable[..., Any]] = {
    "transpose": lambda eqn, x: x.transpose(eqn.params["permutation"]),
    "reshape": lambda eqn, x: _reshape(x, **eqn.params),
    "broadcast_in_dim": _broadcast,
    "squeeze": lambda eqn, x: x.reshape(eqn.outvars[0].aval.shape),
    "expand_dims": lambda eqn, x: x.reshape(eqn.outvars[0].aval.shape),
    "slice": _slice,
    "rev": lambda eqn, x: np.flip(x, eqn.params["dimensions"]),
    "split": lambda eqn, x: np.split(x, np.cumsum(eqn.params["sizes"])[:-1], eqn.params["axis"]),
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "scatter": _scatter,
    "scatter-add": _scatter_add,
    "concatenate": lambda eqn, *xs: np.concatenate(xs, eqn.params["dimension"]),
    "stack": lambda eqn, *xs: np.stack(xs, eqn.params["axis"]),
    "unstack": lambda eqn, x: list(np.moveaxis(x, eqn.params["axis"], 0)),
    "pad": _pad,
    "dynamic_update_slice": _dynamic_update_slice,
    "select_n": _select,
    "tile": lambda eqn, x: np.tile(x, eqn.params["reps"]),
    "iota": lambda eqn: _iota(**eqn.params),
    "empty": lambda eqn: _empty(eqn.outvars[0].aval),
    "empty2": lambda eqn: _empty(eqn.outvars[0].aval),
    "convert_element_type": _convert,
    "integer_pow": lambda eqn, x: (
        np.power(x, float(eqn.params["y"])) if x.dtype.kind == "f" else _bind(eqn, [x])
    ),
    "div": lambda eqn, a, b: a / b if a.dtype.kind == "f" else _bind(eqn, [a, b]),
    "sign": lambda eqn, x: np.sign(x),
    "clamp": lambda eqn, low, x, high: np.minimum(np.maximum(x, low), high),
    "reduce_precision": lambda eqn, x: x,
    "mul": lambda eqn, a, b: np.multiply(a, b, dtype=eqn.params.get("out_dtype")),
    "rsqrt": lambda eqn, x: 1 / np.sqrt(x),
    "logistic": lambda eqn, x: 1 / (1 + np.exp(-x)),
    "dot_general": _dot_general,
    "triangular_solve": _triangular_solve,
    "lu": _lu,
    "sort": _sort,
    "stop_gradient": lambda eqn, x: x,
    "copy": lambda eqn, x: x,
    "rem": lambda eqn, a, b: (
        np.fmod(a, b) if (b != 0).all() and np.isfinite(a).all() else _bind(eqn, [a, b])
    ),
    "cumsum": _cumulative(np.cumsum),
    "cumprod": _cumulative(np.cumprod),
    "cummax": _cumulative(np.maximum.accumulate),
    "cummin": _cumulative(np.minimum.accumulate),
    **{
        name: (lambda eqn, x, f=f: f(x, axis=tuple(eqn.params["axes"])))
        for name, f in REDUCTIONS.items()
    },
    **{name: (lambda eqn, *xs, f=f: f(*xs)) for name, f in ELEMENTWISE.items()},
}


CREATED = frozenset({"iota", "empty", "empty2"})
"""Primitives without operands."""


def _empty(aval: Any) -> np.ndarray:
    """Memory that was never written: NaN, so that nothing is proved of it."""
    return np.full(aval.shape, np.nan if jnp.issubdtype(aval.dtype, jnp.inexact) else 0, aval.dtype)


def _iota(*, dtype: Any, shape: Sequence[int], dimension: int, **_: Any) -> np.ndarray:
    spread = [1] * len(shape)
    spread[dimension] = shape[dimension]
    return np.broadcast_to(np.arange(shape[dimension]).astype(dtype).reshape(spread), shape)


def moved(eqn: core.JaxprEqn, operands: Sequence[np.ndarray]) -> Any:
    """Run an equation that moves elements on arrays of indices; −1 where a gather leaves them."""
    run = _ON_ARRAYS.get(eqn.primitive.name)
    return run(eqn, *operands) if run is not None else _bind(eqn, operands)


def evaluate(eqn: core.JaxprEqn, operands: Sequence[np.ndarray]) -> Any:
    """Compute an equation of known operands: an array, or a list where it has several results."""
    run = _ON_ARRAYS.get(eqn.primitive.name)
    if eqn.primitive.name == "gather":  # what it finds outside depends on the mode
        places = gather_places(eqn.params, operands[0].shape, operands[1], shape_of(eqn.outvars[0]))
        run = run if (places >= 0).all() else None
    outputs = run(eqn, *operands) if run is not None else _bind(eqn, operands)
    if eqn.primitive.multiple_results:
        return [np.asarray(o, dtype_of(v)) for o, v in zip(outputs, eqn.outvars, strict=True)]
    return np.asarray(outputs, dtype_of(eqn.outvars[0]))


def _bind(eqn: core.JaxprEqn, operands: Sequence[np.ndarray], **params: Any) -> Any:
    with jax.ensure_compile_time_eval(), in_precision(True):
        outputs = eqn.primitive.bind(
            *(jax.numpy.asarray(x) for x in operands), **(eqn.params | params)
        )
    return (
        [np.asarray(o) for o in outputs] if eqn.primitive.multiple_results else np.asarray(outputs)
    )
