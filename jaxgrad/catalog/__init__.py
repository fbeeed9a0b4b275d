"""The claims that ship, from the inner product to the masked autoencoder's expected gradient.

Each module is one family: pure functions for the losses and for their closed forms, and the claims
in `DERIVATIONS`.

>>> get("mse").input_names
('pred', 'y')
>>> len(all()) == len({derivation.name for derivation in all()})
True
"""

import difflib

from jaxgrad.catalog import autoencoders, denoising, layers, perceptron, surrogates, vectors
from jaxgrad.claims.derivation import Derivation

__all__ = [
    "all",
    "autoencoders",
    "denoising",
    "get",
    "layers",
    "perceptron",
    "surrogates",
    "vectors",
]

_FAMILIES = (vectors, layers, perceptron, autoencoders, denoising, surrogates)
_BY_NAME = {
    derivation.name: derivation for family in _FAMILIES for derivation in family.DERIVATIONS
}


def all() -> tuple[Derivation, ...]:
    """Return every derivation, in teaching order."""
    return tuple(_BY_NAME.values())


def get(name: str) -> Derivation:
    """Return the derivation of this name.

    Raises:
        ValueError: when there is none; the message says which names are near.

    >>> get("matvek")
    Traceback (most recent call last):
    ValueError: `name`: the catalogue has no 'matvek'; did you mean 'matvec', ...?
    """
    if name not in _BY_NAME:
        near = difflib.get_close_matches(str(name), _BY_NAME, n=3, cutoff=0.5)
        hint = (
            f"did you mean {', '.join(map(repr, near))}?"
            if near
            else f"it has {', '.join(_BY_NAME)}"
        )
        raise ValueError(f"`name`: the catalogue has no {name!r}; {hint}")
    return _BY_NAME[name]
