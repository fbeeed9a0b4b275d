"""Terms that are left out or doubled: outer products, and amounts that are the same along an
axis.
"""

import jax.numpy as jnp
import pytest

from jaxgrad import Derivation
from tests.diagnosis.test_diagnosis import told


def even(w, u, v, x):
    return jnp.exp(u) @ w**2 @ jnp.exp(v) / 2 + jnp.exp(x.sum(0)) @ w**2 @ jnp.exp(v) / 2


def even_slope(w, u, v, x):
    return (jnp.exp(u) + jnp.exp(x.sum(0)))[:, None] * w * jnp.exp(v)


def bilinear(name, gradient, **more):
    """A quadratic in w with the outer products of several vectors beside it."""

    def loss(w, u, v, x):
        return even(w, u, v, x) + 3 * u @ w @ v + x.sum(0) @ w @ v / len(x)

    return Derivation(
        name=name,
        loss=loss,
        gradient=gradient,
        shapes={"w": "n p", "u": "n", "v": "p", "x": "m n"},
        **more,
    )


def right(w, u, v, x):
    return even_slope(w, u, v, x) + 3 * jnp.outer(u, v) + jnp.outer(x.sum(0), v) / len(x)


NAMED = [
    (
        lambda w, u, v, x: right(w, u, v, x) - 3 * jnp.outer(u, v),
        "the closed form for w lacks the term 3·u vᵀ",
    ),
    (
        lambda w, u, v, x: right(w, u, v, x) + 3 * jnp.outer(u, v),
        "the closed form for w has an extra term: 3·u vᵀ",
    ),
    (
        lambda w, u, v, x: right(w, u, v, x) - jnp.outer(x.sum(0), v) / len(x),
        "the closed form for w lacks the term 1/m·(xᵀ 1) vᵀ",
    ),
    (
        lambda w, u, v, x: right(w, u, v, x) + u[:, None],
        "the closed form for w has an extra term: u in every column",
    ),
    (
        lambda w, u, v, x: right(w, u, v, x) - 2 * v,
        "the closed form for w lacks the term 2·v in every row",
    ),
]


@pytest.mark.parametrize(("gradient", "words"), NAMED, ids=[words for _, words in NAMED])
def test_an_outer_product_is_named_by_its_vectors(gradient, words):
    diagnosis = told(bilinear("outer product", lambda **i: {"w": gradient(**i)}))["w"]
    assert diagnosis.sentence == words and diagnosis.kind == "term"


def far(x):
    """A function of a vector that nothing at hand is."""
    return jnp.tanh(x) + jnp.cumsum(x) ** 2


def test_an_outer_product_of_vectors_that_are_not_at_hand_is_told_as_a_term_of_rank_one():
    def gradient(w, u, v, x):
        return {"w": right(w, u, v, x) + jnp.outer(far(u), far(v)) + jnp.outer(far(x[0]), far(v))}

    sentence = told(bilinear("rank one", gradient))["w"].sentence
    assert (
        sentence
        == "the closed form for w is off by a matrix of rank one, as where an outer product is "
        "missing or should not be there"
    )


def test_one_known_vector_of_a_term_of_rank_one_is_named():
    def gradient(w, u, v, x):
        return {"w": right(w, u, v, x) + jnp.outer(far(u), v) + jnp.outer(far(x[0]), v)}

    sentence = told(bilinear("rank one", gradient))["w"].sentence
    assert "off by a matrix of rank one whose rows are multiples of v" in sentence


def test_nothing_is_said_of_rank_one_where_the_gradient_has_rank_one_itself():
    claim = Derivation(
        name="always rank one",
        loss=lambda w, u, v: u @ w @ v,
        gradient=lambda w, u, v: {"w": jnp.outer(far(u), v)},
        shapes={"w": "n p", "u": "n", "v": "p"},
    )
    assert all("rank one" not in diagnosis.sentence for diagnosis in told(claim).values())


def test_nothing_is_said_of_rank_one_where_the_error_has_rank_two():
    def gradient(w, u, v):
        return {"w": jnp.cos(w) + jnp.outer(far(u), far(v)) + jnp.outer(far(far(u)), far(far(v)))}

    claim = Derivation(
        name="rank two",
        loss=lambda w, u, v: jnp.sum(jnp.sin(w)) + 0 * u @ w @ v,
        gradient=gradient,
        shapes={"w": "4 5", "u": "4", "v": "5"},
    )
    assert all("rank one" not in diagnosis.sentence for diagnosis in told(claim).values())


ALONG = [
    (lambda x: far(x.mean(0)).mean(), "by the same amount in every entry"),
    (lambda x: far(x.mean(0)), "by the same amounts in every row"),
    (lambda x: far(x.mean(1))[:, None], "by the same amounts in every column"),
]


@pytest.mark.parametrize(("amount", "words"), ALONG, ids=[words for _, words in ALONG])
def test_two_terms_that_are_the_same_along_an_axis_are_told_as_that(amount, words):
    claim = Derivation(
        name="along",
        loss=lambda x: jnp.sum(jnp.sin(x)),
        gradient=lambda x: {"x": jnp.cos(x) + amount(x) + amount(x**2)},
        shapes={"x": "m n"},
    )
    assert words in told(claim)["x"].sentence


def test_a_gradient_that_is_the_same_in_every_row_is_not_told_to_be_off_by_what_is():
    claim = Derivation(
        name="always",
        loss=lambda x: jnp.sum(jnp.sin(x.sum(0))),
        gradient=lambda x: {"x": 0 * x + far(x.mean(0)) + far(x.mean(0) ** 2)},
        shapes={"x": "m n"},
    )
    assert "by the same amount" not in "".join(
        diagnosis.sentence for diagnosis in told(claim).values()
    )
