"""The pytest plugin: a fixture, files of derivations as tests, and one page for the whole session.

* The fixture ``jaxgrad`` is the package, but what its ``verify`` finds inside of a test is kept: it
  is shown where the test fails, written to JUnit's XML as properties, and collected for the page.
* ``pytest --jaxgrad mine.py`` runs each `Derivation` of a file as a test.
* ``--jaxgrad-html PATH`` writes all reports of the session as one page, ``--jaxgrad-seed N`` draws
  anew.

JAX's settings are the user's, and nothing is kept between sessions. JAX is imported when the first
of these is used, and not before: every pytest session of an environment loads this module.
"""

import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from jaxgrad.claims.derivation import Derivation
    from jaxgrad.reports.report import Report

_REPORTS = pytest.StashKey[list[Any]]()


class Package:
    """The package ``jaxgrad`` as a test sees it: `verify` keeps its reports with the test."""

    def __init__(self, item: pytest.Item) -> None:
        """Belong to a test."""
        self._item = item

    def verify(self, derivation: "Derivation", **options: Any) -> "Report":
        """Verify as `jaxgrad.verify` does, by default with the seed of ``--jaxgrad-seed``."""
        return _verify(self._item, derivation, **options)

    def __getattr__(self, name: str) -> Any:
        """Pass on whatever else the package has."""
        import jaxgrad

        return getattr(jaxgrad, name)


