"""Plain numbers in another's place: eps, slopes, rates, decays, and what they are part of."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.taps import bind
from jaxgrad.parity.rewriting.module_block import (
    Attempt,
    ModuleBlock,
    at,
    short,
    times,
    with_operand,
)

_MACHINE = {float(np.finfo(t).eps): "jnp.finfo(x.dtype).eps" for t in (np.float64, np.float32)}
_EPS = (1e-5, 1e-6, *_MACHINE, 1e-8, 1e-12, 1e-10, 1e-7, 1e-3)
_CONSTANTS = (1e-2, 1e-4, 0.1, 0.9, 0.99, 0.999, 1e-8, 1e-10, 1e-7, 0.0, 0.01, 0.25, 0.5, 2.0)
_DECAYS = (0.99, 0.9, 0.999, 0.95)
_SCALED = (
    "mul",
    "div",
    "neg",
    "reduce_sum",
    "convert_element_type",
    "reshape",
    "squeeze",
    "broadcast_in_dim",
)
_FEW = 12
"""Different numbers in a block, up to which each is tried against the defaults of optimizers."""


def epsilons(case: ModuleBlock) -> Iterator[Attempt]:
    """Another eps where a small number is added, or a maximum taken with it."""
    own = [v for k, v in case.options.items() if "eps" in k and isinstance(v, float)]
    for i, k, value in case.literals("add", "max"):
        if not 0 < value <= 1e-2:
            continue
        for other in dict.fromkeys((*own, *_EPS)):
            if other != value:
                yield Attempt(
                    {i: with_operand(k, lambda x, v=other: jnp.full_like(x, v))},
                    f"eps={_MACHINE.get(other, short(other))} restores parity",
                )


def options(case: ModuleBlock) -> Iterator[Attempt]:
    """Yield the module's own numbers, and dropout's of them, in place of each plain number."""
    given = {
        k: float(v)
        for k, v in case.options.items()
        if isinstance(v, (int, float)) and not isinstance(v, bool)
    }
    wanted = {f"{k}={short(v)}": v for k, v in given.items()}
    p = given.get("p", given.get("dropout", 0.0))
    if 0 < p < 1:
        wanted |= {
            f"1 − p = {short(1 - p)}": 1 - p,
            f"1/(1 − p) = {short(1 / (1 - p))}": 1 / (1 - p),
        }
    for i, k, value in case.literals():
        for words, other in wanted.items():
            if not math.isclose(other, value, rel_tol=1e-6):
                text = (
                    f"{words} in place of {short(value)}{at(case.block.equations[i])} "
                    f"restores parity"
                )
                yield Attempt({i: with_operand(k, lambda x, v=other: jnp.full_like(x, v))}, text)


def constants(case: ModuleBlock) -> Iterator[Attempt]:
    """Yield optimizers' defaults in place of a plain number, in blocks that have few."""
    places: dict[float, list[tuple[int, int]]] = {}
    for i, k, value in case.literals():
        if 0 < abs(value) < 1:
            places.setdefault(value, []).append((i, k))
    for value, found in places.items() if len(places) <= _FEW else ():
        for other in _CONSTANTS:
            if not math.isclose(other, value, rel_tol=1e-6):
                where = at(case.block.equations[found[0][0]]) if len(found) == 1 else ""
                yield Attempt(
                    _set(dict.fromkeys(found, other)),
                    f"{short(other)} in place of {short(value)}{where} restores parity",
                )


def _set(numbers: dict[tuple[int, int], float]) -> dict[int, Any]:
    """Return substitutes that give operands, by equation and place, other numbers."""
    changes: dict[int, dict[int, float]] = {}
    for (i, k), value in numbers.items():
        changes.setdefault(i, {})[k] = value

    def change(own: dict[int, float]) -> Any:
        return lambda eqn, xs: bind(
            eqn, [jnp.full_like(x, own[k]) if k in own else x for k, x in enumerate(xs)]
        )

    return {i: change(own) for i, own in changes.items()}


