"""The half width of an interval: right for skewed, heavy-tailed and rare chunk means, where
Student's t is not.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import t as student

import jaxgrad as jg
from jaxgrad.evidence.sampling.rare_events import rarities
from jaxgrad.evidence.sampling.sequential import Limits, Sequence
from jaxgrad.evidence.sampling.tails import Tails, log_odds
from jaxgrad.masks import (
    Bernoulli,
    FeatureBernoulli,
    FixedCount,
    MultiplicativeGaussian,
    RandomRatio,
)
from jaxgrad.reports.finding import Verdict

FALSE_ALARM = 1e-2
RUNS = 4000
LAWS = {
    "normal": (lambda rng, size: rng.standard_normal(size), 0.0),
    "exponential": (lambda rng, size: rng.exponential(size=size), 1.0),
    "lognormal": (lambda rng, size: rng.lognormal(0, 1, size), np.exp(0.5)),
    "lognormal, of infinite skewness to any sample": (
        lambda rng, size: rng.lognormal(0, 2, size),
        np.exp(2.0),
    ),
    "no third moment": (lambda rng, size: rng.pareto(2.5, size), 1 / 1.5),
    "one in thirty": (lambda rng, size: (rng.random(size) < 1 / 30).astype(float), 1 / 30),
}
"""Samples of a law, and its mean."""


def tails_of(law, chunks, per_chunk, seed=0):
    draw, mean = LAWS[law]
    rng = np.random.default_rng(seed)
    tails = Tails.empty(RUNS)
    tails.add(sum(draw(rng, (chunks, RUNS)) for _ in range(per_chunk)) / per_chunk)
    return tails, np.abs(tails.mean - mean)


@pytest.mark.parametrize("per_chunk", [1, 8])
@pytest.mark.parametrize("law", LAWS)
def test_the_mean_lies_beyond_its_half_width_no_more_often_than_stated(law, per_chunk):
    tails, off = tails_of(law, 512, per_chunk)
    alarms = np.mean(off > tails.half_width(log_odds(FALSE_ALARM, 1, 1)))
    assert alarms <= FALSE_ALARM + 3 * np.sqrt(FALSE_ALARM / RUNS)


def test_student_t_would_have_alarmed_many_times_as_often_as_stated():
    tails, off = tails_of("lognormal, of infinite skewness to any sample", 512, 1)
    alarms = np.mean(off > student.ppf(1 - FALSE_ALARM / 2, 511) * tails.standard_error())
    assert alarms > 5 * FALSE_ALARM


@pytest.mark.parametrize("law", ["normal", "exponential"])
def test_the_price_is_no_more_than_half_as_much_again_as_the_normal_law_would_give(law):
    tails, _ = tails_of(law, 8192, 1)
    width = np.median(tails.half_width(log_odds(1e-6, 1, 100)) / tails.standard_error())
    assert width < 1.5 * student.ppf(1 - 1e-6 / 200, 8191)


def test_power_sums_of_blocks_are_those_of_all_chunks_together():
    chunks = 1e6 + np.random.default_rng(0).exponential(size=(700, 3))
    together, apart = Tails.empty(3), Tails.empty(3)
    together.add(chunks)
    for block in np.split(chunks, [256, 300]):
        apart.add(block)
    off = chunks - chunks.mean(0)
    for tails in (together, apart):
        np.testing.assert_allclose(tails.mean, chunks.mean(0), rtol=1e-15)
        np.testing.assert_allclose(
            tails.standard_error(), chunks.std(0, ddof=1) / np.sqrt(700), rtol=1e-8
        )
        np.testing.assert_allclose(
            tails.kurtosis(), 3 + 2 * ((off**4).mean(0) / chunks.var(0) ** 2 - 3), rtol=1e-6
        )


@pytest.mark.parametrize("chunks", [0, 1, 2, 30])
def test_too_few_chunks_have_no_finite_interval(chunks):
    tails = Tails.empty(2)
    if chunks:
        tails.add(np.random.default_rng(0).standard_normal((chunks, 2)))
    assert np.all(np.isinf(tails.half_width(log_odds(1e-6, 1, 1))))


def sequence(draw, claimed, *, max_samples=2**14, resolution=0.05, seed=0):
    """Run a sequence over samples of a law, one a chunk."""
    rng = np.random.default_rng(seed)
    limits = Limits(FALSE_ALARM, resolution, max_samples, 1, 256)
    run = Sequence(np.array([claimed]), np.zeros(1), {"w": slice(0, 1)}, limits)
    return run.run(lambda first, chunks: draw(rng, (chunks, 1)))


@pytest.mark.parametrize(
    "law", ["lognormal, of infinite skewness to any sample", "no third moment"]
)
def test_heavy_tails_end_undecided_and_say_how_many_samples_are_needed(law):
    draw, mean = LAWS[law]
    found = [
        sequence(draw, mean, seed=seed, max_samples=2**11, resolution=0.01).finding("w", 0.0, "")
        for seed in range(20)
    ]
    assert {f.verdict for f in found} == {Verdict.UNDECIDED}
    assert any("too heavy tails" in f.detail for f in found)
    assert all("would be needed" in f.detail for f in found)


def test_the_number_of_samples_that_is_said_to_be_needed_is_right_within_a_factor_of_three():
    draw, mean = LAWS["exponential"]
    short = sequence(draw, mean, max_samples=2**10)
    needed = short.needed(slice(0, 1))
    long = [sequence(draw, mean, max_samples=2**18, seed=seed).samples for seed in range(1, 8)]
    assert all(
        run.verdicts["w"] == Verdict.CONFIRMED
        for run in [sequence(draw, mean, max_samples=2**18, seed=9)]
    )
    assert np.median(long) / 3 < needed < 3 * np.median(long)


@pytest.mark.parametrize("off", [0.1, -0.1])
def test_a_claim_that_is_off_is_refuted_under_skew_whichever_way_it_is_off(off):
    draw, mean = LAWS["exponential"]
    runs = [sequence(draw, mean * (1 + off), seed=seed).verdicts["w"] for seed in range(20)]
    assert set(runs) == {Verdict.REFUTED}


def verdict_of_a_still_sample(claimed, *, fixed=(), moving=0.0):
    limits = Limits(1e-6, 1e-2, 2**12, 1, 256)
    run = Sequence(np.array(claimed), np.full(2, 1e-6), {"w": slice(0, 2)}, limits, fixed=fixed)
    noise = moving * np.random.default_rng(0).standard_normal((2**12, 1))
    run.run(
        lambda first, chunks: (
            np.array([1.0, 0.0]) + noise[first : first + chunks] * [1, 0]
        ).astype(np.float32)
    )
    return run.verdicts["w"], run.finding("w", 0.0, "").detail


def test_entries_that_do_not_hang_on_the_mask_are_held_to_rounding_alone():
    verdict, detail = verdict_of_a_still_sample([1.0, 3e-6], fixed=["w"])
    assert verdict == Verdict.REFUTED and "the same in all samples" in detail
    assert verdict_of_a_still_sample([1.0, 3e-7], fixed=["w"])[0] == Verdict.CONFIRMED


def test_entries_that_hang_on_the_mask_and_were_the_same_in_all_samples_refute_nothing():
    for claimed in ([1.0, 3e-7], [1.0, 0.1]):
        verdict, detail = verdict_of_a_still_sample(claimed)
        assert verdict == Verdict.UNDECIDED and "all samples are the same" in detail
    assert (
        verdict_of_a_still_sample([1.0, 5e-3], moving=1e-2)[0] == Verdict.CONFIRMED
    )  # as others vary, and this is within the resolution
    verdict, detail = verdict_of_a_still_sample([1.0, 0.1], moving=1e-2)
    assert (
        verdict == Verdict.UNDECIDED
        and "an entry is off that was the same in all samples" in detail
    )
    verdict, detail = verdict_of_a_still_sample([1.1, 0.1], moving=1e-2)
    assert verdict == Verdict.REFUTED and "flat entry 0" in detail and "standard errors" in detail


def pattern(n, share, value):
    """A claim that hangs on one pattern of n coins, `share` of whose gradient 2 w comes from there,
    and `value` of it is claimed.
    """
    coins = np.random.default_rng(5).integers(0, 2, n)

    def loss(w, mask):
        hit = jnp.prod(jnp.where(coins == 1, mask, 1 - mask))
        return (1 - share + share * 2.0**n * hit) * jnp.sum(w**2)

    shapes = {"w": "3", "mask": str(n)}
    return jg.Derivation(
        name="pattern",
        loss=loss,
        gradient=lambda w, mask: {"w": 2 * value * w},
        shapes=shapes,
        mask=Bernoulli(0.5),
    )


@pytest.mark.parametrize(
    ("share", "value"),
    [(1.0, 1.0), (0.5, 1.0), (0.5, 0.5), (1.0, 0.0)],
    ids=["all", "half", "half, left out", "all, left out"],
)
def test_what_no_sample_has_shown_is_neither_refuted_nor_confirmed(share, value):
    """The mean of samples that were all the same is no expectation where the gradient hangs on the
    mask.
    """
    (finding,) = jg.verify(
        pattern(20, share, value), evidence="monte_carlo", max_samples=2**14
    ).findings
    assert finding.verdict == Verdict.UNDECIDED
    assert "may never have been drawn" in finding.detail or "no scale" in finding.detail


def test_samples_that_vary_within_what_rounding_may_do_are_not_told_to_be_the_same():
    """Where masked entries tie at zero, rounding alone chooses the median."""
    claim = jg.Derivation(
        name="median",
        loss=lambda x, mask: jnp.median(mask * x),
        gradient=lambda x, mask: {"x": 0.2 * jnp.ones_like(x)},
        shapes={"x": "3", "mask": "3"},
        mask=Bernoulli(0.5),
    )
    (finding,) = jg.verify(claim, evidence="monte_carlo", max_samples=2**14).findings
    assert finding.verdict == Verdict.UNDECIDED
    assert "rounding may move an entry by" in finding.detail and "the same" not in finding.detail


def test_what_does_not_hang_on_the_mask_is_decided_though_it_never_varies():
    for value, verdict in ((2.0, Verdict.CONFIRMED), (2.02, Verdict.REFUTED)):
        claim = jg.Derivation(
            name="beside",
            loss=lambda w, v, mask: jnp.sum(w**2) + jnp.sum(mask) * jnp.sum(v),
            shapes={"w": "3", "v": "2", "mask": "8"},
            gradient=lambda w, v, mask, value=value: {"w": value * w, "v": jnp.full(v.shape, 4.0)},
            mask=Bernoulli(0.5),
        )
        found = jg.verify(claim, evidence="monte_carlo").findings
        assert {finding.wrt: finding.verdict for finding in found} == {
            "v": Verdict.CONFIRMED,
            "w": verdict,
        }


@pytest.mark.parametrize("value", [1.0, 1.5], ids=["left out", "right"])
@pytest.mark.parametrize(
    ("mask", "event"),
    [
        (RandomRatio(1e-3, 1e-3), lambda m: 5e5 * m[0] * m[1]),
        (FixedCount(3), lambda m: 0.5 * 161700 * m[3] * m[50] * m[70]),
        (Bernoulli(0.5), lambda m: 2.0**19 * jnp.all((m[:20] > 0.5) == (np.arange(20) % 3 > 0))),
        (
            Bernoulli(0.5),
            lambda m: (
                2.0**19 * jax.nn.relu(2 * jnp.sum(jnp.sqrt(m[:20]) * (-1.0) ** np.arange(20)) - 19)
            ),
        ),
    ],
    ids=["ratio", "count", "comparison", "root"],
)
def test_whatever_event_was_never_drawn_is_neither_refuted_nor_confirmed(mask, event, value):
    claim = jg.Derivation(
        name="event",
        loss=lambda w, mask: w * (1 + event(mask)),
        gradient=lambda w, mask: {"w": value * jnp.ones_like(w)},
        shapes={"w": "", "mask": "100"},
        mask=mask,
    )
    (finding,) = jg.verify(claim, evidence="monte_carlo", max_samples=2**13).findings
    assert finding.verdict == Verdict.UNDECIDED


def test_a_column_of_zeros_is_confirmed_and_a_claim_that_is_wrong_there_alone_is_not():
    x = np.random.default_rng(0).random((20, 6))
    x[:, 2] = 0
    claim = jg.catalog.get("masked_autoencoder_bernoulli")
    assert jg.verify(claim, evidence="monte_carlo", inputs={"x": x}).verdict == Verdict.CONFIRMED

    def wrong(**named):
        gradient = dict(claim.gradient(**named))
        scale = jnp.abs(gradient["w1"]).max()
        return gradient | {"w1": gradient["w1"].at[:, 2].add(0.05 * scale)}

    off = jg.Derivation(
        name="off", loss=claim.loss, gradient=wrong, shapes=claim.shapes, mask=claim.mask
    )
    report = jg.verify(off, evidence="monte_carlo", inputs={"x": x})
    assert {f.wrt: f.verdict for f in report.findings} == {
        "w1": Verdict.UNDECIDED,
        "w2": Verdict.CONFIRMED,
    }
    assert "an entry is off that was the same in all samples" in report.findings[0].detail


def product_of(columns, keep, size):
    """A gradient that is 1 everywhere, and larger by far where all of some columns of row 0 are
    dropped.
    """

    def evaluate(masks):
        return 1 + size * np.prod(1 - masks[:, 0, columns], axis=-1, keepdims=True)

    mask, shape = FeatureBernoulli([keep] * 6), (2, 6)
    usual = np.random.default_rng(0).random((8, *shape)) < keep
    return rarities(mask, shape, evaluate, usual.astype(float), np.array([1e-6]), seed=0)


@pytest.mark.parametrize("columns", [[0, 3], [1, 2, 5], [0, 1, 2, 3, 4, 5]])
def test_a_rare_joint_event_is_found_with_its_probability(columns):
    found = product_of(columns, 0.99, 1e9)
    right = 0.01 ** len(columns)
    near = np.abs(np.log(found.probability / (2 * right))) < 1e-4  # either row
    assert np.any(near)
    assert found.allowance(1000, 20.0) >= right * 1e9 * 0.99


def test_an_event_that_must_have_happened_is_left_to_the_sample():
    found = product_of([0, 3], 0.99, 1e3)
    assert found.allowance(1e3, 20.0) > 0.099
    assert np.all(found.allowance(1e12, 20.0) == 0)


def test_a_gradient_that_no_event_moves_is_allowed_nothing():
    found = rarities(
        Bernoulli(0.999),
        (3, 4),
        lambda masks: np.ones((8, 5)),
        np.ones((8, 3, 4)),
        np.full(5, 1e-9),
        seed=0,
    )
    assert len(found.probability) == 0 and np.all(found.allowance(10, 20.0) == 0)


def test_rare_rows_of_a_mask_whose_rows_can_be_listed_are_tried():
    def evaluate(masks):
        return 1e6 * masks[:, :, 0].prod(axis=1, keepdims=True) * masks[:, :, 1]

    mask, usual = FixedCount(2), np.tile([0.0, 0, 0, 0, 1, 1], (8, 1, 1))
    found = rarities(mask, (1, 6), evaluate, usual, np.array([1e-9]), seed=0)
    assert np.any(np.isclose(found.probability, 1 / 15))


def test_masks_that_can_neither_be_listed_nor_built_have_no_events():
    found = rarities(
        MultiplicativeGaussian(0.5),
        (2, 3),
        lambda masks: masks[:, 0],
        np.ones((8, 2, 3)),
        np.full(3, 1e-9),
        seed=0,
    )
    assert len(found.probability) == 0


@pytest.mark.parametrize("power", [-950, -300, 300, 950])
def test_the_unit_of_the_numbers_does_not_matter(power):
    """Fourth powers of 1e-90 are 0 and of 1e90 infinite, where none are taken in other units."""
    chunks = np.random.default_rng(0).gamma(4, size=(600, 4)) * [1, 1e3, 0, 1]
    chunks[:300, 3] = 7  # what begins to vary late
    plain, scaled = Tails.empty(4), Tails.empty(4)
    for begin in (0, 200, 400):
        plain.add(chunks[begin : begin + 200])
        scaled.add(np.ldexp(chunks[begin : begin + 200], power))
    odds = log_odds(1e-3, 1, 4)
    np.testing.assert_array_equal(scaled.mean, np.ldexp(plain.mean, power))
    np.testing.assert_array_equal(scaled.standard_error(), np.ldexp(plain.standard_error(), power))
    np.testing.assert_array_equal(scaled.kurtosis(), plain.kurtosis())
    np.testing.assert_array_equal(scaled.half_width(odds), np.ldexp(plain.half_width(odds), power))
    assert np.all(np.isfinite(plain.half_width(odds))) and np.all(
        plain.standard_error()[[0, 1, 3]] > 0
    )
