"""A claim as plain dictionaries and strings: what a report keeps of it.

A report outlives the functions of its claim, so it keeps their source and the mask as text.
"""

import dataclasses
import functools
import inspect
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgrad.claims import shapes
from jaxgrad.claims.derivation import Derivation
from jaxgrad.claims.user_errors import innermost

LONGEST = 20_000
"""Characters of source that a report keeps of each function."""


def claim_summary(derivation: Derivation, wrt: Sequence[str]) -> dict[str, Any]:
    """Return a claim as plain dictionaries and strings.

    Args:
        derivation: the claim.
        wrt: names of the inputs that are differentiated.

    Returns:
        ``text``, one sentence; ``formula`` in LaTeX; ``reference``; ``inputs``, for each array its
        ``name``, ``shape`` and ``domain``; ``mask``, the distribution as it is written; ``source``,
        for the loss and the closed form ``title``, ``place`` and ``code``.

    >>> import jaxgrad as jg
    >>> found = claim_summary(jg.catalog.get("mse"), ("pred", "y"))
    >>> found["text"]
    'The closed form is the gradient of the loss in pred and y.'
    >>> found["inputs"][0]
    {'name': 'pred', 'shape': 'm', 'domain': 'real'}
    """
    vjp = hasattr(derivation.loss, "source")
    what = "vector-Jacobian product of the primal" if vjp else "gradient of the loss"
    if derivation.mask is not None:
        what = "gradient of the expected loss"
    names = f"{', '.join(wrt[:-1])} and {wrt[-1]}" if len(wrt) > 1 else "".join(wrt)
    where = f" in {names}" if wrt else ""
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
        "text": f"The closed form is the {what}{where}.",
        "formula": derivation.formula,
        "reference": " ".join(derivation.reference.split()),
        "inputs": inputs,
        "mask": "" if derivation.mask is None else mask_text(derivation),
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
        return find_source(function)


@functools.lru_cache(maxsize=256)
def _found(function: Any) -> tuple[str, str]:
    return find_source(function)


def mask_text(derivation: Derivation) -> str:
    """Return a mask's distribution as it is written, at the first choice of sizes.

    >>> from jaxgrad import masks
    >>> mask_text(
    ...     Derivation(
    ...         name="d",
    ...         loss=lambda x, mask: (mask * x).sum(),
    ...         gradient=lambda x, mask: {"x": mask.mean(x.shape[0])},
    ...         shapes={"x": "n", "mask": "n"},
    ...         mask=masks.Bernoulli(0.5),
    ...     )
    ... )
    'Bernoulli(prob=0.5)'
    """
    distribution = derivation.distribution(derivation.choose_sizes())
    if not dataclasses.is_dataclass(distribution):
        return repr(distribution)
    fields = (
        f"{f.name}={_value(getattr(distribution, f.name))}"
        for f in dataclasses.fields(distribution)
    )
    return f"{type(distribution).__name__}({', '.join(fields)})"


def _value(value: Any) -> str:
    array = np.asarray(value)
    if array.ndim == 0:
        return f"{array:.4g}" if array.dtype.kind == "f" else str(value)
    return f"{array.min():.4g}…{array.max():.4g}"


def find_source(function: Callable[..., Any]) -> tuple[str, str]:
    """Return a function's place, as file:line, and its source; without source, its name."""
    function = innermost(getattr(function, "source", function))
    if not inspect.isroutine(function) and not inspect.isclass(function):
        function = type(function).__call__
    try:
        path = Path(inspect.getsourcefile(function) or "")
        if path.name == "<string>":  # made by `exec`: Python 3.13 would show the text after `-c`
            raise OSError
        lines, start = inspect.getsourcelines(function)
    except (OSError, TypeError):
        return "", f"# no source: {function!r}"
    # what is installed is named from its package on
    folders = [Path.cwd(), *(Path(folder) for folder in sys.path if folder)]
    path = next(
        (path.relative_to(folder) for folder in folders if path.is_relative_to(folder)), path
    )
    return f"{path}:{start}", textwrap.dedent("".join(lines)).rstrip()
