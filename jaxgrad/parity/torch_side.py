"""One torch function, run in a chosen precision at chosen numbers, with all its results.

The only module of jaxgrad that runs torch, which it gets handed: nothing is imported here.
Activations are cloned in forward hooks, and cotangents come from hooks on these tensors rather than
on modules, so that in-place operations do no harm.
"""

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxgrad.jaxprs.user_calls import naming, summary
from jaxgrad.parity.dispatch import replaying_mode, widening_mode
from jaxgrad.parity.structure import leaves, real_parts
from jaxgrad.parity.torch_hooks import ModuleHooks, Run

Arrays = dict[str, np.ndarray]


def _device(torch: Any, device: Any) -> Any:
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        # in turn: no such device, a torch that was built without it, what names none, and one
        # without storage
        raise ValueError(
            f"`device` is {device!r}, which torch cannot use here ({summary(error)}); 'cpu' is "
            f"everywhere"
        ) from error
    return found


class TorchSide:
    """A copy of a torch module or function that can be run again and again at other numbers."""

    def __init__(self, torch: Any, target: Any, *, train: bool, device: str, seed: int) -> None:
        """Copy the target, so that the user's own is left as it is."""
        self.torch, self.device, self.seed = torch, _device(torch, device), seed
        self.is_module = isinstance(target, torch.nn.Module)
        if not self.is_module and not callable(target):
            raise ValueError(
                f"`torch_module_or_function` is a {type(target).__name__}; give a torch.nn.Module "
                f"or a function of tensors"
            )
        self.target: Any = copy.deepcopy(target) if self.is_module else target
        self.draws: list[dict[str, Any]] | None = None
        self.path: list[str] = []
        # whether casts to float32 are widened in float64, and whether there were any
        self.widens, self.widened = True, False
        if self.is_module:
            self.target.train(train)
        self.parameters = dict(self.target.named_parameters()) if self.is_module else {}
        self.state: dict[str, Any] = (
            dict(self.target.state_dict(keep_vars=True)) if self.is_module else {}
        )
        by_identity = {id(p): name for name, p in self.parameters.items()}
        self.aliases = {
            name: by_identity[id(p)]
            for name, p in self.state.items()
            if by_identity.get(id(p), name) != name
        }  # tied parameters

    def __call__(
        self,
        dtype: str,
        state: Mapping[str, np.ndarray],
        inputs: Mapping[str, np.ndarray],
        *,
        seeds: Mapping[str, np.ndarray] | None = None,
        loss: Callable[[Any], Any] | None = None,
        directions: Mapping[str, np.ndarray] | None = None,
    ) -> Run:
        """Run forward and backward.

        Args:
            dtype: "float64" or "float32".
            state: parameters and buffers.
            inputs: by name.
            seeds: cotangent of each output; without it `loss`, or else the outputs alone.
            loss: a scalar of the output, whose gradient becomes the cotangent.
            directions: of second derivatives: {parameter/NAME or input/NAME: v}.
        """
        torch = self.torch
        wanted = getattr(torch, dtype)
        run = Run()
        with self._factory(wanted), torch.random.fork_rng(devices=self._cuda):
            torch.manual_seed(self.seed)
            self._load(state, wanted)
            tensors = {k: self._tensor(v, wanted) for k, v in inputs.items()}
            leaf_inputs = {
                k: t.requires_grad_() for k, t in tensors.items() if t.is_floating_point()
            }
            cotangents: dict[str, Any] = {}
            with self._draws(run):
                with ModuleHooks(self, run, cotangents).installed():
                    output = self._call(tensors)
                value = None if loss is None else self._loss(loss, output)
            outputs = real_parts(leaves(output, "output"))
            if value is not None and any(label.endswith(".imag") for label in outputs):
                raise ValueError(
                    "`loss`: with one, the output must be real, and it is complex; record "
                    "without, or return a real output"
                )
            run.results["value"] = {k: self._numpy(v) for k, v in outputs.items()}
            moving = {k: v for k, v in outputs.items() if v.is_floating_point() and v.requires_grad}
            if value is not None:
                run.results["loss"] = {"loss": self._numpy(value)}
            if value is not None:
                found = torch.autograd.grad(
                    value, list(moving.values()), retain_graph=True, allow_unused=True
                )
                grads = [
                    torch.zeros_like(v) if g is None else g
                    for g, v in zip(found, moving.values(), strict=True)
                ]
                run.results["outlet"] = {
                    k: self._numpy(g) for k, g in zip(moving, grads, strict=True)
                }
                seeds = run.results["outlet"] if seeds is None else seeds
            run.results["seed"] = dict(seeds) if seeds is not None else {}
            if seeds is not None:
                self._backward(run, moving, seeds, leaf_inputs, cotangents, directions)
            run.results["buffer"] = self._changed_buffers(state)
        return run

    def alone(
        self, name: str, x: np.ndarray, c: np.ndarray, dtype: str
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Run one module on one tensor, and its VJP; None where it draws or gives anything else.

        Args:
            name: the module's.
            x: its input.
            c: the cotangent, of the output's shape.
            dtype: "float64" or "float32".
        """
        torch, wanted, run = self.torch, getattr(self.torch, dtype), Run()
        tensor = self._tensor(x, wanted).requires_grad_()
        try:
            with self._factory(wanted), torch.random.fork_rng(devices=self._cuda), self._draws(run):
                output = self.target.get_submodule(name)(tensor.clone())
                if (
                    run.draws
                    or not isinstance(output, torch.Tensor)
                    or tuple(output.shape) != c.shape
                    or not output.requires_grad
                ):
                    return None
                (pulled,) = torch.autograd.grad(output, tensor, self._tensor(c, wanted))
        except (
            RuntimeError,
            ValueError,
            TypeError,
        ):  # what a module says of numbers that it does not take
            return None
        return self._numpy(output), self._numpy(pulled)

    def _backward(
        self,
        run: Run,
        moving: Any,
        seeds: Mapping[str, np.ndarray],
        inputs: Any,
        cotangents: dict[str, Any],
        directions: Any,
    ) -> None:
        torch = self.torch
        wrt = {
            f"parameter/{k}": p
            for k, p in self.parameters.items()
            if p.is_floating_point() and p.requires_grad
        }
        wrt |= {f"input/{k}": t for k, t in inputs.items()}
        used = {k: v for k, v in moving.items() if k in seeds}
        run.results |= {"parameter": {}, "input": {}}
        if not wrt or not used:
            return
        c = [self._tensor(seeds[k], v.dtype) for k, v in used.items()]
        try:
            found = torch.autograd.grad(
                list(used.values()),
                list(wrt.values()),
                c,
                allow_unused=True,
                create_graph=directions is not None,
            )
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
            raise ValueError(
                f"torch cannot differentiate `torch_module_or_function`: it changes in place what "
                f"the backward pass needs "
                f"({str(error).splitlines()[0][:200]}); write that operation out of place"
            ) from error
        self._enter(run, "", wrt, found)
        run.results["inlet"] = {
            k: self._numpy(cotangents[k]) for k in run.module_inputs if k in cotangents
        }
        run.results["cotangent"] = {
            k: self._numpy(cotangents[k]) for k in run.order if k in cotangents
        }
        if directions is not None:
            terms = [
                (g * self._tensor(directions[k], g.dtype)).sum()
                for k, g in zip(wrt, found, strict=True)
                if g is not None and g.requires_grad
            ]
            second = (
                torch.autograd.grad(sum(terms), list(wrt.values()), allow_unused=True)
                if terms
                else [None] * len(wrt)
            )
            self._enter(run, "curvature_", wrt, second)

    def _enter(self, run: Run, prefix: str, wrt: Mapping[str, Any], found: Any) -> None:
        for (label, leaf), gradient in zip(wrt.items(), found, strict=True):
            kind, _, name = label.partition("/")
            array = (
                np.zeros(leaf.shape, self._numpy(leaf).dtype)
                if gradient is None
                else self._numpy(gradient)
            )
            run.results.setdefault(prefix + kind, {})[name] = array

    @property
    def _cuda(self) -> list[Any]:
        return [self.device] if self.device.type == "cuda" else []

    def random_state(self) -> list[Any]:
        """Return the state of every generator that the function may draw from."""
        return [
            self.torch.random.get_rng_state(),
            *(self.torch.cuda.get_rng_state(device) for device in self._cuda),
        ]

    @contextlib.contextmanager
    def _factory(self, dtype: Any) -> Iterator[None]:
        """Give tensors that the function makes the run's precision, and convolutions no TF32."""
        before, cudnn = self.torch.get_default_dtype(), self.torch.backends.cudnn
        tf32 = cudnn.allow_tf32
        self.torch.set_default_dtype(dtype)
        cudnn.allow_tf32 = False
        try:
            with (
                widening_mode(self.torch)(self)
                if self.widens and dtype == self.torch.float64
                else contextlib.nullcontext()
            ):
                yield
        finally:
            self.torch.set_default_dtype(before)
            cudnn.allow_tf32 = tf32

    def _load(self, state: Mapping[str, np.ndarray], dtype: Any) -> None:
        if not self.is_module:
            return
        self.target.to(device=self.device, dtype=dtype)
        self.parameters = dict(self.target.named_parameters())
        with self.torch.no_grad():
            for name, tensor in self.target.state_dict(keep_vars=True).items():
                if name in state:
                    tensor.copy_(self.torch.from_numpy(np.array(state[name])))

    def _changed_buffers(self, state: Mapping[str, np.ndarray]) -> Arrays:
        if not self.is_module:
            return {}
        buffers = {k: self._numpy(v) for k, v in self.target.named_buffers() if k in state}
        return {
            k: v
            for k, v in buffers.items()
            if not np.array_equal(v, state[k].astype(v.dtype), equal_nan=v.dtype.kind == "f")
        }

    def _tensor(self, array: np.ndarray, dtype: Any) -> Any:
        tensor = self.torch.from_numpy(np.array(array)).to(self.device)
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    def _numpy(self, tensor: Any) -> np.ndarray:
        if not isinstance(tensor, self.torch.Tensor):
            return np.asarray(tensor)
        tensor = tensor.detach().cpu().resolve_conj()
        return (
            (
                tensor.float()
                if tensor.dtype in (self.torch.bfloat16, self.torch.float16)
                else tensor
            )
            .numpy()
            .copy()
        )

    def _call(self, tensors: dict[str, Any]) -> Any:
        function = self.target.forward if self.is_module else self.target
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # a builtin without a signature
            with naming("torch_module_or_function"):
                return self.target(*tensors.values())
        kinds = [p.kind for p in signature.parameters.values()]
        by_name = (
            set(tensors) <= set(signature.parameters) or inspect.Parameter.VAR_KEYWORD in kinds
        )
        try:
            signature.bind(*(() if by_name else tensors.values()), **(tensors if by_name else {}))
        except TypeError as error:
            raise ValueError(
                f"`inputs` are {', '.join(tensors)}, but torch's function takes {signature}: "
                f"{error}"
            ) from None
        with naming("torch_module_or_function"):
            return self.target(**tensors) if by_name else self.target(*tensors.values())

    def _loss(self, loss: Callable[[Any], Any], output: Any) -> Any:
        with naming("loss"):
            value = loss(output)
        if (
            not isinstance(value, self.torch.Tensor)
            or value.numel() != 1
            or not value.requires_grad
        ):
            shape = (
                list(value.shape) if isinstance(value, self.torch.Tensor) else type(value).__name__
            )
            raise ValueError(
                f"`loss` must give one number that depends on the output, and gives {shape}; "
                f"reduce it with .mean() or .sum()"
            )
        return value.reshape(())

    def _draws(self, run: Run) -> Any:
        return replaying_mode(self.torch)(self, run)
