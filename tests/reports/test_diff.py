"""jaxgrad diff: what it tells of two runs, and what it returns."""

import json

import pytest
from click.testing import CliRunner

from jaxgrad.command.cli import main
from jaxgrad.command.running import Outcome
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.reports.report import Report

pytestmark = pytest.mark.quick

C, R, U = Verdict.CONFIRMED, Verdict.REFUTED, Verdict.UNDECIDED


def report(name, verdict, *, wrt="x", evidence="autodiff", **more):
    return Report(
        name=name, findings=(Finding(evidence=evidence, wrt=wrt, verdict=verdict, **more),)
    )


@pytest.fixture
def diff(tmp_path, monkeypatch):
    """Write two runs and compare them."""
    monkeypatch.chdir(tmp_path)

    def run(old, new, old_errors=(), new_errors=()):
        for name, reports, errors in (("old.json", old, old_errors), ("new.json", new, new_errors)):
            (tmp_path / name).write_text(Outcome(list(reports), dict(errors)).to_json())
        return CliRunner().invoke(main, ["diff", "old.json", "new.json"])

    return run


def test_a_run_is_as_itself(diff):
    result = diff([report("a", C), report("b", R)], [report("a", C), report("b", R)])
    assert (result.exit_code, result.stdout) == (
        0,
        "2 derivations: 2 unchanged, 0 worse, 0 better\n",
    )


@pytest.mark.parametrize(("before", "after"), [(C, U), (C, R), (U, R)])
def test_a_verdict_that_got_worse_is_told_with_the_diagnosis_and_returns_one(diff, before, after):
    result = diff(
        [report("a", before), report("b", C)],
        [report("a", after, diagnosis="x: the sign"), report("b", C)],
    )
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == f"✗ a  {before} before, now {after}: x: the sign"
    assert "1 unchanged, 1 worse, 0 better" in result.stdout
    again = diff([report("a", after)], [report("a", before)])
    assert again.exit_code == 0 and "0 worse, 1 better" in again.stdout


def test_an_input_that_got_worse_behind_an_unchanged_verdict_is_worse(diff):
    old = Report(name="a", findings=(*report("a", R).findings, *report("a", C, wrt="w").findings))
    new = Report(name="a", findings=(*report("a", R).findings, *report("a", R, wrt="w").findings))
    result = diff([old], [new])
    assert result.exit_code == 1 and "w: confirmed before, now refuted" in result.stdout


def test_what_can_no_longer_be_verified_is_worse_and_the_reverse_is_better(diff):
    result = diff([report("a", R)], [], new_errors={"a": "`loss` of a raised"})
    assert (
        result.exit_code == 1
        and "refuted before, now in error: `loss` of a raised" in result.stdout
    )
    assert diff([], [report("a", C)], old_errors={"a": "raised"}).exit_code == 0


def test_a_new_derivation_is_worse_unless_confirmed(diff):
    assert diff([], [report("a", C)]).exit_code == 0
    assert diff([], [report("a", U)]).exit_code == 1


@pytest.mark.parametrize("before", [C, U, R])
def test_a_derivation_that_is_gone_is_worse(diff, before):
    gone = diff([report("a", before), report("b", C)], [report("b", C)])
    assert gone.exit_code == 1
    assert (
        gone.stdout.splitlines()[0]
        == f"✗ a  {before} before, now gone: the new run does not verify it"
    )
    assert "1 unchanged, 1 worse, 0 better" in gone.stdout


def test_an_input_that_is_gone_is_worse_and_a_new_one_unless_confirmed(diff):
    one, right, wrong = report("a", C), report("a", C, wrt="w"), report("a", R, wrt="w")
    both, bad = (
        Report(name="a", findings=(*one.findings, *other.findings)) for other in (right, wrong)
    )
    gone = diff([both], [one])
    assert (
        gone.exit_code == 1
        and "w: confirmed before, now gone: its gradient is no longer verified" in gone.stdout
    )
    assert diff([one], [both]).exit_code == 0
    worse = diff(
        [report("a", R)], [Report(name="a", findings=(*report("a", R).findings, *wrong.findings))]
    )
    assert worse.exit_code == 1 and "w: new, refuted" in worse.stdout
    assert diff([one], [bad]).exit_code == 1


def test_evidence_that_weakened_is_told_and_is_no_failure(diff):
    strong = Report(
        name="a",
        findings=(
            *report("a", C, detectable=1e-14).findings,
            *report("a", C, evidence="certificate").findings,
        ),
    )
    weak = Report(
        name="a",
        findings=(
            *report("a", C, detectable=1e-6).findings,
            *report("a", U, evidence="certificate").findings,
        ),
    )
    result = diff([strong], [weak])
    assert result.exit_code == 0
    assert "x, autodiff: detected errors above 1e-14 before, now only above 1e-06" in result.stdout
    assert "x, certificate: confirmed before, now undecided" in result.stdout
    assert (
        diff([weak], [Report(name="a", findings=weak.findings[:1])]).stdout.count(
            "now not gathered"
        )
        == 1
    )


def test_a_new_warning_is_told(diff):
    assert (
        "now warned: x: vacuous"
        in diff([report("a", C)], [report("a", C, warning="vacuous")]).stdout
    )


def test_single_reports_and_those_of_the_first_version_are_read(diff, tmp_path):
    diff([], [])
    (tmp_path / "old.json").write_text(report("a", C).to_json())
    first = json.loads(report("a", R).to_json()) | {"schema": 1}
    del first["claim"], first["findings"][0]["pictures"]
    (tmp_path / "new.json").write_text(
        json.dumps({"schema": 1, "verdict": "refuted", "reports": [first], "errors": []})
    )
    result = CliRunner().invoke(main, ["diff", "old.json", "new.json"])
    assert result.exit_code == 1 and "confirmed before, now refuted" in result.stdout


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not JSON: line 1"),
        ("[]", "has no `schema`"),
        ("3", "has no `schema`"),
        ('{"schema": 99}', "has version 99 of the report; this jaxgrad reads 1 and 2"),
        ('{"schema": 2, "reports": [{"name": "a"}]}', "is damaged (KeyError: 'findings')"),
        ('{"schema": 2, "reports": 7}', "is damaged"),
        (
            '{"schema": 2, "reports": [{"name": "a", "context": {}, "findings": [{"verdict": '
            '"maybe"}]}]}',
            "is damaged",
        ),
        (
            json.dumps({"schema": 2, "reports": [json.loads(report("a", C).to_json())] * 2}),
            "two reports named 'a'",
        ),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_what_is_no_report_is_told_with_the_remedy(tmp_path, text, told):
    (tmp_path / "good.json").write_text(report("a", C).to_json())
    (tmp_path / "bad.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    for order in (["good.json", "bad.json"], ["bad.json", "good.json"]):
        result = CliRunner().invoke(main, ["diff", *(str(tmp_path / name) for name in order)])
        assert result.exit_code == 2 and told in result.stderr and result.stderr.count("\n") == 1


def test_a_file_that_is_not_there_is_told(tmp_path):
    result = CliRunner().invoke(main, ["diff", str(tmp_path / "none.json"), str(tmp_path)])
    assert (
        result.exit_code == 2
        and "does not exist; write it again with `jaxgrad verify --json`" in result.stderr
    )
