"""Outputs that are tuples, lists or dictionaries, as one dictionary of labelled leaves; the same
for torch and JAX.
"""

from collections.abc import Mapping
from typing import Any

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
    """Return labelled arrays or tensors with the real and the imaginary part of each complex one in
    its place.

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
