"""A claim in words and source, for ``jaxgrad list`` and ``jaxgrad show``."""

import contextlib
import dataclasses
import inspect
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgrad import masks
from jaxgrad.claims import shapes
from jaxgrad.claims.derivation import Derivation
from jaxgrad.claims.user_errors import innermost
from jaxgrad.reports.layout import Line


def overview(derivations: Sequence[Derivation], width: int | None) -> list[Line]:
    """Return a table of derivations: name, inputs, mask, reference.

    Args:
        derivations: which.
        width: columns to keep to; where they do not hold all, references stand on lines of their
            own. None leaves all whole.
    """
    head = ("derivation", "inputs", "mask", "reference")
    rows = [
        (d.name, ", ".join(d.input_names), mask(d) if d.mask is not None else "", d.reference)
        for d in derivations
    ]
    rows = [(*row[:3], " ".join(row[3].split())) for row in rows]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(4)]
    below = width is not None and sum(widths[:3]) + 6 + 50 > width
    padded = (
        widths if width is None or sum(widths[:3]) + 6 <= width else [0] * 4
    )  # what is wider than the terminal is not aligned
    lines: list[Line] = []
    for row, styles in ((head, ("head",) * 4), *((row, ("name", "", "", "dim")) for row in rows)):
        line: Line = [(f"{row[i]:<{padded[i]}}  ", styles[i]) for i in range(3)]
        room = None if width is None else width - (4 if below else sum(widths[:3]) + 6)
        reference = row[3] if room is None else textwrap.shorten(row[3], room, placeholder="…")
        lines += (
            [line, [("    ", ""), (reference, styles[3])]]
            if below
            else [[*line, (reference, styles[3])]]
        )
    rule = width if below else max(sum(len(text) for text, _ in line) for line in lines)
    lines.insert(2 if below else 1, [("─" * (rule or 0), "dim")])
    return lines


def mask(derivation: Derivation) -> str:
    """Return a mask's distribution as it is written, at the first choice of sizes where it depends
    on them.

    >>> from jaxgrad import masks
    >>> mask(
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


def description(derivation: Derivation, width: int) -> list[Line]:
    """Return all that a claim says: formula, shapes, domains, mask, reference and the closed form's
    source.
    """
    lines: list[Line] = [[(derivation.name, "name")], [], *_field("claim", [_claim(derivation)])]
    if derivation.formula:
        lines += _field(
            "formula",
            textwrap.wrap(
                derivation.formula, width - 12, break_long_words=False, break_on_hyphens=False
            ),
        )
    lines += _field("inputs", _inputs(derivation))
    if derivation.mask is not None:
        lines += _field(
            "mask",
            [
                f"{mask(derivation)}, a draw has shape ({_shape(derivation.shapes['mask'])})",
                *_depends(derivation),
            ],
        )
    if derivation.reference:
        lines += _field(
            "reference", textwrap.wrap(" ".join(derivation.reference.split()), width - 12)
        )
    is_vjp = hasattr(derivation.loss, "source")
    for title, function in (
        ("primal" if is_vjp else "loss", derivation.loss),
        ("closed form", derivation.gradient),
    ):
        place, source = find_source(function)
        lines += [[], [(title, "head"), (f"  {place}", "dim")]] + [
            [(line, "")] for line in textwrap.indent(source, "    ").splitlines()
        ]
    return lines


def _claim(derivation: Derivation) -> str:
    names: list[str] = []

    def trace() -> None:
        inputs = derivation.inputs(jax.random.key(0))
        if derivation.mask is not None:
            inputs["mask"] = derivation.distribution(derivation.choose_sizes())
        names.extend(derivation.gradient(**inputs))

    with contextlib.suppress(
        Exception
    ):  # a closed form that cannot be traced is shown all the same
        jax.eval_shape(trace)
    wrt = f" in {', '.join(names)}" if names else ""
    if hasattr(derivation.loss, "source"):
        return f"the closed form is the vector-Jacobian product of the primal{wrt}"
    return (
        f"the closed form is the gradient of "
        f"{'the expected loss' if derivation.mask is not None else 'the loss'}{wrt}"
    )


def _field(title: str, texts: Sequence[str]) -> list[Line]:
    return [
        [(f"{title if i == 0 else '':<12}", "head"), (text, "")] for i, text in enumerate(texts)
    ]


def _inputs(derivation: Derivation) -> list[str]:
    rows = []
    for name in derivation.input_names:
        domain = derivation.domains.get(name, "real")
        text = (
            domain if isinstance(domain, str) else f"drawn by {getattr(domain, '__name__', domain)}"
        )
        rows += [
            (label, _shape(dims), text)
            for label, dims in shapes.leaves({name: derivation.shapes[name]})
        ]
    label, shape = (max(len(row[i]) for row in rows) for i in (0, 1))
    return [f"{row[0]:<{label}}  ({row[1]}){' ' * (shape - len(row[1]))}  {row[2]}" for row in rows]


def _shape(dims: Any) -> str:
    dims = shapes.parse(dims, "mask") if isinstance(dims, str) else dims
    return ", ".join("*".join(dim) for dim in dims)


def _depends(derivation: Derivation) -> list[str]:
    if isinstance(derivation.mask, masks.Mask) or derivation.mask is None:
        return []
    names = list(inspect.signature(derivation.mask).parameters)
    sizes = derivation.choose_sizes()
    return (
        [f"(it depends on the sizes; here {', '.join(f'{n} = {sizes[n]}' for n in names)})"]
        if names
        else []
    )


def find_source(function: Callable[..., Any]) -> tuple[str, str]:
    """Return where a function stands, as file:line, and its source; what has none is told by its
    name.
    """
    function = innermost(getattr(function, "source", function))
    if not inspect.isroutine(function) and not inspect.isclass(function):
        function = type(function).__call__
    try:
        lines, start = inspect.getsourcelines(function)
        path = Path(inspect.getsourcefile(function) or "")
    except (OSError, TypeError):
        return "", f"# no source: {function!r}"
    folders = [
        Path.cwd(),
        *(Path(folder) for folder in sys.path if folder),
    ]  # what is installed is named from its package on
    path = next(
        (path.relative_to(folder) for folder in folders if path.is_relative_to(folder)), path
    )
    return f"{path}:{start}", textwrap.dedent("".join(lines)).rstrip()
