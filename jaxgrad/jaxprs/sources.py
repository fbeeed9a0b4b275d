"""Whose code a source file holds: jaxgrad's own, a library's that it is built on, or the user's."""

import os
from pathlib import Path

import jaxgrad

_ROOT = os.path.dirname(os.path.abspath(jaxgrad.__file__)) + os.sep
_CATALOG = os.path.join(_ROOT, "catalog") + os.sep
_LIBRARIES = ("jax", "jaxlib", "numpy", "scipy", "jaxtyping", "torch")


def is_own(filename: str) -> bool:
    """Say whether a file belongs to jaxgrad; the catalogue, which holds claims, is a user's.

    >>> is_own(__file__), is_own("/home/somebody/claims.py")
    (True, False)
    """
    return filename.startswith(_ROOT) and not filename.startswith(_CATALOG)


def room(filename: str) -> str:
    """Return the folder of jaxgrad that a file of its own lies in, or nothing.

    >>> room(__file__)
    'jaxprs'
    """
    return filename.removeprefix(_ROOT).partition(os.sep)[0] if is_own(filename) else ""


def is_library(filename: str) -> bool:
    """Say whether a file belongs to jaxgrad or to what it is built on, or is no file.

    >>> (
    ...     is_library("/venv/site-packages/numpy/linalg.py"),
    ...     is_library("<string>"),
    ...     is_library("claims.py"),
    ... )
    (True, True, False)
    """
    return (
        is_own(filename)
        or filename.startswith("<")
        or any(name in Path(filename).parts for name in _LIBRARIES)
    )
