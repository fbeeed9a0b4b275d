"""The order in which hypotheses are tried, and what becomes of the first that explains
everything.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from jaxgrad.diagnosis import (
    changes,
    conventions,
    low_rank,
    moments,
    omissions,
    patterns,
    proportions,
    substitutions,
)
from jaxgrad.diagnosis.cancellation import cancellations
from jaxgrad.diagnosis.cases import (
    DEBUG,
    Case,
    LossOf,
    Setting,
    case,
    draws,
    settings,
    small,
    with_other_probabilities,
    without_data,
)
from jaxgrad.diagnosis.edits import explanations
from jaxgrad.diagnosis.exact import exact
from jaxgrad.diagnosis.explanations import (
    EXPLAINS,
    Diagnosis,
    Explanation,
    Trial,
    denied,
    differs,
    residual,
)
from jaxgrad.diagnosis.flat import Flat
from jaxgrad.diagnosis.proportions import Cases
from jaxgrad.diagnosis.sampled import sampled
from jaxgrad.diagnosis.search import MOST, Edit, Search
from jaxgrad.evidence.problem import Problem
from jaxgrad.reports.finding import Finding, Verdict, combine

FRESH = 17
"""Number of the draw on which a diagnosis must hold although no search has seen it."""

MANY = 64
"""On so many more must hold what changes a comparison, of which each entry tells one bit."""

TrialOf = Callable[[str, list[Case], list[Case]], Trial]
Hypothesis = Callable[[str, Cases], Iterator[Explanation]]

SIMPLE: tuple[Hypothesis, ...] = (
    conventions.own_rule,
    proportions.factor,
    proportions.rearranged,
    substitutions.masks,
    substitutions.inputs,
    conventions.kinks,
    patterns.local,
    patterns.along_an_axis,
    proportions.terms,
    low_rank.outer_products,
    moments.moments,
)
"""Hypotheses about one array of the gradient that name the mistake, the simplest first."""

WEAK: tuple[Hypothesis, ...] = (
    patterns.at_a_value,
    substitutions.regions,
    proportions.unnamed_factor,
    lambda label, cases: patterns.local(label, cases, named=False),
    low_rank.same_along_an_axis,
    low_rank.rank_one,
)
"""Hypotheses that tell where or when it is wrong, and not how."""


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
    for tried in [without_data(problem), *([problem] if problem.given and small(problem) else [])]:
        missing = [label for label in labels if label not in found]
        found |= _diagnosed_at(tried, missing, loss_of) if missing else {}
    told = {label: exact(problem, label, found.get(label), loss_of) for label in labels}
    return {label: diagnosis for label, diagnosis in told.items() if diagnosis is not None}


def _diagnosed_at(problem: Problem, labels: Sequence[str], loss_of: LossOf) -> dict[str, Diagnosis]:
    cases, fresh = _gather(problem, loss_of)
    elsewhere = functools.cache(lambda: _elsewhere(problem, loss_of))
    if not cases.plain:
        return {} if problem.derivation.mask is None else sampled(problem, labels)
    wrong = [
        label
        for label in labels
        if label in cases.plain[0].truth and any(differs(c, label) for c in cases.plain)
    ]
    found = _diagnosed(wrong, cases, fresh, elsewhere)
    kinked = [label for label in labels if label in cases.plain[0].truth and label not in wrong]
    if kinked:
        special = Cases(
            [c for s in _settings(cases)[:2] for c in draws(s, special=True) if c.usable()]
        )
        at_ties = [label for label in kinked if any(differs(c, label) for c in special.plain)]
        found |= _diagnosed(at_ties, special, [*cases.plain, *fresh], elsewhere)
    return found


def _settings(cases: Cases) -> list[Setting]:
    return list({c.setting: c.setting for c in cases.plain}.values())


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

    def attempt(label: str, hypotheses: Sequence[Hypothesis]) -> None:
        for hypothesis in hypotheses:
            if label in found:
                return
            with np.errstate(all="ignore"):
                for explanation in hypothesis(label, seen[label]):
                    if trials[label](explanation):
                        diagnosis = trials[label].diagnosis()
                        if diagnosis is not None:
                            found[label] = diagnosis
                        break

    for label in wrong:
        attempt(label, SIMPLE)
    at_kinks = {label: diagnosis for label, diagnosis in found.items() if diagnosis.kind == "kink"}
    found = {label: diagnosis for label, diagnosis in found.items() if label not in at_kinks}
    _edits(found, cases, trials, trial_of)
    for label, diagnosis in at_kinks.items():
        more = (
            f"; {found[label].sentence.removeprefix(f'{label} is wrong ')}"
            if label in found
            else ""
        )
        found[label] = dataclasses.replace(diagnosis, sentence=diagnosis.sentence + more)
    for label in wrong:
        attempt(label, WEAK)
    return found


def _edits(
    found: dict[str, Diagnosis], cases: Cases, trials: dict[str, Trial], trial_of: TrialOf
) -> None:
    """Look for one change that mends all arrays without a name, and for one for each where there is
    none.
    """
    every = list(cases.plain[0].truth)
    plain = sorted(
        cases.plain, key=lambda case: not any(differs(case, label) for label in trials)
    )  # at small sizes all may be right
    budget = MOST
    for mirrored in (False, True):
        flats: dict[Setting, Flat] = {}
        for labels in ([every] if len(trials) > 1 and not mirrored else []) + [
            [label] for label in trials
        ]:
            missing = [label for label in labels if label in trials and label not in found]
            if not missing or budget <= 0:
                continue
            flats = flats or {
                c.setting: Flat.of((c.setting.truth if mirrored else c.setting.closed).closed)
                for c in cases.plain
            }
            try:
                search = Search(
                    plain,
                    flats,
                    labels,
                    mirrored=mirrored,
                    varied=cases.varied,
                    most=budget // (2 if len(labels) > 1 else 1),
                )
            except ValueError:
                break
            with np.errstate(all="ignore"):
                edit = search.found(omissions.STAGES if mirrored else changes.STAGES)
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
            trials[label].second = min(trials[label].second, search.least)
    if edit is None:
        return
    alike = {t.case for t in search.tries}
    setting = search.tries[0].case.setting
    more = (
        []
        if edit.step in search.flat.smooth
        else [_draw(setting, FRESH + number) for number in range(1, MANY + 1)]
    )
    for label, explanation in explanations(search, edit, labels).items():
        mended = [c for c in trials[label].cases if c in alike]
        if (
            not mended
        ):  # the program that was changed is right, and another, at other sizes, is wrong
            continue
        trial = trial_of(label, mended, [c for c in more if c.usable()])
        trial.second = trials[label].second
        with np.errstate(all="ignore"):
            holds = trial(explanation)
        diagnosis = trial.diagnosis()
        if holds and diagnosis is not None:
            found[label] = diagnosis


def _trial(
    label: str,
    seen: list[Case],
    cases: Cases,
    fresh: Sequence[Case],
    elsewhere: Callable[[], list[Case]],
) -> Trial:
    """Return the trial of what must explain the cases seen, hold in fresh ones, and be denied by
    none.

    Factors that are named by their values at a few sizes must give what is seen at others, too.
    """
    wrong = [c for c in fresh if differs(c, label)]
    right = [c for c in (*cases.plain, *fresh) if not differs(c, label)]

    def stands(explanation: Explanation) -> bool:
        if residual(explanation, label, wrong) > 10 * EXPLAINS or any(
            denied(explanation, label, c) for c in right
        ):
            return False
        return not any(denied(explanation, label, c) for c in elsewhere())

    return Trial(label, seen, stands)


def _elsewhere(problem: Problem, loss_of: LossOf) -> list[Case]:
    """Evaluate both sides at sizes that no search has seen, if the user's functions take them."""
    try:
        setting = next(settings(problem, loss_of, unseen=True), None)
        found = [] if setting is None else [_draw(setting, 0)]
    except Exception:  # a user's function may refuse sizes that nobody but the diagnosis chooses
        if DEBUG in os.environ:
            raise
        return []
    return [c for c in found if c.usable()]


