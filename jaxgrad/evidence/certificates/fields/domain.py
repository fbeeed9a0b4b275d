"""The values and operations with which `certify` runs both functions in finite fields.

Values are those of `jaxgrad.evidence.certificates.fields.values`; the rules of primitives stand in
the modules beside this one. Comparisons have two readings. Relaxed, the truth of d > 0 is a random
field element, one and the same for the same d, and a choice between two cases is the straight line
through both: what holds for it holds for either case. Sampled, d > 0 says whether d is a square.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgrad.evidence.certificates.fields import signs
from jaxgrad.evidence.certificates.fields.coins import Coins
from jaxgrad.evidence.certificates.fields.lines import Lines
from jaxgrad.evidence.certificates.fields.modular import Draws, Modulus
from jaxgrad.evidence.certificates.fields.surds import with_surds
from jaxgrad.evidence.certificates.fields.values import (
    BRANCH,
    CONSTANT,
    CUT,
    GATE,
    LOGS,
    OPAQUE,
    PARTIAL,
    PIVOT,
    STEP,
    Exact,
    FieldValues,
    aligned,
    either,
)
from jaxgrad.jaxprs.cost import Meter, cost
from jaxgrad.jaxprs.domain import Domain, Rule, UnsupportedError, describe
from jaxgrad.jaxprs.rationals import distinct, rationals

_OVERFLOWING = frozenset(
    "abs add add_any cumprod cumsum dot_general integer_pow mul neg pow reduce_prod reduce_sum "
    "scatter-add scatter-sub square sub".split()
)


_SINGLE = (("inf", np.int8), ("taint", np.uint64), ("sign", np.uint8))


class FieldDomain(Domain):
    """Numbers in finite fields; the rules of primitives stand in the modules beside this one.

    Args:
        draws: the fields.
        rules: for each primitive a function (domain, eqn, *operands).
        relaxed: the reading of comparisons.
        orders: for the matrices that are factorised, one after the other, orders of rows; as they
            stand where it ends.
        rooted: whether the program has roots, of which only those draws tell in which all
            logarithms exist.
        skip: tell apart the coins after so many, and not the first.
        meter: counts the work.
        two: carry numbers modulo q, which only exponentials need.
        logs: compute logarithms modulo q exactly, which takes a while, instead of at random.
        lines: where sampled comparisons follow the order of numbers that differ by constants.
    """

    def __init__(
        self,
        draws: Draws,
        rules: Mapping[str, Rule],
        *,
        relaxed: bool,
        two: bool,
        logs: bool = False,
        orders: Sequence[Sequence[int]] = (),
        rooted: bool = True,
        skip: int = 0,
        meter: Meter | None = None,
        lines: Lines | None = None,
    ) -> None:
        """Start without coins."""
        self.rules = {name: partial(rule, self) for name, rule in rules.items()}
        self.draws, self.relaxed, self.two, self.logs, self.lines = draws, relaxed, two, logs, lines
        self.coins = Coins(skip)
        self.matrices: dict[bytes, tuple[int, ...]] = {}
        self._orders, self.rooted, self.meter = orders, rooted, meter
        self._hashes: dict[str, int] = {}

    def rule(self, eqn: Any, operands: Sequence[Any]) -> Rule | None:
        """Return the rule; refuse arithmetic of integers that were floats, which may overflow."""
        if self.meter is not None:
            self.meter.charge(cost(eqn, self.draws.count))
        if eqn.primitive.name in _OVERFLOWING and np.issubdtype(
            eqn.outvars[0].aval.dtype, np.integer
        ):
            for x in operands:
                if isinstance(x, FieldValues) and x.taint is not None and (x.taint & CUT).any():
                    raise UnsupportedError(f"{describe(eqn)} may overflow unknown integers")
        return super().rule(eqn, operands)

    # --- making values ---

    def variable(self, shape: tuple[int, ...]) -> FieldValues:
        """Draw the entries of an input."""
        p, q = self.draws.uniform(shape)
        return FieldValues(p, q if self.two else None)

    def constant(self, array: Any) -> Any:
        """Keep integers and booleans, and turn floats into fractions."""
        array = np.asarray(array)
        if not jnp.issubdtype(array.dtype, jnp.floating):
            return array
        exact = Exact(*rationals(array))
        return exact if exact.meant or array.size > 64 else with_surds(self, array, exact)

    def lift(self, value: Any) -> FieldValues:
        """Return the field values of a known value."""
        if isinstance(value, FieldValues):
            return value
        if isinstance(value, Exact):
            array, meant = value.array, value.meant
        else:
            array, meant = value.astype(object), True
        objects, which = distinct(array)
        numbers = [x if isinstance(x, (Fraction, int)) else 0 for x in objects]
        infinite = np.array([0.0 if isinstance(x, (Fraction, int)) else float(x) for x in objects])[
            which
        ]
        taint = None if meant else np.full(array.shape, CONSTANT)
        bad = np.isnan(infinite)
        return FieldValues(
            self._reduce(self.draws.p, numbers, which),
            self._reduce(self.draws.q, numbers, which) if self.two else None,
            np.broadcast_to(bad, (self.draws.count, *array.shape)) if bad.any() else None,
            np.sign(infinite).astype(np.int8) if np.isinf(infinite).any() else None,
            taint,
            signs.of(array)
            | (signs.TRUTH if getattr(value, "dtype", None) == np.bool_ else np.uint8(0)),
        )

    def _reduce(self, modulus: Modulus, numbers: Sequence[Any], which: np.ndarray) -> np.ndarray:
        """Return numbers[which] modulo the primes."""
        columns = [modulus.fraction(int(x.numerator), int(x.denominator)) for x in numbers]
        return (
            np.stack(columns, 1)[:, which]
            if columns
            else np.zeros((self.draws.count, *which.shape), np.int64)
        )

    def rearrange(self, operands: Sequence[Any], index: np.ndarray) -> Any:
        """Gather entries; outside (−1) lies NaN."""
        if all(isinstance(x, (Exact, np.ndarray)) for x in operands):
            pool = [
                x.array.ravel() if isinstance(x, Exact) else x.astype(object).ravel()
                for x in operands
            ]
            meant = all(x.meant for x in operands if isinstance(x, Exact))
            everything = np.concatenate([*pool, np.array([float("nan")], object)])
            return Exact(np.asarray(everything[index], object), meant)
        values = [self.lift(x) for x in operands]
        outside = index < 0

        def gather(channel: str, empty: Any, lead: int, dtype: Any) -> np.ndarray | None:
            parts = [getattr(v, channel) for v in values]
            if all(part is None for part in parts):
                return None
            shapes = [(lead, v.p[0].size) for v in values]
            flat = [
                np.full(s, empty, dtype) if x is None else x.reshape(s)
                for x, s in zip(parts, shapes, strict=True)
            ]
            return np.concatenate(flat, 1)[:, index]

        count = self.draws.count
        bad = gather("bad", False, count, bool)
        if outside.any():
            bad = np.broadcast_to(outside, (count, *index.shape)) if bad is None else bad | outside
        single = {c: gather(c, 0, 1, t) for c, t in _SINGLE}
        return FieldValues(
            gather("p", 0, count, np.int64),  # type: ignore[arg-type]  # p is never absent
            gather("q", 0, count, np.int64),
            bad,
            *(None if x is None else x[0] for x in single.values()),
        )

    # --- arithmetic ---

    def elementwise(
        self, operation: Callable[..., np.ndarray], *operands: Any, bits: np.uint64 | None = None
    ) -> FieldValues:
        """Apply operation(modulus, *values) modulo p and modulo q; infinities become undefined."""
        values = aligned([self.settled(x) for x in operands])
        p, q = self.on_both(operation, *values)
        return FieldValues(p, q, *self.about(values, p.shape[1:], bits))

    def on_both(self, operation: Callable[..., Any], *values: FieldValues) -> tuple[Any, Any]:
        """Apply operation(modulus, *numbers) modulo p and, where they are carried, modulo q."""
        p = operation(self.draws.p, *(v.p for v in values))
        return p, operation(self.draws.q, *(v.q for v in values)) if self.two else None

    def about(
        self, values: Sequence[FieldValues], shape: tuple[int, ...], bits: Any = None
    ) -> tuple[Any, None, Any]:
        """Unite what aligned values carry besides numbers: bad, no inf, taint with more bits."""
        bad = taint = None
        for v in values:
            bad, taint = either(bad, v.bad), either(taint, v.taint)
        if bits is not None:
            taint = either(np.full(shape, bits), taint)
        if bad is not None:
            bad = np.broadcast_to(bad, (self.draws.count, *shape))
        return bad, None, None if taint is None else np.broadcast_to(taint, shape)

    def settled(self, x: Any) -> FieldValues:
        """Lift a value and make its infinities bad."""
        x = self.lift(x)
        if x.inf is None:
            return x
        infinite = np.broadcast_to(x.inf != 0, x.p.shape)
        return replace(x, bad=infinite if x.bad is None else x.bad | infinite, inf=None)

    def function(self, name: str, *operands: Any, bits: np.uint64 = OPAQUE) -> FieldValues:
        """Apply an uninterpreted function: the same arguments give the same value."""
        values = aligned([self.settled(x) for x in operands])
        p, q = self.hashed(name, *(v.p for v in values))
        return FieldValues(p, q, *self.about(values, p.shape[1:], bits))

    def hashed(self, name: str, *keys: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return fixed random numbers for arguments, modulo p and, where carried, modulo q."""
        keys = tuple(np.broadcast_arrays(*keys))
        self._hashes[name] = self._hashes.get(name, 0) + keys[0][0].size
        p, q = self.draws.hashed(name, *keys)
        return p, q if self.two else None

    def collisions(self, everything: bool) -> float:
        """Return how many arguments could be taken for one another, of comparisons or of all."""
        pairs = 0 if self.lines is None else self.lines.pairs * len(self.lines.steps)
        return pairs + sum(
            n * n / 2
            for name, n in self._hashes.items()
            if everything or name in ("positive", "equal")
        )

    # --- coins ---

    def condition(self, kind: str, x: FieldValues, positive: np.ndarray) -> np.ndarray:
        """Return the taint of a root or logarithm of x, whose sign the draws decide."""
        nonnegative = signs.known(x.sign, signs.NONNEGATIVE, x.shape)
        may_fail = ~nonnegative if kind == "root" else ~nonnegative | self.may_vanish(x)
        coin = (
            LOGS
            if kind == "log" and not self.rooted
            else self.coins.toss(kind, x.p, x.bad, positive)
        )
        taint = coin | np.where(may_fail, PARTIAL, np.uint64(0))
        return taint if x.taint is None else taint | x.taint

    def may_vanish(self, x: FieldValues) -> np.ndarray:
        """Say for which entries x may be zero on a whole region."""
        if x.taint is None:
            return np.zeros(x.shape, bool)
        return ((x.taint & (GATE | STEP)) != 0) & ~signs.known(x.sign, signs.NONZERO, x.shape)

    def pivot_order(self, matrix: np.ndarray, rows: int) -> list[int]:
        """Return the order in which a matrix's rows are eliminated, the same for equal matrices."""
        key = matrix[:16].tobytes()
        if key not in self.matrices:
            i = len(self.matrices)
            self.matrices[key] = (
                tuple(self._orders[i]) if i < len(self._orders) else tuple(range(rows))
            )
        return list(self.matrices[key])

    def may_tie(self, x: FieldValues) -> np.ndarray:
        """Say for which entries different field values may be equal reals on a whole region."""
        if x.taint is None:
            return np.zeros(x.shape, bool)
        return (x.taint & (BRANCH | PIVOT | STEP | OPAQUE)) != 0
