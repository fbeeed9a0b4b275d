"""capture: named values and their cotangents, under every transform and through nested calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

import jaxgrad as jg
from jaxgrad.jaxprs.domain import UnsupportedError

X = jnp.linspace(-1.0, 2.0, 6).reshape(2, 3)
W = jnp.linspace(0.5, 1.5, 6).reshape(3, 2)


def loss(w, x):
    z = checkpoint_name(x @ w, "z")
    a = checkpoint_name(jax.nn.relu(z), "a")
    return jnp.sum(a**2)


def test_values_and_cotangents_are_those_of_the_chain_rule():
    value, seen, cotangents = jg.capture(loss, cotangents=True)(W, X)
    z = X @ W
    np.testing.assert_allclose(value, loss(W, X))
    np.testing.assert_allclose(seen["z"], z)
    np.testing.assert_allclose(cotangents["a"], 2 * jax.nn.relu(z))
    np.testing.assert_allclose(
        cotangents["z"], 2 * jax.nn.relu(z), err_msg="the gate is one where relu is not zero"
    )


def test_an_output_that_is_no_scalar_takes_its_cotangent():
    def f(x):
        return {"y": checkpoint_name(jnp.sin(x), "s") * 2}

    _, _, cotangents = jg.capture(f, cotangents={"y": X})(X)
    np.testing.assert_allclose(cotangents["s"], 2 * X)
    with pytest.raises(ValueError, match="`cotangents=True` needs a scalar output"):
        jg.capture(f, cotangents=True)(X)
    with pytest.raises(ValueError, match="must be a tree like the output"):
        jg.capture(f, cotangents=X)(X)


@pytest.mark.parametrize(
    "wrap",
    [jax.jit, jax.checkpoint, lambda f: jax.jit(jax.jit(f))],
    ids=["jit", "checkpoint", "nested"],
)
def test_calls_are_opened(wrap):
    _, seen, cotangents = jg.capture(wrap(loss), cotangents=True)(W, X)
    _, plain, plain_cotangents = jg.capture(loss, cotangents=True)(W, X)
    for name in ("z", "a"):
        np.testing.assert_allclose(seen[name], plain[name])
        np.testing.assert_allclose(cotangents[name], plain_cotangents[name])


def test_it_works_under_jit_grad_and_vmap():
    run = jg.capture(loss)
    np.testing.assert_allclose(jax.jit(run)(W, X)[1]["z"], X @ W)
    gradient, seen = jax.grad(lambda w: (run(w, X)[0], run(w, X)[1]), has_aux=True)(W)
    np.testing.assert_allclose(gradient, jax.grad(loss)(W, X), rtol=1e-6)
    np.testing.assert_allclose(seen["z"], X @ W)
    np.testing.assert_allclose(jax.vmap(run, (None, 0))(W, X[:, None])[1]["z"], (X @ W)[:, None])


def test_a_name_that_comes_again_gets_its_occurrence_also_in_a_scan():
    def f(x):
        return jax.lax.scan(lambda c, r: (checkpoint_name(c + r, "c"), None), jnp.zeros(3), x)[
            0
        ].sum()

    _, seen, cotangents = jg.capture(f, cotangents=True)(X)
    assert list(seen) == ["c", "c#1"]
    np.testing.assert_allclose(seen["c#1"], X.sum(0))
    np.testing.assert_allclose(cotangents["c"], np.ones(3))


def test_scopes_are_seen_where_their_value_leaves_them():
    def block(x, w):
        with jax.named_scope("block"):
            with jax.named_scope("linear"):
                x = x @ w + 1
            return jnp.tanh(x)

    def f(x):
        return jax.jit(block)(block(x, jnp.eye(3)), jnp.ones((3, 3))).sum()

    _, seen, _ = jg.capture(f, cotangents=True)(X)
    assert set(seen) == {"block/linear", "block", "block/linear#1", "block#1"}
    np.testing.assert_allclose(seen["block/linear"], X + 1)
    np.testing.assert_allclose(
        seen["block#1"], jnp.tanh(jnp.tanh(X + 1) @ jnp.ones((3, 3)) + 1), rtol=1e-6
    )
    assert jg.capture(f, scopes=False)(X)[1] == {}


def test_a_rule_of_its_own_is_kept_and_taps_inside_are_seen_forward_alone():
    @jax.custom_vjp
    def f(x):
        return checkpoint_name(x * 2, "inner")

    f.defvjp(lambda x: (f(x), None), lambda _, c: (c * 7,))

    def whole(x):
        return f(checkpoint_name(x, "outer")).sum()

    _, seen, cotangents = jg.capture(whole, cotangents=True)(X)
    np.testing.assert_allclose(seen["inner"], X * 2)
    np.testing.assert_allclose(cotangents["outer"], 7 * np.ones_like(X))
    assert "inner" not in cotangents


def test_whole_numbers_are_captured_and_have_no_cotangent():
    def f(x):
        return x[checkpoint_name(jnp.argmax(x[:, 0]), "i")].sum()

    _, seen, cotangents = jg.capture(f, cotangents=True)(X)
    assert seen["i"] == 1 and cotangents == {}


def test_what_is_not_an_array_is_passed_through():
    _, seen = jg.capture(lambda f, x: checkpoint_name(f(x), "y"))(jnp.sin, X)
    np.testing.assert_allclose(seen["y"], jnp.sin(X))


def test_names_that_depend_on_the_data_are_refused():
    def loop(x):
        return jax.lax.while_loop(lambda v: v.sum() < 100, lambda v: checkpoint_name(v * 2, "v"), x)

    def branch(x):
        return jax.lax.cond(x.sum() > 0, lambda v: checkpoint_name(v, "up"), lambda v: -v, x)

    with pytest.raises(UnsupportedError, match="holds the name 'v'"):
        jg.capture(loop)(X)
    assert "up" in jg.capture(branch)(X)[1], "the branch taken is known"
    with pytest.raises(UnsupportedError, match="holds the name 'up'"):
        jax.jit(jg.capture(branch))(X)
