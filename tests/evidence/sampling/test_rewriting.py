"""Programs rewritten for speed: the same numbers, or the plain program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend import core

import jaxgrad as jg
from jaxgrad.evidence.sampling import association, rewriting
from jaxgrad.evidence.sampling.loop import Sampler
from jaxgrad.evidence.sampling.rewriting import chosen, is_same, rewritten
from jaxgrad.jaxprs.versions import enable_x64

C, M, N, H = 3, 4, 5, 2


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


PRODUCTS = {
    "ki,kj->ij": ((3001, 20), (3001, 17)),
    "ki,kj->ji": ((3001, 20), (3001, 47)),
    "ki,jk->ij": ((300, 20), (47, 300)),
    "abi,bja->ij": ((30, 41, 20), (41, 17, 30)),
    "aki,kaj->aij": ((3, 1500, 20), (1500, 3, 17)),
    "ik,kj->ij": ((40, 513), (513, 30)),
    "ki,kj->ij, long": ((10, 3001), (10, 7)),
    "ki,jk->ij, wide": ((10, 7), (3001, 10)),
    "ik,k->i": ((600, 900), (900,)),
    "k,ki->i": ((900,), (900, 600)),
    "k,k->": ((900,), (900,)),
}
"""Axes of two factors and of their product, and the factors' shapes."""


def in_both_ways(f, args):
    """Return the results of a function and of its rewritten program, and the rules taken."""
    program = jax.make_jaxpr(f)(*args)
    choices = chosen(program)
    run = jax.jit(lambda *args: rewritten(program, choices, args))
    plain = jax.jit(core.jaxpr_as_fun(program))(*args)
    return plain, run(*args), [choice.__name__ for choice in choices if choice]


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        scale = np.abs(np.asarray(other, np.float64)).max(initial=0.0)
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("narrow", [0, 32])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_rewritten_program_gives_the_same(monkeypatch, name, narrow):
    monkeypatch.setattr(rewriting, "LARGE", 0)
    monkeypatch.setattr(rewriting, "NARROW", narrow)
    rng = np.random.default_rng(0)
    args = [rng.standard_normal(s).astype(np.float32) for s in ((N, H), (H, N), (C, M, N))]
    expected, found, _ = in_both_ways(lambda *args: jax.tree.leaves(FUNCTIONS[name](*args)), args)
    assert_close(found, expected)


@pytest.mark.parametrize("narrow", [0, 32])
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_the_same_whatever_its_axes(monkeypatch, name, narrow):
    monkeypatch.setattr(rewriting, "LARGE", 0)
    monkeypatch.setattr(rewriting, "NARROW", narrow)
    rng = np.random.default_rng(0)
    args = [rng.standard_normal(shape).astype(np.float32) for shape in PRODUCTS[name]]
    product = functools.partial(jnp.einsum, name.split(",")[0] + "," + name.split(",")[1])
    assert_close(*in_both_ways(product, args)[:2])


def test_each_rule_is_taken_where_it_is_quicker():
    def taken(shape, other, axes):
        a, b = jnp.ones(shape), jnp.ones(other)
        return in_both_ways(lambda a, b: lax.dot_general(a, b, (axes, ((), ()))), (a, b))[2]

    assert taken((4096, 64), (4096, 96), ((0,), (0,))) == ["turned"]
    assert taken((4096, 96), (4096, 64), ((0,), (0,))) == ["turned_right"]
    assert taken((4096, 10), (4096, 10), ((0,), (0,))) == ["both_by_rows"]
    assert taken((9000, 10), (10, 10), ((1,), (0,))) == ["narrow_right"]
    assert taken((10, 10), (10, 9000), ((1,), (0,))) == ["narrow_left"]
    assert taken((4096, 64), (64, 96), ((1,), (0,))) == []  # lies as it should
    assert taken((100, 10), (10, 10), ((1,), (0,))) == []  # small


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_products_of_other_types_than_float32_are_left_alone(dtype):
    with enable_x64(True):
        program = jax.make_jaxpr(lambda a: a.T @ a)(np.ones((4096, 64), dtype))
        assert not any(chosen(program))


def linear(w1, w2, x, mask):
    return jnp.mean(((mask * x) @ w1 @ w2 - x) ** 2)


def relu(w1, w2, x, mask):
    return jnp.mean((jax.nn.relu((mask * x) @ w1) @ w2 - x) ** 2)


def convolved(w1, w2, x, mask):
    z = ((mask * x) @ w1 @ w2)[None, None]
    return jnp.mean(lax.conv_general_dilated(z, w2[None, None], (1, 1), "SAME") ** 2)


