"""The plugin in sessions of pytest: what fails, what it says, and what is written."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import scipy.special  # noqa: F401 - imported for what is said below

from jaxgrad.claims import user_errors  # noqa: F401 - likewise
from jaxgrad.command import loading, running  # noqa: F401 - likewise

# A session inside of this process forgets the modules that it was the first to import; JAX cannot
# be imported twice.
from jaxgrad.reports import assertion  # noqa: F401 - likewise
from jaxgrad.reports.html import page  # noqa: F401 - likewise
from jaxgrad.verification.verify import verify  # noqa: F401 - likewise

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
CLAIMS = """
import jaxgrad as jg

def claim(name, factor):
    return jg.Derivation(
        name=name,
        loss=lambda x: (x**2).sum(),
        gradient=lambda x: {"x": factor * x},
        shapes={"x": "n"},
    )

right = claim("right", 2)
"""
WRONG = CLAIMS + 'wrong = claim("wrong <b>", 3)\n'
INSTALLED = any(
    entry.name == "jaxgrad" for entry in importlib.metadata.entry_points(group="pytest11")
)


@pytest.fixture
def session(pytester):
    """Run pytest inside of this process, in an empty folder."""

    def run(*args, **files):
        pytester.makepyfile(**files)
        return pytester.runpytest_inprocess(
            "-p", "no:jaxgrad", "-p", "jaxgrad.pytest_plugin", "-p", "no:xdist", *map(str, args)
        )

    return run


def test_the_entry_point_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"jaxgrad": "jaxgrad.pytest_plugin"}


def test_loading_the_plugin_imports_neither_jax_nor_numpy():
    code = "import sys, jaxgrad.pytest_plugin; assert not {'jax', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_file_of_derivations_runs_as_it_is_and_each_is_a_test(session):
    result = session("--jaxgrad", "derivations.py", "-v", derivations=WRONG)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["derivations.py::right PASSED*", "derivations.py::wrong <b> FAILED*"]
    )
    result.stdout.fnmatch_lines(["wrong <b> is refuted: *3/2 times*"])
    assert "Traceback" not in result.stdout.str() and "verification.py" not in result.stdout.str()
    result.stdout.fnmatch_lines(["2 verifications: 1 confirmed, 1 refuted"])


def test_one_derivation_of_a_file_is_chosen_by_its_name(session):
    session("--jaxgrad", "derivations.py::right", derivations=WRONG).assert_outcomes(passed=1)


def test_without_the_option_a_file_of_derivations_holds_no_tests(session):
    assert session("derivations.py", derivations=WRONG).ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_file_of_tests_keeps_its_tests_beside_its_derivations(session):
    files = {
        "test_both": CLAIMS + "def test_it():\n    pass\n",
        "test_none": "def test_it():\n    pass\n",
    }
    session("--jaxgrad", "test_both.py", "test_none.py", **files).assert_outcomes(passed=3)


def test_a_folder_is_not_searched_for_derivations_and_that_is_told(session):
    result = session(
        "--jaxgrad", ".", mine="raise SystemExit('imported')", test_it="def test_it():\n    pass\n"
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "--jaxgrad found no derivations: . is a folder*; name their files, as in pytest "
            "--jaxgrad [*].py"
        ]
    )


def test_a_folder_beside_a_file_of_derivations_is_told_of_too(session, tmp_path):
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "other.py").write_text(WRONG)
    result = session("--jaxgrad", "derivations.py::right", str(folder), derivations=WRONG)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [f"--jaxgrad did not search the folder {folder}; name its files, as in *[*].py"]
    )


@pytest.mark.parametrize("more", [(), ("--collect-only",), ("-k", "nothing")])
def test_nothing_to_verify_is_told_with_what_to_type(session, more):
    assert (
        "name their files, as in pytest --jaxgrad"
        in session("--jaxgrad", *more, mine=WRONG).stdout.str()
    )
    assert (
        "found no derivations"
        not in session("--jaxgrad", "mine.py", *more, mine=WRONG).stdout.str()
    )


def test_derivations_are_listed_and_chosen_by_words_of_their_names(session):
    listed = session(
        "--jaxgrad", "derivations.py", "--collect-only", "-q", derivations=WRONG
    ).stdout
    listed.fnmatch_lines(["derivations.py::right", "derivations.py::wrong <b>"])
    session(
        "--jaxgrad", "derivations.py", "-k", "wrong and not right", derivations=WRONG
    ).assert_outcomes(failed=1, deselected=1)


TEST = (
    WRONG
    + """
