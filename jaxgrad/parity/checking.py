"""`check`: the JAX function against a golden, array by array.

Both sides are compared in float64, where the bound is measured rounding, and in float32, where a
port must be about as accurate as torch. After a difference every named block is run alone.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import jax

from jaxgrad.jaxprs.precision import in_precision
from jaxgrad.parity.devices import canary
from jaxgrad.parity.golden import HALVES, Golden
from jaxgrad.parity.jax_side import JaxSide
from jaxgrad.parity.judging import numerical, semantic, unsettled
from jaxgrad.parity.left_out import GRADIENTS, left_out, unseen
from jaxgrad.parity.mapping import map_weights
from jaxgrad.parity.probing import probed
from jaxgrad.parity.runs import Absorbed, compared, in_double, in_single
from jaxgrad.parity.weight_map import WeightMap
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.reports.report import Report

_FLAT = (
    "only values were compared: torch has no gradient here, since all is detached, frozen or "
    "integer"
)


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
    """Compare a JAX function with torch's values, gradients, activations and cotangents.

    Equation:
        |ours − torch| ≤ 64 · max(move of ours, move of torch's, ε |torch|) in float64

    entry by entry, where a move is what noise of one unit in the last place on inputs and state
    does; and in float32, or another `precision`, e(ours) ≤ 10 · e(torch) for the rms errors e.

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

    >>> import numpy as np, torch
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
    """A JAX function, checked against golden after golden.

    Goldens of the same shapes share compiled programs.

    Takes the arguments of `check`, but for the golden, with which it is called.

    >>> checker = Checker(lambda params, x: 2 * x)
    >>> from jaxgrad.parity import record
    >>> import numpy as np
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
        return "; the recorded loss is not compared: pass `loss=`" if missing else ""

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
        doubles, moves = in_double(side, golden)
        singles, beside = in_single(side, golden, precision) if precision else ([], [])
        findings: list[Finding] = []
        absorbed = Absorbed(side, golden)
        flat = "" if any(golden.group(f"double/{kind}") for kind in GRADIENTS) else _FLAT
        for kind, label, wrt, pair in compared(
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
        findings += left_out(golden, doubles, findings)
        context: dict[str, Any] = {
            "device": jax.devices()[0].platform,
            "seed": golden.manifest["seed"],
            "jax": jax.__version__,
            "torch": golden.manifest["torch"],
            "taps": side.partners,
            "unseen": unseen(findings) + self._no_loss(golden),
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
