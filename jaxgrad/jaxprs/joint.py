"""Two functions f and g traced as one program in float64, or a clear refusal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.precision import in_precision
from jaxgrad.jaxprs.programs import equations
from jaxgrad.jaxprs.traced import Together, Traceable
from jaxgrad.jaxprs.user_calls import named, refuse


@dataclass(frozen=True)
class Traced:
    """A program that returns the outputs of f and then those of g.

    Attributes:
        program: the jaxpr.
        values: for each input its value where it is taken as it is (integers, booleans), None where
            it varies.
        paths: for each output of f its path in the tree.
        shapes: for each output of f its shape.
        primitives: names of all primitives in the program.
    """

    program: core.ClosedJaxpr
    values: tuple[np.ndarray | None, ...]
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    primitives: frozenset[str]


def trace(f: Callable[..., Any], g: Callable[..., Any], example_args: Sequence[Any]) -> Traced:
    """Trace f and g together in float64.

    Raises:
        TypeError: when an argument is no array of real numbers.
        ValueError: when outputs differ in tree or shape, or a function is random or has side
            effects.
    """
    for name, function in (("f", f), ("g", g)):
        if not callable(function):
            raise TypeError(f"`{name}` must be a function of arrays, but is {function!r}")
    with in_precision(True):
        args, values = _arguments(example_args)
        program, (out_f, out_g) = _both(f, g, args)
    flat_f, tree_f = jax.tree_util.tree_flatten_with_path(out_f)
    flat_g, tree_g = jax.tree_util.tree_flatten_with_path(out_g)
    if tree_f != tree_g:
        raise ValueError(
            f"`f` returns the tree {tree_f} but `g` returns {tree_g}; make both return the "
            f"same tree"
        )
    if not flat_f:
        raise ValueError("`f` and `g` return no arrays; make them return what is to be compared")
    for (path, a), (_, b) in zip(flat_f, flat_g, strict=True):
        if a.shape != b.shape:
            place = f" at {jax.tree_util.keystr(path)}" if path else ""
            raise ValueError(
                f"`f` returns shape {a.shape}{place} but `g` returns {b.shape}; make both return "
                f"the same shape"
            )
    names = frozenset(eqn.primitive.name for eqn in equations(program.jaxpr))
    paths = tuple(jax.tree_util.keystr(path) for path, _ in flat_f)
    return Traced(program, values, paths, tuple(a.shape for _, a in flat_f), names)


def _arguments(example_args: Sequence[Any]) -> tuple[list[Any], tuple[np.ndarray | None, ...]]:
    args, values = [], []
    for i, arg in enumerate(example_args):
        leaves, tree = jax.tree_util.tree_flatten_with_path(arg)
        shapes = []
        for path, leaf in leaves:
            name = f"example_args[{i}]{jax.tree_util.keystr(path)}"
            if not isinstance(
                leaf, (jax.Array, jax.ShapeDtypeStruct, np.ndarray, np.generic, int, float)
            ):
                raise TypeError(
                    f"`{name}` must be an array or a jax.ShapeDtypeStruct, but is {leaf!r}"
                )
            dtype = np.asarray(leaf).dtype if isinstance(leaf, (int, float)) else leaf.dtype
            if jax.numpy.issubdtype(dtype, np.floating):
                values.append(None)
                shapes.append(jax.ShapeDtypeStruct(np.shape(leaf), np.float64))
            elif dtype == np.bool_ or jax.numpy.issubdtype(dtype, np.integer):
                if isinstance(leaf, jax.ShapeDtypeStruct):
                    raise TypeError(
                        f"`{name}` holds {dtype} and needs values, but is {leaf!r}; pass an array"
                    )
                values.append(np.asarray(leaf))
                shapes.append(values[-1])
            else:
                raise TypeError(
                    f"`{name}` must hold real numbers, integers or booleans, but holds {dtype}"
                )
        args.append(jax.tree.unflatten(tree, shapes))
    return args, tuple(values)


def _both(
    f: Callable[..., Any], g: Callable[..., Any], args: Sequence[Any]
) -> tuple[core.ClosedJaxpr, Any]:
    """Return f and g as one program with the shapes of their results; refuse draws and effects."""
    if isinstance(f, Traceable) and isinstance(g, Traceable):
        for role, function in (("f", f), ("g", g)):
            refuse(function.program(*args)[0], role)
        return Together((f, g)).program(*args)
    call_f, call_g = named("f", f), named("g", g)
    program, shapes = jax.make_jaxpr(lambda *a: (call_f(*a), call_g(*a)), return_shape=True)(*args)
    try:
        refuse(program, "g")
    except ValueError:
        refuse(jax.make_jaxpr(call_f)(*args), "f")
        raise
    return program, shapes
