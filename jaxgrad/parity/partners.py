"""Which of torch's module outputs each tap of the JAX function stands for.

A tap that `checkpoint_name` named has the partner of its name. A tap without one, and a module with
parameters without one, are refused unless they are ignored.
"""

import difflib
import fnmatch
import itertools
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from jaxgrad.parity.golden import Golden

_SAME = 1e-6
"""Arrays no further apart than this part of their largest entry are the same but for rounding."""


def partners_of_taps(
    seen: Sequence[str],
    explicit: Collection[str],
    golden: Golden,
    taps: Mapping[str, str],
    ignore: Sequence[str],
) -> dict[str, str]:
    """Find for each of our taps torch's; refuse what has no partner and is not ignored.

    Args:
        seen: the names of our taps.
        explicit: those that `checkpoint_name` gave.
        golden: what torch computed.
        taps: {our name: torch's}, as the user gave them.
        ignore: names or patterns that need no partner.
    """
    theirs = golden.manifest["order"]
    partners = {}
    for name, partner in taps.items():
        if name not in seen:
            raise ValueError(f"`taps`: {_hint(name, seen, 'the JAX function has no tap')}")
        if _label(partner, theirs) is None:
            raise ValueError(f"`taps`: {_hint(partner, theirs, 'torch has no module output')}")
        partners[name] = _label(partner, theirs)
    for name in seen:
        if name in partners or name.partition("#")[0] not in explicit or _ignored(name, ignore):
            continue
        label = _label(name, theirs)
        if label is None:
            raise ValueError(
                f"{_hint(name, theirs, 'torch has no module output')}; give `taps={{{name!r}: "
                f"torch name}}`, or leave it out by "
                f"`ignore=[{name!r}]`"
            )
        partners[name] = label
    covered = {str(k).partition("[")[0] for k in partners.values()}
    alone = [
        k
        for k in _with_parameters(golden)
        if k.partition("[")[0] not in covered and not _ignored(k, ignore)
    ]
    if partners and alone:
        raise ValueError(
            f"torch's {', '.join(map(repr, alone[:6]))}{' and others' * (len(alone) > 6)} "
            f"have parameters and no partner "
            "among the JAX function's taps; name them by "
            "jax.ad_checkpoint.checkpoint_name(value, name), or leave them out by "
            f"`ignore=[{alone[0]!r}]` (patterns such as '*' too)"
        )
    return {k: v for k, v in partners.items() if v is not None}


def _with_parameters(golden: Golden) -> list[str]:
    modules = golden.manifest["modules"]
    return [
        k
        for k in golden.manifest["order"]
        if modules.get(k.partition("[")[0].partition("#")[0], {}).get("parameters")
    ]


def _ignored(name: str, ignore: Sequence[str]) -> bool:
    return any(
        fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.partition("[")[0], pattern)
        for pattern in ignore
    )


def _label(name: str, theirs: Sequence[str]) -> str | None:
    return next((label for label in (name, f"{name}[0]") if label in theirs), None)


def _hint(name: str, known: Sequence[str], what: str) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    listed = ", ".join(list(known)[:12]) + (", …" if len(known) > 12 else "")
    return (
        f"{what} {name!r}; {f'did you mean {near[0]!r}? ' if near else ''}there are "
        f"{listed or 'none'}"
    )


def axis_order(name: str, raw: np.ndarray, partner: str, theirs: np.ndarray) -> tuple[int, ...]:
    """Return the order of axes that brings one of our taps into torch's.

    `jax.vmap` may have moved its batch axis.
    """
    same = tuple(range(raw.ndim))
    if raw.ndim != theirs.ndim or sorted(raw.shape) != sorted(theirs.shape):
        raise ValueError(
            f"the tap {name!r} has shape {list(raw.shape)}, and torch's {partner!r} "
            f"{list(theirs.shape)}; name the value "
            "that corresponds, or leave it out by `ignore`"
        )
    if raw.ndim < 2:
        return same
    moved = [(k, *(i for i in same if i != k)) for k in range(1, raw.ndim)]
    fitting = [
        p for p in dict.fromkeys((same, *moved)) if np.transpose(raw, p).shape == theirs.shape
    ]
    fitting = fitting or [
        p for p in itertools.permutations(same) if np.transpose(raw, p).shape == theirs.shape
    ]

    def gap(order: tuple[int, ...]) -> float:
        with np.errstate(invalid="ignore"):
            return float(
                np.nan_to_num(np.abs(np.transpose(raw, order) - theirs), nan=0.0).max(initial=0.0)
            )

    best = min(fitting, key=gap)  # of wrong values any order may lie nearest
    right = gap(best) <= _SAME * float(np.abs(np.nan_to_num(theirs)).max(initial=0.0))
    return same if same in fitting and not right else best
