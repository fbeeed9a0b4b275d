"""Wrong moments of the mask: the closed form is right once the true moment is put in their place.

The mean μ = E m, (n,), and the second moment S = E m mᵀ, (n, n), do not depend on the data. Each
intermediate value of the closed form that does not either, and has such a shape, is replaced by the
true moment. Where that corrects the gradient, the two are compared and the difference is named: no
diagonal, independent entries, misplaced blocks.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxgrad.diagnosis.cases import Case
from jaxgrad.diagnosis.flat import leaves_of
from jaxgrad.diagnosis.hypothesis import Hypothesis, at
from jaxgrad.diagnosis.patterns import placed
from jaxgrad.diagnosis.proportions import Cases, same

Moments = dict[str, np.ndarray]
Wrong = Callable[[Moments, Any], np.ndarray]


def moments(label: str, cases: Cases) -> Iterator[Hypothesis]:
    """C is right with the true moments of the mask in the place of its own."""
    if cases.plain[0].setting.problem.derivation.mask is None:
        return
    first = cases.plain[0]
    for chosen in _candidates(first):

        def predict(case: Case, chosen: dict[int, str] = chosen) -> np.ndarray | None:
            run, true = case.run, case.setting.moments
            if run is None or any(
                s not in run.env or run.env[s].shape != true[k].shape for s, k in chosen.items()
            ):
                return None
            outputs = run.with_slots({slot: true[kind] for slot, kind in chosen.items()})
            if outputs is None:
                return None
            corrected = dict(zip(case.setting.closed.labels, outputs, strict=True))[label]
            return case.claimed[label] - corrected + case.truth[label]

        with np.errstate(all="ignore"):
            corrected = predict(first)
        if not same(corrected, first.claimed[label]):
            continue
        wrong = [_wrong(kind, slot, cases.plain) for slot, kind in chosen.items()]
        if len(wrong) > 1 and not any(named for _, named in wrong):
            slot = next(s for s, kind in chosen.items() if kind == "mean")
            used = "" if first.run is None else _numbers(first.run.env[slot])
            true = _numbers(first.setting.moments["mean"])
            text = f"the moments of another mask, with mean {used} in place of {true}"
        else:
            text = " and ".join(words for words, _ in wrong)
        yield Hypothesis("moments", f"the closed form for {label} uses {text}", predict)


def _numbers(x: np.ndarray) -> str:
    return "(" + ", ".join(f"{v:.3g}" for v in x) + ")"


def _candidates(case: Case) -> list[dict[int, str]]:
    """Return the sets of values, one or two, that may be wrong moments."""
    flat, run, known = case.setting.flat, case.run, case.setting.moments
    if run is None:
        return []
    data = flat.depends_on(flat.inputs[: len(leaves_of(case.inputs, None))])
    free = [
        slot
        for slot in run.env
        if slot not in data and (slot in flat.readers or slot in flat.outputs)
    ]
    singles = [
        {slot: kind}
        for kind, true in known.items()
        for slot in free
        if run.env[slot].shape == true.shape
        and run.env[slot].dtype.kind == "f"
        and not same(run.env[slot], true)
    ]
    pairs = [
        a | b for a in singles for b in singles if next(iter(a.values())) < next(iter(b.values()))
    ]
    return singles[::-1] + pairs[:64][::-1]


def _wrong(kind: str, slot: int, plain: Sequence[Case]) -> tuple[str, bool]:
    """Return what a closed form uses in place of a moment, and whether that has a name."""
    pairs = []
    for case in plain:
        run, true = case.run, case.setting.moments
        if run is not None and slot in run.env and run.env[slot].shape == true[kind].shape:
            pairs.append((run.env[slot], true, case.mask))
    for words, wrong in _WRONG[kind]:
        try:
            if all(same(found, wrong(true, mask)) for found, true, mask in pairs):
                return f"a wrong {kind} of the mask, {words}", True
        except (ValueError, AttributeError, IndexError):
            continue
    off = [~np.isclose(found, true[kind], rtol=1e-9, atol=1e-12) for found, true, _ in pairs]
    place = "" if all(wrong.all() for wrong in off) else placed(off)
    found, true, _ = pairs[0]
    index = tuple(int(i) for i in np.argwhere(off[0])[0])
    entry = at({"mean": "μ", "second moment": "S"}[kind], index)
    values = f"{entry} is {found[index]:.4g} in place of {true[kind][index]:.4g}"
    return f"a wrong {kind} of the mask{f' {place}' if place else ''}: {values}", False


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
        ("p² in place of p", lambda t, mask: t["mean"] ** 2),
        ("1 − p in place of p, as of the complement", lambda t, mask: 1 - t["mean"]),
        ("1, as if nothing were dropped", lambda t, mask: np.ones_like(t["mean"])),
        (
            "its average over all entries, the same for each",
            lambda t, mask: np.full_like(t["mean"], t["mean"].mean()),
        ),
        ("shifted by one entry", lambda t, mask: np.roll(t["mean"], 1)),
        ("shifted by one entry", lambda t, mask: np.roll(t["mean"], -1)),
        ("in reverse order", lambda t, mask: t["mean"][::-1]),
        ("1/p in place of p", lambda t, mask: 1 / t["mean"]),
        ("√p in place of p", lambda t, mask: np.sqrt(t["mean"])),
    ],
    "second moment": [
        (
            "with μμᵀ in place of the mean μ on its diagonal; a mask of 0 and 1 is its own square",
            lambda t, mask: _off(t["second moment"], np.outer(t["mean"], t["mean"])),
        ),
        (
            "μμᵀ throughout, as if the mask had no variance",
            lambda t, mask: np.outer(t["mean"], t["mean"]),
        ),
        (
            "with misplaced blocks: they begin at row ⌊i/s⌋ in place of ⌊i/s⌋·s, overlap at the "
            "top left, and the rest is p²",
            _misplaced,
        ),
        (
            "that of independent entries, p² off the diagonal",
            lambda t, mask: _off(np.outer(t["mean"], t["mean"]), t["mean"]),
        ),
        (
            "that of equal entries, p off the diagonal",
            lambda t, mask: np.broadcast_to(
                np.diagonal(t["second moment"]), t["second moment"].shape
            ),
        ),
        (
            "that of the complement 1 − m",
            lambda t, mask: 1 - t["mean"] - t["mean"][:, None] + t["second moment"],
        ),
        ("zero off the diagonal", lambda t, mask: np.diag(np.diagonal(t["second moment"]))),
        ("1, as if nothing were dropped", lambda t, mask: np.ones_like(t["second moment"])),
        (
            "the covariance, which lacks μμᵀ",
            lambda t, mask: t["second moment"] - np.outer(t["mean"], t["mean"]),
        ),
        *((f"that of patches of size {size}", _patches(size)) for size in (2, 3, 4, 5)),
    ],
}
"""How moments go wrong: the words, and the wrong moment computed from the true ones."""
