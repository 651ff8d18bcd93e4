"""The data sheet shows all it is given, warns of what must be known, and escapes what strangers wrote."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Opener, everywhere, overflows, until
from pages import own, scripts_of

from anomaly_lab.reports.datasheet import Count, Exhibit, Sheet, banners, clipping, intensities, write_datasheet
from anomaly_lab.reports.scan_summary import ScanSummary
from anomaly_lab.types import UserError

from .conftest import HOSTILE

VAL, TEST = Count("val", "normal", 7, 6, 5), Count("test", "burn", 4, 3, 2)


def facts(**changes: Any) -> dict[str, Any]:
    pair = {"ids": [HOSTILE, "b"], "splits": ["train", "test"]}
    audit = {"shared_patients": [], "identical": [], "near_identical": [pair | {"distance": 0.0123}], "crossing": 0}
    return {
        "name": "toy",
        "source": "real",
        "census": {"images": 40, "normal": 30, HOSTILE: 10},
        "official": {},
        "split_rule": HOSTILE,
        "unsplit": "",
        "limits": {"train": 12.0},
        "skipped": [],
        "left_out": {},
        "remarks": [],
        "audit": audit | {"checked": 39, "compared": 38},
    } | changes


def summary(sizes: int = 2, **changes: Any) -> ScanSummary:
    scans = ScanSummary()
    for i in range(sizes):
        histogram = [1000, *[10] * 63]
        fact = {"case": f"{HOSTILE}{i}", "size": [20 + i, 30], "spacing": None, "range": [0, 255], "clipped": 0.0}
        fact |= {"histogram": histogram, "stored_histogram": histogram, "lesion": None, "windows": 0}
        scans.add(fact | changes, "anomalous" if i % 2 else "normal")
    return scans


def sheet(**changes: Any) -> Sheet:
    counts = [Count("train", "normal", 1234, 31, 21), VAL, TEST, Count("", HOSTILE, 9, 8, 8)]
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:4] = True
    image = np.zeros((1, 4, 6), np.float32)
    given: dict[str, Any] = {
        "facts": facts(),
        "counts": counts,
        "left_out": {HOSTILE: 9},
        "scans": summary(),
        "galleries": {HOSTILE: [Exhibit("id", HOSTILE, "test", "3,4", image, mask)]},
        "store": {"Store": "toy-1"},
        "settings": {"Patches": {"patch_size": [4, 6]}, "Options of the data set": {"word": HOSTILE}},
    }
    return Sheet("toy_toy", "2030-01-01T00:00:00+00:00", unit="patch", **(given | changes))


def page(tmp_path: Path, given: Sheet) -> str:
    return write_datasheet(tmp_path / "datasheet.html", given).read_text(encoding="utf-8")


def test_one_file_that_asks_nobody(tmp_path: Path):
    text = page(tmp_path, sheet())
    assert not re.findall(r"https?://|url\(|@import", text)
    assert scripts_of(text) == own()
    assert all(value.startswith("data:image/png;base64,") for value in re.findall(r'src="([^"]*)"', text))
    assert all(value.startswith(("data:", "#")) for value in re.findall(r'href="([^"]*)"', text))
    anchors = set(re.findall(r'href="#([^"]*)"', text))
    assert anchors <= set(re.findall(r'<section id="([^"]*)"', text))


def test_hostile_text_is_shown_as_text(tmp_path: Path):
    skipped = [{"file": HOSTILE, "reason": HOSTILE}]
    text = page(tmp_path, sheet(facts=facts(skipped=skipped), scans=summary(clipped=0.2)))
    assert HOSTILE not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 10


def test_counts_pictures_and_settings_are_shown(tmp_path: Path):
    text = page(tmp_path, sheet(unread=17))
    assert "17 more scans were not read" in text
    assert "2 scans contribute no window" in text
    assert "Files of other kinds, which were not looked at: 3 .gif." in page(
        tmp_path, sheet(facts=facts(left_out={".gif": 3}))
    )
    for words in ("1\u202f234", "at 3, 4", "train 12", "4, 6", "toy-1", "0.0123", "No file was left out", "20 × 30"):
        assert words in text
    assert 'viewBox="0 0 6 4"' in text
    assert text.count('class="lesion"') == 1


def test_many_sizes_are_summed_up(tmp_path: Path):
    text = page(tmp_path, sheet(scans=summary(sizes=30)))
    assert "30 different values" in text
    assert "<th>height</th><td>20</td><td>34.5</td><td>49</td>" in text


def test_long_lists_are_cut_and_counted(tmp_path: Path):
    skipped = [{"file": f"file-{i}", "reason": "torn"} for i in range(1500)]
    text = page(tmp_path, sheet(facts=facts(skipped=skipped)))
    assert "file-99<" in text
    assert "file-100<" not in text
    assert "100 of 1\u202f500 are shown" in text


def test_a_sheet_of_what_is_not_stored_has_no_histograms(tmp_path: Path):
    text = page(tmp_path, sheet(scans=None, galleries={}))
    assert text.count("No image has been read yet") == 2
    assert "None." in text


AUDIT = facts()["audit"]


@pytest.mark.parametrize(
    ("changes", "title", "words"),
    [
        ({"facts": facts(source="twin")}, "Synthetic twin", "generated"),
        ({"facts": facts(official={"images": 1000})}, "Part of the official data set", "40 of the 1\u202f000"),
        ({"facts": facts(remarks=["1 empty mask"])}, "Read with care", "1 empty mask"),
        ({"facts": facts(skipped=[{"file": "a", "reason": "b"}])}, "Unreadable files", "1 file was"),
        ({"facts": facts(audit=AUDIT | {"crossing": 3})}, "Images in several splits", "3 pairs"),
        ({"facts": facts(audit=AUDIT | {"shared_patients": ["p"]})}, "Patients in several splits", "1 patient is in"),
        ({"facts": facts(unsplit="too few patients")}, "Training is not possible yet", "too few patients"),
        ({"hidden": (2, 40)}, "Contaminated training", "2 of 40 training patches"),
        ({"unmasked": 5}, "Lesions unknown", "5 anomalous scans"),
        ({"counts": [TEST]}, "No validation normals", "threshold"),
        ({"counts": [VAL]}, "No anomalies in the test split", "no anomalous image"),
    ],
)
def test_what_must_be_known_stands_above(changes: dict[str, Any], title: str, words: str):
    (banner,) = banners(replace(sheet(), **changes))
    assert banner.title == title
    assert words in banner.text


def test_a_shortcut_stands_above_and_has_a_section(tmp_path: Path):
    rule = {"name": "files.width", "title": "width", "kind": "files", "p": 0.01, "chance": 0.1, "alarm": True}
    rule |= {"auroc": {"value": 0.83, "low": 0.7, "high": 0.9}, "told": 0.83}
    counts = {"normal": 25, "anomalous": 100}
    found = {"cases": counts, "of": counts, "patients": 99, "unit": "image", "rules": [rule], "constant": ["bits"]}
    (banner,) = banners(sheet(shortcuts=found))
    assert banner.text.startswith("This set can be told apart by the width of the file (AUROC .83")
    text = page(tmp_path, sheet(shortcuts=found))
    assert "The same in all: bits" in text
    assert "This detector" not in text
    assert "Not looked for" in page(tmp_path, sheet())
    assert "No rule of one number that a detector could see" in page(
        tmp_path, sheet(shortcuts=found | {"rules": [rule | {"alarm": False}]})
    )


def test_nothing_to_warn_of():
    assert banners(sheet()) == []
    assert banners(sheet(facts=facts(official={"images": 40}))) == []


def test_a_towering_bin_is_cut_off_and_named():
    read, stored = intensities(summary())
    assert "0 to 3.98 holds 61\u00a0% of normal, 61\u00a0% of anomalous" in read.note
    assert "0 to 0.01562 holds 61\u00a0%" in stored.note
    for panel in (read, stored):
        points = [p.split(",") for e in ET.fromstring(panel.svg).iter("polyline") for p in e.get("points", "").split()]
        assert min(float(y) for _, y in points) >= 24  # none leaves the frame


def test_a_single_class_is_named():
    assert "normal (1 scan)" in intensities(summary(sizes=1))[0].note


def test_what_is_clipped_is_said():
    assert clipping(summary()) == "No value was clipped."
    assert "20\u00a0% of a scan’s foreground on average" in clipping(summary(clipped=0.2))


def test_a_place_that_cannot_be_written_is_a_users_error(tmp_path: Path):
    with pytest.raises(UserError, match="cannot write"):
        write_datasheet(tmp_path / "nowhere" / "datasheet.html", sheet())


@everywhere
def test_pictures_are_enlarged_with_their_outline_and_tables_sorted(
    open_page: Opener, tmp_path: Path, width: int, scheme: str
) -> None:
    skipped = [
        {"file": f"{name}.png", "reason": reason} for name, reason in (("10", "torn"), ("9", "empty"), ("11", "a"))
    ]
    path = write_datasheet(tmp_path / "datasheet.html", sheet(facts=facts(skipped=skipped)))
    opened = open_page(path, width, scheme)
    files = opened.locator("#skipped tbody th")
    opened.locator("#skipped").get_by_role("button", name="File").click()
    assert files.all_inner_texts() == ["9.png", "10.png", "11.png"]
    opened.locator("#skipped").get_by_role("button", name="Reason").press("Enter")
    assert files.all_inner_texts() == ["11.png", "9.png", "10.png"]
    dialog, picture = opened.locator("dialog"), opened.locator("#pictures .picture").first
    picture.focus()
    opened.keyboard.press("Enter")
    until(opened, "document.querySelector('dialog .view img').getBoundingClientRect().width > 60")
    assert dialog.locator("svg path").count() == 2
    dialog.get_by_label("outline").uncheck()
    assert dialog.locator("svg path").count() == 0
    assert not dialog.get_by_label("over the original").is_visible()  # there is nothing over it
    assert not dialog.get_by_label("slice").is_visible()
    opened.keyboard.press("Escape")
    assert dialog.is_hidden()
    assert not overflows(opened)
