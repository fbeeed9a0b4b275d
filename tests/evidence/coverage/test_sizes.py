"""The choices of sizes: every letter alone, every pair in every order."""

import itertools

from jaxgrad.evidence.coverage.sizes import VALUES, walk

LETTERS = ["m", "n", "p"]


def test_every_letter_goes_through_all_values_while_the_others_stay():
    choices = list(walk(LETTERS, {}))
    for letter, value in itertools.product(LETTERS, VALUES):
        rest = {tuple(c[o] for o in LETTERS if o != letter) for c in choices if c[letter] == value}
        assert any(set(others) <= {2, 3} for others in rest)


def test_every_pair_is_once_far_below_once_equal_and_once_far_above():
    choices = list(walk(LETTERS, {}))
    for a, b in itertools.combinations(LETTERS, 2):
        assert any(c[a] + 8 <= c[b] for c in choices)
        assert any(c[a] == c[b] for c in choices)
        assert any(c[b] + 8 <= c[a] for c in choices)


def test_no_choice_comes_twice_and_fixed_sizes_stay():
    choices = [tuple(sorted(c.items())) for c in walk(LETTERS, {"n": 7})]
    assert len(set(choices)) == len(choices)
    assert all(dict(c)["n"] == 7 for c in choices)


def test_where_all_is_fixed_there_is_one_choice():
    assert list(walk(["n"], {"n": 4})) == [{"n": 4}]
    assert list(walk([], {})) == [{}]
