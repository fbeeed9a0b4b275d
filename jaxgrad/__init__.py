"""Know whether a gradient is right.

>>> import jax.numpy as jnp, jaxgrad as jg
>>> claim = jg.Derivation(
...     name="log_sum_exp",
...     shapes={"x": "n"},
...     loss=lambda x: jnp.log(jnp.exp(x).sum()),
...     gradient=lambda x: {"x": jnp.exp(x) / jnp.exp(x).sum()},
... )
>>> claim.name
'log_sum_exp'
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxgrad import catalog, masks, parity
    from jaxgrad.claims.derivation import Derivation
    from jaxgrad.evidence.certificates.certify import Certificate, Mismatch, certify
    from jaxgrad.evidence.expectation.expectation import expectation
    from jaxgrad.evidence.sampling.estimate import Estimate, estimate
    from jaxgrad.jaxprs.capture import capture
    from jaxgrad.reports.finding import Finding, Verdict
    from jaxgrad.reports.report import Report
    from jaxgrad.verification.verify import verify

    __version__: str

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

_HOMES = {
    "Certificate": "evidence.certificates.certify",
    "Derivation": "claims.derivation",
    "Estimate": "evidence.sampling.estimate",
    "Finding": "reports.finding",
    "Mismatch": "evidence.certificates.certify",
    "Report": "reports.report",
    "Verdict": "reports.finding",
    "capture": "jaxprs.capture",
    "certify": "evidence.certificates.certify",
    "estimate": "evidence.sampling.estimate",
    "expectation": "evidence.expectation.expectation",
    "verify": "verification.verify",
}
_MODULES = frozenset({"catalog", "masks", "parity"})


def __getattr__(name: str) -> Any:
    """Import a name at its first use, so that pytest and ``jaxgrad --help`` wait for no JAX."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("jaxgrad")
    if name in _MODULES:
        return importlib.import_module(f"jaxgrad.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxgrad' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"jaxgrad.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
