"""Compiled programs that are kept in the user's cache folder by the command and the pytest plugin;
the library keeps none.

The command keeps JAX's own cache there, and beside it in the same folder the executables of
`jaxgrad.runtime.compiled`, which need not be lowered first. The plugin keeps the latter alone: a
test session's settings of JAX are the user's.

A cached program is machine code, so each version of jaxlib and each kind of processor has a folder
of its own: a home folder that several machines share stays safe. What cannot be read is compiled
anew, and then the folder is emptied when the command ends.
"""

import atexit
import contextlib
import hashlib
import os
import platform
import shutil
import sys
import warnings
from pathlib import Path

LIMIT = 256 * 2**20
"""Bytes the cache may hold; when it holds more, the programs longest unused are removed."""

_UNREADABLE = "Error reading persistent compilation cache"
_UNWRITABLE = "Error writing persistent compilation cache"


def folder() -> Path | None:
    """Return the folder for compiled programs, or None where JAXGRAD_CACHE=off turns it off."""
    chosen = os.environ.get("JAXGRAD_CACHE", "")
    if chosen.lower() in ("off", "0", "no", "false"):
        return None
    if chosen and chosen.lower() not in ("on", "1", "yes", "true"):
        return Path(chosen).expanduser()
    if os.environ.get("XDG_CACHE_HOME"):
        root = Path(os.environ["XDG_CACHE_HOME"])
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        root = Path.home() / ".cache"
    return root / "jaxgrad"


def turn_on() -> Path | None:
    """Let JAX, too, keep compiled programs between runs; do nothing where the user has set up a
    cache, or where none can be kept.

    Returns:
        The folder in use, or None.
    """
    import jax

    if jax.config.values["jax_compilation_cache_dir"] or (path := keep_executables()) is None:
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_raise_persistent_cache_errors", False)
    _mend(path)
    return path


def keep_executables() -> Path | None:
    """Let jaxgrad keep its executables between runs, whatever JAX keeps; do nothing where none can
    be kept.

    Returns:
        The folder in use, or None.
    """
    from jaxgrad.runtime import compiled

    try:
        root = folder()
        if root is None:
            return None
        path = root / _machine()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            return None
        atexit.register(_trim, root, path, path.stat().st_mtime_ns)
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return None
    compiled.keep_in(path)
    return path


def _machine() -> str:
    import importlib.metadata

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        features = "".join(
            dict.fromkeys(
                line for line in lines if line.startswith(("flags", "Features", "model name"))
            )
        )
    except OSError:
        features = platform.processor()
    key = hashlib.sha256(f"{platform.system()} {features}".encode()).hexdigest()[:12]
    return f"jaxlib-{importlib.metadata.version('jaxlib')}-{platform.machine()}-{key}"


def _trim(root: Path, path: Path, before: int) -> None:
    """Remove the programs longest unused, of all machines and versions, until half of the limit is
    free, if any were added to `path`.

    To look at thousands of files takes a tenth of a second, so it is done last, and only where the
    folder may have grown too large.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_mtime_ns == before:
            return
        entries = [
            (os.stat(found), found)
            for folder in os.scandir(root)
            if folder.is_dir()
            for found in _programs(folder.path)
        ]
        total = sum(stat.st_size for stat, _ in entries)
        if total <= LIMIT:
            return
        for stat, found in sorted(
            entries, key=lambda entry: max(entry[0].st_atime, entry[0].st_mtime)
        ):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(found)
            total -= stat.st_size
            if total <= LIMIT // 2:
                return


def _programs(folder: str) -> list[str]:
    return [entry.path for entry in os.scandir(folder) if entry.name.endswith("-cache")]


def _mend(path: Path) -> None:
    """Pass over the warnings of a damaged cache, and empty it at the end, since JAX never
    overwrites an entry.
    """
    show = warnings.showwarning
    damaged: list[str] = []

    # the signature is that of warnings.showwarning
    def quiet(message, category, filename, lineno, file=None, line=None):  # type: ignore[no-untyped-def]
        text = str(message)
        if text.startswith(_UNREADABLE):
            if not damaged:
                damaged.append(text)
                atexit.register(shutil.rmtree, path, ignore_errors=True)
        elif not text.startswith(_UNWRITABLE):
            show(message, category, filename, lineno, file, line)

    warnings.showwarning = quiet
    warnings.filterwarnings("always", message=f"{_UNREADABLE}|{_UNWRITABLE}")
