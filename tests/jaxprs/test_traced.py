"""Functions as programs that are joined, filled in and picked from without another trace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from jaxgrad import certify
from jaxgrad.jaxprs.traced import Filled, Picked, Together, TracedOnce, joined
from jaxgrad.jaxprs.versions import enable_x64
from jaxgrad.runtime.compiled import Program

pytestmark = pytest.mark.quick

X = np.arange(6.0).reshape(2, 3)
FACTORS = np.array([2.0, 3.0, 5.0])


@pytest.fixture(autouse=True)
def in_double():
    with enable_x64(True):
        yield


def counted(function):
    """A function that is traced once, and how often it was traced."""
    calls = []
    return TracedOnce(lambda *args: (calls.append(1), function(*args))[1]), calls


def test_two_functions_together_give_both_results_without_another_trace():
    (double, doubled), (total, summed) = (
        counted(lambda x: {"double": 2 * x}),
        counted(lambda x: (jnp.sum(x), x * FACTORS)),
    )
    both = Together((double, total))
    for run in (both, Program(both)):
        first, (second, third) = run(X)
        assert (
            np.array_equal(first["double"], 2 * X)
            and second == 15
            and np.array_equal(third, X * FACTORS)
        )
    assert len(doubled) == len(summed) == 1


def test_a_function_may_stand_together_with_itself():
    square, calls = counted(lambda x: x * x + FACTORS)
    one, other = Together((square, square))(X)
    assert np.array_equal(one, X * X + FACTORS) and np.array_equal(other, one) and len(calls) == 1


def test_programs_that_return_an_input_or_a_number_are_joined():
    same, number = (
        jax.make_jaxpr(lambda x: (x, 7.0))(X),
        jax.make_jaxpr(lambda x: (jnp.sin(x), x))(X),
    )
    found = core.jaxpr_as_fun(joined([same, number, same]))(X)
    assert [np.shape(f) for f in found] == [(2, 3), (), (2, 3), (2, 3), (2, 3), ()]
    assert np.allclose(found[2], np.sin(X)) and found[5] == 7 and np.array_equal(found[3], X)


def test_the_last_arguments_are_filled_in_as_constants():
    scaled, calls = counted(lambda x, tree: tree["by"] * x + tree["to"] + FACTORS)
    filled = Filled(scaled, ({"by": np.float64(3), "to": np.ones(3)},))
    program, _ = filled.program(X)
    assert len(program.jaxpr.invars) == 1
    assert np.array_equal(filled(X), 3 * X + 1 + FACTORS)
    assert (
        np.array_equal(scaled(X, {"by": np.float64(3), "to": np.ones(3)}), filled(X))
        and len(calls) == 1
    )


def test_what_is_filled_in_is_of_the_precision_in_force():
    scaled, calls = counted(lambda x, by: by * x)
    filled = Filled(scaled, (np.float64(1 / 3),))
    assert filled(X).dtype == np.float64
    with enable_x64(False):
        assert filled(X.astype(np.float32)).dtype == np.float32
    assert len(calls) == 2


def test_a_part_of_a_result_is_picked():
    many, calls = counted(lambda x: {"a": (x, jnp.sum(x)), "b": x**2})
    picked = Picked(many, lambda result: [result["b"], result["a"][1]])
    square, total = picked(X)
    assert np.array_equal(square, X**2) and total == 15 and len(calls) == 1


def test_what_is_filled_in_and_put_together_can_be_differentiated_and_proved():
    cube, power = TracedOnce(lambda x, n: jnp.sum(x**3) * n), TracedOnce(lambda x: 6 * x**2)
    gradient = TracedOnce(jax.grad(Filled(cube, (np.float64(2),))))
    assert certify(gradient, power, X).verdict == "confirmed"
    assert certify(gradient, TracedOnce(lambda x: 5 * x**2), X).verdict == "refuted"


def test_a_random_function_that_was_traced_before_is_refused_by_its_role():
    drawn = TracedOnce(lambda x: x + jax.random.normal(jax.random.key(0), x.shape))
    kept = TracedOnce(lambda x: x)
    with pytest.raises(ValueError, match="`f` draws random numbers"):
        certify(drawn, kept, X)
    with pytest.raises(ValueError, match="`g` draws random numbers"):
        certify(kept, drawn, X)
