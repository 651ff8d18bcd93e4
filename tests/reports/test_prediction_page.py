"""The page of new files shows the most anomalous ones, and of a volume the slices that matter."""

import re
from pathlib import Path

import numpy as np

from anomaly_lab.reports import prediction_page
from anomaly_lab.reports.prediction_page import CASES_WITH_PICTURES, SLICES, SPARE, Finding, lean, views, write_page

HOSTILE = "<script>alert(1)</script>"


def finding(number: int, views: tuple[prediction_page.View, ...] = ()) -> Finding:
    return Finding(f"case {number:03d}", float(number), 0.5, number > 3, views=views)


def picture() -> tuple[prediction_page.View, ...]:
    return views(np.zeros((1, 4, 4)), np.eye(4, dtype=np.float32), None)


def test_slices_are_the_hottest_apart_and_the_one_with_most_of_the_lesion() -> None:
    anomaly_map, mask = np.zeros((4, 40, 4), np.float32), np.zeros((4, 40, 4), bool)
    for at, heat in zip((0, 1, 10, 20, 21, 30, 35, 39), (9, 8, 7, 6, 5, 4, 3, 2), strict=True):
        anomaly_map[0, at, 0] = heat
    mask[0, 5, 0] = mask[:2, 6, 0] = True
    image = np.broadcast_to(np.arange(40)[None, None, :, None] / 20 - 1, (1, 4, 40, 4))
    shown = views(image, anomaly_map, mask, axis=1)
    assert [view.title for view in shown] == [f"slice {i + 1} of 40" for i in (0, 6, 10, 20, 30, 35)]
    assert len(shown) == SLICES + 1
    assert np.allclose(shown[2].image, 10 / 20 - 1)
    assert shown[2].anomaly_map.max() == 7
    assert shown[1].mask is not None
    assert shown[1].mask.sum() == 2


def test_a_volume_without_any_anomaly_shows_nothing() -> None:
    assert views(np.zeros((1, 3, 4, 4)), np.zeros((3, 4, 4), np.float32), None) == ()


def test_only_the_highest_scores_keep_their_pictures() -> None:
    findings: list[Finding] = []
    for number in np.random.default_rng(0).permutation(CASES_WITH_PICTURES + SPARE + 30).tolist():
        findings = lean([*findings, finding(number, picture())])
        assert sum(bool(found.views) for found in findings) <= CASES_WITH_PICTURES + SPARE
    kept = {int(found.score) for found in findings if found.views}
    assert set(range(SPARE + 30, CASES_WITH_PICTURES + SPARE + 30)) <= kept
    assert len(findings) == CASES_WITH_PICTURES + SPARE + 30


def test_the_page_has_every_score_and_asks_nobody(tmp_path: Path) -> None:
    findings = [finding(number, picture()) for number in range(CASES_WITH_PICTURES + 2)]
    findings.append(Finding(HOSTILE, 0.5, None, None))
    write_page(tmp_path / "index.html", HOSTILE, findings)
    page = (tmp_path / "index.html").read_text()
    assert "<script>" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    rows = re.findall(r"<tr><th>(.*?)</th>", page.split('id="scores"')[1])
    assert rows[1:4] == [
        f"case {number:03d}" for number in (CASES_WITH_PICTURES + 1, CASES_WITH_PICTURES, CASES_WITH_PICTURES - 1)
    ]
    assert len(rows) == 1 + CASES_WITH_PICTURES + 3
    assert len(re.findall("Scored image, case", page)) == CASES_WITH_PICTURES
    assert f"{CASES_WITH_PICTURES} of {CASES_WITH_PICTURES + 3} are shown" in page
