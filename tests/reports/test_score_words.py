"""The report says which score a run has."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomaly_lab.reports.run_report import write_report
from anomaly_lab.reports.score_words import OWN, score_in_words

UNREADABLE = (
    "",
    "score: [",
    "score: 3",
    "- 1",
    "score: {source: map, smooth: a lot}",
    "score: {source: map, top: [1]}",
)


@pytest.mark.parametrize("config", [*UNREADABLE, "seed: 0", "score: {source: detector, smooth: 3.0}"])
def test_a_run_has_its_detectors_own_score_unless_it_says_otherwise(config: str) -> None:
    assert score_in_words(config) == OWN


@pytest.mark.parametrize(("rule", "words"), [
    ("sign: dark", "what is darker than the reconstruction counts; not smoothed"),
    ("sign: both", "or the detector’s own map where it does not reconstruct; both signs count"),
    ("smooth: 1.5", "a standard deviation of 1.5 pixels of a picture with sides of 64"),
    ("standardise: place", "less the mean of the training normals"),
    ("standardise: place, normals: validation", "less the mean of the other validation normals"),
    ("pool: top, top: 0.05", "the mean of the highest 5 % of the map’s values is the score"),
    ("pool: mean", "the mean of the map is the score"),
])  # fmt: skip
def test_a_score_from_maps_is_said_with_every_setting(rule: str, words: str, fake_run: Path) -> None:
    config = f"score: {{source: map, {rule}}}"
    assert words in score_in_words(config)
    (fake_run / "config.yaml").write_text(config)
    method = write_report(fake_run).read_text().split('<section id="method">')[1].split("</section>")[0]
    assert words in method
    assert OWN not in method
