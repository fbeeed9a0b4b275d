"""Distributions of random masks over the rows of a data matrix, with their exact moments.

A mask M has the shape of the data it multiplies, ``(…, n)``: 1 keeps an entry, 0 drops it, and
`prob` is always the probability that an entry is KEPT. Rows are independent and alike; what differs
between the families is how the n entries m of one row depend on each other. That is told by

    mu = E[m]          (n,)      the mean
    S  = E[m mᵀ]       (n, n)    the second moment, not centred

Every mask is a pytree whose probabilities are leaves, so that an expectation can be differentiated
in them.

    bernoulli  Bernoulli, FeatureBernoulli, Patches, GridPatches: each entry follows one coin
    choices    FixedCount, Spans: the row is one of finitely many, all equally likely
    noise      RandomRatio, MultiplicativeGaussian: a random ratio; a mask that is not 0 or 1

Sources: the moments of independent coins are elementary; a fixed number of kept entries is sampling
without replacement (Cochran, *Sampling Techniques*, 1977, ch. 2), and it is what masked
autoencoders do (He et al. 2022, arXiv 2111.06377).
"""

from jaxgrad.masks.bernoulli import Bernoulli, FeatureBernoulli, GridPatches, Patches
from jaxgrad.masks.choices import FixedCount, Spans
from jaxgrad.masks.distribution import SUPPORT_LIMIT, Factors, Mask
from jaxgrad.masks.noise import MultiplicativeGaussian, RandomRatio

__all__ = [
    "SUPPORT_LIMIT",
    "Bernoulli",
    "Factors",
    "FeatureBernoulli",
    "FixedCount",
    "GridPatches",
    "Mask",
    "MultiplicativeGaussian",
    "Patches",
    "RandomRatio",
    "Spans",
]
