"""Golden files: what torch computed once, kept so that a check needs no torch.

A golden is one .npz: arrays without pickle, and a member ``manifest.json`` that says in words what
they are (``unzip -p golden.npz manifest.json``). Arrays have names of two or more parts:

- ``input/x``, ``state/fc.weight``, ``noise/dropout``, ``seed/output``: what went in; `seed` is the
  cotangent c of the output;
- ``double/KIND/NAME``, ``single/KIND/NAME``: what came out in float64 and in float32;
  ``bfloat16/KIND/NAME``, ``float16/KIND/NAME`` where these were recorded;
- ``move/KIND/NAME``: how far the float64 result moves under noise of about one unit in the last
  place on inputs and state;
- ``probe/MODULE``, ``probe_seed/MODULE``: an input of many sizes that a module ran on alone, and
  the cotangent of its output.

KIND is value, loss, outlet (the gradient of a loss in each output), parameter, input (gradients),
activation, cotangent, probe, probe_vjp, inlet (named ``MODULE<SOURCE``: the part of SOURCE's
cotangent that comes through MODULE), buffer, or with ``order=2`` curvature_parameter and
curvature_input.
"""

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxgrad.runtime.files import check_writable, write_bytes_atomically

SCHEMA = 1
FORMAT = "jaxgrad parity golden"
HALVES = ("bfloat16", "float16")
"""Precisions below float32 that may be recorded too."""

_MANIFEST = "manifest.json"
_ENTRIES = {
    "name": str,
    "torch": str,
    "seed": int,
    "train": bool,
    "loss": bool,
    "order": list,
    "inlets": list,
    "parameters": list,
    "noise": list,
    "aliases": dict,
    "modules": dict,
}
_AGAIN = "record it anew with jaxgrad.parity.record(…).save(path)"


@dataclass(frozen=True)
class Golden:
    """What `jaxgrad.parity.record` saw of a torch function.

    Attributes:
        manifest: name, versions, modules, the order in which they ran, the draws of noise, and how
            it was recorded.
        arrays: the numbers, by the names that the module's docstring lists.
    """

    manifest: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the torch module or function."""
        return self.manifest["name"]

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """The inputs by name, each number exact in float32."""
        return self.group("input")

    @property
    def state(self) -> dict[str, np.ndarray]:
        """Parameters and buffers by their ``state_dict`` names, each number exact in float32."""
        return self.group("state")

    @property
    def noise(self) -> dict[str, np.ndarray]:
        """The draws of dropout and other noise, by their name in `jaxgrad.parity.noise`."""
        return self.group("noise")

    @property
    def seed(self) -> dict[str, np.ndarray]:
        """The cotangent of each output."""
        return self.group("seed")

    @property
    def activations(self) -> dict[str, np.ndarray]:
        """The output of every module in float64, in the order in which they ran."""
        found = self.group("double/activation")
        return {name: found[name] for name in self.manifest["order"] if name in found}

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays whose names begin with ``prefix/``, by the rest of their name."""
        return {
            name[len(prefix) + 1 :]: array
            for name, array in self.arrays.items()
            if name.startswith(prefix + "/")
        }

    def __str__(self) -> str:
        """Return a few lines that say what the golden holds."""

        def shown(group: Mapping[str, np.ndarray]) -> str:
            return ", ".join(f"{k} {list(v.shape)}" for k, v in group.items()) or "none"

        how = "in training" if self.manifest["train"] else "in evaluation"
        return (
            f"{self.name}, recorded with torch {self.manifest['torch']} {how}\n"
            f"  inputs: {shown(self.inputs)}\n  state:  {shown(self.state)}\n  noise:  "
            f"{shown(self.noise)}\n"
            f"  taps:   {', '.join(self.manifest['order']) or 'none'}"
        )

    def save(self, path: str | Path) -> Path:
        """Write the golden to an .npz file, whole or not at all, and return its path.

        Raises:
            ValueError: when the file cannot be written.
        """
        target = check_writable(path, "path")
        buffer = io.BytesIO()
        manifest = {
            **self.manifest,
            "format": FORMAT,
            "schema": SCHEMA,
            "digest": digest(self.arrays),
        }
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            _add(archive, _MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode())
            for name, array in self.arrays.items():
                content = io.BytesIO()
                np.lib.format.write_array(content, np.asarray(array), allow_pickle=False)
                _add(archive, f"{name}.npy", content.getvalue())
        write_bytes_atomically(target, buffer.getvalue())
        return target

    @classmethod
    def load(cls, path: str | Path) -> "Golden":
        """Read a golden file; torch is not needed.

        Raises:
            ValueError: when the file is missing, damaged, no golden, or of a newer jaxgrad.
        """
        if not isinstance(path, (str, os.PathLike)):
            raise ValueError(
                f"a golden is a jaxgrad.parity.Golden or the name of a file, but this is "
                f"{path!r:.60}; {_AGAIN}"
            )
        file = Path(path).expanduser()
        if not file.is_file():
            raise ValueError(f"there is no golden file {path}; {_AGAIN}")
        try:
            with zipfile.ZipFile(file) as archive:
                if _MANIFEST not in archive.namelist():
                    raise ValueError(f"{path} is no golden file: it holds no {_MANIFEST}; {_AGAIN}")
                manifest = json.loads(archive.read(_MANIFEST))
                if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
                    raise ValueError(
                        f"{path} is no golden file: its {_MANIFEST} is another program's; {_AGAIN}"
                    )
                if manifest.get("schema") != SCHEMA:
                    raise ValueError(
                        f"{path} has schema {manifest.get('schema')}, and this jaxgrad reads "
                        f"{SCHEMA}; update jaxgrad, or {_AGAIN}"
                    )
                strange = [
                    k for k, kind in _ENTRIES.items() if not isinstance(manifest.get(k), kind)
                ]
                if strange:
                    raise ValueError(
                        f"{path} is damaged: its {_MANIFEST} has no proper {strange[0]!r}; {_AGAIN}"
                    )
                arrays = {
                    member[:-4]: np.lib.format.read_array(
                        io.BytesIO(archive.read(member)), allow_pickle=False
                    )
                    for member in archive.namelist()
                    if member.endswith(".npy")
                }
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            NotImplementedError,
            json.JSONDecodeError,
            UnicodeDecodeError,
        ):
            raise ValueError(f"{path} is damaged or no golden file; {_AGAIN}") from None
        if digest(arrays) != manifest.get("digest"):
            raise ValueError(
                f"{path} is damaged: its arrays are not those that were recorded; {_AGAIN}"
            )
        return cls(manifest, arrays)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name)  # dated 1980, so that the same golden is the same file
    member.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(member, content)


def digest(arrays: dict[str, np.ndarray]) -> str:
    """Return a checksum of names, shapes, dtypes and numbers.

    >>> (
    ...     digest({"a": np.zeros(2)}) == digest({"a": np.zeros(2)}),
    ...     digest({"a": np.zeros(2)}) == digest({"a": np.ones(2)}),
    ... )
    (True, False)
    """
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()
