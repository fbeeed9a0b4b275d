"""How alike torch's parameters and the port's arrays are, by their names, places and shapes."""

import difflib
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxgrad.parity import layouts
from jaxgrad.parity.golden import Golden

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
class Partner:
    """A parameter of torch, or a third of one, that an array of the port may be."""

    name: str
    shape: tuple[int, ...]
    third: int
    words: tuple[str, ...]
    trainable: bool


def _words(name: str) -> tuple[str, ...]:
    parts: list[str] = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)
    return tuple(_SAME_WORD.get(p.lower(), p.lower()) for p in parts)


def _class(words: tuple[str, ...]) -> str:
    return next((w for w in reversed(words) if w in _CLASSES), "")


def partners_of(golden: Golden, ours: Mapping[str, Any]) -> dict[str, Partner]:
    """Return torch's parameters; of a packed one its thirds, where the port splits them."""
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
                found[f"{name} {third}"] = Partner(name, array.shape, third, words, trainable)
        else:
            found[name] = Partner(name, array.shape, 0, _words(name), trainable)
    return found


def possible_layouts(shape: tuple[int, ...], theirs: Mapping[str, Partner]) -> dict[str, list[str]]:
    """Return for each parameter the layouts that may bring it into a shape."""
    found = {
        key: list(layouts.candidates(p.shape, shape, third=p.third)) for key, p in theirs.items()
    }
    return {key: options for key, options in found.items() if options}


def costs(
    ours: list[str], theirs: Mapping[str, Partner], possible: Mapping[str, Mapping[str, Any]]
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
