"""The comparison that keeps docs/catalogue.html up to date: it sees what changed, and not what
always does.
"""

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
COMPARE = runpy.run_path(str(DOCS / "compare.py"))
PAGE = DOCS.joinpath("catalogue.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.0", "7.5"),
        ("<sup>−239</sup>", "<sup>−241</sup>"),
        ("seed 0", "seed 12"),
        ('class="e1"', 'class="e2"'),
        ("jax 0.10.2", "jax 0.11.0"),
        ("jaxgrad verify --seed 0", "jaxgrad verify --seed 12"),
    ],
)
def test_numbers_figures_and_the_circumstances_of_a_run_may_change(old, new):
    assert old in PAGE
    assert COMPARE["difference"](PAGE, PAGE.replace(old, new)) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mse_matvec", "mse_matvecs"),
        ("✓ confirmed", "✗ refuted"),
        ("Finite differences", "Differences"),
        ("extrapolated", "interpolated"),
        ("<mi>w</mi>", "<mi>v</mi>"),
        ("return w @ x", "return x @ w"),
    ],
)
def test_a_name_a_verdict_an_evidence_a_formula_or_code_may_not(old, new):
    assert old in PAGE
    told = COMPARE["difference"](PAGE, PAGE.replace(old, new, 1))
    assert "the committed page has" in told and "and the fresh one" in told


def test_a_section_that_is_missing_is_seen():
    end = PAGE.rindex('<section class="derivation"')
    rest = PAGE[PAGE.index("</section>", end) + len("</section>") :]
    assert COMPARE["difference"](PAGE, PAGE[:end] + rest)
