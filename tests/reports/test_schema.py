"""The JSON that is written is the JSON that docs/ describes."""

import json
import re
from importlib.resources import files
from pathlib import Path

import jax.numpy as jnp
import jsonschema
import pytest

import jaxgrad as jg
from jaxgrad.command.running import Outcome
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.reports.report import SCHEMA, Report

pytestmark = pytest.mark.quick

DOCS = Path(__file__).parents[2] / "docs"
FORM = json.loads(
    files("jaxgrad.reports").joinpath("report.schema.json").read_text(encoding="utf-8")
)
PAGE = (DOCS / "json.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run():
    claims = [
        jg.catalog.get("inverted_dropout"),
        jg.catalog.get("linear"),
        jg.Derivation(
            name="nan",
            loss=lambda x: (x**2).sum(),
            gradient=lambda x: {"x": jnp.nan * x},
            shapes={"x": "n"},
        ),
        jg.Derivation(
            name="wrong",
            loss=lambda x: (x**2).sum(),
            gradient=lambda x: {"x": x},
            shapes={"x": "60 70"},
        ),
    ]
    bare = Report(
        name="bare",
        findings=(
            Finding(evidence="autodiff", wrt="x", verdict=Verdict.UNDECIDED, error=float("inf")),
        ),
    )
    return Outcome([*map(jg.verify, claims), bare], {"broken": "raised"})


def valid(data):
    jsonschema.Draft202012Validator.check_schema(FORM)
    jsonschema.Draft202012Validator(FORM).validate(data)


def test_a_run_and_its_reports_fit_the_form(run):
    valid(json.loads(run.to_json()))
    for report in run.reports:
        valid(json.loads(report.to_json()))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.update(schema=SCHEMA + 1),
        lambda data: data.pop("errors"),
        lambda data: data["reports"][0].update(verdict="maybe"),
        lambda data: data["reports"][0]["findings"][0].pop("bound"),
        lambda data: data["reports"][0]["findings"][1]["pictures"][0].update(kind="other"),
        lambda data: data["reports"][0]["claim"].pop("text"),
    ],
)
def test_what_does_not_fit_is_found(run, spoil):
    data = json.loads(run.to_json())
    spoil(data)
    with pytest.raises(jsonschema.ValidationError):
        valid(data)


def test_the_version_is_that_of_the_form_and_of_the_page(run):
    assert FORM["$defs"]["run"]["properties"]["schema"]["const"] == SCHEMA
    assert FORM["$defs"]["report"]["properties"]["schema"]["const"] == SCHEMA
    assert f"| `schema` | {SCHEMA} |" in PAGE


@pytest.mark.parametrize("part", ["run", "report", "finding"])
def test_the_page_has_a_row_for_each_field(part):
    table = PAGE.split(f"A **{part}** has")[1].split("\n\n")[1]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(
        FORM["$defs"][part]["properties"]
    )


@pytest.mark.parametrize("part", ["context", "claim", "heat", "closing", "histogram"])
def test_the_page_names_every_field_of_the_parts(part):
    assert all(f"`{name}`" in PAGE for name in FORM["$defs"][part]["properties"] if name != "kind")


def test_the_example_of_the_page_runs():
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(example, "docs/json.md", "exec"), {})
