"""The canary tells the precision in force from the one that is claimed, on both sides of the
bound.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad.parity import canary


def rounded(bits):
    """A product whose operands are rounded to some bits; float32's own where these are all."""
    if bits == 24:
        return lambda a, b: a @ b

    def cut(x):
        mantissa, exponent = np.frexp(x.astype(np.float64))
        return np.ldexp(np.round(mantissa * 2.0**bits) / 2.0**bits, exponent)

    return lambda a, b: cut(a) @ cut(b)


@pytest.mark.parametrize(("claimed", "bits"), [("float32", 24), ("tf32", 11), ("bfloat16", 8)])
def test_each_precision_is_recognised_and_no_other_is_taken_for_it(claimed, bits):
    assert canary(rounded(bits), claimed=claimed).in_force
    for other in {24, 11, 8} - {bits}:
        assert not canary(rounded(other), claimed=claimed).in_force


def test_what_is_too_right_is_not_in_force_either():
    found = canary(lambda a, b: a.astype(np.float64) @ b, claimed="float32")
    assert found.found == "float64" and "NOT in force" in str(found)


def test_jax_on_this_machine_multiplies_as_claimed():
    with jax.default_matmul_precision("highest"):
        assert canary().in_force
    assert canary(claimed="float64").in_force
    low = canary(
        lambda a, b: jnp.matmul(jnp.asarray(a, jnp.bfloat16), jnp.asarray(b, jnp.bfloat16)).astype(
            jnp.float32
        )
    )
    assert low.found == "bfloat16"


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match="`claimed` is 'half'; it is one of float64"):
        canary(claimed="half")
