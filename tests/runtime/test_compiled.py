"""Compiled programs that the command keeps: what they are known by, and that nothing wrong ever
comes out of the store.
"""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad.jaxprs.traced import TracedOnce
from jaxgrad.runtime import compiled, digests
from jaxgrad.runtime.compiled import Program
from jaxgrad.runtime.digests import digest

X = np.arange(6.0, dtype=np.float32).reshape(2, 3)


def known_by(function, *args, options=None):
    return digest(jax.make_jaxpr(function)(*args).jaxpr, options)


SAME = {
    "arithmetic": lambda x: jnp.sum(x**2 + 1) / 3,
    "a nested program": lambda x: jax.jit(jnp.tanh)(x) @ x.T,
    "a rule of its own": lambda x: jax.nn.relu(x),
    "a loop": lambda x: jax.lax.scan(lambda c, r: (c + r, c * r), x[0], x),
    "a condition": lambda x: jax.lax.cond(x.sum() > 3, jnp.sin, jnp.cos, x),
    "indices": lambda x: x[:, np.array([2, 0])].at[0].add(1),
    "linear algebra": lambda x: jnp.linalg.solve(x[:, :2], x[:, 0]),
}


@pytest.mark.parametrize("name", SAME)
def test_a_program_that_is_traced_again_is_known_again(name):
    assert known_by(SAME[name], X) == known_by(SAME[name], X) is not None


def test_random_numbers_are_known_by_their_generator():
    draw = lambda key: jax.random.uniform(key, (3,))
    keys = [jax.random.key(0, impl=impl) for impl in ("threefry2x32", "rbg")]
    assert known_by(draw, keys[0]) == known_by(draw, keys[0]) is not None
    assert known_by(draw, keys[0]) != known_by(draw, keys[1])


DIFFERENT = [
    lambda x: x * 2,
    lambda x: x * 3,
    lambda x: x * -0.0,
    lambda x: x * 0.0,
    lambda x: x * 2 + 0,
    lambda x: 2 - x,
    lambda x: x - 2,
    lambda x: jnp.sum(x, axis=0),
    lambda x: jnp.sum(x, axis=1),
    lambda x: x.T,
    lambda x: x.reshape(3, 2),
    lambda x: (x, x * 2),
    lambda x: (x * 2, x),
    lambda x: x @ x.T,
    lambda x: jnp.matmul(x, x.T, precision="highest"),
    lambda x: x.astype(jnp.bfloat16),
    lambda x: x.astype(jnp.float16),
    lambda x: jax.lax.scan(lambda c, r: (c + r, c), x[0], x)[0],
    lambda x: jax.lax.scan(lambda c, r: (c + r, c), x[0], x, reverse=True)[0],
    lambda x: jax.lax.scan(lambda c, r: (c * r, c), x[0], x)[0],
    lambda x: x[np.array([0, 1])],
    lambda x: jax.nn.relu(x),
    lambda x: jax.nn.relu(-x),
    lambda x: jax.jit(jnp.sin)(x),
    lambda x: jax.jit(jnp.cos)(x),
]


def test_programs_that_differ_in_anything_are_told_apart():
    found = [known_by(function, X) for function in DIFFERENT]
    found += [
        known_by(DIFFERENT[0], x) for x in (X[0], X.T, X.astype(np.int32), X.astype(np.float16))
    ]
    found += [
        known_by(DIFFERENT[0], X, options={"xla_backend_optimization_level": level})
        for level in (0, 1)
    ]
    with jax.enable_x64(True):
        found += [known_by(DIFFERENT[0], X), known_by(DIFFERENT[0], X.astype(np.float64))]
    assert None not in found and len(set(found)) == len(found)


def test_settings_of_jax_and_xla_are_part_of_what_a_program_is_known_by(monkeypatch):
    before = known_by(DIFFERENT[0], X)
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    assert known_by(DIFFERENT[0], X) != before
    monkeypatch.undo()
    monkeypatch.setattr(digests, "cores", lambda: 77)
    assert known_by(DIFFERENT[0], X) != before


def test_constants_are_arguments_and_not_what_a_program_is_known_by(store):
    programs = [
        Program(lambda x, c=c: x + c)
        for c in (np.ones((2, 3), np.float32), np.full((2, 3), 5, np.float32))
    ]
    assert [float(program(X)[0, 0]) for program in programs] == [1.0, 5.0]
    assert [
        float(Program(lambda x, c=c: x + c)(X)[0, 0]) for c in (np.float32([[7] * 3] * 2),)
    ] == [7.0]


def own_operation(x):
    operation = jax.extend.core.Primitive("sin")  # by name it is JAX's
    operation.def_impl(lambda x: x)
    operation.def_abstract_eval(lambda x: x)
    return operation.bind(x)


