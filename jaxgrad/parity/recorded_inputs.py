"""The numbers that a recording is made at: inputs, state, cotangents and directions."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxgrad.parity.dispatch import UNSTEADY
from jaxgrad.parity.randomizing import randomized
from jaxgrad.parity.torch_side import Run, TorchSide


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
