# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A tour of the transforms
#
# JAX differentiates, batches, compiles and loops by transforming functions. jaxgrad is put together
# from six of these transforms: `grad`, `vjp`, `jvp`, `vmap`, `jit` and `scan`. This tour shows each
# at the job it has here, on one example, the expected gradient of a masked autoencoder, and ends
# with all of them in thirty lines: a Monte Carlo estimator whose memory does not grow.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxgrad as jg
from jaxgrad.catalog import autoencoders, layers
from jaxgrad.masks import Bernoulli

plt.style.use("style.mplstyle")

m, n, p = 50, 10, 4
rng = np.random.default_rng(0)
x, w1, w2 = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((m, n), (p, n), (n, p)))
mask = Bernoulli(0.6)
draw = mask.sample(jax.random.key(0), (m, n))

# %% [markdown]
# ## `grad`: the closed form's opponent
#
# `jax.grad(f, argnums)` returns a function that computes $\partial f / \partial(\text{argument})$,
# exact up to rounding. A derivation without a mask is held against it directly.

# %%
closed = autoencoders.batch_gradient(x, w1, w2)
by_grad = dict(
    zip(
        ("x", "w1", "w2"),
        jax.grad(autoencoders.batch_loss, argnums=(0, 1, 2))(x, w1, w2),
        strict=True,
    )
)
for wrt in closed:
    np.testing.assert_allclose(closed[wrt], by_grad[wrt], rtol=2e-4, atol=2e-4)
print("closed form and grad agree in", ", ".join(closed))

# %% [markdown]
# ## `vjp` and `jvp`: one Jacobian, from both sides
#
# For $f : \mathbb R^a \to \mathbb R^b$ with Jacobian $J$ there are two cheap products. `jvp` pushes
# a tangent forward, $v \mapsto J v$, and costs about one run of $f$; it is the derivative *along*
# $v$. `vjp` pulls a cotangent back, $u \mapsto J^\top u$, and gives the whole gradient of $\langle
# u, f \rangle$ at once. `grad` is `vjp` with $u = 1$. The two must satisfy
#
# $$ \langle u, J v \rangle = \langle J^\top u, v \rangle , $$
#
# and neither needs $J$.

# %%
keys = jax.random.split(jax.random.key(1), 4)
w, b = jax.random.normal(keys[0], (3, n)), jax.random.normal(keys[1], (3,))
tangent = jax.tree.map(lambda a: jax.random.normal(keys[2], a.shape), (x, w, b))
primal, pushed = jax.jvp(layers.linear, (x, w, b), tangent)
cotangent = jax.random.normal(keys[3], primal.shape)
_, pull = jax.vjp(layers.linear, x, w, b)
pulled = pull(cotangent)

left = jnp.vdot(cotangent, pushed)
right = sum(jnp.vdot(u, v) for u, v in zip(pulled, tangent, strict=True))
print(f"⟨u, Jv⟩ = {left:.4f}, ⟨Jᵀu, v⟩ = {right:.4f}")
np.testing.assert_allclose(left, right, rtol=1e-4)

# the VJP written by hand is the same function of the cotangent
for name, array in zip(("x", "w", "b"), pulled, strict=True):
    np.testing.assert_allclose(
        layers.linear_vjp(x, w, b, cotangent)[name], array, rtol=1e-4, atol=1e-4
    )

# %% [markdown]
# Forward mode has another use: a difference quotient along $v$ must approach $Jv$, whatever `grad`
# says. Central differences lose half of the digits to cancellation at small steps, and to curvature
# at large ones. jaxgrad extrapolates over several steps (Richardson) and so knows how good its own
# answer is.

# %%
with jax.enable_x64(True):
    args = [jnp.asarray(np.asarray(a), jnp.float64) for a in (x, w1, w2)]
    direction = jnp.asarray(rng.normal(size=w1.shape))

    def f(t):
        return jnp.log(autoencoders.batch_loss(args[0], args[1] + t * direction, args[2]))

    exact = float(jax.jvp(f, (0.0,), (1.0,))[1])
    h = 2.0 ** -np.arange(0, 44)
    central = np.asarray((jax.vmap(f)(h) - jax.vmap(f)(-h)) / (2 * h))
    extrapolated = (4 * central[1:] - central[:-1]) / 3  # the h² term cancels

