"""The page of a parity report in a real browser: blocks in torch's order, the first that fail
marked, remedies, the map of weights.
"""

import re

import jax
import numpy as np
import pytest

from jaxgrad import parity
from jaxgrad.parity import page
from jaxgrad.reports.finding import Finding, Verdict
from jaxgrad.reports.report import Report
from parity_tests import jax_models, torch_models
from parity_tests.test_flax import MLP_SCOPES, Perceptron
from tests.browser import look, probe

X = np.random.default_rng(1).standard_normal((7, 6))
HOSTILE = '<script>console.error("x")</script><img src=x onerror=console.error(1)>"\''


@pytest.fixture(scope="module")
def wrong():
    golden = parity.record(
        torch_models.encoder(),
        {"src": np.random.default_rng(1).standard_normal((2, 5, 8))},
        train=True,
    )

    def port(p, src):
        p = p | {"layers.1.linear2.bias": 0 * p["layers.1.linear2.bias"]}
        return jax_models.encoder(p, src, "eps of layers.0.norm2")

    return parity.check(port, golden, ignore="layers.?", name=f"Encoder {HOSTILE}")


@pytest.fixture(scope="module")
def written(wrong, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "parity.html"
    path.write_text(
        page.render(wrong, "jaxgrad parity encoder.npz ports.py:encoder"), encoding="utf-8"
    )
    return path


def test_the_blocks_stand_in_torchs_order_and_the_first_that_fail_are_marked(
    wrong, written, tmp_path
):
    names = probe(
        written,
        '() => [...document.querySelectorAll("svg.flow text.name")].map(t => t.textContent)',
        tmp_path,
    )
    bare = [name.partition(" ◀ ")[0] for name in names]
    assert (
        bare[:3] == ["layers.0.self_attn[0]", "layers.0.dropout1", "layers.0.norm1"]
        and bare[-1] == "output"
    )
    assert wrong.context["first_forward"] == "layers.0.norm2"
    assert next(name for name in names if " ◀ " in name) == "layers.0.norm2 ◀ forward"
    widths = probe(
        written,
        '() => [...document.querySelectorAll("svg.flow rect.fore")].map(r => [r.getBBox().width, '
        'r.classList.contains("refuted")])',
        tmp_path,
    )
    first = bare.index("layers.0.norm2")
    assert not any(refuted for _, refuted in widths[:first]) and widths[first][1]
    assert widths[first][0] > 2 * max(width for width, _ in widths[:first])


def test_remedies_are_told_nothing_is_loaded_and_nothing_runs(wrong, written, tmp_path):
    document, console = look(written)
    assert console == [] and "<script" not in document and HOSTILE not in document
    assert "eps=1e-05 restores parity" in document
    assert re.findall(r"(?:src|href)=[\"'](?!#|data:)", document) == []
    for width in (360, 1200):
        fits = "() => document.documentElement.scrollWidth <= innerWidth"
        assert probe(written, fits, tmp_path, width=width)


def test_the_map_of_weights_and_the_probes_stand_in_tables(tmp_path):
    golden = parity.record(torch_models.MLP(), {"x": X})
    tree = jax.eval_shape(Perceptron().init, jax.random.key(0), X.astype(np.float32))
    report = parity.check(Perceptron().apply, golden, weights=tree, taps=MLP_SCOPES, precision=None)
    path = tmp_path / "map.html"
    path.write_text(page.render(report), encoding="utf-8")
    rows = probe(
        path,
        '() => [...document.querySelectorAll("tr")].map(r => '
        "r.innerText.trim().split(/\\s*\\t\\s*/))",
        tmp_path,
    )
    assert ["['params']['fc1']['kernel']", "fc1.weight", "axes 1 0"] in rows
    plain = parity.check(jax_models.mlp, golden, precision=None)
    assert "Beyond the recorded activations" in page.render(plain) and "act2 beyond" in page.render(
        plain
    )


def test_a_report_without_taps_or_measures_is_a_page_too():
    bare = Report(
        name="m",
        findings=(
            Finding(
                evidence="semantic", wrt="output", verdict=Verdict.REFUTED, detail="another shape"
            ),
        ),
    )
    assert page.ratio(bare.findings[0]) == np.inf and "another shape" in page.render(bare)


def test_of_several_blocks_that_may_be_wrong_none_is_said_to_be():
    def told(**context):
        found = tuple(
            Finding(evidence="semantic", wrt=f"output[{i}]", verdict=Verdict.REFUTED)
            for i in range(2)
        )
        return page.render(Report(name="m", findings=found, context=context))

    one, several = (
        told(first_vjp=["output[0]"]),
        told(first_vjp=["output[0]", "output[1]"], first_forward="output[1]"),
    )
    assert (
        "<code>output[0]</code> is the first to differ by itself, backward" in one
        and "output[0] ◀ backward" in one
    )
    assert "<code>output[0]</code> may be the first to differ by itself, backward" in several
    assert (
        "<code>output[1]</code> is the first to differ by itself, forward and perhaps backward"
        in several
    )
    assert "output[0] ◀ perhaps backward" in several
