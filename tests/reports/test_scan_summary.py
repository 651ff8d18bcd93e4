"""Histograms of many scans on one axis, against counting all their numbers at once."""

from typing import Any

import numpy as np
import pytest

from anomaly_lab.reports.scan_summary import BINS, Mixture, ScanSummary, common_axis


def fact(size: list[int], **changes: Any) -> dict[str, Any]:
    return {
        "case": "a",
        "size": size,
        "spacing": None,
        "range": [0.0, 255.0],
        "clipped": 0.0,
        "histogram": [1] * 64,
        "stored_histogram": [1] * 64,
        "lesion": None,
        "windows": 1,
    } | changes


def mixture(*scans: np.ndarray) -> Mixture:
    mixed = Mixture()
    for values in scans:
        low, high = float(values.min()), float(values.max())
        mixed.add(np.histogram(values, 64, (low, high))[0].tolist(), low, high)
    return mixed


def test_scans_of_different_ranges_add_up_on_one_axis():
    rng = np.random.default_rng(0)
    scans = [rng.normal(centre, 10, 20_000) for centre in (0, 30)]
    mixed = mixture(*scans)
    edges = np.linspace(-60, 90, 16)
    exact = np.mean([np.histogram(values, edges)[0] / len(values) for values in scans], axis=0)
    assert mixed.histogram(edges) == pytest.approx(exact, abs=0.01)
    assert mixed.range == (min(v.min() for v in scans), max(v.max() for v in scans))


def test_a_large_scan_weighs_no_more_than_a_small_one():
    mixed = mixture(np.linspace(0, 1, 10), np.linspace(10, 11, 10_000))
    assert mixed.below(np.array([5.0])) == pytest.approx([0.5])


def test_one_burnt_pixel_does_not_squeeze_the_axis():
    values = np.concatenate([np.linspace(0, 100, 100_000), [30_000]])
    mixed = Mixture()
    mixed.add(np.histogram(values, 30_000, (0, 30_000))[0].tolist(), 0, 30_000)
    edges = common_axis([mixed])
    assert (len(edges), edges[0]) == (BINS + 1, 0)
    assert 99 < edges[-1] < 120
    assert mixed.histogram(edges).sum() > 0.998


def test_a_scan_of_one_value_has_an_axis():
    mixed = Mixture()
    mixed.add([5] + [0] * 63, 7.0, 7.0)
    assert np.all(np.diff(common_axis([mixed])) > 0)


def test_sizes_spacings_and_lesions_are_counted():
    summary = ScanSummary()
    for depth in (10, 20, 20, 50):
        summary.add(fact([depth, 8, 8], spacing=[3.0, 1.0, 1.0], lesion=depth // 50), "normal")
    assert summary.volumes
    assert summary.sizes[(20, 8, 8)] == 2
    assert summary.lesions == 1
    first = summary.extents(summary.sizes)[0]
    assert (first.least, first.median, first.most) == (10, 20, 50)
    assert [extent.most for extent in summary.extents(summary.spacings)] == [3, 1, 1]
    assert summary.extents(ScanSummary().spacings) == []


def test_pictures_among_volumes_do_not_confuse_the_axes():
    summary = ScanSummary()
    summary.add(fact([10, 8, 8], spacing=[1.0, 1.0, 1.0]), "normal")
    summary.add(fact([640, 480]), "normal")
    assert [extent.most for extent in summary.extents(summary.sizes)] == [10, 8, 8]


def test_scans_without_a_window_are_counted():
    summary = ScanSummary()
    for windows in (0, 3, 0):
        summary.add(fact([4, 5], windows=windows), "normal")
    assert summary.barren == 2


def test_scans_without_histograms_count_all_the_same():
    summary = ScanSummary()
    summary.add(fact([4, 5]), "normal")
    assert not summary.sampled
    summary.add({name: value for name, value in fact([4, 5]).items() if "histogram" not in name}, "anomalous")
    assert summary.sizes[(4, 5)] == 2
    assert summary.sampled
    assert list(summary.read) == ["normal"]
