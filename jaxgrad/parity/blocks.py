"""A function cut at its taps: each block as a program of its own, run on torch's activations.

With torch's value T at every tap in place of ours, block k maps (T, parameters, inputs) to our
value at tap k, and its error is its own: none of an earlier block's reaches it. Backward likewise:
block k's VJP at torch's cotangent of tap k gives its part of the cotangents of the taps, parameters
and inputs that it reads; the parts add up to torch's own cotangents.

The traced function is written out once as a flat list of equations; a block is what one tap's value
depends on. Blocks with equal equations share one compiled program, and only one block's values are
in memory at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.domain import Domain
from jaxgrad.jaxprs.primitives import dtype_of
from jaxgrad.jaxprs.taps import bind
from jaxgrad.jaxprs.walker import NESTED, walk
from jaxgrad.parity.jax_side import Given, JaxSide
from jaxgrad.runtime.options import check_options

KEPT = frozenset({"_std", "_var", "clip", "median", "quantile", "_resize"})
"""Functions of JAX that stay whole in a block, so that what is known of them can be tried."""

Substitutes = Mapping[int, Callable[[core.JaxprEqn, Sequence[Any]], Sequence[Any]]]


class Key(NamedTuple):
    """An array that blocks read: a tap's value, or an array of the given numbers."""

    kind: str
    name: str


class Block(NamedTuple):
    """What one tap, or one output, is computed by.

    Attributes:
        name: the tap in torch's words, or the output's label.
        equations: in order.
        output: the variable or literal that holds the value.
        reads: which arrays it depends on, and the variables that stand for them.
        constants: likewise the arrays that are part of the program.
    """

    name: str
    equations: tuple[core.JaxprEqn, ...]
    output: Any
    reads: dict[Key, core.Var]
    constants: dict[core.Var, Any]


