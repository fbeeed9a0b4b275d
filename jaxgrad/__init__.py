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

from jaxgrad import masks
from jaxgrad.derivation import Derivation
from jaxgrad.report import Finding, Report, Verdict

__all__ = ["Derivation", "Finding", "Report", "Verdict", "masks"]
