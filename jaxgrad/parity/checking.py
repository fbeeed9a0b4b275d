"""check: the JAX function against a golden, array by array, and where they part."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import jax
import numpy as np

from jaxgrad.evidence.noise.rounding import COPIES, SAFETY, noisy_copies
from jaxgrad.jaxprs.precision import in_precision
from jaxgrad.parity.devices import canary
from jaxgrad.parity.golden import HALVES, Golden
from jaxgrad.parity.jax_side import JaxSide
from jaxgrad.parity.judging import Pair, numerical, semantic, unit_of, unsettled
from jaxgrad.parity.mapping import WeightMap, map_weights
from jaxgrad.parity.probing import probed
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.reports.report import Report

KINDS = {
    "value": "{}", "loss": "{}", "outlet": "d loss / d {}",
    "activation": "{}", "buffer": "{} updated", "cotangent": "d {}", "parameter": "d {}",
    "input": "d {}", "curvature_parameter": "dd {}", "curvature_input": "dd {}",
}  # fmt: skip
"""How the arrays of each kind are called in a report: d for a gradient, dd for a Hessian-vector
product.
"""
_GRADIENTS = ("parameter", "input")
_FLAT = (
    "values alone were compared: torch gives no gradient of it, since it is detached, frozen, "
    "whole, or depends on nothing real"
)

Results = dict[str, dict[str, np.ndarray]]


class Options(TypedDict, total=False):
    """What may be chosen in a check; `check` says what each is."""

    weights: Any
    taps: Mapping[str, str] | None
    ignore: str | Sequence[str]
    buffers: bool
    loss: Callable[[Any], Any] | None
    precision: str | None
    isolate: bool


def check(
    jax_function: Callable[..., Any],
    golden_or_path: Golden | str | Path,
    *,
    name: str | None = None,
    **options: Unpack[Options],
) -> Report:
    """Compare a JAX function with what torch computed: values, gradients, activations and
    cotangents.

    Equation:
        |ours − torch| ≤ 64 · max(move of ours, move of torch's, ε |torch|) in float64, entry by entry, where a move is what noise
        of one unit in the last place on inputs and state does; and in float32, or another `precision`, e(ours) ≤ 10 · e(torch).

    Args:
        jax_function: called as ``jax_function(params, **inputs)``; returns what torch's forward
            returns. Values inside are compared where `jax.ad_checkpoint.checkpoint_name` gives them
            the name of a torch module.
        golden_or_path: from `record`, or the file it was saved in.
        weights: turns torch's ``{name: array}`` into the port's own tree: a function, a
            `WeightMap`, or a tree of arrays shaped like the port's parameters, for which a map is
            then found. Without it `params` is torch's state dict.
        taps: {our name: torch's module}, for scopes and for names that differ.
        ignore: names, or patterns such as ``"dropout*"``, that need no partner.
        buffers: whether the function returns ``(output, {buffer name: new value})``.
        loss: the loss in JAX, a scalar of the output, where one was recorded.
        precision: where accuracy is compared too: "float32", which is the default; "bfloat16" or
            "float16", where the golden was recorded with these `precisions`; or None, nowhere.
        isolate: whether, after a difference, each named block is run alone on torch's activations.
        name: what the report is called; by default the golden's name.

    Returns:
        A `Report`, one line per array: outputs and activations by their name, ``d x`` for a
        gradient or cotangent, ``dd x`` for a Hessian-vector product. Errors are relative to the
        array's largest entry. In `context`, ``first_forward`` names the first block that differs by
        itself, and ``first_vjp`` lists it for the VJP: several blocks where it is one of them.

    Raises:
        ValueError: for a golden that cannot be read, a tap or parameter without a partner, noise
            that is missing or not used, and shapes that differ.

    >>> import torch
    >>> from jaxgrad import parity
    >>> golden = parity.record(torch.nn.Linear(3, 2), {"x": np.linspace(0, 1, 12).reshape(4, 3)})
    >>> parity.check(lambda params, x: x @ params["weight"].T + params["bias"], golden).verdict
    <Verdict.CONFIRMED: 'confirmed'>

    Source: entrywise bounds from conditioning, Higham, Accuracy and Stability of Numerical
    Algorithms, 2002, chapter 1.
    """
    golden = golden_or_path if isinstance(golden_or_path, Golden) else Golden.load(golden_or_path)
    return Checker(jax_function, **options)(golden, name=name)


class Checker:
    """A JAX function, checked against golden after golden; those of the same shapes share compiled
    programs.

    Takes the arguments of `check`, but for the golden, with which it is called.

    >>> checker = Checker(lambda params, x: 2 * x)
    >>> from jaxgrad.parity import record
    >>> golden = record(lambda x: x + x, {"x": np.ones(3)})
    >>> checker(golden).verdict
    <Verdict.CONFIRMED: 'confirmed'>
    """

    def __init__(
        self,
        jax_function: Callable[..., Any],
        *,
        weights: Any = None,
        taps: Mapping[str, str] | None = None,
        ignore: str | Sequence[str] = (),
        buffers: bool = False,
        loss: Callable[[Any], Any] | None = None,
        precision: str | None = "float32",
        isolate: bool = True,
    ) -> None:
        """Keep the options; nothing is run yet."""
        if not callable(jax_function):
            raise ValueError(
                f"`jax_function` is a {type(jax_function).__name__}; give a function, called as "
                f"f(params, **inputs)"
            )
        self.function, self.weights, self.loss = jax_function, weights, loss
        if precision not in (None, "float32", *HALVES):
            raise ValueError(
                f"`precision` is {precision!r}; it is 'float32', 'bfloat16', 'float16' or None"
            )
        for argument, value, kind in (("taps", taps, Mapping), ("ignore", ignore, Sequence)):
            if value is not None and not isinstance(value, kind):
                wanted = "{our name: torch's}" if kind is Mapping else "a list of names"
                raise ValueError(f"`{argument}` is {value!r}; give {wanted}")
        self.precision, self.isolate = precision, isolate
        ignored = (ignore,) if isinstance(ignore, str) else tuple(ignore)
        self.found: WeightMap | None = None
        self.side = JaxSide(jax_function, taps=taps, ignore=ignored, buffers=buffers, loss=loss)

    def _weights(self, golden: Golden) -> tuple[Any, Any]:
        """Return the function that makes the port's tree, and the map where there is one."""
        tree = any(
            hasattr(leaf, "shape") for leaf in jax.tree.leaves(self.weights)
        )  # an Equinox model is a tree, though callable
        if not tree and self.weights is not None and not callable(self.weights):
            raise ValueError(
                f"`weights` is a {type(self.weights).__name__} without arrays; give a function, a "
                f"WeightMap or a tree of arrays"
            )
        if not tree:
            return self.weights, self.weights if isinstance(self.weights, WeightMap) else None
        if self.found is None:
            side = self.side
            options = {
                "taps": side.taps,
                "ignore": side.ignore,
                "buffers": side.buffers,
                "loss": side.loss,
            }
            self.found = map_weights(self.weights, golden, self.function, **options)
        return self.found, self.found

    def _no_loss(self, golden: Golden) -> str:
        missing = self.loss is None and golden.manifest["loss"]
        return (
            "; the loss that was recorded is not compared, for want of `loss=`" if missing else ""
        )

    def __call__(self, golden: Golden, *, name: str | None = None) -> Report:
        """Check the function against one golden."""
        start = time.perf_counter()
        side = self.side
        if self.loss is not None and not golden.manifest["loss"]:
            raise ValueError("`loss`: none was recorded; record with `loss=`, or leave it out")
        with in_precision(True), jax.default_matmul_precision("highest"):
            side.weights, found = self._weights(golden)
        side.adopt(golden)
        precision = self.precision
        if precision in HALVES and not golden.group(f"{precision}/value"):
            raise ValueError(
                f"`precision`: {golden.name} was not recorded in {precision}; record with "
                f"`precisions=[{precision!r}]`"
            )
        doubles, moves = _in_double(side, golden)
        singles, beside = _in_single(side, golden, precision) if precision else ([], [])
        findings: list[Finding] = []
        absorbed = _Absorbed(side, golden)
        flat = "" if any(golden.group(f"double/{kind}") for kind in _GRADIENTS) else _FLAT
        for kind, label, wrt, pair in _pairs(
            golden, doubles, moves, singles if precision == "float32" else []
        ):
            finding = absorbed.judged(semantic(pair, wrt), kind, label, pair)
            findings.append(
                replace(finding, warning=finding.warning or flat) if kind == "value" else finding
            )
            if singles and finding.verdict == Verdict.CONFIRMED and not finding.warning:
                ours, exact = ([run[kind][label] for run in runs] for runs in (singles, beside))
                low = (
                    pair
                    if precision == "float32"
                    else pair._replace(
                        theirs_single=golden.arrays.get(f"{precision}/{kind}/{label}")
                    )
                )
                accuracy = numerical(low, ours, exact, wrt, precision=precision or "")
                findings += [accuracy] if accuracy is not None else []
        findings += probed(side, golden)
        findings += _left_out(golden, doubles, findings)
        context: dict[str, Any] = {
            "device": jax.devices()[0].platform,
            "seed": golden.manifest["seed"],
            "jax": jax.__version__,
            "torch": golden.manifest["torch"],
            "taps": side.partners,
            "unseen": _unseen(findings) + self._no_loss(golden),
        }
        if precision == "float32":
            with in_precision(False), jax.default_matmul_precision("highest"):
                products = canary()
            context["products"] = [str(products), *golden.manifest.get("products", ())]
            if not products.in_force:
                detail = f"{products}; what is compared in float32 is something else"
                findings.append(
                    Finding(
                        evidence="float32", wrt="products", verdict=Verdict.UNDECIDED, detail=detail
                    )
                )
        if found is not None:
            context["weights"] = found.lines()
        differing = [
            f
            for f in findings
            if f.evidence == "semantic" and (f.verdict == Verdict.REFUTED or unsettled(f))
        ]
        if self.isolate and any(f not in absorbed.explained for f in differing):
            from jaxgrad.parity.isolation import isolated

            findings, told = isolated(side, findings, doubles)
            context |= told
        spent = (time.perf_counter() - start) / max(1, len(findings))
        return Report(
            name=name or golden.name,
            findings=tuple(replace(f, seconds=spent) for f in findings),
            context=context,
        )


def _copies(
    golden: Golden, unit: float
) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Return state and inputs as recorded, and copies with noise of one unit in the last place."""
    aliases = golden.manifest["aliases"]

    def widen(group: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in group.items()}

    state = {k: v for k, v in widen(golden.state).items() if k not in aliases}
    stacked = noisy_copies(
        {"state": state, "inputs": widen(golden.inputs)}, unit, golden.manifest["seed"]
    )
    return [
        (
            {k: v[i] for k, v in stacked["state"].items()},
            {k: v[i] for k, v in stacked["inputs"].items()},
        )
        for i in range(COPIES + 1)
    ]


class _Absorbed:
    """What rounding inside of our function explains, measured once something differs.

    Noise on inputs does not see what floating point absorbs alike every time: (x + 1e30) − 1e30 is
    0 in torch, and x where XLA has simplified it. Random rounding of every operation does. Where
    torch casts to float32, and our function too, the noise is float32's.
    """

    def __init__(self, side: JaxSide, golden: Golden) -> None:
        self.side, self.golden = side, golden
        self.explained: list[Finding] = []

    @functools.cached_property
    def _moves(self) -> list[tuple[Results, str]]:
        with in_precision(True), jax.default_matmul_precision("highest"):
            moves = self.side.shaken(*_copies(self.golden, 0.0)[0]) or {}
        told = ", as where something large is added and taken away again; check at other inputs too"
        if self.side.unit == unit_of("float64"):
            return [(moves, told)]
        low = _in_double(self.side, self.golden, self.side.unit)[1]
        cast = (
            ", since it casts to float32; cast to jnp.promote_types(x.dtype, jnp.float32), "
            "which keeps float64, and check again"
        )
        return [(moves, told), (low, cast)]

    def judged(self, finding: Finding, kind: str, label: str, pair: Pair) -> Finding:
        """Take a refutation back where rounding inside of our function moves the array as far."""
        if finding.verdict != Verdict.REFUTED or finding.error is None:
            return finding
        for results, told in self._moves:
            moves = results.get(kind, {}).get(label, np.zeros(pair.ours.shape))
            if (
                semantic(
                    pair._replace(our_move=np.maximum(pair.our_move, moves)), finding.wrt
                ).verdict
                != Verdict.REFUTED
            ):
                size = float(np.abs(pair.ours).max(initial=0.0)) or 1.0
                up_to = f"moves it by up to {float(np.max(moves)) / size:.1g} of its largest entry"
                detail = (
                    f"{finding.detail}; rounding inside of the JAX function alone {up_to}{told}"
                )
                self.explained.append(replace(finding, verdict=Verdict.UNDECIDED, detail=detail))
                return self.explained[-1]
        return finding


def _in_double(
    side: JaxSide, golden: Golden, unit: float = unit_of("float64")
) -> tuple[Results, Results]:
    """Run in float64 at the recorded numbers and at noisy copies; return the results and how far
    each entry moves.
    """
    with in_precision(True), jax.default_matmul_precision("highest"):
        runs = [side("float64", *copy) for copy in _copies(golden, unit)]
    base = runs[0]
    with np.errstate(invalid="ignore"):
        moves = {
            kind: {
                k: functools.reduce(np.maximum, [np.abs(run[kind][k] - v) for run in runs[1:]])
                for k, v in group.items()
                if v.dtype.kind == "f"
            }
            for kind, group in base.items()
        }
    return base, moves


def _in_single(
    side: JaxSide, golden: Golden, precision: str
) -> tuple[list[Results], list[Results]]:
    """Run in a low precision at the recorded numbers and noisy copies, and in float64 at the same
    numbers.
    """
    copies = [
        tuple(
            {k: v.astype(np.float32) if v.dtype.kind == "f" else v for k, v in part.items()}
            for part in copy
        )
        for copy in _copies(golden, unit_of(precision))
    ]
    with in_precision(False), jax.default_matmul_precision("highest"):
        singles = [side(precision, *copy) for copy in copies]
    with in_precision(True), jax.default_matmul_precision("highest"):
        doubles = [side("float64", *copy) for copy in copies]
    return singles, doubles


def _pairs(
    golden: Golden, base: Results, moves: Results, singles: Sequence[Results]
) -> Iterator[tuple[str, str, str, Pair]]:
    """Yield kind, label, name in the report, and both sides, of everything that both sides have."""
    names: set[str] = set()
    for kind, words in KINDS.items():
        theirs, their_moves, theirs_single = (
            golden.group(f"{part}/{kind}") for part in ("double", "move", "single")
        )
        if kind == "buffer":  # what torch leaves as it is was not recorded
            theirs = {k: golden.state[k] for k in base[kind]} | theirs
        labels = [
            k
            for k in (golden.manifest["order"] if kind in ("activation", "cotangent") else theirs)
            if k in theirs
        ]
        for label in labels:
            if label not in base.get(kind, {}):
                continue
            ours = base[kind][label]
            none = np.zeros(ours.shape)
            single = singles[0][kind][label] if singles else None
            pair = Pair(
                ours,
                theirs[label],
                moves[kind].get(label, none),
                their_moves.get(label, none).astype(np.float64),
                single,
                theirs_single.get(label),
            )
            wrt = words.format(label)
            wrt = f"{wrt} ({kind})" if wrt in names else wrt
            names.add(wrt)
            yield kind, label, wrt, pair


def _unseen(findings: Sequence[Finding]) -> str:
    """Say what a comparison at the recorded numbers cannot see."""
    alone = [
        f.wrt.removesuffix(" beyond")
        for f in findings
        if f.evidence == "probe" and not f.wrt.startswith("d ")
    ]
    but = (
        f", but for {', '.join(alone)}, which ran alone on values of 10⁻² to 10³ in size"
        if alone
        else ""
    )
    return (
        f"regions that no recorded activation reaches are not seen{but}; record at larger "
        f"inputs too where there are bounds"
    )


def _left_out(golden: Golden, base: Results, findings: Sequence[Finding]) -> list[Finding]:
    """Tell of what was recorded and not compared, and of gradients that compare nothing."""
    out = []
    changed = [
        k
        for k, v in golden.group("double/buffer").items()
        if v.dtype.kind == "f" and k not in base["buffer"]
    ]
    if changed:
        detail = f"torch updates {', '.join(changed)}, and the JAX function does not return it"
        remedy = "return (output, {buffer name: new value}) and pass `buffers=True`"
        out.append(
            Finding(
                evidence="semantic",
                wrt="buffers",
                verdict=Verdict.UNDECIDED,
                detail=f"{detail}; {remedy}",
            )
        )

    def group(prefix: str) -> dict[str, np.ndarray]:
        return {
            f"{kind}/{k}": v
            for kind in (*_GRADIENTS, "outlet")
            for k, v in golden.group(f"{prefix}/{kind}").items()
        }

    found, moved, single = group("double"), group("move"), group("single")
    with np.errstate(invalid="ignore", over="ignore"):
        between = {k: np.nan_to_num(v - found[k], nan=np.inf) for k, v in single.items()}
    outlets = [
        k for k in found if k.startswith("outlet/")
    ]  # where the loss gives noise alone, all else is that noise's gradient
    gradients = [k for k in found if k not in outlets]

    def zero(name: str) -> bool:
        limits = [
            SAFETY * float(np.max(np.abs(group[name]), initial=0.0))
            for group in (moved, between)
            if name in group
        ]
        return bool(np.all(np.abs(found[name]) <= min(limits, default=0.0)))

    if any(kinds and all(map(zero, kinds)) for kinds in (gradients, outlets)):
        detail = (
            "every gradient is zero, to rounding, in torch: the loss does not depend on anything, "
            "as a softmax under a mean; "
            "record without `loss`, or with one that tells"
        )
        out.append(
            Finding(evidence="semantic", wrt="gradients", verdict=Verdict.UNDECIDED, detail=detail)
        )
    elif findings and all(f.warning.startswith("vacuous") for f in findings):
        detail = (
            "all that was compared is zero, to rounding, on both sides; record at inputs "
            "where it is not"
        )
        out.append(
            Finding(evidence="semantic", wrt="everything", verdict=Verdict.UNDECIDED, detail=detail)
        )
    return out
