"""The table of reports, as plain text and as lines for a terminal."""

import subprocess
import sys

import pytest

from jaxgrad.reports import layout, table
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.reports.report import Report

CONFIRMED, REFUTED, UNDECIDED = Verdict.CONFIRMED, Verdict.REFUTED, Verdict.UNDECIDED


def finding(evidence="autodiff", wrt="x", verdict=CONFIRMED, **fields):
    return Finding(evidence=evidence, wrt=wrt, verdict=verdict, **fields)


GOOD = Report(
    name="square",
    findings=(
        finding(error=2e-16, bound=9e-16, detectable=2e-15, seconds=0.5, detail="three sizes"),
        finding("differences", error=3e-11, bound=1e-9, detectable=2e-9, seconds=0.25),
        finding(wrt="y", error=0.0, bound=9e-16, detectable=3e-15),
    ),
)
BAD = Report(
    name="masked",
    findings=(
        finding(
            "monte_carlo",
            "w1",
            REFUTED,
            error=0.37,
            bound=0.004,
            detectable=0.01,
            diagnosis="twice what it should be",
        ),
        finding(
            "monte_carlo",
            "w2",
            UNDECIDED,
            error=0.09,
            bound=0.1,
            detail="the samples do not settle it",
        ),
    ),
)
WARNED = Report(
    name="constant",
    findings=(finding(error=0.0, warning="vacuous: the loss does not depend on x"),),
)


def test_each_input_has_one_row_and_each_evidence_one_column():
    head, _, first, second, *_ = table.plain_table([GOOD]).splitlines()
    assert head.split() == [
        "derivation",
        "input",
        "verdict",
        "autodiff",
        "differences",
        "detects",
        "time",
    ]
    assert first.split() == [
        "square",
        "x",
        "✓",
        "confirmed",
        "✓",
        "2e-16",
        "✓",
        "3e-11",
        "2e-15",
        "0.75",
        "s",
    ]
    assert second.split() == ["y", "✓", "confirmed", "✓", "0", "3e-15"]


def test_one_report_tells_every_finding_with_error_bound_and_detail():
    text = table.plain_table([GOOD])
    assert "error 2.0e-16, bound 9.0e-16, detects 2.0e-15, 0.50 s" in text
    assert "three sizes" in text


def test_several_reports_explain_only_what_is_refuted_undecided_or_warned_of():
    text = table.plain_table([GOOD, BAD, WARNED])
    assert "square is" not in text
    assert "masked is refuted" in text
    assert "twice what it should be" in text
    assert "the samples do not settle it" in text
    assert "vacuous: the loss does not depend on x" in text
    assert "! confirmed" in text
    assert text.splitlines()[-1] == "3 derivations: 2 confirmed, 1 refuted, 1 with a warning"


def test_a_report_without_findings_is_shown_as_undecided_with_the_reason():
    text = table.plain_table([Report(name="bare", findings=())])
    assert "? undecided" in text
    assert "no evidence applies" in text


def test_str_of_a_report_is_its_table():
    assert str(GOOD) == table.plain_table([GOOD])


def test_a_failed_assertion_carries_the_table():
    with pytest.raises(AssertionError, match="twice what it should be"):
        BAD.assert_confirmed()


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_the_table_keeps_to_its_width(width):
    long = Report(name="masked_autoencoder_fixed_count", findings=(*BAD.findings, *GOOD.findings))
    nested = Report(
        name="relu_mlp", findings=(finding(wrt="params['layers'][0]['weight']", error=1e-16),)
    )
    text = table.plain_table([long, nested, BAD, WARNED], width)
    assert max(map(len, text.splitlines())) <= width


def test_what_is_least_important_is_given_up_first():
    wide = layout.Layout.fit(["name"], ["x"], ("autodiff", "differences"), 100)
    assert (wide.split, wide.time, wide.detects, wide.words) == (False, True, True, True)
    narrow = layout.Layout.fit(
        ["a_rather_long_name_of_a_claim"], ["x"], ("autodiff", "differences"), 60
    )
    assert (narrow.split, narrow.time, narrow.detects, narrow.words) == (True, False, False, False)


def test_a_long_path_into_an_input_keeps_its_end():
    report = Report(name="mlp", findings=(finding(wrt="params['layers'][0]['weight']"),))
    assert "…['weight']"[-10:] in table.plain_table([report]).splitlines()[2]


def test_plain_text_holds_no_control_codes():
    assert all(c.isprintable() or c == "\n" for c in table.plain_table([GOOD, BAD, WARNED]))


def test_an_infinite_error_is_written_as_such():
    report = Report(
        name="blown", findings=(finding(verdict=REFUTED, error=float("inf"), bound=1e-15),)
    )
    assert "✗ inf" in table.plain_table([report])


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (None, 1, ""),
        (0.0, 1, "0"),
        (9.6e-16, 1, "1e-15"),
        (0.00123, 2, "0.0012"),
        (0.5, 1, "0.5"),
        (12.0, 2, "12"),
        (4e7, 2, "4.0e7"),
    ],
)
def test_numbers_take_few_characters(value, digits, text):
    assert layout.number(value, digits) == text


def test_importing_jaxgrad_imports_neither_the_terminal_nor_torch_nor_scipy():
    code = """
import sys, jax
before = set(sys.modules)
import jaxgrad
new = {name.partition('.')[0] for name in set(sys.modules) - before}
print(sorted(new & {'rich', 'click', 'torch', 'scipy', 'pygments'}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
