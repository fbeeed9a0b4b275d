"""Every name that a diagnosis knows, on problems that are not of the catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad import Derivation, masks
from tests.diagnosis.test_diagnosis import told


def attention(name, change):
    """A softmax of bilinear scores, mean squared: the gradient in q, changed."""

    def loss(q, k, v):
        return jnp.mean((jax.nn.softmax(q @ k.T, axis=-1) @ v) ** 2)

    def gradient(q, k, v):
        a = jax.nn.softmax(q @ k.T, axis=-1)
        d = 2 / (len(q) * v.shape[1]) * (a @ v) @ v.T
        return {"q": change(a * (d - jnp.sum(a * d, axis=-1, keepdims=True)) @ k, q, k, v)}

    return Derivation(
        name=name, loss=loss, gradient=gradient, shapes={"q": "m d", "k": "n d", "v": "n p"}
    )


BY_SIZES = [
    (lambda g, q, k, v: 2 * g, "the closed form is 2 times the gradient in q"),
    (lambda g, q, k, v: g / 2, "the closed form is 1/2 times the gradient in q"),
    (lambda g, q, k, v: -g, "the sign is wrong"),
    (
        lambda g, q, k, v: g / len(q),
        "the closed form is 1/m times the gradient in q: a mean in place of a sum",
    ),
    (lambda g, q, k, v: g / len(k), "the closed form is 1/n times the gradient in q"),
    (
        lambda g, q, k, v: g / (len(q) * len(k)),
        "the closed form is 1/(m·n) times the gradient in q",
    ),
    (
        lambda g, q, k, v: g * len(q) * v.shape[1],
        "the closed form is m·p times the gradient in q: a sum in place of a mean",
    ),
    (
        lambda g, q, k, v: g * len(q) / (len(q) - 1),
        "the closed form is m/(m−1) times the gradient in q",
    ),
]


@pytest.mark.parametrize(("change", "words"), BY_SIZES, ids=[words for _, words in BY_SIZES])
def test_factors_of_sizes(change, words):
    assert words in told(attention("attention", change))["q"].sentence


def weight_decay(change):
    return Derivation(
        name="decay", shapes={"w": "n", "x": "m n", "lam": ""}, domains={"lam": "positive"},
        loss=lambda w, x, lam: lam * jnp.sum(jnp.log1p(jnp.exp(x @ w))),
        gradient=lambda w, x, lam: {"w": change(lam * x.T @ jax.nn.sigmoid(x @ w), lam)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g, lam: g / lam, "the closed form is 1/lam times the gradient in w"),
        (lambda g, lam: g * lam, "the closed form is lam times the gradient in w"),
        (lambda g, lam: g * lam / 2, "lam/2 times"),
    ],
)
def test_factors_of_a_scalar_input(change, words):
    assert words in told(weight_decay(change))["w"].sentence


def kept(change):
    """The noise that dropout adds to a sum of squares, quadratic in the mask."""

    def loss(x, w, mask):
        return jnp.sum(((mask * x) @ w) ** 2)

    def gradient(x, w, mask):
        p = mask.prob
        s = p**2 * x.T @ x + p * (1 - p) * jnp.diag(jnp.sum(x**2, 0))
        return {"w": change(2 * s @ w, p)}

    return Derivation(
        name="noise",
        loss=loss,
        gradient=gradient,
        shapes={"x": "m n", "w": "n", "mask": "m n"},
        mask=masks.Bernoulli(0.7),
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g, p: p * g, "the closed form is p times the gradient in w"),
        (lambda g, p: (1 - p) * g, "the closed form is (1−p) times the gradient in w"),
        (lambda g, p: g / p, "the closed form is 1/p times the gradient in w"),
        (lambda g, p: p * (1 - p) * g, "the closed form is p·(1−p) times the gradient in w"),
        (lambda g, p: g / (1 - p), "the closed form is 1/(1−p) times the gradient in w"),
    ],
)
def test_factors_of_a_mask_s_probability(change, words):
    assert words in told(kept(change))["w"].sentence


def masked(name, gradient, mask=None):
    return Derivation(
        name=name, loss=lambda x, w, mask: jnp.sum(((mask * x) @ w) ** 2), gradient=gradient,
        shapes={"x": "m n", "w": "n", "mask": "m n"}, mask=mask or masks.Bernoulli(0.7),
    )  # fmt: skip


def by_moment(second):
    return lambda x, w, mask: {"w": 2 * (second(mask, x.shape[1]) * (x.T @ x)) @ w}


def outer_of_means(mask, n):
    return jnp.outer(mask.mean(n), mask.mean(n))


MASKS = [
    (masked("variance", by_moment(outer_of_means)), "ignores the variance of the mask"),
    (
        masked(
            "complement",
            lambda x, w, mask: by_moment(lambda q, n: q.second_moment(n))(
                x, w, masks.Bernoulli(1 - mask.prob)
            ),
        ),
        "uses the complement 1 − m",
    ),
    (masked("kept", lambda x, w, mask: {"w": 2 * x.T @ x @ w}), "ignores the mask"),
    (
        masked(
            "family",
            by_moment(lambda q, n: masks.FeatureBernoulli(q.mean(n)).second_moment(n)),
            lambda n: masks.FixedCount(max(1, n // 2)),
        ),
        "the mask for independent",
    ),
    (
        masked(
            "patches",
            by_moment(lambda q, n: masks.FeatureBernoulli(q.mean(n)).second_moment(n)),
            lambda n: masks.Patches(0.7, n // 2 if n % 2 == 0 else n),
        ),
        "the mask for independent",
    ),
]


@pytest.mark.parametrize(("claim", "words"), MASKS, ids=[claim.name for claim, _ in MASKS])
def test_what_is_wrong_with_a_mask(claim, words):
    assert words in told(claim)["w"].sentence


def quadratic(name, change):
    return Derivation(
        name=name,
        loss=lambda a, b: jnp.sum(jnp.tanh(a) * b) + jnp.sum(a * a * jnp.cosh(b)) / 2,
        gradient=lambda a, b: {"a": change((1 - jnp.tanh(a) ** 2) * b + a * jnp.cosh(b))},
        shapes={"a": "2*n 2*n", "b": "2*n 2*n"},
    )


def block(a):
    i = np.arange(len(a))
    return jnp.where((i[:, None] // 2 == i // 2), 2, 1)


PLACES = [
    (
        lambda g: g - jnp.diag(jnp.diag(g)),
        "the closed form for a is zero on the diagonal, and the gradient is not",
    ),
    (
        lambda g: g + jnp.diag(jnp.diag(g)),
        "the closed form is 2 times the gradient in a on the diagonal, and right elsewhere",
    ),
    (
        lambda g: g * block(g),
        "the closed form is 2 times the gradient in a in the diagonal blocks of size 2",
    ),
    (lambda g: g.at[1].multiply(-1), "in row 1"),
    (lambda g: g.at[:, 2].set(0), "a is zero in column 2"),
    (lambda g: g.at[2, 1].multiply(0.5), "at a[2, 1]"),
    (
        lambda g: g.at[:2, 1:3].multiply(2),
        "2 times the gradient at a[0:2, 1:3], and right",
    ),
    (lambda g: g.at[2, :3].set(0), "the closed form for a is zero at a[2, 0:3]"),
    (jnp.triu, "a is zero below the diagonal"),
    (lambda g: jnp.tril(g, -1), "a is zero on and above the diagonal"),
    (lambda g: g.T, "the closed form is the transpose of the gradient in a"),
]


@pytest.mark.parametrize(("change", "words"), PLACES, ids=[words for _, words in PLACES])
def test_places(change, words):
    assert words in told(quadratic("places", change))["a"].sentence


def scaled_lines(name, change):
    return Derivation(
        name=name,
        loss=lambda x, s, t: jnp.sum(jnp.sin(x)) + 0 * jnp.sum(s) * jnp.sum(t),
        gradient=lambda x, s, t: {"x": change(jnp.cos(x), s, t)},
        shapes={"x": "m n", "s": "n", "t": "m"},
        domains={"s": "positive", "t": "positive"},
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g, s, t: g * s, "the gradient in x with each column multiplied by its entry of s"),
        (
            lambda g, s, t: g * t[:, None],
            "the gradient in x with each row multiplied by its entry of t",
        ),
        (
            lambda g, s, t: g / s,
            "the gradient in x with each column multiplied by its entry of 1/s",
        ),
    ],
)
def test_a_factor_for_each_row_or_column(change, words):
    assert words in told(scaled_lines("lines", change))["x"].sentence


def products(name, gradient):
    return Derivation(
        name=name,
        loss=lambda a, b: jnp.trace(a @ b @ a @ b) / 2,
        gradient=gradient,
        shapes={"a": "n n", "b": "n n"},
    )


REARRANGED = [
    (
        products("order", lambda a, b: {"a": (a @ b @ b).T}),
        "a",
        ("order of factors", "factors", "swapped"),
    ),
    (
        Derivation(
            name="other input",
            loss=lambda u, v: jnp.sum(jnp.sin(u) * jnp.cos(v)),
            shapes={"u": "n", "v": "n"},
            gradient=lambda u, v: {"u": -jnp.sin(u) * jnp.sin(v), "v": jnp.cos(u) * jnp.cos(v)},
        ),
        "u",
        ("the closed form for u is the gradient in v",),
    ),
    (
        Derivation.from_vjp(
            "ignored",
            lambda x: jnp.exp(x) * x[0],
            lambda x, ct: {"x": jnp.exp(x) * x[0] + jnp.zeros_like(x).at[0].set(jnp.exp(x).sum())},
            {"x": "n"},
        ),
        "x",
        ("ignores cotangent: it uses 1 in its place",),
    ),
    (
        Derivation.from_vjp(
            "squared", jnp.tanh, lambda x, ct: {"x": ct**2 * (1 - jnp.tanh(x) ** 2)}, {"x": "n"}
        ),
        "x",
        ("uses cotangent² in place of cotangent",),
    ),
    (
        Derivation(
            name="positive",
            loss=lambda x: jnp.sum(jnp.where(x > 0, jnp.exp(x), x**2)),
            gradient=lambda x: {"x": jnp.exp(x)},
            shapes={"x": "n"},
        ),
        "x",
        ("the closed form for x is right only where x is positive",),
    ),
    (
        Derivation(
            name="symmetric",
            loss=lambda s, y: y @ s @ s @ y,
            gradient=lambda s, y: {"y": 2 * s @ s @ y},
            shapes={"s": "n n", "y": "n"},
        ),
        "y",
        ("the closed form for y is right only where s is symmetric",),
    ),
    (
        Derivation(
            name="sums to one",
            loss=lambda p, c: (c @ p) / jnp.sum(p),
            gradient=lambda p, c: {"p": c - c @ p},
            shapes={"p": "n", "c": "n"},
            domains={"p": "positive"},
        ),
        "p",
        ("of sum one",),
    ),
    (
        Derivation(
            name="sum for mean",
            loss=lambda x: jnp.mean(jnp.exp(x)),
            gradient=lambda x: {"x": jnp.exp(x)},
            shapes={"x": "m n"},
        ),
        "x",
        ("the closed form is m·n times the gradient in x: a sum in place of a mean",),
    ),
    (
        Derivation(
            name="doubled term",
            loss=lambda x, lam: jnp.sum(jnp.exp(x)) + lam * jnp.sum(x**2) / 2,
            gradient=lambda x, lam: {"x": jnp.exp(x) + 2 * lam * x},
            shapes={"x": "n", "lam": ""},
        ),
        "x",
        ("uses 2·lam in place of lam", "has an extra term: lam·x"),
    ),
]


@pytest.mark.parametrize(
    ("claim", "label", "words"), REARRANGED, ids=[claim.name for claim, _, _ in REARRANGED]
)
def test_what_is_rearranged_forgotten_or_right_on_a_part(claim, label, words):
    sentence = told(claim)[label].sentence
    assert any(w in sentence for w in words), sentence


@pytest.mark.parametrize(
    ("gate", "side"),
    [(lambda x: x >= 0, "the right one"), (lambda x: jnp.heaviside(x, 0.5), "their mean")],
)
def test_the_one_sided_derivative_at_a_kink(gate, side):
    claim = Derivation(
        name="hinge",
        loss=lambda x, y: jnp.sum(y * jax.nn.relu(x)),
        gradient=lambda x, y: {"x": y * gate(x)},
        shapes={"x": "n", "y": "n"},
        domains={"x": lambda key, shape: np.arange(shape[0]) - 1.0},
    )
    sentence = told(claim)["x"].sentence
    assert "right except at kinks" in sentence and f"the closed form takes {side}" in sentence


def test_a_sum_that_is_only_compared_is_not_what_is_left_out():
    claim = Derivation(
        name="by its sum", loss=lambda x: jnp.where(x.sum() > 3, jnp.sum(x**2), jnp.sum(x)),
        gradient=lambda x: {"x": jnp.ones_like(x)}, shapes={"x": "n"},
    )  # fmt: skip
    assert "the factor of the gradient from `x**2`" in told(claim)["x"].sentence


def test_a_program_that_is_right_at_its_sizes_is_not_what_is_wrong():
    claim = Derivation(
        name="by its shape", loss=lambda x: jnp.sum(x**2),
        gradient=lambda x: {"x": 2 * x if x.shape[0] < x.shape[1] else x}, shapes={"x": "m n"},
    )  # fmt: skip
    assert "first factor" not in str(told(claim).get("x"))


@pytest.mark.parametrize("at", [1.05, 1.2, 1.6])
@pytest.mark.parametrize("scale", [0.8, 0.9])
def test_a_threshold_is_not_told_by_the_luck_of_a_few_draws(at, scale):
    claim = Derivation(
        name="threshold", loss=lambda x: jnp.sum(jnp.where(x < at, x**2, 3 * x)),
        gradient=lambda x: {"x": jnp.where(x < scale, 2 * x, 3.0)}, shapes={"x": "n"},
    )  # fmt: skip
    assert "side of" not in str(told(claim).get("x"))


@pytest.mark.parametrize("holds", [True, False])
def test_the_cases_of_a_choice_are_named_by_its_condition(holds):
    def choice(x, a, b):
        return jnp.where(x > 0, a, b) if holds else jnp.where(x > 0, b, a)

    claim = Derivation(
        name="choice", loss=lambda x, y: jnp.sum(choice(x, y**2 / 2, jnp.exp(y))),
        gradient=lambda x, y: {"y": choice(x, 0.7, jnp.exp(y))}, shapes={"x": "n", "y": "n"},
    )  # fmt: skip
    words = f"the value for {'true' if holds else 'false'}"
    assert f"{words} should be y" in told(claim)["y"].sentence


def test_cancellation_tells_the_entry_and_the_digits():
    def gradient(x):
        return {"x": jnp.sqrt(x**2 + 1) - x}

    claim = Derivation(
        name="difference of roots",
        loss=lambda x: jnp.sum((x * jnp.sqrt(x**2 + 1) + jnp.arcsinh(x)) / 2 - x**2 / 2),
        gradient=gradient,
        shapes={"x": "n"},
        domains={"x": lambda key, shape: 1e3 * (1.0 + np.arange(shape[0]))},
    )
    sentence = jg.diagnosis.digits_lost(claim)["x"].sentence
    assert (
        "right in float64 but loses" in sentence
        and "of 7 digits in float32" in sentence
        and " at x[" in sentence
    )


@jax.custom_jvp
def cube(x):
    return x**3


cube.defjvp(lambda primals, tangents: (primals[0] ** 3, 2 * primals[0] ** 2 * tangents[0]))


@pytest.mark.parametrize("factor", [2, 3])
def test_a_rule_of_the_loss_that_is_wrong(factor):
    claim = Derivation(
        name="own rule",
        loss=lambda x, y: jnp.sum(cube(x) * y),
        gradient=lambda x, y: {"x": factor * x**2 * y},
        shapes={"x": "n", "y": "n"},
    )
    found = told(claim)
    if factor == 2:
        assert (
            "the differentiation rule of `cube` in the loss contradicts the loss's value"
            in found["x"].sentence
        )
    else:
        assert found == {}
