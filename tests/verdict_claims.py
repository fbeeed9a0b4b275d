"""Claims with known verdicts, for the tests of verify: right ones, wrong ones, and ones on which it
must hold back.
"""

from functools import partial

import jax
import jax.numpy as jnp

from jaxgrad import Derivation


def claim(name, loss, gradient, shapes, **more):
    return Derivation(name=name, loss=loss, gradient=gradient, shapes=shapes, **more)


def scaled(factor, wrong=1.0):
    """A loss scaled by a factor, its closed form off by another."""
    return claim(
        f"scaled by {factor:g}, off by {wrong:g}",
        lambda x: factor * jnp.sum(jnp.sin(x)),
        lambda x: {"x": wrong * factor * jnp.cos(x)},
        {"x": "n"},
    )


@jax.custom_vjp
def twice_badly(x):
    return x**2


twice_badly.defvjp(lambda x: (x**2, x), lambda x, ct: (3 * x * ct,))


@jax.custom_jvp
def straight_through(x):
    return jnp.round(x)


straight_through.defjvp(lambda primals, tangents: (jnp.round(primals[0]), tangents[0]))


def huber(x):
    return jnp.sum(jnp.where(jnp.abs(x) < 1, x**2 / 2, jnp.abs(x) - 0.5))


def log_sum_exp_naive(x):
    return jnp.log(jnp.sum(jnp.exp(x)))


def softmax_cross_entropy(logits, labels):
    return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1))


def layer_norm_gradient(x, ct, eps):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    inverse = 1 / jnp.sqrt(var + eps)
    normal = (x - mean) * inverse
    return inverse * (
        ct - ct.mean(-1, keepdims=True) - normal * (ct * normal).mean(-1, keepdims=True)
    )


def layer_norm(x, eps):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + eps)


