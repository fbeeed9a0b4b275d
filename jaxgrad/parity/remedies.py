"""What restores parity at a block that fails: the first known difference that works.

An attempt changes a few equations of the block. It works when the block's value agrees with
torch's, where the value was wrong; or when, with its new parts, all cotangents add up to torch's,
where only the VJP was wrong.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxgrad.parity.blocks import Blocks, Key
from jaxgrad.parity.conventions import attempts
from jaxgrad.parity.examined import torch_cotangents
from jaxgrad.parity.jax_side import JaxSide
from jaxgrad.parity.judging import semantic
from jaxgrad.parity.rewriting.module_block import Attempt, ModuleBlock
from jaxgrad.reports.finding import Verdict

MOST = 200
"""Attempts at one block."""


def remedy(
    side: JaxSide,
    blocks: Blocks,
    examined: Mapping[str, Any],
    name: str,
    wrong: Mapping[Key, Sequence[str]],
) -> str:
    """Return what restores parity of a block, in words; empty where nothing that is known does.

    Args:
        side: the JAX function.
        blocks: it, cut at its taps.
        examined: every block, examined.
        name: the block that fails.
        wrong: the cotangents that do not add up to torch's, each with the blocks that may be why.
    """
    examined_block, golden = examined[name], side.golden
    owner = name.partition("[")[0].partition("#")[0]
    modules = golden.manifest["modules"]
    module = modules.get(owner, modules.get("", {}))
    inside = owner + "." if owner in modules else ""
    vectors = {
        k: v.astype(np.float64)
        for k, v in golden.state.items()
        if k.startswith(inside) and v.ndim == 1 and v.dtype.kind == "f"
    }
    given = side.given("float64", golden.state, golden.inputs)
    numbers = blocks.numbers(given, golden.activations)
    forward = examined_block.forward.verdict == Verdict.REFUTED
    if forward:
        told = _missing_term(golden, examined_block, name)
        if told:
            return told

    own = [key for key, names in wrong.items() if name in names]
    if not forward and not any(key in examined_block.parts for key in own):
        return ""

    def works(attempt: Attempt) -> bool:
        try:
            with np.errstate(all="ignore"):
                value, parts = blocks.both(
                    examined_block.block,
                    numbers,
                    None if forward else examined_block.cotangent,
                    attempt.substitutes,
                )
        except Exception:
            # a change that does not fit the shapes or types around it fails in whatever way JAX
            # chooses
            return False
        if semantic(examined_block.pair(value), name).verdict != Verdict.CONFIRMED:
            return False
        return forward or _adds_up(golden, examined, name, parts, own)

    tried = itertools.islice(
        attempts(ModuleBlock(examined_block.block, dict(module.get("options", {})), vectors)), MOST
    )
    return next((attempt.words for attempt in tried if works(attempt)), "")


def _adds_up(
    golden: Any,
    examined: Mapping[str, Any],
    name: str,
    parts: Mapping[Key, np.ndarray],
    wrong: Sequence[Key],
) -> bool:
    theirs = torch_cotangents(golden)
    for key in wrong:
        others = [s for other, s in examined.items() if other != name and key in s.parts]
        total = sum(
            (s.parts[key] for s in others),
            np.asarray(parts.get(key, np.zeros(theirs[key].double.shape))),
        )
        none = np.zeros(theirs[key].double.shape)
        shift = sum(
            (np.nan_to_num(s.moves[key]) for s in examined.values() if key in s.parts), none
        )
        if semantic(theirs[key].beside(total, shift), name).verdict != Verdict.CONFIRMED:
            return False
    return bool(wrong)


def _missing_term(golden: Any, examined_block: Any, name: str) -> str:
    """Say where the block lacks, or has too much of, a parameter of the module, such as a bias."""
    theirs = examined_block.torchs["value"][name]
    ours = examined_block.value
    if ours.shape != theirs.shape or theirs.dtype.kind != "f":
        return ""
    for parameter, array in golden.state.items():
        if (
            parameter.rpartition(".")[0] != name.partition("[")[0].partition("#")[0]
            or array.dtype.kind != "f"
            or array.ndim != 1
        ):
            continue
        for axis in range(theirs.ndim):
            if theirs.shape[axis] != array.size:
                continue
            shape = [1] * theirs.ndim
            shape[axis] = array.size
            term = array.astype(np.float64).reshape(shape)
            for sign, words in ((1, "adding"), (-1, "leaving out")):
                if (
                    semantic(examined_block.pair(ours + sign * term), name).verdict
                    == Verdict.CONFIRMED
                ):
                    return f"{words} {parameter} restores parity"
    return ""


def buffer_remedy(golden: Any, name: str, ours: np.ndarray) -> str:
    """Say which convention of running statistics explains a buffer that differs."""
    if name not in golden.group("double/buffer"):
        return (
            "torch leaves it as it is, since it was recorded with train=False"
            if not golden.manifest["train"]
            else ""
        )
    module, _, which = name.rpartition(".")
    options = golden.manifest["modules"].get(module, {}).get("options", {})
    momentum, activation = options.get("momentum"), golden.activations.get(module)
    if (
        which not in ("running_mean", "running_var")
        or not isinstance(momentum, float)
        or not 0 < momentum < 1
        or activation is None
    ):
        return ""
    old, new = golden.state[name].astype(np.float64), golden.group("double/buffer")[name]
    batch, count = (new - (1 - momentum) * old) / momentum, activation.size / max(1, old.size)
    statistics = {"": batch}
    if which == "running_var" and count > 1:
        statistics["; torch's running variance is divided by n − 1"] = batch * (count - 1) / count
    for words, statistic in statistics.items():
        for weight in dict.fromkeys((momentum, 1 - momentum, 0.1, 0.01, 0.9, 0.99)):
            guess = (1 - weight) * old + weight * statistic
            if np.allclose(
                guess, ours, rtol=1e-9, atol=1e-12 * float(np.abs(old).max(initial=1.0))
            ):
                if weight != momentum:
                    return (
                        f"a weight of {momentum:g} for the batch, in place of {weight:g}, "
                        f"restores parity{words}"
                    )
                return f"the variance times n/(n − 1) restores parity{words}" if words else ""
    return ""
