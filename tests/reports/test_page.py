"""The page of reports in a real browser: it renders, loads nothing, escapes everything, and fits a
phone.
"""

import datetime
import re
import time
from html.parser import HTMLParser

import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.reports.html import page
from jaxgrad.reports.html.formulas import mathml
from jaxgrad.reports.html.spreads import FEWEST, spread_chart
from jaxgrad.reports.html.text import escape
from jaxgrad.reports.pictures import heat
from jaxgrad.reports.report import Report
from tests.browser import look, probe

HOSTILE = (
    '<script>console.error("x")</script><img src=x onerror=console.error(1)>"\'&\x1b[31m\u202e'
)


def hostile(x):
    return {"x": 3 * x}  # </code></pre><script>console.error("source")</script>


@pytest.fixture(scope="module")
def reports():
    claims = [
        jg.catalog.get("masked_autoencoder_patches"),
        jg.Derivation(
            name=HOSTILE,
            loss=lambda x: (x**2).sum(),
            gradient=hostile,
            shapes={"x": "m n"},
            formula=r"\text{<script>console.error(2)</script>} + \href{javascript:alert(1)}{x}, "
            r"\quad \frac{1}{2}",
            reference=HOSTILE + " arXiv 1206.4683",
        ),
        jg.Derivation(
            name="ten thousand entries",
            loss=lambda x: (x**2).sum(),
            gradient=lambda x: {"x": (2 * x).at[17, 50].multiply(-1)},
            shapes={"x": "100 100"},
        ),
        jg.Derivation(
            name="not a number",
            loss=lambda x: (x**2).sum(),
            gradient=lambda x: {"x": (2 * x).at[1].set(jnp.nan)},
            shapes={"x": "n"},
        ),
    ]
    return [jg.verify(claim) for claim in claims]


