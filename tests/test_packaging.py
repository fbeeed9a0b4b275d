"""What a package index and a fresh environment see."""

import re
import runpy
import subprocess
import sys
import tomllib
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import pytest

import jaxgrad as jg

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8"))
RELEASE = runpy.run_path(str(ROOT / "docs" / "release.py"))
PAGES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/json.md", "docs/architecture.md"]
OUTSIDE = {"benchmarks", "notebooks", "docs/architecture.md"}
"""What the source distribution leaves out, and pages that may link to it; the package itself may
be installed and not lie beside the tests."""


def links(text):
    return [found[2] for found in RELEASE["LINK"].findall(text)]


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_is_there(page):
    if not (ROOT / page).exists():
        assert page in OUTSIDE
        return
    for link in links((ROOT / page).read_text(encoding="utf-8")):
        place = ((ROOT / page).parent / link).resolve()
        top = place.relative_to(ROOT).parts[0]
        left_out = top in (*OUTSIDE, "jaxgrad") and not (ROOT / top).exists()
        assert place.exists() or left_out or link in OUTSIDE, f"{page} links to {link}"


def test_on_a_package_index_every_link_of_the_readme_is_absolute_and_its_picture_is_bytes():
    readme = ROOT.joinpath("README.md").read_text(encoding="utf-8")
    there = RELEASE["absolute"](readme, "https://host.example/owner/name", "v1")
    assert links(readme) and not links(there)
    assert "](https://host.example/owner/name/blob/v1/docs/json.md)" in there
    assert "](https://host.example/owner/name/raw/v1/docs/report.png)" in there
    assert RELEASE["absolute"](there, "https://elsewhere.example", "v2") == there
    assert re.sub(r"https://host.example/owner/name/(blob|raw)/v1/", "", there) == readme


def test_a_release_adds_addresses_to_what_the_package_says_of_itself():
    assert "urls" not in PROJECT["project"]  # no address is made up
    text = ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8")
    whole = tomllib.loads(text + RELEASE["urls"]("https://host.example/owner/name", "v1"))
    urls = whole["project"].pop("urls")
    assert whole["project"] == PROJECT["project"]
    assert urls["Changelog"] == "https://host.example/owner/name/blob/v1/CHANGELOG.md"


def test_the_version_stands_in_one_place_and_is_told_without_importing_jax():
    assert jg.__version__ == version("jaxgrad") == PROJECT["project"]["version"]
    assert f"## [{jg.__version__}]" in ROOT.joinpath("CHANGELOG.md").read_text(encoding="utf-8")
    program = "import sys, jaxgrad; print(jaxgrad.__version__, 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == [jg.__version__, "False"], done.stderr


def test_the_schema_and_the_style_sheet_lie_in_the_package():
    assert files("jaxgrad.reports").joinpath("report.schema.json").is_file()
    assert files("jaxgrad.reports.html").joinpath("style.css").is_file()
    assert files("jaxgrad").joinpath("py.typed").is_file()
