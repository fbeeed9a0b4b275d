"""What a recording holds besides one run: its numbers, how far results move, and probes.

The numbers are inputs, state, cotangents and directions. Results move under noise of one unit in
the last place. Probes run a module alone on numbers of many sizes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxgrad.evidence.noise.rounding import COPIES, noisy_copies
from jaxgrad.parity.dispatch import UNSTEADY
from jaxgrad.parity.probing import values
from jaxgrad.parity.randomizing import randomized
from jaxgrad.parity.torch_side import Run, TorchSide

EPS = float(np.finfo(np.float64).eps)


COMPARED = (
    "value",
    "loss",
    "outlet",
    "parameter",
    "input",
    "activation",
    "cotangent",
    "inlet",
    "buffer",
    "curvature_parameter",
    "curvature_input",
)
"""Kinds of results that a golden holds."""


def moves_of(
    side: TorchSide, state: Any, inputs: Any, seeds: Any, loss: Any, directions: Any, base: Run
) -> dict[str, dict[str, np.ndarray]]:
    """Return how far each entry moves under last-digit noise on state and inputs."""
    copies = noisy_copies(
        {
            "state": {k: v for k, v in state.items() if k not in side.aliases},
            "inputs": dict(inputs),
        },
        EPS,
        side.seed,
    )
    moves: dict[str, dict[str, np.ndarray]] = {}
    for number in range(1, COPIES + 1):
        pick = {
            part: {k: copies[part][k][number] for k in group}
            for part, group in (("state", copies["state"]), ("inputs", inputs))
        }
        noisy = pick["state"] | {alias: pick["state"][name] for alias, name in side.aliases.items()}
        run = side("float64", noisy, pick["inputs"], seeds=seeds, loss=loss, directions=directions)
        for kind in COMPARED:
            for k, v in base.results.get(kind, {}).items():
                if v.dtype.kind != "f" or k not in run.results.get(kind, {}):
                    continue
                with np.errstate(invalid="ignore"):
                    moved = np.abs(run.results[kind][k] - v)
                so_far = moves.setdefault(kind, {}).setdefault(k, np.zeros(v.shape))
                moves[kind][k] = np.maximum(so_far, moved)
    return {kind: {k: _rounded_up(v) for k, v in group.items()} for kind, group in moves.items()}


def probes_of(side: TorchSide, run: Run, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Run each module without parameters or draws on numbers of many sizes."""
    arrays: dict[str, np.ndarray] = {}
    outputs = run.results.get("activation", {})
    sources = {label.partition("<")[0]: label.partition("<")[2] for label in run.module_inputs}
    for label in (k for k in run.order if k in sources and "#" not in k and "[" not in k):
        module, shape = side.target.get_submodule(label), outputs[label].shape
        if (
            any(True for _ in module.parameters())
            or any(True for _ in module.buffers())
            or sources[label] not in outputs
        ):
            continue
        x = values(outputs[sources[label]].shape, rng)
        c = rng.standard_normal(shape).astype(np.float32).astype(np.float64)
        double, single = side.alone(label, x, c, "float64"), side.alone(label, x, c, "float32")
        noisy = [
            side.alone(label, copy, c, "float64")
            for copy in noisy_copies([x], EPS, side.seed)[0][1:]
        ]
        if double is None or single is None or np.array_equal(double[0], x):
            continue
        arrays |= {f"probe/{label}": as_single(x), f"probe_seed/{label}": as_single(c)}
        for i, kind in enumerate(("probe", "probe_vjp")):
            moved = np.max([np.abs(run[i] - double[i]) for run in noisy if run is not None], axis=0)
            arrays |= {
                f"double/{kind}/{label}": double[i],
                f"single/{kind}/{label}": single[i],
                f"move/{kind}/{label}": _rounded_up(moved),
            }
    return arrays


def _rounded_up(array: np.ndarray) -> np.ndarray:
    """Return moves in float32, rounded up; in float64 where they leave its range."""
    limits, moved = np.finfo(np.float32), array[(array > 0) & np.isfinite(array)]
    if moved.size and (moved.min() < limits.tiny or moved.max() > limits.max):
        return array
    low = array.astype(np.float32)
    return np.where(low < array, np.nextafter(low, np.float32(np.inf)), low)


def as_single(array: np.ndarray) -> np.ndarray:
    """Return real numbers in float32."""
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def checked_inputs(inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the inputs as arrays, real ones rounded to float32; refuse what does not fit."""
    if not isinstance(inputs, Mapping) or not all(isinstance(k, str) and k for k in inputs):
        raise ValueError(
            "`inputs` must be a dictionary {name: array}, as {'x': numpy.ones((4, 3))}"
        )
    found = {}
    for name, value in inputs.items():
        array = np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
        if array.dtype.kind not in "fiub":
            raise ValueError(
                f"`inputs`: {name} holds {array.dtype}, not real numbers, integers or booleans; "
                f"pass an array of these"
            )
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                exact = array.astype(np.float32)
            if not np.array_equal(np.isfinite(exact), np.isfinite(array)):
                raise ValueError(
                    f"`inputs`: {name} has numbers beyond float32, {np.abs(array).max():.3g}; "
                    f"scale them down"
                )
            array = exact.astype(np.float64)
        found[name] = array
    return found


def recorded_state(
    side: TorchSide, rng: np.random.Generator, randomize: bool
) -> dict[str, np.ndarray]:
    """Return parameters and buffers, with random numbers where asked for."""
    state: dict[str, np.ndarray] = {}
    for name, tensor in side.state.items():
        if not isinstance(tensor, side.torch.Tensor):
            continue
        if name in side.aliases:
            state[name] = state[side.aliases[name]]
            continue
        if tensor.is_complex():
            raise ValueError(
                f"`torch_module_or_function`: {name} is complex; parity compares real parameters "
                f"alone"
            )
        array = side._numpy(tensor.double() if tensor.is_floating_point() else tensor)
        if array.dtype.kind == "f":
            array = array.astype(np.float32).astype(np.float64)
        state[name] = (
            randomized(name, array, rng, buffer=name not in side.parameters) if randomize else array
        )
    return state


def drawn_cotangents(run: Run, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw a cotangent for each real output."""
    floats = {k: v for k, v in run.results["value"].items() if v.dtype.kind == "f"}
    return {
        k: rng.standard_normal(v.shape).astype(np.float32).astype(np.float64)
        for k, v in floats.items()
    }


def drawn_directions(
    side: TorchSide,
    state: Mapping[str, np.ndarray],
    inputs: Mapping[str, np.ndarray],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Draw a direction for second derivatives, as large as what it is added to."""
    around = {f"parameter/{k}": state[k] for k in side.parameters if state[k].dtype.kind == "f"}
    around |= {f"input/{k}": v for k, v in inputs.items() if v.dtype.kind == "f"}

    def scale(x: np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.square(x)))) or 1.0 if x.size else 1.0

    return {
        k: (scale(x) * rng.standard_normal(x.shape)).astype(np.float32).astype(np.float64)
        for k, x in around.items()
    }


def demand_steady(first: Run, again: Run) -> None:
    """Refuse a function that gives other results when it runs again."""
    same = len(first.draws) == len(again.draws)
    for kind in ("value", "loss", "outlet"):
        before, after = first.results.get(kind, {}), again.results.get(kind, {})
        same = same and before.keys() == after.keys()
        same = same and all(
            np.array_equal(v, after[k], equal_nan=v.dtype.kind == "f") for k, v in before.items()
        )
    if not same:
        raise ValueError(UNSTEADY)
