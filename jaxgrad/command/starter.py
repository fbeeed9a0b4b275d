"""The file that ``jaxgrad new`` writes: derivations of each kind, explained."""

from pathlib import Path

from jaxgrad.runtime.files import check_writable, write_atomically

TEXT = '''"""Derivations of my own. Run:  jaxgrad verify {name}   or:  pytest --jaxgrad {name}"""

import jax
import jax.numpy as jnp
import jaxgrad as jg


# 1. A loss and the gradient that you derived by hand. Both are functions of the inputs by name.
def loss(x, y, w):
    return jnp.mean((x @ w - y) ** 2)


def gradient(x, y, w):
    # The keys say in what the loss is differentiated: here in w, not in the data.
    return {{"w": 2 / len(y) * x.T @ (x @ w - y)}}


least_squares = jg.Derivation(
    name="least_squares",
    loss=loss,
    gradient=gradient,
    # One letter for each size. Sizes are chosen, all different; a number is a fixed size,
    # "" a scalar, "2*k" a multiple.
    shapes={{"x": "m n", "y": "m", "w": "n"}},
    # LaTeX, for reports:  jaxgrad verify {name} --html report.html
    formula=r"\\nabla_w L = \\tfrac2m X^\\top (Xw - y)",
    reference="any textbook",
)

# 2. Inputs that do not range over all real numbers have a domain:
#    "positive", "probability", "spd", "simplex", "orthogonal", or a function (key, shape) -> array;
#    labels "binary" (0 or 1), "sign" (-1 or 1), "one_hot", "integer", or "index k" (whole numbers
#    from 0 to k - 1).
cross_entropy = jg.Derivation(
    name="cross_entropy",
    loss=lambda z, p: -jnp.sum(p * jax.nn.log_softmax(z)),
    # Right only because the entries of p sum to 1.
    gradient=lambda z, p: {{"z": jax.nn.softmax(z) - p}},
    shapes={{"z": "k", "p": "k"}},
    domains={{"p": "simplex"}},
)

# 3. A gradient in expectation over a random mask. The loss gets a draw of the mask, the closed form
#    its distribution.
dropout = jg.Derivation(
    name="dropout",
    loss=lambda x, y, w, mask: jnp.mean(((mask * x) @ w - y) ** 2),
    gradient=lambda x, y, w, mask: {{
        "w": 2 / len(y) * (
            mask.second_moment(x.shape[1]) * (x.T @ x) @ w - mask.mean(x.shape[1]) * (x.T @ y)
        )
    }},
    shapes={{"x": "m n", "y": "m", "w": "n", "mask": "m n"}},
    mask=jg.masks.Bernoulli(0.8),  # 0.8: the probability that an entry is kept
)

# 4. A layer's vector-Jacobian product: what flows back through it when `ct` comes from above.
tanh = jg.Derivation.from_vjp(
    "tanh",
    lambda x: jnp.tanh(x),
    lambda x, ct: {{"x": (1 - jnp.tanh(x) ** 2) * ct}},
    {{"x": "m n"}},
)

# 5. Parameters in a tree: a dictionary, or any other pytree, of shapes.
layer = jg.Derivation(
    name="layer",
    loss=lambda params, x: jnp.sum((x @ params["w"] + params["b"]) ** 2),
    gradient=lambda params, x: {{
        "params": {{
            "w": 2 * x.T @ (x @ params["w"] + params["b"]),
            "b": 2 * jnp.sum(x @ params["w"] + params["b"], axis=0),
        }}
    }},
    shapes={{"params": {{"w": "n p", "b": "p"}}, "x": "m n"}},
)

# Now make a mistake: leave out the 2, or a transpose, and see what jaxgrad says.
'''


def write(path: str) -> Path:
    """Write the file to start from.

    Args:
        path: where; the name must end in .py, and there must be no such file yet.

    Returns:
        The path.

    Raises:
        ValueError: when the file cannot be written, or is there already.
    """
    if not path.endswith(".py") or Path(path).name == ".py":
        raise ValueError(f"`FILE.py` must be a name that ends in .py, but is {path!r}")
    resolved = check_writable(path, "FILE.py")
    if resolved.exists():
        raise ValueError(
            f"`FILE.py` {path} is there already, and is left as it is; choose another name"
        )
    write_atomically(resolved, TEXT.format(name=Path(path).name))
    return Path(path)
