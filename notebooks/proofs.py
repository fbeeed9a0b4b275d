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
# # Proving a gradient
#
# A comparison in floating point says that two formulas agree *here*, to so many digits. A
# certificate says that they are the same function. This notebook shows the idea in ten lines of
# plain Python, and then what `jaxgrad.certify` makes of it: one gradient proved, one refuted with
# the exact factor that is missing, and one honest "undecided".

# %%
import random
from fractions import Fraction

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxgrad as jg

plt.style.use("style.mplstyle")

# %% [markdown]
# ## The idea
#
# Let $h = f - g$ be a polynomial of degree $d$ that is not zero. Over the real numbers a random
# point is never a root, but a computer cannot draw one and rounding blurs the zero. Over the
# integers modulo a prime $p$ arithmetic is exact, there are $p$ points a coordinate, and (Schwartz
# 1980, Zippel 1979)
#
# $$ \Pr[h(x) = 0] \le \frac{d}{p}. $$
#
# So *one* random point at which $f$ and $g$ agree modulo a large prime proves, but for a
# probability of $d/p$, that they agree everywhere. Division is no obstacle: every number but 0 has
# an inverse modulo $p$.

# %%
p = 2**61 - 1  # a prime


def left(a, b):
    return (a + b) ** 3 % p


def right(a, b):
    return (a**3 + 3 * a**2 * b + 3 * a * b**2 + b**3) % p


def slip(a, b):
    return (a**3 + 3 * a**2 * b + 2 * a * b**2 + b**3) % p


draw = random.Random(0)
points = [(draw.randrange(p), draw.randrange(p)) for _ in range(3)]
assert all(left(a, b) == right(a, b) for a, b in points)
assert not any(left(a, b) == slip(a, b) for a, b in points)
print(f"three points agree: equal, but for a probability of (3/p)³ = {(3 / p) ** 3:.1e}")

# %% [markdown]
# How often does a wrong formula get through? With a small prime one can watch: the share of points
# at which `left` and `slip` agree is at most $3/p$.

# %%
primes = np.array([11, 31, 101, 307, 1009, 3001, 10007])
shares = []
for q in primes:
    a, b = np.random.default_rng(0).integers(0, q, (2, 2_000_000))
    shares.append(np.mean((a * b % q) * b % q == 0))  # left − slip = ab²
shares = np.array(shares)
assert np.all(shares <= 3 / primes)

figure, axes = plt.subplots(figsize=(5, 3.2))
axes.loglog(primes, shares, "o", label="share of points where a wrong cube agrees")
axes.loglog(primes, 3 / primes, "--", label="bound $d/p$")
axes.set_xlabel("prime $p$")
axes.set_ylabel("probability")
axes.legend(loc="lower left")
plt.show()

# %% [markdown]
# ## One gradient proved
#
# The expected gradient of the masked linear autoencoder. On the left, JAX differentiates the *exact
# expectation* of the loss, a sum over all masks; on the right stands the closed form. Both are
# traced once, and the traces are run in finite fields instead of on floats. The probability $p$ that
# an entry is kept is an argument like any other, so the proof holds for every $p$.

# %%
m, n, k = 2, 3, 2
entry = jg.catalog.get("masked_autoencoder_bernoulli")


def reference(x, w1, w2, prob):
    mask = jg.masks.Bernoulli(prob)
    expected = jg.expectation(
        lambda w1, w2, mask: entry.loss(x=x, w1=w1, w2=w2, mask=mask), mask, (m, n)
    )
    return jax.grad(expected, argnums=(0, 1))(w1, w2)


def closed_form(x, w1, w2, prob):
    gradient = entry.gradient(x=x, w1=w1, w2=w2, mask=jg.masks.Bernoulli(prob))
    return gradient["w1"], gradient["w2"]


arguments = jnp.ones((m, n)), jnp.ones((k, n)), jnp.ones((n, k)), 0.5
proof = jg.certify(reference, closed_form, *arguments)
print(proof.verdict, f"2^{np.log2(proof.error_probability):.0f}")
assert proof.verdict == "confirmed" and proof.error_probability < 2.0**-100

# %% [markdown]
# A formula that is right only for $p = \tfrac12$ cannot hide here. Write $(1 - p)$ for the $p$ of
# the mean, and the sides differ as polynomials in $p$, although they agree at the very value that
# was passed as an example.


# %%
def only_for_half(x, w1, w2, prob):
    mu, s = 1 - prob, jg.masks.Bernoulli(prob).second_moment(n)
    a = w2 @ w1 @ (s * (x.T @ x)) - x.T @ (mu * x)
    return 2 / (m * n) * w2.T @ a, 2 / (m * n) * a @ w1.T


