"""Comparisons of numbers that differ by constants, which follow the order of the real line."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import Verdict, certify
from jaxgrad.evidence.certificates.fields.lines import Lines, differences
from jaxgrad.evidence.certificates.fields.modular import Draws
from jaxgrad.jaxprs.versions import enable_x64

STEPS = differences([Fraction(1), Fraction(3, 10)])
OFFSETS = [Fraction(0), Fraction(-1), Fraction(1), Fraction(3, 10), Fraction(-13, 10)]


def shifted(draws, x, offset, sign=1):
    return draws.p.reduce(sign * x + draws.p.fraction(offset.numerator, offset.denominator))


def asked(lines, draws, x):
    """Ask for the signs of x + c and −x + c, in this order."""
    answers = {}
    for number, (sign, offset) in enumerate((s, c) for c in OFFSETS for s in (1, -1)):
        answers[sign, offset] = lines.positive((number, 0), shifted(draws, x, offset, sign))
    return answers


def test_the_signs_of_numbers_on_a_line_are_those_of_some_real_number():
    draws = Draws(2000, seed=1)
    x = draws.uniform(())[0]
    learning = Lines(draws, STEPS)
    asked(learning, draws, x)
    again = Draws(3000, seed=2)
    y = again.uniform(())[0]
    known = asked(Lines(again, STEPS, learning.cuts), again, y)
    assert all(names == {(0, 0)} and sure for _, names, sure in known.values())
    low = np.full(3000, -np.inf)
    high = np.full(3000, np.inf)
    for (sign, offset), (truth, _, _) in known.items():
        bound = float(-offset) if sign == 1 else float(offset)
        above = truth if sign == 1 else ~truth
        low, high = (
            np.where(above, np.maximum(low, bound), low),
            np.where(above, high, np.minimum(high, bound)),
        )
    assert np.all(low < high)
    cuts = sorted({float(c) for c in OFFSETS} | {-float(c) for c in OFFSETS})
    _, counts = np.unique(low, return_counts=True)
    assert len(counts) == len(cuts) + 1  # every interval was met, each about as often
    assert np.abs(counts - 3000 / len(counts)).max() < 5 * np.sqrt(3000 / len(counts))


def test_constants_lie_on_the_line_of_zero_and_others_on_their_own():
    draws = Draws(500, seed=0)
    x, y = draws.uniform((2,))[0].T
    lines = Lines(draws, STEPS)
    assert lines.positive((0, 0), shifted(draws, 0 * x, Fraction(3, 10)))[0].all()
    assert not lines.positive((1, 0), shifted(draws, 0 * x, Fraction(-1)))[0].any()
    assert lines.positive((2, 0), x)[1] == {(2, 0)}
    assert lines.positive((3, 0), y)[1] == {(3, 0)}
    both, names, _ = lines.positive((4, 0), np.where(np.arange(500) < 250, x, draws.p.reduce(-y)))
    assert names == {(2, 0), (3, 0)}
    assert both[:250].any() and not both[:250].all()


def test_a_cut_that_was_not_learned_leaves_the_answer_open():
    draws = Draws(200, seed=0)
    x = draws.uniform(())[0]
    lines = Lines(draws, STEPS, {(0, 0): [STEPS.index(0)]})
    assert lines.positive((0, 0), x)[2]
    assert not lines.positive((1, 0), shifted(draws, x, Fraction(1)))[2]
    assert not lines.positive((2, 0), draws.uniform(())[0])[2]


def test_many_constants_are_too_many():
    assert differences([Fraction(1, n) for n in range(2, 40)]) is None


# A piecewise function of x and y is drawn, and rewritten or changed. Where the certificate is sure,
# points must say the same.

CONSTANTS = [-2.0, -1.0, -0.5, 0.3, 0.5, 1.0, 1.345, 2.0]
REWRITINGS = [
    ("jnp.abs(x)", "jnp.maximum(x, -x)"),
    ("jnp.clip(x, -1.0, 1.0)", "jnp.where(x < -1.0, -1.0, jnp.where(x > 1.0, 1.0, x))"),
    ("jnp.clip(x, -0.5, 0.3)", "jnp.minimum(jnp.maximum(x, -0.5), 0.3)"),
    ("(x > 1.0)", "~(x <= 1.0)"),
    ("(jnp.abs(x) < 1.0)", "((x < 1.0) & (x > -1.0))"),
    ("(jnp.abs(x) < 1.0)", "((x < 1.0) & (x > -1.345))"),
    ("(x > 1.0)", "(x > 1.00001)"),
    ("(x > 0.5)", "(2 * x > 1.0)"),
    ("1.0", "1.345"),
]


def condition(rng):
    return str(
        rng.choice(["(jnp.abs(x) < 1.0)", "(x > 1.0)", "(x > 0.5)", "(x + y > 0.3)", "(y <= -1.0)"])
    )


def piecewise(rng, depth):
    if depth == 0:
        return str(
            rng.choice(
                [
                    "x",
                    "y",
                    "x + y",
                    "x - 1.0",
                    "x * y",
                    "0.5",
                    "jnp.abs(x)",
                    "jnp.clip(x, -1.0, 1.0)",
                ]
            )
        )
    a, b, c = (piecewise(rng, depth - 1) for _ in range(3))
    number = rng.choice(CONSTANTS)
    forms = [
        f"jnp.clip({a}, -0.5, 0.3)",
        f"jnp.maximum({a}, {number})",
        f"jnp.minimum({a}, {b})",
        f"jnp.where({condition(rng)}, {a}, {c})",
    ]
    return str(rng.choice([*forms, f"({a}) * ({b})", f"({a}) + ({b})"]))


@pytest.mark.parametrize("number", range(20))
def test_no_verdict_on_a_piecewise_function_contradicts_its_values(number):
    rng = np.random.default_rng(number)
    text = other = piecewise(rng, int(rng.integers(1, 4)))
    for before, after in REWRITINGS:
        if rng.random() < 0.4:
            other = other.replace(before, after)
    scope = {"jnp": jnp}
    f, g = (eval(f"lambda x, y: 1.0 * ({t}) + 0 * x", scope) for t in (text, other))
    if rng.random() < 0.5:
        f, g = jax.grad(f, (0, 1)), jax.grad(g, (0, 1))
    found = certify(f, g, 1.0, 1.0, seed=number).verdict
    with enable_x64(True):
        points = 1.7 * rng.standard_normal((2, 100_000))
        values = [np.array(jax.tree.leaves(jax.vmap(h)(*points))) for h in (f, g)]
    gap = np.abs(values[0] - values[1]) > 1e-9 * (1 + np.abs(values[0]))
    if found == Verdict.CONFIRMED:
        assert not gap.any(), (text, other)
    if found == Verdict.REFUTED:
        assert gap.any(), (text, other)
    if text == other:
        assert found == Verdict.CONFIRMED
