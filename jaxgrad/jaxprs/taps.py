"""Taps: the named values inside a function, where they lie, and a run that visits each of them.

A value has a name where `jax.ad_checkpoint.checkpoint_name` gave it one, or where it leaves a
`jax.named_scope`. Taps are found once, from the traced program. When it is run, calls that hold no
tap are run as they are; calls that do are opened, and scans with taps are unrolled.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core, source_info_util

from jaxgrad.jaxprs.domain import Domain, UnsupportedError, describe
from jaxgrad.jaxprs.versions import bound
from jaxgrad.jaxprs.walker import NESTED, walk

LONGEST = 64
"""Scans of more steps are not opened for the sake of scopes; `checkpoint_name` inside always opens
them.
"""


Visit = Callable[[str, Any], Any]


_OWN_RULE = frozenset({"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"})


_ARRAYS = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)


class Program:
    """A function, traced once, that can be run with a visitor at every tap.

    Args:
        function: any function of arrays; leaves of its arguments that are no arrays stay as they
            are.
        *args: its arguments.
        **kwargs: its keyword arguments.
        scopes: whether values that leave a `jax.named_scope` are taps too.
    """

    def __init__(
        self, function: Callable[..., Any], *args: Any, scopes: bool = True, **kwargs: Any
    ) -> None:
        """Trace the function."""
        leaves, tree = jax.tree.flatten((args, kwargs))
        arrays = [isinstance(leaf, _ARRAYS) for leaf in leaves]

        def on_arrays(given: list[Any]) -> Any:
            filled = iter(given)
            whole = [
                next(filled) if is_array else leaf
                for leaf, is_array in zip(leaves, arrays, strict=True)
            ]
            positional, named = jax.tree.unflatten(tree, whole)
            return function(*positional, **named)

        self.closed, shape = jax.make_jaxpr(on_arrays, return_shape=True)(
            self.flat(*args, **kwargs)
        )
        self.tree = jax.tree.structure(shape)
        self.plan = _Plan(self.closed.jaxpr, scopes)

    @staticmethod
    def flat(*args: Any, **kwargs: Any) -> list[Any]:
        """Return the arrays of some arguments, in the order in which the program takes them."""
        return [leaf for leaf in jax.tree.leaves((args, kwargs)) if isinstance(leaf, _ARRAYS)]

    def __call__(self, arrays: Sequence[Any], visit: Visit) -> Any:
        """Run the program; each tap's value becomes what ``visit(name, value)`` returns."""
        outputs = walk(self.closed, [jnp.asarray(x) for x in arrays], _Taps(self.plan, visit))
        return jax.tree.unflatten(self.tree, outputs)

    @property
    def explicit(self) -> frozenset[str]:
        """The names that `checkpoint_name` gave, without the scopes."""
        return self.plan.explicit


class _Exit(NamedTuple):
    """Result number `output` of an equation leaves the scopes with these paths, innermost first."""

    output: int
    paths: tuple[tuple[str, ...], ...]


class _Plan:
    """Where a program's taps are: found once, from the program alone."""

    def __init__(self, jaxpr: core.Jaxpr, scopes: bool) -> None:
        self.scopes = scopes
        self.exits: dict[int, list[_Exit]] = {}
        self.inside: dict[int, bool] = {}
        self.named: set[str] = set()
        self.opaque: set[str] = set()
        self._look(jaxpr)

    @property
    def explicit(self) -> frozenset[str]:
        return frozenset(self.named)

    def _look(self, jaxpr: core.Jaxpr) -> tuple[bool, bool]:
        """Note a program's taps; say whether it has named values, and whether it has scopes."""
        named = scoped = False
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "name":
                self.named.add(eqn.params["name"])
                named = True
            found = [self._look(inner) for inner in programs_of(eqn)]
            within = any(n for n, _ in found), any(s for _, s in found)
            short = eqn.primitive.name != "while" and not (
                eqn.primitive.name == "scan" and eqn.params["length"] > LONGEST
            )
            self.inside[id(eqn)] = within[0] or (within[1] and short)
            named, scoped = named or within[0], scoped or (within[1] and short)
        if self.scopes:
            exits = _exits(jaxpr)
            self.exits.update(exits)
            scoped = scoped or bool(exits)
        return named, scoped


