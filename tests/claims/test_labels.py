"""Labels and other discrete inputs: what is proved of them, and what is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad import Derivation, Verdict
from jaxgrad.claims.labels import SOME


def claim(loss, gradient, shapes, **domains):
    return Derivation(name="c", loss=loss, gradient=gradient, shapes=shapes, domains=domains)


def logistic(z, y):
    return jnp.sum(jnp.log1p(jnp.exp(-(2 * y - 1) * z)))


def cross_entropy(z, k):
    return -jnp.sum(jnp.take_along_axis(jax.nn.log_softmax(z), k[:, None], 1))


def looked_up(t, k):
    return jnp.sum(t[k] ** 2)


def switched(x, y):
    return jnp.sum(jnp.where(y == 1, x**2, x**3))


Z, X, ZK, TK = (
    {"z": "n", "y": "n"},
    {"x": "n", "y": "n"},
    {"z": "m n", "k": "m"},
    {"t": "n", "k": "m"},
)


def classifier(w1, w2, x, k):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(jnp.tanh(x @ w1) @ w2), k[:, None], 1))


def classifier_gradient(w1, w2, x, k):
    h = jnp.tanh(x @ w1)
    d = (jax.nn.softmax(h @ w2) - jax.nn.one_hot(k, w2.shape[1])) / len(k)
    return {"w2": h.T @ d, "w1": x.T @ ((d @ w2.T) * (1 - h**2))}


RIGHT = {
    "logistic loss of labels 0 and 1": claim(
        logistic, lambda z, y: {"z": jax.nn.sigmoid(z) - y}, Z, y="binary"
    ),
    "logistic loss of labels −1 and 1": claim(
        lambda z, y: jnp.sum(jnp.log1p(jnp.exp(-y * z))),
        lambda z, y: {"z": jax.nn.sigmoid(z) - (1 + y) / 2},
        Z,
        y="sign",
    ),
    "hinge loss": claim(
        lambda z, y: jnp.sum(jnp.maximum(0, 1 - y * z)),
        lambda z, y: {"z": jnp.where(y * z < 1, -y, 0.0)},
        Z,
        y="sign",
    ),
    "cross-entropy of an index": claim(
        cross_entropy,
        lambda z, k: {"z": jax.nn.softmax(z) - jax.nn.one_hot(k, z.shape[1])},
        ZK,
        k="index n",
    ),
    "cross-entropy of one hot": claim(
        lambda z, k: -jnp.sum(k * jax.nn.log_softmax(z)),
        lambda z, k: {"z": jax.nn.softmax(z) - k},
        {"z": "m n", "k": "m n"},
        k="one_hot",
    ),
    "a network of two layers": claim(
        classifier,
        classifier_gradient,
        {"w1": "n p", "w2": "p c", "x": "m n", "k": "m"},
        k="index c",
    ),
    "rows of a table": claim(
        looked_up, lambda t, k: {"t": jnp.zeros_like(t).at[k].add(2 * t[k])}, TK, k="index n"
    ),
    "a fixed number of classes": claim(
        looked_up,
        lambda t, k: {"t": jnp.zeros_like(t).at[k].add(2 * t[k])},
        {"t": "3", "k": "m"},
        k="index 3",
    ),
    "a switch": claim(
        switched, lambda x, y: {"x": jnp.where(y == 1, 2 * x, 3 * x**2)}, X, y="binary"
    ),
    "a scalar": claim(
        lambda x, y: x**2 * y, lambda x, y: {"x": 2 * x * y}, {"x": "", "y": ""}, y="binary"
    ),
    "what is right for 0 and 1 alone": claim(
        lambda x, y: jnp.sum(y**3 * x), lambda x, y: {"x": y}, X, y="binary"
    ),
    "a gradient in the label": claim(
        lambda x, y: jnp.sum(y**2 * x), lambda x, y: {"y": 2 * y * x, "x": y}, X, y="binary"
    ),
    "a tree of labels": claim(
        lambda x, y: jnp.sum(x * y["a"] * y["b"]),
        lambda x, y: {"x": y["a"] ** 2 * y["b"]},
        {"x": "2", "y": {"a": "2", "b": "2"}},
        y="binary",
    ),
    "two kinds of labels": claim(
        lambda x, y, s: jnp.sum(y * s**2 * x),
        lambda x, y, s: {"x": y**2},
        {"x": "n", "y": "n", "s": "n"},
        y="binary",
        s="sign",
    ),
}
WRONG = {
    "logistic loss with the label's sign wrong": claim(
        logistic, lambda z, y: {"z": jax.nn.sigmoid(z) - 1 + y}, Z, y="binary"
    ),
    "at one value of the label": claim(
        switched, lambda x, y: {"x": jnp.where(y == 1, 7 * x, 3 * x**2)}, X, y="binary"
    ),
    "at the last class": claim(
        looked_up,
        lambda t, k: {"t": jnp.zeros_like(t).at[k].add(jnp.where(k == t.size - 1, 0, 2 * t[k]))},
        TK,
        k="index n",
    ),
    "where an index comes twice": claim(
        looked_up, lambda t, k: {"t": jnp.zeros_like(t).at[k].set(2 * t[k])}, TK, k="index n"
    ),
    "beyond 0 and 1": claim(lambda x, y: jnp.sum(y**3 * x), lambda x, y: {"x": y}, X, y="real"),
    "at −1": claim(lambda x, y: jnp.sum(y**3 * x), lambda x, y: {"x": jnp.abs(y)}, X, y="sign"),
}


@pytest.mark.parametrize("subject", RIGHT.values(), ids=RIGHT)
def test_a_proof_looks_at_every_value(subject):
    report = jg.verify(subject, seed=3)
    report.assert_confirmed()
    assert not report.warnings
    proofs = [f for f in report.findings if f.evidence == "certificate"]
    assert {f.verdict for f in proofs} == {Verdict.CONFIRMED}
    assert all("with each of the" in f.detail for f in proofs)
    assert {f.verdict for f in report.findings if f.evidence == "autodiff"} == {Verdict.CONFIRMED}


@pytest.mark.parametrize("subject", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("evidence", ["certificate", "autodiff"])
def test_what_is_wrong_at_some_values_is_refuted_by_each_evidence_alone(subject, evidence):
    assert jg.verify(subject, evidence=evidence).verdict == Verdict.REFUTED


@pytest.mark.parametrize("seed", range(3))
def test_labels_that_happen_to_be_zero_are_no_zero_gradient(seed):
    subject = claim(
        lambda x, y: jnp.sum((y * x) ** 2),
        lambda x, y: {"x": 2 * y * x},
        {"x": "", "y": ""},
        y="binary",
    )
    report = jg.verify(subject, evidence="certificate", seed=seed)
    report.assert_confirmed()
    assert not report.warnings
    nothing = claim(
        lambda x, y: jnp.sum(x) * y * (1 - y),
        lambda x, y: {"x": jnp.zeros_like(x)},
        {"x": "n", "y": ""},
        y="binary",
    )
    (warning,) = jg.verify(nothing, evidence="certificate", seed=seed).warnings
    assert "vacuous" in warning


def test_whole_numbers_without_end_are_not_proved_by_some_of_them():
    right = claim(
        lambda x, k: jnp.sum(k * x**2),
        lambda x, k: {"x": 2 * k * x},
        {"x": "n", "k": "n"},
        k="integer",
    )
    (finding,) = jg.verify(right, evidence="certificate").findings
    assert finding.verdict == Verdict.UNDECIDED
    assert finding.detail.startswith(
        f"proved at {SOME} values of k that were drawn, and there are others"
    )
    assert jg.verify(right).verdict == Verdict.CONFIRMED


def test_where_there_are_many_values_a_proof_for_all_real_numbers_stands_if_both_sides_are_smooth():
    shapes = {"w": "n", "x": "12 n", "y": "12"}
    right = claim(
        lambda w, x, y: jnp.sum((x @ w - y) ** 2),
        lambda w, x, y: {"w": 2 * x.T @ (x @ w - y)},
        shapes,
        y="binary",
    )
    (finding,) = jg.verify(right, evidence="certificate").findings
    assert finding.verdict == Verdict.CONFIRMED
    assert "values of y" not in finding.detail
    wrong = claim(right.loss, lambda w, x, y: {"w": 2 * x.T @ (x @ w + y)}, shapes, y="binary")
    assert jg.verify(wrong, evidence="certificate").verdict == Verdict.REFUTED


def test_where_there_are_many_values_and_a_switch_a_proof_is_none():
    shapes = {"x": "12", "y": "12"}
    right = claim(
        switched, lambda x, y: {"x": jnp.where(y == 1, 2 * x, 3 * x**2)}, shapes, y="binary"
    )
    (finding,) = jg.verify(right, evidence="certificate").findings
    assert finding.verdict == Verdict.UNDECIDED
    assert jg.verify(right).verdict == Verdict.CONFIRMED
    everywhere = claim(
        switched, lambda x, y: {"x": jnp.where(y == 1, 7 * x, 3 * x**2)}, shapes, y="binary"
    )
    assert jg.verify(everywhere, evidence="certificate").verdict == Verdict.REFUTED


def test_a_power_that_only_labels_forgive_is_proved_at_no_sample_of_them():
    shapes = {"x": "12", "y": "12"}
    right = claim(lambda x, y: jnp.sum(y**3 * x), lambda x, y: {"x": y}, shapes, y="binary")
    assert (
        jg.verify(right, evidence="certificate").verdict == Verdict.UNDECIDED
    )  # of all real y it is wrong, of labels right
    assert jg.verify(right).verdict == Verdict.CONFIRMED


def padded(e, k):
    return jnp.sum(jnp.where(k == 2, 0.0, e[k] ** 2))


RARE = {
    "a padding index of 100": claim(
        padded,
        lambda e, k: {"e": jnp.zeros_like(e).at[k].add(2 * e[k])},
        {"e": "100", "k": "m"},
        k="index 100",
    ),
    "a padding index of 300": claim(
        padded,
        lambda e, k: {"e": jnp.zeros_like(e).at[k].add(2 * e[k])},
        {"e": "300", "k": "m"},
        k="index 300",
    ),
    "one class of 300": claim(
        lambda x, k: jnp.sum(x**2),
        lambda x, k: {"x": jnp.where(k == 137, 3 * x, 2 * x)},
        {"x": "n", "k": ""},
        k="index 300",
    ),
    "all of twelve": claim(
        lambda x, y: jnp.sum(x**2),
        lambda x, y: {"x": jnp.where(jnp.all(y == 1), 3 * x, 2 * x)},
        {"x": "n", "y": "12"},
        y="binary",
    ),
}


@pytest.mark.parametrize("evidence", ["certificate", "autodiff"])
@pytest.mark.parametrize("subject", RARE.values(), ids=RARE)
def test_of_many_values_each_comes_somewhere(subject, evidence):
    assert jg.verify(subject, evidence=evidence).verdict == Verdict.REFUTED


def test_given_labels_are_not_swept():
    subject = RARE["one class of 300"]
    assert (
        jg.verify(subject, evidence="autodiff", inputs={"k": np.array(5)}).verdict
        == Verdict.CONFIRMED
    )
    assert (
        jg.verify(subject, evidence="autodiff", inputs={"k": np.array(137)}).verdict
        == Verdict.REFUTED
    )
