"""Constants such as √2 or 1/√(2π), as roots and powers of one unknown √π.

A float that is no simple fraction, but whose square is one times a power of π, is taken for that
root. π itself is a fixed random number of the field.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxgrad.evidence.certificates.fields.values import Exact
from jaxgrad.jaxprs.rationals import rational, surd

if TYPE_CHECKING:
    from jaxgrad.evidence.certificates.fields.domain import FieldDomain


def _meant(x: float) -> bool:
    return not np.isfinite(x) or rational(float(x))[1]


def with_surds(domain: "FieldDomain", array: np.ndarray, exact: Exact) -> Any:
    """Replace constants such as √2 or 1/√(2π) by roots and powers of one unknown √π."""
    found = [(at, surd(float(x)) if not _meant(x) else None) for at, x in np.ndenumerate(array)]
    if not any(s for _, s in found):
        return exact
    value = domain.lift(exact)
    bad = np.zeros(value.p.shape, bool)
    one = np.ones((domain.draws.count, 1), np.int64)
    channels = []
    for modulus, remainders, pi in zip(
        (domain.draws.p, domain.draws.q),
        (value.p, value.q),
        domain.draws.hashed("root of pi", one),
        strict=True,
    ):
        if remainders is None:
            break
        remainders, pi = remainders.copy(), modulus.power(pi[:, 0], 2)
        for at, s in found:
            if s:
                root, exists = modulus.root(modulus.fraction(s[0].numerator, s[0].denominator))
                entry = modulus.multiply(
                    root, modulus.power(pi if s[1] >= 0 else modulus.inverse(pi), abs(s[1]))
                )
                remainders[:, *at] = entry if array[at] > 0 else modulus.reduce(-entry)
                bad[:, *at] |= ~exists
        channels.append(remainders)
    p, q = (*channels, None)[:2]
    return replace(value, p=p, q=q, bad=bad if bad.any() else None)
