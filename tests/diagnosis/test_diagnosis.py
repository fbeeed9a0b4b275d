"""What a wrong gradient is wrong by: each mistake in one right sentence, and silence where nothing
explains it.
"""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad import Derivation, Verdict, catalog, masks
from jaxgrad.diagnosis import diagnose
from jaxgrad.evidence.problem import Problem
from jaxgrad.jaxprs.versions import enable_x64
from jaxgrad.verification.applicable import loss_of_mask
from tests import verdict_claims as claims
from tests.wrong_variants import CASES, ORIGINAL


def told(claim, **options):
    """Diagnose all arrays of the gradient; return {label: diagnosis}."""
    with enable_x64(True):
        problem = Problem(claim, **options)
        return diagnose(problem, problem.wrt, functools.partial(loss_of_mask, problem))


def wrong(name, gradient, loss=lambda x: jnp.sum(x**2), shapes=None, **more):
    return Derivation(
        name=name, loss=loss, gradient=gradient, shapes=shapes or {"x": "m n"}, **more
    )


def square(factor):
    return lambda x: {"x": factor(*x.shape) * 2 * x}


FACTORS = [
    (lambda m, n: 2, "2 times"),
    (lambda m, n: 0.5, "1/2 times"),
    (lambda m, n: -1, "the sign is wrong"),
    (lambda m, n: m, "m times the gradient in x: a sum in place of a mean"),
    (lambda m, n: 1 / n, "1/n times the gradient in x: a mean in place of a sum"),
    (lambda m, n: 1 / (m * n), "1/(m·n) times"),
    (lambda m, n: m / (m - 1), "m/(m−1) times"),
    (lambda m, n: n / m, "n/m times"),
    (lambda m, n: -3 / (4 * m), "−3/(4·m) times"),
    (lambda m, n: 1000, "1000 times"),
    (lambda m, n: 1.2345678, "1.2345678 times"),
]


@pytest.mark.parametrize(("factor", "words"), FACTORS, ids=[words for _, words in FACTORS])
def test_a_factor_is_named_in_the_symbols_of_the_problem(factor, words):
    diagnosis = told(wrong("scaled", square(factor)))["x"]
    assert words in diagnosis.sentence
    assert diagnosis.residual < 1e-6


def test_a_factor_that_is_a_scalar_input_bears_its_name():
    claim = wrong(
        "ridge",
        lambda x, lam: {"x": lam**2 * x},
        lambda x, lam: lam * jnp.sum(x**2) / 2,
        {"x": "n", "lam": ""},
        domains={"lam": "positive"},
    )
    assert "lam times" in told(claim)["x"].sentence


@pytest.mark.parametrize(
    ("power", "words"),
    [
        (lambda p: p, "p times"),
        (lambda p: 1 - p, "(1−p) times"),
        (lambda p: 1 / p, "1/p times"),
        (lambda p: p * (1 - p), "p·(1−p) times"),
    ],
)
def test_the_mask_s_probability_is_told_from_a_number(power, words):
    claim = Derivation(
        name="linear", loss=lambda x, w, mask: jnp.sum(mask * x * w),
        gradient=lambda x, w, mask: {"w": power(mask.prob) * mask.prob * x},
        shapes={"x": "m n", "w": "m n", "mask": "m n"}, mask=masks.Bernoulli(0.6),
    )  # fmt: skip
    assert words in told(claim)["w"].sentence


