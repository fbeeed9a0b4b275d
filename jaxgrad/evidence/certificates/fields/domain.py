"""The domain of residues, in which `certify` runs both functions.

Its values are those of `jaxgrad.evidence.certificates.fields.values`. Comparisons have two
readings. Relaxed, the truth of d > 0 is a random field element, one and the same for the same d,
and a choice between two cases is the straight line through both: what holds for it holds for either
case. Sampled, d > 0 says whether d is a square.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgrad.evidence.certificates.fields import signs
from jaxgrad.evidence.certificates.fields.fields import Draws, Modulus
from jaxgrad.evidence.certificates.fields.lines import Lines
from jaxgrad.evidence.certificates.fields.values import (
    BRANCH,
    COINS,
    CONSTANT,
    CUT,
    GATE,
    LOGS,
    MANY,
    OPAQUE,
    PARTIAL,
    PIVOT,
    STEP,
    Coin,
    Exact,
    Residues,
    aligned,
    either,
)
from jaxgrad.jaxprs.cost import Meter, cost
from jaxgrad.jaxprs.rationals import distinct, rational, rationals, surd
from jaxgrad.jaxprs.walker import Domain, Rule, UnsupportedError, describe

_OVERFLOWING = frozenset(
    "abs add add_any cumprod cumsum dot_general integer_pow mul neg pow reduce_prod reduce_sum "
    "scatter-add scatter-sub "
    "square sub".split()
)


_SINGLE = (("inf", np.int8), ("taint", np.uint64), ("sign", np.uint8))


def _meant(x: float) -> bool:
    return not np.isfinite(x) or rational(float(x))[1]


class ResidueDomain(Domain):
    """The domain of residues; its rules stand in the package's other modules.

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
        two: carry residues modulo q, which only exponentials need.
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
        self.coins: list[Coin] = []
        self.matrices: dict[bytes, tuple[int, ...]] = {}
        self._orders, self.rooted, self.skip, self.meter = orders, rooted, skip, meter
        self._hashes: dict[str, int] = {}
        self._numbers: dict[Any, int] = {}

    def rule(self, eqn: Any, operands: Sequence[Any]) -> Rule | None:
        """Return the rule for an equation; refuse arithmetic of integers that were floats, which
        may overflow.
        """
        if self.meter is not None:
            self.meter.charge(cost(eqn, self.draws.count))
        if eqn.primitive.name in _OVERFLOWING and np.issubdtype(
            eqn.outvars[0].aval.dtype, np.integer
        ):
            for x in operands:
                if isinstance(x, Residues) and x.taint is not None and (x.taint & CUT).any():
                    raise UnsupportedError(
                        f"{describe(eqn)} may overflow integers that are not known"
                    )
        return super().rule(eqn, operands)

    # --- making values ---

    def variable(self, shape: tuple[int, ...]) -> Residues:
        """Draw the entries of an input."""
        p, q = self.draws.uniform(shape)
        return Residues(p, q if self.two else None)

    def constant(self, array: Any) -> Any:
        """Keep integers and booleans, and turn floats into fractions."""
        array = np.asarray(array)
        if not jnp.issubdtype(array.dtype, jnp.floating):
            return array
        exact = Exact(*rationals(array))
        return exact if exact.meant or array.size > 64 else self._surds(array, exact)

    def _surds(self, array: np.ndarray, exact: Exact) -> Any:
        """Replace constants such as √2 or 1/√(2π) by roots and powers of one unknown √π."""
        found = [(at, surd(float(x)) if not _meant(x) else None) for at, x in np.ndenumerate(array)]
        if not any(s for _, s in found):
            return exact
        value = self.lift(exact)
        bad = np.zeros(value.p.shape, bool)
        one = np.ones((self.draws.count, 1), np.int64)
        channels = []
        for modulus, residues, pi in zip(
            (self.draws.p, self.draws.q),
            (value.p, value.q),
            self.draws.hashed("root of pi", one),
            strict=True,
        ):
            if residues is None:
                break
            residues, pi = residues.copy(), modulus.power(pi[:, 0], 2)
            for at, s in found:
                if s:
                    root, exists = modulus.root(modulus.fraction(s[0].numerator, s[0].denominator))
                    entry = modulus.multiply(
                        root, modulus.power(pi if s[1] >= 0 else modulus.inverse(pi), abs(s[1]))
                    )
                    residues[:, *at] = entry if array[at] > 0 else modulus.reduce(-entry)
                    bad[:, *at] |= ~exists
            channels.append(residues)
        p, q = (*channels, None)[:2]
        return replace(value, p=p, q=q, bad=bad if bad.any() else None)

    def lift(self, value: Any) -> Residues:
        """Return residues of a known value."""
        if isinstance(value, Residues):
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
        return Residues(
            self._reduce(self.draws.p, numbers, which),
            self._reduce(self.draws.q, numbers, which) if self.two else None,
            np.broadcast_to(bad, (self.draws.count, *array.shape)) if bad.any() else None,
            np.sign(infinite).astype(np.int8) if np.isinf(infinite).any() else None,
            taint,
            signs.of(array)
            | (signs.TRUTH if getattr(value, "dtype", None) == np.bool_ else np.uint8(0)),
        )

    def _reduce(self, modulus: Modulus, numbers: Sequence[Any], which: np.ndarray) -> np.ndarray:
        """Return residues of numbers[which]."""
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
        return Residues(
            gather("p", 0, count, np.int64),  # type: ignore[arg-type]  # p is never absent
            gather("q", 0, count, np.int64),
            bad,
            *(None if x is None else x[0] for x in single.values()),
        )

    # --- arithmetic ---

    def elementwise(
        self, operation: Callable[..., np.ndarray], *operands: Any, bits: np.uint64 | None = None
    ) -> Residues:
        """Apply operation(modulus, *residues) to both residues; infinities are not understood and
        become bad.
        """
        values = aligned([self.settled(x) for x in operands])
        p = operation(self.draws.p, *(v.p for v in values))
        q = operation(self.draws.q, *(v.q for v in values)) if self.two else None
        return Residues(p, q, *self.about(values, p.shape[1:], bits))

    def about(
        self, values: Sequence[Residues], shape: tuple[int, ...], bits: Any = None
    ) -> tuple[Any, None, Any]:
        """Unite what aligned values carry besides residues: bad, no inf, and taint with additional
        bits.
        """
        bad = taint = None
        for v in values:
            bad, taint = either(bad, v.bad), either(taint, v.taint)
        if bits is not None:
            taint = either(np.full(shape, bits), taint)
        if bad is not None:
            bad = np.broadcast_to(bad, (self.draws.count, *shape))
        return bad, None, None if taint is None else np.broadcast_to(taint, shape)

    def settled(self, x: Any) -> Residues:
        """Lift a value and make its infinities bad."""
        x = self.lift(x)
        if x.inf is None:
            return x
        infinite = np.broadcast_to(x.inf != 0, x.p.shape)
        return replace(x, bad=infinite if x.bad is None else x.bad | infinite, inf=None)

    def function(self, name: str, *operands: Any, bits: np.uint64 = OPAQUE) -> Residues:
        """Apply an uninterpreted function: the same arguments give the same value, and that is
        all.
        """
        values = aligned([self.settled(x) for x in operands])
        p, q = self.hashed(name, *(v.p for v in values))
        return Residues(p, q, *self.about(values, p.shape[1:], bits))

    def hashed(self, name: str, *keys: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return fixed random residues for arguments, modulo p and, where they are carried, modulo
        q.
        """
        keys = tuple(np.broadcast_arrays(*keys))
        self._hashes[name] = self._hashes.get(name, 0) + keys[0][0].size
        p, q = self.draws.hashed(name, *keys)
        return p, q if self.two else None

    def collisions(self, everything: bool) -> float:
        """Return how many pairs of arguments could be taken for one another, of comparisons or of
        everything.
        """
        pairs = 0 if self.lines is None else self.lines.pairs * len(self.lines.steps)
        return pairs + sum(
            n * n / 2
            for name, n in self._hashes.items()
            if everything or name in ("positive", "equal")
        )

    # --- coins ---

    def toss(
        self, kind: str, eqn: Any, key: np.ndarray, bad: np.ndarray | None, heads: np.ndarray
    ) -> np.ndarray:
        """Return the bit of a coin for each entry: a branch decided by `key`, (draw, *shape), that
        came up `heads`.
        """
        columns = np.ascontiguousarray(key[:16].reshape(min(len(key), 16), -1).T)
        names = columns.view(np.dtype((np.void, columns.itemsize * columns.shape[1]))).ravel()
        _, first, which = np.unique(names, return_index=True, return_inverse=True)
        coins = np.full(len(first), COINS)
        for i in np.argsort(first):
            at = int(first[i])
            good = np.ones(len(key), bool) if bad is None else ~bad.reshape(len(key), -1)[:, at]
            coins[i] = self._number(
                (kind, names[at].tobytes()), Coin(kind, good, heads.reshape(len(key), -1)[:, at])
            )
        return (np.uint64(1) << coins.astype(np.uint64))[which.ravel()].reshape(key.shape[1:])

    def _number(self, name: Any, coin: Coin) -> int:
        """Return the number of a coin, which is kept when it is met first; COINS for those that are
        not told apart.
        """
        if name not in self._numbers:
            if len(self.coins) >= COINS:
                return COINS
            self._numbers[name] = len(self._numbers) - self.skip
            if self._numbers[name] >= 0:
                self.coins.append(replace(coin, heads=coin.heads.copy()))
        return self._numbers[name] if self._numbers[name] >= 0 else COINS

    def ordered(self, d: Residues) -> tuple[np.ndarray, np.ndarray]:
        """Return the truth of d > 0 as the order of numbers on lines has it, 0 or 1, and the coins
        that it depends on.
        """
        lines, columns = self.lines, d.p.reshape(self.draws.count, -1)
        assert lines is not None
        truth, taint = np.zeros(columns.shape, np.int64), np.zeros(columns.shape[1], np.uint64)
        always = np.ones(self.draws.count, bool)
        lines.comparisons += 1
        for i, column in enumerate(columns.T):
            above, names, known = lines.positive((lines.comparisons, i), column)
            truth[:, i] = above
            numbers = [
                self._number(("line", name), Coin("comparison", always, always, lines.weight(name)))
                for name in sorted(names)
            ]
            taint[i] = sum(
                (np.uint64(1) << np.uint64(n) for n in {*numbers, *([] if known else [COINS])}),
                np.uint64(0),
            )
        return truth.reshape(d.p.shape), taint.reshape(d.shape)

    def condition(self, kind: str, eqn: Any, x: Residues, positive: np.ndarray) -> np.ndarray:
        """Return the taint of a root or logarithm of x, which draws decide to be positive or
        not.
        """
        nonnegative = signs.known(x.sign, signs.NONNEGATIVE, x.shape)
        may_fail = ~nonnegative if kind == "root" else ~nonnegative | self.may_vanish(x)
        coin = (
            LOGS
            if kind == "log" and not self.rooted
            else self.toss(kind, eqn, x.p, x.bad, positive)
        )
        taint = coin | np.where(may_fail, PARTIAL, np.uint64(0))
        return taint if x.taint is None else taint | x.taint

    def may_vanish(self, x: Residues) -> np.ndarray:
        """Say for which entries x may be zero on a whole region."""
        if x.taint is None:
            return np.zeros(x.shape, bool)
        return ((x.taint & (GATE | STEP)) != 0) & ~signs.known(x.sign, signs.NONZERO, x.shape)

    def coins_of(self, taint: np.uint64) -> list[Coin] | None:
        """Return the coins in a set of bits; None when there are more than can be told apart."""
        if taint & MANY:
            return None
        return [
            coin
            for i, coin in enumerate(self.coins[:COINS])
            if taint >> np.uint64(i) & np.uint64(1)
        ]

    def pivot_order(self, matrix: np.ndarray, rows: int) -> list[int]:
        """Return the order in which the rows of a matrix are eliminated, always the same for the
        same matrix.
        """
        key = matrix[:16].tobytes()
        if key not in self.matrices:
            i = len(self.matrices)
            self.matrices[key] = (
                tuple(self._orders[i]) if i < len(self._orders) else tuple(range(rows))
            )
        return list(self.matrices[key])

    def may_tie(self, x: Residues) -> np.ndarray:
        """Say for which entries two different residues may stand for values that are equal on a
        whole region.
        """
        if x.taint is None:
            return np.zeros(x.shape, bool)
        return (x.taint & (BRANCH | PIVOT | STEP | OPAQUE)) != 0
