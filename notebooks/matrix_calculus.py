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
# # Matrix calculus, from the inner product to two layers
#
# Every gradient in a network is put together from a few small ones. This notebook derives them with
# indices, one at a time, and lets `verify` judge each: $w^\top x$, the Jacobian of $Wx$, the mean
# squared error, and then the chain of all three.
#
# One convention throughout: the gradient of a scalar has the shape of what it is taken in.

# %%
from dataclasses import replace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxgrad as jg
from jaxgrad.catalog import vectors

plt.style.use("style.mplstyle")

# %% [markdown]
# ## The inner product
#
# $f = w^\top x = \sum_j w_j x_j$. Only one term of the sum holds $w_k$, so $\partial f / \partial
# w_k = x_k$, and by symmetry $\partial f / \partial x_k = w_k$:
#
# $$ \frac{\partial f}{\partial w} = x, \qquad \frac{\partial f}{\partial x} = w. $$

# %%
x = jnp.array([0.8823, 0.9150, 0.3829, 0.9593, 0.3904])
w = jnp.array([0.6009, 0.2566, 0.7936, 0.9408, 0.1332])
f = float(vectors.inner_product(w, x))
print(f"wᵀx = {f:.4f}")
# the inputs are known to four digits, so half a unit in the fourth of each may move the sum by this
# much
assert abs(f - 2.0232625007629395) <= 0.5e-4 * float(jnp.sum(jnp.abs(w) + jnp.abs(x)))

report = jg.verify(jg.catalog.get("inner_product"))
print(report)
assert report.verdict == "confirmed"

# %% [markdown]
# The table has one row for each input that is differentiated. *autodiff* compares the closed form
# with JAX's gradient of the loss, in float64 and at several sizes; *differences* compares it with
# the loss itself, so a mistake inside autodiff would show. Each bound is measured from rounding;
# nobody chose a tolerance.
#
# ## The Jacobian of $Wx$
#
# The output is now a vector: $(Wx)_i = \sum_j W_{ij} x_j$. Then
#
# $$ \frac{\partial (Wx)_i}{\partial x_l} = W_{il}, \qquad
#    \frac{\partial (Wx)_i}{\partial W_{kl}} = \delta_{ik}\, x_l . $$
#
# The first is the matrix $W$. The second has three indices: output $i$ looks at row $i$ of $W$ and
# at no other.

# %%
W = jnp.asarray(np.random.default_rng(0).random((4, 5)), jnp.float32)
jacobian = vectors.matvec_jacobian(W, x)["w"]

figure, axes = plt.subplots(1, 5, figsize=(10, 1.9))
for i, axis in enumerate(axes[:4]):
    axis.imshow(jacobian[i], vmin=0, vmax=1)
    axis.set(title=rf"$\partial (Wx)_{i + 1} / \partial W$", xticks=[], yticks=[])
image = axes[4].imshow(jacobian.sum(axis=0), vmin=0, vmax=1)
axes[4].set(title=r"their sum, $\mathbf{1}x^\top$", xticks=[], yticks=[])
figure.colorbar(image, ax=axes, shrink=0.8)
plt.show()

assert jacobian.shape == (4, 4, 5)
np.testing.assert_array_equal(jacobian.sum(axis=0), jnp.ones((4, 1)) * x)
jg.verify(jg.catalog.get("matvec")).assert_confirmed()

# %% [markdown]
# The sum over outputs, $\mathbf 1 x^\top$, is what one gets by pulling back a vector of ones. It is
# often called "the" derivative of $Wx$, but it has lost which output each entry belongs to. Claimed
# as the Jacobian, it has the wrong shape, and is turned away before anything is compared:

# %%
claim = replace(
    jg.catalog.get("matvec"),
    name="sum_of_the_rows",
    gradient=lambda w, x: {"w": jnp.ones((w.shape[0], 1)) * x, "x": w},
)
try:
    jg.verify(claim)
except ValueError as error:
    print("ValueError:", error)
else:
    raise AssertionError("a Jacobian of the wrong shape was accepted")

# %% [markdown]
# ## The mean squared error
#
# $L = \frac1m \sum_i (y_i - \hat y_i)^2$, so
#
# $$ e := \frac{\partial L}{\partial \hat y} = -\frac 2m (y - \hat y), \qquad \frac{\partial L}{\partial y} = -e . $$
#
# Two slips are common: forgetting the 2, and dividing by something else than $m$. `verify` draws
# several sizes, so that a factor that is right by accident at one of them is wrong at another.

