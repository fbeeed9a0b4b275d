"""Make the links of README.md and the package's own absolute, for a release.

    python docs/release.py https://HOST/OWNER/NAME TAG

A package index shows README.md far from the files that it links to. The release workflow knows the
address of the repository it runs in, and calls this on its checkout before it builds; nothing of it
is committed. Links become those of the files at TAG, pictures those of their bytes, and
pyproject.toml gets a table of addresses.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")


def absolute(text: str, address: str, tag: str) -> str:
    """Return a page of Markdown with absolute links.

    >>> absolute("see [notes](docs/json.md) ![a picture](docs/report.png)", "https://a.b/c", "v1")
    'see [notes](https://a.b/c/blob/v1/docs/json.md) ![a picture](https://a.b/c/raw/v1/docs/report.png)'
    """
    return LINK.sub(
        lambda link: (
            f"{link[1]}[{link[2]}]({address}/{'raw' if link[1] else 'blob'}/{tag}/{link[3]})"
        ),
        text,
    )


def urls(address: str, tag: str) -> str:
    """Return the table of a package's addresses, as pyproject.toml holds it."""
    pages = {
        "Repository": address,
        "Issues": f"{address}/issues",
        "Changelog": f"{address}/blob/{tag}/CHANGELOG.md",
        "Documentation": f"{address}/blob/{tag}/README.md",
    }
    return "\n[project.urls]\n" + "".join(f'{name} = "{page}"\n' for name, page in pages.items())


def main(address: str, tag: str) -> None:
    """Change both files in place."""
    readme, project = ROOT / "README.md", ROOT / "pyproject.toml"
    text = absolute(readme.read_text(encoding="utf-8"), address.rstrip("/"), tag)
    readme.write_text(text, encoding="utf-8")
    with project.open("a", encoding="utf-8") as file:
        file.write(urls(address.rstrip("/"), tag))


if __name__ == "__main__":
    main(*sys.argv[1:])
