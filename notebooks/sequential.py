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
# # Sampling that stops when it knows
#
# A nonlinear model under a random mask has no closed expectation that a machine could list or
# integrate. Sampling is then all the evidence there is. This notebook takes a masked autoencoder
# with a ReLU, trains it on the handwritten digits, and asks of a gradient that somebody claims: is
# it right? The answer comes as soon as it can be given, with a stated probability of being wrong.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import jaxgrad as jg
from jaxgrad.evidence.sampling.loop import Sampler
from jaxgrad.evidence.sampling.rare_events import Rarities
from jaxgrad.evidence.sampling.sequential import Limits, Sequence
from jaxgrad.evidence.sampling.tails import Tails, log_odds

plt.style.use("style.mplstyle")

# %% [markdown]
# ## The model
#
# $L(W_1, W_2) = \operatorname{mean}\,(\mathrm{relu}((M \circ X) W_1^\top) W_2^\top - X)^2$, where
# $M$ keeps each of the 64 pixels of an image with probability ½. It is trained on 256 digits by
# plain gradient descent with momentum, with a fresh mask in each step.

# %%
x = jnp.asarray(load_digits().data[:256] / 16, jnp.float32)
mask, hidden = jg.masks.Bernoulli(0.5), 16


def masked_loss(w1, w2, mask, x=x):
    return jnp.mean((jax.nn.relu((mask * x) @ w1.T) @ w2.T - x) ** 2)


@jax.jit
def train(key, w1, w2):
    def step(state, key):
        w, velocity = state
        loss, gradient = jax.value_and_grad(lambda w: masked_loss(*w, mask.sample(key, x.shape)))(w)
        velocity = jax.tree.map(lambda v, g: 0.9 * v - 2.0 * g, velocity, gradient)
        return (jax.tree.map(jnp.add, w, velocity), velocity), loss

    w = (w1, w2)
    (w, _), losses = jax.lax.scan(
        step, (w, jax.tree.map(jnp.zeros_like, w)), jax.random.split(key, 400)
    )
    return *w, losses


keys = jax.random.split(jax.random.key(0), 3)
w1, w2, losses = train(
    keys[0],
    0.1 * jax.random.normal(keys[1], (hidden, 64)),
    0.1 * jax.random.normal(keys[2], (64, hidden)),
)
print(f"loss {losses[0]:.4f} before, {losses[-20:].mean():.4f} after training")
assert losses[-20:].mean() < 0.5 * losses[0]

# %%
draw = mask.sample(jax.random.key(7), x.shape)
rebuilt = jax.nn.relu((draw * x) @ w1.T) @ w2.T
figure, axes = plt.subplots(3, 10, figsize=(7.5, 2.5))
for row, (images, title) in zip(
    axes, ((x, "digit"), (draw * x, "seen"), (rebuilt, "rebuilt")), strict=True
):
    for axis, image in zip(row, images, strict=False):
        axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    row[0].set_ylabel(title)
plt.show()

# %% [markdown]
# ## One gradient, two claims
#
# What is the expected gradient in $W_2$? With $H = \mathrm{relu}((M \circ X) W_1^\top)$ the loss is
# quadratic in $W_2$, and
#
# $$ \nabla_{W_2} \mathbb{E} L = \frac{2}{mn} \bigl( W_2\, \mathbb{E}[H^\top H] - X^\top \mathbb{E}[H] \bigr) . $$
#
# The expectations of the hidden layer are those of a rectified sum of coins, and nobody has a
# formula for them. We take them from a long run, and call that the *right* claim. The *wrong* one
# treats the hidden layer as if it did not vary: $\mathbb{E}[H^\top H] \approx \mathbb{E}[H]^\top
# \mathbb{E}[H]$, the step that is so easily made on paper.


# %%
def moments(w1, mask):
    h = jax.nn.relu((mask * x) @ w1.T)
    return {"h": h, "hh": h.T @ h}


long = jg.estimate(moments, mask, x.shape)(jax.random.key(1), w1, samples=20_000)
h, hh = long.mean["h"], long.mean["hh"]
w = np.asarray(w2, np.float64)
right = 2 / x.size * (w @ hh - np.asarray(x, np.float64).T @ h)
wrong = 2 / x.size * (w @ (h.T @ h) - np.asarray(x, np.float64).T @ h)
scale = np.abs(right).max()
print(f"the two claims differ by {np.abs(wrong - right).max() / scale:.0%} of the largest entry")
assert np.abs(wrong - right).max() > 0.3 * scale

