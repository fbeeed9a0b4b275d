"""`record`: run torch in float64 and float32, at noisy copies too, and keep it in a golden."""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxgrad.jaxprs.user_calls import RefusedError, check_seed
from jaxgrad.parity.devices import Canary, canary
from jaxgrad.parity.golden import HALVES, Golden
from jaxgrad.parity.recorded import (
    COMPARED,
    as_single,
    checked_inputs,
    demand_steady,
    drawn_cotangents,
    drawn_directions,
    moves_of,
    probes_of,
    recorded_state,
)
from jaxgrad.parity.torch_side import Run, TorchSide


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
    given = checked_inputs(inputs)
    side = TorchSide(torch, torch_module_or_function, train=train, device=device, seed=seed)
    rng = np.random.default_rng(seed)
    state = recorded_state(side, rng, randomize)
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
        seeds = first.results["seed"] if loss is not None else drawn_cotangents(first, rng)
        side.draws = first.draws
        directions = drawn_directions(side, state, given, rng) if order == 2 else None
        double = side("float64", state, given, seeds=seeds, loss=loss, directions=directions)
        demand_steady(first, double)
        moves = moves_of(side, state, given, seeds, loss, directions, double)
        single = side("float32", state, given, seeds=seeds, loss=loss, directions=directions)
        probes = probes_of(side, double, rng)
        low = {p: _low(side, p, state, given, seeds, loss, directions) for p in precisions}
    draws = _named(first.draws)
    arrays = {f"input/{k}": as_single(v) for k, v in given.items()} | {
        f"state/{k}": as_single(v) for k, v in state.items()
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
        "inlets": double.module_inputs,
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
        import torch
    except ImportError as error:
        raise ImportError(
            f"recording needs torch, which cannot be imported here ({error}); install it, or "
            f"record where it is and load the golden "
            "with jaxgrad.parity.Golden.load: checking needs no torch"
        ) from None
    return torch


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
