"""The data of pictures: which entry a cell shows, what is not finite or not compared, and how small
it stays.
"""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

import jaxgrad as jg
from jaxgrad.reports.pictures import (
    COLUMNS,
    ROWS,
    Closing,
    Heat,
    Histogram,
    Path,
    from_dict,
    heat,
    histogram,
    to_dict,
)
from jaxgrad.reports.report import Report


def test_a_small_array_keeps_a_cell_for_each_entry_in_its_own_shape():
    picture = heat(np.array([[1.0, 2.0, 4.0], [0.0, 8.0, 16.0]]), np.full((2, 3), 2.0))
    assert picture.error == ((0.5, 1.0, 2.0), (0.0, 4.0, 8.0))
    assert (picture.shape, picture.binned) == ((2, 3), False)


@pytest.mark.parametrize("shape", [(100, 100), (10_000,), (20, 25, 20), (1, 10_000), (10_000, 1)])
def test_ten_thousand_entries_are_binned_and_the_one_wrong_entry_still_shows(shape):
    rng = np.random.default_rng(0)
    closed = rng.standard_normal(shape)
    reference = closed.copy()
    place = int(rng.integers(closed.size))
    reference.flat[place] += 1.0
    picture = heat(np.abs(closed - reference), 1e-9, closed=closed, reference=reference)
    cells = np.array(picture.error)
    assert picture.binned and cells.shape[0] <= ROWS and cells.shape[1] <= COLUMNS
    assert np.sum(cells > 1) == 1
    at = np.unravel_index(np.argmax(cells), cells.shape)
    assert np.array(picture.closed)[at] == pytest.approx(closed.flat[place], rel=1e-2)
    assert np.array(picture.reference)[at] == pytest.approx(reference.flat[place], rel=1e-2)
    assert len(json.dumps(to_dict(picture))) < 100_000


def test_a_cell_shows_what_is_not_finite_and_what_was_not_compared():
    error = np.array([np.nan, np.inf, 1.0, 1.0])
    picture = heat(error, 1.0, compared=np.array([True, True, True, False]))
    assert [None if v is None else math.isnan(v) for v in picture.error[0]] == [
        True,
        True,
        False,
        None,
    ]
    assert to_dict(picture)["error"] == [["nan", "nan", 1.0, None]]


def test_an_error_with_a_bound_of_zero_is_large_and_no_error_is_none():
    assert heat(np.array([0.0, 1e-30]), 0.0).error == ((0.0, 1e99),)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_scalars_and_empty_arrays_have_a_picture(shape):
    picture = heat(np.zeros(shape), 1.0)
    assert sum(map(len, picture.error)) == math.prod(shape)
    assert from_dict(to_dict(picture)) == picture


def test_a_histogram_counts_every_entry_and_what_lies_beyond_in_the_last_bins():
    found = histogram(np.array([-100.0, -0.1, 0.1, 0.2, 7.0, np.nan]))
    assert (sum(found.counts), found.counts[0], found.counts[-1]) == (5, 1, 1)


def test_the_interval_of_a_sample_closes_in_as_one_over_the_root_of_its_size():
    rng = np.random.default_rng(1)
    means = rng.normal([0.0, 3.0], size=(4096, 2))
    path = Path()
    path.begin(means[:256])

    def interval(seen):
        return seen.mean(0) - np.array([0.0, 3.0])[-seen.shape[1] :], 5 * seen.std(
            0, ddof=1
        ) / math.sqrt(len(seen))

    for count in (256, 1024, 4096):
        path.look(count, *interval(means[:count]))
    closing = path.closing(
        1, (1,), 8, 1.0, 0.1, lambda column: tuple(x[0] for x in interval(column[:, None]))
    )
    assert closing.samples == tuple(8 * n for n in (16, 32, 64, 128, 256, 1024, 4096))
    assert closing.reach[-2] / closing.reach[-1] == pytest.approx(2, rel=0.1)
    assert all(abs(off) <= reach for off, reach in zip(closing.off, closing.reach, strict=True))


def wrong(**more):
    return jg.Derivation(
        name="wrong",
        loss=lambda x: jnp.sum(x**2),
        gradient=lambda x: {"x": (2 * x).at[1, 2].multiply(3)},
        shapes={"x": "m n"},
        **more,
    )


def test_the_evidence_of_a_wrong_entry_shows_that_entry_and_both_values():
    report = jg.verify(wrong(), evidence=("autodiff", "differences"))
    for finding in report.findings:
        (picture,) = finding.pictures
        assert (
            isinstance(picture, Heat)
            and picture.closed is not None
            and picture.reference is not None
        )
        assert [
            (i, j)
            for i, row in enumerate(picture.error)
            for j, v in enumerate(row)
            if v is not None and v > 1
        ] == [(1, 2)]
        assert picture.closed[1][2] == pytest.approx(3 * picture.reference[1][2], rel=1e-2)


def test_sampling_shows_errors_an_interval_and_a_histogram():
    report = jg.verify(jg.catalog.get("inverted_dropout"), evidence="monte_carlo")
    for finding in report.findings:
        cells, closing, counts = finding.pictures
        assert (
            isinstance(cells, Heat)
            and isinstance(closing, Closing)
            and isinstance(counts, Histogram)
        )
        assert math.prod(cells.shape) == sum(counts.counts)
        assert (
            closing.reach[-1] < closing.reach[0]
            and abs(closing.off[-1]) + closing.reach[-1] <= closing.resolution
        )


def test_sampling_that_refutes_shows_both_sides():
    claim = jg.Derivation(
        name="a factor too much", shapes={"x": "m n", "mask": "m n"}, mask=jg.masks.Bernoulli(0.5),
        loss=lambda x, mask: jnp.sum((mask * x) ** 2), gradient=lambda x, mask: {"x": 2 * x},
    )  # fmt: skip
    (finding,) = jg.verify(claim, evidence="monte_carlo").findings
    cells, closing, _ = finding.pictures
    assert finding.verdict == "refuted" and isinstance(cells, Heat) and isinstance(closing, Closing)
    assert cells.against == "samples" and cells.closed is not None and cells.reference is not None
    assert np.array(cells.reference) == pytest.approx(
        np.array(cells.closed) / 2, abs=0.2 * np.abs(cells.closed).max()
    )
    assert abs(closing.off[-1]) > closing.reach[-1]


def test_a_gradient_with_nan_shows_where_it_is_not_finite():
    claim = jg.Derivation(
        name="nan",
        loss=lambda x: jnp.sum(x**2),
        gradient=lambda x: {"x": (2 * x).at[0].set(jnp.nan)},
        shapes={"x": "n"},
    )
    report = jg.verify(claim, evidence=("autodiff", "differences"))
    assert report.verdict != "confirmed"
    for finding in report.findings:
        assert finding.pictures and math.isnan(finding.pictures[0].error[0][0])  # type: ignore[union-attr]
    assert "NaN" not in report.to_json()


def test_a_report_written_as_json_comes_back_whole():
    report = jg.verify(wrong(formula=r"2x", reference="any textbook"), evidence="autodiff")
    again = Report.from_dict(json.loads(report.to_json()))
    assert again.to_json() == report.to_json()
    data = json.loads(report.to_json())
    data["findings"][0]["pictures"].append({"kind": "of the future"})
    assert Report.from_dict(data).to_json() == report.to_json()
    assert again.claim["formula"] == "2x" and "at[1, 2]" in again.claim["source"][1]["code"]
