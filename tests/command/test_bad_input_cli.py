"""Whatever is wrong with the input, the command says it in one line that names it and the remedy,
and returns 2.
"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from jaxgrad.command.cli import main

CLAIM = """
import jax.numpy as jnp
import jaxgrad as jg

loss, gradient = lambda x: (x**2).sum(), lambda x: {"x": 2 * x}
mine = jg.Derivation(name="mine", loss=loss, gradient=gradient, shapes={"x": "m n"})
"""


@pytest.fixture
def refused(monkeypatch, tmp_path):
    """Run the command, which must refuse; return its message."""
    monkeypatch.setenv("JAXGRAD_CACHE", "off")
    monkeypatch.delenv("JAXGRAD_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CLAIM)

    def run(*args):
        result = CliRunner().invoke(main, list(map(str, args)))
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output and "✓ confirmed" not in result.stdout
        assert result.stderr.startswith("jaxgrad: ") and result.stderr.count("\n") == 1
        return result.stderr

    return run


def test_an_unknown_name_is_told_with_the_nearest_names(refused):
    assert "did you mean matvec" in refused("verify", "matvek")
    assert "jaxgrad list" in refused("show", "zzz")


def test_a_file_without_py_or_a_dotted_name_gets_the_right_form_told(refused, tmp_path):
    (tmp_path / "claims.txt").write_text("")
    assert "must end in .py" in refused("verify", "claims.txt")
    assert "write package.module:claim" in refused("verify", "package.module.claim")
    assert "FILE.py:NAME" in refused("verify", "mine.py:")


def test_a_folder_and_a_file_with_null_bytes_are_told_as_what_they_are(refused, tmp_path):
    (tmp_path / "folder.py").mkdir()
    assert "folder.py is a folder" in refused("verify", "folder.py")
    (tmp_path / "null.py").write_bytes(b"import jaxgrad\x00\n")
    assert "None" not in refused("verify", "null.py")


def test_data_without_entries_are_refused(refused):
    np.savez("data.npz", x=np.zeros((0, 3)))
    assert "has shape (0, 3), that is, no entries" in refused(
        "verify", "mine.py", "--inputs", "data.npz"
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--json", "a", "--html", "./a"), "`--json` and `--html` both name ./a"),
        (
            ("--json", "a.npz", "--checkpoint", "a.npz"),
            "`--json` and `--checkpoint` both name a.npz",
        ),
        (("--inputs", "a.npz", "--html", "a.npz"), "`--inputs` and `--html` both name a.npz"),
    ],
)
def test_two_options_that_name_one_file_are_refused_before_one_overwrites_the_other(
    refused, options, told
):
    assert told in refused("verify", "mine.py", *options)


@pytest.mark.parametrize("json_path", ["a.json", "-"])
def test_a_name_that_is_no_text_reaches_the_reports(tmp_path, monkeypatch, json_path):
    monkeypatch.setenv("JAXGRAD_CACHE", "off")
    monkeypatch.chdir(tmp_path)
    name, pages = os.fsdecode(b"a\xff.npz"), ["--json", json_path, "--html", "a.html"]
    done = CliRunner().invoke(
        main, ["verify", "mean_gate", "--evidence", "monte_carlo", "--checkpoint", name, *pages]
    )
    assert done.exit_code == 0 and Path("a.html").read_text("utf-8")
    text = done.stdout if json_path == "-" else Path("a.json").read_text("utf-8")
    assert name in json.loads(text)["reports"][0]["context"]["command"]


def test_a_missing_file_is_told_with_the_nearest_one(refused):
    assert "did you mean mine.py?" in refused("verify", "mien.py")
    assert "current folder" in refused("verify", "elsewhere.py")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "x = 1\ny = undefined_name\n",
            "broken.py:2: NameError: name 'undefined_name' is not defined",
        ),
        ("def f(:\n", "broken.py:1: invalid syntax"),
        (
            "import a_module_nobody_has\n",
            "No module named 'a_module_nobody_has'; install it in this environment",
        ),
        ("import sys\n\nsys.exit(0)\n", "broken.py:3: SystemExit: 0"),
        (
            "import jaxgrad as jg\njg.Derivation(name='d', loss=1, gradient=2, shapes={})\n",
            "broken.py:2: TypeError: `loss`",
        ),
        ("import jaxgrad as jg\njg.masks.Bernoulli(1.5)\n", "broken.py:2: ValueError: `prob`"),
    ],
)
def test_a_file_that_fails_to_import_is_told_with_line_and_error(refused, tmp_path, code, told):
    (tmp_path / "broken.py").write_text(code)
    assert told in refused("verify", "broken.py")


def test_a_file_or_module_without_derivations_is_told(refused, tmp_path):
    (tmp_path / "empty.py").write_text("")
    assert "empty.py holds no derivations" in refused("verify", "empty.py")
    assert "json holds no derivations" in refused("verify", "json:loads")


def test_a_name_that_the_file_lacks_is_told_with_those_it_has(refused):
    assert "has no derivation 'yours'; it has mine" in refused("verify", "mine.py:yours")


def test_a_module_that_does_not_exist_is_told(refused):
    assert "there is no module 'no_such_package'" in refused(
        "verify", "no_such_package.claims:mine"
    )


def test_two_derivations_of_one_name_are_told(refused, tmp_path):
    (tmp_path / "twice.py").write_text(CLAIM + CLAIM.replace("mine =", "other ="))
    assert "two derivations with the name 'mine'" in refused("verify", "twice.py")
    (tmp_path / "again.py").write_text(CLAIM)
    assert "two derivations have the name 'mine'" in refused("verify", "mine.py", "again.py")


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--seed", "seven", "is no whole number"),
        ("--seed", "-1", "from 0 to"),
        ("--max-samples", "1.5", "is no whole number"),
        ("--max-samples", "0", "from 2 to"),
        ("--max-samples", "1e99", "from 2 to"),
        ("--false-alarm", "0", "0 is not in the range 0<x<1"),
        ("--resolution", "nan", "between 0 and 1"),
        ("--resolution", "fine", "is not a valid float"),
        ("--sizes", "n:5", "write sizes as n=5,m=7"),
        ("--sizes", "n=0", "write sizes as n=5,m=7"),
        ("--evidence", "autodif", "did you mean autodiff?"),
        ("--evidence", "", "is no evidence"),
        ("--colour", "red", "No such option"),
    ],
)
def test_a_bad_option_is_told_with_what_it_must_be(refused, option, value, told):
    assert told in refused("verify", "mine.py", option, value)


def test_sizes_that_the_derivation_does_not_have_are_told(refused):
    assert "the sizes of mine are m, n" in refused("verify", "mine.py", "--sizes", "k=3")


def test_a_json_path_that_cannot_be_written_is_told_before_the_work(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "jaxgrad.command.running.verify", lambda *_, **__: pytest.fail("the work was begun")
    )
    assert "there is no folder" in refused("verify", "mine.py", "--json", "nowhere/out.json")
    assert "is a folder" in refused("verify", "mine.py", "--json", tmp_path)
    assert "`--html` nowhere/page.html cannot be written: there is no folder" in refused(
        "verify", "mine.py", "--html", "nowhere/page.html"
    )
    assert "`--html`" in refused("verify", "mine.py", "--html", tmp_path)
    assert "`--html` is empty" in refused("verify", "mine.py", "--html", "")
    assert "is empty" in refused("verify", "mine.py", "--json", "")
    assert "cannot be written" in refused("verify", "mine.py", "--json", "/proc/out.json")


def make_npz(path, kind):
    x = np.linspace(-1.0, 1.0, 12).reshape(3, 4)
    match kind:
        case "not_a_zip":
            path.write_bytes(b"this is no archive")
        case "nothing":
            path.write_bytes(b"")
        case "cut":
            np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(30, 40)))
            path.write_bytes(path.read_bytes()[:-200])
        case "flipped":
            np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(30, 40)))
            content = bytearray(path.read_bytes())
            content[4000:4010] = bytes(10)
            path.write_bytes(content)
        case "empty":
            np.savez(path)
        case "single":
            with path.open("wb") as file:
                np.save(file, x)
        case "objects":
            np.savez(path, x=np.array([{"a": 1}], dtype=object))
        case "words":
            np.savez(path, x=np.array(["a", "b"]))
        case "foreign":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("readme.txt", "hello")
        case "misnamed":
            np.savez(path, X=x)
        case "shape":
            np.savez(path, x=np.ones(3))
        case "integers":
            np.savez(path, x=np.ones((3, 4), dtype=int))
        case "nan":
            np.savez(path, x=np.where(x > 0.9, np.nan, x))


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("not_a_zip", "damaged or no .npz file"),
        ("nothing", "damaged or no .npz file"),
        ("cut", "damaged or no .npz file"),
        ("flipped", "damaged or no .npz file"),
        ("empty", "holds no arrays"),
        ("single", "one array without a name"),
        ("objects", "holds Python objects"),
        ("words", "not numbers"),
        ("foreign", "data.npz"),
        ("misnamed", "'X', which is no input of mine; did you mean x?"),
        ("shape", "has shape (3,), but its declared shape 'm n' has 2 axes"),
        ("integers", "convert it with x.astype"),
        ("nan", "'x' has nan at index (2, 3)"),
    ],
)
def test_data_that_cannot_be_used_is_told_with_the_remedy(refused, tmp_path, kind, told):
    make_npz(tmp_path / "data.npz", kind)
    assert told in refused("verify", "mine.py", "--inputs", "data.npz")


def test_missing_data_and_a_given_mask_are_told(refused, tmp_path):
    assert "'nothing.npz' does not exist" in refused("verify", "mse", "--inputs", "nothing.npz")
    np.savez(tmp_path / "data.npz", mask=np.ones((3, 4)))
    assert "is drawn; leave it out" in refused(
        "verify", "masked_autoencoder_bernoulli", "--inputs", "data.npz"
    )


@pytest.mark.parametrize(
    ("loss", "gradient", "told"),
    [
        ("(x**2).sum()", "{'x': x @ jnp.ones((3, 17))}", "`gradient` of theirs raised"),
        ("(x @ jnp.ones((91, 17))).sum()", "{'x': 2 * x}", "`loss` of theirs raised"),
        ("(x**2).sum()", "{'y': 2 * x}", "`gradient`"),
        ("(x**2).sum()", "{'x': jnp.ones((91, 17))}", "`gradient`"),
        ("(x**2).sum()", "2 * x", "`gradient`"),
        ("x", "{'x': x}", "its Jacobian in 'x' has shape (3, 4, 3, 4)"),
        ("'seven'", "{'x': 2 * x}", "theirs: `loss` returns 'seven', which is no array of numbers"),
        ("numpy.sin(x).sum()", "{'x': 2 * x}", "use jax.numpy in place of numpy"),
        (
            "-x.sum() if x.sum() > 0 else x.sum()",
            "{'x': 2 * x}",
            "use jax.numpy.where or jax.lax.cond",
        ),
        ("exit(0)", "{'x': 2 * x}", "`loss` of theirs raised SystemExit: 0"),
    ],
)
def test_what_is_wrong_with_the_users_functions_is_told_with_the_function(
    refused, tmp_path, loss, gradient, told
):
    (tmp_path / "theirs.py").write_text(f"""