def test_kept(jaxgrad):
    report = jaxgrad.verify(wrong)
    assert report.verdict == jaxgrad.Verdict.CONFIRMED

def test_asserted(jaxgrad):
    jaxgrad.verify(wrong).assert_confirmed()

def test_right(jaxgrad):
    assert jaxgrad.verify(right, evidence="autodiff").context["seed"] == 7
    assert jaxgrad.verify(right, evidence="autodiff", seed=3).context["seed"] == 3
"""
)


def test_the_fixture_attaches_reports_to_failures_once_and_takes_the_seed(session):
    result = session("--jaxgrad-seed", 7, test_it=TEST)
    result.assert_outcomes(passed=1, failed=2)
    text = result.stdout.str()
    kept, asserted = (
        text.split(f"_ {name} _")[1].split("short test summary")[0]
        for name in ("test_kept", "test_asserted")
    )
    kept = kept.split("_ test_asserted _")[0]
    assert "- jaxgrad -" in kept and "✗ wrong <b> is refuted" in kept
    assert "- jaxgrad -" not in asserted.split("\n---")[0] and asserted.count("is refuted\n") == 1
    assert re.search(r"E +AssertionError: wrong <b> is refuted: .*3/2 times", asserted)


def test_what_an_assertion_says_fits_a_terminal_of_eighty_columns(session, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = session("--jaxgrad", "derivations.py", derivations=WRONG).stdout.str()
    told = (
        text.split("wrong <b> is refuted")[1]
        .split("short test summary")[0]
        .split("warnings summary")[0]
    )
    assert max(len(line) for line in told.splitlines()[1:]) <= 80


def test_junit_gets_the_verdicts_as_properties(session, pytester):
    session(
        "--jaxgrad",
        "derivations.py",
        "--junit-xml",
        "out.xml",
        "--jaxgrad-seed",
        5,
        derivations=WRONG,
    )
    cases = {
        case.get("name"): case for case in ET.parse(pytester.path / "out.xml").iter("testcase")
    }
    told = {p.get("name"): p.get("value") for p in cases["wrong <b>"].iter("property")}
    assert told["jaxgrad.wrong <b>.verdict"] == "refuted" and told["jaxgrad.wrong <b>.seed"] == "5"
    assert (
        "3/2 times" in told["jaxgrad.wrong <b>.reason"]
        and told["jaxgrad.wrong <b>.verdict.x"] == "refuted"
    )
    assert {p.get("name") for p in cases["right"].iter("property")} >= {
        "jaxgrad.right.verdict",
        "jaxgrad.right.seconds",
    }


def test_the_page_holds_every_report_with_the_command_for_its_test(session, pytester):
    result = session(
        "--jaxgrad-seed",
        7,
        "--jaxgrad-html",
        "page.html",
        "--jaxgrad",
        "derivations.py",
        "test_it.py",
        derivations=WRONG,
        test_it=TEST,
    )
    result.stdout.fnmatch_lines(["page of 8 reports written to *page.html"])
    text = (pytester.path / "page.html").read_text(encoding="utf-8")
    assert text.count('<section class="derivation"') == 8 and "wrong <b>" not in text
    assert "pytest --jaxgrad --jaxgrad-seed 7 derivations.py::right" in text
    assert "pytest --jaxgrad-seed 7 test_it.py::test_asserted" in text


def test_under_xdist_the_page_and_the_count_are_the_same(pytester, monkeypatch):
    if not INSTALLED:
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makepyfile(derivations=WRONG, test_it=TEST)
    plugin = [] if INSTALLED else ["-p", "jaxgrad.pytest_plugin"]
    args = [
        "-n",
        "2",
        "--jaxgrad-html",
        "page.html",
        "--jaxgrad",
        "derivations.py",
        "test_it.py",
        "--jaxgrad-seed",
        "7",
    ]
    result = pytester.runpytest_subprocess(*plugin, *args)
    result.assert_outcomes(passed=3, failed=4)
    result.stdout.fnmatch_lines(
        ["8 verifications: 4 confirmed, 4 refuted", "page of 8 reports written to *page.html"]
    )
    text = (pytester.path / "page.html").read_text(encoding="utf-8")
    assert text.count('<section class="derivation"') == 8 and "closed form, from" in text


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--jaxgrad-seed", "seven"], "--jaxgrad-seed 'seven' is no seed; give a whole number"),
        (["--jaxgrad-seed", "-1"], "is no seed"),
        (
            ["--jaxgrad-html", "nowhere/page.html"],
            "`--jaxgrad-html` nowhere/page.html cannot be written: there is no folder",
        ),
        (["--jaxgrad-html", "."], "is a folder; give the name of a file"),
    ],
)
def test_a_bad_option_is_told_before_anything_runs(session, args, told):
    result = session(*args, test_it="def test_it():\n    raise SystemExit\n")
    assert result.ret == pytest.ExitCode.USAGE_ERROR and told in result.stderr.str()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            CLAIMS + "again = claim('right', 2)\n",
            "holds two derivations with the name 'right'; give one of them another `name`",
        ),
        (
            "x = undefined_name\n",
            "derivations.py:1: NameError: name 'undefined_name' is not defined",
        ),
        ("def f(:\n", "invalid syntax"),
        ("x = 1\n", "holds no derivations; define one at module level"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_error_that_says_why(session, code, told):
    result = session("--jaxgrad", "derivations.py", derivations=code)
    result.assert_outcomes(errors=1)
    assert told in result.stdout.str() and "Traceback" not in result.stdout.str()


def test_a_loss_that_raises_is_told_with_its_line(session):
    code = (
        CLAIMS
        + "broken = jg.Derivation(name='broken', loss=lambda x: 1 / 0, gradient=lambda x: {'x': "
        "x}, shapes={'x': 'n'})\n"
    )
    result = session("--jaxgrad", "derivations.py::broken", derivations=code)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["`loss` of broken raised ZeroDivisionError: division by zero (derivations.py:*"]
    )


def test_names_that_xml_cannot_hold_do_not_break_it(session, pytester):
    code = CLAIMS.replace('"right"', '"a\\x1b\\x00b\\n<c>"')
    session(
        "--jaxgrad",
        "derivations.py",
        "--junit-xml",
        "out.xml",
        "--jaxgrad-html",
        "out.html",
        derivations=code,
    ).assert_outcomes(passed=1)
    assert ET.parse(pytester.path / "out.xml").getroot().find(".//property") is not None
    assert "\x1b" not in (pytester.path / "out.html").read_text(encoding="utf-8")


def test_a_session_keeps_no_programs_and_jaxs_settings_are_not_touched(
    tmp_path,
):
    (tmp_path / "mine.py").write_text(CLAIMS)
    (tmp_path / "conftest.py").write_text(
        "import jax\n"
        "def pytest_sessionfinish():\n"
        "    assert not jax.config.jax_compilation_cache_dir\n"
        "    assert jax.config.jax_persistent_cache_min_compile_time_secs == 1\n"
    )

    plugin = ("-p", "no:jaxgrad", "-p", "jaxgrad.pytest_plugin", "-p", "no:cacheprovider")
    environment = {
        **os.environ,
        "JAXGRAD_CACHE": str(tmp_path / "kept"),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "pytest", *plugin, "--jaxgrad", "mine.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "1 confirmed" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "kept").exists()
