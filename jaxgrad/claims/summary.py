"""A claim in plain words and strings: what a report says of it once the functions are gone."""

import functools
from collections.abc import Sequence
from typing import Any

from jaxgrad.claims import describe, shapes
from jaxgrad.claims.derivation import Derivation

LONGEST = 20_000
"""Characters of source that a report keeps of each function."""


def statement(derivation: Derivation, wrt: Sequence[str]) -> dict[str, Any]:
    """Return a claim as plain dictionaries and strings.

    Args:
        derivation: the claim.
        wrt: names of the inputs that are differentiated.

    Returns:
        ``text``, one sentence; ``formula`` in LaTeX; ``reference``; ``inputs``, for each array its
        ``name``, ``shape`` and ``domain``; ``mask``, the distribution as it is written; ``source``,
        for the loss and the closed form ``title``, ``place`` and ``code``.

    >>> import jaxgrad as jg
    >>> found = statement(jg.catalog.get("mse"), ("pred", "y"))
    >>> found["text"], found["inputs"][0]
    ('The closed form is the gradient of the loss in pred and y.', {'name': 'pred', 'shape': 'm', 'domain': 'real'})
    """
    vjp = hasattr(derivation.loss, "source")
    what = "vector-Jacobian product of the primal" if vjp else "gradient of the loss"
    if derivation.mask is not None:
        what = "gradient of the loss's expectation over the mask,"
    names = f"{', '.join(wrt[:-1])} and {wrt[-1]}" if len(wrt) > 1 else "".join(wrt)
    inputs = []
    for name in derivation.input_names:
        domain = derivation.domains.get(name, "real")
        drawn = (
            domain
            if isinstance(domain, str)
            else f"drawn by {getattr(domain, '__name__', 'a function')}"
        )
        for label, dims in shapes.leaves({name: derivation.shapes[name]}):
            inputs.append(
                {"name": label, "shape": " ".join("*".join(dim) for dim in dims), "domain": drawn}
            )
    pairs = (("primal" if vjp else "loss", derivation.loss), ("closed form", derivation.gradient))
    sources = [
        (title, *_source(getattr(function, "source", function))) for title, function in pairs
    ]
    return {
        "text": f"The closed form is the {what} in {names}.",
        "formula": derivation.formula,
        "reference": " ".join(derivation.reference.split()),
        "inputs": inputs,
        "mask": "" if derivation.mask is None else describe.mask(derivation),
        "mask_shape": derivation.shapes.get("mask", ""),
        "source": [
            {"title": title, "place": place, "code": code[:LONGEST]}
            for title, place, code in sources
        ],
    }


def _source(function: Any) -> tuple[str, str]:
    try:
        return _found(function)
    except TypeError:  # a callable that cannot be hashed
        return describe.find_source(function)


@functools.lru_cache(maxsize=256)
def _found(function: Any) -> tuple[str, str]:
    return describe.find_source(function)