figure, axis = plt.subplots(figsize=(6, 3.4))
axis.loglog(h, np.abs(central / exact - 1), label="central difference")
axis.loglog(h[1:], np.abs(extrapolated / exact - 1), label="extrapolated once")
axis.set(xlabel="step $h$", ylabel="relative error", title="Differences against jvp, in float64")
axis.legend()
plt.show()
assert np.nanmin(np.abs(extrapolated / exact - 1)) < 1e-11

# %% [markdown]
# ## `vmap`: a function of one mask becomes a function of many
#
# The loss is written for one draw. `vmap` gives it a batch axis without a line of change, and XLA
# turns the small matrix products into a single large one.

# %%
draws = mask.sample(jax.random.key(2), (200, m, n))
one_at_a_time = jnp.stack([autoencoders.masked_loss(x, w1, w2, d) for d in draws[:5]])
at_once = jax.vmap(lambda d: autoencoders.masked_loss(x, w1, w2, d))(draws)
np.testing.assert_allclose(at_once[:5], one_at_a_time, rtol=1e-5)
print(at_once.shape, "losses at once")


# %% [markdown]
# **Differentiate the mean, do not average the derivatives.** Both are the same number. But the mean
# of 200 gradients first makes 200 matrices, while the gradient of the mean loss adds over samples
# inside its last product. The compiled programs tell:


# %%
def mean_of_gradients(w1, draws):
    return jnp.mean(
        jax.vmap(lambda d: jax.grad(autoencoders.masked_loss, argnums=1)(x, w1, w2, d))(draws),
        axis=0,
    )


def gradient_of_mean(w1, draws):
    return jax.grad(
        lambda w: jnp.mean(jax.vmap(lambda d: autoencoders.masked_loss(x, w, w2, d))(draws))
    )(w1)


np.testing.assert_allclose(
    mean_of_gradients(w1, draws), gradient_of_mean(w1, draws), rtol=1e-3, atol=1e-4
)
for function in (mean_of_gradients, gradient_of_mean):
    jaxpr = jax.make_jaxpr(function)(w1, draws)
    products = [
        eqn.outvars[0].aval.shape for eqn in jaxpr.jaxpr.eqns if eqn.primitive.name == "dot_general"
    ]
    print(f"{function.__name__:18} matrix products of shapes {products}")
    batched = [shape for shape in products if shape in ((200, n, p), (200, p, n))]
    assert bool(batched) == (function is mean_of_gradients)

# %% [markdown]
# ## `jit`: traced once
#
# `jit` runs the Python function once per shape, to record what it does, and from then on runs the
# compiled record. Python's own cost, the larger part of a small gradient, is paid once. A counter
# in the body shows when Python runs:

# %%
traces = 0


@jax.jit
def counted(w1, draws):
    global traces
    traces += 1
    return gradient_of_mean(w1, draws)


counted(w1, draws), counted(2 * w1, draws), counted(w1, draws[::-1])
assert traces == 1
counted(w1, draws[:100])
assert traces == 2
print(f"four calls, {traces} traces: one for each shape")

# %% [markdown]
# ## `scan`: a loop inside the compiled program
#
# A million masks at once would fill the memory. `scan` compiles one step and repeats it, so only
# one chunk is alive at a time. Chunk $i$ draws from `fold_in(key, i)`: what it draws depends on $i$
# alone, neither on which device runs it nor on how far the loop has come, so that a run can be
# split, shared and continued.

# %%
chunk = 250


def chunk_mean(key, w1):
    return gradient_of_mean(w1, mask.sample(key, (chunk, m, n)))


def scanned(key, w1, first, chunks):
    def step(_, i):
        return None, chunk_mean(jax.random.fold_in(key, i), w1)

    return jax.lax.scan(step, None, first + jnp.arange(chunks))[1]


