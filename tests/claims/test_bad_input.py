"""What the library's functions say of functions and data that they cannot use: one error with name,
line and remedy.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad.claims.membership import check_domains

v = np.ones(3)
HERE = r"\(.*test_bad_input\.py:\d+, in "


def _branch(x, **_):
    return x if x[0] > 0 else -x


def _numpy(x, **_):
    return np.sin(x)


def _index(x, **_):
    return x[: jnp.argmax(x)]


def _boolean(x, **_):
    return x[x > 0]


def _raises(x, **_):
    return {}["missing"]


def _text(x, **_):
    return {"a": x, "b": "text"}


def _two(x, y, **_):
    return x


BROKEN = {
    "if": (
        _branch,
        r"raised TracerBoolConversionError: .* "
        + HERE
        + r"_branch\); use jax.numpy.where or jax.lax.cond in place of if",
    ),
    "numpy": (
        _numpy,
        r"raised TracerArrayConversionError: .* "
        + HERE
        + r"_numpy\); use jax.numpy in place of numpy",
    ),
    "index": (_index, r"raised .*Error: .* " + HERE + r"_index\)"),
    "boolean": (
        _boolean,
        r"raised NonConcreteBooleanIndexError: .*_boolean\); use jax.numpy.where in place of a "
        r"boolean index",
    ),
    "raise": (_raises, r"raised KeyError: 'missing' " + HERE + r"_raises\)"),
    "text": (
        _text,
        r"returns 'text' at \['b'\], which is no array of numbers; make it return arrays",
    ),
    "arity": (
        _two,
        r"takes \(x, y, \*\*_\), but is called with 1 argument.*: missing a required argument: 'y'",
    ),
}

CALLS = {
    "certify f": ("f", lambda f: jg.certify(f, lambda x: x, v)),
    "certify g": ("g", lambda g: jg.certify(lambda x: x, g, v)),
    "expectation": ("f", lambda f: jg.expectation(f, jg.masks.Bernoulli(0.5), (3,))(v)),
    "estimate": (
        "f",
        lambda f: jg.estimate(f, jg.masks.Bernoulli(0.5), (3,))(jax.random.key(0), v, samples=10),
    ),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", BROKEN)
def test_a_function_that_cannot_be_traced_is_named_with_its_line_and_the_remedy(fault, call):
    function, message = BROKEN[fault]
    role, run = CALLS[call]
    with pytest.raises((TypeError, ValueError), match=f"`{role}` {message}") as caught:
        run(function)
    assert caught.value.__cause__ is not None or fault == "text"


def _claim(**changes):
    usual = {
        "name": "squares",
        "loss": lambda x: jnp.sum(x**2),
        "gradient": lambda x: {"x": 2 * x},
        "shapes": {"x": "n"},
    }
    return jg.Derivation(**(usual | changes))


@pytest.mark.parametrize("role", ["loss", "gradient"])
@pytest.mark.parametrize("fault", ["if", "numpy", "boolean", "raise"])
def test_verify_names_the_function_of_a_claim_that_cannot_be_traced(fault, role):
    function, message = BROKEN[fault]
    with pytest.raises((TypeError, ValueError), match=f"`{role}` of squares {message}") as caught:
        jg.verify(_claim(**{role: function}))
    assert caught.value.__cause__ is not None


def _random(x, **_):
    return jnp.sum(x) + jax.random.normal(jax.random.key(0))


def _printing(x, **_):
    jax.debug.print("{}", x)
    return jnp.sum(x)


def _callback(x, **_):
    return jnp.sum(jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((3,), x.dtype), x))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("function", [_random, _printing, _callback])
def test_random_draws_and_side_effects_are_refused_with_their_line(function, call):
    role, run = CALLS[call]
    with pytest.raises(
        ValueError,
        match=rf"`{role}` (draws random numbers|has a side effect) .*test_bad_input\.py:\d+",
    ):
        run(function)


def test_verify_refuses_a_loss_that_draws():
    with pytest.raises(
        ValueError,
        match=r"`loss` of squares draws random numbers .*test_bad_input\.py:\d+.*make what is "
        r"drawn an argument",
    ):
        jg.verify(_claim(loss=_random))


def test_estimate_lets_a_function_draw_with_a_key_it_is_given():
    run = jg.estimate(
        lambda x, k, mask: jnp.sum(x * mask * jax.random.normal(k, (3,))),
        jg.masks.Bernoulli(0.5),
        (3,),
    )
    assert np.isfinite(run(jax.random.key(0), v, jax.random.key(1), samples=10).mean)


@pytest.mark.parametrize("role", ["f", "g"])
def test_a_loop_without_static_length_is_refused_by_its_function(role):
    def loop(x):
        return jax.lax.while_loop(lambda s: jnp.sum(s) < 9, lambda s: 2 * s, x)

    functions = {"f": lambda x: x, "g": lambda x: x} | {role: loop}
    with pytest.raises(
        ValueError,
        match=rf"`{role}` loops for a time that depends on the data: `while` at "
        rf".*test_bad_input\.py:\d+",
    ):
        jg.certify(functions["f"], functions["g"], v)


def test_a_loss_with_a_loop_that_cannot_be_differentiated_is_named():
    with pytest.raises(
        ValueError,
        match=r"`loss` of squares cannot be differentiated by JAX: ValueError: Reverse-mode",
    ):
        jg.verify(
            _claim(
                loss=lambda x: jax.lax.while_loop(lambda s: s < 9.0, lambda s: s * 2, jnp.sum(x))
            )
        )


OPTIONS = {
    "evidence": (3, TypeError, "`evidence` must be a name or a sequence of names"),
    "progress": (3, TypeError, "`progress` must be a function"),
    "seed": (True, ValueError, "`seed` must be an integer"),
    "inputs": ({"x": [[1.0, 2.0], [3.0]]}, ValueError, "`inputs`: 'x' is ragged"),
    "sizes": (3, TypeError, "`sizes` must be a mapping"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_verify_names_the_option_it_cannot_use(name):
    value, kind, message = OPTIONS[name]
    with pytest.raises(kind, match=re.escape(message)):
        jg.verify(_claim(), **{name: value})


def test_certify_takes_no_truth_value_for_a_seed():
    with pytest.raises(ValueError, match="`seed` must be an integer"):
        jg.certify(lambda x: x, lambda x: x, v, seed=True)


@pytest.mark.parametrize(
    "arguments",
    [
        (3, jg.masks.Bernoulli(0.5), (3,)),
        (_two, 3, (3,)),
        (_two, jg.masks.Bernoulli(0.5), (3, "a")),
    ],
)
def test_estimate_and_expectation_name_the_argument_they_cannot_use(arguments):
    for function in (jg.estimate, jg.expectation):
        with pytest.raises(TypeError, match=r"`(f|mask|shape)` must be"):
            function(*arguments)


@pytest.mark.parametrize(
    ("argnums", "arguments", "function", "message"),
    [
        (
            1,
            (v,),
            lambda x, mask: jnp.sum(x * mask),
            "`argnums` holds 1, but `f` is called with 1 arguments",
        ),
        (
            "x",
            (v,),
            lambda x, mask: jnp.sum(x * mask),
            "`argnums` must be the number of an argument",
        ),
        (
            (),
            (v,),
            lambda x, mask: jnp.sum(x * mask),
            "`argnums` must be the number of an argument",
        ),
        (
            0,
            (np.arange(3),),
            lambda x, mask: jnp.sum(x * mask),
            "`argnums` holds 0, but that argument holds int",
        ),
        (
            (0, 0),
            (v,),
            lambda x, mask: jnp.sum(x * mask),
            r"`argnums` \(0, 0\) names an argument twice",
        ),
        (
            (0, -2),
            (v, v),
            lambda x, y, mask: jnp.sum(x * mask),
            r"`argnums` \(0, -2\) names an argument twice",
        ),
        (
            0,
            (v,),
            lambda x, mask: 3,
            "`f` must return a floating-point number where `argnums` is given, but returns int",
        ),
        (
            0,
            (v,),
            lambda x, mask: jnp.sum(x * mask) > 0,
            "`f` must return a floating-point number .* returns bool",
        ),
        (
            0,
            (v,),
            lambda x, mask: jnp.sum(x * mask) * 1j,
            "`f` must return a floating-point number .* returns complex",
        ),
        (
            0,
            (v,),
            lambda x, mask: x * mask,
            r"`f` must return one number where `argnums` is given, but returns \(3,\)",
        ),
    ],
)
def test_estimate_names_what_cannot_be_differentiated(argnums, arguments, function, message):
    with pytest.raises((TypeError, ValueError), match=message):
        jg.estimate(function, jg.masks.Bernoulli(0.5), (3,), argnums=argnums)(
            jax.random.key(0), *arguments, samples=10
        )


@pytest.mark.parametrize("nothing", [None, {}, ()])
def test_estimate_wants_a_function_that_returns_something(nothing):
    with pytest.raises(TypeError, match=r"`f` returns .*, which holds no array"):
        jg.estimate(lambda x, mask: nothing, jg.masks.Bernoulli(0.5), (3,))(
            jax.random.key(0), v, samples=10
        )


@pytest.mark.parametrize(
    "wrong", ["hi", object(), jnp.sin, np.array(["a"]), b"q", [1.0, {"a": "x"}]]
)
def test_estimate_names_the_argument_that_holds_no_numbers(wrong):
    run = jg.estimate(lambda x, y, mask: jnp.sum(x * mask), jg.masks.Bernoulli(0.5), (3,))
    with pytest.raises(TypeError, match=r"argument 1 of `f` holds .* which is no array of numbers"):
        run(jax.random.key(0), v, wrong, samples=10)


@pytest.mark.parametrize(
    "key", [True, np.zeros(5, np.uint32), jax.random.split(jax.random.key(0)), [jax.random.key(0)]]
)
def test_estimate_wants_one_key(key):
    with pytest.raises(TypeError, match=r"`key` must be one key such as jax\.random\.key"):
        jg.estimate(lambda x, mask: jnp.sum(x * mask), jg.masks.Bernoulli(0.5), (3,))(
            key, v, samples=10
        )


HIDDEN = jnp.zeros(3)  # of JAX's default precision


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            lambda x: jax.lax.scan(lambda c, t: (jnp.tanh(c + t), None), HIDDEN, x)[0].sum(),
            r"equal types.*traced in float64 here: give arrays",
        ),
        (
            lambda x: jax.lax.cond(x[0, 0] > 0, lambda: HIDDEN, lambda: x[0]).sum(),
            "equal output types.*close over numpy arrays",
        ),
        (
            lambda x: x[0][x[1]].sum(),
            r"Indexer must have integer.*domains=\{'k': 'index n'\} or 'integer'",
        ),
    ],
)
def test_an_array_of_another_type_in_a_loop_branch_or_index_is_told_of_with_the_remedy(
    loss, message
):
    claim = jg.Derivation(name="c", loss=loss, gradient=lambda x: {"x": x}, shapes={"x": "2 3"})
    with pytest.raises(TypeError, match=f"`loss` of c raised TypeError: .*{message}"):
        jg.verify(claim)


def test_a_domain_that_is_no_name_is_refused():
    with pytest.raises(ValueError, match=r"`domains`: \['binary'\] of `x` is unknown"):
        jg.Derivation(
            name="c",
            loss=jnp.sum,
            gradient=lambda x: {"x": x},
            shapes={"x": "n"},
            domains={"x": ["binary"]},
        )


OUTSIDE = {
    "positive": np.array([1.0, 0.0]),
    "probability": np.array([0.5, 1.5]),
    "binary": np.array([0.0, 0.5]),
    "sign": np.array([1.0, 0.0]),
    "one_hot": np.array([[1.0, 0.0], [1.0, 1.0]]),
    "integer": np.array([1.0, 2.5]),
    "index 3": np.array([0, 3]),
    "index 2*k": np.array([0.0, 1.5]),
    "simplex": np.array([0.5, 0.6]),
    "spd": np.array([[1.0, 2.0], [2.0, 1.0]]),
    "orthogonal": np.array([[1.0, 1.0], [0.0, 1.0]]),
}
INSIDE = {
    "positive": np.array([1.0, 1e-30]),
    "probability": np.array([0.0, 1.0]),
    "binary": np.array([0.0, 1.0]),
    "sign": np.array([1, -1]),
    "one_hot": np.array([[1, 0], [0, 1]]),
    "integer": np.array([-1.0, 2.0]),
    "index 3": np.array([0, 2]),
    "index 2*k": np.array([0.0, 3.0]),
    "simplex": np.array([1.0, 0.0], np.float32),
    "spd": np.array([[[2.0, 1.0], [1.0, 2.0]]]),
    "orthogonal": np.array([[0.6, 0.8], [-0.8, 0.6]]),
    "real": np.array([-1.0, 0.0]),
}


@pytest.mark.parametrize("domain", OUTSIDE)
def test_data_outside_of_their_domain_are_refused_by_name(domain):
    with pytest.raises(
        ValueError,
        match=rf'`inputs`: x.* must be .* by its domain "{re.escape(domain)}".*; change the '
        rf"data or `domains`",
    ):
        check_domains({"x": domain}, {"x": OUTSIDE[domain]}, {"k": 2})


@pytest.mark.parametrize("domain", INSIDE)
def test_data_inside_of_their_domain_are_accepted(domain):
    check_domains({"x": domain}, {"x": INSIDE[domain]}, {"k": 2})


def test_verify_refuses_data_outside_of_their_domain():
    claim = _claim(
        loss=lambda x: jnp.sum(jnp.log(x)),
        gradient=lambda x: {"x": 1 / x},
        domains={"x": "positive"},
    )
    with pytest.raises(
        ValueError, match=r"x\[1\] must be greater than 0 by its domain .*, but is -2.0"
    ):
        jg.verify(claim, inputs={"x": np.array([1.0, -2.0])})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"domains": None}, "`domains` must map inputs' names to domains"),
        ({"domains": "real"}, "`domains` must map inputs' names to domains"),
        ({"domains": {"x": lambda: 3}}, r"`domains\['x'\]` of c raised TypeError"),
        (
            {"domains": {"x": lambda key, shape: np.full(shape, "a")}},
            "`domains`: the function for `x` must return real numbers, but returned <U1",
        ),
        ({"shapes": {1: "n"}}, "`shapes` must map names to shapes"),
    ],
)
def test_a_derivation_names_what_is_wrong_with_its_shapes_and_domains(changes, message):
    parts = {
        "loss": lambda x: jnp.sum(x**2),
        "gradient": lambda x: {"x": 2 * x},
        "shapes": {"x": "n"},
    }
    with pytest.raises((TypeError, ValueError), match=message):
        jg.verify(jg.Derivation(name="c", **(parts | changes)))


@pytest.mark.parametrize(
    "prob", [None, 1j, [], [0.5, 0.5], {}, object(), "a", b"1", True, jax.random.key(0)]
)
def test_a_probability_is_a_real_number(prob):
    with pytest.raises(ValueError, match="`prob` must be a number"):
        jg.masks.Bernoulli(prob)


@pytest.mark.parametrize("evidence", [None, "autodiff", "differences"])
def test_a_closed_form_whose_loop_hangs_on_the_data_is_refused_whatever_the_evidence(evidence):
    def root(x):
        return jax.lax.while_loop(
            lambda y: jnp.max(jnp.abs(y**2 - x)) > 1e-5 * jnp.max(x),
            lambda y: (y + x / y) / 2,
            jnp.ones_like(x),
        )

    newton = jg.Derivation(
        name="newton",
        loss=lambda x: 2 / 3 * jnp.sum(x**1.5),
        gradient=lambda x: {"x": root(x)},
        shapes={"x": "n"},
        domains={"x": "positive"},
    )
    with pytest.raises(
        ValueError, match="`gradient` of newton loops for a time that depends on the data"
    ):
        jg.verify(newton, evidence=evidence)
