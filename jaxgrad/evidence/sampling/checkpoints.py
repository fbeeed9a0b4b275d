"""Sampling that can be stopped at any moment and taken up again.

On the same machine with as many devices and cores the numbers are then the same to the last bit.

A checkpoint is a plain .npz, without pickle, of key, next chunk, counts, moments, and whether the
loop's program was rewritten. It carries the
versions that wrote it, a hash of the problem and one of its own content, and is replaced as a
whole: written beside, flushed to the disk, renamed. What is no checkpoint of this problem and
version is refused, and left as it is. Of several processes, the first alone reads and writes.
"""

import hashlib
import importlib.metadata
import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgrad.evidence.sampling import processes
from jaxgrad.runtime import files

FORMAT = "jaxgrad checkpoint"
VERSION = 5
"""Version of the format."""

State = dict[str, np.ndarray]


class Checkpoint:
    """The file in which the state of one sampling problem is kept.

    Args:
        path: name of the file.
        problem: hash of all that the numbers depend on; see `fingerprint`.

    Raises:
        ValueError: when no file can be written there, or it is a device or a pipe.
        TypeError: when it is no name of a file.
    """

    def __init__(self, path: str | Path, problem: str) -> None:
        """Check that the file can be written."""
        self.given, self.problem = path, problem
        if not isinstance(path, (str, os.PathLike)) or isinstance(os.fspath(path), bytes):
            raise TypeError(
                f"`checkpoint` must be the name of a file, such as 'state.npz', but is {path!r}"
            )
        if (
            processes.is_first()
            and os.path.exists(path)
            and not (os.path.isfile(path) or os.path.isdir(path))
        ):
            # to open a pipe waits for its other end, and /dev/full is read without end
            raise ValueError(f"`checkpoint` {path} is a device or a pipe; give the name of a file")
        self.path = files.check_writable(path, "checkpoint") if processes.is_first() else Path(path)

    def load(self) -> State | None:
        """Return the state that was saved, or None where there is no file.

        Raises:
            ValueError: when the file is no checkpoint, damaged, or of another problem or version;
                it is not changed.
        """
        message = b""
        if processes.is_first():
            try:
                content = self.path.read_bytes() if self.path.exists() else b""
                if self.path.exists():
                    self._read(content)
                    message = b"+" + content
            except (ValueError, OSError) as error:
                message = b"-" + str(error).encode(errors="surrogateescape")
        message = processes.agree(message)
        if message.startswith(b"-"):
            raise ValueError(message[1:].decode(errors="surrogateescape"))
        return self._read(message[1:]) if message else None

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file, atomically.

        Raises:
            ValueError: when it cannot be written.
        """
        if not processes.is_first():
            return
        arrays = {f"state_{name}": np.asarray(value) for name, value in state.items()}
        head = {
            "format": FORMAT,
            "version": VERSION,
            "software": software(),
            "problem": self.problem,
            "digest": digest(arrays),
        }
        buffer = io.BytesIO()
        members: dict[str, Any] = {
            **{name: np.asarray(value) for name, value in head.items()},
            **arrays,
        }
        np.savez(buffer, **members)
        try:
            files.write_bytes_atomically(self.path, buffer.getvalue())
        except OSError as error:
            raise ValueError(
                f"`checkpoint` {self.given} could not be written: {error.strerror}; choose "
                f"another place"
            ) from None

    def _read(self, content: bytes) -> State:
        remedy = "it is left as it is: give another name, or delete it to start anew"
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            EOFError,
            NotImplementedError,
            zipfile.BadZipFile,
            zlib.error,
        ):
            # all that numpy, zipfile and zlib raise where bytes are damaged
            raise ValueError(
                f"`checkpoint` {self.given} is no checkpoint, or cut short or damaged; {remedy}"
            ) from None
        head = {
            name: arrays.pop(name, None)
            for name in ("format", "version", "software", "problem", "digest")
        }
        told = {name: "" if value is None else str(value) for name, value in head.items()}
        if told["format"] != FORMAT:
            raise ValueError(f"`checkpoint` {self.given} is no checkpoint of jaxgrad; {remedy}")
        if told["version"] != str(VERSION) or told["software"] != software():
            wrote = f"{told['software']}, format {told['version']}"
            raise ValueError(
                f"`checkpoint` {self.given} is from {wrote}, and this is {software()}, format "
                f"{VERSION}; {remedy}"
            )
        if told["digest"] != digest(arrays):
            raise ValueError(
                f"`checkpoint` {self.given} is damaged: its content is not what was written; "
                f"{remedy}"
            )
        if told["problem"] != self.problem:
            raise ValueError(
                f"`checkpoint` {self.given} belongs to another problem: other functions, data, "
                f"mask, key, sizes or options; {remedy}"
            )
        return {name.removeprefix("state_"): value for name, value in arrays.items()}


def software() -> str:
    """Return the versions whose numbers are the same."""
    return ", ".join(f"{name} {_version(name)}" for name in ("jaxgrad", "jax", "jaxlib"))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "0.1.0 from its folder" if name == "jaxgrad" else "unknown"


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Return a hash of arrays and their names, types and shapes."""
    return fingerprint(*(part for name in sorted(arrays) for part in (name, arrays[name])))


def fingerprint(*parts: Any) -> str:
    """Return a SHA-256 of arrays and of what is written as text.

    >>> fingerprint("a", np.ones(2)) == fingerprint("a", np.ones(2)) != fingerprint("a", np.ones(3))
    True
    """
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, (np.ndarray, np.generic, jax.Array)):
            array = np.asarray(part)
            part = (
                f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()
            )
        part = part if isinstance(part, bytes) else str(part).encode()
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()


def program(function: Callable[..., Any], *args: Any) -> str:
    """Return a fingerprint of what a function computes: its jaxpr, and the constants in it."""
    closed = jax.make_jaxpr(function)(*args)
    text = re.sub(r" at 0x[0-9a-f]+", "", str(closed.jaxpr))
    return fingerprint(
        text,
        *(
            np.asarray(c)
            for c in closed.consts
            if not jax.numpy.issubdtype(c.dtype, jax.dtypes.prng_key)
        ),
    )
