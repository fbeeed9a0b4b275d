"""Hooks on torch's modules: their outputs, and the cotangents there and at their inputs.

A module is handed copies of its inputs. So the cotangent of a copy is the part that this module
alone adds to the cotangent of the output that it read.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxgrad.parity.structure import leaves

if TYPE_CHECKING:
    from jaxgrad.parity.torch_side import TorchSide

Arrays = dict[str, np.ndarray]


@dataclass
class Run:
    """What one run gave, as numpy arrays by kind and name."""

    results: dict[str, Arrays] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    module_inputs: list[str] = field(default_factory=list)
    draws: list[dict[str, Any]] = field(default_factory=list)


class ModuleHooks:
    """Hooks of one run, which write activations and cotangents down."""

    def __init__(self, side: "TorchSide", run: Run, cotangents: dict[str, Any]) -> None:
        """Start with no call seen."""
        self.side, self.run, self.cotangents = side, run, cotangents
        self.calls: Counter[str] = Counter()
        # which outputs a tensor is; it is kept, so that no other gets its identity
        self.origin: dict[int, tuple[list[str], Any]] = {}

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Hook every module inside."""
        self.side.path = []
        modules = self.side.target.named_modules() if self.side.is_module else ()
        handles = []
        for name, module in modules:
            handles += [
                module.register_forward_pre_hook(partial(self._enter, name), with_kwargs=True),
                module.register_forward_hook(partial(self._leave, name)),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _label(self, name: str) -> str:
        return f"{name}#{self.calls[name]}" if self.calls[name] else name

    def _keep(self, key: str, gradient: Any) -> None:
        self.cotangents[key] = gradient.detach().clone()

    def _enter(self, name: str, module: Any, args: Any, kwargs: Any) -> Any:
        self.side.path.append(name)
        if not name:
            return None
        label, copies = self._label(name), dict[int, Any]()

        def copied(value: Any) -> Any:
            if not isinstance(value, self.side.torch.Tensor) or not value.requires_grad:
                return value
            if id(value) not in copies:
                copies[id(value)] = copy = value.view_as(value)
                sources = self.origin.get(id(value), ([], None))[0]
                self.origin[id(copy)] = list(sources), copy
                for key in (f"{label}<{source}" for source in sources):
                    copy.register_hook(partial(self._keep, key))
                    self.run.module_inputs.append(key)
            return copies[id(value)]

        return tuple(copied(a) for a in args), {k: copied(v) for k, v in kwargs.items()}

    def _leave(self, name: str, module: Any, args: Any, output: Any) -> None:
        self.side.path.pop()
        if not name:
            return
        label = self._label(name)
        self.calls[name] += 1
        for key, tensor in leaves(output, label).items():
            if isinstance(tensor, self.side.torch.Tensor) and not tensor.is_complex():
                self.run.results.setdefault("activation", {})[key] = self.side._numpy(tensor)
                self.run.order.append(key)
                self.origin.setdefault(id(tensor), ([], tensor))[0].append(key)
                if tensor.requires_grad:
                    tensor.register_hook(partial(self._keep, key))
