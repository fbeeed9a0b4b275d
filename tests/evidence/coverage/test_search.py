"""The search meets every outcome that some input has, and only where it matters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad.evidence.coverage.branches import branches
from jaxgrad.evidence.coverage.search import cover
from jaxgrad.jaxprs.versions import enable_x64

TABLE = jnp.array([1.0, 2.0, 3.0, 4.0])


def covered(f, x, *, limit=200_000, **options):
    """Cover a function and its gradient from two normal draws of seed 0."""
    x = np.asarray(x, np.float64)
    with enable_x64(True):
        program = jax.make_jaxpr(lambda x: jax.value_and_grad(lambda y: jnp.sum(f(y)))(x))(x)
    rng = np.random.default_rng(0)
    draws = [[rng.normal(size=x.shape)] for _ in range(2)]
    return cover(program, draws, [True], limit=limit, **options)


def missing(found):
    return [(branch.primitive, outcome) for branch, outcome in found.missing()]


@pytest.mark.parametrize(
    "f",
    [
        pytest.param(jax.nn.relu6, id="two bounds"),
        pytest.param(lambda x: jnp.where(x > 20, x, jnp.log1p(jnp.exp(x))), id="a threshold"),
        pytest.param(lambda x: jnp.where(jnp.abs(x) < 1e-5, 2 * x, x), id="a tiny region"),
        pytest.param(lambda x: jnp.where(jnp.abs(x - 777) < 0.5, 3.0, 2 * x), id="far away"),
        pytest.param(lambda x: x * jnp.minimum(1, 10 / jnp.linalg.norm(x)), id="a clipped norm"),
        pytest.param(
            lambda x: jnp.where((x[0] > 2.2) & (x[1] < -2.2) & (x[2] > 2.2), 2.0, 1.0) * x**2,
            id="three conditions",
        ),
        pytest.param(
            lambda x: (1 + 0.5 * (x[0] > 2.2) * (x[1] < -2.2) * (x[2] > 2.2)) * x**2,
            id="three conditions multiplied",
        ),
        pytest.param(
            lambda x: jnp.where(
                x[0] > 3, jnp.where(x[1] > 3, jnp.where(x[2] > 3, x, 2 * x), 3 * x), 4 * x
            ),
            id="three selects",
        ),
        pytest.param(lambda x: jnp.where(jnp.sum(x == x[0]) >= 3, x, 2 * x), id="a count of ties"),
        pytest.param(
            lambda x: jax.lax.cond(x.sum() > 50, lambda x: x, lambda x: 2 * x, x), id="a cond"
        ),
        pytest.param(lambda x: x * jnp.where(x @ x > 1e6, 2.0, 1.0), id="a large square"),
        pytest.param(
            lambda x: jax.lax.scan(lambda c, y: (jnp.maximum(c + y, 0), c), 0.0, x)[1],
            id="in a loop",
        ),
        pytest.param(lambda x: jnp.logaddexp(x[0], x[1:]), id="a guard against NaN"),
        pytest.param(jax.nn.softmax, id="a shift that cancels"),
    ],
)
def test_every_outcome_that_some_input_has_is_met(f):
    assert missing(covered(f, np.zeros(4))) == []


def test_each_place_of_a_table_that_a_computed_index_reaches_is_met():
    table = lambda x: TABLE[jnp.clip((jnp.abs(x) // 20).astype(int), 0, 3)] * x
    found = covered(table, np.zeros(3))
    assert [o for p, o in missing(found) if p == "gather"] == []


def test_an_outcome_that_changes_nothing_is_reached_but_not_met():
    found = covered(lambda x: jnp.where(x > 0, x, x), np.zeros(3))
    assert missing(found) == [("gt", "true"), ("gt", "false")]
    assert {outcome for _, outcome in found.reached} == {"true", "false"}


def test_an_outcome_hidden_behind_another_condition_is_not_met_by_being_reached():
    hidden = lambda x: jnp.where(x[0] > 1e30, jnp.where(x[1] > 0, x, 2 * x), x)
    kept = covered(hidden, np.zeros(2), inside=lambda leaves: np.abs(leaves[0]).max() < 1e20)
    assert set(missing(kept)) == {("gt", "true"), ("gt", "false")}
    assert len(missing(kept)) == 3  # the first is never true, the second never matters


def test_what_intervals_exclude_is_not_asked_for():
    never = covered(lambda x: jnp.where(jnp.exp(x) + 1 > 0.5, x, 7.0), np.zeros(3))
    assert missing(never) == []
    assert {outcome for _, outcome in never.impossible} == {"false"}


def test_underflow_counts_as_an_outcome_of_floating_point():
    found = covered(lambda x: jnp.where(jnp.exp(x) > 0, x, 7.0 * x), np.zeros(2))
    assert missing(found) == []


def test_what_no_input_of_the_domain_meets_is_left_and_named():
    positive = lambda leaves: bool((leaves[0] > 0).all())
    f = lambda x: jnp.where(x > 0, x, 2 * x)
    x = np.ones(3)
    with enable_x64(True):
        program = jax.make_jaxpr(lambda x: jnp.sum(f(x)))(x)
    found = cover(program, [[x], [2 * x]], [True], positive)
    ((branch, outcome),) = found.missing()
    assert (branch.primitive, outcome) == ("gt", "false")
    assert branch.line.startswith(__file__)


def test_whole_numbers_that_are_compared_are_searched_for():
    program = jax.make_jaxpr(lambda k, x: jnp.where(k == 777, 2 * x, x).sum())(3, np.ones(2))
    found = cover(program, [[np.asarray(3, np.int32), np.ones(2, np.float32)]], [True, True])
    assert missing(found) == []


def test_the_same_seed_meets_the_same_outcomes_at_the_same_looks():
    f = lambda x: jnp.where(x[0] * x[1] > 40, x, 2 * x)
    first, second = covered(f, np.zeros(3)), covered(f, np.zeros(3))
    assert first.runs == second.runs
    for one, other in zip(first.looks, second.looks, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one.leaves, other.leaves, strict=True))


def test_branches_of_constants_and_of_dead_code_are_not_listed():
    def f(x):
        _ = jnp.where(x > 3, 1.0, 2.0)
        return x * jnp.where(jnp.arange(3) > 1, 1.0, 2.0)

    assert branches(jax.make_jaxpr(f)(np.ones(3)), [True]) == []
