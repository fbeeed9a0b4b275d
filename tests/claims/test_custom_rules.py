"""Functions with differentiation rules of their own, against the plain ones: value, VJP, vmap, jit,
second order.
"""

import jax
import jax.numpy as jnp
import pytest

import jaxgrad as jg
from jaxgrad import Derivation, Verdict


def plain(x):
    return jnp.log1p(jnp.exp(x))


def softplus(backward, forward=plain):
    @jax.custom_vjp
    def softplus(x):
        return plain(x)

    softplus.defvjp(lambda x: (forward(x), x), lambda x, ct: (backward(x, ct),))
    return softplus


def verdicts(f, shapes=None, function=plain, **options):
    evidence = options.pop("evidence", ("autodiff", "differences"))
    return jg.verify(
        Derivation.from_custom_vjp(f, function, shapes or {"x": "n"}, **options), evidence=evidence
    ).by_input


def test_a_right_rule_is_confirmed_under_jit_vmap_and_at_second_order():
    found = verdicts(softplus(lambda x, ct: ct * jax.nn.sigmoid(x)))
    assert found == dict.fromkeys(
        ("x", "cotangent", "x_batch", "cotangent_batch", "x_twice"), Verdict.CONFIRMED
    )


def test_a_right_rule_is_proved():
    @jax.custom_vjp
    def cube(x):
        return x**3

    cube.defvjp(lambda x: (x**3, x), lambda x, ct: (3 * x**2 * ct,))
    report = jg.verify(
        Derivation.from_custom_vjp(cube, lambda x: x**3, {"x": "m n"}), evidence="certificate"
    )
    report.assert_confirmed()


def test_a_wrong_rule_is_refuted_and_diagnosed_everywhere_it_shows():
    claim = Derivation.from_custom_vjp(
        softplus(lambda x, ct: ct * ct * jax.nn.sigmoid(x)), plain, {"x": "n"}
    )
    report = jg.verify(claim, evidence="autodiff")
    assert (
        report.by_input["x"]
        == report.by_input["x_batch"]
        == report.by_input["x_twice"]
        == Verdict.REFUTED
    )
    assert report.by_input["cotangent"] == Verdict.CONFIRMED
    assert "uses cotangent² in place of cotangent" in next(
        f.diagnosis for f in report.findings if f.wrt == "x"
    )


def test_a_value_that_the_forward_rule_gets_wrong_is_refuted():
    found = verdicts(
        softplus(lambda x, ct: ct * jax.nn.sigmoid(x), forward=lambda x: plain(x) + 1e-3)
    )
    assert found["cotangent"] == Verdict.REFUTED
    assert found["x"] == Verdict.CONFIRMED


def test_a_rule_that_is_right_at_first_order_alone_is_refuted_at_second_alone():
    found = verdicts(softplus(lambda x, ct: ct * jax.lax.stop_gradient(jax.nn.sigmoid(x))))
    assert found["x"] == Verdict.CONFIRMED
    assert found["x_twice"] == Verdict.REFUTED


def test_second_order_can_be_left_out():
    found = verdicts(
        softplus(lambda x, ct: ct * jax.lax.stop_gradient(jax.nn.sigmoid(x))), second_order=False
    )
    assert set(found.values()) == {Verdict.CONFIRMED}


def test_a_wrong_custom_jvp_is_refuted():
    @jax.custom_jvp
    def f(x):
        return jnp.sin(x)

    f.defjvp(
        lambda primals, tangents: (jnp.sin(primals[0]), tangents[0] * jnp.cos(primals[0]) * 1.5)
    )
    assert verdicts(f, function=jnp.sin)["x"] == Verdict.REFUTED


def test_parameters_may_be_a_tree_and_so_may_the_output():
    def layer(params, x):
        return {"out": jnp.tanh(x @ params["w"] + params["b"])}

    @jax.custom_vjp
    def rule(params, x):
        return layer(params, x)

    def forward(params, x):
        out = layer(params, x)
        return out, (params, x, out["out"])

    def backward(residuals, ct):
        params, x, out = residuals
        d = ct["out"] * (1 - out**2)
        return {"w": x.T @ d, "b": d.sum(0)}, d @ params["w"].T

    rule.defvjp(forward, backward)
    found = verdicts(
        rule, {"params": {"w": "n p", "b": "p"}, "x": "m n"}, layer, evidence="autodiff"
    )
    assert set(found.values()) == {Verdict.CONFIRMED}
    assert "params['w']_twice" not in found
    assert {"params['w']", "params_batch['w']", "params_twice['b']", "cotangent['out']"} <= set(
        found
    )


def test_integers_are_not_differentiated():
    @jax.custom_jvp
    def take(x, i):
        return x[i] * 2

    take.defjvp(lambda primals, tangents: (primals[0][primals[1]] * 2, tangents[0][primals[1]] * 2))
    claim = Derivation.from_custom_vjp(
        take,
        lambda x, i: x[i] * 2,
        {"x": "9", "i": "m"},
        cotangent="m",
        domains={"i": "integer"},
        second_order=False,
    )
    assert set(jg.verify(claim, evidence="autodiff").by_input.values()) == {Verdict.CONFIRMED}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: Derivation.from_custom_vjp(3, plain, {"x": "n"}),
            TypeError,
            "`f` must be a function",
        ),
        (
            lambda: Derivation.from_custom_vjp(plain, None, {"x": "n"}),
            TypeError,
            "`plain` must be a function",
        ),
        (
            lambda: Derivation.from_custom_vjp(plain, plain, {"cotangent": "n"}),
            ValueError,
            "must not name inputs 'cotangent'",
        ),
        (
            lambda: Derivation.from_custom_vjp(
                plain, lambda x: jnp.zeros(x.size**2 + 1), {"x": "n"}
            ),
            ValueError,
            "pass the dimension",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()
