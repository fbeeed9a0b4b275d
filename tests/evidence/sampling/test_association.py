"""Products associated by cost: the same function, in fewer operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad.evidence.sampling.association import associated
from jaxgrad.jaxprs.programs import equations
from jaxgrad.jaxprs.versions import enable_x64


def arrays(*shapes):
    rng = np.random.default_rng(7)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def dots(f, args, draw):
    """Return the output shapes of all products in the associated program."""
    program = jax.make_jaxpr(lambda *a: associated(f, a[:-1], a[-1]))(*args, draw)
    return [
        eqn.outvars[0].aval.shape
        for eqn in equations(program.jaxpr)
        if eqn.primitive.name == "dot_general"
    ]


CHAINS = {
    "two factors on the right": (lambda a, b, mask: mask @ a @ b, [(4, 5), (5, 3)], (50, 4)),
    "three factors on the right": (
        lambda a, b, c, mask: mask @ a @ b @ c,
        [(4, 4), (4, 4), (4, 3)],
        (50, 4),
    ),
    "on the left": (lambda a, b, mask: b @ (a @ mask), [(5, 4), (3, 5)], (4, 50)),
    "on both sides": (lambda a, b, mask: a @ mask @ b, [(5, 50), (4, 3)], (50, 4)),
    "left, right and left": (
        lambda a, b, c, mask: c @ (a @ mask @ b),
        [(5, 50), (4, 3), (2, 5)],
        (50, 4),
    ),
    "transposed factors": (lambda a, b, mask: mask @ a.T @ b.T, [(5, 4), (3, 5)], (50, 4)),
    "inside jit": (
        lambda a, b, mask: jax.jit(lambda x, y: x @ y)(jax.jit(jnp.matmul)(mask, a), b),
        [(4, 4), (4, 4)],
        (50, 4),
    ),
    "used twice": (
        lambda a, b, mask: (lambda h: (h @ b).sum(1) + h.sum(1))(mask @ a),
        [(4, 4), (4, 4)],
        (50, 4),
    ),
    "two contracted axes": (
        lambda a, b, mask: jnp.tensordot(jnp.tensordot(mask, a, 2), b, 2),
        [(2, 3, 3, 2), (3, 2, 4)],
        (50, 2, 3),
    ),
    "contracted axes in another order": (
        lambda a, b, mask: jnp.tensordot(
            jnp.tensordot(mask, a, ((2, 1), (1, 0))), b, ((2, 1), (0, 1))
        ),
        [(2, 3, 4, 2), (2, 4, 5)],
        (50, 2, 3),
    ),
    "relu between": (lambda a, b, mask: jax.nn.relu(mask @ a) @ b, [(4, 5), (5, 3)], (50, 4)),
    "a bias between": (lambda a, b, mask: (mask @ a + b[0]) @ b, [(4, 3), (3, 3)], (50, 4)),
    "scan between": (
        lambda a, b, mask: jax.lax.scan(lambda h, _: (h @ a, None), mask @ b, None, 3)[0],
        [(4, 4), (4, 4)],
        (50, 4),
    ),
    "batched": (
        lambda a, b, mask: jnp.einsum("bmk,bkl,bln->bmn", mask, a, b),
        [(2, 4, 4), (2, 4, 4)],
        (2, 9, 4),
    ),
    "a mask times a mask": (
        lambda a, b, mask: (mask @ a) @ (mask @ b).T,
        [(4, 4), (4, 4)],
        (50, 4),
    ),
    "vectors": (lambda a, b, mask: (mask @ a) @ b, [(4, 4), (4,)], (50, 4)),
    "scalars too": (
        lambda a, b, mask: {"x": mask @ a @ b, "n": a.sum(), "m": mask},
        [(4, 4), (4, 4)],
        (50, 4),
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_the_associated_function_is_the_same_in_value_and_gradient(name):
    f, shapes, mask = CHAINS[name]
    args, (draws,) = arrays(*shapes), arrays((3, *mask))

    def total(function):
        def loss(args):
            outputs = jax.vmap(lambda draw: function(args, draw))(draws)
            return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(outputs))

        return jax.jit(jax.value_and_grad(loss))(args)

    with enable_x64(True):
        args, draws = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (args, draws))
        expected, found = (
            total(lambda args, draw: f(*args, mask=draw)),
            total(lambda args, draw: associated(f, args, draw)),
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), found, expected
        )


SCALES = {
    "weights large": (1e-19, 1e19, 1e19),
    "weights small": (1e20, 1e-20, 1e-20),
    "rows of all sizes": (np.logspace(-18, 18, 8), np.logspace(18, -18, 8)[:, None], 1e19),
    "a row of zeros": (1e-19, np.array([1e19, 0, 1, 1, 1, 1, 1, 1])[:, None], 1e19),
}


@pytest.mark.parametrize("name", SCALES)
def test_weights_whose_product_leaves_the_range_of_the_type_do_no_harm(name):
    x, a, b = (
        np.float32(array * scale)
        for array, scale in zip(arrays((8, 8), (8, 256), (256, 8)), SCALES[name], strict=True)
    )
    mask = np.float32(np.random.default_rng(0).random((8, 8)) < 0.5)

    def f(a, b, mask):
        return jnp.sum((mask * x) @ a @ b)

    plain = jax.value_and_grad(lambda args: f(*args, mask=mask))
    found = jax.jit(jax.value_and_grad(lambda args: associated(f, args, mask)))((a, b))
    with enable_x64(True):
        exact = plain((a.astype(np.float64), b.astype(np.float64)))
    assert len(dots(f, (a, b), mask)) == 2 and dots(f, (a, b), mask)[0] == (8, 8)
    for leaves in zip(*map(jax.tree.leaves, (found, plain((a, b)), exact)), strict=True):
        one, other, at = (np.asarray(leaf, np.float64) for leaf in leaves)
        rounding = np.abs(other - at).max()
        assert np.abs(one - at).max() <= 10 * rounding + 1e-6 * np.abs(at).max(), name


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_weights_of_sixteen_bits_are_left_alone(dtype):
    a, b, draw = (x.astype(dtype) for x in arrays((8, 8), (8, 8), (50, 8)))
    assert dots(lambda a, b, mask: mask @ a @ b, (a, b), draw) == [(50, 8), (50, 8)]


def test_a_chain_of_any_length_multiplies_the_samples_once():
    a, draw = arrays((8, 8), (50, 8))
    assert dots(lambda a, mask: mask @ a @ a @ a @ a, (a,), draw) == [
        (8, 8),
        (8, 8),
        (8, 8),
        (50, 8),
    ]


def test_a_narrow_layer_is_not_widened():
    a, b, draw = arrays((100, 3), (3, 100), (50, 100))
    assert dots(lambda a, b, mask: mask @ a @ b, (a, b), draw) == [(50, 3), (50, 100)]


def test_a_layer_too_large_for_the_samples_that_share_it_stays():
    a, b, draw = arrays((64, 64), (64, 64), (1, 64))
    assert dots(lambda a, b, mask: mask @ a @ b, (a, b), draw) == [(1, 64), (1, 64)]


def test_the_program_does_not_depend_on_the_chunk():
    a, b, draws = arrays((8, 8), (8, 8), (40, 9, 8))

    def steps(count):
        many = jax.vmap(lambda draw: associated(lambda a, b, mask: mask @ a @ b, (a, b), draw))
        return [eqn.primitive for eqn in equations(jax.make_jaxpr(many)(draws[:count]).jaxpr)]

    assert steps(2) == steps(16) == steps(40)


def _dot(a, b, kind):
    return jax.lax.dot_general(a, b, (((a.ndim - 1,), (0,)), ((), ())), preferred_element_type=kind)


def _small(x):
    return jnp.round(9 * x).astype(jnp.int8)


TYPES = {
    "a product in a wider type than its operands": lambda a, b, mask: _dot(
        mask.astype(jnp.bfloat16) @ a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), jnp.float32
    ),
    "small integers that wrap before they are widened": lambda a, b, mask: _dot(
        _dot(_small(mask), _small(a), None), _small(b), jnp.int32
    ),
    "an integer product times numbers": lambda a, b, mask: _dot(
        _dot(_small(mask), _small(a), jnp.int32), b, jnp.float32
    ),
    "integers times numbers": lambda a, b, mask: _dot(_small(mask), a, jnp.float32) @ b,
}


@pytest.mark.parametrize("name", TYPES)
def test_a_product_that_changes_its_type_stays_where_it_stands(name):
    f = TYPES[name]
    a, b, draw = arrays((5, 40), (40, 3), (64, 5))
    expected, found = (
        f(a, b, mask=draw),
        jax.jit(lambda *args: associated(f, args[:2], args[2]))(a, b, draw),
    )
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=0.1)


def test_factors_of_different_precision_are_not_put_together():
    a, b, draw = arrays((8, 8), (8, 8), (50, 8))

    def f(a, b, mask):
        return jnp.matmul(jnp.matmul(mask, a), b, precision="highest")

    assert dots(f, (a, b), draw) == [(50, 8), (50, 8)]
