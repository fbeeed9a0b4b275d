"""From what is typed on the command line to derivations and arrays.

Everything here raises a ValueError that names what was typed and says how to mend it.
"""

import contextlib
import difflib
import importlib
import importlib.util
import sys
import traceback
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jaxgrad.claims.derivation import Derivation


def find(targets: Sequence[str]) -> list[Derivation]:
    """Return the derivations that the targets name, in their order, each once.

    Where none is named, these are all of the catalogue.

    Args:
        targets: each a name of the catalogue, ``FILE.py``, ``FILE.py:NAME`` or
            ``package.module:NAME``.

    Raises:
        ValueError: when one cannot be found or loaded, or when two derivations have the same name.
    """
    from jaxgrad import catalog

    found: list[Derivation] = []
    for target in targets:
        path, name = _split(target)
        if path is None:
            found.append(_from_catalog(target))
        elif path.endswith(".py"):
            found += _members(load_file(path), path, name)
        else:
            found += _members(load_module(path), path, name or "")
    if not targets:
        found = list(catalog.all())
    unique = list({id(derivation): derivation for derivation in found}.values())
    names = [derivation.name for derivation in unique]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"two derivations have the name {twice!r}; give one of them another `name`"
        )
    return unique


def _split(target: str) -> tuple[str | None, str | None]:
    """Split a target into file or module, and name; both are None for a name of the catalogue."""
    if target.endswith(".py"):
        return target, None
    path, colon, name = target.rpartition(":")
    if not colon:
        return None, None
    if not path or not name:
        raise ValueError(f"{target!r} is no derivation; write FILE.py:NAME or package.module:NAME")
    return path, name


def _from_catalog(name: str) -> Derivation:
    from jaxgrad import catalog

    every = {derivation.name: derivation for derivation in catalog.all()}
    if name in every:
        return every[name]
    near = (
        difflib.get_close_matches(name, every, n=3, cutoff=0.5)
        or [n for n in every if len(name) > 2 and name.lower() in n][:3]
    )
    hint = f"did you mean {_or(near)}?" if near else "`jaxgrad list` shows all names."
    if (name and Path(name).exists()) or "/" in name or "\\" in name:
        hint = "to verify a file, its name must end in .py"
    elif "." in name:
        hint = (
            f"to verify a module's derivation, write "
            f"{name.rpartition('.')[0] or name}:{name.rpartition('.')[2]}"
        )
    raise ValueError(f"the catalogue has no derivation {name!r}; {hint}")


def _or(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def load_file(path: str) -> ModuleType:
    """Import a file under a name of its own.

    Its folder is on the module search path only meanwhile.

    Raises:
        ValueError: when there is no such file, or when it raises; the message gives file, line and
            error.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        if file.is_dir():
            raise ValueError(f"{path} is a folder; name a file in it, as {file / 'mine.py'}")
        near = difflib.get_close_matches(
            file.name, [p.name for p in file.parent.glob("*.py") if p.is_file()], n=1
        )
        hint = (
            f"did you mean {file.parent / near[0]}?"
            if near
            else f"the current folder is {Path.cwd()}"
        )
        raise ValueError(f"there is no file {path}; {hint}")
    file = file.resolve()
    name = f"jaxgrad_file_{abs(hash(str(file))):x}_{file.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and the like look their module up
    try:
        with _search_path(str(file.parent)), _told(path, str(file)):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def load_module(name: str) -> ModuleType:
    """Import a module that is installed, or lies in the current folder."""
    with _search_path(str(Path.cwd())), _told(name, None):
        return importlib.import_module(name)


@contextlib.contextmanager
def _search_path(folder: str) -> Iterator[None]:
    before = list(sys.path)
    write, sys.dont_write_bytecode = (
        sys.dont_write_bytecode,
        True,
    )  # a look at a file leaves no __pycache__ behind
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before
        sys.dont_write_bytecode = write


@contextlib.contextmanager
def _told(what: str, file: str | None) -> Iterator[None]:
    """Turn whatever an import raises into one message with file, line and error."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except SyntaxError as error:
        place = f"{error.filename}:{error.lineno}: " if error.lineno else ""
        raise ValueError(f"{what} cannot be imported: {place}{error.msg}") from None
    except BaseException as error:
        if (
            isinstance(error, ModuleNotFoundError)
            and file is None
            and f"{what}.".startswith(f"{error.name}.")
        ):
            raise ValueError(
                f"there is no module {error.name!r}; it is looked for in the current folder and "
                f"where pip installs"
            ) from None
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename == file] or [
            f
            for f in frames
            if "importlib" not in f.filename and not f.filename.startswith("<frozen")
        ]
        place = f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
        lines = str(error).strip().splitlines()
        hint = "; install it in this environment" if isinstance(error, ModuleNotFoundError) else ""
        text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        raise ValueError(f"{what} cannot be imported: {place}{text}{hint}") from None


