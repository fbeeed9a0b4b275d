"""Wrong moments of the mask: a closed form that is right once the true mean or second moment is put
in the place of its own.

The mean μ = E m, (n,), and the second moment S = E m mᵀ, (n, n), do not depend on the data. So
every intermediate value of the closed form that does not, and has such a shape, is replaced by the
true one in turn; where that mends the gradient, the two are compared, and the difference is told:
no diagonal, independent entries, misplaced blocks.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxgrad.diagnosis.cases import Case, Setting
from jaxgrad.diagnosis.explanations import Explanation
from jaxgrad.diagnosis.flat import Flat, Run, leaves_of
from jaxgrad.diagnosis.patterns import placed
from jaxgrad.diagnosis.proportions import Cases, same

Moments = dict[str, np.ndarray]
Wrong = Callable[[Moments, Any], np.ndarray]


def moments(label: str, cases: Cases) -> Iterator[Explanation]:
    """C is right with the true moments of the mask in the place of its own."""
    if cases.plain[0].setting.problem.derivation.mask is None:
        return
    known: dict[Setting, Moments] = {}
    flats: dict[Setting, Flat] = {}
    runs: dict[Case, Run | None] = {}

    def run_of(case: Case) -> Run | None:
        setting = case.setting
        if setting not in known:
            known[setting], flats[setting] = setting.moments, Flat.of(setting.closed.closed)
        if case not in runs:
            runs[case] = flats[setting].run(leaves_of(case.inputs, case.mask))
        return runs[case]

    first = cases.plain[0]
    begun = run_of(first)
    candidates = _candidates(flats[first.setting], first, begun, known[first.setting])
    for chosen in candidates:

        def predict(case: Case, chosen: dict[int, str] = chosen) -> np.ndarray | None:
            run, mine = run_of(case), known[case.setting]
            if run is None or any(
                s not in run.env or run.env[s].shape != mine[k].shape for s, k in chosen.items()
            ):
                return None
            outputs = run.with_slots({slot: mine[kind] for slot, kind in chosen.items()})
            if outputs is None:
                return None
            mended = dict(zip(case.setting.closed.labels, outputs, strict=True))[label]
            return case.claimed[label] - mended + case.truth[label]

        with np.errstate(all="ignore"):
            mended = predict(first)
        if not same(mended, first.claimed[label]):
            continue
        told = [_told(kind, slot, cases.plain, run_of, known) for slot, kind in chosen.items()]
        if len(told) > 1 and all("of another mask" in words for words in told):
            slot = next(s for s, kind in chosen.items() if kind == "mean")
            run, true = run_of(first), known[first.setting]["mean"]
            mine = (
                ""
                if run is None
                else f": of mean {_numbers(run.env[slot])} where the mask's mean is "
                f"{_numbers(true)}"
            )
            told = [f"the moments are those of another mask{mine}"]
        yield Explanation("moments", f"in {label}, {' and '.join(told)}", predict)


def _numbers(x: np.ndarray) -> str:
    return "(" + ", ".join(f"{v:.3g}" for v in x) + ")"


def _candidates(flat: Flat, case: Case, run: Run | None, known: Moments) -> list[dict[int, str]]:
    """Return the sets of values, one or two, that may be moments gone wrong."""
    if run is None:
        return []
    data = flat.depends_on(flat.inputs[: len(leaves_of(case.inputs, None))])
    free = [
        slot
        for slot in run.env
        if slot not in data and (slot in flat.readers or slot in flat.outputs)
    ]
    by_kind = {
        kind: [s for s in free if run.env[s].shape == true.shape and run.env[s].dtype.kind == "f"]
        for kind, true in known.items()
    }
    singles = [
        {slot: kind}
        for kind, slots in by_kind.items()
        for slot in slots
        if not same(run.env[slot], known[kind])
    ]
    pairs = [
        a | b for a in singles for b in singles if next(iter(a.values())) < next(iter(b.values()))
    ]
    return singles[::-1] + pairs[:64][::-1]


def _told(
    kind: str,
    slot: int,
    plain: Sequence[Case],
    run_of: Callable[[Case], Run | None],
    known: dict[Setting, Moments],
) -> str:
    """Say how a moment is wrong."""
    pairs = []
    for case in plain:
        run = run_of(case)
        if (
            run is not None
            and slot in run.env
            and run.env[slot].shape == known[case.setting][kind].shape
        ):
            pairs.append((run.env[slot], known[case.setting], case.mask))
    for words, wrong in _WRONG[kind]:
        try:
            if all(same(found, wrong(true, mask)) for found, true, mask in pairs):
                return f"the mask's {kind} is wrong: {words}"
        except (ValueError, AttributeError, IndexError):
            continue
    place = placed(
        [~np.isclose(found, true[kind], rtol=1e-9, atol=1e-12) for found, true, _ in pairs]
    )
    found, true, _ = pairs[0]
    index = tuple(
        int(i) for i in np.argwhere(~np.isclose(found, true[kind], rtol=1e-9, atol=1e-12))[0]
    )
    entry = (
        f"entry [{', '.join(map(str, index))}] is {found[index]:.4g} where the mask has "
        f"{true[kind][index]:.4g}"
    )
    everywhere = all(not np.isclose(f, t[kind], rtol=1e-9, atol=1e-12).any() for f, t, _ in pairs)
    where = " everywhere" if everywhere else f" {place}" if place else ""
    return f"the mask's {kind} is wrong{where}, as of another mask: {entry}"


def _off(s: np.ndarray, on: np.ndarray) -> np.ndarray:
    return np.where(np.eye(len(s), dtype=bool), on, s)


def _blocks(n: int, size: int, step: int) -> np.ndarray:
    inside = np.zeros((n, n), bool)
    for i in range(n):
        row = i // size * step
        inside[row : row + size, row : row + size] = True
    return inside


def _misplaced(true: Moments, mask: Any) -> np.ndarray:
    mu, size = true["mean"], mask.patch_size
    return np.where(_blocks(len(mu), size, 1), mu, np.outer(mu, mu))


def _patches(size: int) -> Wrong:
    def wrong(true: Moments, mask: Any) -> np.ndarray:
        mu = true["mean"]
        return np.where(_blocks(len(mu), size, size), mu, np.outer(mu, mu))

    return wrong


_WRONG: dict[str, list[tuple[str, Wrong]]] = {
    "mean": [
        ("it is squared, p² for p", lambda t, mask: t["mean"] ** 2),
        ("it is that of the complement, 1 − p for p", lambda t, mask: 1 - t["mean"]),
        ("it is 1, as if nothing were dropped", lambda t, mask: np.ones_like(t["mean"])),
        (
            "it is the average over all entries, the same for each",
            lambda t, mask: np.full_like(t["mean"], t["mean"].mean()),
        ),
        ("its entries are shifted by one", lambda t, mask: np.roll(t["mean"], 1)),
        ("its entries are shifted by one", lambda t, mask: np.roll(t["mean"], -1)),
        ("its entries are in reverse order", lambda t, mask: t["mean"][::-1]),
        ("it is inverted, 1/p for p", lambda t, mask: 1 / t["mean"]),
        ("it is the square root, √p for p", lambda t, mask: np.sqrt(t["mean"])),
    ],
    "second moment": [
        (
            "its diagonal is missing, μμᵀ instead of the mean μ on it, since a mask is its own "
            "square",
            lambda t, mask: _off(t["second moment"], np.outer(t["mean"], t["mean"])),
        ),
        (
            "it is μμᵀ throughout, as if the mask had no variance",
            lambda t, mask: np.outer(t["mean"], t["mean"]),
        ),
        (
            "its blocks are misplaced: they begin at row ⌊i/s⌋ instead of ⌊i/s⌋·s, overlap at the "
            "top left and leave the rest at p²",
            _misplaced,
        ),
        (
            "the entries are taken for independent, p² off the diagonal",
            lambda t, mask: _off(np.outer(t["mean"], t["mean"]), t["mean"]),
        ),
        (
            "the entries are taken for one and the same, p off the diagonal",
            lambda t, mask: np.broadcast_to(
                np.diagonal(t["second moment"]), t["second moment"].shape
            ),
        ),
        (
            "it is that of the complement, 1 − m for m",
            lambda t, mask: 1 - t["mean"] - t["mean"][:, None] + t["second moment"],
        ),
        ("it is zero off the diagonal", lambda t, mask: np.diag(np.diagonal(t["second moment"]))),
        ("it is 1, as if nothing were dropped", lambda t, mask: np.ones_like(t["second moment"])),
        (
            "it is the covariance, without μμᵀ",
            lambda t, mask: t["second moment"] - np.outer(t["mean"], t["mean"]),
        ),
        *((f"it is that of patches of size {size}", _patches(size)) for size in (2, 3, 4, 5)),
    ],
}
"""How moments go wrong: the words, and the wrong moment made of the true ones."""
