"""Arrays kept in the order in which products take them: the same results, and fewer entries turned
over.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad.evidence.sampling.rewriting.orders import Tally, reshaped
from jaxgrad.evidence.sampling.rewriting.orientation import Orienting
from jaxgrad.evidence.sampling.rewriting.products import steady
from jaxgrad.jaxprs.rewrite import apply
from jaxgrad.jaxprs.versions import enable_x64

C, M, N, H = 3, 4, 5, 2


def product(eqn, left, right, terms_last):
    return jax.lax.dot_general(left, right, (((1,), (1 if terms_last else 0,)), ((), ())))


def oriented(f, args, *, weights_first=True, dry=False):
    """Evaluate f, whose last argument depends on the samples; return the results and how many
    entries were turned.
    """
    closed, shape = jax.make_jaxpr(f, return_shape=True)(*args)
    orienting = Orienting(product, apply, weights_first, Tally(dry))
    held = [orienting.lying(x, jnp.shape(x), i == len(args) - 1) for i, x in enumerate(args)]
    results = [x.usual for x in orienting.run(closed.jaxpr, closed.consts, held)]
    return jax.tree.unflatten(jax.tree.structure(shape), results), orienting.tally.turned


def mlp(w1, w2, x):
    return jnp.mean((jax.nn.relu(x @ w1) @ w2 - x) ** 2)


FUNCTIONS = {
    "layers": lambda w1, w2, x: jnp.tanh(x @ w1) @ w2,
    "gradient": jax.grad(mlp, argnums=(0, 1, 2)),
    "rows as one axis": lambda w1, w2, x: jax.grad(lambda w1: mlp(w1, w2, x.reshape(C * M, N)))(w1),
    "features first": lambda w1, w2, x: jnp.einsum("nh,cmn->hcm", w1, x).sum(axis=(1, 2)),
    "weights alone": lambda w1, w2, x: (w1 @ w2, x.sum()),
    "samples alone": lambda w1, w2, x: jnp.einsum("cmn,cmk->nk", x, x),
    "samples, first axes summed": lambda w1, w2, x: jnp.einsum("cmn,cmh->nh", x, x @ w1),
    "terms in another order": lambda w1, w2, x: jnp.einsum(
        "cmn,mch->nh", x, (x @ w1).transpose(1, 0, 2)
    ),
    "batched": lambda w1, w2, x: jnp.einsum("cmn,ckn->cmk", x, x @ w1 @ w2),
    "vector": lambda w1, w2, x: x @ w1[:, 0] + (x @ w1) @ w2[:, 0],
    "outer": lambda w1, w2, x: jnp.tensordot((x @ w1).sum((0, 1)), x @ w1, 0),
    "number": lambda w1, w2, x: jnp.tensordot(x @ w1, x @ w1, 3),
    "norm": lambda w1, w2, x: (
        lambda z: (z - z.mean(-1, keepdims=True)) / jnp.sqrt(z.var(-1, keepdims=True) + 1)
    )(x @ w1 @ w2),
    "softmax": lambda w1, w2, x: jax.nn.softmax(x @ w1 @ w2, axis=1),
    "where": lambda w1, w2, x: jnp.where(x @ w1 @ w2 > x, x, 2 * (x @ w1 @ w2)),
    "offset": lambda w1, w2, x: x @ w1 + w1[0] - w1[1:3].sum(0)[None],
    "columns left out": lambda w1, w2, x: ((x @ w1) @ w2)[:, 1:, ::2],
    "one sample": lambda w1, w2, x: (x @ w1)[1] @ w2 + x[0],
    "spread": lambda w1, w2, x: (
        (x @ w1)[:, :, None, :] * w2[None, None, :, 0:1] + (x @ w1)[:, None, :1]
    ),
    "apart": lambda w1, w2, x: (
        (x @ w1 @ w2).reshape(C, 2, 2, N).transpose(0, 2, 1, 3).reshape(C * 4, N) @ w1
    ),
    "put together": lambda w1, w2, x: (x @ w1).reshape(C, M * H),
    "side by side": lambda w1, w2, x: (
        jnp.concatenate([x, x @ w1], axis=-1) @ jnp.concatenate([w1, w1[:2]])
    ),
    "columns first": lambda w1, w2, x: (
        jnp.reshape((x @ w1)[0], (2, 2, 2), order="F")
        * jnp.reshape(x @ w1, (C, 2, M), order="F")[:2, :, :2]
    ),
    "other axes first": lambda w1, w2, x: jax.lax.reshape(x[0] @ w1, (2, 2, H), (1, 0)),
    "spread in many steps": lambda w1, w2, x: (
        (x @ w1)
        * functools.reduce(lambda b, _: jnp.sin(b).T + 1, range(400), jnp.ones((H, 1)) * w1[0])[0]
    ),
    "cumulated": lambda w1, w2, x: jnp.cumsum(x @ w1, axis=1) @ w2,
    "sorted": lambda w1, w2, x: jnp.sort(x @ w1, axis=-1).max(axis=1),
    "in steps": lambda w1, w2, x: jax.lax.scan(
        lambda z, _: (jnp.tanh(z @ w1 @ w2), z.sum()), x, None, length=2
    ),
    "if": lambda w1, w2, x: jax.lax.cond(
        w1[0, 0] > 0, lambda z: z @ w2, lambda z: z @ w2 + 1, x @ w1
    ),
    "own rule": lambda w1, w2, x: jax.nn.softplus(x @ w1) + jax.nn.silu(x @ w1) @ w2[:, :H],
    "checkpoint": lambda w1, w2, x: jax.grad(lambda w1: jax.checkpoint(mlp)(w1, w2, x))(w1),
    "nothing but numbers": lambda w1, w2, x: jnp.full((M, N), 2.0) * jnp.ones(N) + 0 * x[0],
    "constants": lambda w1, w2, x: x @ (w1 * np.arange(H)) + np.ones((M, 1)),
    "whole numbers": lambda w1, w2, x: (x @ w1).astype(int) % 3 + jnp.arange(H),
    "as they are": lambda w1, w2, x: (x, w1, 1.0),
}


def arguments(dtype=float):
    rng = np.random.default_rng(0)
    return tuple(
        jnp.asarray(rng.standard_normal(shape), dtype) for shape in ((N, H), (H, N), (C, M, N))
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_program_gives_the_same_with_its_arrays_in_any_order(name):
    with enable_x64(True):
        args = arguments()
        for weights_first in (False, True):
            found, turned = oriented(FUNCTIONS[name], args, weights_first=weights_first)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12),
                found,
                FUNCTIONS[name](*args),
            )
            assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, FUNCTIONS[name](*args))
            assert (
                oriented(FUNCTIONS[name], args, weights_first=weights_first, dry=True)[1] == turned
            )


def test_a_gradient_of_layers_turns_nothing_over_where_the_weights_come_first():
    gradient = jax.grad(
        lambda w1, w2, x: jnp.mean((jax.nn.relu(x @ w1) @ w2 - 1) ** 2), argnums=(0, 1)
    )
    # as they are: what is pulled back to the outputs and to the hidden features, and the two
    # results
    assert (
        oriented(gradient, arguments(), weights_first=False, dry=True)[1]
        == C * M * (N + H) + 2 * N * H
    )
    assert oriented(gradient, arguments(), weights_first=True, dry=True)[1] <= 2 * N * H


def test_a_product_that_is_written_twice_is_taken_once():
    """XLA knows two products for the same only where their factors are, and here the weight is
    turned over for either.
    """
    twice = lambda w1, w2, x: jnp.tanh(x @ w1) + jnp.sin(x @ w1)
    program = jax.make_jaxpr(lambda *args: oriented(twice, args)[0])(*arguments())
    assert [eqn.primitive.name for eqn in program.eqns].count("dot_general") == 1


def test_samples_that_are_needed_both_ways_are_counted():
    """Here the mask itself meets the layer's result, entry by entry."""
    turned = oriented(
        jax.grad(lambda w1, w2, x: jnp.sum((x @ w1 @ w2 * x) ** 2), argnums=(0, 1)),
        arguments(),
        dry=True,
    )[1]
    assert turned >= C * M * N