import jax.numpy as jnp, numpy
import jaxgrad as jg

def loss(x):
    return {loss}

def gradient(x):
    return {gradient}

theirs = jg.Derivation(name="theirs", loss=loss, gradient=gradient, shapes={{"x": "m n"}})
""")
    message = refused("verify", "theirs.py")
    assert told in message
    if "raised" in told:
        assert "theirs.py:6, in loss" in message or "theirs.py:9, in gradient" in message


def test_a_mask_that_does_not_fit_the_sizes_is_told(refused, tmp_path):
    (tmp_path / "patches.py").write_text("""
import jaxgrad as jg

odd = jg.Derivation(
    name="odd", shapes={"x": "n", "mask": "n"}, mask=jg.masks.Patches(0.5, 2),
    loss=lambda x, mask: (mask * x).sum(), gradient=lambda x, mask: {"x": mask.mean(x.shape[0])},
)
""")
    assert "`patch_size`" in refused("verify", "patches.py", "--sizes", "n=5")


def test_one_broken_derivation_does_not_hide_the_verdicts_on_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGRAD_CACHE", "off")
    broken = (
        "broken = jg.Derivation(name='broken', loss=lambda x: 1 / 0, gradient=lambda x: "
        "{'x': x}, shapes={'x': 'n'})\n"
    )
    (tmp_path / "mixed.py").write_text(CLAIM.replace("mine =", broken + "mine ="))
    result = CliRunner().invoke(
        main, ["verify", str(tmp_path / "mixed.py"), "--json", str(tmp_path / "out.json")]
    )
    assert result.exit_code == 2, result.output
    assert "ZeroDivisionError: division by zero" in result.stderr
    assert "✓ confirmed" in result.stdout and "✗ error" in result.stdout
    assert '"verdict": "undecided"' in (tmp_path / "out.json").read_text()


def test_a_mistake_of_jaxgrads_own_is_not_taken_for_a_verdict(tmp_path, monkeypatch):
    def verify(*_, **__):
        raise KeyError("inside")

    monkeypatch.setenv("JAXGRAD_CACHE", "off")
    monkeypatch.setattr("jaxgrad.command.running.verify", verify)
    result = CliRunner().invoke(main, ["verify", "mse"])
    assert result.exit_code == 70
    assert "no verdict on the gradient" in result.stderr and "JAXGRAD_DEBUG=1" in result.stderr
    monkeypatch.setenv("JAXGRAD_DEBUG", "1")
    assert isinstance(CliRunner().invoke(main, ["verify", "mse"]).exception, KeyError)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_output_that_cannot_be_written_is_told_in_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "jaxgrad", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=100,
        )
    assert done.returncode == 2
    assert "the output could not be written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
