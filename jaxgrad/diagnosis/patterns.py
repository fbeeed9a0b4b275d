"""The place in an array at which two arrays differ.

Places have names: the diagonal, blocks, a triangle, a row, a column, an entry, the entries at one
value of a label. The same names serve for a gradient and for a second moment of the mask.
`along_an_axis` finds rows or columns that are each scaled by a factor.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from jaxgrad.diagnosis import factors
from jaxgrad.diagnosis.cases import Case, uniform_inputs
from jaxgrad.diagnosis.cases import case as evaluated
from jaxgrad.diagnosis.hypothesis import Hypothesis, at, zero
from jaxgrad.diagnosis.proportions import ArrayOf, Cases, fitted
from jaxgrad.diagnosis.symbols import symbols


def places(shape: Sequence[int]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the sets of entries that have a name, each as (words, mask); simple ones first.

    >>> [words for words, _ in places((3, 3))][:3]
    ['on the diagonal', 'off the diagonal', 'above the diagonal']
    """
    if len(shape) == 2 and shape[0] == shape[1] and shape[0] > 1:
        row, column = np.indices(shape)
        yield "on the diagonal", row == column
        yield "off the diagonal", row != column
        yield "above the diagonal", row < column
        yield "below the diagonal", row > column
        yield "on and above the diagonal", row <= column
        yield "on and below the diagonal", row >= column
        for size in range(2, shape[0]):
            block = row // size == column // size
            if not block.all():
                yield f"in the diagonal blocks of size {size}", block
                yield (
                    f"in the diagonal blocks of size {size}, the diagonal itself left out",
                    block & (row != column),
                )
                yield f"outside the diagonal blocks of size {size}", ~block
    for axis, extent in enumerate(shape):
        kind, along = _line(len(shape), axis)
        for i in range(extent) if extent > 1 else ():
            mask = np.zeros(shape, bool)
            np.moveaxis(mask, axis, 0)[i] = True
            name = "the first" if i == 0 else "the last" if i == extent - 1 else None
            at_index = f"at [{i}]" if len(shape) == 1 else f"in {kind} {i}{along}"
            yield f"in {name} {kind}{along}" if name else at_index, mask
    if len(shape) > 1:
        for index in np.ndindex(*shape):
            mask = np.zeros(shape, bool)
            mask[index] = True
            yield f"at {at('', index)}", mask


def _line(ndim: int, axis: int) -> tuple[str, str]:
    """Return what one index along an axis picks, and where that needs to be said, along which."""
    if ndim > 2:
        return "slice", f" along axis {axis}"
    return ("entry" if ndim == 1 else ("row", "column")[axis]), ""


def placed(wrong: Sequence[np.ndarray]) -> str | None:
    """Name the place at which arrays, of maybe different shapes, are wrong; None if it has no name.

    >>> placed([np.eye(3, dtype=bool), np.eye(4, dtype=bool)])
    'on the diagonal'
    """
    for words, mask in (*places(wrong[0].shape), *_block(wrong[0])):
        if np.array_equal(mask, wrong[0]) and all(_is(words, other) for other in wrong[1:]):
            return words
    return None


def _is(words: str, wrong: np.ndarray) -> bool:
    return any(
        words == other and np.array_equal(mask, wrong)
        for other, mask in (*places(wrong.shape), *_block(wrong))
    )


