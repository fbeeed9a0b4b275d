"""Traced programs compiled: once for each structure, shape and type of their arguments."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.numpy_run import floating
from jaxgrad.jaxprs.traced import Traceable, TracedOnce
from jaxgrad.jaxprs.versions import replaced
from jaxgrad.runtime.options import check_options, lowered
from jaxgrad.runtime.threads import ahead, cores


class Program:
    """A function that is compiled once for each structure, shape and type of its arguments.

    Args:
        function: of pytrees of arrays; one that is a `jaxgrad.jaxprs.traced.Traceable` is not
            traced again.
        options: compiler options.

    >>> double = Program(lambda tree: jax.tree.map(lambda x: 2 * x, tree))
    >>> double({"a": np.ones(2, np.float32)})["a"].tolist()
    [2.0, 2.0]
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any] | None = None) -> None:
        """Set up; nothing is traced yet."""
        self._traced = function if isinstance(function, Traceable) else TracedOnce(function)
        self._options = options
        self._made: dict[Any, tuple[Callable[..., Any], Any]] = {}

    def __call__(self, *args: Any) -> Any:
        """Evaluate."""
        run, structure = self._compiled(*args)
        return jax.tree.unflatten(structure, run(*jax.tree.leaves(args)))

    def _compiled(self, *args: Any) -> tuple[Callable[..., Sequence[Any]], Any]:
        leaves, tree = jax.tree.flatten(args)
        signature = self._traced.signature(leaves, tree)
        if signature not in self._made:
            closed, shape = self._traced.program(*args)
            self._made[signature] = (
                executable(closed, leaves, self._options),
                jax.tree.structure(shape),
            )
        return self._made[signature]

    def over(self, stacked: Any, *more: Any) -> Any:
        """Evaluate at each of the first arguments, stacked along an axis; stack the results.

        For programs as small as most, this costs less than to trace, lower and compile one over a
        batch.
        """
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(stacked)]
        run, structure = self._compiled(jax.tree.map(lambda x: x[0], stacked), *more)
        rest = jax.tree.leaves(more)
        rows = [
            [np.asarray(x) for x in run(*(leaf[i] for leaf in leaves), *rest)]
            for i in range(len(leaves[0]))
        ]
        return jax.tree.unflatten(
            structure, [np.stack(column) for column in zip(*rows, strict=True)]
        )

    def jaxpr(self, *args: Any) -> core.ClosedJaxpr:
        """Return the program for such arguments."""
        return self._traced.program(*args)[0]


def at_once(function: Callable[[], Any]) -> Any:
    """Return ``function()``, evaluated in numpy or, where it cannot be, compiled as one program.

    JAX by itself would compile its steps one by one.

    >>> float(at_once(lambda: jax.numpy.ones(3).sum()))
    3.0
    """
    traced = TracedOnce(function)
    closed, shape = traced.program()
    found = floating(closed, [])
    return (
        Program(traced, check_options())()
        if found is None
        else jax.tree.unflatten(jax.tree.structure(shape), found)
    )


def evaluated(
    closed: core.ClosedJaxpr, args: Sequence[Any], options: dict[str, Any] | None = None
) -> list[Any]:
    """Evaluate a program once: in numpy, or compiled where an operation is JAX's alone."""
    outputs = floating(closed, args)
    return list(executable(closed, args, options)(*args)) if outputs is None else outputs


def executable(
    closed: core.ClosedJaxpr,
    args: Sequence[Any],
    options: dict[str, Any] | None = None,
    *,
    wait: bool = True,
) -> Callable[..., Sequence[Any]]:
    """Return a traced program as a compiled function of flat arguments.

    Args:
        closed: the program.
        args: arguments like those it will be called with.
        options: compiler options.
        wait: whether to wait until it is compiled; else that is done by another thread, and waited
            for by the first call.
    """
    jaxpr = replaced(
        closed.jaxpr, constvars=[], invars=[*closed.jaxpr.constvars, *closed.jaxpr.invars]
    )
    consts = [*closed.consts]
    make = lowered(_function(jaxpr), options, *consts, *args)
    call = make() if wait else _later(make)
    return functools.partial(call, *consts) if consts else call


def placed(
    closed: core.ClosedJaxpr,
    args: Sequence[Any],
    options: dict[str, Any] | None,
    devices: Sequence[Any],
) -> list[Callable[..., Sequence[Any]]]:
    """Return one compiled function for each device, which takes arguments from anywhere."""
    jaxpr = replaced(
        closed.jaxpr, constvars=[], invars=[*closed.jaxpr.constvars, *closed.jaxpr.invars]
    )

    def there(values: Sequence[Any], device: Any) -> list[Any]:
        return jax.device_put([*values], device)

    makes = [
        lowered(_function(jaxpr), options, *there([*closed.consts, *args], device))
        for device in devices
    ]
    with ThreadPoolExecutor(min(len(makes), cores())) as pool:
        calls = list(pool.map(lambda make: make(), makes))
    consts = [there(closed.consts, device) for device in devices]

    def at(call: Callable[..., Any], consts: list[Any], device: Any) -> Callable[..., Any]:
        return lambda *args: call(*consts, *there(args, device))

    return [at(*each) for each in zip(calls, consts, devices, strict=True)]


def _later(make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
    made = ahead(make)
    return lambda *args: made()(*args)


def _function(jaxpr: core.Jaxpr) -> Callable[..., Any]:
    def program(*args: Any) -> Any:
        return core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, ()))(*args)

    return program
