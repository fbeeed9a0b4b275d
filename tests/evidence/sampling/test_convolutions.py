"""Convolutions with long sums as products: the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend import core

from jaxgrad.evidence.sampling.rewriting.convolutions import are_long, as_products
from jaxgrad.jaxprs.programs import equations

NHWC = ("NHWC", "HWIO", "NHWC")
SAME = {
    "two axes": ((3, 2, 9, 8), (4, 2, 3, 3), {}),
    "channels last": ((3, 9, 8, 2), (3, 3, 2, 4), {"dimension_numbers": NHWC}),
    "mixed orders": ((9, 3, 8, 2), (2, 3, 3, 4), {"dimension_numbers": ("HNWC", "IHWO", "WNCH")}),
    "strides": ((12, 2, 9, 8), (4, 2, 3, 3), {"window_strides": (2, 3)}),
    "dilated kernel": ((3, 2, 12, 11), (4, 2, 3, 3), {"rhs_dilation": (2, 1), "padding": "VALID"}),
    "dilated input": (
        (12, 2, 5, 5),
        (4, 2, 3, 3),
        {"lhs_dilation": (2, 1), "padding": ((1, 2), (0, 1))},
    ),
    "negative padding": ((12, 2, 9, 8), (4, 2, 3, 3), {"padding": ((-1, 2), (0, -2))}),
    "one axis": ((5, 3, 40), (4, 3, 7), {"window_strides": (1,)}),
    "three axes": ((2, 2, 5, 5, 5), (3, 2, 2, 2, 2), {"window_strides": (1, 1, 1)}),
    "a large kernel": ((3, 4, 9, 9), (2, 4, 7, 7), {"padding": "VALID"}),
}


@pytest.mark.parametrize("name", SAME)
def test_values_and_gradients_are_those_of_the_convolution(name):
    x, w, options = SAME[name]
    options = {"window_strides": (1,) * (len(x) - 2), "padding": "SAME", **options}
    rng = np.random.default_rng(0)
    args = [rng.standard_normal(shape).astype(np.float32) for shape in (x, w)]

    def loss(x, w):
        return jnp.sum(
            jnp.tanh(jax.jit(lambda x, w: lax.conv_general_dilated(x, w, **options))(x, w))
        )

    program = jax.make_jaxpr(jax.value_and_grad(loss, (0, 1)))(*args)
    assert are_long(program.jaxpr)
    written = jax.make_jaxpr(lambda *args: as_products(program.jaxpr, program.consts, args))(*args)
    counts = [
        sum(eqn.primitive.name == "conv_general_dilated" for eqn in equations(p.jaxpr))
        for p in (program, written)
    ]
    assert counts[1] < counts[0]
    expected, found = (jax.jit(core.jaxpr_as_fun(p))(*args) for p in (program, written))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


def test_groups_and_large_images_are_left_alone():
    x, w = jnp.ones((2, 4, 30, 30)), jnp.ones((4, 1, 12, 12))
    grouped = jax.make_jaxpr(
        lambda x, w: lax.conv_general_dilated(x, w, (8, 8), "VALID", feature_group_count=4)
    )(x, w)
    large = jax.make_jaxpr(lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "SAME"))(
        x, jnp.ones((2, 4, 12, 12))
    )
    assert not are_long(grouped.jaxpr) and not are_long(large.jaxpr)
