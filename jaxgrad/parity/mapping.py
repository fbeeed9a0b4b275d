"""Which torch parameter is which array of the port, and in which layout.

Names and shapes propose a map. Where they leave a choice (a square matrix may be transposed, two
layers may have one shape) the function is run with each choice, block by block on torch's own
activations, and the choice that agrees with torch is taken. Where none or several agree, the map is
refused: it would be a guess.
"""

import difflib
import itertools
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from jaxgrad.jaxprs.precision import in_precision
from jaxgrad.parity import layouts
from jaxgrad.parity.golden import Golden
from jaxgrad.reports.finding import Verdict
from jaxgrad.runtime.files import check_writable, write_atomically

MARGIN = 0.05
"""Partners whose names and places are this close to the best are tried too."""
MOST = 512
"""Choices tried together in one block."""

_CHOICE = "choice of "
_FITS = 1e6
"""A cost that no pair whose shapes and kinds fit reaches."""
_SAME_WORD = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "w": "weight",
    "b": "bias",
    "q": "query",
    "k": "key",
    "v": "value",
    "dense": "linear",
    "fc": "linear",
    "ln": "norm",
    "layernorm": "norm",
    "batchnorm": "norm",
    "bn": "norm",
    "attn": "attention",
    "output": "out",
    "gamma": "weight",
    "beta": "bias",
}
_TREES = re.compile(r"^\['(params|batch_stats)'\]")
_CLASSES = ("weight", "bias", "mean", "var")


@dataclass(frozen=True)
class WeightMap:
    """Torch's state dict turned into the port's own tree; call it with ``{torch name: array}``.

    Attributes:
        template: the port's tree; its arrays are replaced, all else is kept.
        entries: {path in the tree: (torch's name, layout)}, where layouts are those of
            `jaxgrad.parity.layouts`.

    >>> import numpy as np
    >>> weights = WeightMap({"kernel": np.zeros((3, 2))}, {"['kernel']": ("weight", "axes 1 0")})
    >>> weights({"weight": np.ones((2, 3))})["kernel"].shape
    (3, 2)
    """

    template: Any
    entries: Mapping[str, tuple[str, str]]
    choices: Mapping[str, list[tuple[str, str]]] = field(default_factory=dict)

    def __call__(self, state: Mapping[str, Any]) -> Any:
        """Return the port's tree with torch's numbers."""
        leaves, tree = jax.tree_util.tree_flatten_with_path(self.template)
        return jax.tree.unflatten(
            tree, [self._leaf(jax.tree_util.keystr(path), leaf, state) for path, leaf in leaves]
        )

    def _leaf(self, path: str, leaf: Any, state: Mapping[str, Any]) -> Any:
        if path in self.choices:
            cases = [layouts.apply(layout, state[name]) for name, layout in self.choices[path]]
            return jax.lax.select_n(jnp.broadcast_to(state[_CHOICE + path], cases[0].shape), *cases)
        if path not in self.entries:
            return leaf
        name, layout = self.entries[path]
        return layouts.apply(layout, state[name])

    def lines(self) -> list[str]:
        """Return the map in words, one line per array."""
        return [
            f"{path} is {name}" + (f" ({layout})" if layout != layouts.SAME else "")
            for path, (name, layout) in self.entries.items()
        ]

    def __str__(self) -> str:
        """Return the map in words."""
        return "\n".join(self.lines())

    def save(self, path: str | Path) -> Path:
        """Write the map, without the template, as JSON."""
        target = check_writable(path, "path")
        write_atomically(
            target, json.dumps({k: list(v) for k, v in self.entries.items()}, indent=1) + "\n"
        )
        return target

    @classmethod
    def load(cls, path: str | Path, template: Any) -> "WeightMap":
        """Read a map that was saved, for a tree of the same paths.

        Raises:
            ValueError: when the file is no map, or names paths that the tree has not.
        """
        try:
            entries = {
                k: (str(name), str(layout))
                for k, (name, layout) in json.loads(Path(path).read_text(encoding="utf-8")).items()
            }
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise ValueError(
                f"{path} is no weight map ({error}); write one with WeightMap.save"
            ) from None
        unknown = [k for k in entries if k not in _arrays(template)]
        if unknown:
            raise ValueError(
                f"{path} maps {unknown[0]!r}, which the tree has not; it has "
                f"{', '.join(_arrays(template))}"
            )
        return cls(template, entries)


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
    ours = _arrays(template)
    theirs = _partners(golden, ours)
    possible = {path: _possible(shape, theirs) for path, shape in ours.items()}
    lost = [path for path, found in possible.items() if not found]
    if lost:
        raise ValueError(
            f"`weights`: no parameter of torch fits {lost[0]}, of shape {list(ours[lost[0]])}; "
            f"torch has " + ", ".join(f"{k} {list(v.shape)}" for k, v in golden.state.items())
        )
    cost = _costs(list(ours), theirs, possible)
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


