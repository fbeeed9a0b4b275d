"""Labels and other discrete inputs: what is proved of them, and what is not."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad import Derivation, Verdict
from jaxgrad.discrete import MOST, SOME, discrete_inputs, is_smooth, values
from jaxgrad.domains import count, decode


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


Z, X, ZK, TK = {"z": "n", "y": "n"}, {"x": "n", "y": "n"}, {"z": "m n", "k": "m"}, {"t": "n", "k": "m"}


def classifier(w1, w2, x, k):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(jnp.tanh(x @ w1) @ w2), k[:, None], 1))


def classifier_gradient(w1, w2, x, k):
    h = jnp.tanh(x @ w1)
    d = (jax.nn.softmax(h @ w2) - jax.nn.one_hot(k, w2.shape[1])) / len(k)
    return {"w2": h.T @ d, "w1": x.T @ ((d @ w2.T) * (1 - h**2))}


RIGHT = {
    "logistic loss of labels 0 and 1": claim(logistic, lambda z, y: {"z": jax.nn.sigmoid(z) - y}, Z, y="binary"),
    "logistic loss of labels −1 and 1": claim(
        lambda z, y: jnp.sum(jnp.log1p(jnp.exp(-y * z))), lambda z, y: {"z": jax.nn.sigmoid(z) - (1 + y) / 2}, Z, y="sign"
    ),
    "hinge loss": claim(
        lambda z, y: jnp.sum(jnp.maximum(0, 1 - y * z)), lambda z, y: {"z": jnp.where(y * z < 1, -y, 0.0)}, Z, y="sign"
    ),
    "cross-entropy of an index": claim(
        cross_entropy, lambda z, k: {"z": jax.nn.softmax(z) - jax.nn.one_hot(k, z.shape[1])}, ZK, k="index n"
    ),
    "cross-entropy of one hot": claim(
        lambda z, k: -jnp.sum(k * jax.nn.log_softmax(z)), lambda z, k: {"z": jax.nn.softmax(z) - k},
        {"z": "m n", "k": "m n"}, k="one_hot",
    ),
    "a network of two layers": claim(
        classifier, classifier_gradient, {"w1": "n p", "w2": "p c", "x": "m n", "k": "m"}, k="index c"
    ),
    "rows of a table": claim(looked_up, lambda t, k: {"t": jnp.zeros_like(t).at[k].add(2 * t[k])}, TK, k="index n"),
    "a fixed number of classes": claim(
        looked_up, lambda t, k: {"t": jnp.zeros_like(t).at[k].add(2 * t[k])}, {"t": "3", "k": "m"}, k="index 3"
    ),
    "a switch": claim(switched, lambda x, y: {"x": jnp.where(y == 1, 2 * x, 3 * x**2)}, X, y="binary"),
    "a scalar": claim(lambda x, y: x**2 * y, lambda x, y: {"x": 2 * x * y}, {"x": "", "y": ""}, y="binary"),
    "what is right for 0 and 1 alone": claim(lambda x, y: jnp.sum(y**3 * x), lambda x, y: {"x": y}, X, y="binary"),
    "a gradient in the label": claim(lambda x, y: jnp.sum(y**2 * x), lambda x, y: {"y": 2 * y * x, "x": y}, X, y="binary"),
    "a tree of labels": claim(
        lambda x, y: jnp.sum(x * y["a"] * y["b"]), lambda x, y: {"x": y["a"] ** 2 * y["b"]},
        {"x": "2", "y": {"a": "2", "b": "2"}}, y="binary",
    ),
    "two kinds of labels": claim(
        lambda x, y, s: jnp.sum(y * s**2 * x), lambda x, y, s: {"x": y**2}, {"x": "n", "y": "n", "s": "n"}, y="binary", s="sign"
    ),
}  # fmt: skip
WRONG = {
    "logistic loss with the label's sign wrong": claim(logistic, lambda z, y: {"z": jax.nn.sigmoid(z) - 1 + y}, Z, y="binary"),
    "at one value of the label": claim(switched, lambda x, y: {"x": jnp.where(y == 1, 7 * x, 3 * x**2)}, X, y="binary"),
    "at the last class": claim(
        looked_up, lambda t, k: {"t": jnp.zeros_like(t).at[k].add(jnp.where(k == t.size - 1, 0, 2 * t[k]))}, TK, k="index n"
    ),
    "where an index comes twice": claim(looked_up, lambda t, k: {"t": jnp.zeros_like(t).at[k].set(2 * t[k])}, TK, k="index n"),
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
    subject = claim(lambda x, y: jnp.sum((y * x) ** 2), lambda x, y: {"x": 2 * y * x}, {"x": "", "y": ""}, y="binary")
    report = jg.verify(subject, evidence="certificate", seed=seed)
    report.assert_confirmed()
    assert not report.warnings
    nothing = claim(lambda x, y: jnp.sum(x) * y * (1 - y), lambda x, y: {"x": jnp.zeros_like(x)}, {"x": "n", "y": ""}, y="binary")
    (warning,) = jg.verify(nothing, evidence="certificate", seed=seed).warnings
    assert "vacuous" in warning


def test_whole_numbers_without_end_are_not_proved_by_some_of_them():
    right = claim(lambda x, k: jnp.sum(k * x**2), lambda x, k: {"x": 2 * k * x}, {"x": "n", "k": "n"}, k="integer")
    (finding,) = jg.verify(right, evidence="certificate").findings
    assert finding.verdict == Verdict.UNDECIDED
    assert finding.detail.startswith(f"proved at {SOME} values of k that were drawn, and there are others")
    assert jg.verify(right).verdict == Verdict.CONFIRMED


def test_where_there_are_many_values_a_proof_for_all_real_numbers_stands_if_both_sides_are_smooth():
    shapes = {"w": "n", "x": "12 n", "y": "12"}
    right = claim(lambda w, x, y: jnp.sum((x @ w - y) ** 2), lambda w, x, y: {"w": 2 * x.T @ (x @ w - y)}, shapes, y="binary")
    (finding,) = jg.verify(right, evidence="certificate").findings
    assert finding.verdict == Verdict.CONFIRMED
    assert "values of y" not in finding.detail
    wrong = claim(right.loss, lambda w, x, y: {"w": 2 * x.T @ (x @ w + y)}, shapes, y="binary")
    assert jg.verify(wrong, evidence="certificate").verdict == Verdict.REFUTED


def test_where_there_are_many_values_and_a_switch_a_proof_is_none():
    shapes = {"x": "12", "y": "12"}
    right = claim(switched, lambda x, y: {"x": jnp.where(y == 1, 2 * x, 3 * x**2)}, shapes, y="binary")
    (finding,) = jg.verify(right, evidence="certificate").findings
    assert finding.verdict == Verdict.UNDECIDED
    assert jg.verify(right).verdict == Verdict.CONFIRMED
    everywhere = claim(switched, lambda x, y: {"x": jnp.where(y == 1, 7 * x, 3 * x**2)}, shapes, y="binary")
    assert jg.verify(everywhere, evidence="certificate").verdict == Verdict.REFUTED


def test_a_power_that_only_labels_forgive_is_proved_at_no_sample_of_them():
    shapes = {"x": "12", "y": "12"}
    right = claim(lambda x, y: jnp.sum(y**3 * x), lambda x, y: {"x": y}, shapes, y="binary")
    assert jg.verify(right, evidence="certificate").verdict == Verdict.UNDECIDED  # of all real y it is wrong, of labels right
    assert jg.verify(right).verdict == Verdict.CONFIRMED


def padded(e, k):
    return jnp.sum(jnp.where(k == 2, 0.0, e[k] ** 2))


RARE = {
    "a padding index of 100": claim(
        padded, lambda e, k: {"e": jnp.zeros_like(e).at[k].add(2 * e[k])}, {"e": "100", "k": "m"}, k="index 100"
    ),
    "a padding index of 300": claim(
        padded, lambda e, k: {"e": jnp.zeros_like(e).at[k].add(2 * e[k])}, {"e": "300", "k": "m"}, k="index 300"
    ),
    "one class of 300": claim(
        lambda x, k: jnp.sum(x**2), lambda x, k: {"x": jnp.where(k == 137, 3 * x, 2 * x)}, {"x": "n", "k": ""}, k="index 300"
    ),
    "all of twelve": claim(
        lambda x, y: jnp.sum(x**2), lambda x, y: {"x": jnp.where(jnp.all(y == 1), 3 * x, 2 * x)}, {"x": "n", "y": "12"}, y="binary"
    ),
}  # fmt: skip


@pytest.mark.parametrize("evidence", ["certificate", "autodiff"])
@pytest.mark.parametrize("subject", RARE.values(), ids=RARE)
def test_of_many_values_each_comes_somewhere(subject, evidence):
    assert jg.verify(subject, evidence=evidence).verdict == Verdict.REFUTED


def test_given_labels_are_not_swept():
    subject = RARE["one class of 300"]
    assert jg.verify(subject, evidence="autodiff", inputs={"k": np.array(5)}).verdict == Verdict.CONFIRMED
    assert jg.verify(subject, evidence="autodiff", inputs={"k": np.array(137)}).verdict == Verdict.REFUTED


FUNCTIONS = {
    "signs": (lambda key, shape: jax.random.rademacher(key, shape, float), True),
    "classes": (lambda key, shape: jax.random.randint(key, shape, 0, 3), True),
    "truth": (lambda key, shape: jax.random.bernoulli(key, 0.5, shape), True),
    "always the same": (lambda key, shape: np.full(shape, 0.3), True),
    "halves": (lambda key, shape: np.asarray(jax.random.randint(key, shape, 0, 2)) / 2, True),
    "normal": (lambda key, shape: jax.random.normal(key, shape), False),
    "normal with zeros": (lambda key, shape: jax.random.normal(key, shape) * jax.random.bernoulli(key, 0.7, shape), False),
}


@pytest.mark.parametrize(("domain", "discrete"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_that_draws_from_a_few_values_is_seen_to_do_so(domain, discrete):
    subject = claim(lambda x, y: jnp.sum(x * y), lambda x, y: {"x": y.astype(float)}, X, y=domain)
    with jax.enable_x64(True):
        assert discrete_inputs(subject, {"n": 4}) == ({"y"} if discrete else set())


def test_what_a_function_draws_is_no_generic_number_to_a_proof():
    wrong = claim(
        switched,
        lambda x, y: {"x": jnp.where(y == 1, 7 * x, 3 * x**2)},
        X,
        y=lambda key, shape: jax.random.rademacher(key, shape, float),
    )
    assert jg.verify(wrong, evidence="certificate").verdict == Verdict.REFUTED
    right = claim(switched, lambda x, y: {"x": jnp.where(y == 1, 2 * x, 3 * x**2)}, X, y=wrong.domains["y"])
    (finding,) = jg.verify(right, evidence="certificate").findings
    assert (finding.verdict, "that were drawn, and there are others" in finding.detail) == (Verdict.UNDECIDED, True)


@pytest.mark.parametrize("domain", ["binary", "sign", "one_hot", "index n", "index 2*n", "index 2"])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 1, 2)])
def test_all_values_are_listed_once_each(domain, shape):
    sizes = {"n": shape[-1]}
    each, cells = count(domain, shape, sizes)
    arrays = decode(domain, np.array(list(itertools.product(range(each), repeat=cells))), shape)
    assert arrays.shape == (each**cells, *shape)
    assert len({array.tobytes() for array in arrays}) == each**cells
    drawn = claim(lambda y: jnp.sum(y * 1.0), lambda y: {"y": jnp.ones(shape)}, {"y": " ".join(map(str, shape[:-1])) + " n"}, y=domain)
    known = {array.astype(float).tobytes() for array in arrays}
    with jax.enable_x64(True):
        for seed in range(20):
            for special in (False, True):
                assert drawn.drawn([seed], sizes, special=special)["y"].astype(float).tobytes() in known


def test_so_many_values_are_listed_and_no_more():
    subject = claim(lambda y: jnp.sum(y), lambda y: {"y": jnp.ones_like(y)}, {"y": "n"}, y="binary")
    with jax.enable_x64(True):
        every = values(subject, {"n": 8}, {"y"}, 8)
        assert every.every and every.stacked["y"].shape == (MOST, 8)
        some = values(subject, {"n": 9}, {"y"}, 9)
        assert not some.every and some.stacked["y"].shape == (SOME + 2, 9)
        assert {0.0, 9.0} <= set(some.stacked["y"].sum(-1))
        assert not values(subject, {"n": 8}, {"y"}, 1000).every


def test_smooth_operations_inside_of_calls_and_conversions():
    def smooth(f, *marked):
        return is_smooth(jax.make_jaxpr(f)(jnp.ones(3), jnp.ones(3)).jaxpr, list(marked))

    assert smooth(lambda x, y: jax.jit(lambda y: jnp.exp(y) * 2)(y) + jnp.abs(x), False, True)
    assert not smooth(lambda x, y: jax.jit(lambda y: jnp.abs(y))(y) + x, False, True)
    assert not smooth(lambda x, y: x / y, False, True)
    assert not smooth(lambda x, y: y**-2 + x, False, True)
    assert smooth(lambda x, y: y**3 + 1 / x, False, True)
    assert not smooth(lambda x, y: x[y.astype(int)], False, True)
    assert not smooth(lambda x, y: jax.lax.cond(y[0] > 0, lambda: x, lambda: 2 * x), False, True)
    assert smooth(lambda x, y: y.astype(jnp.float16) + x, False, True)


def test_an_index_wants_a_size():
    with pytest.raises(
        ValueError, match=r"'index k' of `k` is unknown; use one of .*'index n' with n a size in `shapes`, or a function"
    ):
        claim(looked_up, lambda t, k: {"t": t}, TK, k="index k")
    subject = RIGHT["rows of a table"]
    with pytest.raises(ValueError, match=r"nothing says how large n is; pass sizes=\{'n': …\}, or an array that has this size"):
        jg.verify(subject, inputs={"k": np.array([0, 5])})
    with pytest.raises(ValueError, match=r'has 5 at index .*its domain "index n" wants numbers from 0 to 4'):
        jg.verify(subject, inputs={"k": np.array([0, 5])}, sizes={"n": 5})
    for dtype in (float, np.uint8, np.int32):  # as a file may hold them
        jg.verify(subject, inputs={"k": np.array([0, 5], dtype)}, sizes={"n": 6}).assert_confirmed()


def test_labels_of_a_small_type_do_not_wrap_around():
    subject = claim(lambda x, k: jnp.sum(x * (k - 3)), lambda x, k: {"x": k - 3.0}, {"x": "n", "k": "n"}, k="index 9")
    jg.verify(subject, inputs={"k": np.array([0, 1, 8], np.uint8)}, evidence="autodiff").assert_confirmed()


def lacking(z, y):
    """A gradient of `switched_logistic` that is wrong where y is 1."""
    return {"z": jnp.where(y == 1, -2 * jax.nn.sigmoid(-z), jax.nn.sigmoid(z))}


def switched_logistic(z, y):
    return -jnp.sum(jnp.where(y == 1, jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)))


GIVEN = {"y": np.array([0.0, 1.0, 1.0])}


def test_labels_that_are_given_without_a_domain_are_not_moved_and_not_taken_for_generic_numbers():
    right = claim(switched_logistic, lambda z, y: {"z": jax.nn.sigmoid(z) - y}, Z)
    at_the_labels = {f.evidence: f for f in jg.verify(right, inputs=GIVEN).findings}
    assert at_the_labels["autodiff"].verdict == Verdict.CONFIRMED
    assert at_the_labels["certificate"].verdict == Verdict.UNDECIDED
    assert "if these are labels, name their domain, such as 'binary'" in at_the_labels["certificate"].detail
    assert jg.verify(right).verdict == Verdict.REFUTED  # of all real y
    wrong = claim(switched_logistic, lacking, Z)
    for evidence in ("autodiff", "differences"):
        assert jg.verify(wrong, inputs=GIVEN, evidence=evidence).verdict == Verdict.REFUTED
    assert jg.verify(wrong, inputs=GIVEN, evidence="certificate").verdict == Verdict.UNDECIDED


def test_given_data_of_few_values_that_steer_nothing_leave_a_proof_as_it_is():
    data = {"x": np.array([[0.0, 1.0, 2.0], [1.0, 1.0, 0.0]])}
    relu = claim(lambda w, x: jnp.sum(jax.nn.relu(x @ w)), lambda w, x: {"w": x.T @ (x @ w > 0).astype(float)}, {"w": "n", "x": "m n"})
    (proof,) = jg.verify(relu, inputs=data, evidence="certificate").findings
    assert proof.verdict == Verdict.CONFIRMED


CUSTOM = {
    "a function with a rule of JAX's": claim(lambda z, y: jnp.sum(jax.nn.relu(y) * z), lambda z, y: {"z": jax.nn.relu(y)}, Z, y="sign"),
    "xlogy": claim(
        lambda z, y: -jnp.sum(jax.scipy.special.xlogy(y, jax.nn.sigmoid(z))), lambda z, y: {"z": -y * jax.nn.sigmoid(-z)}, Z, y="binary"
    ),
    "a layer's product with a cotangent": Derivation.from_vjp(
        "rows", lambda e, k: e[k], lambda e, k, ct: {"e": jnp.zeros_like(e).at[k].add(ct)}, {"e": "v d", "k": "m"},
        domains={"k": "index v"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("subject", CUSTOM.values(), ids=CUSTOM)
def test_labels_go_through_functions_with_rules(subject):
    report = jg.verify(subject)
    report.assert_confirmed()
    assert {f.verdict for f in report.findings} == {Verdict.CONFIRMED}


@jax.custom_vjp
def fused(z, k):
    return -jnp.take_along_axis(jax.nn.log_softmax(z), k[:, None], 1)[:, 0]


fused.defvjp(
    lambda z, k: (fused(z, k), (z, k)),
    lambda kept, ct: (ct[:, None] * (jax.nn.softmax(kept[0]) - jax.nn.one_hot(kept[1], kept[0].shape[1])), None),
)


@pytest.mark.parametrize("domain", ["index 3", lambda key, shape: jax.random.randint(key, shape, 0, 3)], ids=["named", "drawn"])
def test_a_rule_of_ones_own_takes_indices(domain):
    plain = lambda z, k: -jnp.take_along_axis(jax.nn.log_softmax(z), k[:, None], 1)[:, 0]
    subject = Derivation.from_custom_vjp(fused, plain, {"z": "m 3", "k": "m"}, domains={"k": domain})
    assert jg.verify(subject, evidence="autodiff").verdict == Verdict.CONFIRMED


def halves(key, shape):
    return jax.random.choice(key, jnp.array([-0.5, 0.5]), shape)


def quarters(key, shape):
    return jax.random.choice(key, jnp.array([0.0, 0.25, 0.5, 1.0]), shape)


@pytest.mark.parametrize(("domain", "value"), [(halves, 0.5), (quarters, 1.0)])
@pytest.mark.parametrize("shape", ["", "m"])
@pytest.mark.parametrize("seed", range(2))
def test_values_between_whole_numbers_are_few_too(domain, value, shape, seed):
    wrong = claim(
        lambda z, y: jnp.sum((y * z) ** 2),
        lambda z, y: {"z": 2 * y**2 * z * (1 + 0.5 * (y == value))},
        {"z": shape, "y": shape},
        y=domain,
    )
    assert jg.verify(wrong, seed=seed).verdict == Verdict.REFUTED
    assert jg.verify(wrong, seed=seed, evidence="certificate").verdict != Verdict.CONFIRMED


def test_noise_leaves_labels_alone():
    subject = claim(switched, lambda x, y: {"x": jnp.where(y == 1, 2 * x, 3 * x**2)}, {"x": "40", "y": "40"}, y="binary")
    (finding,) = jg.verify(subject, evidence="autodiff").findings
    assert finding.verdict == Verdict.CONFIRMED
    assert finding.detectable < 1e-12


def test_no_rule_is_named_that_holds_in_one_branch_alone():
    subject = claim(switched, lambda x, y: {"x": jnp.where(y == 1, 2 * x, 2 * x**2)}, X, y="binary")
    report = jg.verify(subject)
    assert report.verdict == Verdict.REFUTED
    assert not any("exactly" in finding.diagnosis for finding in report.findings)