chance = jg.certify(reference, only_for_half, *arguments)
print(chance.verdict, "-", chance.reason)
assert chance.verdict == "refuted"

# %% [markdown]
# ## One gradient refuted, with its ratio
#
# A mean of squares whose closed form forgets that the mean divides by all entries, not by the rows
# alone. When all entries are off by one and the same rational number, the certificate says which.

# %%
x = jnp.ones((3, 4))
wrong = jg.certify(jax.grad(lambda x: jnp.mean(x**2)), lambda x: 2 * x / x.shape[0], x)
print(wrong.verdict, "- the closed form is", wrong.ratio, "times the gradient")
assert wrong.verdict == "refuted" and wrong.ratio == Fraction(4)

# %% [markdown]
# ## Beyond polynomials
#
# $\exp$ turns sums into products. In a field there is a function that does the same: with a prime
# $q$ that divides $p - 1$ and an element $\omega$ of order $q$, $a \mapsto \omega^a$ takes $a + b$
# modulo $q$ to a product modulo $p$. So softmax, sigmoid and tanh have their counterparts; roots
# have them too, among the squares. And a comparison is a coin whose two sides are both followed.

# %%
examples = {
    "log-sum-exp": (jax.grad(lambda a: jnp.log(jnp.sum(jnp.exp(a)))), jax.nn.softmax, jnp.ones(5)),
    "softmax, shifted": (
        lambda a: jax.nn.softmax(a),
        lambda a: jnp.exp(a) / jnp.sum(jnp.exp(a)),
        jnp.ones(5),
    ),
    "logistic loss": (
        jax.grad(lambda a: jnp.sum(jnp.log(1 + jnp.exp(a)))),
        lambda a: 1 / (1 + jnp.exp(-a)),
        jnp.ones(5),
    ),
    "norm": (
        jax.grad(lambda a: jnp.sqrt(jnp.sum(a**2))),
        lambda a: a / jnp.sqrt(jnp.sum(a**2)),
        jnp.ones(5),
    ),
    "inverse": (
        lambda a: jax.jvp(jnp.linalg.inv, (a,), (jnp.ones_like(a),))[1],
        lambda a: -jnp.linalg.inv(a) @ jnp.ones_like(a) @ jnp.linalg.inv(a),
        jnp.eye(3),
    ),
    "ReLU": (
        jax.grad(lambda a: jnp.sum(jax.nn.relu(a) ** 2)),
        lambda a: 2 * jax.nn.relu(a),
        jnp.ones(5),
    ),
}
for name, (f, g, example) in examples.items():
    found = jg.certify(f, g, example)
    print(f"{name:18} {found.verdict}  2^{np.log2(found.error_probability):.0f}")
    assert found.verdict == "confirmed"

# %% [markdown]
# ## One honest "undecided"
#
# A function without a law that the field knows, such as the gamma function, stands for itself:
# equal arguments give equal values, and nothing more is known. The recurrence $\psi(a + 1) =
# \psi(a) + 1/a$ of its logarithmic derivative is true, and agrees in floating point, but there is
# no proof of it here; so nothing is claimed.

# %%
digamma = jax.scipy.special.digamma
gamma = jg.certify(
    jax.grad(lambda a: jnp.sum(jax.scipy.special.gammaln(a + 1))),
    lambda a: digamma(a) + 1 / a,
    jnp.ones(3),
)
print(gamma.verdict, "-", gamma.reason)
assert gamma.verdict == "undecided"

# %% [markdown]
# ## What a certificate does not say
#
# It speaks of points in general position. $a \cdot b / b$ is $a$, although at $b = 0$ it is not;
# and at a kink, where a derivative is a convention, it is silent. That is why `verify` gathers the
# other evidence too: here the gate of a ReLU is 1 at 0, which the certificate cannot see and
# autodiff, at exact zeros, does.

# %%
ratio = jg.certify(lambda a, b: a * b / b, lambda a, b: a, 1.0, 1.0)
assert ratio.verdict == "confirmed"

right = jg.catalog.get("relu")
gate_at_zero = jg.Derivation(
    name="relu with gate 1 at 0",
    loss=right.loss,
    gradient=lambda x, cotangent: {"x": cotangent * (x >= 0)},
    shapes=right.shapes,
    domains=right.domains,
)
report = jg.verify(gate_at_zero)
print(report)
verdicts = {finding.evidence: finding.verdict for finding in report.findings}
assert (
    verdicts["certificate"] == "confirmed"
    and verdicts["autodiff"] == "refuted"
    and report.verdict == "refuted"
)
