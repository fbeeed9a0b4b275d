"""The command as a user runs it: what it prints, writes and returns."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from click.testing import CliRunner

from jaxgrad.command.cli import main
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.reports.report import Report

CLAIMS = """
import jaxgrad as jg

def claim(name, factor):
    return jg.Derivation(
        name=name, loss=lambda x: (x**2).sum(), gradient=lambda x: {"x": factor * x},
        shapes={"x": "n"},
        formula="2x", reference="any textbook",
    )
"""
VERDICTS = {"right": Verdict.CONFIRMED, "wrong": Verdict.REFUTED, "open": Verdict.UNDECIDED}


def fake_verify(
    derivation, *, seed, evidence, inputs, sizes, false_alarm, resolution, max_samples, progress
):
    """Return the verdict that the derivation's name asks for, and what was passed as its
    context.
    """
    if progress is not None:
        progress("autodiff", 0.5, "half")
    finding = Finding(
        evidence="autodiff",
        wrt="x",
        verdict=VERDICTS[derivation.name],
        error=1e-16,
        detail="reason given",
    )
    passed = {
        "seed": seed,
        "evidence": evidence,
        "inputs": sorted(inputs or {}),
        "sizes": sizes,
        "max_samples": max_samples,
    }
    return Report(
        name=derivation.name, findings=(finding,), context={**passed, "resolution": resolution}
    )


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the command in an empty folder with a verify that costs nothing."""
    monkeypatch.setenv("JAXGRAD_CACHE", "off")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jaxgrad.command.running.verify", fake_verify)
    return lambda *args: CliRunner().invoke(main, list(map(str, args)))


def write(folder, *names, file="mine.py"):
    lines = "".join(f"{name} = claim({name!r}, 2)\n" for name in names)
    (folder / file).write_text(CLAIMS + lines)
    return file


@pytest.mark.quick
@pytest.mark.parametrize(
    ("names", "status"),
    [
        (["right"], 0),
        (["right", "wrong"], 1),
        (["right", "open"], 3),
        (["open", "wrong", "right"], 1),
    ],
)
def test_the_exit_status_says_what_was_found_and_refuted_wins(run, tmp_path, names, status):
    assert run("verify", write(tmp_path, *names)).exit_code == status


def test_the_table_shows_the_derivations_of_a_file_in_order_of_definition(run, tmp_path):
    result = run("verify", write(tmp_path, "wrong", "right", "open"))
    rows = re.findall(r"^(\w+) +x +\S (\w+)", result.stdout, re.M)
    assert rows == [("wrong", "refuted"), ("right", "confirmed"), ("open", "undecided")]
    assert "3 derivations: 1 confirmed, 1 refuted, 1 undecided" in result.stdout
    assert result.stderr == ""


def test_one_derivation_of_a_file_is_chosen_by_its_variable_or_by_its_name(run, tmp_path):
    (tmp_path / "mine.py").write_text(CLAIMS + "a = claim('right', 2)\nb = claim('wrong', 2)\n")
    assert run("verify", "mine.py:a").exit_code == 0
    assert run("verify", "mine.py:wrong").exit_code == 1


def test_lists_and_tuples_of_derivations_are_found_and_each_is_verified_once(run, tmp_path):
    (tmp_path / "mine.py").write_text(
        CLAIMS
        + "every = [claim('right', 2), claim('open', 2)]\nfirst = every[0]\npair = (first, 3)\n"
    )
    result = run("verify", "mine.py")
    assert re.findall(r"^(\w+) +x", result.stdout, re.M) == ["right", "open"]
    assert run("verify", "mine.py:every").exit_code == 3


def test_a_module_of_the_current_folder_is_found_by_its_dotted_name(run, tmp_path):
    (tmp_path / "some_package_of_claims").mkdir()
    write(tmp_path / "some_package_of_claims", "right", file="claims.py")
    assert run("verify", "some_package_of_claims.claims:right").exit_code == 0


def test_a_file_may_import_its_neighbours_and_leaves_the_search_path_and_the_folder_alone(
    run, tmp_path
):
    (tmp_path / "neighbour_of_mine.py").write_text("FACTOR = 2\n")
    (tmp_path / "mine.py").write_text(
        CLAIMS + "from neighbour_of_mine import FACTOR\nright = claim('right', FACTOR)\n"
    )
    before = list(sys.path)
    assert run("verify", tmp_path / "mine.py").exit_code == 0
    assert sys.path == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.py", "neighbour_of_mine.py"]


def test_a_file_named_like_a_library_shadows_nothing(run, tmp_path):
    assert run("verify", write(tmp_path, "right", file="json.py")).exit_code == 0
    assert json.loads("1") == 1 and "loads" in vars(sys.modules["json"])


