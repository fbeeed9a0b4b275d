"""Execute the notebooks: every claim in them is asserted, so one that stopped being true is an
error.

Each notebook is a text file in the percent format, paired by jupytext with an .ipynb that carries
the outputs. Without options all are executed and both halves must hold the same cells; with --write
the .ipynb are made anew.

    python notebooks/execute.py [--write] [NAME ...]
"""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from jaxgrad.runtime.threads import cores

HERE = Path(__file__).resolve().parent
LIMIT = 60
"""Seconds that a notebook may take."""
AT_ONCE = 4
"""So many notebooks, where there are as many cores, are executed at once."""
SIZE = 500_000
"""Bytes that a paired .ipynb may have."""
METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def read(path):
    """Read a text notebook, with cell ids that do not change from one reading to the next."""
    notebook = jupytext.read(path)
    notebook.metadata = nbformat.from_dict(METADATA)
    for i, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{i}", nbformat.from_dict({})
    return notebook


def cells(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def execute(notebook):
    resources = {"metadata": {"path": str(HERE)}}
    NotebookClient(
        notebook,
        timeout=4 * LIMIT,
        kernel_name="python3",
        coalesce_streams=True,
        resources=resources,
    ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each cell ran: noise


def problems(path, write):
    """Execute one notebook and say what is wrong with it."""
    notebook, paired = read(path), path.with_suffix(".ipynb")
    start = time.perf_counter()
    try:
        execute(notebook)
    except CellExecutionError as error:
        return [str(error)]
    seconds = time.perf_counter() - start
    found = []
    text = nbformat.writes(notebook)
    for place in {str(HERE.parent), sys.prefix, str(Path.home())} - {"/"}:
        if place in text:
            found.append(f"its outputs name the folder {place}")
    if len(text) > SIZE:
        found.append(f"it has {len(text)} bytes with its outputs, more than {SIZE}")
    if seconds > LIMIT:
        found.append(f"it took {seconds:.0f} s, more than {LIMIT} s")
    if write and not found:
        paired.write_text(text + "\n", encoding="utf-8")
    elif not write and not paired.exists():
        found.append(f"{paired.name} is missing; make it with --write")
    elif not write and cells(nbformat.read(paired, as_version=4)) != cells(notebook):
        found.append(f"{paired.name} holds other cells than {path.name}; make it anew with --write")
    print(
        f"{path.stem:24} {'wrong' if found else 'right'}  {seconds:5.1f} s  {len(text) // 1000} kB",
        flush=True,
    )
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="notebooks to execute; all of them where none is named",
    )
    parser.add_argument("--write", action="store_true", help="write the executed .ipynb")
    options = parser.parse_args()
    texts = {
        path.stem: path for path in sorted(HERE.glob("*.py")) if path != Path(__file__).resolve()
    }
    unknown = set(options.names) - set(texts)
    if unknown:
        parser.error(f"no notebook {', '.join(sorted(unknown))}; there are {', '.join(texts)}")
    names = options.names or list(texts)
    with ThreadPoolExecutor(
        min(cores(), AT_ONCE)
    ) as pool:  # each notebook runs in a process of its own
        failed = dict(
            zip(
                names,
                pool.map(lambda name: problems(texts[name], options.write), names),
                strict=True,
            )
        )
    for path in HERE.glob("*.ipynb"):
        if path.stem not in texts:
            failed[path.stem] = [f"{path.name} has no {path.stem}.py"]
    for name, found in failed.items():
        for problem in found:
            print(f"{name}: {problem}", file=sys.stderr)
    sys.exit(any(failed.values()))


if __name__ == "__main__":
    main()