UNKNOWN = {
    "a callback": lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x),
    "a callback in a loop": lambda x: jax.lax.scan(
        lambda c, r: (
            c + jax.pure_callback(np.sin, jax.ShapeDtypeStruct(r.shape, r.dtype), r),
            None,
        ),
        x[0],
        x,
    ),
    "a print": lambda x: (jax.debug.print("{}", x), x)[1],
    "an operation that is not JAX's": own_operation,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_a_digest_cannot_know_has_none(name):
    assert known_by(UNKNOWN[name], X) is None


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store of its own, and how many programs were compiled."""
    monkeypatch.setattr(compiled, "_store", [tmp_path])
    count = []

    def counted(whole):
        return lambda *args: (count.append(1), whole(*args))[1]

    for name in ("lowered", "compiled"):
        monkeypatch.setattr(compiled, name, counted(getattr(compiled, name)))
    return tmp_path, count


def total(tree):
    return {"sum": tree["a"].sum() + tree["b"], "all": [tree["a"] * 2, jnp.arange(3)]}


def ask():
    return jax.tree.map(lambda x: np.asarray(x).tolist(), Program(total)({"a": X, "b": 1.5}))


@pytest.mark.skipif(
    jax.default_backend() != "cpu" or jax.device_count() > 1, reason="kept for one CPU device alone"
)
class TestOnOneDevice:
    def test_a_program_is_compiled_once_and_then_taken_from_the_store(self, store):
        folder, count = store
        first = ask()
        assert first["sum"] == 16.5
        assert [
            path.name.startswith("jaxgrad-") and path.name.endswith("-cache")
            for path in folder.iterdir()
        ] == [True]
        assert ask() == first and len(count) == 1

    @pytest.mark.parametrize(
        "damage",
        [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:]],
    )
    def test_a_damaged_file_is_compiled_anew_and_replaced(self, store, damage):
        folder, count = store
        first = ask()
        (path,) = folder.iterdir()
        path.write_bytes(damage(path.read_bytes()))
        assert ask() == first == ask() and len(count) == 2

    def test_an_executable_that_cannot_run_is_compiled_anew(self, store, monkeypatch):
        _, count = store
        first = ask()

        def broken(*_):
            raise jax.errors.JaxRuntimeError("NOT_FOUND: Function not found")

        monkeypatch.setattr(compiled, "_load", lambda *_: broken)
        assert ask() == first and len(count) == 2

    def test_what_calls_lapack_is_kept_and_runs_in_a_process_that_lowers_nothing_else(self, store):
        folder, count = store
        solve = Program(jnp.linalg.solve)
        assert np.allclose(solve(MATRIX, MATRIX), np.eye(2), atol=1e-6)
        assert len(list(folder.iterdir())) == len(count) == 1
        found = subprocess.run(
            [sys.executable, "-c", SOLVE, str(folder)], capture_output=True, text=True, check=True
        )
        assert found.stdout.split() == ["0", "True"]

    def test_a_store_that_cannot_be_written_changes_nothing(self, store, monkeypatch):
        folder, _ = store
        monkeypatch.setattr(compiled, "_store", [folder / "missing"])
        assert ask()["sum"] == 16.5

    def test_many_rows_are_those_of_single_calls(self, store):
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
    with jax.enable_x64(True):  # what a function makes by itself is of another type now
        program(X)
    assert len(seen) == 2


MATRIX = np.float32([[2, 1], [1, 3]])
SOLVE = """
import sys, pathlib
import jax, jax.numpy as jnp, numpy as np
from jaxgrad.runtime import compiled as executables

count, whole, first = [], executables.compiled, executables.lowered
executables.compiled = lambda *args: (count.append(1), whole(*args))[1]
executables.lowered = lambda *args: (count.append(1), first(*args))[1]
executables.keep_in(pathlib.Path(sys.argv[1]))
a = np.float32([[2, 1], [1, 3]])
x = executables.Program(jnp.linalg.solve)(a, a)
print(len(count), np.allclose(x, np.eye(2), atol=1e-6))
"""
CLAIM = """
import jax.numpy as jnp
import jaxgrad as jg

cube = jg.Derivation(name="cube", loss=lambda x: jnp.sum(x**3), gradient=lambda x: {"x": FACTOR * x**2}, shapes={"x": "n"})
"""


def test_a_formula_that_is_changed_between_two_runs_is_never_answered_from_the_store(tmp_path):
    environment = {**os.environ, "JAXGRAD_CACHE": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}

    def status(factor):
        (tmp_path / "mine.py").write_text(CLAIM.replace("FACTOR", factor))
        command = [sys.executable, "-m", "jaxgrad", "verify", str(tmp_path / "mine.py"), "--quiet"]
        return subprocess.run(command, env=environment, capture_output=True, text=True).returncode

    kept = lambda: list((tmp_path / "cache").glob("*/jaxgrad-*-cache"))
    assert [status("3"), status("2"), status("3"), status("3.0000001")] == [0, 1, 0, 1]
    assert kept()
    for path in (
        kept()
    ):  # what JAX's own cache still has is compiled under another name, and can be kept again
        path.unlink()
    assert [status("3"), status("3"), status("2")] == [0, 0, 1]
    assert kept()
