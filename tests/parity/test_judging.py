"""Verdicts on pairs of arrays: what is a difference, what is rounding, and what is nothing at
all.
"""

import numpy as np
import pytest

from jaxgrad.parity.judging import Pair, numerical, semantic, unsettled

EPS = np.finfo(np.float64).eps
X = np.linspace(-1, 3, 50)
NONE = np.zeros(50)


def verdict(ours, theirs=X, move=NONE, single=None):
    return semantic(Pair(np.asarray(ours), theirs, move, move, None, single), "x").verdict


def test_rounding_agrees_and_more_does_not():
    assert verdict(X * (1 + 3 * EPS)) == "confirmed"
    assert verdict(X * (1 + 1e-10)) == "refuted"
    assert verdict(X * (1 + 1000 * EPS)) == "undecided"
    assert verdict(X + 1e-9, move=np.full(50, 1e-11)) == "undecided"
    assert verdict(X + 1e-10, move=np.full(50, 1e-11)) == "confirmed"


@pytest.mark.parametrize("factor", [1e-30, 1e-9, 1e9])
def test_units_do_not_matter(factor):
    assert verdict(X * factor * (1 + 3 * EPS), X * factor) == "confirmed"
    assert verdict(X * factor * (1 + 1e-9), X * factor) == "refuted"


def test_one_small_entry_among_large_ones_is_compared_by_itself():
    theirs = np.where(np.arange(50) == 7, 1e-9, 1e3)
    ours = np.where(np.arange(50) == 7, 2e-9, 1e3)
    assert verdict(ours, theirs) == "refuted"


def test_of_several_errors_the_largest_is_told():
    finding = semantic(
        Pair(np.array([1.1e6, 2.0]), np.array([1e6, 1.0]), np.zeros(2), np.zeros(2)), "x"
    )
    assert finding.error == pytest.approx(0.1 / 1.1)
    assert finding.detail.startswith("entry [0]")


def test_an_entry_made_by_rounding_alone_is_no_difference_where_float32_shows_it():
    theirs = np.where(np.arange(50) == 7, 0.0, X)
    single = theirs.astype(np.float32) * (1 + 1e-7 * np.cos(np.arange(50)))
    assert (
        verdict(np.where(np.arange(50) == 7, 1e-17, X), theirs, single=single.astype(np.float32))
        == "confirmed"
    )
    assert (
        verdict(np.where(np.arange(50) == 7, 1e-9, X), theirs, single=single.astype(np.float32))
        == "refuted"
    )


def test_what_is_not_finite_must_be_so_on_both_sides_and_confirms_nothing():
    hole = np.where(np.arange(50) == 3, np.nan, X)
    assert verdict(hole, hole) == "undecided"
    assert verdict(hole, X) == "refuted"
    assert verdict(X, hole) == "refuted"
    assert (
        verdict(np.where(np.arange(50) == 3, np.inf, X), np.where(np.arange(50) == 3, -np.inf, X))
        == "refuted"
    )


def test_zero_on_both_sides_is_called_vacuous():
    finding = semantic(Pair(1e-17 * X, -1e-17 * X, np.full(50, 1e-17), NONE), "x")
    assert (
        finding.verdict == "confirmed"
        and "vacuous" in finding.warning
        and finding.detectable is None
    )


@pytest.mark.parametrize("move", [np.nan, np.inf])
def test_where_noise_leaves_the_domain_nothing_is_called_zero(move):
    ours, moves = np.array([5.0, 2.0]), np.array([move, move])
    assert semantic(Pair(ours, ours + 2, moves, 0 * ours), "y").verdict == "undecided"
    assert semantic(Pair(ours, ours, moves, 0 * ours), "y").verdict == "confirmed"


