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
# # The linear autoencoder
#
# An autoencoder sends a sample through a narrow layer and back. Without nonlinearities it is a
# product of two matrices, an encoder $W_1$ $(p \times n)$ and a decoder $W_2$ $(n \times p)$. Its
# gradient has a closed form; so have its minima (Baldi and Hornik, 1989). This notebook derives the
# gradient for one sample, carries it over to a batch, verifies both, and then lets the verified
# gradient find what the theory predicts: the principal components.

# %%
from dataclasses import replace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxgrad as jg
from jaxgrad.catalog import autoencoders

plt.style.use("style.mplstyle")

# %% [markdown]
# ## One sample
#
# $L = \lVert y - By \rVert^2$ with $B = W_2 W_1$. Let $r = By - y = (B - I)y$, so that $L = r^\top
# r$ and
#
# $$ \mathrm dL = 2\, r^\top \mathrm dr, \qquad \mathrm dr = \mathrm dB\, y, \qquad \mathrm dB = \mathrm dW_2\, W_1 + W_2\,
# \mathrm dW_1 . $$
#
# A scalar is its own trace, and traces may be rotated:
#
# $$ \mathrm dL = 2 \operatorname{tr}\!\left( y\, r^\top \mathrm dB \right)
# = \left\langle 2\, r y^\top, \mathrm dB \right\rangle = \left\langle 2\, W_2^\top r y^\top,
# \mathrm dW_1 \right\rangle + \left\langle 2\, r y^\top W_1^\top, \mathrm dW_2 \right\rangle . $$
#
# With $r y^\top = (B - I)\, y y^\top$ this is
#
# $$ \nabla_{W_1} L = 2\, W_2^\top (B - I)\, y y^\top, \qquad \nabla_{W_2} L = 2\, (B - I)\, y y^\top W_1^\top . $$

# %%
report = jg.verify(jg.catalog.get("autoencoder_sample"))
print(report)
assert report.verdict == "confirmed"

# %% [markdown]
# ## A batch
#
# Samples are the rows of $X$ $(m \times n)$. The loss is the mean of the single losses, so the
# gradient is the mean of the single gradients, and $\sum_i y_i y_i^\top = X^\top X$:
#
# $$ L = \frac 1m \lVert X B^\top - X \rVert^2, \qquad
#    \nabla_{W_1} L = \frac 2m W_2^\top (B - I) X^\top X, \qquad
#    \nabla_{W_2} L = \frac 2m (B - I) X^\top X W_1^\top . $$
#
# Data enter through the $n \times n$ matrix $X^\top X$ alone: once it is known, a step costs the
# same for a million samples as for ten.
#
# **Two ways to write one loss.** A sum of squares over $m$, or the mean over all $mn$ entries times
# $n$. They are equal, so one closed form serves both, and each is a claim of its own:

# %%
with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    x, w1, w2 = (jnp.asarray(rng.random(shape)) for shape in ((4, 6), (5, 6), (6, 5)))
    print(autoencoders.batch_loss(x, w1, w2), autoencoders.batch_mse_loss(x, w1, w2))
    np.testing.assert_allclose(
        autoencoders.batch_loss(x, w1, w2), autoencoders.batch_mse_loss(x, w1, w2), rtol=1e-14
    )
for name in ("autoencoder", "autoencoder_mse"):
    report = jg.verify(jg.catalog.get(name))
    print(f"{name:16} {report.verdict} in {', '.join(report.by_input)}")
    report.assert_confirmed()

# %% [markdown]
# ### What could have gone wrong
#
# Derivations like this one fail in few ways: a transpose, the scale, the order of a product that
# does not commute. With square weights and $p = n$ a transpose keeps its shape, and numbers decide.
# Note the last one: at $m = n$ it would be right.

# %%
claim = jg.catalog.get("autoencoder")
identity = jnp.eye


def variant(change):
    return lambda x, w1, w2: {"w1": change(x, w1, w2)}


slips = {
    "without -I": variant(lambda x, w1, w2: 2 / len(x) * w2.T @ (w2 @ w1) @ x.T @ x),
    "I - B": variant(
        lambda x, w1, w2: 2 / len(x) * w2.T @ (identity(x.shape[1]) - w2 @ w1) @ x.T @ x
    ),
    "B transposed": variant(
        lambda x, w1, w2: 2 / len(x) * w2.T @ ((w2 @ w1).T - identity(x.shape[1])) @ x.T @ x
    ),
    "1/n for 1/m": variant(
        lambda x, w1, w2: 2 / x.shape[1] * w2.T @ (w2 @ w1 - identity(x.shape[1])) @ x.T @ x
    ),
}
for name, gradient in slips.items():
    refuted = jg.verify(replace(claim, gradient=gradient), evidence="autodiff")
    print(f"{name:14} {refuted.verdict}, off by {refuted.findings[0].error:.0%} of the gradient")
    assert refuted.verdict == "refuted"

