"""Sine, cosine and tangent as rotations: their laws are proved, and nothing that is not one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad import certify
from jaxgrad.evidence.certificates.fields.rotations import PRIMES, Rotations
from jaxgrad.evidence.certificates.fields.search import Search
from jaxgrad.jaxprs.cost import Meter
from jaxgrad.jaxprs.joint import trace
from jaxgrad.reports.finding import Verdict

v = np.ones(3)
sin, cos, tan = jnp.sin, jnp.cos, jnp.tan

EQUAL = {
    "double angle": (lambda x: sin(2 * x), lambda x: 2 * sin(x) * cos(x)),
    "half angle": (lambda x: sin(x), lambda x: 2 * sin(x / 2) * cos(x / 2)),
    "squares": (lambda x: cos(2 * x), lambda x: 1 - 2 * sin(x) ** 2),
    "sum of angles": (lambda x: sin(x + x[0]), lambda x: sin(x) * cos(x[0]) + cos(x) * sin(x[0])),
    "triple angle": (lambda x: sin(3 * x), lambda x: 3 * sin(x) - 4 * sin(x) ** 3),
    "tangent": (lambda x: tan(2 * x), lambda x: 2 * tan(x) / (1 - tan(x) ** 2)),
    "gradient": (jax.grad(lambda x: jnp.sum(sin(x) ** 2)), lambda x: sin(2 * x)),
    "beside exp": (
        jax.grad(lambda x: jnp.sum(jnp.exp(x) * sin(x) ** 2)),
        lambda x: jnp.exp(x) * (sin(x) ** 2 + sin(2 * x)),
    ),
    "under relu": (
        lambda x: jnp.maximum(sin(2 * x), 0),
        lambda x: 2 * jnp.maximum(sin(x) * cos(x), 0),
    ),
    "product": (
        lambda x: sin(x[0]) * sin(x[1]),
        lambda x: (cos(x[0] - x[1]) - cos(x[0] + x[1])) / 2,
    ),
    "nested": (lambda x: sin(2 * sin(x)), lambda x: 2 * sin(sin(x)) * cos(sin(x))),
    "beside a root": (
        lambda x: sin(2 * x) / jnp.sqrt(x**2 + 1),
        lambda x: 2 * sin(x) * cos(x) / jnp.sqrt(1 + x**2),
    ),
}

UNEQUAL = {
    "a small term": (lambda x: sin(2 * x), lambda x: 2 * sin(x) * cos(x) + 1e-9 * x),
    "no cosine": (lambda x: sin(2 * x), lambda x: 2 * sin(x)),
    "sine for cosine": (lambda x: cos(x) ** 2 - sin(x) ** 2, lambda x: sin(2 * x)),
    "a sign": (lambda x: sin(x + x[0]), lambda x: sin(x) * cos(x[0]) - cos(x) * sin(x[0])),
    "a factor in the angle": (lambda x: sin(x), lambda x: sin(x * (1 + 1e-9))),
    "of |x|": (lambda x: sin(jnp.abs(x)), lambda x: sin(x)),
    "a root's sign": (lambda x: jnp.sqrt(1 - sin(x) ** 2), lambda x: cos(x)),
    "the order of a rotation": (lambda x: sin(126336923.0 * x), lambda x: 0 * x),
    "twice the order": (lambda x: cos(2 * 125735003.0 * x), lambda x: 1 + 0 * x),
    "a square in the angle": (lambda x: cos(x * x), lambda x: cos(x) ** 2),
    "a series": (lambda x: sin(x), lambda x: x - x**3 / 6 + x**5 / 120),
    "hyperbolic": (jnp.cosh, cos),
    "exp beside": (lambda x: sin(x) * jnp.exp(x), lambda x: sin(2 * x) * jnp.exp(x)),
    "whole numbers": (lambda x: sin(jnp.floor(x)), lambda x: sin(x)),
    "a period that is none": (lambda x: sin(x + 6.25), lambda x: sin(x)),
    "nearly pi": (lambda x: sin(3.14159 * x), lambda x: sin(jnp.pi * x)),
    "far out": (lambda x: sin(jnp.minimum(x, 1e6)), lambda x: sin(x)),
    "products of angles": (lambda x: sin(x[0] * x[1]), lambda x: sin(x[0]) * sin(x[1])),
}


@pytest.mark.parametrize("name", EQUAL)
def test_laws_of_angles_are_proved(name):
    assert certify(*EQUAL[name], v).verdict == Verdict.CONFIRMED


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", UNEQUAL)
def test_what_is_no_law_is_not_proved_in_the_field_alone(name, seed):
    f, g = UNEQUAL[name]
    search = Search(trace(f, g, (v,)), seed, Meter())
    for _ in search.steps():
        pass
    assert not search.done
    assert certify(f, g, v, seed=seed).verdict != Verdict.CONFIRMED


def test_a_shift_by_a_right_angle_is_left_undecided():
    assert certify(lambda x: sin(x + jnp.pi / 2), cos, v).verdict == Verdict.UNDECIDED


def test_rotations_turn_sums_of_angles_into_products_and_have_a_prime_order():
    draws = Rotations(len(PRIMES), 3)
    _, angles = draws.uniform((2, 5))
    cosines, sines = draws.rotation(angles)
    both, turned = draws.rotation(draws.q.reduce(angles[:, 0] + angles[:, 1]))
    p = draws.p
    assert (p.reduce(p.multiply(cosines, cosines) + p.multiply(sines, sines)) == 1).all()
    assert (
        both
        == p.reduce(p.multiply(cosines[:, 0], cosines[:, 1]) - p.multiply(sines[:, 0], sines[:, 1]))
    ).all()
    assert (
        turned
        == p.reduce(p.multiply(cosines[:, 0], sines[:, 1]) + p.multiply(sines[:, 0], cosines[:, 1]))
    ).all()
    last = draws.rotation(draws.q.of[:, None] - 1)
    first = draws.rotation(np.ones_like(draws.q.of)[:, None])
    assert (last[0] == first[0]).all()
    assert (p.reduce(last[1] + first[1]) == 0).all()