@pytest.fixture
def jaxgrad(request: pytest.FixtureRequest) -> Package:
    """The package jaxgrad, whose ``verify`` attaches its reports to the test.

    They stand in its failure, in JUnit's XML and on the page.
    """
    return Package(request.node)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("jaxgrad", "gradients (jaxgrad)")
    group.addoption(
        "--jaxgrad",
        action="store_true",
        help="Run the derivations of the files that are named, each as a test.",
    )
    group.addoption(
        "--jaxgrad-html", metavar="PATH", help="Write all reports of the session as one HTML page."
    )
    group.addoption(
        "--jaxgrad-seed",
        metavar="N",
        help="Seed of what is drawn to verify gradients (default: 0).",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Check the options before any work is done."""
    seed = config.getoption("jaxgrad_seed")
    if seed is not None and not (seed.isdecimal() and int(seed) < 2**32):
        raise pytest.UsageError(
            f"--jaxgrad-seed {seed!r} is no seed; give a whole number from 0 to {2**32 - 1}"
        )
    path = config.getoption("jaxgrad_html")
    if path is not None:
        from jaxgrad.runtime import files

        try:
            path = files.check_writable(path, "--jaxgrad-html")
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
    if not hasattr(
        config, "workerinput"
    ):  # a worker of xdist sends what it found to the process that reports it
        config.pluginmanager.register(Gathering(config, path), "jaxgrad-gathering")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "DerivationFile | None":
    """Collect the derivations of a test file named with ``--jaxgrad``, beside its tests."""
    return (
        DerivationFile.from_parent(parent, path=file_path)
        if _wanted(file_path, parent) and _holds_tests(file_path, parent)
        else None
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> "DerivationFile | None":
    """Collect the derivations of any other file that was named with ``--jaxgrad``."""
    return (
        DerivationFile.from_parent(parent, path=module_path)
        if _wanted(module_path, parent) and not _holds_tests(module_path, parent)
        else None
    )


def _wanted(path: Path, parent: pytest.Collector) -> bool:
    return (
        bool(parent.config.getoption("jaxgrad"))
        and path.suffix == ".py"
        and parent.session.isinitpath(path)
    )


def _holds_tests(path: Path, parent: pytest.Collector) -> bool:
    return any(path.match(pattern) for pattern in parent.config.getini("python_files"))


class DerivationFile(pytest.File):
    """A file of derivations."""

    def collect(self) -> Iterator["DerivationItem"]:
        """Return one test for each derivation of the file."""
        from jaxgrad.command import loading

        try:
            found = loading.find([str(self.path)])
        except ValueError as error:
            if "holds no derivations" in str(error) and _holds_tests(self.path, self):
                return
            raise self.CollectError(str(error)) from None
        for derivation in found:
            yield DerivationItem.from_parent(
                self, name=_xml(derivation.name).replace("\n", " "), derivation=derivation
            )


class DerivationItem(pytest.Item):
    """A derivation as a test: it passes when every gradient is confirmed."""

    def __init__(self, *, derivation: "Derivation", **arguments: Any) -> None:
        """Hold the derivation."""
        super().__init__(**arguments)
        self.derivation = derivation

    def runtest(self) -> None:
        """Verify, and fail unless confirmed."""
        _verify(self, self.derivation).assert_confirmed()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Say what is wrong with the gradient, or the file, without a traceback of jaxgrad's."""
        if isinstance(excinfo.value, AssertionError):
            return str(excinfo.value)
        from jaxgrad.claims import user_errors

        return user_errors.user_message(excinfo.value, self.derivation) or super().repr_failure(
            excinfo, style
        )

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Say where the test stands."""
        return self.path, None, f"derivation {self.name}"


def _verify(item: pytest.Item, derivation: "Derivation", **options: Any) -> "Report":
    from dataclasses import replace

    from jaxgrad.verification.verify import verify

    report = verify(
        derivation, **{"seed": int(item.config.getoption("jaxgrad_seed") or 0), **options}
    )
    report = replace(
        report, context=report.context | {"command": _again(item, report.context["seed"])}
    )
    item.stash.setdefault(_REPORTS, []).append(report)
    for name, value in _properties(report):
        item.user_properties.append((name, value))
    return report


def _again(item: pytest.Item, seed: int) -> str:
    import shlex

    flag = ["--jaxgrad"] if isinstance(item, DerivationItem) else []
    return shlex.join(["pytest", *flag, "--jaxgrad-seed", str(seed), item.nodeid])


def _properties(report: "Report") -> list[tuple[str, str]]:
    """Return what JUnit's XML tells of a report."""
    from jaxgrad.reports.assertion import reason

    told = {
        "verdict": report.verdict,
        "seed": report.context.get("seed"),
        "seconds": f"{report.seconds:.2f}",
    }
    told |= {f"verdict.{wrt}": verdict for wrt, verdict in report.by_input.items()}
    if report.verdict != "confirmed":
        told["reason"] = reason(report)
    return [(_xml(f"jaxgrad.{report.name}.{key}"), _xml(str(value))) for key, value in told.items()]


def _xml(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the reports of a test to what pytest says of it."""
    result = yield
    reports = item.stash.get(_REPORTS, [])
    if call.when == "call" and reports:
        vars(result)["jaxgrad"] = [
            json.loads(report.to_json(indent=None)) for report in reports
        ]  # plain, so that xdist can send it
        if result.failed:
            said = str(result.longrepr)
            shown = [
                str(report)
                for report in reports
                if f"{report.name} is {report.verdict}: " not in said
            ]
            if shown and not isinstance(item, DerivationItem):
                result.sections.append(("jaxgrad", "\n\n".join(shown)))
    return result


class Gathering:
    """Gathers the reports of a session, in the process that reports it, and writes the page."""

    def __init__(self, config: pytest.Config, path: Path | None) -> None:
        """Gather nothing yet; `path` is where the page is to be written, or None."""
        self.config, self.path, self.told = config, path, ""
        self.reports: dict[str, list[dict[str, Any]]] = {}
        self.missing = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Note where ``--jaxgrad`` found nothing or did not look, before tests are chosen."""
        if config.getoption("jaxgrad") and not session.testsfailed:
            self.missing = _where_to_look(
                config, found=any(isinstance(item, DerivationItem) for item in items)
            )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take over the reports of a test, which under xdist another process ran."""
        found = getattr(report, "jaxgrad", None)
        if found:
            self.reports[report.nodeid] = found

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the page."""
        if self.path is None:
            return
        from jaxgrad.reports.html import page
        from jaxgrad.reports.report import Report
        from jaxgrad.runtime import files

        many = self.config.getoption("numprocesses", None)
        tests = (
            sorted(self.reports) if many else list(self.reports)
        )  # which worker is first, is chance
        reports = [Report.from_dict(report) for test in tests for report in self.reports[test]]
        try:
            files.write_atomically(self.path, page.render(reports))
        except OSError as error:
            self.told = f"the page {self.path} could not be written: {error.strerror}"
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        else:
            self.told = (
                f"page of {len(reports)} report{'s' * (len(reports) != 1)} written to {self.path}"
            )

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say how many derivations were verified, and where the page is."""
        verdicts = [report["verdict"] for reports in self.reports.values() for report in reports]
        if not verdicts and not self.told and not self.missing:
            return
        counts = ", ".join(
            f"{verdicts.count(v)} {v}"
            for v in ("confirmed", "refuted", "undecided")
            if v in verdicts
        )
        terminalreporter.section("jaxgrad", sep="-")
        if verdicts:
            terminalreporter.write_line(
                f"{len(verdicts)} verification{'s' * (len(verdicts) != 1)}: {counts}"
            )
        for line in filter(None, (self.told, self.missing)):
            terminalreporter.write_line(line)


def _where_to_look(config: pytest.Config, *, found: bool) -> str:
    """Say why ``--jaxgrad`` found no derivations, or where it did not look, and what to type."""
    folders = [arg for arg in config.args if Path(arg.split("::")[0]).is_dir()]
    if found:
        named = [folder for folder in folders if folder in config.invocation_params.args]
        return (
            f"--jaxgrad did not search the folder {named[0]}; name its files, as in "
            f"{Path(named[0]).joinpath('*.py')}"
            if named
            else ""
        )
    if config.getoption("numprocesses", None):  # workers collect, and tell of what they do not find
        return ""
    why = (
        f"{folders[0]} is a folder, and a folder is not searched"
        if folders
        else "the files that are named hold none"
    )
    example = (
        Path(folders[0]).joinpath("*.py")
        if folders and config.invocation_params.args
        else "derivations.py"
    )
    return (
        f"--jaxgrad found no derivations: {why}; name their files, as in pytest --jaxgrad {example}"
    )
