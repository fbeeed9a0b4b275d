"""The folder in which the command lets JAX keep compiled programs between runs.

JAX unpickles what lies in its cache, so whoever can write the folder can run code as its reader.
It is used only where it belongs to the user and nobody else can write it. A compiled program is
machine code, so each jaxlib and each kind of processor has a folder of its own in it: a home folder
that several machines share stays safe. The library itself never turns JAX's cache on.
"""

import atexit
import contextlib
import hashlib
import os
import platform
import shutil
import stat
import sys
import warnings
from pathlib import Path

LIMIT = 256 * 2**20
"""Bytes the cache may hold; when it holds more, the programs longest unused are removed.

JAX has a limit of its own (``jax_compilation_cache_max_size``). It needs the package filelock,
locks the folder for every program it reads, and looks all of it over for every one it writes.
"""

_UNREADABLE = "Error reading persistent compilation cache"
_UNWRITABLE = "Error writing persistent compilation cache"


def folder() -> Path | None:
    """Return the folder for compiled programs, or None where JAXGRAD_CACHE=off turns it off."""
    chosen = os.environ.get("JAXGRAD_CACHE", "")
    if chosen.lower() in ("off", "0", "no", "false"):
        return None
    if chosen and chosen.lower() not in ("on", "1", "yes", "true"):
        return Path(os.path.abspath(Path(chosen).expanduser()))
    if os.path.isabs(xdg := os.environ.get("XDG_CACHE_HOME", "")):  # relative: to be ignored
        root = Path(xdg)
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        root = Path.home() / ".cache"
    return root / "jaxgrad"


def turn_on() -> str | None:
    """Let JAX keep compiled programs, unless the user has set up a cache or turned this one off.

    Returns:
        Why the folder is not used, and what to do; None where there is nothing to say.
    """
    import jax

    try:
        root = folder()
        if root is None or jax.config.values["jax_compilation_cache_dir"]:
            return None
        path = root / _machine()
        for each in reversed([path, root, *root.parents]):
            if not os.path.lexists(each):
                each.mkdir(mode=0o700, exist_ok=True)
            if each in (root, path) and (danger := unsafe(each)) is not None:
                return (
                    f"the cache folder {root} is not used, since {danger}; remove it, or set "
                    f"JAXGRAD_CACHE to a folder of your own, or to off"
                )
        if not os.access(path, os.W_OK | os.X_OK):
            return None
        before = path.stat().st_mtime_ns
    except (OSError, RuntimeError):  # no folder can be made; RuntimeError: there is no home folder
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_raise_persistent_cache_errors", False)
    atexit.register(_trim, root, path, before)
    _empty_if_damaged(path)
    return None


def unsafe(path: Path) -> str | None:
    """Say why somebody else could put files into a folder; None where nobody can."""
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        return f"{path} is a link"
    if not hasattr(os, "geteuid"):  # Windows, where the profile's folder is the user's alone
        return None
    if found.st_uid != os.geteuid():
        return f"{path} belongs to another user"
    if found.st_mode & 0o022:
        return f"others can write {path}"
    for parent in path.resolve().parents:  # who can rename a folder can put another in its place
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return f"others can write {parent}"
    return None


def _machine() -> str:
    import importlib.metadata

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        told = [line for line in lines if line.startswith(("flags", "Features", "model name"))]
        features = "".join(dict.fromkeys(told))
    except OSError:
        features = platform.processor()
    key = hashlib.sha256(f"{platform.system()} {features}".encode()).hexdigest()[:12]
    return f"jaxlib-{importlib.metadata.version('jaxlib')}-{platform.machine()}-{key}"


def _trim(root: Path, path: Path, before: int) -> None:
    """Where `path` has grown, remove the programs longest unused until half of the limit is free.

    To look at thousands of files takes a tenth of a second, so it is done last, and only where the
    folder may have grown too large.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_mtime_ns == before:
            return
        entries = [(entry.stat(), entry) for entry in root.glob("*/*-cache")]
        total = sum(found.st_size for found, _ in entries)
        if total <= LIMIT:
            return
        for found, entry in sorted(entries, key=lambda e: max(e[0].st_atime, e[0].st_mtime)):
            entry.unlink(missing_ok=True)
            total -= found.st_size
            if total <= LIMIT // 2:
                return


def _empty_if_damaged(path: Path) -> None:
    """Pass over JAX's warnings of a damaged cache, and empty it at the end.

    JAX compiles anew what it cannot read, but never overwrites it, and would warn in every run.
    """
    show = warnings.showwarning

    def quiet(message: Warning | str, *rest: object, **more: object) -> None:
        if str(message).startswith(_UNREADABLE):
            atexit.register(shutil.rmtree, path, ignore_errors=True)
        elif not str(message).startswith(_UNWRITABLE):
            show(message, *rest, **more)  # type: ignore[arg-type]

    warnings.showwarning = quiet
    warnings.filterwarnings("always", message=f"{_UNREADABLE}|{_UNWRITABLE}")
