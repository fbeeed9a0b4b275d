"""Outputs that are tuples, lists or dictionaries, as one dictionary of labelled leaves.

Leaves are labelled alike for torch and JAX. A loss of a JAX output is differentiated here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_NUMBERS = (bool, int, float, complex, np.generic)


def leaves(tree: Any, label: str = "") -> dict[str, Any]:
    """Return the arrays or tensors of an output by their path; None is left out.

    Raises:
        ValueError: when the output holds something that is no array.

    >>> leaves((1.0, {"a": 2.0, "b": None}), "output")
    {'output[0]': 1.0, "output[1]['a']": 2.0}
    """
    if tree is None:
        return {}
    if isinstance(tree, Mapping):
        items = [(f"[{key!r}]", tree[key]) for key in sorted(tree, key=str)]
    elif isinstance(tree, (tuple, list)):
        items = [(f"[{i}]", item) for i, item in enumerate(tree)]
    elif isinstance(tree, _NUMBERS) or (hasattr(tree, "shape") and hasattr(tree, "dtype")):
        return {label: tree}
    else:
        raise ValueError(
            f"{label or 'the output'} is a {type(tree).__name__}; a parity check compares arrays, "
            f"and tuples, lists and dictionaries "
            "of them; return these"
        )
    return {k: v for part, item in items for k, v in leaves(item, label + part).items()}


def real_parts(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays or tensors, each complex one as its real and its imaginary part.

    >>> real_parts({"output": np.array([1 + 2j])})
    {'output.real': array([1.]), 'output.imag': array([2.])}
    """
    found = {}
    for label, array in arrays.items():
        is_complex = isinstance(array, complex) or "complex" in str(getattr(array, "dtype", ""))
        found |= (
            {f"{label}.real": array.real, f"{label}.imag": array.imag}
            if is_complex
            else {label: array}
        )
    return found


def loss_with_gradients(
    loss: Callable[[Any], Any] | None, output: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the loss of a JAX output, and its gradient in each labelled real leaf."""
    if loss is None:
        return {}, {}
    flat, tree = jax.tree.flatten(output)
    real = [i for i, v in enumerate(flat) if jnp.issubdtype(jnp.result_type(v), jnp.floating)]

    def of_real(values: Sequence[Any]) -> Any:
        moving = dict(zip(real, values, strict=True))
        output = jax.tree.unflatten(tree, [moving.get(i, v) for i, v in enumerate(flat)])
        value = jnp.asarray(loss(output))
        if value.size != 1:
            raise ValueError(
                f"`loss` must give one number, and gives shape {list(value.shape)}; reduce it "
                f"with .mean() or .sum()"
            )
        return value.reshape(())

    value, slopes = jax.value_and_grad(of_real)([jnp.asarray(flat[i]) for i in real])
    slope = dict(zip(real, slopes, strict=True))
    return {"loss": value}, leaves(
        jax.tree.unflatten(tree, [slope.get(i) for i in range(len(flat))]), "output"
    )
