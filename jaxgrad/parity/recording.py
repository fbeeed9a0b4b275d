"""record: run torch once, in float64 and float32, and keep all of it in a golden."""

import importlib
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxgrad.evidence.noise.rounding import COPIES, noisy_copies
from jaxgrad.jaxprs.user_calls import RefusedError, check_seed
from jaxgrad.parity.devices import Canary, canary
from jaxgrad.parity.golden import HALVES, Golden
from jaxgrad.parity.probing import values
from jaxgrad.parity.randomizing import randomized
from jaxgrad.parity.tape import UNSTEADY
from jaxgrad.parity.torch_side import Run, TorchSide

_EPS = float(np.finfo(np.float64).eps)
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


def record(
    torch_module_or_function: Any,
    inputs: Mapping[str, Any],
    *,
    loss: Callable[[Any], Any] | None = None,
    train: bool = False,
    randomize: bool = True,
    order: int = 1,
    seed: int = 0,
    device: str = "cpu",
    precisions: Sequence[str] = (),
    name: str | None = None,
) -> Golden:
    """Run a torch module or function and keep what it computes, forward and backward.

    Equation:
        y = f(θ, x); and with the cotangent c of y, ∂⟨c, y⟩/∂θ, ∂⟨c, y⟩/∂x, every module's output ŷ
        and ∂⟨c, y⟩/∂ŷ. With ``order=2`` also ∂/∂(θ, x) ⟨∂⟨c, y⟩/∂(θ, x), v⟩ in a random direction
        v.

    In the run in float64 a cast to float32, such as ``x.float()``, keeps float64: it is the
    function that is compared.

    Args:
        torch_module_or_function: a `torch.nn.Module`, of which a copy is run, or a function of
            tensors. Parameters that are frozen, with ``requires_grad=False``, have no gradient in
            torch, and none is compared.
        inputs: {name: array or tensor} of any shapes and units; passed by name where `forward` has
            these names, and in this order otherwise. Real numbers are rounded to float32, so that
            both precisions see the same.
        loss: a scalar of torch's output; then c is its gradient. Otherwise c is drawn.
        train: whether the module is in training; then dropout draws and batch statistics are
            recorded.
        randomize: whether parameters and running statistics get random numbers first; a port tested
            at its first zeros and ones is hardly tested.
        order: 2 for second derivatives.
        seed: seed of all that is drawn.
        device: torch's device.
        precisions: "bfloat16" and "float16", where `check` shall compare accuracy at these too;
            float32 is always recorded.
        name: what the golden is called; by default the class or function's name.

    Returns:
        A `Golden`; ``golden.save("model.npz")`` keeps it.

    Raises:
        ImportError: when there is no torch.
        ValueError: for inputs that do not fit, and for a function that cannot be replayed.

    >>> import torch
    >>> golden = record(torch.nn.Linear(3, 2), {"input": np.ones((4, 3))})
    >>> sorted(golden.state), golden.group("double/parameter")["weight"].shape
    (['bias', 'weight'], (2, 3))

    Source: torch.testing compares values alone; the float64 reference beside both sides is that of
    PyTorch/XLA's precision tests.
    """
    torch = _torch()
    if order not in (1, 2):
        raise ValueError(
            f"`order` is {order!r}; it is 1 for gradients, or 2 for Hessian-vector products too"
        )
    if not isinstance(precisions, Sequence):
        raise ValueError(
            f"`precisions` is {precisions!r}; it is a list of {' and '.join(HALVES)}, or empty"
        )
    if not isinstance(train, (bool, np.bool_)):
        raise ValueError(f"`train` is {train!r}; it is True or False")
    unknown = (
        [p for p in precisions if p not in HALVES]
        if not isinstance(precisions, str)
        else [precisions]
    )
    if unknown:
        raise ValueError(
            f"`precisions` holds {unknown[0]!r}; it is a list of {' and '.join(HALVES)}, or "
            f"empty: float32 is always recorded"
        )
    check_seed(seed)
    given = _inputs(inputs)
    side = TorchSide(torch, torch_module_or_function, train=train, device=device, seed=seed)
    rng = np.random.default_rng(seed)
    state = _state(side, rng, randomize)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*(nested|Nested).*", category=UserWarning
        )  # encoder layers speak of their fast path
        try:
            first = side("float64", state, given, loss=loss)
        except RefusedError:
            if not side.widened:
                raise
            side.widens = side.widened = (
                False  # such as a function that asserts what its cast gives
            )
            first = side("float64", state, given, loss=loss)
        seeds = first.results["seed"] if loss is not None else _seeds(first, rng)
        side.draws = first.draws
        directions = _directions(side, state, given, rng) if order == 2 else None
        double = side("float64", state, given, seeds=seeds, loss=loss, directions=directions)
        _demand_steady(first, double)
        moves = _moves(side, state, given, seeds, loss, directions, double)
        single = side("float32", state, given, seeds=seeds, loss=loss, directions=directions)
        probes = _probes(side, double, rng)
        low = {p: _low(side, p, state, given, seeds, loss, directions) for p in precisions}
    draws = _named(first.draws)
    arrays = {f"input/{k}": _slim(v) for k, v in given.items()} | {
        f"state/{k}": _slim(v) for k, v in state.items()
    }
    arrays |= {f"noise/{k}": v for k, v in draws.items()} | {
        f"seed/{k}": v for k, v in seeds.items()
    }
    arrays |= {f"direction/{k}": v for k, v in (directions or {}).items()}
    for prefix, run in (("double", double), ("single", single), *low.items()):
        arrays |= {
            f"{prefix}/{kind}/{k}": v
            for kind in COMPARED
            for k, v in run.results.get(kind, {}).items()
        }
    arrays |= {f"move/{kind}/{k}": v for kind in moves for k, v in moves[kind].items()} | probes
    manifest = {
        "name": name
        or getattr(torch_module_or_function, "__name__", type(torch_module_or_function).__name__),
        "torch": torch.__version__,
        "device": str(side.device),
        "seed": seed,
        "train": train,
        "widened": side.widened,
        "randomized": randomize and side.is_module,
        "order": double.order,
        "inlets": double.inlets,
        "parameters": list(double.results.get("parameter", {})),
        "aliases": side.aliases,
        "modules": _modules(side),
        "noise": [
            {"name": k, "operation": d["operation"]}
            for k, d in zip(draws, first.draws, strict=True)
        ],
        "loss": loss is not None,
        "products": [str(_canary(side))],
    }
    return Golden(manifest, arrays)


