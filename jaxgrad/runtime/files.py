"""Files that are either written whole or not at all."""

import contextlib
import glob
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

_PART = ".part"
_STALE = 3600
"""Seconds after which an unfinished file is one that a killed process has left."""


def check_writable(path: str | Path, argument: str) -> Path:
    """Refuse a path that cannot be written, before long work is done for it.

    Args:
        path: where a file is to be written.
        argument: name of the argument or option that gave the path, for the message.

    Returns:
        The path, with links followed.

    Raises:
        ValueError: when no file can be written there.
    """
    if not str(path):
        raise ValueError(f"`{argument}` is empty; give the name of a file")
    try:
        resolved = Path(path).expanduser().resolve()
        resolved.exists()
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # links in a ring, a home that is unknown, a name too long
        raise ValueError(
            f"`{argument}` {str(path)!r} cannot be written: {error}; choose another place"
        ) from None
    folder = resolved.parent
    if resolved.is_dir():
        raise ValueError(f"`{argument}` {path} is a folder; give the name of a file")
    if not folder.is_dir():
        raise ValueError(
            f"`{argument}` {path} cannot be written: there is no folder {folder}; make it first"
        )
    try:
        if _is_special(resolved):
            with open(resolved, "ab"):
                pass
        else:
            descriptor, probe = tempfile.mkstemp(_PART, f".{resolved.name}.", folder)
            os.close(descriptor)
            os.unlink(probe)
    except OSError as error:
        raise ValueError(
            f"`{argument}` {path} cannot be written: {error.strerror}; choose another place"
        ) from None
    return resolved


def check_distinct(paths: Mapping[str, str | Path | None]) -> None:
    """Refuse options that name one file, which one would overwrite before another has read it.

    Args:
        paths: by the option's name; None where it was not given, and "-" for standard output.

    Raises:
        ValueError: when two name the same file.
    """
    seen: dict[str, str] = {}
    for option, path in paths.items():
        if (
            path is not None
            and path != "-"
            and not _is_special(Path(resolved := os.path.realpath(os.path.expanduser(path))))
        ):
            if resolved in seen:
                raise ValueError(
                    f"`{seen[resolved]}` and `{option}` both name {path}; give each a file of "
                    f"its own"
                )
            seen[resolved] = option


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader, or a crash, sees the old one or the new one, whole.

    Args:
        path: where; pipes and devices are written directly.
        text: what.

    Raises:
        OSError: when it cannot be written; then nothing is changed.
    """
    write_bytes_atomically(
        path, text.encode("utf-8", "backslashreplace")
    )  # a name of a file may be no text


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write a file of bytes, like `write_atomically`."""
    if _is_special(path):
        path.write_bytes(content)
        return
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{_PART}"):  # by a process killed
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE:
                left.unlink()
    descriptor, temporary = tempfile.mkstemp(_PART, f".{path.name}.", path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
