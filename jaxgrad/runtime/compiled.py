"""Compiled programs, and the command's store of them.

JAX's own cache of compiled programs is asked once a program has been lowered, and for a small
program lowering takes longer than all the rest. So the command keeps executables under a digest of
what is lowered (`jaxgrad.runtime.digests`), and what has none is left to JAX. Constants are
arguments of the executable. JAX makes LAPACK's functions known to XLA only when it lowers a call of
them, so a file says whether its executable has such calls. In the library nothing is kept but in
memory.
"""

import functools
import hashlib
import os
import pickle
import re
import tempfile
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import serialize_executable
from jax.extend import core

from jaxgrad.jaxprs.numpy_run import floating
from jaxgrad.jaxprs.traced import Traceable, TracedOnce
from jaxgrad.runtime.digests import digest
from jaxgrad.runtime.options import check_options, compiled, lowered
from jaxgrad.runtime.threads import ahead, cores

_LAPACK = "lapack_"
"""The names of LAPACK's functions begin with this."""

_store: list[Path] = []
_hits: list[str] = []


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
        """Evaluate at each of some first arguments, stacked along their first axis; return the
        results stacked, as numpy arrays.

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
    """Return ``function()``, evaluated in numpy, or compiled as one program where it cannot be: its
    steps would be compiled one by one.

    >>> float(at_once(lambda: jnp.ones(3).sum()))
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


def keep_in(folder: Path) -> None:
    """Keep executables in a folder from now on, and take from it those that are there."""
    if not _store:
        jax.monitoring.register_event_listener(_listen)
    _store[:] = [folder]


def _listen(event: str, **_: Any) -> None:
    if event == "/jax/compilation_cache/cache_hits":
        _hits.append(event)


def evaluated(
    closed: core.ClosedJaxpr, args: Sequence[Any], options: dict[str, Any] | None = None
) -> list[Any]:
    """Evaluate a program once: in numpy, which need not compile it, or compiled where it has an
    operation that is only JAX's.
    """
    outputs = floating(closed, args)
    return list(executable(closed, args, options)(*args)) if outputs is None else outputs


def executable(
    closed: core.ClosedJaxpr,
    args: Sequence[Any],
    options: dict[str, Any] | None = None,
    *,
    wait: bool = True,
) -> Callable[..., Sequence[Any]]:
    """Return a traced program as a compiled function of flat arguments: from the store if it is
    there, else newly compiled.

    Args:
        closed: the program.
        args: arguments like those it will be called with.
        options: compiler options.
        wait: whether to wait until it is compiled; else that is done by another thread, and waited
            for by the first call.
    """
    jaxpr = closed.jaxpr.replace(
        constvars=[],
        invars=[*closed.jaxpr.constvars, *closed.jaxpr.invars],
        debug_info=closed.jaxpr.debug_info.with_unknown_names(),
    )
    consts = [*closed.consts]
    path, everything = _place(jaxpr, options), (*consts, *args)
    if path is None:
        call = _soon(lowered(_function(jaxpr, "program"), options, *everything), wait)
    elif (loaded := _load(path, len(jaxpr.invars), len(jaxpr.outvars))) is not None:
        call = _else(loaded, lambda: _made(path, jaxpr, options, everything)())
    else:
        call = _soon(_made(path, jaxpr, options, everything), wait)
    return functools.partial(call, *consts) if consts else call


def placed(
    closed: core.ClosedJaxpr,
    args: Sequence[Any],
    options: dict[str, Any] | None,
    devices: Sequence[Any],
) -> list[Callable[..., Sequence[Any]]]:
    """Return a traced program as one compiled function for each device, which takes arguments from
    anywhere.
    """
    jaxpr = closed.jaxpr.replace(
        constvars=[], invars=[*closed.jaxpr.constvars, *closed.jaxpr.invars]
    )

    def there(values: Sequence[Any], device: Any) -> list[Any]:
        return jax.device_put([*values], device)

    makes = [
        lowered(_function(jaxpr, "program"), options, *there([*closed.consts, *args], device))
        for device in devices
    ]
    with ThreadPoolExecutor(min(len(makes), cores())) as pool:
        calls = list(pool.map(lambda make: make(), makes))
    consts = [there(closed.consts, device) for device in devices]

    def at(call: Callable[..., Any], consts: list[Any], device: Any) -> Callable[..., Any]:
        return lambda *args: call(*consts, *there(args, device))

    return [at(*each) for each in zip(calls, consts, devices, strict=True)]


