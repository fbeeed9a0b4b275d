"""A map of torch's state dict to the port's own tree of parameters."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxgrad.parity import layouts
from jaxgrad.runtime.files import check_writable, write_atomically

CHOICE = "choice of "


@dataclass(frozen=True)
class WeightMap:
    """Torch's state dict turned into the port's own tree; call it with ``{torch name: array}``.

    Attributes:
        template: the port's tree; its arrays are replaced, all else is kept.
        entries: {path in the tree: (torch's name, layout)}, where layouts are those of
            `jaxgrad.parity.layouts`.

    >>> import numpy as np
    >>> weights = WeightMap({"kernel": np.zeros((3, 2))}, {"['kernel']": ("weight", "axes 1 0")})
    >>> weights({"weight": np.ones((2, 3))})["kernel"].shape
    (3, 2)
    """

    template: Any
    entries: Mapping[str, tuple[str, str]]
    choices: Mapping[str, list[tuple[str, str]]] = field(default_factory=dict)

    def __call__(self, state: Mapping[str, Any]) -> Any:
        """Return the port's tree with torch's numbers."""
        leaves, tree = jax.tree_util.tree_flatten_with_path(self.template)
        return jax.tree.unflatten(
            tree, [self._leaf(jax.tree_util.keystr(path), leaf, state) for path, leaf in leaves]
        )

    def _leaf(self, path: str, leaf: Any, state: Mapping[str, Any]) -> Any:
        if path in self.choices:
            cases = [layouts.apply(layout, state[name]) for name, layout in self.choices[path]]
            return jax.lax.select_n(jnp.broadcast_to(state[CHOICE + path], cases[0].shape), *cases)
        if path not in self.entries:
            return leaf
        name, layout = self.entries[path]
        return layouts.apply(layout, state[name])

    def lines(self) -> list[str]:
        """Return the map in words, one line per array."""
        return [
            f"{path} is {name}" + (f" ({layout})" if layout != layouts.SAME else "")
            for path, (name, layout) in self.entries.items()
        ]

    def __str__(self) -> str:
        """Return the map in words."""
        return "\n".join(self.lines())

    def save(self, path: str | Path) -> Path:
        """Write the map, without the template, as JSON."""
        target = check_writable(path, "path")
        write_atomically(
            target, json.dumps({k: list(v) for k, v in self.entries.items()}, indent=1) + "\n"
        )
        return target

    @classmethod
    def load(cls, path: str | Path, template: Any) -> "WeightMap":
        """Read a map that was saved, for a tree of the same paths.

        Raises:
            ValueError: when the file is no map, or names paths that the tree has not.
        """
        try:
            entries = {
                k: (str(name), str(layout))
                for k, (name, layout) in json.loads(Path(path).read_text(encoding="utf-8")).items()
            }
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise ValueError(
                f"{path} is no weight map ({error}); write one with WeightMap.save"
            ) from None
        unknown = [k for k in entries if k not in real_shapes(template)]
        if unknown:
            raise ValueError(
                f"{path} maps {unknown[0]!r}, which the tree has not; it has "
                f"{', '.join(real_shapes(template))}"
            )
        return cls(template, entries)


def real_shapes(template: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of every real array of a tree, by its path."""
    leaves = jax.tree_util.tree_flatten_with_path(template)[0]
    return {
        jax.tree_util.keystr(p): tuple(x.shape)
        for p, x in leaves
        if hasattr(x, "shape") and jnp.issubdtype(x.dtype, jnp.floating)
    }
