"""Is a JAX function the torch function it was ported from, and where not, which layer is it?

    golden = parity.record(torch_module, {"x": x})      # once, where torch is
    golden.save("model.npz")
    print(parity.check(jax_function, "model.npz"))      # anywhere; torch is not needed

`record` runs torch in float64 and float32. `check` runs the JAX function on the same numbers,
compares values, gradients, activations and cotangents entry by entry, and where they differ runs
every named block alone on torch's own activations.
"""

from jaxgrad.parity.checking import Checker, check
from jaxgrad.parity.conventions import DIFFERENCES, Difference
from jaxgrad.parity.devices import Canary, canary
from jaxgrad.parity.golden import Golden
from jaxgrad.parity.mapping import map_weights
from jaxgrad.parity.noise import noise
from jaxgrad.parity.optimizers import optax_steps, torch_steps
from jaxgrad.parity.recording import record
from jaxgrad.parity.weight_map import WeightMap

__all__ = [
    "DIFFERENCES",
    "Canary",
    "Checker",
    "Difference",
    "Golden",
    "WeightMap",
    "canary",
    "check",
    "map_weights",
    "noise",
    "optax_steps",
    "record",
    "torch_steps",
]
