"""verify: its options, its data, its errors, and what it leaves alone."""

import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad import Derivation, Verdict, masks
from jaxgrad.jaxprs.versions import enable_x64

AUTOENCODER = jg.catalog.get("autoencoder")
SQUARE = {
    "name": "square",
    "loss": lambda x: (x**2).sum(),
    "gradient": lambda x: {"x": 2 * x},
    "shapes": {"x": "m n"},
}


def test_equal_seeds_give_equal_reports():
    first, second = (jg.verify(AUTOENCODER, seed=4) for _ in range(2))
    assert [(f.evidence, f.wrt, f.error, f.bound) for f in first.findings] == [
        (f.evidence, f.wrt, f.error, f.bound) for f in second.findings
    ]


def test_every_input_that_is_differentiated_gets_every_evidence_that_applies():
    report = jg.verify(AUTOENCODER)
    assert {(f.evidence, f.wrt) for f in report.findings} == {
        (evidence, wrt)
        for evidence in ("certificate", "autodiff", "differences")
        for wrt in ("w1", "w2", "x")
    }
    masked = jg.verify(jg.catalog.get("masked_autoencoder_fixed_count"))
    assert {f.evidence for f in masked.findings} == {
        "certificate",
        "expectation",
        "differences",
        "monte_carlo",
    }


def test_evidence_that_was_asked_for_and_does_not_apply_is_undecided_with_the_reason():
    report = jg.verify(AUTOENCODER, evidence="monte_carlo")
    assert report.verdict == Verdict.UNDECIDED
    assert all("no mask" in finding.detail for finding in report.findings)


def test_progress_is_told():
    told = []
    jg.verify(AUTOENCODER, progress=lambda *event: told.append(event))
    assert {event[0] for event in told} >= {"autodiff", "differences"}
    assert all(0 <= fraction <= 1 for _, fraction, _ in told)


def test_a_gradient_is_checked_at_the_users_own_data():
    def loss(x):
        return jnp.sum(jnp.where(x > 5, 2 * x, x))

    claim = Derivation(
        name="only small numbers",
        loss=loss,
        gradient=lambda x: {"x": jnp.ones_like(x)},
        shapes={"x": "n"},
    )
    assert jg.verify(claim, evidence="autodiff").verdict == Verdict.CONFIRMED
    assert (
        jg.verify(claim, evidence="autodiff", inputs={"x": np.array([1.0, 7.0])}).verdict
        == Verdict.REFUTED
    )
    assert (
        jg.verify(claim, evidence="certificate").verdict == Verdict.REFUTED
    )  # that sees both branches without any data


@pytest.mark.parametrize("evidence", ["autodiff", "differences"])
def test_of_a_refuted_claim_the_largest_error_is_told_and_not_the_one_furthest_beyond_its_bound(
    evidence,
):
    scale, off = np.array([1e6, 1.0]), np.array([1e5, 1.0])
    claim = Derivation(
        name="c",
        loss=lambda x: jnp.sum(scale * x**2),
        gradient=lambda x: {"x": 2 * scale * x + off},
        shapes={"x": "2"},
    )
    (finding,) = jg.verify(claim, evidence=evidence, inputs={"x": np.ones(2)}).findings
    assert finding.verdict == Verdict.REFUTED
    assert finding.error == pytest.approx(1e5 / 2.1e6)
    assert finding.bound < 1e-6


def test_an_error_that_few_draws_meet_is_told_with_its_size():
    def loss(x):
        return jnp.sum(jnp.where(jnp.abs(x - 1.5) < 0.2, 2 * x, x))

    claim = Derivation(
        name="nearly a sum",
        loss=loss,
        gradient=lambda x: {"x": jnp.ones_like(x)},
        shapes={"x": "n"},
    )
    (finding,) = jg.verify(claim, evidence="autodiff").findings
    assert (finding.verdict, finding.error) == (Verdict.REFUTED, 0.5)
    assert "at a further draw" in finding.detail