def test_what_rounding_alone_moves_is_confirmed_only_where_both_sides_agree_to_the_last_digits():
    move = np.full(50, 1e-3)
    assert verdict(X, move=move) == verdict(X * (1 + 3 * EPS), move=move) == "confirmed"
    assert verdict(X * (1 + 1e-9), move=move) == "undecided"
    assert (
        verdict(np.where(np.arange(50) == 7, 2 * X, X), move=np.where(np.arange(50) == 3, 1.0, 0.0))
        == "refuted"
    )


def test_numbers_below_the_range_of_float32_are_not_zero_and_show_no_rounding():
    tiny, zero = 1e-63 * X, np.zeros(50, np.float32)
    found = [
        semantic(Pair(ours, tiny, NONE, NONE, zero, zero), "x")
        for ours in (tiny, tiny * (1 + 1e-8), 2 * tiny)
    ]
    assert [f.verdict for f in found] == ["confirmed", "undecided", "undecided"]
    assert (
        not any(f.warning for f in found) and "float32 holds no numbers so small" in found[1].detail
    )
    mixed = np.where(np.arange(50) == 7, 1e-63, X)
    single = np.where(np.arange(50) == 7, 0, X).astype(np.float32)
    assert (
        semantic(
            Pair(np.where(np.arange(50) == 7, 1e-63, 2 * X), mixed, NONE, NONE, single, single), "x"
        ).verdict
        == "refuted"
    )
    assert (
        semantic(
            Pair(np.where(np.arange(50) == 7, 1.0, X), mixed, NONE, NONE, None, single), "x"
        ).verdict
        == "refuted"
    )


def test_a_tie_everywhere_is_no_zero():
    ones, half = np.ones(50), np.full(50, 0.5)
    finding = semantic(Pair(half, ones, half, ones, None, np.ones(50, np.float32)), "x")
    assert (
        finding.verdict == "undecided"
        and not finding.warning
        and unsettled(finding)
        and "kink or tie" in finding.detail
    )
    assert (
        semantic(Pair(ones, ones, half, ones, None, np.ones(50, np.float32)), "x").verdict
        == "confirmed"
    )


def test_shapes_and_whole_numbers():
    assert verdict(X[:, None]) == "refuted"
    assert verdict(np.arange(50), np.arange(50)) == "confirmed"
    assert verdict(np.arange(50), np.arange(50)[::-1]) == "refuted"
    assert verdict(np.arange(50) > 3, X) == "refuted"


def test_accuracy_is_measured_against_torchs_and_against_conditioning():
    rng = np.random.default_rng(0)
    theirs = rng.standard_normal(400)
    single = (theirs * (1 + 1e-7 * rng.standard_normal(400))).astype(np.float32)
    none = np.zeros(400)
    pair = Pair(theirs, theirs, none, none, single, single)

    def found(*errors, move=none):
        runs = [(theirs * (1 + e * rng.standard_normal(400))).astype(np.float32) for e in errors]
        return numerical(pair._replace(their_move=move), runs, [theirs] * len(errors), "x")

    assert found(2e-7).verdict == "confirmed"
    worse = found(1e-5)
    assert worse.verdict == "refuted" and "times less accurate than torch" in worse.diagnosis
    assert found(1e-5, 2e-7).verdict == "confirmed", "what one noisy copy does not show is bad luck"
    assert (
        found(1e-5, move=np.abs(theirs) * 3e-6 * EPS / np.finfo(np.float32).eps).verdict
        == "confirmed"
    ), "ill-conditioned"
    broken = numerical(pair, [np.where(np.arange(400) == 2, np.inf, single)], [theirs], "x")
    assert broken.verdict == "refuted" and "ours is inf in float32" in broken.detail


def test_accuracy_is_not_judged_where_float32s_range_decides():
    theirs = 1e-36 * X
    single, flushed = (
        theirs.astype(np.float32),
        np.where(np.abs(theirs) < 1e-37, 0, theirs).astype(np.float32),
    )
    assert (
        numerical(Pair(theirs, theirs, NONE, NONE, single, single), [flushed], [theirs], "x")
        is None
    )
