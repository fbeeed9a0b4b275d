"""What is said of a change that makes the closed form right: the expression, its line, and what
should stand there.
"""

from collections.abc import Sequence

import numpy as np

from jaxgrad.diagnosis.cases import Case
from jaxgrad.diagnosis.explanations import Explanation
from jaxgrad.diagnosis.flat import Flat
from jaxgrad.diagnosis.search import Edit, Search, Try


def explanations(search: Search, edit: Edit, labels: Sequence[str]) -> dict[str, Explanation]:
    """Return, for each array that a change mends, what is wrong.

    Where the programs differ in their steps from one choice of sizes to another, nothing is
    predicted at the others.
    """
    where, text = search.flat.steps[edit.step].place
    tries = {t.case: t for t in search.tries}
    outputs: dict[Case, dict[str, np.ndarray] | None] = {}

    def predict(case: Case, label: str) -> np.ndarray | None:
        if case not in outputs:
            mine = tries.get(case) or _fresh(search, case)
            outputs[case] = None if mine is None else mine.outputs(edit)
        changed = outputs[case]
        if changed is None:
            return None
        return (
            changed[label]
            if search.mirrored
            else case.claimed[label] - changed[label] + case.truth[label]
        )

    def sentence(label: str) -> str:
        if search.mirrored:
            return (
                f"in {label}, {edit.words}"
                if edit.kind == "sum not taken"
                else f"{label} {edit.words}"
            )
        return (
            f"{label} is wrong in `{text}` ({where}): {edit.words}"
            if text
            else f"{label} is wrong: {edit.words}"
        )

    return {
        label: Explanation(edit.kind, sentence(label), lambda case, k=label: predict(case, k))
        for label in labels
    }


def _fresh(search: Search, case: Case) -> Try | None:
    """Make a case that the search has not seen ready, if its program has the same steps."""
    flat = Flat.of((case.setting.truth if search.mirrored else case.setting.closed).closed)
    if flat.names != search.flat.names:
        return None
    try:
        return Try(flat, case, search.labels, mirrored=search.mirrored)
    except ValueError:
        return None
