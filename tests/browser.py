"""A headless Chromium, to see pages as a reader does."""

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--v=0",
)
PROBE = """<script>addEventListener("load", () => {{
  const result = ({expression})();
  const found = document.createElement("pre");
  found.id = "probed";
  found.textContent = JSON.stringify(result);
  parent.document.body.append(found);
}})</script>"""


def find():
    """Return the browser; where there is none, the test is skipped, unless JAXGRAD_BROWSER says
    that there must be one.
    """
    named = os.environ.get("JAXGRAD_BROWSER")
    if named:
        return named
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if shutil.which(name):
            return shutil.which(name)
    pytest.skip("no Chromium: install it, or name it in JAXGRAD_BROWSER")


def look(page, *, width=1200, height=1600, dark=False, screenshot=None):
    """Open a file; return its document after loading and what it said to the console, and take a
    screenshot where asked.
    """
    flags = [
        f"--window-size={width},{height}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
    ]
    flags += [f"--screenshot={screenshot}"] if screenshot else ["--dump-dom"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            find(),
            *FLAGS,
            *flags,
            f"--user-data-dir={profile}",
            f"file://{Path(page).resolve()}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, re.findall(r".*:CONSOLE.*", done.stderr)


def probe(page, expression, folder, **options):
    """Evaluate a JavaScript function in a copy of the page, from which the policy that forbids
    scripts is taken out.
    """
    text = re.sub(
        r'<meta http-equiv="Content-Security-Policy"[^>]*>',
        "",
        Path(page).read_text(encoding="utf-8"),
    )
    copy = folder / "probe.html"
    text = text.replace("</body>", PROBE.format(expression=expression) + "</body>")
    if "width" in options:  # a window is never narrower than 500, a frame may be
        size = f"border:0;width:{options.pop('width')}px;height:1200px"
        text = (
            f'<!DOCTYPE html><title>frame</title><iframe style="{size}" '
            f'srcdoc="{html.escape(text)}"></iframe>'
        )
    copy.write_text(text, encoding="utf-8")
    document, console = look(copy, **options)
    assert console == []
    found = re.search(r'<pre id="probed">(.*?)</pre>', document, re.DOTALL)
    assert found, document[-2000:]
    return json.loads(html.unescape(found[1]))
