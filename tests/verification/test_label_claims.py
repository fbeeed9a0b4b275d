"""How labels reach a claim: by the name of a domain, drawn by a function, given as data, and
through rules of functions.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad import Derivation, Verdict
from jaxgrad.claims.domains import count, decode
from jaxgrad.claims.labels import MOST, SOME, discrete_inputs, is_smooth, values
from jaxgrad.jaxprs.versions import enable_x64
from tests.claims.test_labels import RIGHT, TK, X, Z, claim, looked_up, switched

FUNCTIONS = {
    "signs": (lambda key, shape: jax.random.rademacher(key, shape, float), True),
    "classes": (lambda key, shape: jax.random.randint(key, shape, 0, 3), True),
    "truth": (lambda key, shape: jax.random.bernoulli(key, 0.5, shape), True),
    "always the same": (lambda key, shape: np.full(shape, 0.3), True),
    "halves": (lambda key, shape: np.asarray(jax.random.randint(key, shape, 0, 2)) / 2, True),
    "normal": (lambda key, shape: jax.random.normal(key, shape), False),
    "normal with zeros": (
        lambda key, shape: jax.random.normal(key, shape) * jax.random.bernoulli(key, 0.7, shape),
        False,
    ),
}


@pytest.mark.parametrize(("domain", "discrete"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_that_draws_from_a_few_values_is_seen_to_do_so(domain, discrete):
    subject = claim(lambda x, y: jnp.sum(x * y), lambda x, y: {"x": y.astype(float)}, X, y=domain)
    with enable_x64(True):
        assert discrete_inputs(subject, {"n": 4}) == ({"y"} if discrete else set())


def test_what_a_function_draws_is_no_generic_number_to_a_proof():
    wrong = claim(
        switched,
        lambda x, y: {"x": jnp.where(y == 1, 7 * x, 3 * x**2)},
        X,
        y=lambda key, shape: jax.random.rademacher(key, shape, float),
    )
    assert jg.verify(wrong, evidence="certificate").verdict == Verdict.REFUTED
    right = claim(
        switched, lambda x, y: {"x": jnp.where(y == 1, 2 * x, 3 * x**2)}, X, y=wrong.domains["y"]
    )
    (finding,) = jg.verify(right, evidence="certificate").findings
    assert (finding.verdict, "that were drawn, and there are others" in finding.detail) == (
        Verdict.UNDECIDED,
        True,
    )


@pytest.mark.parametrize("domain", ["binary", "sign", "one_hot", "index n", "index 2*n", "index 2"])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (1, 1, 2)])
def test_all_values_are_listed_once_each(domain, shape):
    sizes = {"n": shape[-1]}
    each, cells = count(domain, shape, sizes)
    arrays = decode(domain, np.array(list(itertools.product(range(each), repeat=cells))), shape)
    assert arrays.shape == (each**cells, *shape)
    assert len({array.tobytes() for array in arrays}) == each**cells
    drawn = claim(
        lambda y: jnp.sum(y * 1.0),
        lambda y: {"y": jnp.ones(shape)},
        {"y": " ".join(map(str, shape[:-1])) + " n"},
        y=domain,
    )
    known = {array.astype(float).tobytes() for array in arrays}
    with enable_x64(True):
        for seed in range(20):
            for special in (False, True):
                assert (
                    drawn.drawn([seed], sizes, special=special)["y"].astype(float).tobytes()
                    in known
                )


def test_so_many_values_are_listed_and_no_more():
    subject = claim(lambda y: jnp.sum(y), lambda y: {"y": jnp.ones_like(y)}, {"y": "n"}, y="binary")
    with enable_x64(True):
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
        ValueError,
        match=r"'index k' of `k` is unknown; use one of .*'index n' with n a size in `shapes`, or "
        r"a function",
    ):
        claim(looked_up, lambda t, k: {"t": t}, TK, k="index k")
    subject = RIGHT["rows of a table"]
    with pytest.raises(
        ValueError,
        match=r"the size n is unknown; pass sizes=\{'n': …\}, or an array that has this size",
    ):
        jg.verify(subject, inputs={"k": np.array([0, 5])})
    with pytest.raises(ValueError, match=r'must be from 0 to 4 by its domain "index n", but is 5'):
        jg.verify(subject, inputs={"k": np.array([0, 5])}, sizes={"n": 5})
    for dtype in (float, np.uint8, np.int32):  # as a file may hold them
        jg.verify(subject, inputs={"k": np.array([0, 5], dtype)}, sizes={"n": 6}).assert_confirmed()


def test_labels_of_a_small_type_do_not_wrap_around():
    subject = claim(
        lambda x, k: jnp.sum(x * (k - 3)),
        lambda x, k: {"x": k - 3.0},
        {"x": "n", "k": "n"},
        k="index 9",
    )
    jg.verify(
        subject, inputs={"k": np.array([0, 1, 8], np.uint8)}, evidence="autodiff"
    ).assert_confirmed()


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
    assert (
        "if these are labels, name their domain, such as 'binary'"
        in at_the_labels["certificate"].detail
    )
    assert jg.verify(right).verdict == Verdict.REFUTED  # of all real y
    wrong = claim(switched_logistic, lacking, Z)
    for evidence in ("autodiff", "differences"):
        assert jg.verify(wrong, inputs=GIVEN, evidence=evidence).verdict == Verdict.REFUTED
    assert jg.verify(wrong, inputs=GIVEN, evidence="certificate").verdict == Verdict.UNDECIDED


def test_given_data_of_few_values_that_steer_nothing_leave_a_proof_as_it_is():
    data = {"x": np.array([[0.0, 1.0, 2.0], [1.0, 1.0, 0.0]])}
    relu = claim(
        lambda w, x: jnp.sum(jax.nn.relu(x @ w)),
        lambda w, x: {"w": x.T @ (x @ w > 0).astype(float)},
        {"w": "n", "x": "m n"},
    )
    (proof,) = jg.verify(relu, inputs=data, evidence="certificate").findings
    assert proof.verdict == Verdict.CONFIRMED


CUSTOM = {
    "a function with a rule of JAX's": claim(
        lambda z, y: jnp.sum(jax.nn.relu(y) * z), lambda z, y: {"z": jax.nn.relu(y)}, Z, y="sign"
    ),
    "xlogy": claim(
        lambda z, y: -jnp.sum(jax.scipy.special.xlogy(y, jax.nn.sigmoid(z))),
        lambda z, y: {"z": -y * jax.nn.sigmoid(-z)},
        Z,
        y="binary",
    ),
    "a layer's product with a cotangent": Derivation.from_vjp(
        "rows",
        lambda e, k: e[k],
        lambda e, k, ct: {"e": jnp.zeros_like(e).at[k].add(ct)},
        {"e": "v d", "k": "m"},
        domains={"k": "index v"},
    ),
}


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
    lambda kept, ct: (
        ct[:, None] * (jax.nn.softmax(kept[0]) - jax.nn.one_hot(kept[1], kept[0].shape[1])),
        None,
    ),
)


@pytest.mark.parametrize(
    "domain",
    ["index 3", lambda key, shape: jax.random.randint(key, shape, 0, 3)],
    ids=["named", "drawn"],
)
def test_a_rule_of_ones_own_takes_indices(domain):
    plain = lambda z, k: -jnp.take_along_axis(jax.nn.log_softmax(z), k[:, None], 1)[:, 0]
    subject = Derivation.from_custom_vjp(
        fused, plain, {"z": "m 3", "k": "m"}, domains={"k": domain}
    )
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
    subject = claim(
        switched,
        lambda x, y: {"x": jnp.where(y == 1, 2 * x, 3 * x**2)},
        {"x": "40", "y": "40"},
        y="binary",
    )
    (finding,) = jg.verify(subject, evidence="autodiff").findings
    assert finding.verdict == Verdict.CONFIRMED
    assert finding.detectable < 1e-12


def test_no_rule_is_named_that_holds_in_one_branch_alone():
    subject = claim(switched, lambda x, y: {"x": jnp.where(y == 1, 2 * x, 2 * x**2)}, X, y="binary")
    report = jg.verify(subject)
    assert report.verdict == Verdict.REFUTED
    assert not any("exact in" in finding.diagnosis for finding in report.findings)
