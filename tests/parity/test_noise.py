"""The noise tape: draws outside of a check, recorded arrays inside, and errors that name what does
not fit.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgrad.parity import noise
from jaxgrad.parity.noise import RecordedDraws


def dropped(x):
    keep = noise("drop", x.shape, lambda shape: jax.random.bernoulli(jax.random.key(0), 0.5, shape))
    return jnp.where(keep, x, 0)


def test_outside_of_a_check_the_noise_is_drawn():
    x = jnp.ones(1000)
    assert 400 < float(dropped(x).sum()) < 600
    with pytest.raises(ValueError, match="`draw` is missing"):
        noise("drop", (3,))


def test_inside_a_check_the_recorded_array_is_handed_out_with_the_draws_dtype():
    recorded = RecordedDraws({"drop": np.array([1.0, 0.0, 1.0])})
    with recorded.replay():
        np.testing.assert_array_equal(dropped(jnp.full(3, 2.0)), [2, 0, 2])
        assert noise("drop", (3,), lambda shape: jnp.ones(shape, bool)).dtype == bool
    recorded.demand_all_used()


def test_a_jitted_function_is_traced_anew_for_recorded_draws_and_afterwards_draws_again():
    run = jax.jit(dropped)
    drawn = run(jnp.ones(3))
    for recorded in ([1.0, 1.0, 0.0], [0.0, 0.0, 1.0]):
        with RecordedDraws({"drop": np.array(recorded)}).replay():
            np.testing.assert_array_equal(run(jnp.ones(3)), recorded)
    np.testing.assert_array_equal(run(jnp.ones(3)), drawn)


def test_what_does_not_fit_is_named():
    recorded = RecordedDraws({"encoder.drop": np.ones(3), "other": np.ones(2)})
    with recorded.replay():
        with pytest.raises(ValueError, match=r"no noise 'drop'; did you mean 'encoder\.drop'"):
            noise("drop", (3,))
        with pytest.raises(ValueError, match=r"shape \(2,\) in torch, and \(3,\) is asked for"):
            noise("other", (3,))
    with pytest.raises(
        ValueError, match=r"torch drew 'encoder\.drop', 'other', but the JAX function never asked"
    ):
        recorded.demand_all_used()
