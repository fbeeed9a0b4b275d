"""Claims as lines of text, for ``jaxgrad list`` and ``jaxgrad show``."""

import contextlib
import inspect
import textwrap
from collections.abc import Sequence

import jax

from jaxgrad import masks
from jaxgrad.claims.derivation import Derivation
from jaxgrad.claims.summary import claim_summary, mask_text
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
        (d.name, ", ".join(d.input_names), mask_text(d) if d.mask is not None else "", d.reference)
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


def description(derivation: Derivation, width: int) -> list[Line]:
    """Return a claim as lines: formula, shapes, domains, mask, reference and source."""
    claim = claim_summary(derivation, _differentiated(derivation))
    formula = textwrap.wrap(
        claim["formula"], width - 12, break_long_words=False, break_on_hyphens=False
    )
    inputs = [(i["name"], f"({_dimensions(i['shape'])})", i["domain"]) for i in claim["inputs"]]
    widths = [max(len(row[k]) for row in inputs) for k in (0, 1)]
    fields = {
        "claim": [claim["text"]],
        "formula": formula,
        "inputs": [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in inputs],
        "mask": [],
        "reference": textwrap.wrap(claim["reference"], width - 12),
    }
    if derivation.mask is not None:
        shape = _dimensions(claim["mask_shape"])
        fields["mask"] = [f"{claim['mask']}, shape ({shape})", *_depends(derivation)]
    lines: list[Line] = [[(derivation.name, "name")], []]
    for title, texts in fields.items():
        for i, text in enumerate(texts):
            lines.append([(f"{title if i == 0 else '':<12}", "head"), (text, "")])
    for source in claim["source"]:
        lines += [[], [(source["title"], "head"), (f"  {source['place']}", "dim")]]
        lines += [[(f"    {line}".rstrip(), "")] for line in source["code"].splitlines()]
    return lines


def _differentiated(derivation: Derivation) -> list[str]:
    """Return the names of the gradient's arrays; none where the closed form cannot be traced."""
    names: list[str] = []
    with contextlib.suppress(Exception):
        inputs = derivation.inputs(jax.random.key(0))
        mask = derivation.distribution(derivation.choose_sizes())
        if mask is not None:
            inputs["mask"] = mask
        jax.eval_shape(lambda: names.extend(derivation.gradient(**inputs)))
    return names


def _dimensions(text: str) -> str:
    return ", ".join(text.split())


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
