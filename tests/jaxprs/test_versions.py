"""What differs between JAX's releases: claims that meet operations that only some of them have."""

import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

import jaxgrad as jg
from jaxgrad.jaxprs.degrees import degree
from jaxgrad.jaxprs.numpy_run import floating
from jaxgrad.jaxprs.programs import equations
from jaxgrad.jaxprs.versions import (
    OLDEST,
    enable_x64,
    jaxprs_in_params,
    opened,
    replaced,
    scan_counts,
)

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[2]


def polynomial(a, x):
    return jnp.sum(jnp.polyval(a, x))


def polynomial_gradient(a, x):
    powers = [jnp.sum(x**2), jnp.sum(x), jnp.asarray(x.size, x.dtype)]
    return {"a": jnp.stack(powers), "x": 2 * a[0] * x + a[1]}


CLAIMS = {
    "tanh": (lambda x: jnp.sum(jnp.tanh(x)), lambda x: {"x": 1 - jnp.tanh(x) ** 2}, {"x": "n"}),
    "log2": (
        lambda x: jnp.sum(jnp.log2(x)),
        lambda x: {"x": 1 / (x * jnp.log(jnp.asarray(2.0, x.dtype)))},
        {"x": "n"},
    ),
    "polyval": (polynomial, polynomial_gradient, {"a": "3", "x": "n"}),
}


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize("factor", [1, 1 + 1e-9, 2])
def test_functions_that_are_other_operations_elsewhere_are_judged_by_all_evidence(name, factor):
    loss, gradient, shapes = CLAIMS[name]
    claim = jg.Derivation(
        name=name,
        loss=loss,
        gradient=lambda **inputs: {k: factor * g for k, g in gradient(**inputs).items()},
        shapes=shapes,
        domains={"x": "positive"} if name == "log2" else {},
    )
    report = jg.verify(claim)
    proofs = {f.verdict for f in report.findings if f.evidence == "certificate"}
    assert report.verdict == ("confirmed" if factor == 1 else "refuted"), report
    assert proofs == {"confirmed"} if factor == 1 else "confirmed" not in proofs, report


@pytest.mark.parametrize("name", CLAIMS)
def test_the_operations_run_in_numpy_as_in_jax(name):
    loss, _, shapes = CLAIMS[name]
    args = [np.linspace(0.2, 0.9, 3) for _ in shapes]
    with enable_x64(True):
        program = jax.make_jaxpr(jax.grad(loss))(*args)
        found = floating(program, args)
        assert found is not None
        np.testing.assert_allclose(found[0], jax.grad(loss)(*args), rtol=1e-14)


def test_the_degree_of_a_polynomial_is_found_in_its_argument_and_in_its_coefficients():
    a, x = jnp.ones(4), jnp.ones(2)
    assert degree(jnp.polyval, a, x, argnums=1).numerator in (3, 4)  # a bound: 4 of 0·x + a
    assert degree(jnp.polyval, a, x, argnums=0).numerator == 1
    assert degree(jnp.polyval, a, x, argnums=(0, 1)).numerator == 4
    square = lambda x: jnp.tanh(1.0) * (1 - x * x)
    assert degree(square, x).numerator == 2


def test_a_product_in_a_wider_type_is_wide_in_numpy_too():
    small = np.asarray([100, -128], np.int8)
    try:
        program = jax.make_jaxpr(lambda x: jax.lax.mul(x, x, out_dtype=np.int32))(small)
    except TypeError:  # this JAX knows no such products
        program = jax.make_jaxpr(lambda x: jax.lax.mul(x.astype(np.int32), x.astype(np.int32)))(
            small
        )
    (found,) = floating(program, [small]) or [None]
    assert found.dtype == np.int32
    assert found.tolist() == [10000, 16384]


def scanned(c, d, x, y, rows):
    def step(carry, row):
        a, b = carry
        return (a * c + row, b * d), (a, row)

    return jax.lax.scan(step, (x, y), rows)


@pytest.mark.parametrize("differentiated", [False, True])
def test_constants_and_carried_values_of_a_scan_are_told_apart(differentiated):
    def function(*args):
        return scanned(*args)[0][0]

    args = (1.5, 2.5, 0.5, 0.25, np.arange(3.0, dtype=np.float32))
    traced = jax.grad(function, argnums=2) if differentiated else scanned
    program = jax.make_jaxpr(traced)(*args)
    scans = [e for e in equations(program.jaxpr) if e.primitive.name == "scan"]
    counts = [scan_counts(e.params) for e in scans]
    assert len(counts) == 1 + differentiated
    if not differentiated:
        assert counts == [(2, 2)]
    for eqn, (fixed, carried) in zip(scans, counts, strict=True):
        body, _ = opened(eqn.params["jaxpr"])
        shapes = [v.aval.shape for v in body.invars]
        assert [v.aval.shape for v in eqn.invars[: fixed + carried]] == shapes[: fixed + carried]
        rows = eqn.invars[fixed + carried :]
        assert [v.aval.shape[1:] for v in rows] == shapes[fixed + carried :]
        assert all(v.aval.shape[:1] == (3,) for v in rows)
    (found, *_) = floating(program, [np.asarray(x, np.float32) for x in args]) or [None]
    expected = jax.tree.leaves(traced(*args))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_programs_in_parameters_are_found_wherever_they_stand():
    def function(x):
        y = jax.lax.cond(x > 0, lambda x: x + 1, lambda x: x - 1, x)
        return jax.lax.while_loop(lambda y: y < 3, lambda y: y * 2, y)

    program = jax.make_jaxpr(function)(1.0)
    counts = {e.primitive.name: len([*jaxprs_in_params(e.params)]) for e in program.jaxpr.eqns}
    assert counts["cond"] == counts["while"] == 2
    assert sum(counts.values()) == 4


def test_a_program_whose_arguments_are_replaced_runs():
    weights = np.asarray([2.0, 3.0], np.float32)
    closed = jax.make_jaxpr(lambda x: weights * x)(weights)
    jaxpr, consts = opened(closed)
    free = replaced(jaxpr, constvars=[], invars=[*jaxpr.constvars, *jaxpr.invars])
    assert opened(free)[0].invars == [*jaxpr.constvars, *jaxpr.invars]
    assert not len(opened(free)[1])
    outputs = core.jaxpr_as_fun(core.ClosedJaxpr(free, ()))(*consts, weights)
    assert outputs[0].tolist() == [4.0, 9.0]
    again = replaced(free, outvars=[*free.outvars, free.invars[0]])
    assert len(core.jaxpr_as_fun(core.ClosedJaxpr(again, ()))(*consts, weights)) == 2


@pytest.mark.parametrize("double", [True, False])
def test_float64_comes_and_goes_with_the_context(double):
    before = jnp.ones(1).dtype
    with enable_x64(double):
        assert jnp.ones(1).dtype == (np.float64 if double else np.float32)
    assert jnp.ones(1).dtype == before


def test_the_oldest_release_is_the_one_that_the_package_asks_for():
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"jax>={OLDEST}" in requirements
    assert f"jaxlib>={OLDEST}" in requirements
    assert tuple(map(int, OLDEST.split("."))) <= jax.__version_info__