def _soon(make: Callable[[], Callable[..., Any]], wait: bool) -> Callable[..., Any]:
    if wait:
        return make()
    made = ahead(make)
    return lambda *args: made()(*args)


def _function(jaxpr: core.Jaxpr, name: str) -> Callable[..., Any]:
    def program(*args: Any) -> Any:
        return core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, ()))(*args)

    program.__name__ = name
    return program


def _made(
    path: Path, jaxpr: core.Jaxpr, options: dict[str, Any] | None, args: Sequence[Any]
) -> Callable[[], Callable[..., Any]]:
    """Return what compiles a program and keeps it."""
    finish = lowered(_function(jaxpr, "program"), options, *args)

    def make() -> Callable[..., Any]:
        before = len(_hits)
        call = finish()
        outside = _outside(call)
        if not all(target.startswith(_LAPACK) for target in outside):
            return call
        if len(_hits) > before:
            # XLA cannot write out again what JAX took from its own cache, where a new name is not
            # found
            call = compiled(_function(jaxpr, f"program_{uuid.uuid4().hex}"), options, *args)
        _save(path, call, bool(outside))
        return call

    return make


def _else(call: Callable[..., Any], other: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
    """Return a function, or the other one where the first call shows that it cannot be used."""
    chosen = []

    def either(*args: Any) -> Any:
        if not chosen:
            try:
                result = jax.block_until_ready(call(*args))
                chosen.append(call)
                return result
            except jax.errors.JaxRuntimeError:
                chosen.append(other())
        return chosen[0](*args)

    return either


def _place(jaxpr: core.Jaxpr, options: dict[str, Any] | None) -> Path | None:
    if not _store or jax.default_backend() != "cpu" or len(jax.devices()) > 1:
        return None
    found = digest(jaxpr, options)
    return None if found is None else _store[0] / f"jaxgrad-{found}-cache"


def _load(path: Path, inputs: int, outputs: int) -> Callable[..., Any] | None:
    """Return the executable in a file, or None where there is none, or no whole one."""
    try:
        content = path.read_bytes()
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            return None
        os.utime(path)  # the programs longest unused are removed first
        if content[32]:
            _make_lapack_known()
        into, out = jax.tree.structure((((0,) * inputs), {})), jax.tree.structure([0] * outputs)
        return serialize_executable.deserialize_and_load(content[33:], into, out)
    except Exception:  # whatever a file can be that is none of ours; then the program is compiled
        return None


@functools.cache
def _make_lapack_known() -> None:
    jax.jit(jnp.linalg.cholesky).lower(jax.ShapeDtypeStruct((1, 1), np.float32))


def _outside(call: Any) -> list[str]:
    """Return the functions that are no part of XLA and that a program calls."""
    return [
        target
        for target in re.findall(r'custom_call_target="([^"]*)"', call.as_text())
        if not target.startswith("__")
    ]


def _save(path: Path, call: Callable[..., Any], lapack: bool) -> None:
    """Write an executable, or nothing where it cannot be written."""
    try:
        content, _, _ = serialize_executable.serialize(call)  # pyright: ignore[reportArgumentType]
        content = bytes([lapack]) + content
        descriptor, temporary = tempfile.mkstemp(prefix=".jaxgrad-", dir=path.parent)
        with open(descriptor, "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        os.replace(temporary, path)
    except (
        OSError,
        ValueError,
        NotImplementedError,
        pickle.PicklingError,
        jax.errors.JaxRuntimeError,
    ):
        # a full or read-only disk, or what JAX or XLA cannot write out: the next run compiles it,
        # as this one did
        return