def _members(module: ModuleType, what: str, name: str | None) -> list[Derivation]:
    """Return the derivations of a module, or the one of that name: the variable's or its own."""
    listed = {variable: _derivations(value) for variable, value in vars(module).items()}
    every = list({id(d): d for found in listed.values() for d in found}.values())
    if not every:
        raise ValueError(
            f"{what} holds no derivations; define one at module level, as my_claim = "
            f"jaxgrad.Derivation(name=…, loss=…)"
        )
    if name is None:
        names = [derivation.name for derivation in every]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise ValueError(
                f"{what} holds two derivations with the name {twice!r}; give one of them another "
                f"`name`"
            )
        return every
    chosen = listed.get(name) or [derivation for derivation in every if derivation.name == name]
    if not chosen:
        variables = [variable for variable, found in listed.items() if found]
        raise ValueError(
            f"{what} has no derivation {name!r}; it has {', '.join(dict.fromkeys(variables))}"
        )
    return chosen


def _derivations(value: Any) -> list[Derivation]:
    if isinstance(value, Derivation):
        return [value]
    return (
        [item for item in value if isinstance(item, Derivation)]
        if isinstance(value, (list, tuple))
        else []
    )


def load_arrays(path: str, derivations: Sequence[Derivation]) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file that are the inputs of some derivations.

    Raises:
        ValueError: when the file is missing, broken, empty or holds something else than inputs.
    """
    save = "numpy.savez('data.npz', x=array)"
    file = Path(path).expanduser()
    if not file.is_file():
        what = "is a folder" if file.is_dir() and path else "does not exist"
        raise ValueError(f"`--inputs`: {path!r} {what}; write a file with {save}")
    try:
        with open(file, "rb") as stream:  # numpy leaves a damaged file open when it opens it itself
            archive = np.load(stream, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError(
                    f"`--inputs`: {path} holds one array without a name; write it with {save}"
                )
            with archive:
                arrays = _read(archive, path)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError):
        raise ValueError(
            f"`--inputs`: {path} is damaged or no .npz file; write it anew with {save}"
        ) from None
    except ValueError as error:
        if str(error).startswith("`--inputs`"):
            raise
        raise ValueError(
            f"`--inputs`: {path} is damaged or no .npz file; write it anew with {save}"
        ) from None
    if not arrays:
        raise ValueError(
            f"`--inputs`: {path} holds no arrays; write them by the names of the inputs, as {save}"
        )
    for derivation in derivations:
        for name in arrays:
            if name == "mask" and derivation.mask is not None:
                raise ValueError(
                    f"`--inputs`: {path} holds `mask`, but the mask of {derivation.name} is "
                    f"drawn; leave it out"
                )
            if name not in derivation.input_names:
                near = difflib.get_close_matches(name.lower(), derivation.input_names, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise ValueError(
                    f"`--inputs`: {path} holds {name!r}, which is no input of {derivation.name}; "
                    f"{hint}"
                    f"its inputs are {', '.join(derivation.input_names)}"
                )
    return arrays


def _read(archive: Any, path: str) -> dict[str, np.ndarray]:
    arrays = {}
    for name in archive.files:
        try:
            arrays[name] = archive[name]
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
            raise ValueError(
                f"`--inputs`: {name!r} in {path} holds Python objects, not numbers, and is not "
                f"read, for it could run code; "
                "write it as an array of numbers"
            ) from None
        kind = getattr(arrays[name], "dtype", None)
        if kind is None or kind.kind not in "biufc":
            what = "is no array" if kind is None else f"holds {kind}, not numbers"
            raise ValueError(f"`--inputs`: {name!r} in {path} {what}; write an array of numbers")
    return arrays