def decays(case: ModuleBlock) -> Iterator[Attempt]:
    """Yield other decays ρ of ρ m + (1 − ρ) x, alone and with eps taken out of the root."""
    literals = list(case.literals("mul"))
    pairs = {
        value: [(i, k) for i, k, v in literals if v == value] for _, _, value in literals
        if 0.5 < value < 1 and any(math.isclose(v, 1 - value, rel_tol=1e-6) for _, _, v in literals)
    }  # fmt: skip
    changed: list[tuple[str, dict[tuple[int, int], float]]] = [("", {})]
    for value, found in pairs.items():
        rest = [(i, k) for i, k, v in literals if math.isclose(v, 1 - value, rel_tol=1e-6)]
        for other in _DECAYS:
            if not math.isclose(other, value):
                numbers = dict.fromkeys(found, other) | dict.fromkeys(rest, 1 - other)
                changed.append((f"a decay of {short(other)} in place of {short(value)}", numbers))
    starts = [(i, k) for i, k, v in case.literals("broadcast_in_dim") if v > 0]
    first = [
        ("", {}),
        *([("an accumulator that starts at 0", dict.fromkeys(starts, 0.0))] if starts else []),
    ]
    outside = [("", {}), *_outside(case)]
    for (a, one), (b, two), (c, three) in itertools.product(changed, first, outside):
        words = [w for w in (a, b, c) if w]
        if words:
            yield Attempt({**_set(one | two), **three}, f"{' and '.join(words)} restores parity")


def _variable(eqn: core.JaxprEqn) -> Any:
    atom = eqn.invars[0]
    return atom if isinstance(atom, core.Var) else None


def _outside(case: ModuleBlock) -> Iterator[tuple[str, dict[int, Any]]]:
    """Yield every √(x + eps) as √x + eps, for the eps that stands there and for torch's."""
    sums = {
        case.block.equations[i].outvars[0]: (i, k, v)
        for i, k, v in case.literals("add")
        if 0 < v <= 1e-2
    }
    found = [
        (i, eqn, sums[_variable(eqn)])
        for i, eqn in case.each("sqrt", "rsqrt")
        if sums.get(_variable(eqn))
    ]
    for other in dict.fromkeys((*(v for *_, (_, _, v) in found), 1e-8, 1e-10)) if found else ():
        changes: dict[int, Any] = {}
        for i, eqn, (j, k, _) in found:
            changes[j] = with_operand(k, jnp.zeros_like)
            inverse = eqn.primitive.name == "rsqrt"

            def root(
                eqn: core.JaxprEqn, xs: Sequence[Any], inverse: bool = inverse, eps: float = other
            ) -> list[Any]:
                y = jnp.sqrt(xs[0]) + eps
                return [1 / y if inverse else y]

            changes[i] = root
        yield f"eps={short(other)} outside of the root", changes


def added(case: ModuleBlock) -> Iterator[Attempt]:
    """A small number added to what is divided by."""
    for i, eqn in case.each("div"):
        if isinstance(eqn.invars[1], core.Var):
            text = f"adding 1e-6 to what is divided by{at(eqn)} restores parity"
            yield Attempt({i: with_operand(1, lambda x: x + 1e-6)}, text)


def factors(case: ModuleBlock) -> Iterator[Attempt]:
    """The result times 2 or half of it, and its negative."""
    last = len(case.block.equations) - 1
    for factor in (2.0, 0.5, -1.0) if last >= 0 else ():
        hint = (
            " (optax.l2_loss is half of torch's MSELoss)"
            if factor == 2.0 and _of_squares(case)
            else ""
        )
        yield Attempt({last: times(factor)}, f"a factor of {factor:g} restores parity{hint}")


def _of_squares(case: ModuleBlock) -> bool:
    """Say whether the result is a square, a sum or mean of squares, or a multiple of these."""
    made, atom = case.producers(), case.block.output
    while isinstance(atom, core.Var) and atom in made:
        eqn = made[atom]
        name, read = eqn.primitive.name, {v for v in eqn.invars if isinstance(v, core.Var)}
        if (
            name == "square"
            or eqn.params.get("y") == 2
            or (name == "mul" and eqn.invars[0] is eqn.invars[1])
        ):
            return True
        if name not in _SCALED or len(read) != 1:
            return False
        (atom,) = read
    return False
