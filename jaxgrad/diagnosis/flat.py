"""A traced closed form as a flat list of steps that can be run again with one value changed.

Nested calls are inlined. A run keeps every intermediate value, so that a change costs no more than
the steps that depend on it.
"""

import functools
import linecache
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.domain import Domain, Rule, UnsupportedError, location
from jaxgrad.jaxprs.primitives import dtype_of, evaluate
from jaxgrad.jaxprs.rearrangements import IDENTITIES
from jaxgrad.jaxprs.walker import NESTED, walk

_INLINED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}
HEAVY = 10
"""Cost of a loop, or of a factorisation of a matrix, in units of a simple step."""
_HEAVY = frozenset(
    ("lu", "lu_pivots_to_permutation", "cholesky", "qr", "eigh", "svd", "scan", "while", "cond")
)
LONGEST = 72
"""Longer expressions are cut."""
_FAILURES = (
    UnsupportedError,
    np.linalg.LinAlgError,
    ValueError,
    TypeError,
    IndexError,
    NotImplementedError,
)


class _Numbers(Domain):
    rules: Mapping[str, Rule] = MappingProxyType({})


def _expression(eqn: Any, file: str, line: int) -> str:
    """Return the source expression of an equation, or its line, on one line and not too long."""
    text = linecache.getline(file, line).strip()
    traceback = eqn.source_info.traceback
    for code, offset in (
        zip(*traceback.raw_frames(), strict=True) if hasattr(traceback, "raw_frames") else ()
    ):
        if code.co_filename != file:
            continue
        first, last, begin, end = list(code.co_positions())[offset // 2]
        if first == line and last is not None and begin is not None and end is not None:
            lines = [
                linecache.getline(file, n).rstrip("\n").encode() for n in range(first, last + 1)
            ]
            lines[-1] = lines[-1][:end]
            lines[0] = lines[0][begin:]
            text = " ".join(part.decode(errors="replace").strip() for part in lines)
            break
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


@dataclass(frozen=True, eq=False)
class Step:
    """One operation: outputs = eqn(inputs), with arrays named by slots.

    `calls` are the equations in which it is nested.
    """

    eqn: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    calls: tuple[Any, ...]
    debug: Any = None

    @property
    def name(self) -> str:
        """The operation."""
        return self.eqn.primitive.name

    def __call__(self, operands: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run it on arrays."""
        if self.name in IDENTITIES:
            return list(operands)
        if self.name in NESTED or self.name == "platform_index":
            given = {
                v: x
                for v, x in zip(self.eqn.invars, operands, strict=True)
                if isinstance(v, core.Var)
            }
            jaxpr = core.Jaxpr([], list(given), self.eqn.outvars, [self.eqn], debug_info=self.debug)
            return walk(core.ClosedJaxpr(jaxpr, ()), list(given.values()), _Numbers())
        outputs = evaluate(self.eqn, operands)
        return outputs if self.eqn.primitive.multiple_results else [outputs]

    @functools.cached_property
    def place(self) -> tuple[str, str]:
        """Its place in the user's code, as "file:line" and the expression; empty where unknown."""
        for made in (self.eqn, *reversed(self.calls)):
            file, _, line = location(made).rpartition(":")
            if file and line.isdigit():
                return f"{os.path.basename(file)}:{line}", _expression(made, file, int(line))
        return "", ""


@dataclass
class Flat:
    """A program as a list of steps.

    Attributes:
        steps: the operations, in order.
        inputs: slots of the inputs.
        outputs: slots of the outputs.
        constants: {slot: array} of literals and constants.
        count: number of slots.
        smooth: numbers of the steps whose results reach an output as numbers, and not by
            comparisons and indices alone.
    """

    steps: list[Step] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    constants: dict[int, np.ndarray] = field(default_factory=dict)
    count: int = 0

    @staticmethod
    def of(closed: core.ClosedJaxpr) -> "Flat":
        """Flatten a program; operations that no output depends on are left out."""
        flat = Flat()
        flat.inputs = [flat._slot() for _ in closed.jaxpr.invars]
        flat.outputs = flat._inline(closed.jaxpr, closed.consts, flat.inputs, ())
        needed, live = set(flat.outputs), []
        for step in reversed(flat.steps):
            if needed.intersection(step.outputs):
                live.append(step)
                needed.update(step.inputs)
        flat.steps = live[::-1]
        flat._index()
        return flat

    def _slot(self) -> int:
        self.count += 1
        return self.count - 1

    def _constant(self, value: Any) -> int:
        slot = self._slot()
        self.constants[slot] = np.asarray(value)
        return slot

    def _inline(
        self, jaxpr: Any, consts: Sequence[Any], args: Sequence[int], calls: tuple[Any, ...]
    ) -> list[int]:
        env = dict(zip(jaxpr.invars, args, strict=True))
        env |= {v: self._constant(c) for v, c in zip(jaxpr.constvars, consts, strict=True)}

        def read(atom: Any) -> int:
            return (
                self._constant(np.asarray(atom.val, dtype_of(atom)))
                if isinstance(atom, core.Literal)
                else env[atom]
            )

        for eqn in jaxpr.eqns:
            operands = tuple(read(atom) for atom in eqn.invars)
            if eqn.primitive.name in _INLINED:
                inner = eqn.params[_INLINED[eqn.primitive.name]]
                body, held = (
                    (inner.jaxpr, inner.consts)
                    if isinstance(inner, core.ClosedJaxpr)
                    else (inner, ())
                )
                results = self._inline(body, held, operands, (*calls, eqn))
            else:
                results = [self._slot() for _ in eqn.outvars]
                self.steps.append(Step(eqn, operands, tuple(results), calls, jaxpr.debug_info))
            env.update(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _index(self) -> None:
        self.names = tuple(step.name for step in self.steps)
        self.maker = {slot: i for i, step in enumerate(self.steps) for slot in step.outputs}
        self.below: list[frozenset[int]] = [frozenset()] * len(self.steps)
        readers: dict[int, list[int]] = {}
        for i, step in enumerate(self.steps):
            for slot in set(step.inputs):
                readers.setdefault(slot, []).append(i)
        self.readers = readers
        for i in reversed(range(len(self.steps))):
            after = {j for slot in self.steps[i].outputs for j in readers.get(slot, ())}
            self.below[i] = frozenset(after.union(*(self.below[j] for j in after)))
        smooth, wanted = set(), set(self.outputs)
        for i in reversed(range(len(self.steps))):
            step = self.steps[i]
            if wanted.intersection(step.outputs):
                smooth.add(i)
                wanted.update(
                    s
                    for s, atom in zip(step.inputs, step.eqn.invars, strict=True)
                    if dtype_of(atom).kind == "f"
                )
        self.smooth = frozenset(smooth)
        own = [
            HEAVY if step.name in NESTED or "solve" in step.name or step.name in _HEAVY else 1
            for step in self.steps
        ]
        self.costs = [own[i] + sum(own[j] for j in self.below[i]) for i in range(len(self.steps))]

    def depends_on(self, slots: Sequence[int]) -> frozenset[int]:
        """Return all slots that depend on some, these included."""
        found = set(slots)
        for step in self.steps:
            if found.intersection(step.inputs):
                found.update(step.outputs)
        return frozenset(found)

    def run(self, leaves: Sequence[Any]) -> "Run | None":
        """Run it on arrays, keeping all values; None where an operation cannot be run."""
        env = dict(self.constants) | dict(zip(self.inputs, map(np.asarray, leaves), strict=True))
        try:
            with np.errstate(all="ignore"):
                for step in self.steps:
                    env.update(zip(step.outputs, step([env[s] for s in step.inputs]), strict=True))
        except _FAILURES:
            return None
        return Run(self, env)


@dataclass
class Run:
    """All values of one run of a program."""

    flat: Flat
    env: dict[int, np.ndarray]

    def outputs(self) -> list[np.ndarray]:
        """Return what the program returned."""
        return [self.env[slot] for slot in self.flat.outputs]

    def with_slots(self, changed: dict[int, np.ndarray]) -> list[np.ndarray] | None:
        """Return the outputs with some values replaced; None where an operation then fails."""
        first = {i for slot in changed for i in self.flat.readers.get(slot, ())}
        return self._again(
            dict(changed),
            sorted(first.union(*(self.flat.below[i] for i in first))) if first else [],
            frozenset(changed),
        )

    def with_step(
        self, index: int, run: Callable[[list[np.ndarray]], list[np.ndarray]]
    ) -> list[np.ndarray] | None:
        """Return the outputs with one step replaced by a function of its operands."""
        step = self.flat.steps[index]
        try:
            with np.errstate(all="ignore"):
                results = run([self.env[s] for s in step.inputs])
        except _FAILURES:
            return None
        if any(
            np.shape(new) != self.env[s].shape for s, new in zip(step.outputs, results, strict=True)
        ):
            return None
        return self._again(
            dict(zip(step.outputs, results, strict=True)),
            sorted(self.flat.below[index]),
            frozenset(),
        )

    def _again(
        self, changed: dict[int, np.ndarray], steps: Sequence[int], kept: frozenset[int]
    ) -> list[np.ndarray] | None:
        env = self.env
        try:
            with np.errstate(all="ignore"):
                for i in steps:
                    step = self.flat.steps[i]
                    operands = [changed[s] if s in changed else env[s] for s in step.inputs]
                    changed.update(
                        (s, x)
                        for s, x in zip(step.outputs, step(operands), strict=True)
                        if s not in kept
                    )
        except _FAILURES:
            return None
        return [changed[s] if s in changed else env[s] for s in self.flat.outputs]


def leaves_of(inputs: Any, mask: Any) -> list[Any]:
    """Flatten the inputs of a program."""
    return jax.tree.leaves((inputs, mask))
