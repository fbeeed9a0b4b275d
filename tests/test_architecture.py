"""The architecture page, its picture, the import contracts and the folders say the same."""

import ast
import importlib
import re
import tomllib
from pathlib import Path

import jaxgrad as jg

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jaxgrad"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PICTURE = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
ABOVE = {"__main__", "pytest_plugin"}
"""Modules that lie on top of all rooms."""


def folders(path):
    return {p.name for p in path.iterdir() if (p / "__init__.py").exists()}


def contract(container):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if container in c.get("containers", ()))
    # a name in parentheses is a room that may be missing
    named = [re.split(r"\s*[|:]\s*", layer) for layer in layers]
    return [[name for name in layer if "(" not in name] for layer in named]


def test_the_page_lists_every_room_in_the_order_of_the_contract():
    listed = re.findall(r"^\| `([\w/]+)` \|", PAGE, re.M)
    rooms = [name for name in listed if "/" not in name]
    assert rooms == [name for layer in contract("jaxgrad") for name in layer if name not in ABOVE]
    assert set(rooms) == folders(PACKAGE)
    inner = {name.removeprefix("evidence/") for name in listed if "/" in name}
    assert inner == folders(PACKAGE / "evidence")


def test_the_picture_shows_every_room_in_that_order():
    shown = re.findall(r'class="name"[^>]*>(\w+)/<', PICTURE)
    assert shown == [name for layer in contract("jaxgrad") for name in layer if name not in ABOVE]
    assert set(re.findall(r'class="sub"[^>]*>(\w+)/<', PICTURE)) == folders(PACKAGE / "evidence")


def test_what_the_page_names_is_there():
    for path in set(re.findall(r"`((?:[\w]+/)+[\w]+\.py|(?:[\w]+/)+)`", PAGE)):
        assert (PACKAGE / path).exists() or (ROOT / path).exists(), path
    code = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    for name in set(re.findall(r"`([A-Z]{4,})`", PAGE)):
        assert re.search(rf"^{name}\b", code, re.M), name


def test_tests_lie_in_the_rooms_of_what_they_test():
    assert folders(ROOT / "tests") <= folders(PACKAGE)
    assert folders(ROOT / "tests" / "evidence") <= folders(PACKAGE / "evidence")


def test_every_public_name_resolves_to_its_home():
    assert set(jg._HOMES) | jg._MODULES == set(jg.__all__) - {"__version__"}
    for name, home in jg._HOMES.items():
        value = getattr(jg, name)
        assert value is getattr(importlib.import_module(f"jaxgrad.{home}"), name)
        assert value.__module__ == f"jaxgrad.{home}", name


def test_nothing_of_jaxgrad_is_imported_by_a_string_but_by_the_package_itself():
    for path in PACKAGE.rglob("*.py"):
        if path == PACKAGE / "__init__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
                # the names of users' own modules are variables; all else is an import statement
                assert not isinstance(node.args[0], (ast.Constant, ast.JoinedStr)), path