def _low(
    side: TorchSide, precision: str, state: Any, given: Any, seeds: Any, loss: Any, directions: Any
) -> Run:
    try:
        return side(precision, state, given, seeds=seeds, loss=loss, directions=directions)
    except (
        RuntimeError,
        RefusedError,
    ) as error:  # such as an operation that torch has not in this precision on this device
        raise ValueError(
            f"`precisions`: torch cannot run this in {precision} on {side.device} "
            f"({str(error).splitlines()[0][:200]}); leave it out"
        ) from error


def _canary(side: TorchSide) -> Canary:
    torch = side.torch

    def place(x: np.ndarray) -> Any:
        return torch.from_numpy(x).to(side.device)

    return canary(lambda a, b: (place(a) @ place(b)).cpu().numpy(), device=f"torch's {side.device}")


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ImportError(
            f"recording needs torch, which cannot be imported here ({error}); install it, or "
            f"record where it is and load the golden "
            "with jaxgrad.parity.Golden.load: checking needs no torch"
        ) from None


def _inputs(inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
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


def _state(side: TorchSide, rng: np.random.Generator, randomize: bool) -> dict[str, np.ndarray]:
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


def _seeds(run: Run, rng: np.random.Generator) -> dict[str, np.ndarray]:
    floats = {k: v for k, v in run.results["value"].items() if v.dtype.kind == "f"}
    return {
        k: rng.standard_normal(v.shape).astype(np.float32).astype(np.float64)
        for k, v in floats.items()
    }


def _directions(
    side: TorchSide,
    state: Mapping[str, np.ndarray],
    inputs: Mapping[str, np.ndarray],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    around = {f"parameter/{k}": state[k] for k in side.parameters if state[k].dtype.kind == "f"}
    around |= {f"input/{k}": v for k, v in inputs.items() if v.dtype.kind == "f"}

    def scale(x: np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.square(x)))) or 1.0 if x.size else 1.0

    return {
        k: (scale(x) * rng.standard_normal(x.shape)).astype(np.float32).astype(np.float64)
        for k, x in around.items()
    }


