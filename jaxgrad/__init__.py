"""Know whether a gradient is right.

>>> import jax.numpy as jnp, jaxgrad as jg
>>> claim = jg.Derivation(
...     name="log_sum_exp", shapes={"x": "n"},
...     loss=lambda x: jnp.log(jnp.exp(x).sum()),
...     gradient=lambda x: {"x": jnp.exp(x) / jnp.exp(x).sum()},
... )
>>> claim.name
'log_sum_exp'
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxgrad import catalog, masks
from jaxgrad.certificates import Certificate, Mismatch, certify
from jaxgrad.derivation import Derivation
from jaxgrad.expectations import expectation
from jaxgrad.intermediates import capture
from jaxgrad.report import Finding, Report, Verdict
from jaxgrad.sampling import Estimate, estimate
from jaxgrad.verification import verify

if TYPE_CHECKING:
    from jaxgrad import parity

__all__ = [
    "Certificate",
    "Derivation",
    "Estimate",
    "Finding",
    "Mismatch",
    "Report",
    "Verdict",
    "capture",
    "catalog",
    "certify",
    "estimate",
    "expectation",
    "masks",
    "parity",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import `jaxgrad.parity` when it is first asked for."""
    if name == "parity":
        return importlib.import_module("jaxgrad.parity")
    raise AttributeError(f"module 'jaxgrad' has no attribute {name!r}")
