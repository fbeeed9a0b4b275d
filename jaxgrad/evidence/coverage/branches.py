"""The branches of a program: where they stand, and which outcomes a run of it takes.

A branch is an operation that does one thing at some numbers and another at others: a comparison, a
maximum, an absolute value, a clamp, a switch, an index that is computed. Each has outcomes, such as
"true" and "false". `branches` lists them from the program alone. `Watched` runs a program in numpy
and notes for every branch how far each entry is from every outcome: its *margin*, positive where
the outcome is taken. To see whether an outcome matters, `Watched` may also *exchange* it: take the
other outcome at some entries, and leave all else as it is. An outcome is covered by a run only if
exchanging it alone changes a result, as in the modified condition/decision coverage of avionics
(Chilenski and Miller 1994); a branch whose result is thrown away has not been looked at.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax.extend import core

from jaxgrad.jaxprs.domain import call_path, location
from jaxgrad.jaxprs.intervals import Interval, possible, run
from jaxgrad.jaxprs.numpy_run import FAILURES, Floats
from jaxgrad.jaxprs.primitives import shape_of
from jaxgrad.jaxprs.walker import NESTED, live

Key = tuple[int, ...]
"""Which equation: the identities of the calls it stands in, and its own."""

WHOLE = frozenset(("floor_divide", "remainder", "fmod", "divmod", "trunc_remainder"))
"""Functions of JAX's arithmetic, whose own branches are not the user's."""
MOST_INDICES = 64
"""Arrays of more places than this are indexed as sampled: not every place is a case of its own."""
COMPARISONS = frozenset(("lt", "le", "gt", "ge", "eq", "ne"))
_SIGNED = {"abs": np.negative, "sign": np.negative}
_TWO = frozenset(("max", "min"))


@dataclass(frozen=True)
class Branch:
    """One branch of a program.

    Attributes:
        key: which equation it is.
        primitive: its operation.
        line: ``file:line`` of the user's code.
        outcomes: the names of its outcomes.
        equality: whether one outcome is a point, met only where numbers are equal.
    """

    key: Key
    primitive: str
    line: str
    outcomes: tuple[str, ...]
    equality: bool = False


def branches(closed: core.ClosedJaxpr, varying: Sequence[bool]) -> list[Branch]:
    """List the branches of a program that depend on the inputs that are marked as varying.

    >>> import jax, jax.numpy as jnp
    >>> relu = jax.make_jaxpr(lambda x: jnp.where(x > 0, x, 0.0).sum())(np.ones(3))
    >>> [(b.primitive, b.outcomes) for b in branches(relu, [True])]
    [('gt', ('true', 'false'))]
    """
    found: dict[Key, Branch] = {}
    _list(closed.jaxpr, list(varying), (), found)
    return list(found.values())


def _list(
    jaxpr: core.Jaxpr, varying: Sequence[bool], path: Key, found: dict[Key, Branch]
) -> list[bool]:
    """Enter the branches of a program; return which of its outputs vary."""
    moved = {var for var, marked in zip(jaxpr.invars, varying, strict=True) if marked}
    for eqn in live(jaxpr):
        marked = [not isinstance(atom, core.Literal) and atom in moved for atom in eqn.invars]
        inner, key = _programs(eqn), (*path, id(eqn))
        if eqn.params.get("name") in WHOLE:
            moved.update(eqn.outvars if any(marked) else ())
            continue
        if inner:
            outputs = _nested(eqn, inner, marked, key, found)
            moved.update(var for var, some in zip(eqn.outvars, outputs, strict=True) if some)
        elif any(marked):
            moved.update(eqn.outvars)
        outcomes = _outcomes(eqn, marked)
        if outcomes:
            equality = eqn.primitive.name in ("eq", "ne") and _is_real(eqn.invars[0])
            found[key] = Branch(key, eqn.primitive.name, location(eqn), outcomes, equality)
    return [not isinstance(atom, core.Literal) and atom in moved for atom in jaxpr.outvars]


def _programs(eqn: core.JaxprEqn) -> list[core.Jaxpr]:
    """Return the programs that an equation runs, rules of differentiation left aside."""
    if eqn.primitive.name == "custom_linear_solve":
        return [eqn.params["jaxprs"].solve.jaxpr]
    found = []
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, (core.ClosedJaxpr, core.Jaxpr)):
                found.append(getattr(item, "jaxpr", item))
    return found


def _nested(
    eqn: core.JaxprEqn,
    inner: Sequence[core.Jaxpr],
    marked: list[bool],
    key: Key,
    found: dict[Key, Branch],
) -> list[bool]:
    name = eqn.primitive.name
    if name == "cond":
        outputs = [_list(branch, marked[1:], key, found) for branch in inner]
        return [marked[0] or any(some) for some in zip(*outputs, strict=True)]
    if name == "while":  # a test that ends a loop is no case of the mathematics
        return [any(marked)] * len(eqn.outvars)
    if name == "scan":  # what is carried varies once anything does
        any_input = any(marked)
        for program in inner:
            _list(program, [any_input] * len(program.invars), key, found)
        return [any_input] * len(eqn.outvars)
    if len(inner) == 1 and len(inner[0].invars) == len(marked):
        return _list(inner[0], marked, key, found)
    for program in inner:
        _list(program, [any(marked)] * len(program.invars), key, found)
    return [any(marked)] * len(eqn.outvars)


def _is_real(atom: Any) -> bool:
    return np.issubdtype(atom.aval.dtype, np.floating)


def _is_infinite(atom: Any) -> bool:
    return isinstance(atom, core.Literal) and bool(np.all(np.isinf(np.asarray(atom.val, float))))


def _outcomes(eqn: core.JaxprEqn, marked: Sequence[bool]) -> tuple[str, ...]:
    """Return the outcomes of an equation, none where it is no branch or does not vary."""
    name = eqn.primitive.name
    if not any(marked):
        return ()
    if name in ("eq", "ne") and eqn.invars[0] is eqn.invars[1]:
        return ()  # is it a number at all?
    if name in COMPARISONS:
        return ("true", "false")
    if name in _TWO:
        return () if any(map(_is_infinite, eqn.invars)) else ("the first", "the second")
    if name in _SIGNED and _is_real(eqn.invars[0]):
        return ("positive", "negative")
    if name == "clamp":
        return ("inside", "below", "above")
    if name == "cond" and marked[0]:
        return tuple(f"branch {i}" for i in range(len(eqn.params["branches"])))
    if (name == "dynamic_slice" and any(marked[1:])) or (name == "gather" and marked[1]):
        places = _places(eqn)
        return tuple(f"index {i}" for i in range(places)) if 1 < places <= MOST_INDICES else ()
    return ()


def _places(eqn: core.JaxprEqn) -> int:
    """Return how many places along its first indexed axis an indexing operation chooses among."""
    shape, sizes = shape_of(eqn.invars[0]), eqn.params["slice_sizes"]
    axis = 0
    if eqn.primitive.name == "gather":
        axes = eqn.params["dimension_numbers"].start_index_map
        axis = axes[0] if axes else 0
    return shape[axis] - sizes[axis] + 1 if shape else 0


Exchange = tuple[Key, str]
"""A branch, and the outcome that is not to be taken."""


@dataclass
class Run:
    """What a run of a program took.

    Attributes:
        outputs: the results.
        margins: {(branch, outcome): margin of each entry}, positive where the outcome is taken; of
            a branch in a loop, those of all its steps, stacked.
    """

    outputs: list[np.ndarray]
    margins: dict[tuple[Key, str], list[np.ndarray]] = field(default_factory=dict)

    def best(self, key: Key, outcome: str) -> float:
        """Return the largest margin of an outcome; −∞ where the branch was not reached."""
        every = self.margins.get((key, outcome), [])
        return max((float(np.max(m)) for m in every if m.size), default=-np.inf)


class Watched(Floats):
    """Floating point that notes the margins of all branches, and may exchange one outcome.

    Args:
        wanted: the branches, by their keys.
        exchange: which outcome to exchange, if any.
    """

    def __init__(self, wanted: dict[Key, Branch], exchange: Exchange | None = None) -> None:
        """Set up; nothing is noted yet."""
        super().__init__()
        self.wanted, self.exchange = wanted, exchange
        self.margins: dict[tuple[Key, str], list[np.ndarray]] = {}
        self.steps = 0

    def rule(self, eqn: core.JaxprEqn, operands: Sequence[Any]) -> Any:
        """Run the branch of a `cond` that is chosen, or another one where it is exchanged."""
        key = (*call_path(), id(eqn))
        if eqn.primitive.name != "cond" or key not in self.wanted:
            return super().rule(eqn, operands)
        branch = self.wanted[key]
        margins = _chosen(operands, branch)
        for outcome, margin in margins.items():
            self.margins.setdefault((key, outcome), []).append(margin)
        which = int(np.argmax([m for m in margins.values()]))
        if self.exchange is not None and self.exchange[:2] == (key, branch.outcomes[which]):
            which = (which + 1) % len(branch.outcomes)
        index = np.asarray(which, np.int32)
        return lambda eqn, _, *rest: NESTED["cond"](eqn, [index, *rest], self)

    def computed(self, eqn: core.JaxprEqn, operands: Sequence[np.ndarray], array: Any) -> Any:
        """Return the value of one result, exchanged where that is asked for."""
        value = super().computed(eqn, operands, array)
        self.steps += 1
        key = (*call_path(), id(eqn))
        branch = self.wanted.get(key)
        if branch is None or not isinstance(value, np.ndarray):
            return value
        margins = MARGINS[branch.primitive](operands, branch)
        for outcome, margin in margins.items():
            self.margins.setdefault((key, outcome), []).append(np.asarray(margin))
        if self.exchange is None or self.exchange[0] != key:
            return value
        outcome = self.exchange[1]
        taken = margins[outcome] > 0
        taken = (
            np.broadcast_to(taken, value.shape) if taken.shape in ((), value.shape) else taken.any()
        )
        other = EXCHANGED[branch.primitive](operands, value, outcome)
        return np.where(taken, other, value).astype(value.dtype)


def _compared(operands: Sequence[np.ndarray], branch: Branch) -> dict[str, np.ndarray]:
    a, b = (np.asarray(x, float) for x in operands)
    with np.errstate(all="ignore"):
        more, less = a - b, b - a
        close = -np.abs(more)
    # at a tie "not less" holds, with the least margin that is one
    least = np.finfo(float).tiny
    strict = {"lt": less, "gt": more}
    if branch.primitive in strict:
        true = strict[branch.primitive]
        return {"true": true, "false": np.where(true == 0, least, -true)}
    if branch.primitive in ("le", "ge"):
        false = more if branch.primitive == "le" else less
        return {"true": np.where(false == 0, least, -false), "false": false}
    equal = np.where(close == 0, least, close)
    names = ("true", "false") if branch.primitive == "eq" else ("false", "true")
    return {names[0]: equal, names[1]: -close}


def _larger(operands: Sequence[np.ndarray], branch: Branch) -> dict[str, np.ndarray]:
    a, b = (np.asarray(x, float) for x in operands)
    first = a - b if branch.primitive == "max" else b - a
    return {"the first": first, "the second": -first}


def _signs(operands: Sequence[np.ndarray], branch: Branch) -> dict[str, np.ndarray]:
    x = np.asarray(operands[0], float)
    return {"positive": x, "negative": -x}


def _clamped(operands: Sequence[np.ndarray], branch: Branch) -> dict[str, np.ndarray]:
    low, x, high = (np.asarray(y, float) for y in operands)
    return {"inside": np.minimum(x - low, high - x), "below": low - x, "above": x - high}


def _chosen(operands: Sequence[np.ndarray], branch: Branch) -> dict[str, np.ndarray]:
    index = np.asarray(operands[0 if branch.primitive == "cond" else 1], float)
    index = index[..., 0] if branch.primitive == "gather" and index.ndim else index
    index = np.clip(index, 0, len(branch.outcomes) - 1)
    return {name: 0.5 - np.abs(index - i) for i, name in enumerate(branch.outcomes)}


MARGINS: dict[str, Callable[[Sequence[np.ndarray], Branch], dict[str, np.ndarray]]] = {
    **dict.fromkeys(COMPARISONS, _compared),
    **dict.fromkeys(_TWO, _larger),
    **dict.fromkeys(_SIGNED, _signs),
    "clamp": _clamped,
    "dynamic_slice": _chosen,
    "gather": _chosen,
}
"""How far the entries are from each outcome of a branch, by its operation."""


def _elsewhere(operands: Sequence[np.ndarray], value: np.ndarray) -> np.ndarray:
    """Return numbers of an indexed array that an index did not choose, or at least other ones."""
    every = np.unique(operands[0])
    other = every[(np.searchsorted(every, value) + 1) % len(every)]
    return np.where(other == value, value + 1, other)


EXCHANGED: dict[str, Callable[[Sequence[np.ndarray], np.ndarray, str], Any]] = {
    **dict.fromkeys(COMPARISONS, lambda operands, value, outcome: ~value),
    **dict.fromkeys(
        _TWO, lambda operands, value, outcome: operands[1 if outcome == "the first" else 0]
    ),
    **dict.fromkeys(_SIGNED, lambda operands, value, outcome: -value),
    "clamp": lambda operands, value, outcome: (
        operands[1]
        if outcome != "inside"
        else np.where(value == operands[0], operands[2], operands[0])
    ),
    "dynamic_slice": lambda operands, value, outcome: _elsewhere(operands, value),
    "gather": lambda operands, value, outcome: _elsewhere(operands, value),
}
"""The result that an operation would have with the other outcome."""


def impossible(
    closed: core.ClosedJaxpr, inputs: Sequence[Interval], wanted: Iterable[Branch]
) -> set[tuple[Key, str]]:
    """Return the outcomes that no input between some numbers can have.

    >>> import jax, jax.numpy as jnp
    >>> from jaxgrad.jaxprs.intervals import anything
    >>> program = jax.make_jaxpr(lambda x: jnp.where(jnp.abs(x) >= 0, x, 0.0))(1.0)
    >>> listed = branches(program, [True])
    >>> [
    ...     (b.primitive, o)
    ...     for b in listed
    ...     for o in b.outcomes
    ...     if (b.key, o) in impossible(program, [anything()], listed)
    ... ]
    [('ge', 'false')]
    """
    by_key, found = {branch.key: branch for branch in wanted}, set()
    seen: dict[Key, set[str]] = {}

    def see(eqn: core.JaxprEqn, operands: Sequence[Interval]) -> None:
        key = (*call_path(), id(eqn))
        if key in by_key:
            seen.setdefault(key, set()).update(_possible(by_key[key], operands))

    try:
        run(closed, inputs, see)
    except FAILURES:
        return found
    for key, outcomes in seen.items():
        found |= {(key, outcome) for outcome in by_key[key].outcomes if outcome not in outcomes}
    return found


def _possible(branch: Branch, operands: Sequence[Interval]) -> set[str]:
    name = branch.primitive
    if name in COMPARISONS:
        some = zip(("true", "false"), possible(name, *operands), strict=True)
    elif name in _TWO:
        a, b = operands if name == "max" else operands[::-1]
        some = zip(branch.outcomes, (a.high > b.low, b.high > a.low), strict=True)
    elif name in _SIGNED:
        some = zip(branch.outcomes, (operands[0].high > 0, operands[0].low < 0), strict=True)
    elif name == "clamp":
        low, x, high = operands
        inside = x.high > low.low and x.low < high.high
        some = zip(branch.outcomes, (inside, x.low < low.high, x.high > high.low), strict=True)
    else:
        return set(branch.outcomes)
    return {outcome for outcome, may in some if may}