def _demand_steady(first: Run, again: Run) -> None:
    same = len(first.draws) == len(again.draws)
    for kind in ("value", "loss", "outlet"):
        before, after = first.results.get(kind, {}), again.results.get(kind, {})
        same = same and before.keys() == after.keys()
        same = same and all(
            np.array_equal(v, after[k], equal_nan=v.dtype.kind == "f") for k, v in before.items()
        )
    if not same:
        raise ValueError(UNSTEADY)


def _moves(
    side: TorchSide, state: Any, inputs: Any, seeds: Any, loss: Any, directions: Any, base: Run
) -> dict[str, dict[str, np.ndarray]]:
    """Return how far each entry moves under noise of about one unit in the last place on state and
    inputs.
    """
    copies = noisy_copies(
        {
            "state": {k: v for k, v in state.items() if k not in side.aliases},
            "inputs": dict(inputs),
        },
        _EPS,
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


def _probes(side: TorchSide, run: Run, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Run each module that has neither parameters nor draws on numbers of many sizes; see
    `jaxgrad.parity.probing`.
    """
    arrays: dict[str, np.ndarray] = {}
    outputs = run.results.get("activation", {})
    sources = {label.partition("<")[0]: label.partition("<")[2] for label in run.inlets}
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
            for copy in noisy_copies([x], _EPS, side.seed)[0][1:]
        ]
        if double is None or single is None or np.array_equal(double[0], x):
            continue
        arrays |= {f"probe/{label}": _slim(x), f"probe_seed/{label}": _slim(c)}
        for i, kind in enumerate(("probe", "probe_vjp")):
            moved = np.max([np.abs(run[i] - double[i]) for run in noisy if run is not None], axis=0)
            arrays |= {
                f"double/{kind}/{label}": double[i],
                f"single/{kind}/{label}": single[i],
                f"move/{kind}/{label}": _rounded_up(moved),
            }
    return arrays


def _rounded_up(array: np.ndarray) -> np.ndarray:
    """Return moves in float32, rounded up; in float64 where they leave its range, since 10⁻⁴⁵ is no
    bound for 10⁻⁶³.
    """
    limits, moved = np.finfo(np.float32), array[(array > 0) & np.isfinite(array)]
    if moved.size and (moved.min() < limits.tiny or moved.max() > limits.max):
        return array
    low = array.astype(np.float32)
    return np.where(low < array, np.nextafter(low, np.float32(np.inf)), low)


def _named(draws: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    named: dict[str, np.ndarray] = {}
    times: Counter[str] = Counter()
    for draw in draws:
        name = draw["path"] or "noise"
        named[f"{name}#{times[name]}" if times[name] else name] = draw["array"]
        times[name] += 1
    return named


def _modules(side: TorchSide) -> dict[str, Any]:
    if not side.is_module:
        return {}
    found = {}
    for name, module in side.target.named_modules():
        plain = {
            k: list(v) if isinstance(v, tuple) else v
            for k, v in vars(module).items()
            if not k.startswith("_") and _is_plain(v)
        }
        own = [k for k, _ in module.named_parameters(recurse=False)]
        found[name] = {
            "type": type(module).__name__,
            "options": plain,
            "parameters": own,
            "text": module.extra_repr(),
        }
    return found


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str)) or (
        isinstance(value, tuple) and all(isinstance(v, (int, float)) for v in value)
    )


def _slim(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.kind == "f" else array
