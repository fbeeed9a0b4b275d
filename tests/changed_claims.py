"""Closed forms of the catalogue with a part of them changed: the makings of wrong variants
(`tests.wrong_variants`).
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from jaxgrad import catalog
from jaxgrad.catalog import autoencoders, denoising, perceptron
from jaxgrad.masks import Bernoulli, FeatureBernoulli


def but(name, **changed):
    """Return the entry with gradients replaced, each by a function (the right gradient, all inputs
    by name) -> array.
    """
    right = catalog.get(name)

    def gradient(**inputs):
        gradients = dict(right.gradient(**inputs))
        return gradients | {
            wrt: change(gradients[wrt], **inputs) for wrt, change in changed.items()
        }

    return replace(right, gradient=gradient)


def times(factor):
    return lambda right, **_: factor * right


def all_times(name, factor):
    """Every gradient times a number, or a function of the sizes of the inputs."""
    right = catalog.get(name)

    def gradient(**inputs):
        scale = factor(**inputs) if callable(factor) else factor
        return {wrt: scale * array for wrt, array in right.gradient(**inputs).items()}

    return replace(right, gradient=gradient)


# --- masks whose moments are wrong


class Moments:
    """A mask distribution whose moments are changed before the closed form sees them."""

    def __init__(self, right, mean=None, second_moment=None):
        """Change `mean` and `second_moment`, functions (right moment, n) -> moment."""
        self.right, self._mean, self._second_moment = right, mean, second_moment

    def mean(self, n):
        mean = self.right.mean(n)
        return self._mean(mean, n) if self._mean else mean

    def second_moment(self, n):
        s = self.right.second_moment(n)
        return self._second_moment(s, n) if self._second_moment else s


def wrong_moments(name, mean=None, second_moment=None):
    right = catalog.get(name)

    def gradient(*, mask, **inputs):
        return right.gradient(mask=Moments(mask, mean, second_moment), **inputs)

    return replace(right, gradient=gradient)


def independent(s, n):
    """The second moment that independent coins with these means would have."""
    p = jnp.diagonal(s)
    return jnp.where(np.eye(n, dtype=bool), p, p[:, None] * p)


def no_diagonal(s, n):
    p = jnp.diagonal(s)
    return p[:, None] * p


def misplaced_blocks(s, n, size=2):
    """Blocks written from row ⌊i/s⌋ instead of ⌊i/s⌋·s: they overlap at the top left, the rest
    stays at p².
    """
    wrong = np.full((n, n), 0.6**2)
    for i in range(n):
        row = i // size
        wrong[row : row + size, row : row + size] = 0.6
    return jnp.asarray(wrong, s.dtype)


def scalar_loss_for_features():
    """The loss is masked with one probability, and the closed form believes in one for each
    feature.
    """
    right = catalog.get("masked_autoencoder_features")

    def gradient(*, x, w1, w2, mask):
        features = FeatureBernoulli(autoencoders.feature_probabilities(x.shape[1]))
        return right.gradient(x=x, w1=w1, w2=w2, mask=features)

    return replace(right, mask=Bernoulli(0.6), gradient=gradient)


# --- denoising


def changed_dropped(hollow=denoising.hollow, weight=lambda mu: 1 - mu):
    """The expected gradient of the loss on dropped entries, with another hollow part or another
    weight of the rows.
    """

    def gradient(x, w1, w2, mask):
        m, n = x.shape
        mu, s, g = mask.mean(n), mask.second_moment(n), x.T @ x
        a = hollow(weight(mu)[:, None] * (hollow(w2 @ w1) @ (s * g) - mu * g))
        return {"w1": 2 / (m * n) * w2.T @ a, "w2": 2 / (m * n) * a @ w1.T}

    return replace(catalog.get("masked_autoencoder_dropped_loss"), gradient=gradient)


def dropout_with(odds):
    """The linear layer under dropout, its penalty weighted by another function of p than (1 −
    p)/p.
    """

    def gradient(x, w, b, y, mask):
        m, r, o = len(x), x @ w.T + b - y, odds(mask.prob)
        return {
            "w": 2 / m * (r.T @ x + o * w * (x**2).sum(0)),
            "b": 2 / m * r.sum(0),
            "x": 2 / m * (r @ w + o * x * (w**2).sum(0)),
        }

    return replace(catalog.get("inverted_dropout"), gradient=gradient)


def minimiser(solution):
    """The claim that another map is where the marginalised denoising loss is smallest."""

    def gradient(x, w, mask):
        return {
            "w": 2 / len(x) * (w - solution(x, mask)) @ (mask.second_moment(x.shape[1]) * (x.T @ x))
        }

    return replace(catalog.get("marginalised_denoising"), gradient=gradient)


# --- the perceptron with a wrong gate, or a wrong sum


def perceptron_with(gate=None, delta=None, bias=None):
    """The three-layer perceptron backpropagated with another gate, output error or bias sum."""
    right = catalog.get("relu_mlp")

    def gradient(*, x, y, **parameters):
        stack = [(parameters[f"w{i}"], parameters[f"b{i}"]) for i in (1, 2, 3)]
        record = perceptron.forward(x, stack)
        if gate:
            record = record._replace(gates=tuple(gate(z).astype(z.dtype) for z in record.z[:-1]))
        deltas = perceptron.backward(record, y, stack)
        if delta:
            deltas = tuple(delta(d, y) for d in deltas)
        gradients = {"x": deltas[0] @ stack[0][0]}
        for i, (d, a) in enumerate(zip(deltas, record.a, strict=True), start=1):
            gradients |= {f"w{i}": d.T @ a, f"b{i}": bias(d) if bias else d.sum(0)}
        return gradients

    return replace(right, gradient=gradient)


# --- linear algebra


def b_minus_i(w1, w2, **_):
    return w2 @ w1 - jnp.eye(len(w2), dtype=w2.dtype)


def ridge_slope(g, m, delta, solution):
    away = m - solution
    return 2 * (g.T @ (g @ away) + delta * away)
