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

from jaxgrad import catalog, masks
from jaxgrad.certificates import Certificate, Mismatch, certify
from jaxgrad.derivation import Derivation
from jaxgrad.expectations import expectation
from jaxgrad.intermediates import capture
from jaxgrad.report import Finding, Report, Verdict
from jaxgrad.sampling import Estimate, estimate
from jaxgrad.verification import verify

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
    "verify",
]