LOSSES = {linear: (80, 10), relu: (20, 64), convolved: (80, 10)}
"""Losses, and the rows and columns of their masks."""


@pytest.fixture
def programs(monkeypatch):
    """Tells of each round whether it was run by a rewritten program."""
    seen, whole = [], Sampler.round

    def noted(self, *args, quick=False):
        seen.append(quick)
        return whole(self, *args, quick=quick)

    monkeypatch.setattr(Sampler, "round", noted)
    return seen


def estimated(loss, **options):
    m, n = LOSSES[loss]
    rng = np.random.default_rng(0)
    args = [rng.standard_normal(s).astype(np.float32) / 3 for s in ((n, 10), (10, n), (m, n))]
    f = jg.estimate(loss, jg.masks.Bernoulli(0.6), (m, n), argnums=(0, 1))
    return f(jax.random.key(1), *args, samples=640, **options)


def assert_same(found, expected):
    assert found.samples == expected.samples
    for one, other in zip(found.mean, expected.mean, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("by_numpy", [True, False])
def test_a_rewritten_program_that_gives_the_same_is_used(monkeypatch, programs, loss, by_numpy):
    if not by_numpy:
        monkeypatch.setattr(rewriting, "floating", lambda *_: None)
    found = estimated(loss)
    assert programs and all(programs)
    programs.clear()
    monkeypatch.setattr(Sampler, "may_rewrite", lambda *_: False)
    assert_same(found, estimated(loss))
    assert programs and not any(programs)


def wrong_rule(name):
    """Return the rule of a primitive, with a result that is off by a thousandth."""
    right = rewriting.RULES[name]

    def rule(eqn):
        choice = right(eqn)
        return choice and (lambda eqn, *operands: 1.001 * choice(eqn, *operands))

    return rule


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("by_numpy", [True, False])
def test_a_wrong_rule_is_found_out_and_the_plain_program_is_used(
    monkeypatch, programs, loss, by_numpy
):
    right = estimated(loss)
    programs.clear()
    for name in rewriting.RULES:
        monkeypatch.setitem(rewriting.RULES, name, wrong_rule(name))
    if not by_numpy:
        monkeypatch.setattr(rewriting, "floating", lambda *_: None)
    found = estimated(loss)
    assert programs and not any(programs)
    assert_same(found, right)


def test_a_wrong_association_is_found_out_and_the_plain_program_is_used(monkeypatch, programs):
    right = estimated(linear)
    programs.clear()
    take = association._Product.take
    monkeypatch.setattr(association._Product, "take", lambda self: 1.001 * take(self))
    found = estimated(linear)
    assert programs and not any(programs)
    assert_same(found, right)


def test_a_rule_that_overflows_is_found_out():
    program = jax.make_jaxpr(lambda a, b: a @ b)(jnp.ones((3, 3)), jnp.ones((3, 3)))
    other = jax.make_jaxpr(lambda a, b: ((a * 1e30) @ (b * 1e30)) / 1e30 / 1e30)(*program.in_avals)
    args = np.ones((3, 3), np.float32)
    assert is_same(program, program, [args], args)
    assert not is_same(program, other, [args], args)


def test_loops_of_a_verification_are_not_rewritten(programs):
    jg.verify(jg.catalog.get("masked_autoencoder_bernoulli"), evidence="monte_carlo")
    assert programs and not any(programs)


def test_what_was_decided_is_kept_in_the_checkpoint(monkeypatch, programs, tmp_path):
    monkeypatch.setattr(Sampler, "plan", lambda self, known, samples, **_: (80, 2))
    for right in (True, False):
        path = tmp_path / f"{right}.npz"
        with monkeypatch.context() as patch:
            if not right:
                patch.setitem(rewriting.RULES, "dot_general", wrong_rule("dot_general"))
            whole = estimated(linear)
            with pytest.raises(KeyboardInterrupt):
                estimated(linear, checkpoint=path, progress=_interrupt)
        assert bool(np.load(path)["state_rewritten"]) == right
        programs.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Sampler, "may_rewrite", _not_asked)
            resumed = estimated(linear, checkpoint=path)
        assert len(programs) == 3 and set(programs) == {right}
        for one, other in zip(resumed.mean, whole.mean, strict=True):
            np.testing.assert_array_equal(one, other)


def _interrupt(done, line):
    raise KeyboardInterrupt


def _not_asked(*_):
    raise AssertionError("the checkpoint tells it")