# %%
slips = {
    "right": vectors.mse_gradient,
    "without the 2": lambda pred, y: {"pred": -(y - pred) / y.size, "y": (y - pred) / y.size},
    "without 1/m": lambda pred, y: {"pred": -2 * (y - pred), "y": 2 * (y - pred)},
    "3 for m": lambda pred, y: {"pred": -2 / 3 * (y - pred), "y": 2 / 3 * (y - pred)},
    "sign": lambda pred, y: {"pred": 2 / y.size * (y - pred), "y": -2 / y.size * (y - pred)},
}
verdicts = {
    name: jg.verify(replace(jg.catalog.get("mse"), gradient=gradient)).verdict
    for name, gradient in slips.items()
}
for name, verdict in verdicts.items():
    print(f"{name:14} {verdict}")
assert verdicts.pop("right") == "confirmed" and set(verdicts.values()) == {"refuted"}

# %% [markdown]
# The fourth would pass a test that happens to use three samples.
#
# ## The chain
#
# Put $\hat y = Wx$ into the error. By the chain rule, with the Jacobian from above,
#
# $$ \frac{\partial L}{\partial W_{kl}} = \sum_i e_i\, \delta_{ik}\, x_l = e_k x_l
#    \qquad\Longrightarrow\qquad \nabla_W L = e\, x^\top , $$
#
# and $\nabla_x L = W^\top e$. The three-index Jacobian is contracted with $e$ and never has to be
# stored: that is the whole economy of backpropagation. A second layer, $\hat y = W_2 W_1 x$,
# repeats the step. With $x_1 = W_1 x$,
#
# $$ \nabla_{W_2} L = e\, x_1^\top, \qquad e_1 = W_2^\top e, \qquad \nabla_{W_1} L = e_1 x^\top . $$

# %%
key = jax.random.key(42)
k1, k2, k3, k4 = jax.random.split(key, 4)
x, y = jax.random.uniform(k1, (5,)), jax.random.uniform(k2, (20,))
W = jax.random.uniform(k3, (20, 5))
e = vectors.mse_gradient(W @ x, y)["pred"]
by_jacobian = jnp.einsum("i,ikl->kl", e, vectors.matvec_jacobian(W, x)["w"])
np.testing.assert_allclose(by_jacobian, jnp.outer(e, x), rtol=1e-6)

for name in ("mse_matvec", "two_layer_linear"):
    report = jg.verify(jg.catalog.get(name))
    print(f"{name}: {report.verdict} in {', '.join(report.by_input)}")
    report.assert_confirmed()

# %% [markdown]
# ## Why `==` is no test
#
# In exact arithmetic the closed form and the backward pass are equal. In floating point they need
# not be: they round in another order. Below, the gradient $e x^\top$ in float32 is computed in two
# orders, $(-\tfrac 2m (y - \hat y))\, x^\top$ and $-\tfrac 2m\, ((y - \hat y)\, x^\top)$, for a
# thousand draws, and the distance is counted in units in the last place.


# %%
def two_orders(key):
    k1, k2, k3 = jax.random.split(key, 3)
    x, y, W = (
        jax.random.uniform(k1, (5,)),
        jax.random.uniform(k2, (20,)),
        jax.random.uniform(k3, (20, 5)),
    )
    error = y - W @ x
    return jnp.outer(-2 / 20 * error, x), -2 / 20 * jnp.outer(error, x)


first, second = (np.asarray(a) for a in jax.vmap(two_orders)(jax.random.split(key, 1000)))
units = np.rint((first.astype(np.float64) - second) / np.spacing(np.abs(second)))
values, counts = np.unique(units, return_counts=True)

figure, axis = plt.subplots(figsize=(5.2, 3))
bars = axis.bar(values, counts / counts.sum(), width=0.7)
axis.bar_label(bars, [f"{c:.1%}" for c in counts / counts.sum()], padding=2)
axis.set(
    xlabel="difference in units in the last place",
    ylabel="share of entries",
    xticks=values,
    ylim=(0, 0.75),
)
axis.set_title("Two orders of one product, in float32")
plt.show()

unequal = np.mean(first != second)
print(f"{unequal:.0%} of the entries differ, none by more than {np.abs(units).max():.0f} units")
assert 0.05 < unequal < 0.9 and np.abs(units).max() <= 2

# %% [markdown]
# An equality test passes or fails by the order of multiplication. A tolerance of `1e-3` passes
# everything, the factor 3 for $m$ included when the error is small. `verify` computes in float64
# and measures how far rounding itself moves every entry; the column "detects" of its table says how
# small a mistake would still have been found: some $10^{-14}$ of the gradient.

# %%
report = jg.verify(jg.catalog.get("two_layer_linear"), evidence="autodiff")
worst = max(finding.detectable for finding in report.findings)
print(f"the largest mistake that could have hidden: {worst:.0e} of the gradient")
assert worst < 1e-10
