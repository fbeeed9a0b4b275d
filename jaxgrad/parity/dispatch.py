"""What is changed in torch's dispatcher: draws are recorded or replayed, float32 casts widened.

Operations are seen there whichever function of torch they hide in.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxgrad.parity.torch_side import Run, TorchSide

UNSTEADY = (
    "`torch_module_or_function` gives different results for the same numbers and draws; its "
    "randomness must come from torch (not from `random` or numpy), and it may keep no state but "
    "parameters and buffers"
)


def replaying_mode(torch: Any) -> Any:
    """Return the dispatch mode that records random draws, or hands out those recorded before."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Replaying(TorchDispatchMode):
        def __init__(self, side: "TorchSide", run: "Run") -> None:
            super().__init__()
            self.side, self.run, self.next = side, run, 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            if torch.Tag.nondeterministic_seeded not in func.tags:
                return func(*args, **kwargs)
            before = self.side.random_state()
            output = func(*args, **kwargs)
            name = func.overloadpacket.__name__
            if all(map(torch.equal, before, self.side.random_state())):
                return output  # such as attention whose dropout is 0
            if isinstance(output, tuple) or name == "rrelu_with_noise":
                raise ValueError(
                    f"torch's {name} draws and uses its draw in one step, so it cannot be "
                    f"replayed; write it with torch.nn.Dropout, or with torch.rand and arithmetic"
                )
            if output.numel() == 0:
                return output
            if self.side.draws is not None:
                if self.next >= len(self.side.draws) or self.side.draws[self.next][
                    "array"
                ].shape != tuple(output.shape):
                    raise ValueError(UNSTEADY)
                output.copy_(torch.from_numpy(self.side.draws[self.next]["array"]))
            path = self.side.path[-1] if self.side.path else ""
            self.next += 1
            self.run.draws.append(
                {"path": path, "operation": name, "array": self.side._numpy(output)}
            )
            return output

    return Replaying


def widening_mode(torch: Any) -> Any:
    """Return the dispatch mode of a run in float64 in which ``x.float()`` keeps float64."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Widening(TorchDispatchMode):
        def __init__(self, side: "TorchSide") -> None:
            super().__init__()
            self.side = side

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            if kwargs.get("dtype") is torch.float32:
                self.side.widened = True
                kwargs = kwargs | {"dtype": torch.float64}
            return func(*args, **kwargs)

    return Widening
