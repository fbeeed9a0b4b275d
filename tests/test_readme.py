"""What the README shows runs, and what it lists is there."""

import pathlib
import re

import pytest

import jaxgrad as jg

README = pathlib.Path(__file__).parent.parent.joinpath("README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_readme_runs(number):
    scope = {}
    exec(compile(EXAMPLES[number], f"README example {number}", "exec"), scope)
    if "claim" in scope:
        report = jg.verify(scope["claim"])
        report.assert_confirmed()
        assert {finding.evidence for finding in report.findings} == {"certificate", "expectation", "differences", "monte_carlo"}


def test_there_are_examples():
    assert len(EXAMPLES) >= 2


def test_every_entry_of_the_catalogue_stands_in_the_table_with_the_evidence_that_verifies_it():
    rows = {row.split("`")[1]: row for row in README.splitlines() if row.startswith("| `")}
    for entry in jg.catalog.all():
        assert entry.name in rows
        assert ("`expectation`" if entry.mask else "`autodiff`") in rows[entry.name]


def test_the_readme_names_both_commands():
    assert "python -m pip install . && jaxgrad verify" in README
    assert "python -m pip install '.[test]' && python -m pytest" in README
