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
# # Porting a torch model: two mistakes, and how they are found
#
# A port is right when it computes the same function: the same values and the same gradients, at
# every layer. To compare two outputs at a tolerance does not show that. A tolerance that lets
# float32 rounding pass lets small mistakes pass too; a loss can agree while its gradient does not;
# and an early difference smears over all that follows.
#
# Here a small transformer block is ported with two mistakes that people really make. One changes
# the values by a few parts in a million. The other changes no value at all.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.ad_checkpoint import checkpoint_name as tag
from torch import nn

import jaxgrad as jg

torch.set_num_threads(1)

# %% [markdown]
# ## The original
#
# Attention over five tokens, then two layers, with a residual around each and LayerNorm in front.


# %%
class Block(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.act, self.down = nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width)

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.mix(torch.softmax(q @ k.mT / 8**0.5, -1) @ v)
        return x + self.down(self.act(self.up(self.norm2(x))))


# %% [markdown]
# It is recorded once, in float64 and in float32, at random parameters: values, the gradient of
# every parameter under a random cotangent, and what goes in and comes back at every module. A
# golden can be saved, and is checked where no torch is.

# %%
tokens = np.random.default_rng(0).standard_normal((3, 5, 8))
golden = jg.parity.record(Block(), {"x": tokens})
print(golden)

# %% [markdown]
# ## The port
#
# `checkpoint_name` gives values the names of torch's modules; it costs nothing when the model is
# trained.


# %%
def layer_norm(p, name, x, eps):
    mean = x.mean(-1, keepdims=True)
    var = ((x - mean) ** 2).mean(-1, keepdims=True)
    return tag((x - mean) / jnp.sqrt(var + eps) * p[f"{name}.weight"] + p[f"{name}.bias"], name)


def linear(p, name, x):
    return tag(x @ p[f"{name}.weight"].T + p[f"{name}.bias"], name)


def port(p, x, eps=1e-6, stop=jax.lax.stop_gradient):
    q, k, v = jnp.split(linear(p, "qkv", layer_norm(p, "norm1", x, eps)), 3, -1)
    scores = q @ k.mT / 8**0.5
    scores = scores - stop(scores).max(-1, keepdims=True)
    weights = jnp.exp(scores) / stop(jnp.exp(scores).sum(-1, keepdims=True))
    x = x + linear(p, "mix", weights @ v)
    y = tag(jax.nn.gelu(linear(p, "up", layer_norm(p, "norm2", x, eps)), approximate=False), "act")
    return x + linear(p, "down", y)


# %% [markdown]
# ## What a tolerance says
#
# In float32 at a tolerance of 1e-4 the outputs agree, and most people stop here.

# %%
state = {name: jnp.asarray(array) for name, array in golden.state.items()}
ours = port(state, jnp.asarray(tokens, jnp.float32))
theirs = golden.group("single/value")["output"]
assert np.allclose(ours, theirs, atol=1e-4)
print(f"largest difference: {np.abs(ours - theirs).max():.1e}")

# %% [markdown]
# ## What a check says
#
# Both sides run in float64, and each entry has a bound of its own, measured: how far the result
# moves when inputs and parameters move by one unit in the last place. Then every named block runs
# alone, on torch's own activations and cotangents.

# %%
report = jg.parity.check(port, golden)
assert report.verdict == "refuted"
for name in ("first_forward", "first_vjp", "remedies"):
    print(f"{name}: {report.context[name]}")
assert report.context["first_forward"] == "norm1"
assert report.context["remedies"]["norm1"] == "eps=1e-05 restores parity"

# %% [markdown]
# The first mistake: torch's LayerNorm adds 1e-5 to the variance, and flax's 1e-6. With that mended,
# values agree everywhere.

# %%
mended = jg.parity.check(lambda p, x: port(p, x, eps=1e-5), golden)
assert mended.verdict == "refuted"
assert mended.context["first_forward"] is None
wrong = [finding.wrt for finding in mended.findings if finding.verdict == "refuted"]
print("values are right; wrong are", ", ".join(wrong))
print(mended.context["first_vjp"], mended.context["remedies"])
assert mended.context["first_vjp"] == ["mix"]
assert "stop_gradient" in mended.context["remedies"]["mix"]

# %% [markdown]
# The second mistake: the softmax was written by hand. To take the derivative out of the maximum is
# right, for it cancels; to take it out of the sum is not. No value shows it. The block is `mix`,
# whose input the attention is.
#
# ## The right port


# %%
def mended_port(p, x):
    return port(p, x, eps=1e-5, stop=lambda y: y)


final = jg.parity.check(mended_port, golden)
final.assert_confirmed()
for finding in final.findings[:4]:
    print(
        f"{finding.wrt:8} {finding.evidence:9} {finding.verdict}  error {finding.error:.1e}  "
        f"bound {finding.bound:.1e}"
    )

# %% [markdown]
# "Confirmed" speaks of this function at these inputs; what could not be seen there, such as a
# gradient that is zero on both sides, stands among the warnings. Here that is the key's bias:
# softmax does not feel a shift of all scores of a row, which is a third of the bias of `qkv`; the
# rest of that array is compared.
#
# What ports get wrong most often is written down, with what is tried at a failing block:

# %%
for difference in jg.parity.DIFFERENCES[:8]:
    print(f"{difference.topic}: torch {difference.torch}; JAX {difference.jax}")
assert len(jg.parity.DIFFERENCES) >= 20
