"""jaxgrad new: the file it writes verifies, and it overwrites nothing."""

import pytest
from click.testing import CliRunner

import jaxgrad as jg
from jaxgrad.command import loading
from jaxgrad.command.cli import main


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXGRAD_CACHE", "off")
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(main, list(map(str, args)))


def test_the_file_verifies(run):
    result = run("new", "mine.py")
    assert (result.exit_code, result.stdout) == (
        0,
        "wrote mine.py; now run: jaxgrad verify mine.py\n",
    )
    verified = run("verify", "mine.py")
    assert verified.exit_code == 0, verified.output
    assert "5 derivations: 5 confirmed" in verified.stdout


def test_each_mistake_that_it_invites_to_is_refuted(run, tmp_path):
    run("new", "mine.py")
    text = (tmp_path / "mine.py").read_text()
    wrong = (
        text.replace("2 / len(y) *", "1 / len(y) *")
        .replace("softmax(z) - p", "softmax(z)")
        .replace("1 - jnp.tanh(x) ** 2", "1 - x")
    )
    (tmp_path / "wrong.py").write_text(wrong.replace('"w": 2 * x.T', '"w": x.T'))
    for derivation in loading.find([str(tmp_path / "wrong.py")]):
        assert jg.verify(derivation, evidence=("autodiff", "expectation")).verdict == "refuted", (
            derivation.name
        )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mine", "must be a name that ends in .py"),
        (".py", "must be a name that ends in .py"),
        ("there.py", "is there already, and is left as it is"),
        ("nowhere/mine.py", "there is no folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_told(run, tmp_path, name, told):
    (tmp_path / "there.py").write_text("mine")
    result = run("new", name)
    assert result.exit_code == 2 and told in result.stderr and result.stderr.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["there.py"] and (
        tmp_path / "there.py"
    ).read_text() == "mine"