# %% [markdown]
# ### In float32
#
# The original compared the closed form with autodiff by the norm of their difference, in float32,
# and printed about $5 \cdot 10^{-6}$. Small, but compared with what? Rounding each of some hundred
# products to 24 bits explains it:

# %%
x, w1, w2 = (jnp.asarray(rng.random(shape), jnp.float32) for shape in ((4, 6), (5, 6), (6, 5)))
closed = autoencoders.batch_gradient(x, w1, w2)
automatic = dict(
    zip(("w1", "w2"), jax.grad(autoencoders.batch_loss, argnums=(1, 2))(x, w1, w2), strict=True)
)
for wrt in automatic:
    distance, size = jnp.linalg.norm(closed[wrt] - automatic[wrt]), jnp.linalg.norm(closed[wrt])
    print(
        f"{wrt}: ‖difference‖ = {distance:.1e}, ‖gradient‖ = {size:.1f}, ratio "
        f"{distance / size:.0e}"
    )
    assert distance < 20 * np.finfo(np.float32).eps * size

# %% [markdown]
# ## What the gradient knows
#
# Where is the gradient zero? With full-rank weights $(B - I) X^\top X W_1^\top = 0$ and $W_2^\top
# (B - I) X^\top X = 0$ together say that $B$ is the orthogonal projection onto a subspace spanned
# by eigenvectors of $X^\top X$. All such points are critical, but only the span of the $p$ largest
# is a minimum; the others are saddles. So gradient descent must end at principal component
# analysis, with the loss
#
# $$ L_\star = \frac 1m \sum_{j > p} \lambda_j , $$
#
# $\lambda_j$ being the eigenvalues of $X^\top X$ in falling order. Let the verified closed form
# walk there, needing $X^\top X$ only:

# %%
with jax.enable_x64(True):
    m, n, p, rate, steps = 400, 12, 3, 0.02, 20_000
    spectrum = 2.0 ** -np.arange(n)
    orthogonal, _ = np.linalg.qr(rng.normal(size=(n, n)))
    x = jnp.asarray(rng.normal(size=(m, n)) * np.sqrt(3 * spectrum) @ orthogonal.T)
    start = tuple(jnp.asarray(1e-3 * rng.normal(size=shape)) for shape in ((p, n), (n, p)))

    def step(weights, _):
        gradient = autoencoders.batch_gradient(x, *weights)
        new = weights[0] - rate * gradient["w1"], weights[1] - rate * gradient["w2"]
        return new, autoencoders.batch_loss(x, *weights)

    (w1, w2), losses = jax.jit(lambda start: jax.lax.scan(step, start, None, length=steps))(start)
    eigenvalues, eigenvectors = jnp.linalg.eigh(x.T @ x)
    floors = [
        float(eigenvalues[: n - k].sum() / m) for k in range(p + 1)
    ]  # the best loss with k components
    projection = np.asarray(eigenvectors[:, -p:] @ eigenvectors[:, -p:].T)
    found, losses = np.asarray(w2 @ w1), np.asarray(losses)

figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.1), width_ratios=[1.9, 1, 1])
axes[0].semilogx(np.arange(1, steps + 1), losses)
for k, floor in enumerate(floors):
    axes[0].axhline(floor, color="C1", linestyle="--", linewidth=0.8)
    axes[0].text(
        1.1,
        floor,
        f"best with {k}" if k != 1 else "best with 1 component",
        va="bottom",
        fontsize=8,
        color="C1",
    )
axes[0].set(
    xlim=(1, 2000), xlabel="step", ylabel="loss", title="Descent, from one plateau to the next"
)
for axis, matrix, title in (
    (axes[1], found, "$W_2 W_1$ at the end"),
    (axes[2], projection, "projection of PCA"),
):
    image = axis.imshow(matrix, cmap="RdBu_r", vmin=-0.6, vmax=0.6)
    axis.set(title=title, xticks=[], yticks=[])
figure.colorbar(image, ax=axes[1:], shrink=0.8)
plt.show()

print(
    f"loss {losses[-1]:.9f}, of PCA {floors[-1]:.9f}; largest difference of the maps "
    f"{np.abs(found - projection).max():.1e}"
)
np.testing.assert_allclose(losses[-1], floors[-1], rtol=1e-5)
np.testing.assert_allclose(
    found, projection, atol=0.02
)  # directions that hold hardly any data come last

# %% [markdown]
# On its way the loss rests near every saddle, one component after the other: small weights grow
# first along the largest eigenvalue. A gradient with any of the slips above would have gone
# elsewhere, and not every one of them would have looked wrong.
