"""Which torch parameter is which array of the port, and in which layout.

Names and shapes propose a map. Where they leave a choice (a square matrix may be transposed, two
layers may have one shape) the function is run with each choice, block by block on torch's own
activations, and the choice that agrees with torch is taken. Where none or several agree, the map is
refused: it would be a guess.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from scipy.optimize import linear_sum_assignment

from jaxgrad.jaxprs.precision import in_precision
from jaxgrad.parity.golden import Golden
from jaxgrad.parity.likeness import costs, partners_of, possible_layouts
from jaxgrad.parity.weight_map import CHOICE, WeightMap, real_shapes
from jaxgrad.reports.finding import Verdict

MARGIN = 0.05
"""Partners whose names and places are this close to the best are tried too."""
MOST = 512
"""Choices tried together in one block."""

_FITS = 1e6
"""A cost that no pair whose shapes and kinds fit reaches."""


def map_weights(
    template: Any, golden: Golden, jax_function: Callable[..., Any], **options: Any
) -> WeightMap:
    """Find which of torch's parameters is which array of a tree, and how it is laid out.

    Args:
        template: the port's parameters; arrays of the right shapes, whose numbers do not matter.
        golden: what torch computed.
        jax_function: called as ``jax_function(tree, **inputs)``; run where names and shapes leave a
            choice.
        **options: ``taps``, ``ignore``, ``buffers`` and ``loss`` of `jaxgrad.parity.check`.

    Raises:
        ValueError: when an array or a parameter has no partner, and when none or several choices
            agree with torch.

    >>> from jaxgrad import parity
    >>> import torch
    >>> golden = parity.record(torch.nn.Linear(2, 2), {"x": np.array([[1.0, 2.0], [3.0, 5.0]])})
    >>> tree = {"kernel": np.zeros((2, 2)), "bias": np.zeros(2)}
    >>> print(map_weights(tree, golden, lambda p, x: x @ p["kernel"] + p["bias"]))
    ['bias'] is bias
    ['kernel'] is weight (axes 1 0)

    Source: the layouts are those of torch.nn, flax.linen and Equinox.
    """
    ours = real_shapes(template)
    theirs = partners_of(golden, ours)
    possible = {path: possible_layouts(shape, theirs) for path, shape in ours.items()}
    lost = [path for path, found in possible.items() if not found]
    if lost:
        raise ValueError(
            f"`weights`: no parameter of torch fits {lost[0]}, of shape {list(ours[lost[0]])}; "
            f"torch has " + ", ".join(f"{k} {list(v.shape)}" for k, v in golden.state.items())
        )
    cost = costs(list(ours), theirs, possible)
    rows, columns = linear_sum_assignment(np.where(np.isfinite(cost), cost, _FITS))
    names = list(theirs)
    best = {
        list(ours)[r]: names[c]
        for r, c in zip(rows, columns, strict=True)
        if np.isfinite(cost[r, c])
    }
    alone = [path for path in ours if path not in best]
    unused = [n for n in names if n not in best.values() and theirs[n].trainable]
    if alone or unused:
        what = f"{alone[0]} of the port" if alone else f"torch's {theirs[unused[0]].name}"
        raise ValueError(
            f"`weights`: {what} has no partner; pass the map yourself, as a function of torch's "
            f"{{name: array}} or a WeightMap"
        )

    def settled(margin: float) -> WeightMap:
        choices = {}
        for r, path in enumerate(ours):
            near = [
                n
                for c, n in enumerate(names)
                if cost[r, c] <= min(cost[r, names.index(best[path])] + margin, _FITS)
            ]
            near = [best[path], *(n for n in near if n != best[path])][:3]
            choices[path] = [
                (theirs[n].name, layout) for n in near for layout in possible[path].get(n, ())
            ]
        open_choices = {path: found for path, found in choices.items() if len(found) > 1}
        found = WeightMap(template, {path: found[0] for path, found in choices.items()})
        return (
            _settled(found, open_choices, golden, jax_function, options) if open_choices else found
        )

    try:
        return settled(MARGIN)
    except (
        _NoneAgreesError
    ) as error:  # flax numbers Dense(4)(Dense(4)(x)) from the outside, so that places mislead
        try:
            return settled(np.inf)
        except ValueError:
            raise error from None


class _NoneAgreesError(ValueError):
    """No choice within the margin agrees with torch."""


def _part(choice: tuple[str, str]) -> tuple[str, str]:
    name, layout = choice
    return name, layout.partition(",")[0] if layout.startswith("rows") else ""


def _settled(
    found: WeightMap,
    choices: Mapping[str, list[tuple[str, str]]],
    golden: Golden,
    function: Callable[..., Any],
    options: Any,
) -> WeightMap:
    """Run each block with every choice that it reads, and keep the one that agrees with torch."""
    from jaxgrad.parity.blocks import Blocks, Key
    from jaxgrad.parity.jax_side import JaxSide
    from jaxgrad.parity.judging import Pair, semantic

    arrays = golden.arrays | {f"state/{CHOICE}{path}": np.zeros((), np.int32) for path in choices}
    side = JaxSide(function, weights=replace(found, choices=choices), **options)
    with in_precision(True), jax.default_matmul_precision("highest"):
        side.adopt(Golden(golden.manifest, arrays))
        given = side.given("float64", side.golden.state, side.golden.inputs)
        side("float64", side.golden.state, side.golden.inputs)
        blocks = Blocks(side)
        numbers = blocks.numbers(given, golden.activations)
        chosen: dict[str, int] = {}
        values, moves = (
            golden.group(f"{p}/activation") | golden.group(f"{p}/value") for p in ("double", "move")
        )
        for name, block in blocks.blocks.items():
            left = [
                path
                for path in choices
                if Key("fixed", CHOICE + path) in block.reads and path not in chosen
            ]
            if not left:
                continue
            if math.prod(len(choices[path]) for path in left) > MOST:
                raise ValueError(
                    f"`weights`: {', '.join(left[:4])} and others are ambiguous all at once, "
                    f"since no value between them is named; "
                    "name activations by jax.ad_checkpoint.checkpoint_name, or pass the map "
                    "yourself"
                )
            fitting = []
            for combination in itertools.product(*(range(len(choices[path])) for path in left)):
                trial = dict(zip(left, combination, strict=True))
                picked = [_part(choices[path][i]) for path, i in trial.items()]
                if len(set(picked)) < len(picked):
                    continue  # one parameter for two arrays
                at = {
                    Key("fixed", CHOICE + path): np.int32(i)
                    for path, i in {**chosen, **trial}.items()
                }
                value = blocks.value(block, {**numbers, **at})
                move = moves.get(name, np.zeros(values[name].shape)).astype(np.float64)
                if (
                    semantic(Pair(value, values[name], np.zeros(value.shape), move), name).verdict
                    == Verdict.CONFIRMED
                ):
                    fitting.append(trial)
            if len(fitting) != 1:
                what, then = "more than one of its layouts agrees with torch", ""
                if not fitting:
                    what, then = (
                        "the port may be wrong, for none of its layouts agrees with torch",
                        ", and the check says where it is",
                    )
                raise (ValueError if fitting else _NoneAgreesError)(
                    f"`weights`: {' and '.join(left)}: {what} at {name}, so that the map would be "
                    f"a guess; pass it yourself, as a "
                    f"function from torch's state_dict, {{name: array}}, to the port's tree, or "
                    f"as a WeightMap{then}"
                )
            chosen |= fitting[0]
    unread = [path for path in choices if path not in chosen]
    if unread:
        raise ValueError(
            f"`weights`: the function never reads {unread[0]}, so that its layout cannot be "
            f"found; pass the map yourself"
        )
    return replace(
        found,
        entries={**found.entries, **{path: choices[path][i] for path, i in chosen.items()}},
        choices={},
    )