SENTENCES = [
    (
        wrong("transposed", lambda a: {"a": a.T}, lambda a: jnp.sum(a**2) / 2, {"a": "n n"}),
        "a",
        "the closed form is the transpose of the gradient in a",
    ),
    (
        wrong("swapped", lambda x, y: {"x": x, "y": y}, lambda x, y: x @ y, {"x": "n", "y": "n"}),
        "x",
        "gradient in y",
    ),
    (
        wrong(
            "order of factors",
            lambda a, b, c: {"a": b @ c},
            lambda a, b, c: jnp.sum((c @ b) * a),
            {k: "n n" for k in "abc"},
        ),
        "a",
        "swaps b and c",
    ),
    (
        wrong(
            "no diagonal",
            lambda a: {"a": 2 * a * (1 - jnp.eye(len(a)))},
            lambda a: jnp.sum(a**2),
            {"a": "n n"},
        ),
        "a",
        "the closed form for a is zero on the diagonal",
    ),
    (
        wrong("row", lambda x: {"x": (2 * x).at[0].multiply(2)}),
        "x",
        "2 times the gradient in x in the first row",
    ),
    (wrong("column", lambda x: {"x": (2 * x).at[:, -1].set(0)}), "x", "zero in the last column"),
    (wrong("entry", lambda x: {"x": (2 * x).at[1, 2].multiply(-1)}), "x", "at x[1, 2]"),
    (
        wrong("triangle", lambda a: {"a": jnp.tril(2 * a)}, lambda a: jnp.sum(a**2), {"a": "n n"}),
        "a",
        "zero above the diagonal",
    ),
    (
        wrong(
            "blocks",
            lambda a: {
                "a": 2
                * a
                * jnp.where(np.arange(len(a))[:, None] // 2 == np.arange(len(a)) // 2, 2, 1)
            },
            lambda a: jnp.sum(a**2),
            {"a": "2*n 2*n"},
        ),
        "a",
        "2 times the gradient in a in the diagonal blocks of size 2",
    ),
    (
        wrong(
            "per column",
            lambda x, s: {"x": 2 * x * s**2},
            lambda x, s: jnp.sum(x**2 * s),
            {"x": "m n", "s": "n"},
        ),
        "x",
        "uses s² in place of s",
    ),
    (
        wrong(
            "weight decay left out",
            lambda x: {"x": x**2},
            lambda x: jnp.sum(x**3) / 3 + jnp.sum(x**2),
        ),
        "x",
        "the closed form for x lacks the term 2·x",
    ),
    (
        wrong(
            "decay left out",
            lambda x, y, lam: {"x": y},
            lambda x, y, lam: jnp.sum(x * y) + lam * jnp.sum(x**2) / 2,
            {"x": "n", "y": "n", "lam": ""},
            domains={"lam": "positive"},
        ),
        "x",
        "ignores lam",
    ),
    (
        wrong(
            "target forgotten",
            lambda x, y: {"x": 2 * x},
            lambda x, y: jnp.sum((x - y) ** 2),
            {"x": "n", "y": "n"},
        ),
        "x",
        "ignores y",
    ),
    (
        Derivation.from_vjp("ignored", jnp.sin, lambda x, ct: {"x": jnp.cos(x)}, {"x": "n"}),
        "x",
        "ignores cotangent: it uses 1 in its place",
    ),
    (
        Derivation.from_vjp(
            "squared", jnp.sin, lambda x, ct: {"x": jnp.cos(x) * ct**2}, {"x": "n"}
        ),
        "x",
        "uses cotangent² in place of cotangent",
    ),
    (
        wrong(
            "positive only", lambda x: {"x": 2 * x}, lambda x: jnp.sum(x * jnp.abs(x)), {"x": "n"}
        ),
        "x",
        "only where x is positive",
    ),
    (
        wrong(
            "symmetric only",
            lambda x, a: {"x": 2 * a @ x},
            lambda x, a: x @ a @ x,
            {"x": "n", "a": "n n"},
        ),
        "x",
        "right only where a is symmetric",
    ),
    (
        wrong(
            "sum one only",
            lambda p: {"p": jnp.full_like(p, 2.0)},
            lambda p: jnp.sum(p) ** 2,
            {"p": "n"},
        ),
        "p",
        "the factor of the gradient from `jnp.sum(p)`",
    ),
]


@pytest.mark.parametrize(
    ("claim", "label", "words"), SENTENCES, ids=[claim.name for claim, _, _ in SENTENCES]
)
def test_a_mistake_is_told_in_one_sentence(claim, label, words):
    diagnosis = told(claim)[label]
    assert words in diagnosis.sentence
    assert diagnosis.residual < 1e-6


def inner(name, gradient):
    """The squared error of a linear map, with another closed form."""
    return Derivation(
        name=name,
        loss=lambda x, y, w: jnp.sum((x @ w - y) ** 2),
        gradient=gradient,
        shapes={"x": "m n", "y": "m p", "w": "n p"},
    )


EDITS = [
    (
        inner("sign inside", lambda x, y, w: {"w": 2 * x.T @ (x @ w + 0.5 * y)}),
        "`0.5 * y`",
        "1/2 and should be -1",
    ),
    (
        inner("surplus", lambda x, y, w: {"w": 2 * x.T @ (x @ w - y) + w * w}),
        "`2 * x.T @ (x @ w - y) + w * w`",
        "should not be there",
    ),
    (
        inner("constant inside", lambda x, y, w: {"w": 2 * x.T @ (x @ w - 3 * y)}),
        "`3 * y`",
        "3 and should be 1",
    ),
]


@pytest.mark.parametrize(
    ("claim", "where", "words"), EDITS, ids=[claim.name for claim, _, _ in EDITS]
)
def test_the_step_that_is_wrong_is_told_with_its_expression_and_line(claim, where, words):
    sentence = told(claim)["w"].sentence
    assert where in sentence
    assert "test_diagnosis.py:" in sentence
    assert words in sentence


def test_a_sum_that_is_not_taken_is_told():
    claim = Derivation.from_vjp(
        "bias", lambda x, b: x + b, lambda x, b, ct: {"b": ct[0]}, {"x": "m n", "b": "n"}
    )
    assert "takes only the first term of the sum" in told(claim)["b"].sentence


def test_half_of_a_product_rule_is_told():
    claim = wrong(
        "product",
        lambda x, y: {"x": jnp.sin(x) * y},
        lambda x, y: jnp.sum(jnp.sin(x) * x * y),
        {"x": "n", "y": "n"},
    )
    assert "lacks the term of the gradient through" in told(claim)["x"].sentence


def test_a_gate_that_is_left_out_is_told_with_the_line_of_the_loss():
    def gradient(x, w, v):
        return {"w": jnp.outer(v, x) / 2}

    claim = wrong(
        "no gate",
        gradient,
        lambda x, w, v: v @ jax.nn.relu(w @ x) / 2,
        {"x": "n", "w": "p n", "v": "p"},
    )
    sentence = told(claim)["w"].sentence
    assert sentence.startswith(
        "the closed form for w lacks the gate of `jax.nn.relu(w @ x)` (test_diagnosis.py:"
    )


def test_a_kink_is_told_with_both_one_sided_derivatives():
    claim = catalog.get("relu")
    gate = Derivation(
        name="gate",
        loss=claim.loss,
        gradient=lambda x, cotangent: {"x": cotangent * (x >= 0)},
        shapes=claim.shapes,
        domains=claim.domains,
    )
    sentence = told(gate)["x"].sentence
    assert "right except at kinks" in sentence
    assert "the closed form takes the right one and autodiff the left one" in sentence
    assert "≥ should be >" in sentence


def test_a_rule_of_the_loss_that_is_wrong_is_told_by_its_name():
    copied = next(c for c in claims.WRONG if c.name == "a rule of the loss that is wrong, copied")
    report = jg.verify(copied)
    assert report.verdict == Verdict.REFUTED
    assert any(
        "rule of `twice_badly` in the loss contradicts the loss's value" in f.diagnosis
        for f in report.findings
    )


MOMENTS = {
    "no diagonal in S, as if the mask were not its own square": "ignores the variance of the mask",
    "p² for μ": "a wrong mean of the mask, p² in place of p",
    "p for S off the diagonal": "p off the diagonal",
    "entries taken for independent": "entries of the mask for independent",
    "entries of a patch taken for independent": "entries of the mask for independent",
    "no 1/n": ": a sum in place of a mean",
    "the mean probability for every feature": "its average over all entries",
    "p² for the diagonal of S": "with μμᵀ in place of the mean μ on its diagonal",
    "weights swapped": "swaps alpha and beta",
    "no penalty, as if dropout did nothing on average": "ignores the variance of the mask",
    "gates left out": "ignores the mask",
}
README = pathlib.Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
ORIGINALS = {
    "Monte Carlo sum never divided by N": "is 1000 times the gradient",
    "scalar probability in the loss, per-feature closed form": "uses the moments of another mask",
    "patch blocks misplaced": "misplaced blocks: they begin at row ⌊i/s⌋ in place of ⌊i/s⌋·s",
    "gate 1 at 0": "≥ should be >",
}
TOLD = MOMENTS | {ORIGINAL + label: words for label, words in ORIGINALS.items()}
MISTAKES = [case for case in CASES if case[1] in TOLD]


@pytest.mark.parametrize(
    ("name", "label", "claim"), MISTAKES, ids=[f"{name}: {label}" for name, label, _ in MISTAKES]
)
def test_a_mistake_in_the_catalogue_is_told_in_one_right_sentence(name, label, claim):
    found = told(claim)
    assert any(TOLD[label] in diagnosis.sentence for diagnosis in found.values())
    # at how many ties an array is wrong, and so whether the step is found, is for the draws to say
    for diagnosis in found.values():
        assert TOLD[label] in diagnosis.sentence or diagnosis.kind == "kink"


@pytest.mark.parametrize(
    ("name", "label", "array"),
    [
        ("masked_autoencoder_bernoulli", "Monte Carlo sum never divided by N", "w1"),
        (
            "masked_autoencoder_features",
            "scalar probability in the loss, per-feature closed form",
            "w1",
        ),
        ("masked_autoencoder_patches", "patch blocks misplaced", "w1"),
        ("relu", "gate 1 at 0", "x"),
    ],
)
def test_the_readme_shows_what_is_said_of_a_mistake_of_the_originals(name, label, array):
    claim = next(claim for n, said, claim in CASES if (n, said) == (name, ORIGINAL + label))
    without_lines = functools.partial(re.sub, r"(\w\.py):\d+", r"\1")
    assert without_lines(f"| {told(claim)[array].sentence} |") in without_lines(README)


def test_the_complement_of_the_mask_is_told():
    right = catalog.get("masked_autoencoder_bernoulli")

    def gradient(*, mask, **inputs):
        return right.gradient(mask=masks.Bernoulli(1 - mask.prob), **inputs)

    claim = Derivation(
        name="complement", loss=right.loss, gradient=gradient, shapes=right.shapes, mask=right.mask
    )
    assert all(
        "uses the complement 1 − m" in diagnosis.sentence for diagnosis in told(claim).values()
    )


def test_refuted_findings_carry_the_sentence_and_confirmed_ones_none():
    claim = next(c for n, label, c in CASES if n == "mse" and label == "no 1/m")
    report = jg.verify(claim, seed=3)
    assert {
        f.diagnosis.split(" (explains")[0] for f in report.findings if f.verdict == Verdict.REFUTED
    } == {
        "the closed form is m times the gradient in pred: a sum in place of a mean",
        "the closed form is m times the gradient in y: a sum in place of a mean",
    }
    assert str(report).count("m times the gradient in pred") == 1
    assert not any(f.diagnosis for f in jg.verify(catalog.get("mse")).findings)


def test_nothing_is_said_where_nothing_explains_it():
    claim = wrong(
        "nonsense",
        lambda x: {"x": jnp.cos(3 * x) + x[::-1] ** 2 + jnp.sum(x)},
        lambda x: jnp.sum(jnp.exp(x) * jnp.sin(x)),
        {"x": "n"},
    )
    assert told(claim) == {}


def test_an_error_too_small_to_be_told_from_rounding_is_not_named():
    assert told(claims.scaled(1.0, 1 + 1e-10)) == {}


def test_a_closed_form_that_refuses_other_sizes_still_gets_its_verdict():
    def gradient(x):
        if x.shape[0] > 3:
            raise ValueError("only up to three")
        return {"x": 4 * x}

    claim = wrong("picky", gradient)
    assert jg.verify(claim, sizes={"m": 2, "n": 3}).verdict == Verdict.REFUTED


def test_the_users_data_are_looked_at_where_drawn_inputs_show_nothing():
    claim = wrong(
        "step",
        lambda x: {"x": jnp.ones_like(x)},
        lambda x: jnp.sum(jnp.where(x > 50, 2 * x, x)),
        {"x": "n"},
    )
    report = jg.verify(claim, inputs={"x": np.array([1.0, 70.0, 2.0])}, evidence="autodiff")
    assert " at x[" in report.findings[0].diagnosis


def test_a_constant_is_no_gradient_at_other_inputs():
    claim = wrong(
        "clipped", lambda x: {"x": jnp.ones_like(x)}, lambda x: jnp.sum(jnp.maximum(x, -1))
    )
    assert "lacks the factor of the gradient from `jnp.maximum(x, -1)`" in told(claim)["x"].sentence


def test_a_factor_that_fits_the_sizes_seen_and_no_others_is_not_named():
    def gradient(x, w):
        true = 2 / x.shape[0] * x.T @ (x @ w)
        return {"w": true.at[0].multiply(2 if x.shape[0] % 2 else 1)}

    claim = wrong(
        "now and then",
        gradient,
        lambda x, w: jnp.sum((x @ w) ** 2) / x.shape[0],
        {"x": "m n", "w": "n k"},
    )
    assert told(claim) == {}