def test_where_nothing_is_finite_no_error_is_told():
    claim = Derivation(
        name="c",
        loss=lambda x: jnp.sum(x**2),
        gradient=lambda x: {"x": x / jnp.zeros_like(x)},
        shapes={"x": "n"},
    )
    for finding in jg.verify(claim).findings:
        assert (finding.verdict, finding.error) == (Verdict.UNDECIDED, None)


def test_a_loss_of_complex_numbers_on_the_way_is_verified_without_a_warning():
    claim = Derivation(
        name="Parseval",
        loss=lambda x: jnp.sum(jnp.abs(jnp.fft.fft(x)) ** 2),
        gradient=lambda x: {"x": 2 * len(x) * x},
        shapes={"x": "n"},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jg.verify(claim).assert_confirmed()


def test_the_digits_verify_the_masked_autoencoder():
    from sklearn.datasets import load_digits

    digits = load_digits().data / 16
    assert digits.shape == (1797, 64)
    report = jg.verify(
        jg.catalog.get("masked_autoencoder_patches"), inputs={"x": digits}, evidence="monte_carlo"
    )
    report.assert_confirmed()
    assert all("m=1797" in finding.detail for finding in report.findings)


def test_the_digits_verify_the_plain_autoencoder():
    from sklearn.datasets import load_digits

    jg.verify(AUTOENCODER, inputs={"x": load_digits().data / 16}).assert_confirmed()


def test_jax_keeps_its_configuration():
    before = jax.config.values.copy()
    jg.verify(AUTOENCODER)
    jg.verify(jg.catalog.get("masked_autoencoder_bernoulli"))
    assert jax.config.values == before


@pytest.mark.parametrize("x64", ["0", "1"])
def test_verdicts_do_not_hang_on_the_global_precision(x64):
    code = (
        "import jaxgrad as jg; names = ['relu', 'masked_autoencoder_bernoulli']; "
        "print(*[jg.verify(jg.catalog.get(n)).verdict for n in names])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"JAX_ENABLE_X64": x64, "PATH": ""},
    )
    assert run.stdout.split() == ["confirmed", "confirmed"], run.stderr


def test_importing_the_package_imports_no_torch_and_no_terminal():
    code = (
        "import sys, jaxgrad; print([m for m in ('torch', 'rich', 'click', 'scipy', 'sklearn') "
        "if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == "[]"
    )


def test_verification_works_inside_a_user_s_own_x64_and_leaves_their_arrays_alone():
    x = np.ones((4, 5))
    x.setflags(write=False)
    with enable_x64(True):
        assert jg.verify(AUTOENCODER, inputs={"x": x}).verdict == Verdict.CONFIRMED


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seed": -1}, ValueError, "`seed`"),
        ({"seed": 1.5}, ValueError, "`seed`"),
        ({"false_alarm": 0.0}, ValueError, "`false_alarm`"),
        ({"resolution": 1.0}, ValueError, "`resolution`"),
        ({"max_samples": 1}, ValueError, "`max_samples`"),
        (
            {"evidence": "autodif"},
            ValueError,
            "'autodif' is unknown; choose among certificate, autodiff",
        ),
        ({"evidence": []}, ValueError, "`evidence` is empty"),
        ({"sizes": {"q": 3}}, ValueError, "`sizes` names q"),
        ({"sizes": {"m": -3}}, ValueError, "positive integer"),
        ({"inputs": {"z": np.ones(3)}}, ValueError, "'z', which is no input"),
        ({"inputs": {"x": np.ones(3)}}, ValueError, "has 2 axes"),
        ({"inputs": {"x": np.ones((3, 4)), "w1": np.ones((2, 5))}}, ValueError, "does not fit"),
        ({"inputs": {"x": np.ones((3, 4), int)}}, ValueError, "integer dtype"),
        ({"inputs": {"x": np.array([[1.0, np.nan]])}}, ValueError, r"nan at index \(0, 1\)"),
        ({"inputs": {"x": np.array([["a"]])}}, ValueError, "real numbers"),
        ({"inputs": {"x": np.ones((3, 4))}, "sizes": {"n": 5}}, ValueError, "does not fit"),
    ],
)
def test_bad_options_and_data_are_refused_by_name(options, error, message):
    with pytest.raises(error, match=message):
        jg.verify(AUTOENCODER, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradient": lambda x: {"y": x}}, "key 'y', which is no input"),
        ({"gradient": lambda x: {}}, "must return {input name: array}"),
        ({"gradient": lambda x: 2 * x}, "must return {input name: array}"),
        ({"gradient": lambda x: {"x": x.T}}, "the shape of the input is"),
        ({"gradient": lambda x: {"x": jnp.ones_like(x, int)}}, "it must be floating-point"),
        ({"loss": lambda x: x.sum(0)}, "`loss` is no scalar"),
        ({"loss": lambda x: (x.sum(), 1.0)}, "must return a real scalar or array"),
        ({"loss": lambda x: "zero"}, "`loss` returns 'zero'"),
        ({"loss": lambda x: None}, "`loss` returns None"),
        ({"gradient": lambda x: {"x": None}}, "`gradient` returns None"),
        ({"loss": lambda x: jnp.sum(x * 1j)}, "must return a real scalar or array"),
        ({"domains": {"x": "integer"}}, "only real arrays have gradients"),
    ],
)
def test_claims_that_cannot_be_right_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        jg.verify(Derivation(**{**SQUARE, **change}))