def test_reshapes_keep_an_order_only_where_the_entries_stay_in_place():
    shapes = [
        (4, 3),
        (12,),
        (2, 2, 3),
        (3, 4),
        (1, 12),
        (2, 6),
        (2, 1, 2, 3),
        (4, 3, 1),
        (6, 2),
        (1, 1, 12),
    ]
    kept = 0
    for before, after in itertools.product(shapes, shapes):
        x = np.arange(math.prod(before)).reshape(before)
        for order in itertools.permutations(range(len(before))):
            if (found := reshaped(before, after, order)) is None:
                continue
            kept += order != tuple(range(len(before)))
            lying = x.transpose(order).reshape([after[axis] for axis in found])
            assert np.array_equal(lying, x.reshape(after).transpose(found)), (before, after, order)
    assert kept > 100


@pytest.mark.parametrize("chunk", [40, 41])
def test_large_programs_are_oriented_and_small_ones_and_double_precision_are_not(chunk):
    rng = np.random.default_rng(1)
    args = [rng.standard_normal(shape) for shape in ((96, 64), (64, 96), (chunk, 32, 96))]

    def gradient(w1, w2, x):
        return jax.grad(mlp, argnums=(0, 1))(w1, w2, x)

    def shapes_of_products(dtype):
        program = jax.make_jaxpr(lambda *args: steady(gradient, *args))(
            *(jnp.asarray(x, dtype) for x in args)
        )
        return [
            eqn.outvars[0].aval.shape
            for eqn in program.jaxpr.eqns
            if eqn.primitive.name == "dot_general"
        ]

    assert (64, 32 * chunk) in shapes_of_products(
        np.float32
    )  # the hidden features, each for all samples
    found = steady(gradient, *(jnp.asarray(x, np.float32) for x in args))
    with enable_x64(True):
        assert (64, 32 * chunk) not in shapes_of_products(float)
        right = gradient(*map(jnp.asarray, args))
    for a, b in zip(found, right, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())
