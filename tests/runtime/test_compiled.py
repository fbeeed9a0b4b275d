"""Compiled programs: what they take and return, and that a kept one is never taken for another."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad.jaxprs.traced import TracedOnce
from jaxgrad.jaxprs.versions import enable_x64
from jaxgrad.runtime.compiled import Program

X = np.arange(6.0, dtype=np.float32).reshape(2, 3)


def test_constants_are_arguments_of_a_program():
    programs = [
        Program(lambda x, c=c: x + c)
        for c in (np.ones((2, 3), np.float32), np.full((2, 3), 5, np.float32))
    ]
    assert [float(program(X)[0, 0]) for program in programs] == [1.0, 5.0]
    assert [
        float(Program(lambda x, c=c: x + c)(X)[0, 0]) for c in (np.float32([[7] * 3] * 2),)
    ] == [7.0]


def total(tree):
    return {"sum": tree["a"].sum() + tree["b"], "all": [tree["a"] * 2, jnp.arange(3)]}


def ask():
    return jax.tree.map(lambda x: np.asarray(x).tolist(), Program(total)({"a": X, "b": 1.5}))


def test_a_program_takes_and_returns_trees():
    assert ask()["sum"] == 16.5


def test_what_calls_lapack_is_compiled():
    matrix = np.float32([[2, 1], [1, 3]])
    assert np.allclose(Program(jnp.linalg.solve)(matrix, matrix), np.eye(2), atol=1e-6)


def test_many_rows_are_those_of_single_calls():
    program = Program(lambda tree, scale: (tree["x"] * scale, jnp.sum(tree["x"])))
    rows = program.over({"x": X}, 3.0)
    assert np.array_equal(rows[0], 3 * X) and np.array_equal(rows[1], X.sum(1))


def test_a_function_is_traced_once_for_each_kind_of_argument():
    seen = []
    function = TracedOnce(lambda x: (seen.append(x.dtype), x * 2)[1])
    program = Program(function)
    for x in (X, X + 1, X):
        program(x)
    program.jaxpr(X)
    assert len(seen) == 1
    with enable_x64(True):  # what a function makes by itself is of another type now
        program(X)
    assert len(seen) == 2


CLAIM = """
import jax.numpy as jnp
import jaxgrad as jg

cube = jg.Derivation(
    name="cube", loss=lambda x: jnp.sum(x**3), gradient=lambda x: {"x": FACTOR * x**2},
    shapes={"x": "n"},
)
"""


def test_a_formula_that_is_changed_between_two_runs_is_never_answered_from_the_cache(tmp_path):
    environment = {**os.environ, "JAXGRAD_CACHE": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}

    def status(factor):
        (tmp_path / "mine.py").write_text(CLAIM.replace("FACTOR", factor))
        command = [sys.executable, "-m", "jaxgrad", "verify", str(tmp_path / "mine.py"), "--quiet"]
        return subprocess.run(command, env=environment, capture_output=True, text=True).returncode

    assert [status("3"), status("2"), status("3"), status("3.0000001")] == [0, 1, 0, 1]
    assert list((tmp_path / "cache").glob("*/*-cache"))