# %% [markdown]
# ## The looks
#
# Samples come in chunks of eight, and `Sampler.round` returns the chunks' mean gradients. After
# 256, 512, 1024, … chunks the verdict on each hidden unit is asked for. An interval around each of
# the 1024 entries holds with a probability that is shared out over entries and looks, so that the
# whole answer is wrong at most once in a hundred thousand times, however often one looks.

# %%
chunk, chunks = 8, 4096
sampler = Sampler(masked_loss, mask, x.shape, 1)
rows = np.concatenate(
    [
        sampler.round(jax.random.key(2), (w1, w2), first, chunk, 256)
        for first in range(0, chunks, 256)
    ]
)
rows = rows.reshape(chunks, 64, hidden).transpose(0, 2, 1).reshape(chunks, -1)  # unit by unit
limits = Limits(
    false_alarm=1e-5, resolution=0.1, max_samples=chunk * chunks, chunk=chunk, round=256
)


def verdict(claim, rows=rows):
    """Look at rows as they come in."""
    units = {f"unit {h}": slice(64 * h, 64 * (h + 1)) for h in range(hidden)}
    sequence = Sequence(claim.T.ravel(), np.full(claim.size, 1e-6 * scale), units, limits)
    return sequence.run(lambda first, count: rows[first : first + count])


live = np.abs(right).max(axis=0) > 0.01 * scale
for name, claim in (("right", right), ("wrong", wrong)):
    sequence = verdict(claim)
    said = np.array([sequence.verdicts[unit].value for unit in sequence.parts])
    print(f"{name}: {', '.join(f'{np.sum(said == v)} units {v}' for v in dict.fromkeys(said))}")
    for h in (np.flatnonzero(live)[0], np.flatnonzero(~live)[0]):
        print(f"    unit {h:2} {said[h]:9} {sequence.finding(f'unit {h}', 0.0, '').detail}")
    assert set(said[live]) == {"confirmed" if name == "right" else "refuted"}
    assert name == "wrong" or "refuted" not in said

# %% [markdown]
# A few units hardly ever fire after training. Their gradient is a thousand or a million times
# smaller than the others', and hangs on the rare masks under which they do. Where such masks were
# drawn, the chunks' means have tails so heavy that no narrow interval can be given; where none was
# drawn in the first samples, these were all the same, and tell nothing. The right claim is
# *undecided* there, with the reason, and so is the wrong one unless it is grossly off. The others
# are settled.

# %%
entries = np.repeat(live, 64)  # of the units that fire
odds = log_odds(limits.false_alarm, len(limits.looks), right.size)
tails, off = Tails.empty(right.size), {"right": [], "wrong": []}
counts, widths, errors = np.arange(64, chunks + 1, 64), [], []
for count in counts:
    tails.add(rows[count - 64 : count])
    widths.append(np.max(tails.half_width(odds)[entries]) / scale)
    errors.append(np.max(2 * tails.standard_error()[entries]) / scale)
    for name, claim in (("right", right), ("wrong", wrong)):
        off[name].append(np.abs(tails.mean - claim.T.ravel())[entries].max() / scale)

figure, axis = plt.subplots(figsize=(6.8, 4))
axis.fill_between(counts * chunk, widths, 1e-3, color="C0", alpha=0.12, linewidth=0)
axis.loglog(counts * chunk, widths, "C0", label="widest interval")
axis.loglog(counts * chunk, errors, "C0:", linewidth=1, label="two standard errors, the widest")
axis.loglog(counts * chunk, off["right"], "C2", label="right claim: largest distance")
axis.loglog(counts * chunk, off["wrong"], "C1", label="wrong claim: largest distance")
axis.axhline(limits.resolution, color="0.5", linestyle="--", linewidth=0.8)
axis.text(counts[0] * chunk, limits.resolution * 1.06, "resolution", fontsize=8, color="0.4")
for look in limits.looks:
    axis.axvline(look * chunk, color="0.85", linewidth=0.8, zorder=0)
axis.set(xlabel="samples", ylabel="relative to the largest entry", ylim=(3e-3, 20))
axis.set_title(
    "A claim outside the interval is refuted; inside, and both below the resolution, confirmed"
)
axis.legend(loc="upper right", fontsize=8)
plt.show()
assert off["wrong"][-1] > widths[-1] > off["right"][-1]

