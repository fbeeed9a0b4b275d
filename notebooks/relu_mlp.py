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
# # A ReLU perceptron by hand, and linear maps in its place
#
# Backpropagation is two passes. The forward pass leaves a record: the pre-activations $z_l$, the
# layer inputs $a_{l-1}$ and the gates $g_l$ of the ReLUs. The backward pass carries an error signal
# $\delta_l = \partial L / \partial z_l$ from the last layer to the first. This notebook derives
# both, follows one batch of four samples through a 3-2-2-1 network number by number, looks closely
# at the kink of the ReLU, and ends with an experiment: can a linear map stand in for a gated layer?

# %%
from dataclasses import replace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxgrad as jg
from jaxgrad.catalog import perceptron, surrogates
from jaxgrad.runtime.options import check_options

plt.style.use("style.mplstyle")
np.set_printoptions(precision=2, suppress=True)

# %% [markdown]
# ## The two passes
#
# Layer $l$ has a weight $W_l$ (out, in) and a bias $b_l$. Forward, from $a_0 = x$:
#
# $$ z_l = a_{l-1} W_l^\top + b_l, \qquad g_l = [z_l > 0], \qquad a_l = g_l \circ z_l , $$
#
# with no ReLU after the last layer. The loss is $L = \operatorname{mean} (z_{\text{last}} - y)^2$
# over $m$ samples and $k$ outputs, so
#
# $$ \delta_{\text{last}} = \frac{2}{mk} (z_{\text{last}} - y) . $$
#
# For the layer before, follow $\mathrm dz_l$ through the gate and the next weights: $\mathrm
# dz_{l+1} = (g_l \circ \mathrm dz_l) W_{l+1}^\top$. Hence $\langle \delta_{l+1}, \mathrm dz_{l+1}
# \rangle = \langle (\delta_{l+1} W_{l+1}) \circ g_l,\ \mathrm dz_l \rangle$, and
#
# $$ \delta_l = (\delta_{l+1} W_{l+1}) \circ g_l, \qquad
#    \nabla_{W_l} L = \delta_l^\top a_{l-1}, \qquad \nabla_{b_l} L = \delta_l^\top \mathbf 1, \qquad \nabla_x L = \delta_1 W_1 . $$

# %%
report = jg.verify(jg.catalog.get("relu_mlp"))
print(report)
assert report.verdict == "confirmed"
jg.verify(
    perceptron.perceptron_derivation(5), evidence="autodiff"
).assert_confirmed()  # any depth will do

# %% [markdown]
# ## One batch, number by number
#
# The original printed four samples, the weights of a 3-2-2-1 network and what hooks saw, to two
# digits. The biases it did not print; they follow from $b_l = z_l - a_{l-1} W_l^\top$. We run both
# passes from those numbers.

# %%
x = np.array([[3.0, -1, 0], [4, -6, 8], [-2, 5, 4], [0, -5, 6]])
y = np.array([[0.38], [1.24], [-0.72], [0.60]])
weights = [
    np.array([[-0.03, 0.11, 0.01], [0.48, 0.21, -0.27]]),
    np.array([[0.34, 0.05], [0.04, -0.69]]),
    np.array([[0.68, 0.65]]),
]
printed_z = [
    np.array([[-0.10, 1.31], [-0.57, -1.47], [0.74, -0.91], [-0.37, -2.63]]),
    np.array([[-0.63, -0.48], [-0.69, 0.43], [-0.44, 0.46], [-0.69, 0.43]]),
    np.array([[-0.29], [-0.01], [0.00], [-0.01]]),
]
inputs = [x, *(np.maximum(z, 0) for z in printed_z[:2])]
biases = [(z - a @ w.T).mean(axis=0) for z, a, w in zip(printed_z, inputs, weights, strict=True)]

with jax.enable_x64(True):
    layers = [(jnp.asarray(w), jnp.asarray(b)) for w, b in zip(weights, biases, strict=True)]
    record = perceptron.forward(jnp.asarray(x), layers)
    deltas = perceptron.backward(record, jnp.asarray(y), layers)
    _, gradients = perceptron.perceptron_gradient(jnp.asarray(x), jnp.asarray(y), layers)
    record, deltas, gradients = jax.tree.map(np.asarray, (record, deltas, gradients))
    loss = perceptron.perceptron_loss(jnp.asarray(x), jnp.asarray(y), layers)
print(f"loss {loss:.2f}")
for number, ((dw, db), b) in enumerate(zip(gradients, biases, strict=True), start=1):
    print(f"layer {number}: bias {b}\n∇W =\n{dw}\n∇b = {db}")

# %% [markdown]
# **How close must that be?** Every printed number may be off by 0.005. To first order a result
# $f(\theta)$ then moves by at most $0.005 \sum_i |\partial f / \partial \theta_i|$; JAX has the
# derivatives. The biases are recovered from printed numbers too, so everything is written as one
# function of what was printed.