@pytest.fixture(scope="module")
def written(reports, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(
        page.render(reports, errors={HOSTILE: HOSTILE}, command="jaxgrad verify mine.py"),
        encoding="utf-8",
    )
    return path


class Outline(HTMLParser):
    """Every tag with its attributes, and whether tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def outline(text):
    found = Outline()
    found.feed(text)
    found.close()
    assert found.open == []
    return found


def test_it_opens_without_a_word_on_the_console_and_with_every_section(written):
    document, console = look(written)
    assert console == []
    assert document.count('<section class="derivation"') == 4
    assert len(re.findall(r"<math ", document)) >= 3 and len(re.findall(r"<svg ", document)) > 10


def test_the_browser_would_have_told_of_an_error(tmp_path):
    (tmp_path / "bad.html").write_text(
        "<!DOCTYPE html><title>t</title><script>undefined_function()</script>"
    )
    assert any("undefined_function" in line for line in look(tmp_path / "bad.html")[1])


GEOMETRY = """() => {
  const box = e => e.getBoundingClientRect(), all = q => [...document.querySelectorAll(q)];
  const fits = e => box(e).right <= innerWidth + 1 || e.closest(".scroll, .formula, pre, svg");
  return {
    width: innerWidth, page: document.documentElement.scrollWidth,
    ground: getComputedStyle(document.body).backgroundColor,
    math: all("math").map(e => [e.namespaceURI, box(e).width, box(e).height]),
    svg: all("svg").map(e => [box(e).width, box(e).height]),
    outside: all("body *").filter(e => !fits(e)).map(e => e.outerHTML.slice(0, 200)),
    fraction: box(document.querySelector("mfrac")).height,
    letter: box(document.querySelector("mi")).height,
  };
}"""


@pytest.mark.parametrize("width", [1200, 390])
def test_formulas_and_figures_have_a_size_and_nothing_sticks_out_on_a_desk_or_a_phone(
    written, tmp_path, width
):
    seen = probe(written, GEOMETRY, tmp_path, width=width)
    assert seen["width"] == width and seen["page"] <= width
    assert seen["outside"] == []
    assert all(space.endswith("MathML") and w > 5 and h > 5 for space, w, h in seen["math"])
    assert seen["fraction"] > seen["letter"]
    assert all(w > 3 and h > 3 for w, h in seen["svg"])


def test_it_follows_the_choice_of_light_or_dark(written, tmp_path):
    light, dark = (
        probe(written, GEOMETRY, tmp_path, dark=dark)["ground"] for dark in (False, True)
    )
    assert (
        min(map(int, re.findall(r"\d+", light))) > 240
        and max(map(int, re.findall(r"\d+", dark))) < 40
    )


def test_a_picture_of_it_is_not_blank(written, tmp_path):
    empty = tmp_path / "empty.html"
    empty.write_text("<!DOCTYPE html><title>t</title>")
    sizes = []
    for shown, name in ((written, "a.png"), (empty, "b.png")):
        look(shown, screenshot=tmp_path / name)
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[0] > 20 * sizes[1]


def test_every_link_inside_leads_somewhere_and_one_that_is_followed_scrolls(written, tmp_path):
    found = outline(written.read_text(encoding="utf-8"))
    anchors = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    links = [attrs["href"] for tag, attrs in found.tags if tag == "a"]
    assert len(set(anchors)) == len(anchors)
    assert len([link for link in links if link.startswith("#")]) >= 8
    assert all(link[1:] in anchors for link in links if link.startswith("#"))
    assert {link for link in links if not link.startswith("#")} <= {
        f"https://arxiv.org/abs/{n}" for n in ("2508.15404", "1206.4683")
    }
    last = [link for link in links if link.startswith("#d")][-1]
    follow = f"""() => {{
      const target = document.querySelector('{last}'), before = target.getBoundingClientRect().top;
      document.documentElement.style.scrollBehavior = "auto";
      document.querySelector('a[href="{last}"]').click();
      return [before, target.getBoundingClientRect().top, innerHeight];
    }}"""
    before, after, height = probe(written, follow, tmp_path, height=900)
    assert before > height and 0 <= after < height


def test_text_from_the_users_file_is_text(written):
    text = written.read_text(encoding="utf-8")
    found = outline(text)
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "img", "iframe", "object", "form"})
    assert not any(
        name.startswith("on") or "javascript" in (value or "")
        for _, attrs in found.tags
        for name, value in attrs.items()
    )
    assert (
        '<script>console.error("x")</script>' in "".join(found.text)
        and "\x1b" not in text
        and "\u202e" not in text
    )
    assert 'console.error("source")' in "".join(found.text)


def test_it_loads_nothing(written):
    found = outline(written.read_text(encoding="utf-8"))
    sources = [
        value
        for _, attrs in found.tags
        for name, value in attrs.items()
        if name in ("src", "srcset", "data", "poster")
    ]
    links = [attrs["href"] for tag, attrs in found.tags if tag == "link"]
    assert sources == [] and links == ["data:,"]
    style = re.search(r"<style>(.*?)</style>", written.read_text(encoding="utf-8"), re.DOTALL)
    assert style and "url(" not in style[1] and "@import" not in style[1]


def test_a_refutation_shows_both_sides_and_the_reason_first(reports):
    text = page.render(reports[1:2])
    assert text.index("3/2 times") < text.index("Autodiff</span>")
    assert "closed form, from" in text and "autodiff, from" in text and "differences, from" in text


def test_sampling_shows_the_interval_and_the_histogram(reports):
    text = page.render(reports[:1])
    assert (
        text.count("The Monte Carlo interval narrowing") == 2
        and text.count("Histogram of standardised errors") == 2
    )
    assert "would not have been confirmed" in text
    assert "gone unseen with a probability of at most 2<sup>−" in text


def test_each_evidence_with_errors_by_entry_shows_their_map_and_their_histogram(reports):
    for report in reports:
        for finding in report.findings:
            text = page.render([Report(name="one", findings=(finding,))])
            maps = text.count("Error of each entry in units of its bound")
            assert maps == (finding.evidence != "certificate")
            histograms = text.count("Histogram of errors in units of") + text.count(
                "Histogram of standardised errors"
            )
            assert histograms == (
                maps and sum(len(row) for p in finding.pictures[:1] for row in p.error) >= FEWEST
            )


def test_a_histogram_of_errors_counts_every_entry_on_its_side_of_the_bound():
    text = spread_chart(heat(np.array([[1e-6, 0.5, 0.6], [3.0, np.nan, 0.05]]), 1.0))
    counts = re.findall(r'class="(e\d|nan)".*?>(\d)</text>', text)
    assert counts == [("e0", "1"), ("e2", "1"), ("e3", "2"), ("e4", "1"), ("nan", "1")]
    assert 'class="bound"' in text and ">NaN</text>" in text
    assert 'class="bound"' not in spread_chart(heat(np.full((2, 3), 0.5), 1.0))
    assert "cells by" in spread_chart(heat(np.full((100, 100), 0.5), 1.0))
    assert spread_chart(heat(np.zeros(FEWEST - 1), 1.0)) == ""


def test_ten_thousand_entries_take_little_room(reports):
    assert len(page.render(reports[2:3])) < 400_000
    assert "the worst of each of" in page.render(reports[2:3])


def test_the_same_reports_and_day_make_the_same_page(reports):
    day = datetime.date(2026, 1, 2)
    assert page.render(reports, made=day) == page.render(
        reports, made=day
    ) and "2026-01-02" in page.render(reports, made=day)


def test_reports_without_findings_claims_or_context_have_a_page():
    finding = Finding(evidence="layer_by_layer", wrt="w", verdict=Verdict.CONFIRMED, error=1e-12)
    text = page.render(
        [Report(name="empty", findings=()), Report(name="bare", findings=(finding,))]
    )
    assert "no evidence applies" in text and "layer by layer" in text
    outline(text)


def test_a_large_run_is_small_and_quick():
    finding = jg.verify(jg.catalog.get("masked_autoencoder_bernoulli")).findings
    many = [Report(name=f"claim {i}", findings=finding) for i in range(50)]
    start = time.perf_counter()
    text = page.render(many)
    assert time.perf_counter() - start < 5 and len(text) < 3_000_000


@pytest.mark.parametrize(
    "latex",
    [
        r"\frac{1",
        r"}{",
        "x" * 5000,
        r"\left( x",
        "&",
        r"\begin{matrix} a & b \\ c \end{matrix}",
        r"\unknown x",
        "",
        "\x00",
    ],
)
def test_a_formula_that_cannot_be_set_is_shown_as_it_is(latex):
    outline(mathml(latex))
    if latex in (r"\frac{1", r"\unknown x"):
        assert mathml(latex) == f'<code class="tex">{escape(latex)}</code>'


def test_every_formula_of_the_catalogue_is_set():
    for derivation in jg.catalog.all():
        assert "<math" in mathml(derivation.formula) and "<code" not in mathml(
            derivation.formula
        ), derivation.name
