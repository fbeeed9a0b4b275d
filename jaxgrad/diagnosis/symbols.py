"""The symbols by which a factor can be named, with their values in a case.

They are the sizes m, n, one less than them, their declared multiples, scalar inputs, and the
numbers of the mask's distribution: its probability p, 1 − p, its count or its size of patches.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from jaxgrad.claims import shapes
from jaxgrad.diagnosis.cases import Case, uniform_inputs


def symbols_of_sizes(declared: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, float]:
    """Return the sizes, one less than them, and their declared multiples, by name."""
    found: dict[str, float] = {}
    for name, size in sizes.items():
        found[name] = float(size)
        if size > 1:
            found[f"({name}−1)"] = size - 1.0
    for _, dims in shapes.leaves(declared):
        for dim in dims:
            if len(dim) > 1:
                found["·".join(sorted(dim))] = float(shapes.size_of(dim, sizes))
    return found


def symbols_of_mask(mask: Any, taken: Collection[str] = ()) -> dict[str, float]:
    """Return the numbers of a mask's distribution, by name: probability, count, size of patches."""
    found: dict[str, float] = {}
    probability = getattr(mask, "prob", None)
    if probability is not None and np.shape(probability) == () and 0 < probability < 1:
        symbol = "p" if "p" not in taken else "prob"
        found |= {symbol: float(probability), f"(1−{symbol})": 1 - float(probability)}
    for attribute in ("count", "patch_size"):
        if isinstance(value := getattr(mask, attribute, None), int):
            found[attribute] = float(value)
    return found


def symbols(given: Case) -> dict[str, float]:
    """Return all symbols of a case: of its sizes, its scalar inputs and its mask."""
    found = symbols_of_sizes(given.setting.problem.derivation.shapes, given.sizes)
    for name, x in uniform_inputs(given).items():
        if name != "cotangent" and x.shape == () and x != 0:
            found[name] = float(x)
    return found | symbols_of_mask(given.mask, found)
