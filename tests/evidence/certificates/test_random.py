"""Random programs: what is rewritten by laws of arithmetic is certified, and what is edited is
refuted.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxgrad import Verdict, certify
from jaxgrad.jaxprs.versions import enable_x64

# A program is a tree over + − × ÷ of two vectors and decimal constants. It is rewritten by laws of
# arithmetic, which must be certified, or edited in one place, which must be refuted unless the edit
# happens to change nothing.

LEAVES = st.sampled_from([("x",), ("y",), ("c", 2.0), ("c", 0.1), ("c", -3.0), ("c", 0.75)])
TREES = st.recursive(LEAVES, lambda t: st.tuples(st.sampled_from("+-*/"), t, t), max_leaves=12)


def value(tree, x, y):
    if tree[0] == "x":
        return x
    if tree[0] == "y":
        return y[::-1]
    if tree[0] == "c":
        return tree[1] + 0 * x
    a, b = value(tree[1], x, y), value(tree[2], x, y)
    return {
        "+": lambda: a + b,
        "-": lambda: a - b,
        "*": lambda: a * b,
        "/": lambda: a / (1 + b * b),
    }[tree[0]]()


def rewritten(tree, draw):
    """Apply a law of arithmetic at every node where one fits."""
    if len(tree) < 3:
        return tree
    op, a, b = tree[0], rewritten(tree[1], draw), rewritten(tree[2], draw)
    if op in "+*" and draw(st.booleans()):
        a, b = b, a  # commute
    if op in "+*" and b[0] == op and draw(st.booleans()):
        return (op, (op, a, b[1]), b[2])  # associate
    if op == "*" and b[0] in "+-" and draw(st.booleans()):
        return (b[0], ("*", a, b[1]), ("*", a, b[2]))  # distribute
    if op == "/" and a[0] in "+-" and draw(st.booleans()):
        return (a[0], ("/", a[1], b), ("/", a[2], b))  # split a fraction
    if op == "-" and draw(st.booleans()):
        return ("+", a, ("*", ("c", -1.0), b))
    if op == "+" and a == b:
        return ("*", ("c", 2.0), a)
    return (op, a, b)


def edited(tree, draw):
    """Change one place: a sign, an operation, a constant, or the variable."""
    if len(tree) == 3 and draw(st.integers(0, 2)):
        side = draw(st.integers(1, 2))
        return tuple(edited(t, draw) if i == side else t for i, t in enumerate(tree))
    if len(tree) == 3:
        return (draw(st.sampled_from([op for op in "+-*/" if op != tree[0]])), *tree[1:])
    if tree[0] == "c":
        return ("c", tree[1] * draw(st.sampled_from([-1.0, 2.0, 1.000001])))
    return ("y",) if tree[0] == "x" else ("x",)


RANDOM = settings(max_examples=60, deadline=None, derandomize=True)


@RANDOM
@given(TREES, st.data())
def test_rewritten_programs_are_certified(tree, data):
    other = rewritten(tree, data.draw)
    certificate = certify(
        lambda x, y: value(tree, x, y), lambda x, y: value(other, x, y), np.ones(2), np.ones(2)
    )
    assert certificate.verdict == Verdict.CONFIRMED, (tree, other, certificate.reason)


@RANDOM
@given(TREES, st.data())
def test_gradients_of_rewritten_programs_are_certified(tree, data):
    other = rewritten(tree, data.draw)
    grads = [jax.grad(lambda x, y, t=t: jnp.sum(value(t, x, y)), (0, 1)) for t in (tree, other)]
    certificate = certify(*grads, np.ones(2), np.ones(2))
    assert certificate.verdict == Verdict.CONFIRMED, (tree, other, certificate.reason)


@RANDOM
@given(TREES, st.data())
def test_programs_with_one_edit_are_refuted(tree, data):
    other = edited(tree, data.draw)
    rng = np.random.default_rng(0)
    points = [rng.standard_normal((2, 2)) for _ in range(5)]
    both = [(value(tree, *p), value(other, *p)) for p in points]
    assume(
        all(np.abs(a - b).max() > 1e-9 * np.abs(a).max() for a, b in both)
    )  # the edit changed something
    certificate = certify(
        lambda x, y: value(tree, x, y), lambda x, y: value(other, x, y), np.ones(2), np.ones(2)
    )
    assert certificate.verdict == Verdict.REFUTED, (tree, other, certificate.reason)


SMOOTH = st.recursive(
    LEAVES,
    lambda t: st.one_of(
        st.tuples(st.sampled_from("+-*/"), t, t),
        st.tuples(st.sampled_from(["exp", "tanh", "abs", "relu", "norm", "root"]), t),
    ),
    max_leaves=6,
)
FUNCTIONS = {
    "exp": lambda a: jnp.exp(a / 4),
    "tanh": jnp.tanh,
    "abs": jnp.abs,
    "relu": jax.nn.relu,
    "norm": lambda a: a / jnp.sqrt(1 + jnp.sum(a * a)),
    "root": lambda a: jnp.sqrt(a * a),
}
DOUBTFUL = [
    lambda a: a,
    jnp.abs,
    jax.nn.relu,
    lambda a: jnp.sqrt(a * a),
    lambda a: a * jnp.sign(a),
    lambda a: a * (1 + 1e-9),
    lambda a: jnp.where(a > 0, a, 0) + jnp.where(a < 0, a, 0),
    lambda a: jnp.where(a > 0, a, -a),
    lambda a: jnp.maximum(a, 2 * a),
    lambda a: jnp.log(jnp.exp(a)),
    lambda a: jnp.exp(jnp.log(a)),
    lambda a: a * jnp.exp(a) * jnp.exp(-a),
    lambda a: jnp.max(a) + 0 * a,
    lambda a: 2 * jax.nn.relu(a) - jnp.abs(a),
    lambda a: a * jnp.sign(1 + a * a),
    lambda a: a * jnp.sign(1 + a + a * a),
]


def smooth(tree, x, y):
    if tree[0] in FUNCTIONS:
        return FUNCTIONS[tree[0]](smooth(tree[1], x, y))
    if len(tree) == 3:
        return value((tree[0], ("x",), ("y",)), smooth(tree[1], x, y), smooth(tree[2], x, y)[::-1])
    return value(tree, x, y)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(SMOOTH, st.sampled_from(DOUBTFUL), st.booleans())
def test_no_verdict_contradicts_float64(tree, change, outside):
    """The change is made to the result or to x; where it is no identity it shows at some of many
    points.
    """

    def f(x, y):
        return smooth(tree, x, y)

    def g(x, y):
        return change(smooth(tree, x, y)) if outside else smooth(tree, change(x), y)

    certificate = certify(f, g, np.ones(3), np.ones(3))
    assume(certificate.verdict != Verdict.UNDECIDED)
    rng = np.random.default_rng(0)
    with enable_x64(True):
        many = jnp.asarray(
            rng.standard_normal((300, 2, 3)) * np.repeat([0.3, 1.0, 4.0], 100)[:, None, None]
        )
        a, b = (np.asarray(jax.vmap(lambda p, h=h: h(*p))(many)) for h in (f, g))
    finite = np.isfinite(a) & np.isfinite(b)
    gap = np.where(finite, np.abs(a - b), 0) / (np.abs(a) + np.abs(b) + 1e-300)
    if certificate.verdict == Verdict.CONFIRMED:
        assert finite[:200].mean() > 0.9
        assert np.quantile(gap[finite], 0.99) < 1e-6
    else:
        assert gap.max() > 1e-11
    assert math.isfinite(certificate.error_probability)
