"""The audit finds what was planted into files, names it in plain words, and finds nothing where there is nothing."""

import io
from pathlib import Path

import numpy as np
import pytest
from data_sections import sections
from PIL import Image

from anomaly_lab.data.datasets.folder import Folder
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.pipeline import shortcuts
from anomaly_lab.pipeline.inspect import splits_of_rows
from anomaly_lab.pipeline.shortcuts import audit_of_data, audit_of_run
from anomaly_lab.reports.shortcuts import banners

EACH = 25


def tissue(random):
    """A smooth picture with noise, 48×48."""
    small = random.uniform(60, 160, (6, 6))
    smooth = np.asarray(Image.fromarray(small.astype(np.float32)).resize((48, 48), Image.Resampling.BICUBIC))
    return np.clip(smooth + random.normal(0, 6, (48, 48)), 0, 255).astype(np.uint8)


def with_letter(pixels):
    """An "R" in the top left corner, as markers of the side are."""
    letter = ["1110", "1001", "1110", "1010", "1001"]
    mask = np.kron(np.array([[int(bit) for bit in row] for row in letter], np.uint8), np.ones((2, 2), np.uint8))
    pixels[2:12, 2:10] = np.maximum(pixels[2:12, 2:10], 255 * mask)
    return pixels


def as_jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


def folder(tmp_path: Path, plant=lambda pixels: pixels, **changes) -> Folder:
    for kind in ("normal", "odd"):
        (tmp_path / "files" / kind).mkdir(parents=True)
        for i in range(EACH):
            pixels = tissue(np.random.default_rng([i, len(kind)]))
            picture = Image.fromarray(plant(pixels) if kind == "odd" else pixels)
            picture.save(tmp_path / "files" / kind / f"{i}.png")
    arguments = {"root": str(tmp_path / "files"), "patch_size": (48, 48), "batch_size": 4, "train_normals": 0.5}
    data = Folder(**sections(**(arguments | {"store_dir": str(tmp_path / "store")} | changes)))
    data.setup()
    return data


def audited(data):
    return audit_of_data(data, splits_of_rows(data))


def visible(found):
    return [rule for rule in found["rules"] if rule["kind"] != "names"]


def test_a_letter_in_a_corner_is_named(tmp_path):
    found = audited(folder(tmp_path, with_letter))
    strongest = visible(found)[0]
    assert strongest["told"] > 0.9
    (notice,) = banners(found)
    assert "top left corner" in notice.text or "corners" in notice.text
    assert "top left corner" in [rule["title"] for rule in found["rules"] if rule["alarm"]]


def test_one_class_that_was_a_jpeg_is_named(tmp_path):
    found = audited(folder(tmp_path, as_jpeg))
    alarms = {rule["title"] for rule in found["rules"] if rule["alarm"]}
    assert {"JPEG blocks, as read", "bytes", "compressed size"} <= alarms
    assert {"header: format", "header: bits", "width", "height"} <= {*found["constant"]}
    assert "bytes" in banners(found)[0].text or "JPEG" in banners(found)[0].text


def test_sizes_that_differ_are_named_after_the_resizing(tmp_path):
    found = audited(folder(tmp_path, lambda pixels: np.pad(pixels, 3, mode="edge")))
    by_title = {rule["title"]: rule for rule in found["rules"]}
    assert by_title["width"]["auroc"]["value"] == 1
    assert "of the file (AUROC 1.00, higher in anomalous images)" in banners(found)[0].text
    assert "ruler" in banners(found)[0].text


def test_nothing_is_found_where_nothing_is(tmp_path):
    found = audited(folder(tmp_path))
    assert [rule["title"] for rule in visible(found) if rule["alarm"]] == []
    assert banners(found) == []
    assert len(found["rules"]) > 25


def test_without_a_store_the_files_are_asked(tmp_path):
    data = folder(tmp_path, lambda pixels: np.pad(pixels, 3, mode="edge"), store=False)
    told = {rule["title"]: rule["told"] for rule in audited(data)["rules"]}
    assert told["width"] == told["number of pixels"] == 1
    assert told["bytes"] > 0.9


def test_an_older_store_has_no_facts_of_files_and_is_completed(tmp_path, monkeypatch):
    data = folder(tmp_path, as_jpeg)
    facts = [{k: v for k, v in fact.items() if k not in ("header", "blocks")} for fact in data.store.scans()]
    monkeypatch.setattr(type(data.store), "scans", lambda self: iter(facts))
    found = audited(data)
    assert "bytes" in [rule["title"] for rule in found["rules"] if rule["alarm"]]
    assert "JPEG blocks, as read" not in [rule["title"] for rule in found["rules"]]


def scores_of(data, by_case=False):
    rows = np.concatenate(list(data.scored.values()))
    columns, label = data.store.index.columns, data.store.labels[rows]
    means = np.array([data.store.images[row].mean() for row in rows])
    split = ["test" if row in set(data.rows["test"].tolist()) else "val" for row in rows.tolist()]
    ids, patients = ([columns[name][row] for row in rows.tolist()] for name in ("id", "patient"))
    scores = Scores(ids, patients, split, label, means)
    if by_case:
        scores, _ = scores.by_case(np.array(columns["case"])[rows], "mean", 1)
    return scores, rows


@pytest.mark.parametrize("by_case", [False, True])
def test_a_run_is_audited_on_its_test_split_alone_by_patches_or_cases(tmp_path, by_case):
    data = folder(tmp_path, lambda pixels: pixels // 2 + 90, patch_size=(24, 24), cut={"label": "case", "overlap": 0.0})
    scores, rows = scores_of(data, by_case)
    found = audit_of_run(data, scores, rows, by_case)
    test = scores.of("test")
    assert found["cases"] == {
        "normal": int((scores.label[test] == 0).sum()),
        "anomalous": int(scores.label[test].sum()),
    }
    assert found["unit"] == ("case" if by_case else "patch")
    rules = {rule["title"]: rule for rule in found["rules"]}
    assert rules["mean grey"]["follows"] == pytest.approx(1)  # the score is the mean
    assert found["score"] == pytest.approx(rules["mean grey"]["auroc"]["value"])
    assert {"name", "title", "auroc", "pairs"} == found["strata"][0].keys()


def test_of_many_cases_some_are_drawn_and_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(shortcuts, "MOST_CASES", 20)
    found = audited(folder(tmp_path, as_jpeg))
    assert found["cases"] == {"normal": 20, "anomalous": 20}
    assert found["of"] == {"normal": EACH, "anomalous": EACH}


def test_one_class_cannot_be_audited(tmp_path):
    data = folder(tmp_path)
    scores, rows = scores_of(data)
    some = rows[: 5 + sum(scores.of("val"))]
    assert audit_of_run(data, scores, some, by_case=False) is None
