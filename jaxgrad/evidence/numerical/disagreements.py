"""Who is right where closed form and autodiff disagree: differences of the loss decide.

The worst entries are differentiated by extrapolated differences, from both sides and centrally.
Where these side with the closed form, the loss's own differentiation rule is wrong, or autodiff has
lost a derivative at a kink that cancels. At a kink, a closed form that takes another value between
the two one-sided derivatives is a note, and is refuted only where the claim's own domain draws the
kink. Where differences are too coarse, autodiff is believed if it used JAX's rules alone. It is
believed too where it disagrees with the closed form a little aside of the point: then the loss
varies too fast for differences.
"""

from typing import Any

import jax
import numpy as np

from jaxgrad.claims.shapes import sizes_text
from jaxgrad.evidence.noise.random_rounding import movement
from jaxgrad.evidence.noise.rounding import COPIES, repeated
from jaxgrad.evidence.numerical.both_sides import Look
from jaxgrad.evidence.numerical.slopes import Slope, step_scales
from jaxgrad.evidence.numerical.summary import Summary
from jaxgrad.evidence.problem import labelled
from jaxgrad.jaxprs.programs import by_jax_alone, has_own_rules
from jaxgrad.runtime.options import check_options

SMALL = 2**16
"""Draws of up to so many numbers are differenced at several entries, and stacks of up to so many
hold further draws.
"""
ENTRIES = 8
"""So many entries are differenced, where the draw is small: each takes some twenty losses."""
ASIDE = 1e-7
"""How far aside of a point autodiff is looked at again, in units of an array's largest entry."""


def adjudicate(summary: Summary, look: Look, wrong: np.ndarray, where: str) -> None:
    """Let differences decide on the worst of the entries that are wrong."""
    error = np.where(wrong, look.error, -1.0)
    small = sum(np.size(leaf) for leaf in jax.tree.leaves(look.draw)) <= SMALL
    worst = [
        tuple(int(k) for k in np.unravel_index(i, error.shape))
        for i in np.argsort(error, axis=None)[::-1][: ENTRIES if small else 1]
        if error.flat[i] > 0
    ]
    moving = labelled({name: look.draw[name] for name in look.sides.wrt})
    inner = look.claimed.ndim - len(np.shape(moving[look.label]))
    slopes = _slopes_at(look, [index[inner:] for index in worst])
    program = look.sides.loss.program(look.draw)[0]
    trusted, sizes = by_jax_alone(program), sizes_text(look.sides.sizes)
    for row, index in enumerate(worst):
        c, r = float(look.claimed[index]), float(look.reference[index])
        off = abs(c - r)
        d, e, left, right, side = (
            part[row][index[:inner]]
            for part in (
                slopes.central,
                slopes.central_error,
                slopes.left,
                slopes.right,
                slopes.side_error,
            )
        )
        entry = look.label + (f"[{', '.join(map(str, index))}]" if index else "")
        told = f"{entry} at {sizes}{where}: closed form {c:.6g}, autodiff {r:.6g}"
        if side < off / 10 and abs(right - left) > max(10 * side, off / 10):
            low, high = min(left, right) - off / 10, max(left, right) + off / 10
            kink = f"{told}; a kink with one-sided derivatives {left:.6g} and {right:.6g}"
            if not low <= r <= high and low <= c <= high:
                summary.doubts.append(kink)
            elif where and low <= c <= high:
                summary.notes.append(kink)  # a convention, and nobody sizes_text that it matters
            else:
                summary.refuted.append(kink)
                return
        elif not e < off / 10 and not where and not has_own_rules(program):
            summary.refuted.append(told)
            return
        elif not e < off / 10:
            summary.doubts.append(f"{told}; differences do not converge there")
        elif abs(d - c) < off / 4 and (not trusted or _right_nearby(look, index, off)):
            summary.doubts.append(
                f"{told}, differences {d:.6g} like the closed form: the loss's own "
                f"differentiation rule is wrong there, or its stop_gradient is meant"
            )
        else:
            summary.refuted.append(f"{told}, differences {d:.6g}")
            return


def _right_nearby(look: Look, index: tuple[int, ...], off: float) -> bool:
    """Say whether autodiff agrees with the closed form a little aside of the point."""
    rng = np.random.default_rng(0)

    def aside(x: Any) -> np.ndarray:
        x = np.asarray(x)
        moves = (
            ASIDE
            * (np.abs(x).max(initial=0.0) or 1.0)
            * rng.uniform(0.5, 1, (COPIES, *x.shape))
            * rng.choice((-1, 1), x.shape)
        )
        return x + moves if np.issubdtype(x.dtype, np.floating) else still(x)

    def still(x: Any) -> np.ndarray:
        return repeated(x, COPIES)

    moved = {
        name: jax.tree.map(still if name in look.sides.discrete else aside, tree)
        for name, tree in look.draw.items()
    }
    claimed, reference, _ = look.sides(moved)
    error = np.abs(claimed[look.label] - reference[look.label])
    return bool(np.all(error[(slice(None), *index)] < off / 4))


def _slopes_at(look: Look, entries: list[tuple[int, ...]]) -> Slope:
    """Differentiate the loss by differences at some entries of an array."""
    moving = labelled({name: look.draw[name] for name in sorted(look.sides.wrt)})
    begin, shape = 0, np.shape(moving[look.label])
    for other, array in moving.items():
        if other == look.label:
            break
        begin += np.size(array)
    index = np.array([begin + int(np.ravel_multi_index(e, shape)) if e else begin for e in entries])
    total = sum(np.size(a) for a in moving.values())
    index = np.resize(index, ENTRIES)  # always as many, so that one compilation serves
    slopes = look.sides.prober.slopes(look.draw, index, np.zeros((0, total)), look.unit)
    # a loss whose large terms cancel exactly, as 1 − 1, looks free of rounding in its values
    return slopes.blur(
        movement(look.sides.loss, look.unit, look.draw, options=check_options()),
        step_scales(moving).min(initial=1.0),
    )
