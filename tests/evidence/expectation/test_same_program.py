"""A program that is traced again is known again, and no other is taken for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad.evidence.expectation.same_program import same
from jaxgrad.jaxprs.precision import in_precision

X = np.arange(6.0, dtype=np.float32).reshape(2, 3)


def known_by(function, *args):
    return same(jax.make_jaxpr(function)(*args).jaxpr)


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
    with in_precision(True):
        found += [known_by(DIFFERENT[0], X.astype(np.float64))]
    assert None not in found and len(set(found)) == len(found)


def test_one_and_true_and_the_two_zeros_are_told_apart():
    found = [
        known_by(lambda x, p=p: own_operation(x, p), X) for p in (1, True, 1.0, 0.0, -0.0, (1,))
    ]
    assert len(set(found)) == len(found)


def own_operation(x, parameter=None):
    operation = own_operation.made
    return operation.bind(x, parameter=parameter)


def made(name):
    operation = jax.extend.core.Primitive(name)
    operation.def_impl(lambda x, parameter: x)
    operation.def_abstract_eval(lambda x, parameter: x)
    return operation


own_operation.made = made("sin")


def test_an_operation_is_known_by_itself_and_not_by_its_name():
    first = known_by(own_operation, X)
    assert first == known_by(own_operation, X) is not None
    other = made("sin")
    assert known_by(lambda x: other.bind(x, parameter=None), X) != first
    assert known_by(lambda x: jnp.sin(x), X) != first


def test_functions_that_are_called_back_are_known_by_themselves():
    def calls(function):
        shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
        return lambda x: jax.pure_callback(function, shape, x)

    assert known_by(calls(np.sin), X) != known_by(calls(np.cos), X)


def test_what_has_effects_has_no_key():
    assert known_by(lambda x: (jax.debug.print("{}", x), x)[1], X) is None
