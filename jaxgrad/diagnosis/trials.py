"""The trial of hypotheses on each wrong array, until one explains the error.

Simple hypotheses come first, then the search for one edit of the closed form or of the true
gradient, and weak ones last (`jaxgrad.diagnosis.families`). A diagnosis must also hold at a draw
and at sizes that no search has seen.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxgrad.diagnosis.cases import (
    Case,
    LossOf,
    Setting,
    case,
    draws,
    settings,
    tolerated,
    with_other_probabilities,
)
from jaxgrad.diagnosis.exact import exact
from jaxgrad.diagnosis.families import EDITS, OMISSIONS, SIMPLE, WEAK, Family
from jaxgrad.diagnosis.hypothesis import (
    EXPLAINS,
    Diagnosis,
    Hypothesis,
    Trial,
    contradicted,
    differs,
    residual,
)
from jaxgrad.diagnosis.proportions import Cases
from jaxgrad.diagnosis.sampled import sampled
from jaxgrad.diagnosis.search import MOST, Edit, Search, edit_hypotheses
from jaxgrad.evidence.problem import Problem

FRESH = 17
"""Number of the draw on which a diagnosis must hold although no search has seen it."""

MANY = 64
"""On so many more must hold what changes a comparison, of which each entry tells one bit."""

LARGEST = 4096
"""With more entries than this the inputs are drawn at smaller sizes."""

TrialOf = Callable[[str, list[Case], list[Case]], Trial]


def diagnose(problem: Problem, labels: Sequence[str], loss_of: LossOf) -> dict[str, Diagnosis]:
    """Say of each array of the gradient how it is wrong, where something explains it.

    Args:
        problem: the claim.
        labels: the arrays that are wrong.
        loss_of: gives at each choice of sizes the loss, or its exact expectation, as a function of
            inputs and mask, or the reason why there is none.

    Returns:
        {label: diagnosis}, without those that nothing explains.
    """
    found: dict[str, Diagnosis] = {}
    for tried in [
        _without_data(problem),
        *([problem] if problem.given and _small(problem) else []),
    ]:
        missing = [label for label in labels if label not in found]
        found |= _diagnosed_at(tried, missing, loss_of) if missing else {}
    checked = {label: exact(problem, label, found.get(label), loss_of) for label in labels}
    return {label: diagnosis for label, diagnosis in checked.items() if diagnosis is not None}


def _diagnosed_at(problem: Problem, labels: Sequence[str], loss_of: LossOf) -> dict[str, Diagnosis]:
    cases, fresh = _gather(problem, loss_of)
    elsewhere = functools.cache(lambda: _elsewhere(problem, loss_of))
    if not cases.plain:
        return {} if problem.derivation.mask is None else sampled(problem, labels)
    known = [label for label in labels if label in cases.plain[0].truth]
    wrong = [label for label in known if any(differs(c, label) for c in cases.plain)]
    found = _diagnosed(wrong, cases, fresh, elsewhere)
    if len(wrong) < len(known):
        chosen = list(dict.fromkeys(c.setting for c in cases.plain))[:2]
        special = Cases([c for s in chosen for c in draws(s, special=True) if c.usable()])
        at_ties = [
            label
            for label in known
            if label not in wrong and any(differs(c, label) for c in special.plain)
        ]
        found |= _diagnosed(at_ties, special, [*cases.plain, *fresh], elsewhere)
    return found


def _diagnosed(
    wrong: Sequence[str], cases: Cases, fresh: list[Case], elsewhere: Callable[[], list[Case]]
) -> dict[str, Diagnosis]:
    """Try all hypotheses on some arrays."""
    found: dict[str, Diagnosis] = {}

    def trial_of(label: str, seen: list[Case], more: list[Case]) -> Trial:
        return _trial(label, seen, cases, [*fresh, *more], elsewhere)

    trials = {
        label: trial_of(label, [c for c in cases.plain if differs(c, label)], []) for label in wrong
    }
    seen = {
        label: Cases(
            trials[label].cases,
            cases.varied,
            [c for c in (*cases.plain, *fresh) if not differs(c, label)],
        )
        for label in wrong
    }

    def attempt(label: str, families: Sequence[Family]) -> None:
        for family in families if label not in found else ():
            with np.errstate(all="ignore"):
                if any(trials[label](hypothesis) for hypothesis in family(label, seen[label])):
                    found[label] = trials[label].diagnosis()
                    return

    for label in wrong:
        attempt(label, SIMPLE)
    at_kinks = {label: diagnosis for label, diagnosis in found.items() if diagnosis.kind == "kink"}
    for label in at_kinks:
        del found[label]
    _edits(found, cases, trials, trial_of)
    for label, diagnosis in at_kinks.items():
        if label in found:
            edit = found[label].sentence.removeprefix(f"the closed form for {label} is wrong ")
            diagnosis = dataclasses.replace(diagnosis, sentence=f"{diagnosis.sentence}; {edit}")
        found[label] = diagnosis
    for label in wrong:
        attempt(label, WEAK)
    return found


def _edits(
    found: dict[str, Diagnosis], cases: Cases, trials: dict[str, Trial], trial_of: TrialOf
) -> None:
    """Look for one edit that corrects all arrays without a diagnosis, and then for one for each."""
    every = list(cases.plain[0].truth)
    # at small sizes all may be right
    plain = sorted(cases.plain, key=lambda case: not any(differs(case, k) for k in trials))
    budget = MOST
    for mirrored in (False, True):
        together = [every] if len(trials) > 1 and not mirrored else []
        for labels in (*together, *([label] for label in trials)):
            missing = [label for label in labels if label in trials and label not in found]
            if not missing or budget <= 0:
                continue
            try:
                search = Search(
                    plain,
                    labels,
                    mirrored=mirrored,
                    varied=cases.varied,
                    most=budget // (2 if len(labels) > 1 else 1),
                )
            except ValueError:
                break
            with np.errstate(all="ignore"):
                edit = search.found(OMISSIONS if mirrored else EDITS)
            budget -= search.steps
            _enter(found, search, edit, missing, trials, trial_of)
        budget = max(budget, MOST // 4)


def _enter(
    found: dict[str, Diagnosis],
    search: Search,
    edit: Edit | None,
    labels: Sequence[str],
    trials: dict[str, Trial],
    trial_of: TrialOf,
) -> None:
    """Enter what a search found, if it explains everything."""
    for label in labels:
        if search.least[1]:
            trials[label].runner_up = min(trials[label].runner_up, search.least)
    if edit is None:
        return
    alike = {t.case for t in search.tries}
    setting = search.tries[0].case.setting
    more = (
        []
        if edit.step in search.flat.smooth
        else [_draw(setting, FRESH + number) for number in range(1, MANY + 1)]
    )
    for label, hypothesis in edit_hypotheses(search, edit, labels).items():
        corrected = [c for c in trials[label].cases if c in alike]
        if not corrected:
            continue  # the edited program is right, and another, at other sizes, is wrong
        trial = trial_of(label, corrected, [c for c in more if c.usable()])
        trial.runner_up = trials[label].runner_up
        with np.errstate(all="ignore"):
            if trial(hypothesis):
                found[label] = trial.diagnosis()


def _trial(
    label: str,
    seen: list[Case],
    cases: Cases,
    fresh: Sequence[Case],
    elsewhere: Callable[[], list[Case]],
) -> Trial:
    """Return the trial of hypotheses that must hold in the cases seen, and be contradicted by none.

    Factors that are named by their values at a few sizes must give what is seen at others, too.
    """
    wrong = [c for c in fresh if differs(c, label)]
    right = [c for c in (*cases.plain, *fresh) if not differs(c, label)]

    def holds(hypothesis: Hypothesis) -> bool:
        return residual(hypothesis, label, wrong) <= 10 * EXPLAINS and not any(
            contradicted(hypothesis, label, c)
            for known in (lambda: right, elsewhere)
            for c in known()
        )

    return Trial(label, seen, holds)


def _elsewhere(problem: Problem, loss_of: LossOf) -> list[Case]:
    """Evaluate both sides at sizes that no search has seen, if the user's functions take them."""
    found: list[Case] = []
    with tolerated():
        found += [_draw(setting, 0) for setting in settings(problem, loss_of, unseen=True)]
    return [c for c in found if c.usable()]