class Blocks:
    """All blocks of a function whose taps have partners."""

    def __init__(self, side: JaxSide, dtype: str = "float64") -> None:
        """Write the function out as flat equations and cut it at the taps."""
        self.side = side
        program, golden = side.program(dtype), side.golden
        given = side.given(dtype, golden.state, golden.inputs)
        partners, opaque = side.partners or {}, program.plan.opaque
        taps = {k: v for k, v in partners.items() if k not in opaque}
        values = {k: self._raw(k, golden.activations[v]) for k, v in taps.items()}

        def forced(given: Given, values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
            ours: dict[str, Any] = {}

            def visit(name: str, value: Any) -> Any:
                if name not in taps:
                    return value
                ours[taps[name]] = value
                return jnp.asarray(values[name]).astype(value.dtype)

            return program(program.flat(given), visit)[0], ours

        inlined = _inlined(forced, given, values)
        outputs, ours = inlined.shape
        keys = [Key(kind, name) for kind in sorted(given) for name in sorted(given[kind])]
        keys += [Key("tap", taps[name]) for name in sorted(values)]
        variables = dict(zip(keys, inlined.jaxpr.invars, strict=True))
        names = [*sorted(outputs), *sorted(ours)]
        results = dict(zip(names, inlined.jaxpr.outvars, strict=True))
        order = [k for k in golden.manifest["order"] if k in results] + [k for k in outputs]
        constants = dict(zip(inlined.jaxpr.constvars, inlined.consts, strict=True))
        self.blocks = {
            name: _slice(name, inlined.jaxpr, results[name], variables, constants) for name in order
        }
        self.names = {v: k for k, v in taps.items()}
        self._compiled: dict[str, Any] = {}
        self._ready: dict[tuple[str, bool], tuple[Any, Any]] = {}

    def _raw(self, name: str, array: np.ndarray) -> np.ndarray:
        """Bring torch's array into our tap's order of axes."""
        return np.transpose(array, np.argsort(self.side.permutations[name]))

    def numbers(self, given: Given, taps: Mapping[str, np.ndarray]) -> dict[Key, np.ndarray]:
        """Return every array that blocks may read: given numbers, and torch's value at taps."""
        found = {
            Key(kind, name): np.asarray(v)
            for kind, group in given.items()
            for name, v in group.items()
        }
        return found | {
            Key("tap", k): self._raw(self.names[k], v) for k, v in taps.items() if k in self.names
        }

    def value(
        self, block: Block, numbers: Mapping[Key, Any], substitutes: Substitutes | None = None
    ) -> np.ndarray:
        """Return a block's value, in torch's order of axes."""
        return self.both(block, numbers, None, substitutes)[0]

    def both(
        self,
        block: Block,
        numbers: Mapping[Key, Any],
        cotangent: np.ndarray | None,
        substitutes: Substitutes | None = None,
    ) -> tuple[np.ndarray, dict[Key, np.ndarray]]:
        """Return a block's value, and its parts of the cotangents of all that it reads."""
        given = {k: np.asarray(numbers[k]) for k in block.reads}
        moving = [
            k
            for k, v in given.items()
            if v.dtype.kind == "f" and k.kind in ("tap", "parameter", "input")
        ]
        fixed = [k for k in given if k not in moving]
        tapped = block.name in self.names
        c = (
            None
            if cotangent is None
            else (self._raw(self.names[block.name], cotangent) if tapped else cotangent)
        )

        def run(consts: Sequence[Any], x: Sequence[Any], rest: Sequence[Any], c: Any) -> Any:
            def forward(x: Sequence[Any]) -> Any:
                env = dict(zip(block.constants, consts, strict=True))
                env |= {
                    block.reads[k]: v for k, v in zip((*moving, *fixed), (*x, *rest), strict=True)
                }
                return evaluate(block.equations, [block.output], env, substitutes or {})[0]

            if c is None or not jnp.issubdtype(jax.eval_shape(forward, x).dtype, jnp.floating):
                return forward(x), []
            value, pull = jax.vjp(forward, x)
            return value, pull(c.astype(value.dtype))[0]

        arguments = list(block.constants.values()), [given[k] for k in moving]
        arguments = *arguments, [given[k] for k in fixed], c
        if substitutes:
            value, parts = run(arguments[0], [jnp.asarray(x) for x in arguments[1]], *arguments[2:])
        else:
            value, *parts = self._program(block, run, arguments)
        value = np.asarray(value)
        if tapped:
            value = np.transpose(value, self.side.permutations[self.names[block.name]])
        return value, {
            k: self.ordered(k, np.asarray(p)) for k, p in zip(moving, parts, strict=False)
        }

    def _program(self, block: Block, run: Callable[..., Any], arguments: Any) -> list[Any]:
        """Run a block's compiled program, which blocks of equal equations share."""
        key = block.name, arguments[-1] is None
        if key not in self._ready:
            program = jax.make_jaxpr(run)(*arguments)
            compiled = self._compiled.setdefault(
                str(program.jaxpr),
                jax.jit(_runner(program.jaxpr), compiler_options=check_options()),
            )
            self._ready[key] = compiled, program.consts
        compiled, consts = self._ready[key]
        return compiled(consts, jax.tree.leaves(arguments))

    def ordered(self, key: Key, array: np.ndarray) -> np.ndarray:
        """Bring an array like that of a key into torch's order of axes."""
        return (
            np.transpose(array, self.side.permutations[self.names[key.name]])
            if key.kind == "tap"
            else array
        )


def _runner(jaxpr: core.Jaxpr) -> Callable[..., list[Any]]:
    return lambda consts, args: jax.core.eval_jaxpr(jaxpr, consts, *args)


def evaluate(
    equations: Sequence[core.JaxprEqn],
    outputs: Sequence[Any],
    env: dict[Any, Any],
    substitutes: Substitutes,
) -> list[Any]:
    """Run some equations; those with a substitute by their number give what it gives."""

    def read(atom: Any) -> Any:
        return (
            jnp.asarray(atom.val, dtype_of(atom)) if isinstance(atom, core.Literal) else env[atom]
        )

    for i, eqn in enumerate(equations):
        operands = [read(atom) for atom in eqn.invars]
        results = substitutes[i](eqn, operands) if i in substitutes else bind(eqn, operands)
        env.update(zip(eqn.outvars, results, strict=True))
    return [read(output) for output in outputs]


class _Flat(NamedTuple):
    jaxpr: core.Jaxpr
    consts: Sequence[Any]
    shape: Any


class _Open(Domain):
    """Write calls out, but for those whose names say what they are."""

    rules: Mapping[str, Any] = MappingProxyType({})  # `rule` gives the one rule there is

    def constant(self, array: Any) -> Any:
        return jnp.asarray(array)

    def rule(self, eqn: core.JaxprEqn, operands: Sequence[Any]) -> Callable[..., Any]:
        return self._equation

    def _equation(self, eqn: core.JaxprEqn, *operands: Any) -> Any:
        call = (
            eqn.primitive.name in ("jit", "pjit", "closed_call", "core_call")
            and eqn.params.get("name") not in KEPT
        )
        outputs = (
            list(NESTED[eqn.primitive.name](eqn, list(operands), self))
            if call
            else bind(eqn, operands)
        )
        return outputs if eqn.primitive.multiple_results else outputs[0]


def _inlined(function: Callable[..., Any], *args: Any) -> _Flat:
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    flat = jax.make_jaxpr(lambda arrays: walk(closed, arrays, _Open()))(
        [jnp.asarray(x) for x in jax.tree.leaves(args)]
    )
    return _Flat(flat.jaxpr, flat.consts, shape)


def _slice(
    name: str,
    jaxpr: core.Jaxpr,
    output: Any,
    variables: Mapping[Key, core.Var],
    constants: Mapping[core.Var, Any],
) -> Block:
    needed = {output} if isinstance(output, core.Var) else set()
    equations = []
    for eqn in reversed(jaxpr.eqns):
        if any(v in needed for v in eqn.outvars):
            equations.append(eqn)
            needed.update(v for v in eqn.invars if isinstance(v, core.Var))
    return Block(
        name,
        tuple(equations[::-1]),
        output,
        {k: v for k, v in variables.items() if v in needed},
        {v: c for v, c in constants.items() if v in needed},
    )
