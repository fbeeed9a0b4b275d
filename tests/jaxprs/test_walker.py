"""The walker over jaxprs: its runs agree with JAX, and its refusals name the line."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

import jaxgrad as jg
from jaxgrad.jaxprs.domain import DataDependentLoopError, Domain, UnsupportedError, known
from jaxgrad.jaxprs.versions import enable_x64
from jaxgrad.jaxprs.walker import walk
from tests.draws import fast

pytestmark = pytest.mark.quick

RNG = np.random.default_rng(0)
X, W = RNG.standard_normal((5, 4, 3)), RNG.standard_normal((3, 3))
ROWS, COLUMNS = jnp.array([0, 4, 2, -1]), jnp.array([[1, 0], [2, 2]])


class Known(Domain):
    """Plain arrays: everything is known."""

    rules = {}  # noqa: RUF012  (a domain without rules)


class Opaque(Domain):
    """Boxes around plain arrays, of which only moves and `rules` may look inside."""

    def __init__(self, **rules):
        self.rules, self.seen = rules, []

    def rearrange(self, operands, index):
        parts = [
            x.value.ravel() if isinstance(x, Box) else x.astype(float).ravel() for x in operands
        ]
        return Box(np.concatenate([*parts, [np.nan]])[index])


class Box:
    def __init__(self, value):
        self.value, self.shape = np.asarray(value), np.shape(value)


REARRANGEMENTS = {
    "transpose": lambda x: x.transpose(2, 0, 1),
    "reshape": lambda x: x.reshape(6, 10),
    "slice": lambda x: x[1:4:2, ::-1, -1],
    "index arrays": lambda x: x[ROWS],
    "index arrays on two axes": lambda x: x[ROWS[:, None, None], COLUMNS],
    "separated index arrays": lambda x: x[COLUMNS, :, COLUMNS],
    "clipped indices": lambda x: jnp.take(x, jnp.array([0, 9, -9]), 0, mode="clip"),
    "indices outside": lambda x: jnp.take(x, jnp.array([0, 9, -9]), 0, mode="fill"),
    "take along an axis": lambda x: jnp.take_along_axis(
        x, jnp.array([2, 0, 1])[:, None, None] % 3, 0
    ),
    "batched gather": lambda x: jax.vmap(lambda a, k: a[k])(x, jnp.arange(5) % 4),
    "dynamic slice": lambda x: jax.lax.dynamic_slice(x, (3, 3, 1), (4, 2, 2)),
    "dynamic update": lambda x: jax.lax.dynamic_update_slice(x, x[:2, :2, :2], (4, 1, 0)),
    "set": lambda x: x.at[ROWS[:3], 1].set(x[0, 0]),
    "concatenate": lambda x: jnp.concatenate([x, x[:, ::-1], np.ones((5, 1, 3))], 1),
    "stack": lambda x: jnp.stack([x[0], x[1]], -1),
    "unstack": lambda x: jnp.unstack(x, axis=1)[2],
    "pad": lambda x: jax.lax.pad(x, 0.0, ((1, -1, 0), (0, 2, 1), (-1, 0, 2))),
    "repeat and tile": lambda x: jnp.tile(jnp.repeat(x, 2, 1), (1, 1, 2)),
    "roll": lambda x: jnp.roll(x, 2, 1),
    "known choice": lambda x: jnp.where(np.arange(4)[:, None] > 1, x, 2.0),
    "known order": lambda x: jax.lax.sort(
        (jnp.broadcast_to(jnp.array([3, 1, 2, 0]), (5, 4)), x[..., 0]), num_keys=1
    )[1],
    "diagonal": lambda x: jnp.diagonal(x, axis1=1, axis2=2),
    "split": lambda x: jnp.split(x, 2, 1)[1],
    "scan over rows": lambda x: jax.lax.scan(lambda c, r: (r, c), x[0], x)[1],
    "reversed scan": lambda x: jax.lax.scan(lambda c, r: (r, c), x[0], x, reverse=True)[1],
    "fixed loop": lambda x: jax.lax.fori_loop(0, 3, lambda i, a: jnp.roll(a, 1, 0), x),
    "known while": lambda x: jax.lax.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1][::-1]), (0, x)
    )[1],
    "known branch": lambda x: jax.lax.switch(1, [lambda x: x, lambda x: x[::-1]], x),
    "name, stop_gradient, checkpoint": lambda x: jax.checkpoint(jax.lax.stop_gradient)(
        checkpoint_name(x, "a")
    ),
}

RUNS = REARRANGEMENTS | {
    "add at": lambda x: x.at[ROWS].add(1.5),
    "batched add at": lambda x: jax.vmap(lambda a, k: a.at[k, 1].add(3.0))(x, jnp.arange(5) % 4),
    "sorted": lambda x: jnp.sort(x, 1),
    "matrix products": lambda x: jnp.einsum("bij,jk,bkl->bil", x, W, x.transpose(0, 2, 1)),
    "cumulative": lambda x: (
        jnp.cumsum(x, 1) + jnp.cumprod(x, 0) + jax.lax.cummax(x, axis=1, reverse=True)
    ),
    "add outside": lambda x: x.at[jnp.array([0, 9])].add(1.0),
    "reductions": lambda x: (
        x.sum((0, 2)) * x.prod(1).max() + x.min() + jnp.any(x > 0) + jnp.all(x < 9)
    ),
    "triangular solves": lambda x: (
        jax.scipy.linalg.solve_triangular(W, x[0].T, trans=1).T @ jnp.linalg.inv(W)
    ),
    "functions": lambda x: (
        jax.nn.gelu(x)
        + jax.nn.softplus(x)
        + jnp.arctan2(x, 1.0)
        + jnp.cbrt(x)
        + jax.lax.rsqrt(x * x)
    ),
    "integers": lambda x: (x * 10).astype(int) // 3 % 4 + jnp.sign(x) * jnp.clip(x, -1, 1),
    "custom derivatives": jax.grad(
        lambda x: jnp.sum(jax.nn.relu(x) * jax.nn.silu(x) + jax.nn.logsumexp(x, -1, keepdims=True))
    ),
    "linear algebra": jax.grad(
        lambda x: jnp.linalg.slogdet(x[0, :3])[1] + jnp.linalg.solve(W, x[1, 0]).sum()
    ),
    "Cholesky": lambda x: jax.jvp(
        lambda a: jnp.linalg.cholesky(a @ a.T + jnp.eye(3)), (W,), (x[0, :3],)
    )[1],
}


def traced(f, *args):
    with enable_x64(True):
        return jax.make_jaxpr(f)(*args), fast(f)(*(jnp.asarray(a) for a in args))


@pytest.mark.parametrize("name", RUNS)
def test_a_run_on_known_values_agrees_with_jax(name):
    program, expected = traced(RUNS[name], X)
    (result,) = walk(program, [X], Known())
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", REARRANGEMENTS)
def test_a_move_of_unknown_values_is_run_on_indices(name):
    program, expected = traced(REARRANGEMENTS[name], X)
    (result,) = walk(program, [Box(X)], Opaque())
    np.testing.assert_array_equal(result.value, expected)


def test_rules_see_the_equation_and_the_operands():
    def record(eqn, x):
        names.append((eqn.primitive.name, eqn.params["name"]))
        return x

    names = []
    program, _ = traced(jax.jit(lambda x: checkpoint_name(x.T, "hidden")), X)
    walk(program, [Box(X)], Opaque(name=record))
    assert names == [("name", "hidden")]


def test_a_rule_for_a_nested_program_takes_precedence():
    program, _ = traced(jax.jit(lambda x: jnp.sin(x)), X)
    (result,) = walk(program, [Box(X)], Opaque(jit=lambda eqn, x: [x]))
    np.testing.assert_array_equal(result.value, X)


def test_what_no_output_depends_on_is_not_run():
    def f(x):
        jnp.sin(x)
        return x.T

    program, expected = traced(f, X)
    (result,) = walk(program, [Box(X)], Opaque())
    np.testing.assert_array_equal(result.value, expected)


def test_known_parts_of_a_program_stay_known():
    program, _ = traced(lambda x, n: (x[n + 1], n * n), X, np.int64(2))
    moved, square = walk(program, [Box(X), np.asarray(2)], Opaque())
    np.testing.assert_array_equal(moved.value, X[3])
    assert known(square) and square == 4


def test_an_unknown_operation_is_named_with_its_line():
    program, _ = traced(lambda x: jax.jit(lambda x: jnp.sin(x.T))(x), X)
    with pytest.raises(UnsupportedError, match=r"`sin` at .*test_walker\.py:\d+ has no rule"):
        walk(program, [Box(X)], Opaque())


def test_the_line_is_the_users_own():
    program, _ = traced(lambda x: jnp.linalg.norm(x), X)
    with pytest.raises(UnsupportedError) as error:
        walk(program, [Box(X)], Opaque())
    line = int(re.search(r"test_walker\.py:(\d+)", str(error.value))[1])
    with open(__file__, encoding="utf-8") as source:
        assert "jnp.linalg.norm(x)" in source.readlines()[line - 1]


def test_loops_and_branches_on_unknown_values_are_refused():
    greater = {
        "gt": lambda eqn, *xs: Box(np.zeros(())),
        "reduce_sum": lambda eqn, x: Box(np.zeros(())),
        "convert_element_type": lambda eqn, x: x,
    }
    program, _ = traced(
        lambda x: jax.lax.while_loop(lambda x: x.sum() > 9, lambda x: x.T, x[0, :3]), X
    )
    with pytest.raises(
        DataDependentLoopError, match="length depends on the data; write it with a fixed length"
    ):
        walk(program, [Box(X)], Opaque(**greater))
    program, _ = traced(lambda x: jax.lax.cond(x.sum() > 9, lambda x: x, lambda x: x[::-1], x), X)
    with pytest.raises(
        UnsupportedError, match=r"branch that depends on the data; write it with jnp\.where"
    ):
        walk(program, [Box(X)], Opaque(**greater))


def test_endless_loops_are_refused():
    program = jax.make_jaxpr(lambda n: jax.lax.while_loop(lambda n: n >= 0, lambda n: n * 0, n))(3)
    with pytest.raises(UnsupportedError, match="more than 10000 steps"):
        walk(program, [np.asarray(3)], Known())


KNOWN_INTEGERS = {
    "reduce_and": lambda: jax.lax.reduce_and(jnp.asarray(np.array([5, -7, 12], np.int32)), (0,)),
    "reduce_or": lambda: jax.lax.reduce_or(jnp.asarray(np.array([5, -7, 12], np.int32)), (0,)),
    "reduce_and of booleans": lambda: jax.lax.reduce_and(
        jnp.array([[True, False], [True, True]]), (1,)
    ).sum(),
    "a product that widens": lambda: jax.lax.dot_general(
        jnp.asarray(np.array([100, 100, 3], np.int8)),
        jnp.asarray(np.array([100, 100, 3], np.int8)),
        (((0,), (0,)), ((), ())),
        preferred_element_type=jnp.int32,
    ),
    "a sum that wraps": lambda: jnp.sum(jnp.asarray(np.array([100, 100], np.int8)), dtype=jnp.int8),
    "from -7.9": lambda: jnp.array([-7.9, 7.9]).astype(jnp.int32).sum(),
    "from what is too large": lambda: jnp.array([1e20, -1e20]).astype(jnp.int32)[1],
    "from what is negative": lambda: jnp.array([-3.5]).astype(jnp.uint8)[0],
    "from NaN": lambda: jnp.array([jnp.nan]).astype(jnp.int32)[0],
    "from what is just too large": lambda: jnp.array([300.0]).astype(jnp.uint8)[0],
}


@pytest.mark.parametrize("name", KNOWN_INTEGERS)
def test_known_integers_are_those_that_jax_computes(name):
    value = KNOWN_INTEGERS[name]
    with enable_x64(True):
        number = float(value())

    def f(x):
        return x * jax.jit(value)().astype(x.dtype)

    undecided = (
        ("undecided",) if name.startswith("from") else ()
    )  # what was a real number is not known in a field
    assert jg.certify(f, lambda x: x * number, np.ones(2)).verdict in ("confirmed", *undecided)
    assert jg.certify(f, lambda x: x * (number + 1), np.ones(2)).verdict in ("refuted", *undecided)