# %%
def results(numbers):
    inputs = [numbers["x"], *(jax.nn.relu(z) for z in numbers["z"][:2])]
    biases = [
        jnp.mean(z - a @ w.T, axis=0)
        for z, a, w in zip(numbers["z"], inputs, numbers["w"], strict=True)
    ]
    layers = list(zip(numbers["w"], biases, strict=True))
    _, gradients = perceptron.perceptron_gradient(numbers["x"], numbers["y"], layers)
    return [
        perceptron.perceptron_loss(numbers["x"], numbers["y"], layers),
        *(w for w, _ in gradients),
    ]


expected = [0.73, [[-0.02, 0.04, 0.03], [0, 0, 0]], [[0, 0], [0.17, 0]], [[0, -0.24]]]
with jax.enable_x64(True):
    numbers = jax.tree.map(jnp.asarray, {"x": x, "y": y, "w": weights, "z": printed_z})
    ours, slopes = jax.tree.map(
        np.asarray, jax.jit(lambda v: (results(v), jax.jacrev(results)(v)))(numbers)
    )
for name, value, printed, slope in zip(
    ("loss", "∇W1", "∇W2", "∇W3"), ours, map(np.asarray, expected), slopes, strict=True
):
    slope = {k: v for k, v in slope.items() if k != "x"}  # x is whole numbers, not rounded
    allowed = 0.005 + sum(
        0.005 * np.abs(s).reshape(*value.shape, -1).sum(axis=-1) for s in jax.tree.leaves(slope)
    )
    away = np.abs(value - printed)
    print(
        f"{name:5} off by {away.max():.4f} at most, allowed {np.min(allowed):.3f} to "
        f"{np.max(allowed):.3f}"
    )
    assert np.all(away <= allowed)

# %% [markdown]
# **What the two passes look like.** A closed gate stops the signal in both directions. In this
# batch it leaves a single entry of $\delta_1$ alive, so the second unit of the first layer learns
# nothing at all.

# %%
figure, axes = plt.subplots(1, 5, figsize=(10, 2.9))
panels = {
    "$z_1$": record.z[0],
    "$g_1$": record.gates[0],
    "$g_2$": record.gates[1],
    r"$\delta_2$": deltas[1],
    r"$\delta_1$": deltas[0],
}
for axis, (title, matrix) in zip(axes, panels.items(), strict=True):
    gate = title.startswith("$g")
    limit = 1 if gate else float(np.abs(matrix).max())
    axis.imshow(
        matrix,
        cmap="gray" if gate else "RdBu_r",
        vmin=0 if gate else -limit,
        vmax=limit,
        aspect="auto",
    )
    for (i, j), value in np.ndenumerate(matrix):
        text = f"{abs(value):.0f}" if gate or not value else f"{value:.2g}"
        dark = (gate and value < 0.5) or (not gate and abs(value) > 0.6 * limit)
        axis.text(j, i, text, ha="center", va="center", fontsize=8, color="w" if dark else "k")
    axis.set(title=title, xticks=[0, 1], xticklabels=["unit 1", "unit 2"], yticks=[])
axes[0].set_yticks(range(4), [f"sample {i + 1}" for i in range(4)])
plt.show()
assert np.count_nonzero(deltas[0]) == 1 and not np.any(gradients[0][0][1])

# %% [markdown]
# ## At the kink
#
# The ReLU has no derivative at 0. JAX and torch both take 0 there, and so $g = [z > 0]$. The
# original made its gate by writing 0 where $z < 0$ into a matrix of ones, which leaves a **1 where
# $z = 0$**. Random numbers never meet that point, so the two gates agree in every test with random
# numbers; data with zeros and units that are switched off meet it all the time. `verify` tries it:


# %%
def open_gate(x, cotangent):
    return {"x": cotangent * jnp.where(x < 0, 0.0, 1.0)}


claim = replace(jg.catalog.get("relu"), name="gate_open_at_zero", gradient=open_gate)
refuted = jg.verify(claim)
print(refuted)
assert refuted.verdict == "refuted"

z = np.linspace(-1, 1, 9)
print("z            ", z)
print("jax.grad     ", np.asarray(jax.vmap(jax.grad(jax.nn.relu))(z)))
print("gate [z > 0] ", (z > 0).astype(float))
print("open gate    ", np.where(z < 0, 0.0, 1.0))
assert jax.grad(jax.nn.relu)(0.0) == 0.0

