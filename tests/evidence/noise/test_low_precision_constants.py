"""Functions that close over data of float32 and narrower, and over what was computed of them
there.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad import Derivation, Verdict
from jaxgrad.evidence.noise.low_precision_constants import constant_unit
from jaxgrad.jaxprs.versions import enable_x64

DATA = np.random.default_rng(0).standard_normal((50, 20))
SINGLE = DATA.astype(np.float32)
TARGET = SINGLE[:, 0] + 1
GRAM, MOMENT = SINGLE.T @ SINGLE, SINGLE.T @ TARGET
WIDTH = np.float32(0.3)


def claim(loss, gradient, shape="20"):
    return Derivation(
        name="c", loss=loss, gradient=lambda w: {"w": gradient(w)}, shapes={"w": shape}
    )


def mean_square(data):
    return lambda w: jnp.mean((data @ w) ** 2)


def squares(w):
    return jnp.sum((SINGLE @ w - TARGET) ** 2)


RIGHT = {
    "scaled in numpy": claim(mean_square(SINGLE), lambda w: 2 / 50 * SINGLE.T @ (SINGLE @ w)),
    "scaled in JAX": claim(
        mean_square(jnp.asarray(SINGLE)), lambda w: 2 / 50 * jnp.asarray(SINGLE).T @ (SINGLE @ w)
    ),
    "not scaled": claim(mean_square(SINGLE), lambda w: 2 / 50 * (SINGLE.T @ (SINGLE @ w))),
    "normal equations": claim(squares, lambda w: 2 * (GRAM @ w - MOMENT)),
    "a scalar": claim(lambda w: jnp.sum((w / WIDTH) ** 2) / 2, lambda w: w / WIDTH**2, "n"),
}
WRONG = {
    "another factor": claim(mean_square(SINGLE), lambda w: 2 / 49 * SINGLE.T @ (SINGLE @ w)),
    "another sign": claim(squares, lambda w: 2 * (GRAM @ w + MOMENT)),
    "1%": claim(squares, lambda w: 2.02 * (GRAM @ w - MOMENT)),
    "not squared": claim(lambda w: jnp.sum((w / WIDTH) ** 2) / 2, lambda w: w / WIDTH, "n"),
}


@pytest.mark.parametrize("subject", RIGHT.values(), ids=RIGHT)
def test_what_float32_rounds_in_the_data_refutes_nothing(subject):
    report = jg.verify(subject)
    assert all(f.verdict != Verdict.REFUTED for f in report.findings)
    assert report.verdict == Verdict.CONFIRMED


@pytest.mark.parametrize("subject", WRONG.values(), ids=WRONG)
def test_what_is_wrong_by_more_is_refuted(subject):
    report = jg.verify(subject)
    assert report.verdict == Verdict.REFUTED
    assert all(f.verdict == Verdict.REFUTED for f in report.findings if f.evidence == "autodiff")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_data_of_sixteen_bits_confirm_nothing_that_is_wrong(dtype):
    data = jnp.asarray(DATA, dtype)
    right, wrong = (
        claim(mean_square(data), lambda w: 2 / 50 * data.T @ (data @ w)),
        claim(mean_square(data), lambda w: data.T @ (data @ w)),
    )
    for evidence in (None, "certificate"):
        assert jg.verify(right, evidence=evidence).verdict != Verdict.REFUTED
        assert jg.verify(wrong, evidence=evidence).verdict != Verdict.CONFIRMED
    exact = claim(mean_square(data), lambda w: 2 / 50 * (data.T @ (data @ w)))
    assert jg.verify(exact).verdict == Verdict.CONFIRMED
    ones = jnp.ones((50, 20), dtype)
    twice = claim(mean_square(ones), lambda w: 4 / 50 * (ones.T @ (ones @ w)))
    assert jg.verify(twice, evidence="certificate").verdict != Verdict.CONFIRMED


def test_where_the_data_are_narrow_the_finding_says_so():
    (finding,) = jg.verify(RIGHT["normal equations"], evidence="autodiff").findings
    assert "constants have unit roundoff 1e-07" in finding.detail
    assert 1e-7 < finding.detectable < 1e-3
    (sharp,) = jg.verify(RIGHT["not scaled"], evidence="autodiff").findings
    assert sharp.detectable < 1e-10


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_where_no_rounding_of_the_data_explains_an_error_it_is_refuted_however_coarse_they_are(
    dtype,
):
    data = jnp.asarray(DATA, dtype)
    right, twice = (
        claim(mean_square(data), lambda w, f=f: f / 50 * (data.T @ (data @ w))) for f in (2, 4)
    )
    for evidence in (None, "autodiff", "certificate", "differences"):
        assert jg.verify(right, evidence=evidence).verdict == Verdict.CONFIRMED
        assert jg.verify(twice, evidence=evidence).verdict == Verdict.REFUTED


SQUARE, MEAN = float(np.sum(SINGLE[:, 0] ** 2)) / 7, float(SINGLE.mean()) * 1.1
FIRST, WIDE = SINGLE[:, 0].astype(np.float64), GRAM.astype(np.float64)
SCALED = {
    "a number made of the data": claim(
        lambda w: jnp.sum((SINGLE @ w) ** 2) * jnp.sum(FIRST**2) / 7,
        lambda w: SQUARE * 2 * (SINGLE.T @ (SINGLE @ w)),
    ),
    "their mean": claim(
        lambda w: jnp.sum((SINGLE @ w) ** 2) * jnp.mean(np.float64(SINGLE)) * 1.1,
        lambda w: MEAN * 2 * (SINGLE.T @ (SINGLE @ w)),
    ),
    "a matrix made of them, then widened": claim(
        lambda w: jnp.sum((SINGLE @ w) ** 2) + jnp.sum(SINGLE @ w),
        lambda w: 2 * (WIDE @ w) + SINGLE.T @ np.ones(50),
    ),
    "both on both sides": claim(
        lambda w: jnp.sum((SINGLE @ w - TARGET) ** 2) + 0.1 * w @ GRAM @ w,
        lambda w: 2.2 * (GRAM @ w) - 2 * (SINGLE.T @ TARGET),
    ),
}


@pytest.mark.parametrize("subject", SCALED.values(), ids=SCALED)
def test_what_was_made_of_narrow_data_beside_them_refutes_nothing(subject):
    report = jg.verify(subject)
    assert all(f.verdict != Verdict.REFUTED for f in report.findings)
    assert report.verdict == Verdict.CONFIRMED


def of_a_property(dtype):
    """Return right claims that rest on what data of a type have but for rounding: sums of 1 or 0,
    symmetry, orthogonality.
    """
    with enable_x64(False):
        data = jnp.asarray(DATA[:, :4], dtype)
        shares = jax.nn.softmax(data, axis=1)
        centred = data - data.mean(0)
        turned = jnp.asarray([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]], dtype)
        axis = data[:, 0] / jnp.sqrt(jnp.sum(data[:, 0] ** 2))
        weighted = (data.T * (1 + data[:, 0] ** 2)) @ data
        square = float(jnp.sum((255 * data) ** 2))
    wide = np.asarray(data).astype(float)
    return {
        "soft labels": claim(
            lambda w: -jnp.sum(shares * jax.nn.log_softmax(w)),
            lambda w: jax.nn.softmax(w) - shares,
            "50 4",
        ),
        "centred": claim(
            lambda w: jnp.mean((centred @ w[1:] + w[0]) ** 2),
            lambda w: jnp.append(2 * w[0], 2 / 50 * (centred.T @ (centred @ w[1:]))),
            "5",
        ),
        "a rotation": claim(
            lambda w: jnp.sum((turned @ w - 1) ** 2),
            lambda w: 2 * (w - turned.T @ jnp.ones(2)),
            "2",
        ),
        "a unit vector": claim(
            lambda w: jnp.sum((w - axis * (axis @ w)) ** 2),
            lambda w: 2 * (w - axis * (axis @ w)),
            "50",
        ),
        "a symmetric matrix": claim(lambda w: w @ weighted @ w, lambda w: 2 * weighted @ w, "4"),
        "a number of many digits": claim(
            lambda w: jnp.sum((255 * wide @ w) ** 2) / jnp.sum((255 * wide) ** 2),
            lambda w: 2 * 255**2 * (data.T @ (data @ w)) / square,
            "4",
        ),
        "products that are rounded": claim(
            lambda w: jnp.sum((data @ w) ** 2), lambda w: 2 * (data.T @ data) @ w, "4"
        ),
    }


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", of_a_property(jnp.float32))
def test_what_data_have_but_for_rounding_refutes_nothing(name, dtype):
    report = jg.verify(of_a_property(dtype)[name])
    assert all(f.verdict != Verdict.REFUTED for f in report.findings)
    assert dtype != jnp.float32 or report.verdict == Verdict.CONFIRMED


def test_sampling_decides_nothing_that_narrow_constants_leave_open():
    data = DATA[:6, :4].astype(jnp.bfloat16)
    gram = data.astype(float).T @ data.astype(float)
    small, large = (
        Derivation(
            name="c",
            loss=lambda w, mask: jnp.mean(((mask * data) @ w) ** 2),
            shapes={"w": "4", "mask": "6 4"},
            mask=jg.masks.Bernoulli(0.8),
            gradient=lambda w, mask, f=f: {"w": f * 2 / 6 * (mask.second_moment(4) * gram @ w)},
        )
        for f in (1.001, 2)
    )
    assert jg.verify(small).verdict == Verdict.UNDECIDED
    assert jg.verify(small, evidence="monte_carlo").verdict == Verdict.UNDECIDED
    assert jg.verify(large).verdict == Verdict.REFUTED


def test_the_width_of_constants_is_seen_wherever_they_stand():
    with enable_x64(True):
        inside = jax.make_jaxpr(
            lambda x: jax.lax.scan(lambda c, t: (c * SINGLE[0, 0] + t, None), 0.0, x)[0]
        )(np.ones(3))
        assert constant_unit(inside) == np.finfo(np.float32).eps
        assert (
            constant_unit(jax.make_jaxpr(lambda x: x * 0.3 + 0.75 + DATA[0, 0])(np.ones(3)))
            == np.finfo(np.float64).eps
        )
        for number, unit in (
            (np.float16(0.3), 2.0**-10),
            (jnp.bfloat16(0.3), 2.0**-7),
            (47.25, 2.0**-52),
            (0.0078125, 2.0**-52),
        ):
            assert (
                constant_unit(jax.make_jaxpr(lambda x, n=float(number): x * n)(np.ones(3))) == unit
            )
        assert (
            constant_unit(
                jax.make_jaxpr(lambda x: x * jnp.asarray(DATA[0], jnp.bfloat16))(np.ones(20))
            )
            == 2.0**-7
        )
        for plain in (
            jnp.ones(20, jnp.float32),
            np.arange(20, dtype=np.float32),
            jnp.full(20, 0.75, jnp.bfloat16),
            np.arange(20),
        ):
            assert (
                constant_unit(jax.make_jaxpr(lambda x, plain=plain: x * plain)(np.ones(20)))
                == np.finfo(np.float64).eps
            )


NARROW = jnp.bfloat16(0.3)
HIDDEN = {
    "in a branch": Derivation(
        name="c",
        loss=lambda x: jnp.sum(NARROW * x**2 + jnp.where(x > 1.5, x**2, 0)),
        gradient=lambda x: {"x": NARROW * (2 * x) + jnp.where(x > 1.5, 2.8 * x, 0)},
        shapes={"x": "n"},
    ),
    "at a label": Derivation(
        name="c",
        loss=lambda x, y: jnp.sum(NARROW * x**2 * jnp.where(y == 2, 1.0, 3.0)),
        gradient=lambda x, y: {"x": NARROW * (2 * x) * jnp.where(y == 2, 1.4, 3.0)},
        shapes={"x": "n", "y": "n"},
        domains={"y": "index 12"},
    ),
    "a small term": Derivation(
        name="c",
        loss=lambda w: mean_square(SINGLE)(w) + np.float32(1e-6) * jnp.sum(w**2),
        gradient=lambda w: {"w": 2 / 50 * (SINGLE.T @ (SINGLE @ w))},
        shapes={"w": "20"},
    ),
}


@pytest.mark.parametrize("subject", HIDDEN.values(), ids=HIDDEN)
def test_narrow_constants_hide_no_error_of_a_branch_a_label_or_a_term(subject):
    for evidence in (None, "autodiff", "differences"):
        assert jg.verify(subject, evidence=evidence).verdict != Verdict.CONFIRMED


def test_sampling_alone_confirms_nothing_of_labels_it_did_not_draw():
    claim = Derivation(
        name="c",
        loss=lambda x, y, mask: jnp.sum((mask * x) ** 2 * jnp.where(y == 2, 1.0, 3.0)),
        gradient=lambda x, y, mask: {"x": 0.7 * 2 * x * jnp.where(y == 2, 2.0, 3.0)},
        shapes={"x": "4", "y": "4", "mask": "4"},
        domains={"y": "index 12"},
        mask=jg.masks.Bernoulli(0.7),
    )
    assert jg.verify(claim, evidence="monte_carlo").verdict != Verdict.CONFIRMED
    assert jg.verify(claim).verdict == Verdict.REFUTED


def test_data_that_are_given_in_sixteen_bits_are_data():
    subject = Derivation(
        name="c",
        loss=lambda X, w: jnp.sum((X @ w) ** 2) / 2,
        shapes={"X": "m d", "w": "d"},
        gradient=lambda X, w: {"w": X.T @ (X @ w)},
    )
    assert jg.verify(subject, inputs={"X": DATA.astype(jnp.bfloat16)}).verdict == Verdict.CONFIRMED