RIGHT = [
    scaled(1.0),
    scaled(1e-9),
    scaled(1e9),
    scaled(1e-30),
    claim("huber", huber, lambda x: {"x": jnp.clip(x, -1, 1)}, {"x": "n"}),
    claim("absolute value", lambda x: jnp.abs(x).sum(), lambda x: {"x": jnp.sign(x)}, {"x": "n"}),
    claim(
        "maximum, the first of ties",
        lambda x: jnp.max(x),
        lambda x: {"x": jnp.zeros_like(x).at[jnp.argmax(x)].set(1.0)},
        {"x": "n"},
    ),
    claim(
        "a kink that cancels, where autodiff gives 0 at 0",
        lambda x: jnp.sum(jax.nn.relu(x) - jax.nn.relu(-x)),
        lambda x: {"x": jnp.ones_like(x)},
        {"x": "n"},
    ),
    claim(
        "normalised",
        lambda x, c: jnp.vdot(c, x / jnp.linalg.norm(x)),
        lambda x, c: {"x": (c - x * jnp.vdot(c, x) / (x @ x)) / jnp.linalg.norm(x)},
        {"x": "n", "c": "n"},
    ),
    claim("log sum exp", log_sum_exp_naive, lambda x: {"x": jax.nn.softmax(x)}, {"x": "n"}),
    claim(
        "softmax cross-entropy",
        softmax_cross_entropy,
        lambda logits, labels: {"logits": (jax.nn.softmax(logits) - labels) / logits.shape[0]},
        {"logits": "m k", "labels": "m k"},
        domains={"labels": "simplex"},
    ),
    Derivation.from_vjp(
        "layer norm",
        partial(layer_norm, eps=1e-5),
        lambda x, ct: {"x": layer_norm_gradient(x, ct, 1e-5)},
        {"x": "m n"},
    ),
    claim(
        "log determinant",
        lambda a: jnp.linalg.slogdet(a)[1],
        lambda a: {"a": jnp.linalg.inv(a).T},
        {"a": "n n"},
        domains={"a": "spd"},
    ),
    claim(
        "solve",
        lambda a, b, c: c @ jnp.linalg.solve(a, b),
        lambda a, b, c: {
            "a": -jnp.outer(jnp.linalg.solve(a.T, c), jnp.linalg.solve(a, b)),
            "b": jnp.linalg.solve(a.T, c),
        },
        {"a": "n n", "b": "n", "c": "n"},
    ),
    claim(
        "norm of two thousand entries",
        lambda x: jnp.sum(x**2),
        lambda x: {"x": 2 * x},
        {"x": "2000"},
    ),
    claim(
        "power of a positive number",
        lambda x, a: jnp.sum(x**a),
        lambda x, a: {"x": a * x ** (a - 1), "a": jnp.sum(x**a * jnp.log(x))},
        {"x": "n", "a": ""},
        domains={"x": "positive"},
    ),
    claim(
        "entropy",
        lambda p: -jnp.sum(p * jnp.log(p)),
        lambda p: {"p": -jnp.log(p) - 1},
        {"p": "m n"},
        domains={"p": "simplex"},
    ),
    claim(
        "a loss that rounds to float32 inside",
        lambda x: jnp.sum(jnp.sin(x.astype(jnp.float32))),
        lambda x: {"x": jnp.cos(x)},
        {"x": "n"},
    ),
    claim(
        "absorbed in a large constant",
        lambda x: jnp.sum((x + 1e8) ** 2) - jnp.sum(x) * 2e8,
        lambda x: {"x": 2 * x},
        {"x": "n"},
    ),
    claim(
        "lost in a large constant",
        lambda x: jnp.sum((x + 1e20) - 1e20),
        lambda x: {"x": jnp.ones_like(x)},
        {"x": "n"},
    ),
    claim(
        "variance as a difference of means",
        lambda x: jnp.mean(x**2) - jnp.mean(x) ** 2,
        lambda x: {"x": 2 * (x - x.mean()) / x.size},
        {"x": "n"},
    ),
    claim(
        "stop_gradient",
        lambda x: jnp.sum(x * jax.lax.stop_gradient(x)),
        lambda x: {"x": x},
        {"x": "n"},
    ),
    claim(
        "gather",
        lambda x, i: jnp.sum(x[i] ** 2),
        lambda x, i: {"x": jnp.zeros_like(x).at[i].add(2 * x[i])},
        {"x": "9", "i": "m"},
        domains={"i": "integer"},
    ),
    claim(
        "maximum, ties shared",
        lambda x: jnp.max(x),
        lambda x: {"x": (x == x.max()) / (x == x.max()).sum()},
        {"x": "n"},
    ),
    claim(
        "parameters in a tree",
        lambda params, x: jnp.sum(jnp.tanh(x @ params["w"] + params["b"])),
        lambda params, x: {
            "params": {
                "w": x.T @ (1 - jnp.tanh(x @ params["w"] + params["b"]) ** 2),
                "b": (1 - jnp.tanh(x @ params["w"] + params["b"]) ** 2).sum(0),
            }
        },
        {"params": {"w": "n p", "b": "p"}, "x": "m n"},
    ),
    claim(
        "a scalar",
        lambda a: jnp.exp(-(a**2)),
        lambda a: {"a": -2 * a * jnp.exp(-(a**2))},
        {"a": ""},
    ),
    claim(
        "a small gradient beside a large one",
        lambda x, y: 1e12 * jnp.sum(x**2) + 1e-12 * jnp.sum(y**3),
        lambda x, y: {"x": 2e12 * x, "y": 3e-12 * y**2},
        {"x": "n", "y": "m"},
    ),
]


def one_entry(x, factor):
    return (2 * x).at[17].multiply(factor)