def _draw(setting: Setting, number: int) -> Case:
    return case(
        setting, jax.tree.map(np.asarray, setting.problem.draw(setting.sizes, number)), setting.mask
    )


def _gather(problem: Problem, loss_of: LossOf) -> tuple[Cases, list[Case]]:
    """Evaluate both sides at the sizes and draws that hypotheses are tried on, and at one that they
    must hold on unseen.
    """
    plain: list[Case] = []
    fresh: list[Case] = []
    varied: list[Case] = []
    for i, setting in enumerate(settings(problem, loss_of)):
        try:
            found = [c for c in draws(setting) if c.usable()]
        except (
            Exception
        ):  # a user's function may refuse sizes that nobody but the diagnosis chooses
            if DEBUG in os.environ:
                raise
            continue
        plain += found
        if found and not fresh:
            more = _draw(setting, FRESH)
            fresh += [more] if more.usable() else []
        other = with_other_probabilities(found[0], i) if found else None
        varied += [other] if other is not None else []
    return Cases(plain, varied), fresh


def explain(problem: Problem, findings: Sequence[Finding], loss_of: LossOf) -> list[Finding]:
    """Return the findings, each that refutes with the sentence that says how the closed form is
    wrong.

    A gradient on which no verdict was reached because of rounding is told where it loses its
    digits.

    Args:
        problem: the claim.
        findings: all findings on it.
        loss_of: as of `diagnose`.
    """
    by_input = {
        wrt: combine([f.verdict for f in findings if f.wrt == wrt])
        for wrt in dict.fromkeys(f.wrt for f in findings)
    }
    refuted = [wrt for wrt, verdict in by_input.items() if verdict == Verdict.REFUTED]
    rounded = [
        f.wrt for f in findings if by_input[f.wrt] == Verdict.UNDECIDED and "rounding" in f.detail
    ]
    told: dict[str, str] = {}
    try:
        told |= (
            {
                label: str(diagnosis)
                for label, diagnosis in diagnose(problem, refuted, loss_of).items()
            }
            if refuted
            else {}
        )
        told |= (
            {
                label: diagnosis.sentence
                for label, diagnosis in cancellations(problem, rounded).items()
            }
            if rounded
            else {}
        )
    except (
        Exception
    ):  # a verdict stands without a diagnosis, whatever the user's functions do at other inputs
        if DEBUG in os.environ:
            raise
    shown = {wrt: verdict for wrt, verdict in by_input.items() if wrt in told}
    return [
        dataclasses.replace(f, diagnosis=told[f.wrt]) if f.verdict == shown.get(f.wrt) else f
        for f in findings
    ]
