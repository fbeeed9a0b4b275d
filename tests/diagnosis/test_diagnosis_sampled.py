"""Where no exact expectation is known, sampling names the simplest mistakes, and nothing else is
said.
"""

import jax.numpy as jnp
import pytest

import jaxgrad as jg
from jaxgrad import Derivation, Verdict, masks
from tests.diagnosis.test_diagnosis import told


def right(x, w, mask):
    """The gradient of E exp(⟨m∘x, w⟩/8) = Π (1 − p + p exp(x w/8))."""
    p, e = mask.prob, jnp.exp(x * w / 8)
    kept = 1 - p + p * e
    return jnp.prod(kept) * p * e * x / 8 / kept


def product(change, shape="5 6", prob=0.6):
    """A loss in which all entries of the mask meet; of 2³⁰ masks, none can be left out."""
    return Derivation(
        name="product",
        loss=lambda x, w, mask: jnp.exp(jnp.sum(mask * x * w) / 8),
        shapes=dict.fromkeys(("x", "w", "mask"), shape),
        gradient=lambda x, w, mask: {"w": change(right(x, w, mask), x, w, mask)},
        mask=masks.Bernoulli(prob),
    )


MISTAKES = [
    (
        lambda g, x, w, mask: 2 * g,
        "the closed form is 2 times the gradient in w, as far as 65536 samples tell: measured",
    ),
    (lambda g, x, w, mask: -g, "the closed form is minus the gradient in w"),
    (lambda g, x, w, mask: g / mask.prob, "the closed form is 1/p times the gradient in w"),
    (lambda g, x, w, mask: g * (1 - mask.prob), "the closed form is (1−p) times the gradient in w"),
    (lambda g, x, w, mask: g * mask.prob**2, "the closed form is p² times the gradient in w"),
    (
        lambda g, x, w, mask: jnp.exp(0.6 * jnp.sum(x * w) / 8) * 0.6 * x / 8,
        "the closed form for w ignores the variance of the mask: it is the gradient at the mean "
        "mask",
    ),
    (
        lambda g, x, w, mask: jnp.exp(jnp.sum(x * w) / 8) * x / 8,
        "the closed form for w ignores the mask: it is the gradient with every entry kept",
    ),
]


@pytest.mark.parametrize(("change", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
def test_a_simple_mistake_is_named_by_sampling(change, words):
    assert words in told(product(change))["w"].sentence


def test_a_transpose_is_named_by_sampling():
    assert (
        "the closed form is the transpose of the gradient in w, as far as 65536 samples tell"
        in told(product(lambda g, *_: g.T, "5 5"))["w"].sentence
    )


ABSTAIN = [
    ("right", lambda g, x, w, mask: g),
    ("a factor without a name", lambda g, x, w, mask: 1.37 * g),
    ("close to a factor with one", lambda g, x, w, mask: 2.05 * g),
    ("one entry", lambda g, x, w, mask: (2 * g).at[0, 0].multiply(1.5)),
    ("another function", lambda g, x, w, mask: jnp.sin(x)),
]


@pytest.mark.parametrize(("name", "change"), ABSTAIN, ids=[name for name, _ in ABSTAIN])
def test_nothing_is_said_of_what_sampling_does_not_settle(name, change):
    assert told(product(change)) == {}


def test_verify_tells_it():
    report = jg.verify(product(lambda g, *_: 2 * g), evidence="monte_carlo")
    assert (
        report.verdict == Verdict.REFUTED
        and "the closed form is 2 times the gradient in w" in report.findings[0].diagnosis
    )


def test_nothing_is_said_where_two_names_are_too_near_to_each_other():
    assert (
        told(product(lambda g, x, w, mask: g * mask.prob**2, prob=0.62)) == {}
    )  # p² and 1 − p differ by 1 %
