"""The right rows reach the right chart, and the figures are written the house's way."""

import math
from typing import Any

import pytest

from anomaly_lab.reports.charts import comparison, curves, figure, rate, score_histogram, term, training

from .conftest import fake_metrics

ROWS: list[dict[str, Any]] = [
    {"split": "val", "label": 0, "score": 0.9, "mean_image": 0.1, "pca_32": 0.1},
    {"split": "test", "label": 0, "score": 0.1, "mean_image": 0.3, "pca_32": 0.1},
    {"split": "test", "label": 1, "score": 0.8, "mean_image": 0.2, "pca_32": 0.4},
]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.8123, ".812"), (1.0, "1.000"), (0.0, ".000"), (-0.067, "−.067"), (None, "–"), (math.nan, "–")],
)
def test_rates(value: float | None, text: str) -> None:
    assert rate(value) == text


def test_figures_with_and_without_interval() -> None:
    assert figure({"value": 0.8123, "low": 0.74, "high": 0.881}) == ".812 [.74, .88]"
    assert figure({"value": 0.8123, "low": None, "high": None}) == ".812"
    assert figure(None) == figure({"value": None}) == "–"


def test_the_comparison_names_what_guessing_reaches() -> None:
    auroc, precision, sensitivity = comparison(fake_metrics())
    assert "guessing .500" in auroc.svg
    assert "guessing .600" in precision.svg  # 60 of the 100 test images are anomalous
    assert "guessing .050" in sensitivity.svg


def test_curves_use_the_test_split_alone() -> None:
    roc, _ = curves(ROWS, fake_metrics())
    without_val, _ = curves(ROWS[1:], fake_metrics())
    assert roc.svg == without_val.svg
    assert "This detector" in roc.svg
    assert "PCA-32" in roc.svg
    assert "At the threshold" in roc.svg


def test_no_curves_without_both_classes() -> None:
    assert curves(ROWS[:2], fake_metrics()) == []


def test_the_histogram_counts_each_group() -> None:
    svg = score_histogram(ROWS, 0.5).svg
    assert "Validation normals (1)" in svg
    assert "threshold 0.5" in svg
    assert "threshold" not in score_histogram(ROWS, None).svg


def test_one_panel_a_term_and_phase_gradient_norms_last() -> None:
    log = [
        {"iteration": i, "images": i * 32, "phase": phase, "train/grad_critic": 1.0, "train/critic": float(i)}
        for phase in ("gan", "encoder")
        for i in range(3)
    ]
    log[1]["train/critic"] = math.nan
    found = training(log)
    assert list(found) == ["gan", "encoder"]
    assert [panel.title for panel in found["gan"]] == ["Critic loss", "Gradient norm, critic"]
    assert found["gan"][0].note == "last 2; 1 not finite, left out"


def test_a_term_nobody_listed_is_called_by_its_own_name() -> None:
    names = {"train/critic": "Critic loss", "train/grad_cloner": "Gradient norm, cloner", "train/resets": "Resets"}
    assert {key: term(key) for key in names} == names
    assert term("train/log_likelihood") == "Log likelihood"
