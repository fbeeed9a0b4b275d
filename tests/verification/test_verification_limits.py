"""Rare masks, data far from zero, and options of the wrong kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxgrad import Derivation, Verdict, certify, masks, verify


def batch_norm(x):
    return (x - x.mean(0)) * lax.rsqrt(x.var(0) + 1e-5)


def batch_norm_vjp(x, ct):
    z = batch_norm(x)
    return {"x": lax.rsqrt(x.var(0) + 1e-5) * (ct - ct.mean(0) - z * (ct * z).mean(0))}


square = Derivation(
    name="square", loss=lambda x: jnp.sum(x**2), gradient=lambda x: {"x": 2 * x}, shapes={"x": "n"}
)


def test_sampling_confirms_nothing_about_what_it_never_drew():
    claim = Derivation(
        name="rare",
        loss=lambda x, mask: 1e6 * jnp.sum(mask * x) + jnp.sum(x**2),
        gradient=lambda x, mask: {"x": 2 * x},
        shapes={"x": "m n", "mask": "m n"},
        mask=masks.Bernoulli(1e-6),
    )
    report = verify(claim, evidence="monte_carlo", max_samples=2**14)
    assert report.verdict == Verdict.UNDECIDED
    assert "too seldom" in report.findings[0].detail


@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_a_right_gradient_is_not_refuted_at_data_far_from_zero(offset):
    claim = Derivation.from_vjp("batch norm", batch_norm, batch_norm_vjp, {"x": "m n"})
    data = offset + np.random.default_rng(0).standard_normal((5, 3))
    assert verify(claim, inputs={"x": data}).verdict == Verdict.CONFIRMED


@pytest.mark.parametrize("option", [{"inputs": [1.0]}, {"sizes": [3]}, {"seed": 2**70}], ids=str)
def test_options_of_the_wrong_kind_are_refused_by_name(option):
    with pytest.raises((TypeError, ValueError), match=f"`{next(iter(option))}` must be"):
        verify(square, **option)


@pytest.mark.parametrize("seed", [-1, "a", 1.5])
def test_certify_refuses_a_seed_that_is_none(seed):
    with pytest.raises(ValueError, match="`seed` must be"):
        certify(lambda x: x, lambda x: x, np.ones(3), seed=seed)


@pytest.mark.parametrize("prob", [1e-6, 1e-4, 1 - 1e-6])
def test_sampling_refutes_nothing_that_hangs_on_what_was_never_drawn(prob):
    claim = Derivation(
        name="rare",
        loss=lambda x, w, mask: jnp.sum(mask * x * w**2),
        gradient=lambda x, w, mask: {"w": 2 * mask.mean(3) * x.sum(0) * w},
        shapes={"x": "m 3", "w": "3", "mask": "m 3"},
        mask=masks.Bernoulli(prob),
    )
    report = verify(claim, evidence=["monte_carlo", "expectation"])
    found = {finding.evidence: finding.verdict for finding in report.findings}
    assert found == {"monte_carlo": Verdict.UNDECIDED, "expectation": Verdict.CONFIRMED}


def jointly_rare(claimed_share, columns=2):
    """A gradient that is carried by entries dropped together, with probability 1e-6, and by the
    data.
    """

    def loss(w, mask):
        return jnp.sum(w) + 1e7 * jnp.sum(jnp.prod(1 - mask[:, :columns], axis=1)) * jnp.sum(w)

    def gradient(w, mask):
        keep = mask.mean(4)
        return {"w": jnp.ones(w.shape) * (1 + claimed_share * 1e7 * jnp.prod(1 - keep[:columns]))}

    return Derivation(
        name="jointly rare",
        loss=loss,
        gradient=gradient,
        shapes={"w": "4", "mask": "1 4"},
        mask=masks.Bernoulli(0.999),
    )


@pytest.mark.parametrize("claimed_share", [0.0, 1.0])
@pytest.mark.parametrize("columns", [2, 4])
def test_entries_that_seldom_fall_together_are_neither_confirmed_away_nor_held_against_a_claim(
    claimed_share, columns
):
    finding = verify(
        jointly_rare(claimed_share, columns), evidence="monte_carlo", max_samples=2**17
    ).findings[0]
    assert finding.verdict == Verdict.UNDECIDED
    # all four are dropped once in 1e12 draws, which is far below the resolution; but the samples,
    # which are all the same, cannot tell
    assert (
        "fall together with a probability of" if columns == 2 else "may never have been drawn"
    ) in finding.detail


@jax.custom_vjp
def steep(x):
    return jnp.tanh(x)


steep.defvjp(lambda x: (jnp.tanh(x), x), lambda x, ct: (1.5 * ct * (1 - jnp.tanh(x) ** 2),))


def half(x):
    return x.astype(jnp.bfloat16)


def odd(mask):
    return (1 - jnp.cos(jnp.pi * jnp.sum(mask))) / 2


RULES_THAT_DIFFERENCES_CANNOT_CHECK = {
    "a loss in bfloat16": Derivation(
        name="half precision",
        loss=lambda x: jnp.sum(steep(half(x)).astype(x.dtype)),
        shapes={"x": "n"},
        gradient=lambda x: {"x": (1.5 * (1 - jnp.tanh(half(x)) ** 2)).astype(x.dtype)},
    ),
    "an expectation that is only sampled": Derivation(
        name="odd masks",
        loss=lambda w, mask: jnp.sum(steep(w)) * odd(mask),
        shapes={"w": "n", "mask": "3 40"},
        gradient=lambda w, mask: {
            "w": 1.5 * (1 - jnp.tanh(w) ** 2) * (1 - (1 - 2 * mask.mean(40)[0]) ** 120) / 2
        },
        mask=masks.Bernoulli(0.5),
    ),
}


@pytest.mark.parametrize(
    "claim", RULES_THAT_DIFFERENCES_CANNOT_CHECK.values(), ids=RULES_THAT_DIFFERENCES_CANNOT_CHECK
)
def test_a_rule_of_the_losss_own_is_not_taken_on_trust(claim):
    report = verify(claim, resolution=0.1)
    assert report.verdict == Verdict.UNDECIDED
    assert any("which differences do not confirm" in finding.detail for finding in report.findings)


def test_inputs_come_in_the_order_of_shapes():
    def loss(**inputs):
        first, second = inputs.values()
        return jnp.sum(first**2 * second)

    right = Derivation(
        name="in order",
        loss=loss,
        gradient=lambda b, a: {"b": 2 * a * b, "a": b**2},
        shapes={"b": "n", "a": "n"},
    )
    assert verify(right).verdict == Verdict.CONFIRMED
    swapped = Derivation(
        name="swapped",
        loss=loss,
        gradient=lambda b, a: {"b": a**2, "a": 2 * a * b},
        shapes={"b": "n", "a": "n"},
    )
    assert verify(swapped).verdict == Verdict.REFUTED


@jax.custom_jvp
def failing(x):
    return jnp.sin(x)


@failing.defjvp
def failing_rule(primals, tangents):
    raise RuntimeError("no rule yet")


UNDIFFERENTIABLE = {
    "a rule that raises": (
        failing,
        r"the differentiation rule in `loss` of c raised RuntimeError: no rule yet \(.*in "
        r"failing_rule\)",
    ),
    "a loop": (
        lambda x: lax.while_loop(lambda s: s[1] < 3, lambda s: (2 * s[0], s[1] + 1), (x, 0))[0],
        "`loss` of c cannot be differentiated by JAX: .*while_loop",
    ),
}


@pytest.mark.parametrize(("function", "message"), UNDIFFERENTIABLE.values(), ids=UNDIFFERENTIABLE)
def test_a_loss_that_cannot_be_differentiated_is_told_so(function, message):
    claim = Derivation(
        name="c",
        loss=lambda x: jnp.sum(function(x)),
        gradient=lambda x: {"x": x},
        shapes={"x": "n"},
    )
    with pytest.raises(ValueError, match=message):
        verify(claim, evidence="autodiff")


@pytest.mark.parametrize("size", [1e200, 1e308])
def test_a_proof_confirms_nothing_at_data_where_the_loss_is_not_finite(size):
    report = verify(square, inputs={"x": np.array([size, -size])})
    assert report.verdict == Verdict.UNDECIDED
    assert any("not finite at the given data" in finding.detail for finding in report.findings)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e-200, 1e-320, 1e200])
def test_data_whose_squares_leave_the_range_of_numbers_raise_no_warning(size):
    wrong = Derivation(
        name="c", loss=lambda x: jnp.sum(x**2), gradient=lambda x: {"x": 3 * x}, shapes={"x": "n"}
    )
    assert verify(wrong, inputs={"x": np.array([size, 2 * size])}).verdict != Verdict.CONFIRMED


def at_the_largest(value):
    return lambda x: jnp.where(x == x.max(), value, 0.0)


@pytest.mark.parametrize(
    ("loss", "gradient", "data", "verdict"),
    [
        (lambda x: jnp.max(x), at_the_largest(5.0), [1.0, 1.0, 0.5], Verdict.REFUTED),
        (lambda x: jnp.max(x), at_the_largest(1.0), [1.0, 1.0, 0.5], Verdict.CONFIRMED),
        (
            lambda x: jnp.max(x),
            lambda x: at_the_largest(1.0)(x) / (x == x.max()).sum(),
            [1.0, 1.0, 0.5],
            Verdict.CONFIRMED,
        ),
        (
            lambda x: jnp.sum(jnp.clip(x, -1, 1)),
            lambda x: jnp.where(jnp.abs(x) < 1, 1.0, 3.0 * (x == 1)),
            [1.0, 0.3, -2.0],
            Verdict.REFUTED,
        ),
        (
            lambda x: jnp.sum(jnp.clip(x, -1, 1)),
            lambda x: 1.0 * (jnp.abs(x) <= 1),
            [1.0, 0.3, -2.0],
            Verdict.CONFIRMED,
        ),
        (
            lambda x: jnp.sum(x**2),
            lambda x: jnp.where(x == 1, 5.0, 2 * x),
            [1.0, 0.3, -2.0],
            Verdict.REFUTED,
        ),
    ],
)
def test_what_is_wrong_exactly_at_the_data_is_refuted_and_no_proof_stands_against_it(
    loss, gradient, data, verdict
):
    claim = Derivation(
        name="at data", loss=loss, gradient=lambda x: {"x": gradient(x)}, shapes={"x": "n"}
    )
    assert verify(claim, inputs={"x": np.array(data)}).verdict == verdict
    alone = verify(claim, inputs={"x": np.array(data)}, evidence="certificate")
    assert (alone.verdict == Verdict.CONFIRMED) == (verdict == Verdict.CONFIRMED), str(alone)


@pytest.mark.parametrize("domain", ["binary", "probability", "positive"])
def test_no_proof_refutes_what_is_right_on_the_domain(domain):
    def loss(x, b):
        return jnp.sum(jnp.where(b > 0, x, 0.0) ** 2 + jnp.abs(b))

    factor = {"binary": lambda b: b, "probability": lambda b: b >= 0, "positive": lambda b: 1}[
        domain
    ]
    claim = Derivation(
        name="gate",
        loss=loss,
        gradient=lambda x, b: {"x": 2 * x * factor(b)},
        shapes={"x": "n", "b": "n"},
        domains={"b": domain},
    )
    assert verify(claim).verdict == Verdict.CONFIRMED


@pytest.mark.parametrize(
    ("loss", "gradient", "verdict"),
    [
        (lambda q, r: jnp.linalg.det(q), lambda q, r: {"q": q}, Verdict.REFUTED),
        (
            lambda q, r: jnp.linalg.det(q),
            lambda q, r: {"q": jnp.linalg.det(q) * q},
            Verdict.CONFIRMED,
        ),
        (lambda q, r: jnp.linalg.det(q @ r), lambda q, r: {"q": q}, Verdict.REFUTED),
        (lambda q, r: jnp.trace(q @ r), lambda q, r: {"q": (1 + 1e-7) * r.T}, Verdict.REFUTED),
        (
            lambda q, r: jnp.sum((q @ r) ** 3),
            lambda q, r: {"q": 3 * (q @ r) ** 2 @ r.T},
            Verdict.CONFIRMED,
        ),
    ],
)
def test_a_proof_for_orthogonal_matrices_speaks_of_reflections_too(loss, gradient, verdict):
    domains = {"q": "orthogonal", "r": "orthogonal"}
    claim = Derivation(
        name="orthogonal",
        loss=loss,
        gradient=gradient,
        shapes={"q": "n n", "r": "n n"},
        domains=domains,
    )
    assert verify(claim, evidence="certificate").verdict == verdict


def test_probabilities_near_their_ends_are_drawn():
    claim = Derivation(
        name="c",
        loss=lambda p: jnp.sum(p**2),
        gradient=lambda p: {"p": jnp.where(p < 0.04, 2.02 * p, 2 * p)},
        shapes={"p": "n"},
        domains={"p": "probability"},
    )
    assert verify(claim, evidence="autodiff").verdict == Verdict.REFUTED