def test_options_reach_verify(run, tmp_path):
    np.savez(tmp_path / "data.npz", x=np.ones(3))
    options = [
        "--seed",
        7,
        "--evidence",
        "autodiff,differences",
        "--max-samples",
        "2**10",
        "--sizes",
        "n=3",
        "--inputs",
        "data.npz",
    ]
    result = run("verify", write(tmp_path, "right"), *options, "--resolution", 0.1, "--json", "-")
    context = json.loads(result.stdout)["reports"][0]["context"]
    assert context["seed"] == 7
    assert context["evidence"] == ["autodiff", "differences"]
    assert (context["max_samples"], context["sizes"], context["inputs"], context["resolution"]) == (
        1024,
        {"n": 3},
        ["x"],
        0.1,
    )


@pytest.mark.quick
def test_json_holds_every_report_and_the_overall_verdict(run, tmp_path):
    run("verify", write(tmp_path, "right", "open"), "--json", "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert (written["schema"], written["verdict"], written["errors"]) == (2, "undecided", [])
    assert [(r["name"], r["verdict"]) for r in written["reports"]] == [
        ("right", "confirmed"),
        ("open", "undecided"),
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.py", "out.json"]


@pytest.mark.quick
def test_html_shows_every_report_and_how_to_make_it_again(run, tmp_path):
    result = run(
        "verify",
        write(tmp_path, "right", "wrong"),
        "--html",
        "out.html",
        "--seed",
        5,
        "--max-samples",
        64,
    )
    assert result.exit_code == 1
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "jaxgrad verify mine.py:wrong --seed 5 --max-samples 64" in text
    assert "jaxgrad verify mine.py --seed 5 --max-samples 64" in text and "reason given" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.py", "out.html"]


def test_the_command_in_a_report_names_the_file_and_what_was_typed(run, tmp_path):
    np.savez(tmp_path / "data.npz", x=np.ones(3))
    result = run(
        "verify",
        f"{write(tmp_path, 'right')}:right",
        "--inputs",
        "data.npz",
        "--sizes",
        "n=3",
        "--json",
        "-",
    )
    command = json.loads(result.stdout)["reports"][0]["context"]["command"]
    assert command == "jaxgrad verify mine.py:right --seed 0 --inputs data.npz --sizes n=3"


def test_json_replaces_an_older_file_and_keeps_its_permissions(run, tmp_path):
    (tmp_path / "out.json").write_text("old")
    (tmp_path / "out.json").chmod(0o640)
    assert run("verify", write(tmp_path, "right"), "--json", "out.json").exit_code == 0
    assert json.loads((tmp_path / "out.json").read_text())["verdict"] == "confirmed"
    assert (tmp_path / "out.json").stat().st_mode & 0o777 == 0o640


def test_json_on_standard_output_is_alone_there_even_when_the_file_prints(run, tmp_path):
    (tmp_path / "mine.py").write_text("print('loading')\n" + CLAIMS + "right = claim('right', 2)\n")
    result = run("verify", "mine.py", "--json", "-")
    assert json.loads(result.stdout)["verdict"] == "confirmed"
    assert "loading" in result.stderr and "1 derivation: 1 confirmed" in result.stderr


def test_quiet_says_nothing_when_all_is_confirmed_and_the_reason_when_not(run, tmp_path):
    file = write(tmp_path, "right", "wrong")
    assert run("verify", "--quiet", f"{file}:right").stdout == ""
    told = run("verify", "--quiet", file).stdout
    assert "wrong is refuted" in told and "reason given" in told and "right" not in told


@pytest.mark.quick
def test_list_has_a_line_for_each_derivation_of_the_catalogue(run):
    from jaxgrad import catalog

    lines = run("list").stdout.splitlines()
    assert [line.split()[0] for line in lines[2:]] == [
        derivation.name for derivation in catalog.all()
    ]
    assert any(
        "Patches(prob=" in line and "x, w1, w2" in line and "arXiv" in line for line in lines
    )


@pytest.mark.parametrize("width", [70, 90, 120, 200])
def test_list_keeps_to_the_width_of_a_terminal(width):
    from jaxgrad import catalog
    from jaxgrad.claims import describe
    from jaxgrad.reports import table

    lines = [table.plain(line) for line in describe.overview(catalog.all()[:5], width)]
    assert max(map(len, lines)) <= width
    assert sum("Petersen and Pedersen" in line for line in lines) == 4


def test_show_tells_formula_shapes_domains_mask_reference_and_source(run):
    text = run("show", "masked_autoencoder_patches").stdout
    for part in (
        "the gradient of the expected loss in w1 and w2",
        "Patches(prob=",
        "(m, 2*k)",
        "real",
        "arXiv",
        "\\nabla",
        "def masked_expected_gradient",
        "autoencoders.py:",
    ):
        assert part in text


def test_show_of_a_vjp_tells_the_users_own_functions(run):
    text = run("show", "add_bias").stdout
    assert "def add_bias_vjp" in text
    assert "def add_bias(" in text


@pytest.mark.quick
def test_show_of_a_function_without_source_says_so(run, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import functools, jax.numpy as jnp, jaxgrad as jg\nclass Twice:\n    def __call__(self, "
        "x):\n        return {'x': 2 * x}\n"
        "exec('def total(x):\\n    return (x**2).sum()')\n"
        "odd = jg.Derivation(name='odd', loss=total, gradient=Twice(), shapes={'x': 'n'})\n"
    )
    text = run("show", "mine.py:odd").stdout
    assert "no source" in text
    assert "return {'x': 2 * x}" in text


def test_help_names_every_command(run):
    assert {"verify", "list", "show"} <= set(re.findall(r"^  (\w+)", run("--help").stdout, re.M))
    assert run("--version").stdout.startswith("jaxgrad")
    assert run().stdout == run("--help").stdout
    assert "--max-samples" in run("verify", "--help").stdout


def test_names_with_control_codes_cannot_steer_the_terminal(run, tmp_path, monkeypatch):
    monkeypatch.setitem(VERDICTS, "\x1b[2Jevil\nname", Verdict.REFUTED)
    (tmp_path / "mine.py").write_text(CLAIMS + "evil = claim('\\x1b[2Jevil\\nname', 2)\n")
    result = run("verify", "mine.py")
    assert result.exit_code == 1
    assert "\x1b" not in result.stdout and "evil\nname" not in result.stdout


@pytest.mark.quick
def test_the_library_leaves_the_configuration_of_jax_alone():
    code = (
        "import jax; before = dict(jax.config.values); import jaxgrad; assert "
        "dict(jax.config.values) == before"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.fixture
def environment(tmp_path):
    keep = {
        k: v
        for k, v in os.environ.items()
        if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "JAXGRAD_CACHE", "JAXGRAD_DEBUG")
    }
    return {**keep, "XDG_CACHE_HOME": str(tmp_path / "cache"), "TERM": "xterm-256color"}


COMMAND = [sys.executable, "-m", "jaxgrad", "verify", "mse", "--evidence", "autodiff"]


@pytest.mark.quick
def test_the_whole_command_piped_is_plain_text_and_fills_the_cache(environment, tmp_path):
    done = subprocess.run(COMMAND, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout and "1 derivation: 1 confirmed" in done.stdout
    programs = list((tmp_path / "cache" / "jaxgrad").glob("*/*-cache"))
    assert programs

    for program in programs:  # damaged entries must neither break the next run nor make it print
        program.write_bytes(program.read_bytes()[: program.stat().st_size // 2])
    again = subprocess.run(COMMAND, capture_output=True, text=True, env=environment)
    assert (again.returncode, again.stderr) == (0, "")
    assert not list((tmp_path / "cache" / "jaxgrad").glob("*/*-cache")), (
        "a damaged cache is emptied"
    )


def test_the_command_ends_at_once_but_after_what_was_to_be_done_at_its_end(environment, tmp_path):
    (tmp_path / "claim.py").write_text(
        "import atexit\n"
        "import jaxgrad\n"
        "atexit.register(print, 'done at the end')\n"
        "wrong = jaxgrad.Derivation(name='wrong', loss=lambda x: x @ x, gradient=lambda x: {'x': "
        "x}, shapes={'x': 'n'})\n"
    )
    command = [*COMMAND[:4], "claim.py", "--json", "all.json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith("done at the end\n")
    assert json.loads((tmp_path / "all.json").read_text())["verdict"] == "refuted"


def test_a_cache_folder_that_cannot_be_made_is_gone_without(environment, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    done = subprocess.run(COMMAND, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


def on_terminal(command, environment):
    """Run a command on a pseudo-terminal and return its exit status and all it wrote."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # Linux says EIO at the end
                break
            if not chunk:
                break
            written += chunk
    os.close(ours)
    return process.returncode, written.decode()


def test_on_a_terminal_the_verdict_is_coloured_unless_no_color_is_set(environment):
    status, text = on_terminal(COMMAND, environment)
    assert status == 0 and "\x1b[32m✓ confirmed" in text
    status, text = on_terminal(COMMAND, {**environment, "NO_COLOR": "1"})
    assert status == 0 and "✓ confirmed" in text and not re.search(r"\x1b\[[0-9;]*3[0-9]m", text)


def test_an_encoding_without_the_marks_gets_ascii(environment):
    done = subprocess.run(
        COMMAND, capture_output=True, env={**environment, "PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0 and b"+ confirmed" in done.stdout


def test_a_reader_that_stops_early_is_no_error(environment):
    with subprocess.Popen(
        [sys.executable, "-m", "jaxgrad", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.wait() == 141
        assert process.stderr.read() == b""


@pytest.mark.quick
def test_an_interrupt_ends_the_run_with_130_and_no_traceback(environment, tmp_path):
    (tmp_path / "slow.py").write_text(
        CLAIMS
        + textwrap.dedent("""
            import signal, time

            # a shell's background jobs inherit that interrupts are ignored
            signal.signal(signal.SIGINT, signal.default_int_handler)

            def slow(x):
                print("started", flush=True)
                time.sleep(60)

            gradient = lambda x: {"x": x}
            claim = jg.Derivation(name="slow", loss=slow, gradient=gradient, shapes={"x": "n"})
        """)
    )
    command = [sys.executable, "-m", "jaxgrad", "verify", str(tmp_path / "slow.py")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, env=environment) as process:
        for line in process.stdout:
            if "started" in line:
                break
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.strip() == "jaxgrad: interrupted"