WRONG = [
    claim(
        "softmax cross-entropy, labels that sum to anything",
        softmax_cross_entropy,
        lambda logits, labels: {"logits": (jax.nn.softmax(logits) - labels) / logits.shape[0]},
        {"logits": "m k", "labels": "m k"},
    ),
    scaled(1.0, 1 + 1e-9),
    scaled(1e-9, 2.0),
    scaled(1e-9, 0.0),
    scaled(1e9, 1 + 1e-8),
    scaled(1e-30, -1.0),
    claim(
        "one entry of two thousand doubled",
        lambda x: jnp.sum(x**2),
        lambda x: {"x": one_entry(x, 2.0)},
        {"x": "2000"},
    ),
    claim(
        "one entry of two thousand off by a millionth",
        lambda x: jnp.sum(x**2),
        lambda x: {"x": one_entry(x, 1 + 1e-6)},
        {"x": "2000"},
    ),
    claim(
        "a mean's gradient a hundredfold",
        lambda x: jnp.mean(x**2),
        lambda x: {"x": 200 * x / x.size},
        {"x": "1000"},
    ),
    claim(
        "normalised, any factor",
        lambda x, c: jnp.vdot(c, x / jnp.linalg.norm(x)),
        lambda x, c: {"x": 3 * (c - x * jnp.vdot(c, x) / (x @ x)) / jnp.linalg.norm(x)},
        {"x": "n", "c": "n"},
    ),
    claim(
        "right for positive numbers only",
        lambda x: jnp.sum(x**2 * jnp.sign(x)),
        lambda x: {"x": 2 * x},
        {"x": "n"},
    ),
    claim(
        "right for symmetric matrices only",
        lambda a: jnp.trace(a @ a),
        lambda a: {"a": 2 * a},
        {"a": "n n"},
    ),
    claim(
        "absolute value with slope 2 at 0",
        lambda x: jnp.abs(x).sum(),
        lambda x: {"x": jnp.sign(x) + 2.0 * (x == 0)},
        {"x": "n"},
    ),
    claim(
        "absolute value with slope 0 at 0, where the domain draws zeros",
        lambda x: jnp.abs(x).sum(),
        lambda x: {"x": jnp.sign(x)},
        {"x": "n"},
        domains={"x": lambda key, shape: jnp.arange(-1.0, shape[0] - 1.0)},
    ),
    claim("huber without its linear part", huber, lambda x: {"x": x}, {"x": "n"}),
    claim(
        "m for n", lambda x: jnp.mean(x**2), lambda x: {"x": 2 * x / x.shape[0] ** 2}, {"x": "m n"}
    ),
    claim(
        "m − 1 for m",
        lambda x: jnp.sum(x**2) / x.shape[0],
        lambda x: {"x": 2 * x / (x.shape[0] - 1)},
        {"x": "m n"},
    ),
    claim(
        "a rule of the loss that is wrong, copied",
        lambda x: jnp.sum(twice_badly(x)),
        lambda x: {"x": 3 * x},
        {"x": "n"},
    ),
    claim(
        "straight through a rounding",
        lambda x: jnp.sum(straight_through(x) * 1.7),
        lambda x: {"x": jnp.full_like(x, 1.7)},
        {"x": "n"},
    ),
    Derivation.from_vjp(
        "squared cotangent", lambda x: x**2, lambda x, ct: {"x": 2 * x * ct**2}, {"x": "n"}
    ),
    Derivation.from_vjp(
        "cotangent ignored", lambda x: x**2, lambda x, ct: {"x": 2 * x}, {"x": "n"}
    ),
    Derivation.from_vjp(
        "layer norm with another eps",
        partial(layer_norm, eps=1e-5),
        lambda x, ct: {"x": layer_norm_gradient(x, ct, 1e-6)},
        {"x": "m n"},
    ),
    claim(
        "a term that only matters off the simplex",
        lambda p: jnp.sum(p) ** 2,
        lambda p: {"p": jnp.full_like(p, 2.0)},
        {"p": "n"},
    ),
    claim("minus a hair", lambda x: jnp.sum(x**2), lambda x: {"x": 2 * x - 1e-9}, {"x": "n"}),
    claim(
        "zero where it is not",
        lambda x, y: jnp.sum(x**2) + 1e-12 * jnp.sum(y**2),
        lambda x, y: {"y": 0 * y},
        {"x": "n", "y": "n"},
    ),
]

HELD_BACK = [
    claim(
        "stop_gradient ignored",
        lambda x: jnp.sum(x * jax.lax.stop_gradient(x)),
        lambda x: {"x": 2 * x},
        {"x": "n"},
    ),
    claim(
        "not a number",
        lambda x: jnp.sum(jnp.sqrt(-1 - x**2)),
        lambda x: {"x": -x / jnp.sqrt(-1 - x**2)},
        {"x": "n"},
    ),
    claim(
        "infinite closed form",
        lambda x: jnp.sum(x**2),
        lambda x: {"x": 2 * x / jnp.zeros(())},
        {"x": "n"},
    ),
]
"""Never refuted where the closed form is right, and never confirmed where something is not
finite.
"""

VACUOUS = [
    claim(
        "softmax under a mean",
        lambda x: jnp.mean(jax.nn.softmax(x)),
        lambda x: {"x": jnp.zeros_like(x)},
        {"x": "n"},
    ),
    claim(
        "an input that does not matter",
        lambda x, y: jnp.sum(x**2),
        lambda x, y: {"y": jnp.zeros_like(y)},
        {"x": "n", "y": "m"},
    ),
]
