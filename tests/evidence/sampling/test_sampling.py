"""Monte Carlo estimates: their means, standard errors and chunks, and the sequential verdict."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad import Verdict, masks
from jaxgrad.evidence.sampling.loop import MEMORY_BUDGET, Sampler
from jaxgrad.evidence.sampling.moments import Moments
from jaxgrad.jaxprs.versions import enable_x64


def loss(x, w1, w2, mask):
    return jnp.mean(((mask * x) @ w1.T @ w2.T - x) ** 2)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    return [
        jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((6, 4), (3, 4), (4, 3))
    ]


@pytest.mark.quick
def test_the_estimated_gradient_is_the_exact_one_within_its_standard_errors(problem):
    x, w1, w2 = problem
    mask = masks.Bernoulli(0.6)
    found = jg.estimate(loss, mask, (6, 4), argnums=(1, 2))(
        jax.random.key(1), x, w1, w2, samples=20_000
    )
    b = w2 @ w1
    a = b @ (mask.second_moment(4) * (x.T @ x)) - x.T @ (mask.mean(4) * x)
    exact = 2 / x.size * w2.T @ a, 2 / x.size * a @ w1.T
    for mean, error, right in zip(found.mean, found.standard_error, exact, strict=True):
        assert mean.dtype == np.float64 and mean.shape == right.shape
        assert np.all(np.abs(mean - right) < 5.5 * error)
        assert np.all(error < 0.02 * np.abs(right).max())


def test_standard_errors_are_neither_too_small_nor_too_large():
    f = jg.estimate(lambda mask: mask.sum(), masks.Bernoulli(0.3), (5,))
    runs = [f(jax.random.key(seed), samples=640) for seed in range(400)]
    z = np.array([(run.mean - 1.5) / run.standard_error for run in runs])
    assert abs(z.mean()) < 4 / np.sqrt(400)
    assert (
        0.85 < z.std() < 1.2
    )  # Student's t with 31 degrees of freedom or more has 1.03; four errors of it are 0.15


@pytest.mark.quick
def test_any_pytree_may_be_averaged():
    f = jg.estimate(
        lambda scale, mask: {"a": scale * mask, "b": (mask.sum(),)}, masks.FixedCount(2), (3, 4)
    )
    found = f(jax.random.key(0), jnp.float32(2.0), samples=1000)
    assert found.mean["a"].shape == (3, 4)
    assert abs(found.mean["b"][0] - 6.0) < 1e-5 and found.standard_error["b"][0] < 1e-5
    assert found.samples >= 1000


@pytest.mark.quick
def test_chunks_do_not_depend_on_how_many_run_in_a_round(problem):
    sampler = Sampler(loss, masks.Bernoulli(0.5), (6, 4), 1)
    key = jax.random.key(3)
    whole = sampler.round(key, tuple(problem), 0, 16, 8)
    parts = np.concatenate([sampler.round(key, tuple(problem), first, 16, 4) for first in (0, 4)])
    np.testing.assert_array_equal(whole, parts)


@pytest.mark.quick
def test_chunk_moments_merge_to_those_of_all_chunks():
    rng = np.random.default_rng(0)
    chunks = rng.standard_normal((37, 5)) + 1e6
    moments = Moments.empty(5)
    for part in np.split(chunks, [1, 5, 20]):
        moments.add(part)
    np.testing.assert_allclose(moments.mean, chunks.mean(0), rtol=1e-14)
    np.testing.assert_allclose(
        moments.standard_error(), chunks.std(0, ddof=1) / np.sqrt(37), rtol=1e-8
    )


@pytest.mark.parametrize(
    "exponents", [(-300, -300, -300), (0, -200, -200), (-200, 0, 300), (300, 300, 0), (0, 0, 0)]
)
def test_standard_errors_hold_where_float64_does_not_hold_the_squares(exponents):
    rng = np.random.default_rng(1)
    parts = [
        10.0**exponent * rng.standard_normal((count, 3))
        for exponent, count in zip(exponents, (1, 9, 20), strict=True)
    ]
    parts[1][:, 2] = parts[0][0, 2]
    moments = Moments.empty(3)
    for part in parts:
        moments.add(part)
    chunks = np.concatenate(parts)
    unit = np.abs(chunks).max(0)
    np.testing.assert_allclose(
        moments.standard_error() / unit, (chunks / unit).std(0, ddof=1) / np.sqrt(30), rtol=1e-8
    )


@pytest.mark.parametrize("scale", [1e-290, 1e-170, 1e170, 1e290])
def test_an_estimate_of_numbers_of_any_size_has_its_standard_error(scale):
    with enable_x64(True):
        f = jg.estimate(lambda c, mask: c * mask.sum(), masks.Bernoulli(0.3), (5,))
        one, found = (f(jax.random.key(0), c, samples=640) for c in (1.0, scale))
    assert one.standard_error > 0
    np.testing.assert_allclose(
        (found.mean / scale, found.standard_error / scale),
        (one.mean, one.standard_error),
        rtol=1e-10,
    )


def test_a_chunk_s_mean_does_not_depend_on_how_many_are_run():
    def cumulative(x, w, mask):
        h = jnp.cumsum((mask * x) @ w, axis=0)
        return jnp.mean(h * (jnp.cumprod(jnp.tanh(x @ w) + 1, axis=1))) + jnp.mean(
            jax.lax.cumlogsumexp(h, axis=1)
        )

    x, w = (
        jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(16, 24), (24, 20)])
    )
    rows = [
        Sampler(cumulative, masks.Bernoulli(0.6), (16, 24), (0, 1)).round(
            jax.random.key(1), (x, w), 3, 16, n
        )
        for n in (1, 2, 7)
    ]
    assert all((row[0] == rows[0][0]).all() for row in rows)


def test_a_round_of_fewer_chunks_needs_no_program_of_its_own(problem):
    sampler = Sampler(loss, masks.Bernoulli(0.5), (6, 4), (1, 2))
    whole = sampler.round(jax.random.key(1), tuple(problem), 0, 16, 8)
    compiled = {name: programs for name, (_, programs) in sampler._loops.items()}
    assert (sampler.round(jax.random.key(1), tuple(problem), 0, 16, 3) == whole[:3]).all()
    assert compiled == {name: programs for name, (_, programs) in sampler._loops.items()}


def test_keys_of_every_kind_are_taken_one_after_the_other():
    estimate = jg.estimate(lambda x, mask: (mask * x).sum(), masks.Bernoulli(0.5), (3,))
    for key in (jax.random.key(0), jax.random.PRNGKey(0), jax.random.key(0, impl="rbg")):
        found = estimate(key, jnp.ones(3), samples=1000)
        assert abs(found.mean - 1.5) < 6 * found.standard_error


def test_a_python_number_keeps_the_types_of_the_function_as_jax_does():
    def scaled(x, s, mask):
        return (mask.astype(x.dtype) * x * s).sum()

    for promotion in ("standard", "strict"):
        with enable_x64(True), jax.numpy_dtype_promotion(promotion):
            found = jg.estimate(scaled, masks.Bernoulli(1.0), (3,))(
                jax.random.key(0), jnp.ones(3, jnp.float32), 2.5, samples=64
            )
            assert found.mean == 7.5


@pytest.mark.parametrize("x64", [False, True])
def test_under_jit_an_estimate_of_known_numbers_is_known_and_of_others_refused(x64):
    with enable_x64(x64):
        key, x, mask = jax.random.key(0), jnp.ones(3), masks.Bernoulli(0.5)
        estimate = jg.estimate(lambda x, mask: (mask * x).sum(), mask, (3,))
        inside = jax.jit(lambda: jnp.asarray(estimate(key, x, samples=64).mean))()
        assert inside == estimate(key, x, samples=64).mean
        with jax.disable_jit():
            assert inside == estimate(key, x, samples=64).mean
        with pytest.raises(TypeError, match="argument 0 of `f` is traced"):
            jax.jit(lambda x: estimate(key, x, samples=64).mean)(x)
        with pytest.raises(TypeError, match="`key` is traced"):
            jax.vmap(lambda key: estimate(key, x, samples=64).mean)(jax.random.split(key, 2))
        with pytest.raises(TypeError, match="`mask` is traced"):
            jax.grad(
                lambda p: (
                    jg.estimate(lambda mask: mask.sum(), masks.Bernoulli(p), (3,))(
                        key, samples=64
                    ).mean
                )
            )(0.5)


def test_memory_is_bounded_whatever_the_number_of_samples(problem):
    sampler = Sampler(loss, masks.Bernoulli(0.5), (6, 4), (1, 2))
    known = sampler.known(tuple(problem))
    for samples in (10**3, 10**6, 10**9):
        chunk, chunks = sampler.plan(known, samples)
        assert chunk * known.one <= MEMORY_BUDGET
        assert chunks * 4 * (12 + 12) <= MEMORY_BUDGET


@pytest.mark.parametrize("samples", [0, 1, -5, 2.5])
def test_a_number_of_samples_that_is_none_is_refused(samples):
    with pytest.raises(ValueError, match="`samples`"):
        jg.estimate(lambda mask: mask.sum(), masks.Bernoulli(0.5), (3,))(
            jax.random.key(0), samples=samples
        )


def wrong_by(factor):
    right = jg.catalog.get("masked_autoencoder_bernoulli")
    return jg.Derivation(
        name=f"off by {factor}",
        loss=right.loss,
        gradient=lambda **inputs: {
            name: factor * g for name, g in right.gradient(**inputs).items()
        },
        shapes=right.shapes,
        mask=right.mask,
    )


def test_sampling_stops_early_on_a_gross_error_and_samples_longer_on_a_fine_one():
    def samples(factor):
        findings = jg.verify(wrong_by(factor), evidence="monte_carlo").findings
        assert {f.verdict for f in findings} == {Verdict.REFUTED}
        return max(int(f.detail.split()[0]) for f in findings)

    assert samples(3.0) < samples(1.012)


@pytest.mark.quick
@pytest.mark.parametrize("seed", range(4))
def test_an_error_beyond_the_resolution_is_never_confirmed_and_one_below_it_never_needs_more(seed):
    assert jg.verify(wrong_by(1.02), evidence="monte_carlo", seed=seed).verdict != Verdict.CONFIRMED
    assert jg.verify(wrong_by(1.0), evidence="monte_carlo", seed=seed).verdict == Verdict.CONFIRMED


@pytest.mark.quick
def test_too_few_samples_leave_it_undecided_and_say_how_many_are_needed():
    report = jg.verify(wrong_by(1.0), evidence="monte_carlo", max_samples=512)
    assert report.verdict == Verdict.UNDECIDED
    assert all("would be needed" in finding.detail for finding in report.findings)


@pytest.mark.quick
def test_a_loss_too_badly_conditioned_for_float32_is_sampled_in_float64():
    right = jg.catalog.get("masked_autoencoder_bernoulli")
    shifted = jg.Derivation(
        name="shifted",
        loss=lambda **inputs: (
            jnp.sum((jnp.sqrt(right.loss(**inputs)) + 1e6) ** 2) / 1e6
            - 1e6
            - right.loss(**inputs) / 1e6
        ),
        gradient=lambda x, w1, w2, mask: {"w1": jnp.zeros_like(w1)},
        shapes=right.shapes,
        mask=right.mask,
    )
    assert jg.verify(shifted, evidence="monte_carlo").verdict == Verdict.REFUTED


EXACT = [(jnp.float16, 1000.0), (jnp.bfloat16, 64.0), (jnp.float32, 1e6), (jnp.float32, 1.0)]


@pytest.mark.parametrize(("dtype", "offset"), EXACT)
def test_the_standard_error_holds_what_rounding_adds(dtype, offset, samples=100_000):
    """w and w + 1 are exact in each of these types, so that the true mean and standard error are
    known.
    """
    found = jg.estimate(lambda w, mask: w + mask[0].astype(w.dtype), masks.Bernoulli(0.3), (1,))(
        jax.random.key(0), jnp.asarray(offset, dtype), samples=samples
    )
    assert abs(float(found.mean) - offset - 0.3) < 4 * float(found.standard_error)
    assert float(found.standard_error) > 0.5 * np.sqrt(0.21 / found.samples)


def test_a_gradient_in_bfloat16_is_no_more_certain_than_its_type():
    found = jg.estimate(
        lambda w, mask: (w * (1 + mask.astype(w.dtype))).sum(),
        masks.Bernoulli(0.3),
        (1,),
        argnums=0,
    )(jax.random.key(0), jnp.asarray([64.0], jnp.bfloat16), samples=100_000)
    assert abs(float(found.mean[0]) - 1.3) < 4 * float(found.standard_error[0])


class Plain:
    """A mask that is no pytree."""

    def sample(self, key, shape):
        return jnp.ones(shape)

    def mean(self, n):
        return jnp.ones(n)

    def second_moment(self, n):
        return jnp.ones((n, n))

    def support(self, shape):
        raise ValueError("too many")


@jax.tree_util.register_pytree_node_class
class Small(Plain):
    """A mask that forgets the shape."""

    def sample(self, key, shape):
        return jnp.ones(3)

    def tree_flatten(self):
        return (0.5,), None

    @classmethod
    def tree_unflatten(cls, aux, children):
        return cls()


def test_what_cannot_be_sampled_is_refused_by_name():
    key = jax.random.key(0)
    with pytest.raises(
        TypeError, match="`f` returns complex numbers; return their real and imaginary parts"
    ):
        jg.estimate(lambda w, mask: w * 1j * mask, masks.Bernoulli(0.5), (3,))(
            key, jnp.ones(3), samples=100
        )
    with pytest.raises(TypeError, match="`mask`: the mask's distribution is no pytree of numbers"):
        jg.estimate(lambda w, mask: w * mask, Plain(), (3,))
    with pytest.raises(
        ValueError, match=r"`mask` draws an array of shape \(3,\) where `sample` is asked for"
    ):
        jg.estimate(lambda w, mask: w * mask, Small(), (3,))(key, jnp.ones(3), samples=100)


def test_any_integer_is_a_number_of_samples():
    found = jg.estimate(lambda mask: mask.sum(), masks.Bernoulli(0.5), (3,))(
        jax.random.key(0), samples=np.int64(100)
    )
    assert type(found.samples) is int