def programs_of(eqn: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """Yield the programs that an equation holds."""
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def scope_of(eqn: core.JaxprEqn) -> tuple[str, ...]:
    """Return the names of the scopes that an equation stands in, the outermost first."""
    return tuple(s.name for s in eqn.source_info.name_stack.stack if type(s).__name__ == "Scope")


def _exits(jaxpr: core.Jaxpr) -> dict[int, list[_Exit]]:
    """Find, for every run of equations in one scope, the last value that is used outside of it."""
    paths = [scope_of(eqn) for eqn in jaxpr.eqns]
    last_use = {v: len(paths) for v in jaxpr.outvars if isinstance(v, core.Var)}
    for i in range(len(paths))[::-1]:
        for v in jaxpr.eqns[i].invars:
            if isinstance(v, core.Var):
                last_use.setdefault(v, i)
    leaving: dict[tuple[int, int], list[tuple[str, ...]]] = {}
    for depth in range(max(map(len, paths), default=0), 0, -1):
        start = 0
        while start < len(paths):
            path, end = paths[start][:depth], start + 1
            while end < len(paths) and paths[end][:depth] == path:
                end += 1
            if len(path) == depth:
                out = [
                    (i, k)
                    for i in range(start, end)
                    for k, v in enumerate(jaxpr.eqns[i].outvars)
                    if last_use.get(v, -1) >= end
                ]
                if out:
                    leaving.setdefault(out[-1], []).append(path)
            start = end
    exits: dict[int, list[_Exit]] = {}
    for (i, k), found in leaving.items():
        exits.setdefault(id(jaxpr.eqns[i]), []).append(_Exit(k, tuple(found)))
    return exits


class _Taps(Domain):
    """JAX's own values and operations, with a visitor at every tap."""

    rules: Mapping[str, Any] = MappingProxyType({})  # `rule` gives the one rule there is

    def __init__(self, plan: _Plan, visit: Visit) -> None:
        self.plan, self.visit = plan, visit
        self.outer: tuple[str, ...] = ()
        self.seen: Counter[str] = Counter()
        self.hidden = False

    def constant(self, array: Any) -> Any:
        return array if isinstance(array, (jax.Array, Tracer)) else jnp.asarray(array)

    def rearrange(self, operands: Sequence[Any], index: np.ndarray) -> Any:
        flat = (
            jnp.ravel(operands[0])
            if len(operands) == 1
            else jnp.concatenate([jnp.ravel(x) for x in operands])
        )
        return flat[index]

    def rule(self, eqn: core.JaxprEqn, operands: Sequence[Any]) -> Callable[..., Any]:
        return self._equation

    def _equation(self, eqn: core.JaxprEqn, *operands: Any) -> Any:
        if eqn.primitive.name == "name":
            (value,) = bind(eqn, operands)
            return self._tap(eqn.params["name"], value)
        opened = eqn.primitive.name in NESTED and self._opens(eqn, operands)
        outputs = self._open(eqn, list(operands)) if opened else bind(eqn, operands)
        for place, paths in self.plan.exits.get(id(eqn), ()):
            for path in paths:
                outputs[place] = self._tap("/".join((*self.outer, *path)), outputs[place])
        return outputs if eqn.primitive.multiple_results else outputs[0]

    def _tap(self, name: str, value: Any) -> Any:
        count = self.seen[name]
        self.seen[name] += 1
        name = f"{name}#{count}" if count else name
        if self.hidden:
            self.plan.opaque.add(name)
        return self.visit(name, value)

    def _opens(self, eqn: core.JaxprEqn, operands: Sequence[Any]) -> bool:
        if eqn.primitive.name == "cond" and isinstance(operands[0], np.ndarray):
            return True  # the branch is known when the program is traced
        if not self.plan.inside[id(eqn)]:
            return False
        steered = eqn.primitive.name == "while" or (
            eqn.primitive.name == "cond" and isinstance(operands[0], Tracer)
        )
        if steered:
            inner = [e for program in programs_of(eqn) for e in program.eqns]
            names = [e.params["name"] for e in inner if e.primitive.name == "name"]
            if names:
                raise UnsupportedError(
                    f"{describe(eqn)} holds the name {names[0]!r}, but whether and how often it "
                    f"is reached depends on the data; "
                    "take the name out, or write the loop with lax.scan and the branch with "
                    "jnp.where"
                )
        return not steered

    def _open(self, eqn: core.JaxprEqn, operands: list[Any]) -> list[Any]:
        outer, hidden = self.outer, self.hidden
        own_rule = eqn.primitive.name in _OWN_RULE
        if eqn.primitive.name == "cond":
            operands[0] = np.asarray(operands[0])
        self.outer, self.hidden = (*outer, *scope_of(eqn)), hidden or own_rule
        try:
            outputs = NESTED[eqn.primitive.name](eqn, operands, self)
        finally:
            self.outer, self.hidden = outer, hidden
        return bind(eqn, operands) if own_rule else list(outputs)


def bind(eqn: core.JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """Run one equation with JAX's own meaning, and return its results as a list."""
    operands = [jnp.asarray(x) if isinstance(x, np.ndarray) else x for x in operands]
    with source_info_util.user_context(
        eqn.source_info.traceback
    ):  # so that it keeps the user's line
        outputs = bound(eqn, operands)
    return list(outputs) if eqn.primitive.multiple_results else [outputs]
