"""Inputs for a claim as numpy arrays, drawn without compiling anything.

`Derivation.inputs` is what the package itself draws with; each new shape costs it a compilation,
and the tests that only need numbers of the right kind would spend most of their time there.
"""

import datetime
import functools
import zlib

import jax
import numpy as np

from jaxgrad.claims import shapes
from jaxgrad.jaxprs.versions import enable_x64

WEEK = datetime.date.today().isocalendar()[1]
"""What fuzzes that run every week are seeded with."""
DRAWS = {"real": lambda z: z, "positive": np.exp}
FAST_COMPILE = {
    "xla_backend_optimization_level": 1,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


def fast(function):
    """Return a function compiled as one program that is quickly made, since most tests take their
    time to compile and not to run.
    """
    return jax.jit(function, compiler_options=_known())


@functools.cache
def _known():
    """Those of the options that this release of XLA has."""
    known = {}
    for name, value in FAST_COMPILE.items():
        try:
            jax.jit(lambda x: x, compiler_options={name: value})(0)
        except jax.errors.JaxRuntimeError:  # what it says of an option that it does not have
            continue
        known[name] = value
    return known


def draw(derivation, sizes, seed=0):
    """Return {input name: float64 array} in the claim's domains; no mask."""
    inputs = {}
    for name in derivation.input_names:
        domain = derivation.domains.get(name, "real")
        shape = shapes.evaluate(derivation.shapes[name], sizes)
        if callable(domain):
            with enable_x64(True):
                inputs[name] = np.asarray(domain(jax.random.key(seed), shape))
        else:
            rng = np.random.default_rng(
                [seed, zlib.crc32(name.encode())]
            )  # so that equal shapes differ
            inputs[name] = DRAWS[domain](rng.standard_normal(shape))
    return inputs
