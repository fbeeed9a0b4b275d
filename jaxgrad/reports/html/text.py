"""Escaping of text for HTML: no name, formula or error message can become markup."""

import html
import re
import unicodedata

_ARXIV = re.compile(r"arXiv[ :](\d{4}\.\d{4,5})")


def escape(text: object, *, lines: bool = False) -> str:
    r"""Escape text for HTML and its attributes; control characters become a replacement mark.

    Args:
        text: what to escape.
        lines: whether line ends and tabs are kept.

    >>> escape("<script>\x1b</script>")
    '&lt;script&gt;�&lt;/script&gt;'
    """
    kept = "\n\t" if lines else ""

    def shown(c: str) -> str:
        if c.isprintable() or c in kept or unicodedata.category(c) == "Zs":
            return c
        return " " if c in "\n\t" else "�"

    return html.escape("".join(map(shown, str(text))))


def linked(text: str) -> str:
    """Escape text, and make links of the arXiv numbers in it.

    >>> linked("arXiv 1206.4683 <b>")
    '<a href="https://arxiv.org/abs/1206.4683" rel="noreferrer">arXiv 1206.4683</a> &lt;b&gt;'
    """
    return _ARXIV.sub(
        r'<a href="https://arxiv.org/abs/\1" rel="noreferrer">\g<0></a>', escape(text)
    )


def slug(text: str, number: int) -> str:
    """Return an anchor: unique by its number, readable by its letters.

    >>> slug("Softmax <x>", 3)
    'd3-softmax-x'
    """
    return f"d{number}-{re.sub(r'[^a-z0-9]+', '-', text.lower()).strip('-')[:60]}".rstrip("-")