def _draw(setting: Setting, number: int) -> Case:
    return case(
        setting, jax.tree.map(np.asarray, setting.problem.draw(setting.sizes, number)), setting.mask
    )


def _gather(problem: Problem, loss_of: LossOf) -> tuple[Cases, list[Case]]:
    """Evaluate both sides at the cases that hypotheses are tried on, and at one kept unseen."""
    plain: list[Case] = []
    fresh: list[Case] = []
    varied: list[Case] = []
    for i, setting in enumerate(settings(problem, loss_of)):
        found: list[Case] = []
        with tolerated():
            found += [c for c in draws(setting) if c.usable()]
        plain += found
        if found and not fresh:
            more = _draw(setting, FRESH)
            fresh += [more] if more.usable() else []
        other = with_other_probabilities(found[0], i) if found else None
        varied += [other] if other is not None else []
    return Cases(plain, varied), fresh


def _without_data(problem: Problem) -> Problem:
    """Return the problem without the user's data, and with the user's sizes if they are small."""
    chosen = {n: s for n, s in problem.sizes.items() if n in problem.chosen}
    free = dataclasses.replace(problem, given={}, sizes=chosen)
    return free if _entries(free) <= LARGEST else dataclasses.replace(free, sizes={})


def _entries(problem: Problem) -> int:
    return sum(np.size(leaf) for leaf in jax.tree.leaves(problem.draw(problem.choose_sizes(0), 0)))


def _small(problem: Problem) -> bool:
    """Say whether there is little data."""
    return _entries(problem) <= LARGEST