@dataclass(frozen=True)
class _Partner:
    name: str
    shape: tuple[int, ...]
    third: int
    words: tuple[str, ...]
    trainable: bool


def _arrays(template: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(template)[0]
    return {
        jax.tree_util.keystr(p): tuple(x.shape)
        for p, x in leaves
        if hasattr(x, "shape") and jnp.issubdtype(x.dtype, jnp.floating)
    }


def _words(name: str) -> tuple[str, ...]:
    parts: list[str] = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)
    return tuple(_SAME_WORD.get(p.lower(), p.lower()) for p in parts)


def _class(words: tuple[str, ...]) -> str:
    return next((w for w in reversed(words) if w in _CLASSES), "")


def _partners(golden: Golden, ours: Mapping[str, Any]) -> dict[str, _Partner]:
    split = any({"query", "key", "value"} & set(_words(path)) for path in ours)
    found = {}
    for name, array in golden.state.items():
        if array.dtype.kind != "f" or name in golden.manifest["aliases"]:
            continue
        trainable = name in golden.manifest["parameters"]
        if split and re.search(r"in_proj_(weight|bias)$", name):
            for third, word in enumerate(("query", "key", "value"), 1):
                words = (*_words(name.replace("in_proj_", "")), word)
                words = (*words[:-2], words[-1], words[-2])
                found[f"{name} {third}"] = _Partner(name, array.shape, third, words, trainable)
        else:
            found[name] = _Partner(name, array.shape, 0, _words(name), trainable)
    return found


def _possible(shape: tuple[int, ...], theirs: Mapping[str, _Partner]) -> dict[str, list[str]]:
    found = {
        key: list(layouts.candidates(p.shape, shape, third=p.third)) for key, p in theirs.items()
    }
    return {key: options for key, options in found.items() if options}


def _costs(
    ours: list[str], theirs: Mapping[str, _Partner], possible: Mapping[str, Mapping[str, Any]]
) -> np.ndarray:
    """Return how unlike names and places are; infinite where shapes or kinds do not fit.

    Arrays of one module go together: a module fits another when all its arrays do.
    """
    our_words, their_words = (
        {p: _words(_TREES.sub("", p)) for p in ours},
        {k: p.words for k, p in theirs.items()},
    )

    def fits(path: str, key: str) -> bool:
        kinds = {_class(our_words[path]), _class(their_words[key])}
        return key in possible[path] and (len(kinds) == 1 or "" in kinds)

    our_groups = _grouped(
        sorted(ours, key=_natural),
        lambda p: _TREES.sub("", p).rpartition("[")[0] or _TREES.sub("", p).rpartition(".")[0],
    )
    their_groups = _grouped(
        list(theirs), lambda k: f"{theirs[k].name.rpartition('.')[0]} {theirs[k].third or ''}"
    )
    home = {key: group for group, keys in their_groups.items() for key in keys}
    partners = {
        group: [
            other
            for other, keys in their_groups.items()
            if len(keys) == len(paths) and all(any(fits(p, k) for k in keys) for p in paths)
        ]
        for group, paths in our_groups.items()
    }
    together = all(partners.values())
    cost = np.full((len(ours), len(theirs)), np.inf)
    for group, paths in our_groups.items():
        among = partners[group] if together else list(their_groups)
        alike_groups = [g for g in our_groups if not together or partners[g] == partners[group]]
        place = alike_groups.index(group) / max(1, len(alike_groups) - 1)
        for r, c in itertools.product((ours.index(p) for p in paths), range(len(theirs))):
            path, key = ours[r], list(theirs)[c]
            if fits(path, key) and home[key] in among:
                alike = difflib.SequenceMatcher(None, our_words[path], their_words[key]).ratio()
                apart = abs(place - among.index(home[key]) / max(1, len(among) - 1))
                cost[r, c] = (
                    0.0 if alike == 1 else 1 - alike + 0.5 * apart
                )  # the same words need no place
    return cost


def _grouped(names: list[str], group: Callable[[str], str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(group(name), []).append(name)
    return found


def _natural(path: str) -> list[Any]:
    return [(0, int(w), "") if w.isdigit() else (1, 0, w) for w in re.split(r"(\d+)", path)]


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

    arrays = golden.arrays | {f"state/{_CHOICE}{path}": np.zeros((), np.int32) for path in choices}
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
                if Key("fixed", _CHOICE + path) in block.reads and path not in chosen
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
                    Key("fixed", _CHOICE + path): np.int32(i)
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