# %% [markdown]
# ## Can a linear map stand in for a gated layer?
#
# Take a layer whose gates $R$ are coins: $G' = ((G W) \circ R)\, W_2$ for a batch $G$ $(b \times
# d)$. Two linear maps are to do the same.
#
# **Fit it.** $M_2$ minimises $\lVert G' - G M \rVert^2 + \delta \lVert M \rVert^2$. The gradient is
# $2 (G^\top G + \delta I) M - 2\, G^\top G'$; it vanishes at
#
# $$ M_2 = (G^\top G + \delta I)^{-1} G^\top G' = G^\top (G G^\top + \delta I)^{-1} G' . $$
#
# The second form solves a $b \times b$ system. It matters when $b < d$: then $G^\top G$ is
# singular, and in the first form all hangs on $\delta = 10^{-9}$.
#
# **Average it.** With $\bar r = \mathbb E R$ the expectation of the gated layer is linear: $M_3 = W
# \operatorname{diag}(\bar r)\, W_2$.
#
# Both statements are claims about gradients, and are verified as such:

# %%
for name in ("ridge_map", "mean_gate", "least_squares_map"):
    report = jg.verify(jg.catalog.get(name))
    print(
        f"{name:18} {report.verdict} by "
        f"{', '.join(dict.fromkeys(f.evidence for f in report.findings))}"
    )
    report.assert_confirmed()

# %% [markdown]
# **On the batch it was fitted to, $M_2$ is perfect. What has it learned?** With $b = 128$ samples
# and $d = 512$ inputs it has more unknowns than equations, and reproduces the batch, coins and all.
# A fresh batch with fresh coins tells the truth.

# %%
with jax.enable_x64(True):
    errors = jax.tree.map(float, surrogates.abstraction_experiment(jax.random.key(0)))
    print(f"{'':16}fitted batch   fresh batch")
    print(
        f"{'ridge, M2':16}{errors.ridge_fitted_relative:12.1e}{errors.ridge_fresh_relative:14.3f}"
    )
    print(
        f"{'mean gates, M3':16}{errors.mean_gate_fitted_relative:12.3f}{errors.mean_gate_fresh_relative:14.3f}"
    )
assert errors.ridge_fitted_relative < 1e-6
assert errors.ridge_fresh > errors.mean_gate_fresh

# %% [markdown]
# How does that depend on the size of the batch? Below, $d = 128$, and the batch grows past it.
# While $b < d$ the fit is exact and the fresh error is not; at $b = d$ the system is barely
# solvable and the map wild; beyond, the coins average out and $M_2$ approaches $M_3$.

# %%
with jax.enable_x64(True):
    d, batches = 128, [16, 32, 64, 96, 120, 128, 136, 160, 256, 1024]
    # each size is compiled anew and runs once: options that compile quickly
    experiment = jax.jit(
        surrogates.abstraction_experiment,
        static_argnames=("b", "d_in", "hidden", "d_out"),
        compiler_options=check_options(),
    )
    one = [experiment(jax.random.key(1), b=b, d_in=d, hidden=64, d_out=32) for b in batches]
    table = {
        name: np.array([getattr(e, name) for e in one])
        for name in one[0]._fields
        if name.endswith("relative")
    }

figure, axis = plt.subplots(figsize=(6.6, 3.8))
for name, label, style in (
    ("ridge_fitted_relative", "ridge map, fitted batch", "C0--"),
    ("ridge_fresh_relative", "ridge map, fresh batch", "C0-"),
    ("mean_gate_fitted_relative", "mean-gate map, its own batch", "C1--"),
    ("mean_gate_fresh_relative", "mean-gate map, fresh batch", "C1-"),
):
    axis.loglog(
        batches, np.maximum(table[name], 1e-3), style, marker="o", markersize=3, label=label
    )
axis.axvline(d, color="gray", linewidth=0.8)
axis.text(d * 1.05, 2e-3, "$b = d$", color="gray")
axis.set(
    xlabel="batch size $b$",
    ylabel="relative error (10⁻³ and less at the bottom)",
    ylim=(8e-4, None),
)
axis.set_title("An exact fit is no understanding")
axis.legend(fontsize=8)
plt.show()

ridge, mean = table["ridge_fresh_relative"], table["mean_gate_fresh_relative"]
assert np.all(ridge[np.array(batches) <= d] > mean[np.array(batches) <= d])
assert batches[int(np.argmax(ridge))] in range(112, 145)
assert np.all(table["ridge_fitted_relative"][np.array(batches) < d] < 1e-3)

# %% [markdown]
# ### With real gates
#
# A ReLU's gates are no coins: they depend on the data. For a layer small enough to write down, the
# best linear map on four columns is $M = Y X^\top (X X^\top)^{-1}$ with $Y = W
# \operatorname{relu}(X)$:

# %%
with jax.enable_x64(True):
    W, X = jnp.array([[1.0, 1], [-1, -1]]), jnp.array([[1.0, -1, 2, 1], [2, 2, -1, -2]])
    Y = W @ jax.nn.relu(X)
    M = surrogates.least_squares_map(X, Y)
    residual = float(jnp.linalg.norm(M @ X - Y))
    print(np.asarray(M), residual)
    np.testing.assert_allclose(M, [[1.36, 0.88], [-1.36, -0.88]], rtol=1e-12)
    assert abs(residual - 3.0199337741082997) < 1e-12
