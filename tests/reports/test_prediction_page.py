"""The page of new files shows the most anomalous ones, and of a volume the slices that matter."""

import re
from pathlib import Path

import numpy as np
import pytest
from pages import own, scripts_of

from anomaly_lab.reports import prediction_page
from anomaly_lab.reports.prediction_page import (
    CASES_WITH_PICTURES,
    MOST_SLICES,
    SLICES,
    SMALL,
    VOLUMES,
    Exhibit,
    Exhibits,
    Finding,
    Scoring,
    banners,
    render,
    slices,
    views,
)

HOSTILE = "<script>alert(1)</script>"


def finding(number: int) -> Finding:
    return Finding(f"case {number:03d}", float(number), 0.5, number > 3)


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


def test_only_the_highest_scores_keep_their_pictures_also_for_a_process_that_goes_on(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(CASES_WITH_PICTURES + 30).tolist()
    for part in (order[:25], order[20:60], order[55:]):  # what was not noted is done again
        exhibits = Exhibits(tmp_path)
        for number in part:
            mask = np.eye(4, dtype=bool) if number % 2 else None
            shown = views(np.full((1, 4, 4), number / 100), np.eye(4, dtype=np.float32), mask)
            exhibits.add(number, float(number // 2), Exhibit(shown, 0.25))  # every score twice
            assert len(list(tmp_path.iterdir())) <= CASES_WITH_PICTURES
    kept = list(exhibits)
    expected = sorted(order, key=lambda number: (-(number // 2), number))[:CASES_WITH_PICTURES]
    assert [number for number, _ in kept] == expected
    number, exhibit = kept[1]
    assert exhibit.auroc == 0.25
    assert exhibit.views[0].image.tolist() == np.full((1, 4, 4), number / 100).tolist()
    assert (exhibit.views[0].mask is not None) == bool(number % 2)


def test_the_page_has_every_score_and_asks_nobody() -> None:
    findings = [finding(number) for number in range(CASES_WITH_PICTURES + 2)]
    findings += [Finding(HOSTILE, 0.5, None, None, HOSTILE), Finding("torn.png", reason=HOSTILE)]
    shown = range(CASES_WITH_PICTURES + 1, 1, -1)
    scoring = Scoring(HOSTILE, {"seed": HOSTILE}, {}, 4, left_out={HOSTILE: "a mask"})
    page = render(scoring, findings, [(number, Exhibit(picture())) for number in shown])
    assert HOSTILE not in page
    assert scripts_of(page) == own()
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    rows = re.findall(r"<tr><th>(.*?)</th>", page.split('id="scores"')[1].split("</section>")[0])
    assert rows[1:4] == [
        f"case {number:03d}" for number in (CASES_WITH_PICTURES + 1, CASES_WITH_PICTURES, CASES_WITH_PICTURES - 1)
    ]
    assert len(rows) == 1 + CASES_WITH_PICTURES + 3
    assert len(re.findall("Scored image, case", page)) == CASES_WITH_PICTURES
    assert f"{CASES_WITH_PICTURES} of {CASES_WITH_PICTURES + 3} are shown" in page
    assert "torn.png" in page.split('id="failed"')[1].split("</section>")[0]
    assert "a mask" in page.split('id="left_out"')[1]
    assert "never below 1 / 5" in page


CAVEATS = {
    "Synthetic twin": {"source": "twin"},
    "Reduced budget: smoke": {"budget": "smoke"},
    "Unfinished run": {"finished": None},
    "Read with care": {"detector": {"caveats": ["augment=true: a habit of others"]}},
    "Changed data": {"accepted_changes": [{"at": "2026", "verb": "evaluate", "changes": "2 files added"}]},
    "Not the last checkpoint": {"checkpoint": {"rule": "asked for", "iteration": 3, "instead_of": {"iteration": 9}}},
    "Contaminated training": {"data": {"contamination": 0.1}},
    "Patients in several splits": {"data": {"audit": {"shared_patients": ["p1"], "crossing": 0}}},
    "Images in several splits": {"data": {"audit": {"shared_patients": [], "crossing": 3}}},
    "Generator collapsed": {"health": {"collapsed": True, "diversity": 0.1}},
}


@pytest.mark.parametrize("title", CAVEATS)
def test_the_page_carries_every_caveat_of_the_run(title: str) -> None:
    sound = {"source": "real", "budget": "paper", "finished": "2026"}
    assert banners(sound, {"threshold": {"value": 1.0}}) == []
    page = render(Scoring("a run", sound | CAVEATS[title], {}, 4), [finding(1)])
    assert re.findall(r'<aside class="banner \w+"><b>(.*?)\.</b>', page) == [title]


def test_the_page_names_detector_budget_threshold_and_normals() -> None:
    facts = {
        "detector": {"class": "anomaly_lab.detectors.ganomaly.GANomaly"},
        "data": {"name": "headct"},
        "budget": "laptop",
        "seed": 7,
        "checkpoint": {"file": "000100-abc.ckpt"},
    }
    threshold = {"value": 0.125, "rule": "quantile of the validation normals", "quantile": 0.95, "num_normals": 19}
    page = render(Scoring("a run", facts, {"threshold": threshold}, 19), [finding(1), finding(9)])
    for part in ("GANomaly", "headct", "laptop", "7", "000100-abc.ckpt", "19", "0.125 (quantile of the validation"):
        assert part in page.split('id="run"')[1].split("</dl>")[0]
    assert "2 files, 1 above the threshold" in page
    without = render(Scoring("a run", facts, {"threshold": {"value": None}}, 0), [Finding("a", 1.0)])
    assert "above the threshold</h1>" not in without
    tested = banners({"source": "real", "finished": "x"}, {"threshold": {"uses_test": True}})
    assert [notice.title for notice in tested] == ["Threshold"]


def volume(depth: int = 30, side: int = 12) -> Exhibit:
    """Brighter from slice to slice, with a lesion in slice 5 of 30, where the map is."""
    image = np.broadcast_to(np.linspace(-1, 1, depth)[None, None, :, None], (1, side, depth, side))
    anomaly_map, mask = np.zeros((side, depth, side), np.float32), np.zeros((side, depth, side), bool)
    anomaly_map[2:6, 4, 2:6], mask[2:6, 4, 2:6] = 3, True
    return Exhibit(views(image, anomaly_map, mask, axis=1), 0.9, slices(image, anomaly_map, mask, axis=1))


def test_slices_to_scroll_are_those_of_the_volume_as_small_as_they_must_be() -> None:
    assert slices(np.zeros((1, 4, 4)), np.zeros((4, 4), np.float32), None) is None
    found = volume().slices
    assert found is not None
    assert found.number.tolist() == list(range(1, 31))
    assert found.image[:, 0, 0].tolist() == np.linspace(0, 255, 30).round().astype(int).tolist()
    assert found.mask is not None
    assert found.mask.any((1, 2)).nonzero()[0].tolist() == found.anomaly_map.any((1, 2)).nonzero()[0].tolist() == [4]
    large = slices(np.zeros((3, 200, 2 * SMALL, SMALL)), np.zeros((200, 2 * SMALL, SMALL), np.float32), None)
    assert large is not None
    assert large.image.shape == (MOST_SLICES, SMALL, SMALL // 2, 3)
    assert (large.number[0], large.number[-1]) == (1, 200)


def test_volumes_can_be_scrolled_the_highest_scores_first_also_by_a_process_that_goes_on(tmp_path: Path) -> None:
    for some in (range(3), range(3, VOLUMES + 2)):
        exhibits = Exhibits(tmp_path)
        for number in some:
            exhibits.add(number, float(number), volume())
    kept = list(exhibits)
    assert [exhibit.slices is not None for _, exhibit in kept] == [True] * VOLUMES + [False] * 2
    assert [exhibits.leads(99, score) for score in (0.0, 1.5, 2.5)] == [False, False, True]
    first = kept[0][1]
    assert first.slices is not None
    assert (first.slices.image == volume().slices.image).all()
    page = render(Scoring("a run", {}, {}, 0), [finding(i) for i in range(VOLUMES + 2)], kept)
    assert page.count("<template>") == VOLUMES
    stacks = page.split("<template>")[1].split("</template>")[0]
    shown = [int(number) for number in re.findall(r'data-slice="(\d+)"', stacks)]
    assert shown == [number for number in range(1, 31) if number != 5]  # which is shown large
    assert page.count("Scroll 30 slices") == VOLUMES


def test_the_table_comes_first_with_small_pictures_that_lead_to_the_large_ones() -> None:
    findings = [finding(number) for number in range(CASES_WITH_PICTURES + 3)]
    shown = [(number, Exhibit(picture())) for number in range(CASES_WITH_PICTURES + 2, 2, -1)]
    page = render(
        Scoring("a run", {}, {"threshold": {"value": 3.0}}, 4, normal_scores=[0.5, 1, 2, 40]), findings, shown
    )
    places = [page.index(f'<section id="{name}">') for name in ("scores", "cases", "run")]
    assert places == sorted(places)
    table = page[places[0] : places[1]]
    links = re.findall(r'href="#(case-\d+)"', table)
    assert links == [f"case-{place}" for place in range(CASES_WITH_PICTURES)]
    headings = dict(re.findall(r'<h3 class="kind" id="(case-\d+)">(.*?) <small>', page))
    named = re.findall(r'<tr><th>(case \d+)</th><td class="words" data-value="\d+">', table)
    assert [headings[link] for link in links] == named
    assert table.count('class="scorebar"') == len(findings)
    assert "higher than 3 of 4 normals of the run" in table
    without = render(Scoring("a run", {}, {}, 0), findings)
    assert 'class="scorebar"' not in without
    assert "Picture</th>" not in without


def test_a_run_with_cross_fitted_normals_says_so() -> None:
    threshold = {"value": 3.0, "num_normals": 4, "num_cross_fitted": 3}
    page = render(Scoring("a run", {}, {"threshold": threshold}, 4, normal_scores=[1.0] * 4), [finding(1)])
    assert page.lower().count("validation and cross-fitted normals") == 3
