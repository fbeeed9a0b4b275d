"""jaxgrad parity: table, JSON, exit status, and one line for whatever is wrong."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from torch import nn

from jaxgrad import parity
from jaxgrad.command.cli import main

PORTS = """
import jax.numpy as jnp
def right(params, x): return x @ params["weight"].T + params["bias"]
def wrong(params, x): return x @ params["weight"].T - params["bias"]
def kernel(params, x): return x @ params["kernel"] + params["bias"]
tree = {"kernel": jnp.zeros((6, 3)), "bias": jnp.zeros(3)}
number = 3
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXGRAD_CACHE", "off")
    monkeypatch.delenv("JAXGRAD_DEBUG", raising=False)
    (tmp_path / "ports.py").write_text(PORTS)
    parity.record(nn.Linear(6, 3), {"x": np.linspace(-1, 1, 42).reshape(7, 6)}).save("golden.npz")
    return lambda *args: CliRunner().invoke(main, ["parity", *args])


def test_the_status_and_the_table_say_whether_they_are_the_same(run):
    same = run("golden.npz", "ports.py:right")
    assert (
        same.exit_code == 0
        and "Linear is confirmed" in same.stdout
        and "nothing was compared on a GPU" in same.stdout
    )
    different = run("golden.npz", "ports.py:wrong", "--json", "report.json")
    assert (
        different.exit_code == 1
        and "the first block that differs by itself: output" in different.stdout
    )
    with open("report.json", encoding="utf-8") as file:
        (report,) = json.load(file)["reports"]
    assert report["verdict"] == "refuted" and report["context"]["first_forward"] == "output"


def test_a_tree_of_weights_gets_a_map_which_is_shown(run):
    found = run(
        "golden.npz", "ports.py:kernel", "--weights", "ports.py:tree", "--precision", "none"
    )
    assert found.exit_code == 0 and "['kernel'] is weight (axes 1 0)" in found.stdout


def test_json_goes_to_standard_output_alone(run):
    assert (
        json.loads(run("golden.npz", "ports.py:right", "--json", "-").stdout)["verdict"]
        == "confirmed"
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none.npz", "ports.py:right"], "there is no golden file none.npz"),
        (["ports.py", "ports.py:right"], "damaged or no golden file"),
        (["golden.npz", "ports.py"], "write FILE.py:NAME or package.module:NAME"),
        (["golden.npz", "ports.py:left"], "has no 'left'; it has right, wrong, kernel"),
        (["golden.npz", "ports.py:number"], "is a int, not a function"),
        (["golden.npz", "no_such_module:f"], "there is no module 'no_such_module'"),
        (["golden.npz", "ports.py:right", "--tap", "a"], "write OURS=TORCH"),
        (["golden.npz", "ports.py:right", "--json", "no/where.json"], "there is no folder"),
        (["golden.npz", "ports.py:kernel"], "takes the parameter 'kernel'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(run, args, message):
    result = run(*args)
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1
