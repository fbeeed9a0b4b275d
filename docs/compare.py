"""Say whether docs/catalogue.html is what the present code writes.

    jaxgrad verify --html fresh.html; python docs/compare.py fresh.html

Compared are the words of the page in their order: names, claims, formulas, evidence, verdicts,
code. Left out is what changes from run to run and machine to machine: numbers, figures, the date,
versions and the command. The exit status is 1 where the pages differ; the first difference is told.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

COMMITTED = Path(__file__).parent / "catalogue.html"
NUMBER = re.compile(r"[−+-]?\d[\d.,  ]*(e[−-]?\d+)?")


class Words(HTMLParser):
    """The lines of a page's text, without numbers, figures and the circumstances of the run."""

    def __init__(self) -> None:
        """Nothing is read yet."""
        super().__init__()
        self.skipped, self.lines = 0, []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Leave out what is drawn, and what tells of the run."""
        if self.skipped or tag in ("figure", "svg", "style", "footer", "header"):
            self.skipped += tag not in ("br", "wbr", "meta", "link")

    def handle_endtag(self, tag: str) -> None:
        """Come back to what is compared."""
        self.skipped -= bool(self.skipped)

    def handle_data(self, data: str) -> None:
        """Keep the text without its numbers."""
        line = " ".join(NUMBER.sub("#", data).split())
        if not self.skipped and line.strip("# ·×s"):
            self.lines.append(line)


def words(page: str) -> list[str]:
    """Return the lines of a page that must not change."""
    found = Words()
    found.feed(page)
    found.close()
    return found.lines


def difference(committed: str, fresh: str) -> str:
    """Return the first difference of two pages in words; empty where there is none."""
    old, new = words(committed), words(fresh)
    for i, (a, b) in enumerate(zip([*old, "(its end)"], [*new, "(its end)"], strict=False)):
        if a != b:
            return (
                f"behind {old[i - 1] if i else 'its beginning'!r}, the committed page has "
                f"{a!r} and the fresh one {b!r}"
            )
    return ""


def main() -> int:
    """Compare a fresh page with the committed one."""
    if len(sys.argv) != 2:
        print("usage: python docs/compare.py FRESH.html", file=sys.stderr)
        return 2
    told = difference(
        COMMITTED.read_text(encoding="utf-8"), Path(sys.argv[1]).read_text(encoding="utf-8")
    )
    if told:
        print(
            f"docs/catalogue.html is out of date: {told}\nmake it anew with: jaxgrad verify "
            f"--html docs/catalogue.html"
        )
    return int(bool(told))


if __name__ == "__main__":
    sys.exit(main())
