"""What the README shows runs, and what it lists is there."""

import dataclasses
import pathlib
import re

import jax
import pytest

import jaxgrad as jg

README = pathlib.Path(__file__).parent.parent.joinpath("README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_readme_runs(number):
    scope = {}
    exec(compile(EXAMPLES[number], f"README example {number}", "exec"), scope)
    for name in (
        "equinox_layer",
        "flax_layer",
        "cross_entropy",
        "rule",
    ):  # wrong by a half, each is refuted
        if name in scope:
            right = scope[name]
            halved = dataclasses.replace(
                right,
                gradient=lambda r=right, **inputs: jax.tree.map(
                    lambda x: x / 2, r.gradient(**inputs)
                ),
            )
            assert jg.verify(halved, evidence="autodiff").verdict == "refuted"
    if "claim" in scope:
        report = jg.verify(scope["claim"])
        report.assert_confirmed()
        assert {finding.evidence for finding in report.findings} == {
            "certificate",
            "expectation",
            "differences",
            "monte_carlo",
        }


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


def test_the_report_that_is_shown_is_that_of_the_catalogue():
    docs = pathlib.Path(__file__).parent.parent / "docs"
    text = docs.joinpath("catalogue.html").read_text(encoding="utf-8")
    assert len(text.encode()) < 3_000_000
    assert re.findall(r"<section[^>]*><div class=\"title\"><h2>(\w+)</h2>", text) == [
        entry.name for entry in jg.catalog.all()
    ]
    assert (
        text.count("✓ confirmed</span></div>") == len(jg.catalog.all())
        and "refuted</span>" not in text
    )
    assert docs.joinpath("report.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
