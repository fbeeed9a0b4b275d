"""Claims that a function with its own differentiation rule is differentiated as the plain one.

Let f have a custom rule and g be the same function without one. The loss of the claim has parts at
inputs of their own,

    L = ⟨g(x), c⟩ + Σ_b ⟨g(x_b), c_b⟩ + ⟨∇⟨g(x'), c'⟩, v⟩

and the closed form is what JAX makes of f: its value and VJP under jit, the same under vmap and
jit, and the derivative of its VJP. So a wrong residual, a rule that cannot be batched, and one that
is wrong at second order alone show in different rows.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgrad.claims import shapes as dimensions
from jaxgrad.claims.domains import DISCRETE, WHOLE, kind

BATCH, TWICE = "_batch", "_twice"


def inner(a: Any, b: Any) -> Any:
    """Return the inner product of two trees of arrays.

    >>> float(inner({"x": jnp.ones(2)}, {"x": jnp.full(2, 3.0)}))
    6.0
    """
    return sum(jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def placeholders(
    inputs: Mapping[str, Any], sizes: Mapping[str, int], domains: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the inputs' shapes and types in place of arrays; a function as domain is called.

    >>> placeholders({"x": "m n", "k": "m"}, {"m": 2, "n": 3}, {"k": "index n"})["k"]
    ShapeDtypeStruct(shape=(2,), dtype=int32)
    """

    def one(text: str, domain: Any) -> Any:
        shape = dimensions.evaluate(text, sizes)
        if callable(domain):
            return jax.ShapeDtypeStruct(
                shape, jnp.result_type(np.asarray(domain(jax.random.key(0), shape)).dtype)
            )
        return jax.ShapeDtypeStruct(shape, jnp.result_type(int if kind(domain) in WHOLE else float))

    return {
        name: jax.tree.map(lambda text, n=name: one(text, domains.get(n, "real")), tree)
        for name, tree in inputs.items()
    }


def output_shapes(
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    domains: Mapping[str, Any],
    argument: str = "plain",
) -> Any:
    """Return the dimension strings of a function's outputs, traced at two choices of sizes.

    Raises:
        ValueError: when an output is no array, or its shape does not follow from the inputs'
            dimensions.

    >>> output_shapes(lambda x, w: x @ w, {"x": "m n", "w": "n p"}, {})
    'm p'
    """
    found: list[list[list[set[str]]]] = []
    tree: Any = None
    every = {d for _, dims in dimensions.leaves(inputs) for d in dims}
    for variant in (2, 3):
        sizes = dimensions.choose(inputs, variant)
        out = jax.eval_shape(function, *placeholders(inputs, sizes, domains).values())
        leaves, tree = jax.tree.flatten(out)
        if not leaves or not all(hasattr(leaf, "shape") for leaf in leaves):
            raise ValueError(f"`{argument}` must return arrays of numbers, but returns {out!r}")
        found.append(
            [
                [
                    {"*".join(d) for d in every if dimensions.size_of(d, sizes) == n} or {str(n)}
                    for n in leaf.shape
                ]
                for leaf in leaves
            ]
        )
    texts = []
    for first, second in zip(*found, strict=True):
        axes = (
            [a & b for a, b in zip(first, second, strict=True)]
            if len(first) == len(second)
            else [set()]
        )
        if not all(axes):
            raise ValueError(
                "the shape of `cotangent` does not follow from `shapes`; pass the dimension "
                "strings of the output"
            )
        texts.append(" ".join(min(axis) for axis in axes))
    return jax.tree.unflatten(tree, texts)


def _is_real(tree: Any) -> bool:
    return all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(tree))


def claim_parts(
    f: Callable[..., Any],
    plain: Callable[..., Any],
    shapes: Mapping[str, Any],
    cotangent: Any,
    domains: Mapping[str, Any],
    second_order: bool,
) -> dict[str, Any]:
    """Return loss, gradient, shapes and domains of the claim on the rule of `f`."""
    order = tuple(shapes)
    drawn = placeholders(shapes, dimensions.choose(shapes), domains)
    moving = tuple(
        name
        for name in order
        if kind(domains.get(name, "real")) not in DISCRETE and _is_real(drawn[name])
    )
    size = next(n for n in ("batch", "batches", "batch_size") if n not in dimensions.names(shapes))

    def batched(tree: Any) -> Any:
        return jax.tree.map(lambda text: f"{size} {text}".rstrip(), tree)

    def of(
        function: Callable[..., Any], inputs: dict[str, Any], suffix: str
    ) -> Callable[[dict[str, Any]], Any]:
        fixed = {name: inputs[name + suffix] for name in order}
        return lambda changed: function(*({**fixed, **changed}[name] for name in order))

    def at(inputs: dict[str, Any], suffix: str) -> dict[str, Any]:
        return {name: inputs[name + suffix] for name in moving}

    def slope(function: Callable[..., Any], inputs: dict[str, Any], point: dict[str, Any]) -> Any:
        """The VJP at a point, along the drawn directions."""
        (product,) = jax.vjp(of(function, inputs, TWICE), point)[1](inputs["cotangent" + TWICE])
        return inner(product, {name: inputs[f"direction_{name}"] for name in moving})

    def over_batch(function: Callable[..., Any], inputs: dict[str, Any]) -> Any:
        return jax.vmap(lambda *x: function(*x))(*(inputs[name + BATCH] for name in order))

    def loss(**inputs: Any) -> Any:
        total = inner(of(plain, inputs, "")({}), inputs["cotangent"])
        total += inner(over_batch(plain, inputs), inputs["cotangent" + BATCH])
        return total + (slope(plain, inputs, at(inputs, TWICE)) if second_order else 0)

    def gradient(**inputs: Any) -> dict[str, Any]:
        value, pull = jax.vjp(of(jax.jit(f), inputs, ""), at(inputs, ""))
        found = {**pull(inputs["cotangent"])[0], "cotangent": value}

        def one(point: dict[str, Any], rest: dict[str, Any], weight: Any) -> Any:
            return jax.vjp(lambda p: f(*({**rest, **p}[name] for name in order)), point)[1](weight)[
                0
            ]

        rest = {name: inputs[name + BATCH] for name in order}
        rows = jax.jit(jax.vmap(one))(at(inputs, BATCH), rest, inputs["cotangent" + BATCH])
        found |= {name + BATCH: rows[name] for name in moving}
        found["cotangent" + BATCH] = over_batch(f, inputs)
        if second_order:
            twice = jax.grad(lambda point: slope(f, inputs, point))(at(inputs, TWICE))
            found |= {name + TWICE: twice[name] for name in moving}
        return found

    every = {**shapes, "cotangent": cotangent}
    every |= {
        name + BATCH: batched(tree) for name, tree in [*shapes.items(), ("cotangent", cotangent)]
    }
    if second_order:
        every |= {name + TWICE: tree for name, tree in [*shapes.items(), ("cotangent", cotangent)]}
        every |= {f"direction_{name}": shapes[name] for name in moving}
    where = {
        name + suffix: domain
        for name, domain in domains.items()
        for suffix in ("", BATCH, *([TWICE] * second_order))
    }
    loss.source, gradient.source = plain, f  # type: ignore[attr-defined]  # for `jaxgrad show`
    return {"loss": loss, "gradient": gradient, "shapes": every, "domains": where}