def test_a_masked_loss_must_be_a_scalar():
    claim = Derivation(
        name="array",
        loss=lambda x, mask: mask * x,
        gradient=lambda x, mask: {"x": x},
        shapes={"x": "m n", "mask": "m n"},
        mask=masks.Bernoulli(0.5),
    )
    with pytest.raises(ValueError, match="must be a scalar where there is a mask"):
        jg.verify(claim)


def test_what_is_no_derivation_is_refused():
    with pytest.raises(TypeError, match="`derivation`"):
        jg.verify("autoencoder")


def test_an_unknown_name_comes_with_the_nearest():
    with pytest.raises(ValueError, match="masked_autoencoder_patches"):
        jg.catalog.get("masked_autoencoder_patchs")


def test_a_gradient_may_be_a_jacobian_in_several_inputs():
    claim = Derivation(
        name="outer",
        loss=lambda a, b: jnp.outer(a, b),
        shapes={"a": "m", "b": "n"},
        gradient=lambda a, b: {
            "a": jnp.einsum("ik,j->ijk", jnp.eye(a.size), b),
            "b": jnp.einsum("i,jk->ijk", a, jnp.eye(b.size)),
        },
    )
    assert jg.verify(claim).verdict == Verdict.CONFIRMED


def test_a_loss_that_is_not_finite_confirms_nothing():
    claim = Derivation(
        name="logarithm of signed numbers",
        loss=lambda x: jnp.sum(jnp.log(x)),
        gradient=lambda x: {"x": 1 / x},
        shapes={"x": "m n"},
    )
    report = jg.verify(claim)
    assert report.verdict == Verdict.UNDECIDED
    assert any("narrower domain" in finding.detail for finding in report.findings)


def test_masks_without_variance_are_compared_to_rounding():
    entry = jg.catalog.get("masked_autoencoder_fixed_count")
    for seed in range(3):
        report = jg.verify(entry, sizes={"n": 1}, seed=seed)
        assert report.verdict == Verdict.CONFIRMED, str(report)


@pytest.mark.parametrize("seed", range(6))
def test_a_branch_that_a_draw_seldom_takes_is_looked_into(seed):
    def loss(x, y, w):
        return jnp.maximum(0, 1 - y * (x @ w))

    shapes = {"x": "n", "y": "", "w": "n"}
    gated = Derivation(
        name="hinge",
        loss=loss,
        gradient=lambda x, y, w: {"w": jnp.where(y * (x @ w) < 1, -y * x, 0)},
        shapes=shapes,
    )
    jg.verify(gated, seed=seed).assert_confirmed()
    ungated = Derivation(
        name="hinge without its gate",
        loss=loss,
        gradient=lambda x, y, w: {"w": -y * x},
        shapes=shapes,
    )
    assert jg.verify(ungated, seed=seed).verdict == Verdict.REFUTED