def _block(wrong: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the smallest block that holds all wrong entries, unless it is a whole row or column."""
    if wrong.ndim not in (1, 2) or not wrong.any():
        return
    ranges = [(int(i.min()), int(i.max())) for i in np.nonzero(wrong)]
    mask = np.zeros(wrong.shape, bool)
    mask[tuple(slice(a, b + 1) for a, b in ranges)] = True
    shown = ", ".join(f"{a}" if a == b else f"{a}:{b + 1}" for a, b in ranges)
    yield f"at [{shown}]", mask


def local(label: str, cases: Cases, *, named: bool = True) -> Iterator[Hypothesis]:
    """C differs from G in one place alone, where it is a factor times G, zero, or anything."""
    groups: dict[tuple[int, ...], np.ndarray] = {}
    for case in cases.plain:
        shape = case.truth[label].shape
        wrong = ~zero(case.claimed[label] - case.truth[label], case.scale(label))
        groups[shape] = groups.get(shape, False) | wrong
    place = None if any(wrong.all() for wrong in groups.values()) else placed(list(groups.values()))
    if place is None:
        return

    def inside(case: Case) -> np.ndarray | None:
        """Return the place as a mask; None for shapes not seen, if its name does not fix it."""
        shape = case.truth[label].shape
        return next((mask for words, mask in places(shape) if words == place), groups.get(shape))

    yield from _part(label, cases, inside, place, named=named)


FEWEST = 3
"""So many entries at least are wrong at a value that is named: fewer may have it by chance."""


def at_a_value(label: str, cases: Cases) -> Iterator[Hypothesis]:
    """C differs from G exactly where an input such as a label has one value.

    It does so too where the input is moved on by one entry, so that it is this input's values and
    no other's that tell.
    """

    def wrong(of: Case) -> np.ndarray:
        return ~zero(of.claimed[label] - of.truth[label], of.scale(label))

    first = cases.plain[0]
    for name, x in first.inputs.items():
        shape = np.shape(x) if isinstance(x, (np.ndarray, np.generic)) else ()
        if not shape or name in first.truth or shape != first.truth[label].shape[: len(shape)]:
            continue
        value = np.asarray(x)[tuple(np.argwhere(wrong(first))[0][: len(shape)])].item()

        def there(of: Case, n: str = name, value: float = value) -> np.ndarray:
            y, true = np.asarray(of.inputs[n]), of.truth[label]
            return np.broadcast_to(
                (y == value).reshape(y.shape + (1,) * (true.ndim - y.ndim)), true.shape
            )

        moved = [
            evaluated(c.setting, {**c.inputs, name: np.roll(c.inputs[name], 1, axis=0)}, c.mask)
            for c in cases.plain
        ]
        looked = [*cases.plain, *moved, *cases.right]
        masks = [there(c) for c in looked]
        if all(np.array_equal(mask, wrong(c)) for mask, c in zip(masks, looked, strict=True)):
            if sum(map(np.count_nonzero, masks)) >= FEWEST and not all(
                mask.all() for mask in masks
            ):
                yield from _part(label, cases, there, f"where {name} is {value:g}", named=False)


def _part(
    label: str,
    cases: Cases,
    inside: Callable[[Case], "np.ndarray | None"],
    place: str,
    *,
    named: bool,
) -> Iterator[Hypothesis]:
    """C differs from G in one part alone, by a factor, or unless `named` by anything."""
    place = place.replace("at [", f"at {label}[")

    def there(case: Case, side: str) -> np.ndarray:
        mask = inside(case)
        return np.where(False if mask is None else mask, getattr(case, side)[label], 0.0)

    def predict(of: Callable[[Case], np.ndarray]) -> Callable[[Case], "np.ndarray | None"]:
        return lambda case: (
            None if (mask := inside(case)) is None else np.where(mask, of(case), case.truth[label])
        )

    if all(zero(there(case, "claimed"), case.scale(label)).all() for case in cases.plain):
        text = f"the closed form for {label} is zero {place}, and the gradient is not"
        yield Hypothesis("place", text, predict(lambda case: np.zeros_like(case.truth[label])))
        return
    found = cases.factor(
        lambda case: there(case, "claimed"), lambda case: there(case, "truth"), wrong=True
    )
    factor = found[1] if found else None
    if factor is not None:
        where = place if place.startswith("at ") else f"in {label} {place}"
        multiple = factors.times(factor.text, f"the gradient {where}")
        text = f"the closed form is {multiple}, and right elsewhere"
        yield Hypothesis(
            "place", text, predict(lambda case: factor.value(symbols(case)) * case.truth[label])
        )
    elif not named:
        text = f"the closed form for {label} is wrong only {place}"
        yield Hypothesis("place", text, predict(lambda case: case.claimed[label]))


def along_an_axis(label: str, cases: Cases) -> Iterator[Hypothesis]:
    """C is G with a factor for each row or column, which is an input or a moment of the mask."""
    ndim = cases.plain[0].truth[label].ndim
    for axis in range(ndim):
        line = "".join(_line(ndim, axis))
        vectors = [_profile(case, label, axis) for case in cases.plain]
        if any(v is None for v in vectors):
            continue
        for words, of in _vectors(cases.plain[0], cases.plain[0].truth[label].shape[axis]):
            named = cases.factor(lambda case, a=axis: _profile(case, label, a), of)
            if named is None or named[1] is None:
                continue
            factor = named[1]
            amount = factors.product_text(factor.text, words)
            meaning = ", where μ is the mask's mean" if "μ" in words else ""

            def predict(
                case: Case, a: int = axis, f: factors.Factor = factor, of: ArrayOf = of
            ) -> np.ndarray | None:
                vector = of(case)
                if vector is None:
                    return None
                shape = [1] * case.truth[label].ndim
                shape[a] = -1
                return f.value(symbols(case)) * np.reshape(vector, shape) * case.truth[label]

            yield Hypothesis(
                "row or column",
                f"the closed form is the gradient in {label} with each {line} multiplied by its "
                f"entry of {amount}{meaning}",
                predict,
            )
            return


def _profile(case: Case, label: str, axis: int) -> np.ndarray | None:
    """Return the factor of each slice along an axis; None where there is none, or all are equal."""
    c, g = (np.moveaxis(x[label], axis, 0) for x in (case.claimed, case.truth))
    ratios = [fitted(a, b) for a, b in zip(c, g, strict=True)]
    if len(ratios) < 2 or any(r is None for r in ratios):
        return None
    vector = np.array(ratios, float)
    return None if np.ptp(vector) <= 1e-7 * np.abs(vector).max() else vector


def _vectors(case: Case, length: int) -> Iterator[tuple[str, ArrayOf]]:
    for name, x in uniform_inputs(case).items():
        if x.shape == (length,):
            yield name, lambda case, n=name: case.inputs[n]
            yield f"1/{name}", lambda case, n=name: 1 / case.inputs[n]
            yield f"{name}²", lambda case, n=name: case.inputs[n] ** 2
    if case.mask is not None and np.shape(mean(case, length)) == (length,):
        yield "μ", lambda case: mean(case, length_of(case))
        yield "(1 − μ)", lambda case: 1 - mean(case, length_of(case))
        yield "1/μ", lambda case: 1 / mean(case, length_of(case))


def length_of(case: Case) -> int:
    """Return how many columns the mask has."""
    return case.setting.problem.derivation.mask_shape(case.sizes)[-1]


def mean(case: Case, length: int) -> np.ndarray:
    """Return the mean of the mask where it has so many columns; empty otherwise."""
    return np.asarray(case.mask.mean(length), float) if length_of(case) == length else np.zeros(0)