key = jax.random.key(3)
run = jax.jit(scanned, static_argnums=3)
whole = run(key, w1, 0, 8)
in_parts = jnp.concatenate([run(key, w1, 0, 5), run(key, w1, 5, 3)])
np.testing.assert_allclose(whole, in_parts, rtol=1e-5, atol=1e-6)
print("8 chunks at once = 5 chunks, and 3 more later")

# %% [markdown]
# What the loop saves can be read off the compiled programs, without running them: XLA says how much
# temporary memory each needs.


# %%
def all_at_once(key, w1, samples):
    return gradient_of_mean(w1, mask.sample(key, (samples, m, n)))


def temporary(function, *args, **static):
    return (
        jax.jit(function, **static).lower(*args).compile().memory_analysis().temp_size_in_bytes
        / 2**20
    )


samples = np.array([1000, 4000, 16000, 64000, 256000])
at_once = [temporary(all_at_once, key, w1, int(s), static_argnums=2) for s in samples]
looped = [temporary(scanned, key, w1, 0, int(s) // chunk, static_argnums=3) for s in samples]

figure, axis = plt.subplots(figsize=(5.6, 3.4))
axis.loglog(samples, at_once, "o-", label="vmap over all samples")
axis.loglog(samples, looped, "o-", label=f"scan over chunks of {chunk}")
axis.set(xlabel="samples", ylabel="temporary memory / MiB", title="Memory of the compiled programs")
axis.legend()
plt.show()
print(f"at {samples[-1]} samples: {at_once[-1]:.0f} MiB at once, {looped[-1]:.1f} MiB in chunks")
assert (
    at_once[-1] > 100 * at_once[0] and looped[-1] < 2 * looped[0] and looped[-1] < at_once[-1] / 100
)

# %% [markdown]
# ## Together
#
# With the chunk means $\bar g_1, \dots, \bar g_C$ the estimate is their mean, and its standard
# error comes from how much they scatter,
#
# $$ \mathrm{se}^2 = \frac{1}{C (C - 1)} \sum_i (\bar g_i - \bar g)^2 . $$

# %%
means = np.asarray(run(key, w1, 0, 40), np.float64)
mean, se = means.mean(axis=0), means.std(axis=0, ddof=1) / np.sqrt(len(means))
closed = autoencoders.masked_expected_gradient(x, w1, w2, mask)["w1"]
t = (mean - closed) / se
print(
    f"{40 * chunk} samples: the closed form lies at most {np.abs(t).max():.1f} standard errors away"
)
print(f"and in root mean square {np.sqrt((t**2).mean()):.2f}")
assert np.abs(t).max() < 6

# %% [markdown]
# That is `jaxgrad.estimate`, but for chunks that choose their own size, a loop that is continued in
# rounds, and sums kept in float64. It takes any function with a `mask`:

# %%
estimate = jg.estimate(
    lambda w1, mask: autoencoders.masked_loss(x, w1, w2, mask), mask, (m, n), argnums=0
)
result = estimate(jax.random.key(4), w1, samples=10_000)
t = (result.mean - closed) / result.standard_error
print(
    f"{result.samples} samples in {result.chunks} chunks: at most {np.abs(t).max():.1f} standard "
    f"errors away"
)
assert np.abs(t).max() < 6

# %% [markdown]
# And because masks are pytrees whose probabilities are leaves, what is exact composes too:
# `expectation` sums over all masks, and `grad` goes through the sum to the *probability*. Here the
# slope of the expected loss in $p$, against its closed form for one entry, $\frac{d}{dp}\left(
# p\,(w x - x)^2 + (1 - p)\, x^2 \right) = (w x - x)^2 - x^2$:


# %%
def expected_loss(p, w, x):
    return jg.expectation(lambda w, x, mask: jnp.sum((w * mask * x - x) ** 2), Bernoulli(p), (1,))(
        w, x
    )


slope = jax.grad(expected_loss)(0.6, 1.5, 2.0)
print(f"dE/dp = {slope:.3f}, by hand {(1.5 * 2 - 2) ** 2 - 2**2:.3f}")
np.testing.assert_allclose(slope, (1.5 * 2 - 2) ** 2 - 2**2, rtol=1e-6)