@pytest.mark.parametrize(
    "hinge",
    [
        lambda x: (x > 2.2) * (x - 2.2),
        lambda x: (x / 2.2).astype(int) * x,
        lambda x: jax.lax.top_k(jnp.append(x, 2.2), 1)[0],
    ],
    ids=["comparison", "conversion", "top_k"],
)
def test_branches_without_a_where_are_looked_into_too(hinge):
    forgotten = Derivation(
        name="hinge",
        loss=lambda x: jnp.sum(x**2) + 5 * jnp.sum(hinge(x)),
        gradient=lambda x: {"x": 2 * x},
        shapes={"x": "n"},
    )
    assert jg.verify(forgotten, seed=1, evidence="autodiff").verdict == Verdict.REFUTED


def moving(x, begin):
    return jnp.array(
        [sum(jnp.sum(x[i : i + 4]) for i in range(begin(j), j + 1)) for j in range(x.size)]
    )


LARGE = {
    "a stride of four": (
        lambda x: jnp.sum(x[::4] ** 2),
        lambda x: (2 * x).at[1:].set(0),
        lambda x: 2 * x * (jnp.arange(x.size) % 4 == 0),
    ),
    "one entry": (lambda x: jnp.sum(x**2), lambda x: (2 * x).at[3].multiply(2), lambda x: 2 * x),
    "set for add": (
        lambda x: jnp.sum(x[:-2] * x[2:]),
        lambda x: jnp.zeros_like(x).at[:-2].set(x[2:]).at[2:].set(x[:-2]),
        lambda x: jnp.zeros_like(x).at[:-2].set(x[2:]).at[2:].add(x[:-2]),
    ),
    "a window of four": (
        lambda x: jnp.sum(jnp.array([jnp.sum(x[i : i + 4]) for i in range(x.size)]) ** 2),
        lambda x: 2 * moving(x, lambda j: 0),
        lambda x: 2 * moving(x, lambda j: max(0, j - 3)),
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_mistake_that_shows_at_larger_sizes_alone_is_refuted_and_what_is_right_there_is_not(name):
    loss, wrong, right = LARGE[name]
    for gradient, verdict in (wrong, Verdict.REFUTED), (right, Verdict.CONFIRMED):
        claim = Derivation(
            name=name, loss=loss, gradient=lambda x, g=gradient: {"x": g(x)}, shapes={"x": "n"}
        )
        report = jg.verify(claim)
        assert report.verdict == verdict, str(report)
        assert all(
            " at x[" in f.diagnosis for f in report.findings if f.verdict == Verdict.REFUTED
        ), str(report)
    at = jg.verify(claim, sizes={"n": 3}, evidence="autodiff").findings[0]
    assert "n=7" not in at.detail


def test_larger_sizes_are_looked_at_in_an_expectation_too_and_skipped_where_a_claim_refuses_them():
    masked = {"shapes": {"x": "n", "mask": "n"}, "mask": jg.masks.Bernoulli(0.3)}

    def loss(x, mask):
        return jnp.sum((mask * x) ** 2)

    wrong = Derivation(
        name="entry",
        loss=loss,
        gradient=lambda x, mask: {"x": (2 * mask.prob * x).at[5].multiply(2)},
        **masked,
    )
    assert jg.verify(wrong, evidence="expectation").verdict == Verdict.REFUTED

    def small(x):
        assert x.size < 5
        return jnp.sum(x**2)

    jg.verify(
        Derivation(name="small", loss=small, gradient=lambda x: {"x": 2 * x}, shapes={"x": "n"})
    ).assert_confirmed()