# %% [markdown]
# ## Where the claim is wrong
#
# The entries that lie outside their interval are known one by one. On the right the distance in
# units of the half width: beyond 1 an entry is refuted. The units that hardly fire have no
# interval, and stay dark in both.

# %%
reach = tails.half_width(odds).reshape(hidden, 64)
away = {
    name: np.abs(tails.mean.reshape(hidden, 64) - claim.T)
    for name, claim in (("right", right), ("wrong", wrong))
}
ratio = {name: distance / np.maximum(reach, 1e-6 * scale) for name, distance in away.items()}
figure, axes = plt.subplots(2, 1, figsize=(7.5, 3.9), sharex=True)
for axis, (name, values) in zip(axes, ratio.items(), strict=True):
    image = axis.imshow(values, vmin=0, vmax=2, cmap="magma", aspect="auto")
    axis.set(
        ylabel="hidden unit",
        title=f"{name} claim: {np.mean(values > 1):.0%} of the entries are refuted",
    )
axes[1].set_xlabel("pixel")
figure.colorbar(image, ax=axes, label="distance / half width")
plt.show()
assert np.all(ratio["right"] <= 1) and np.mean(ratio["wrong"] > 1) > 0.1

# %% [markdown]
# ## Why not Student's t
#
# The usual interval takes the chunks' means for normal. For skewed samples that is wrong just where
# it matters, far out. Here are a thousand runs of 256 draws of a lognormal number, whose mean is
# known, at a nominal rate of 1% of false alarms:

# %%
from scipy.stats import t as student

rng = np.random.default_rng(0)
alarms = {"Student's t": [], "jaxgrad": []}
sigmas = np.linspace(0.25, 2.5, 10)
for sigma in sigmas:
    skewed = Tails.empty(1000)
    skewed.add(rng.lognormal(0, sigma, (256, 1000)))
    distance = np.abs(skewed.mean - np.exp(sigma**2 / 2))
    alarms["Student's t"].append(
        np.mean(distance > student.ppf(0.995, 255) * skewed.standard_error())
    )
    alarms["jaxgrad"].append(np.mean(distance > skewed.half_width(log_odds(0.01, 1, 1))))

figure, axis = plt.subplots(figsize=(6, 3.4))
for i, (name, rates) in enumerate(alarms.items()):
    axis.plot(sigmas, rates, "o-", color=("C1", "C0")[i], label=name)
axis.axhline(0.01, color="0.5", linestyle="--", linewidth=0.8)
axis.text(0.25, 0.013, "stated", fontsize=8, color="0.4")
axis.set(xlabel=r"$\sigma$ of the lognormal law", ylabel="share of false alarms")
axis.set_title("Under skew the normal interval is wrong many times as often as it says")
axis.legend()
plt.show()
assert max(alarms["jaxgrad"]) <= 0.01 + 3 * np.sqrt(0.01 / 1000) < max(alarms["Student's t"])

# %% [markdown]
# ## Events too rare to be seen
#
# A sample says nothing of what did not happen in it. Suppose a unit fires only when two given
# pixels are both dropped, and each is dropped once in a thousand times; when it does, the loss
# jumps. A hundred thousand samples miss it nine times in ten. The verdict holds back, and says why:
# masks in which coins fall together as they seldom do are built and tried.

# %%
claim = jg.Derivation(
    name="a unit that hardly ever fires",
    loss=lambda w, mask: jnp.sum(w) + 1e7 * jnp.sum(jnp.prod(1 - mask[:, :2], axis=1)) * jnp.sum(w),
    gradient=lambda w, mask: {"w": jnp.ones_like(w)},  # wrong: it forgets the unit
    shapes={"w": "4", "mask": "1 4"},
    mask=jg.masks.Bernoulli(0.999),
)
held = jg.verify(claim, evidence="monte_carlo", max_samples=2**17)
print(held.verdict, "|", held.findings[0].detail)
assert held.verdict == "undecided" and "fall together" in held.findings[0].detail
exact = jg.verify(claim, evidence="expectation")
print(exact.verdict, "| the exact expectation, which needs no luck")
assert exact.verdict == "refuted"
assert Rarities(np.array([1e-6]), np.array([[1e7]])).allowance(1e5, 20.0)[0] > 1
