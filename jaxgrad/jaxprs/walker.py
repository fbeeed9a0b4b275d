"""One walker over jaxprs, for every analysis that gives an operation another meaning.

A jaxpr is a list of equations ``out = primitive(operands)``. `walk` runs it with the values and
rules of a `Domain`: numbers in a finite field, degrees, floating-point numbers, recorded
activations. What all of them share stands here:

- nested programs: jit, custom_jvp, custom_vjp, checkpoint, closed calls, the solve of
  custom_linear_solve; scan; while and cond as long as what decides them is known;
- known values. A value that is a plain ``numpy.ndarray`` is known. An equation whose operands are
  all known is computed by `evaluate` and offered to `Domain.constant`, which may keep it or turn it
  into a value of its own;
- rearrangements. Primitives that only rearrange elements (transpose, reshape, gather with known
  indices, …) are run once on arrays of indices, by `moved`, and the domain only has to gather:
  `Domain.rearrange`.

How to use it::

    class Mine(Domain):
        rules = {"add": add, ...}  # rule(eqn, *operands) -> value, or a list of several results
        def constant(self, array): ...             # a literal, constant or known result as a value
        def rearrange(self, operands, index): ...  # flattened and concatenated entries, at index
        def otherwise(self, eqn, operands): ...    # no rule: raises `UnsupportedError` by default

    outputs = walk(jax.make_jaxpr(f)(*args), args, Mine())

Operands of a rule are values of the domain or ``numpy.ndarray``; values must have a ``.shape``. A
rule for a nested primitive (``"scan"``, ``"jit"``) takes precedence over what is built in, and
`Domain.rule` may choose by operands instead of by name. `location` names the line of the user's
code an equation comes from.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import jax
import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.domain import (
    INSIDE,
    DataDependentLoopError,
    Domain,
    UnsupportedError,
    Value,
    describe,
    known,
)
from jaxgrad.jaxprs.primitives import CREATED, dtype_of, evaluate, moved
from jaxgrad.jaxprs.rearrangements import IDENTITIES, REARRANGEMENTS
from jaxgrad.jaxprs.versions import scan_counts

_STEPS = 10_000
_LIVE: WeakKeyDictionary[core.Jaxpr, list[core.JaxprEqn]] = WeakKeyDictionary()


def walk(closed: core.ClosedJaxpr, args: Sequence[Value], domain: Domain) -> list[Value]:
    """Run a jaxpr with the values and rules of `domain` and return its outputs.

    Args:
        closed: the program, from `jax.make_jaxpr`.
        args: one value for each of its inputs; plain arrays are known.
        domain: what values are and what operations do.

    Raises:
        UnsupportedError: when an operation has no rule, or a loop or branch depends on an unknown
            value.
    """
    with np.errstate(all="ignore"):  # as XLA, which does not warn
        return _run(closed.jaxpr, [domain.constant(c) for c in closed.consts], args, domain)


def _run(
    jaxpr: core.Jaxpr, consts: Sequence[Value], args: Sequence[Value], domain: Domain
) -> list[Value]:
    env: dict[core.Var, Value] = dict(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Value:
        if isinstance(atom, core.Literal):
            return domain.constant(np.asarray(atom.val, dtype_of(atom)))
        return env[atom]

    for eqn in live(jaxpr):
        operands = [read(atom) for atom in eqn.invars]
        outputs = _apply(eqn, operands, domain)
        env.update(
            zip(eqn.outvars, outputs if eqn.primitive.multiple_results else [outputs], strict=True)
        )
    return [read(atom) for atom in jaxpr.outvars]


def live(jaxpr: core.Jaxpr) -> list[core.JaxprEqn]:
    """Return the equations that outputs depend on or that have effects, in order."""
    if jaxpr in _LIVE:
        return _LIVE[jaxpr]
    needed = {v for v in jaxpr.outvars if isinstance(v, core.Var)}
    live = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(v in needed for v in eqn.outvars):
            live.append(eqn)
            needed.update(v for v in eqn.invars if isinstance(v, core.Var))
    _LIVE[jaxpr] = live[::-1]
    return _LIVE[jaxpr]


def _apply(eqn: core.JaxprEqn, operands: list[Value], domain: Domain) -> Any:
    name = eqn.primitive.name
    nested = NESTED.get(name)
    if name == "platform_index":
        return _platform(eqn)
    if nested is None and (operands or name in CREATED) and all(map(known, operands)):
        try:
            outputs = evaluate(eqn, operands)
        except (TypeError, NotImplementedError):  # no numbers, such as PRNG keys
            return domain.otherwise(eqn, operands)
        if eqn.primitive.multiple_results:
            return [domain.computed(eqn, operands, o) for o in outputs]
        return domain.computed(eqn, operands, outputs)
    rule = domain.rule(eqn, operands)
    if rule is not None:
        return rule(eqn, *operands)
    if nested is not None:
        token = INSIDE.set((*INSIDE.get(), eqn))
        try:
            return nested(eqn, operands, domain)
        finally:
            INSIDE.reset(token)
    if name in IDENTITIES:
        return list(operands) if eqn.primitive.multiple_results else operands[0]
    if name in REARRANGEMENTS:
        data = REARRANGEMENTS[name](eqn, operands)
        if all(known(x) for i, x in enumerate(operands) if i not in data):
            return _move(eqn, operands, data, domain)
    return domain.otherwise(eqn, operands)


def _platform(eqn: core.JaxprEqn) -> np.ndarray:
    """Return the branch of `jax.lax.platform_dependent` that runs here, or its default."""
    here = jax.default_backend()
    platforms = eqn.params["platforms"]
    return np.asarray(
        next((i for i, p in enumerate(platforms) if p is None or here in p), len(platforms) - 1),
        np.int32,
    )


# --- nested programs ---


def _inner(program: Any) -> tuple[core.Jaxpr, Sequence[Any]]:
    return (
        (program.jaxpr, program.consts) if isinstance(program, core.ClosedJaxpr) else (program, ())
    )


def _call(program: Any, args: Sequence[Value], domain: Domain) -> list[Value]:
    jaxpr, consts = _inner(program)
    return _run(jaxpr, [domain.constant(c) for c in consts], args, domain)


def _subprogram(param: str) -> Callable[[core.JaxprEqn, list[Value], Domain], list[Value]]:
    return lambda eqn, operands, domain: _call(eqn.params[param], operands, domain)


def _scan(eqn: core.JaxprEqn, operands: list[Value], domain: Domain) -> list[Value]:
    fixed, carried = scan_counts(eqn.params)
    consts, carry, xs = (
        operands[:fixed],
        operands[fixed : fixed + carried],
        operands[fixed + carried :],
    )
    length = eqn.params["length"]
    order = range(length)[::-1] if eqn.params["reverse"] else range(length)
    steps: list[list[Value]] = [[] for _ in order]
    for i in order:
        outputs = _call(
            eqn.params["jaxpr"], [*consts, *carry, *(_row(x, i, domain) for x in xs)], domain
        )
        carry, steps[i] = outputs[:carried], outputs[carried:]
    avals = [v.aval for v in eqn.outvars[carried:]]
    return [*carry, *(_stack([s[k] for s in steps], aval, domain) for k, aval in enumerate(avals))]


def _row(x: Value, i: int, domain: Domain) -> Value:
    if known(x):
        return np.asarray(x[i])
    return domain.rearrange([x], np.arange(math.prod(x.shape)).reshape(x.shape)[i])


def _stack(values: Sequence[Value], aval: Any, domain: Domain) -> Value:
    if all(map(known, values)):
        return domain.constant(np.stack(values) if values else np.zeros(aval.shape, aval.dtype))
    return domain.rearrange(values, np.arange(math.prod(aval.shape)).reshape(aval.shape))


def _while(eqn: core.JaxprEqn, operands: list[Value], domain: Domain) -> list[Value]:
    test, body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    test_consts, body_consts, carry = (
        operands[:test],
        operands[test : test + body],
        operands[test + body :],
    )
    for _ in range(_STEPS):
        (going,) = _call(eqn.params["cond_jaxpr"], [*test_consts, *carry], domain)
        if not known(going):
            raise DataDependentLoopError(
                f"{describe(eqn)} is a loop whose length depends on the data; write it with a "
                f"fixed length (lax.scan)"
            )
        if not going:
            return list(carry)
        carry = _call(eqn.params["body_jaxpr"], [*body_consts, *carry], domain)
    raise UnsupportedError(
        f"{describe(eqn)} is a loop of more than {_STEPS} steps; write a shorter one"
    )


def _cond(eqn: core.JaxprEqn, operands: list[Value], domain: Domain) -> list[Value]:
    branches, (which, *args) = eqn.params["branches"], operands
    if known(which):
        return _call(branches[int(np.clip(which, 0, len(branches) - 1))], args, domain)
    outcomes = [_call(branch, args, domain) for branch in branches]
    return [domain.choose(eqn, which, cases) for cases in zip(*outcomes, strict=True)]


def _linear_solve(eqn: core.JaxprEqn, operands: list[Value], domain: Domain) -> list[Value]:
    lengths, programs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    start = lengths.matvec + lengths.vecmat
    consts = operands[start : start + lengths.solve]
    return _call(programs.solve, [*consts, *operands[sum(lengths) :]], domain)


NESTED: dict[str, Callable[[core.JaxprEqn, list[Value], Domain], list[Value]]] = {
    "jit": _subprogram("jaxpr"),
    "pjit": _subprogram("jaxpr"),
    "closed_call": _subprogram("call_jaxpr"),
    "core_call": _subprogram("call_jaxpr"),
    "custom_jvp_call": _subprogram("call_jaxpr"),
    "custom_vjp_call": _subprogram("call_jaxpr"),
    "custom_vjp_call_jaxpr": _subprogram("fun_jaxpr"),
    "remat2": _subprogram("jaxpr"),
    "checkpoint": _subprogram("jaxpr"),
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "custom_linear_solve": _linear_solve,
}
"""Primitives that hold programs, and how they are run."""


def _move(eqn: core.JaxprEqn, operands: list[Value], data: Sequence[int], domain: Domain) -> Any:
    moving = list(operands)
    if eqn.primitive.name == "sort":
        return _sort(eqn, moving, domain)
    start = 0
    for i in data:
        size = math.prod(operands[i].shape)
        moving[i] = np.arange(start, start + size).reshape(operands[i].shape)
        start += size
    outputs = moved(eqn, moving)
    values = [operands[i] for i in data]
    if eqn.primitive.multiple_results:
        return [domain.rearrange(values, o) for o in outputs]
    return domain.rearrange(values, outputs)


def _sort(eqn: core.JaxprEqn, operands: list[Value], domain: Domain) -> list[Value]:
    keys, axis = operands[: eqn.params["num_keys"]], eqn.params["dimension"]
    order = np.lexsort(keys[::-1], axis=axis)  # stable, as JAX's is by default
    outputs = [np.take_along_axis(k, order, axis) for k in keys]
    for x in operands[len(keys) :]:
        index = np.take_along_axis(np.arange(order.size).reshape(order.shape), order, axis)
        outputs.append(x.ravel()[index] if known(x) else domain.rearrange([x], index))
    return outputs
