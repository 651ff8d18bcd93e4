"""What the data sheet says of a small Head-CT folder, of patches cut from pictures, and of what is not stored."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from data.conftest import write_headct
from data_sections import sections
from PIL import Image
from typer.testing import CliRunner

from anomaly_lab.__main__ import app
from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.datasets.folder import Folder
from anomaly_lab.data.datasets.headct import HeadCT
from anomaly_lab.experiment import config
from anomaly_lab.pipeline import engine, inspect
from anomaly_lab.reports.datasheet import Sheet
from anomaly_lab.types import UserError


def headct(tmp_path: Path, **changes) -> HeadCT:
    root = tmp_path / "headct"
    if not root.exists():
        write_headct(root)
    arguments = {"root": str(root), "patch_size": (8, 8), "batch_size": 4, "train_normals": 8, "val_fraction": 0.2}
    arguments |= {"protocol": "random"}
    return HeadCT(**sections(**(arguments | {"store_dir": str(tmp_path / "store")} | changes)))


def patches(tmp_path: Path, **changes) -> Folder:
    """Windows of 8×8 in pictures of 16×16; those of the kind `burn` have a lesion in the top left window."""
    root = tmp_path / "folder"
    lesion = np.zeros((16, 16), np.uint8)
    lesion[1:7, 1:7] = 255
    for kind, count in (("normal", 8), ("burn", 4)):
        (root / kind).mkdir(parents=True)
        (root / "masks" / kind).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng([i, len(kind)]).integers(0, 200, (16, 16), np.uint8)
            Image.fromarray(pixels | lesion * (kind == "burn")).save(root / kind / f"{i}.png")
            if kind == "burn":
                Image.fromarray(lesion).save(root / "masks" / kind / f"{i}.png")
    arguments = {"root": str(root), "patch_size": (8, 8), "batch_size": 2, "store_dir": str(tmp_path / "store")}
    return Folder(**sections(**(arguments | {"cut": {"label": "mask"}, "train_normals": 0.5} | changes)))


def collected(data: PatchDataModule) -> Sheet:
    data.setup()
    return inspect.collect("toy", data, data.facts(), inspect.splits_of_rows(data))


def test_counts_are_those_of_the_splits(tmp_path: Path):
    sheet = collected(headct(tmp_path))
    counts = {(count.split, count.kind): count[2:] for count in sheet.counts}
    assert counts == {
        ("train", "normal"): (6, 6, 6),
        ("val", "normal"): (2, 2, 2),
        ("test", "normal"): (2, 2, 2),
        ("test", "anomalous"): (3, 3, 3),
    }
    assert (sheet.unit, sheet.left_out, sheet.unmasked) == ("image", {}, 3)
    assert sum(sheet.scans.sizes.values()) == 13
    assert {kind: mixture.count for kind, mixture in sheet.scans.read.items()} == {"anomalous": 3, "normal": 10}


def test_patches_are_counted_and_those_left_out_have_a_reason(tmp_path: Path):
    data = patches(tmp_path, limits={"test_normal": 3})
    sheet = collected(data)
    rows = {split: len(members) for split, members in data.rows.items()}
    for split, count in rows.items():
        assert sum(c.rows for c in sheet.counts if c.split == split) == count
    left = len(data.store.index) - sum(rows.values())
    assert sum(c.rows for c in sheet.counts if c.split == "") == sum(sheet.left_out.values()) == left > 0
    assert "beyond data.limits" in sheet.left_out
    assert sheet.unit == "patch"
    assert sheet.settings["Patches"]["label"] == "mask"


def test_rows_in_no_split_are_in_the_manifest_too(tmp_path: Path):
    data = patches(tmp_path, limits={"test_normal": 3})
    data.setup()
    inspect.inspect(tmp_path / "sheet", "toy", data, data.facts())
    with (tmp_path / "sheet" / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kept = {data.store.index[row]["id"] for members in data.rows.values() for row in members}
    assert {row["id"] for row in rows if row["split"]} == kept
    assert len(rows) == len(data.store.index) > len(kept)
    assert {row["location"] for row in rows} == {"0,0", "0,8", "8,0", "8,8"}


def test_pictures_beyond_the_limits_are_counted_though_nobody_reads_them(tmp_path: Path):
    sheet = collected(headct(tmp_path, limits={"train": 5}))
    assert (sheet.unread, sheet.left_out) == (1, {})


def test_random_windows_of_judged_scans_have_their_reason(tmp_path: Path):
    sheet = collected(patches(tmp_path, cut={"label": "mask", "random": 2}))
    assert "random window of a scan that is not trained on" in sheet.left_out
    assert "grid window of a scan whose random windows are trained on" in sheet.left_out
    assert sum(sheet.left_out.values()) == sum(count.rows for count in sheet.counts if count.split == "")


def test_pictures_have_their_lesions_and_the_seed_draws_them(tmp_path: Path):
    data = patches(tmp_path)
    galleries = collected(data).galleries
    assert list(galleries) == ["normal", "burn"]
    assert len(galleries["normal"]) == inspect.GALLERY_PATCHES
    assert all(exhibit.mask.sum() == 36 and exhibit.location == "0,0" for exhibit in galleries["burn"])
    assert not any(exhibit.mask.any() for exhibit in galleries["normal"])
    again = collected(data).galleries
    assert [exhibit.id for exhibit in again["normal"]] == [exhibit.id for exhibit in galleries["normal"]]


def test_of_a_volumes_patch_the_middle_slice_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = patches(tmp_path)
    data.setup()
    split = inspect.splits_of_rows(data)
    batch = data.store.batch

    def deep(rows: np.ndarray):
        flat = batch(rows)
        image, mask = (flat[name][:, :, None].repeat(1, 1, 5, 1, 1) * 0 for name in ("image", "mask"))
        image[:, :, 2], mask[:, :, 2] = flat["image"], flat["mask"]
        return {**flat, "image": image, "mask": mask.bool()}

    flat = inspect.collect("toy", data, data.facts(), split).galleries["burn"][0]
    monkeypatch.setattr(data.store, "batch", deep)
    shown = inspect.collect("toy", data, data.facts(), split).galleries["burn"][0]
    assert np.array_equal(shown.image, flat.image)
    assert np.array_equal(shown.mask, flat.mask)


def test_hidden_anomalies_are_counted(tmp_path: Path):
    write_headct(tmp_path / "headct", normal=12, anomalous=6)
    assert collected(headct(tmp_path, contamination=0.2)).hidden[0] > 0


def test_what_is_not_stored_is_shown_without_facts_of_scans(tmp_path: Path):
    data = headct(tmp_path, store=False)
    sheet = collected(data)
    assert sheet.scans is None
    assert len(sheet.galleries["normal"]) == 10
    assert "read on demand" in inspect.origin(data, 0.0)


def settings(tmp_path: Path, *overrides: str):
    places = [
        f"runs={tmp_path / 'runs'}",
        f"data.root={tmp_path / 'headct'}",
        f"data.store.folder={tmp_path / 'store'}",
    ]
    sizes = ["data.patch_size=[8,8]", "data.split.train_normals=8", "data.split.val_fraction=0.25", "data.batch_size=4"]
    sizes.append("data.protocol=random")
    return config.load_data("headct", ["budget=smoke", *places, *sizes, *overrides])


def test_the_manifest_names_every_row_and_its_split(tmp_path: Path):
    write_headct(tmp_path / "headct")
    page = engine.inspect(settings(tmp_path))
    assert page == tmp_path / "runs" / "headct" / "data" / "datasheet.html"
    with (page.parent / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == inspect.MANIFEST
    assert len(rows) == 13
    splits = [row["split"] for row in rows]
    assert {name: splits.count(name) for name in set(splits)} == {"train": 6, "val": 2, "test": 5}
    assert rows[0]["file"] == "head_ct/head_ct/000.png"
    assert sorted(path.name for path in page.parent.iterdir()) == ["datasheet.html", "manifest.csv"]


def test_two_folders_of_files_have_a_sheet_each(tmp_path: Path):
    pages = []
    for place in ("headct", "second/ward 3", "third/ward 3", "headct"):
        if not (tmp_path / place).exists():
            write_headct(tmp_path / place)
        given = settings(tmp_path)
        given.data.root = str(tmp_path / place)
        pages.append(engine.inspect(given))
    assert [page.parent.name for page in pages] == ["data", "data-ward 3", "data-ward 3-2", "data"]
    old = pages[0].read_text()
    pages[0].write_text(old[: old.rindex("<!-- of ")])  # of an older version, which kept one sheet
    assert engine.inspect(settings(tmp_path)) == pages[0]


def test_no_path_of_this_machine_is_on_the_page(tmp_path: Path):
    broken = write_headct(tmp_path / "headct") / "head_ct" / "head_ct" / "004.png"
    broken.write_bytes(broken.read_bytes()[:60])
    page = engine.inspect(settings(tmp_path, "data.store.on_bad=skip", "data.split.train_normals=7")).read_text()
    assert "004.png" in page
    assert "1 file was left out" in page
    assert str(tmp_path) not in re.sub(r'src="[^"]*"', "", page)


def test_the_console_says_what_is_built_and_what_is_reused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_headct(tmp_path / "headct")
    monkeyed = settings(tmp_path)
    engine.inspect(monkeyed)
    first = capsys.readouterr().err
    engine.inspect(monkeyed)
    second = capsys.readouterr().err
    assert re.search(r"store: built in \d+\.\d s, 13 rows, 0\.\d MB \(headct-", first)
    assert "store: reused, 13 rows" in second
    for words in ("real files: ", "0 files skipped", "leakage audit: 13 pictures", "data sheet: ", "manifest: "):
        assert words in second
    assert "SYNTHETIC" not in first


def test_a_twin_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    page = engine.inspect(settings(tmp_path, "data.twin.size=24", "data.source=twin")).read_text()
    assert capsys.readouterr().err.startswith("SYNTHETIC TWIN")
    assert "Synthetic twin" in page


def test_data_that_cannot_be_split_have_a_sheet_and_no_success(tmp_path: Path):
    write_headct(tmp_path / "headct")
    arguments = ["data", "headct", "budget=smoke", f"data.root={tmp_path / 'headct'}", "data.split.train_normals=10"]
    done = CliRunner().invoke(app, [*arguments, f"runs={tmp_path / 'runs'}", f"data.store.folder={tmp_path / 'store'}"])
    assert done.exit_code == 2
    sheet = tmp_path / "runs" / "headct" / "data" / "datasheet.html"
    assert f"it could not be split; {sheet} says why" in done.stderr
    assert "Training is not possible yet" in sheet.read_text()


def test_data_that_cannot_be_used_leave_no_sheet(tmp_path: Path):
    (write_headct(tmp_path / "headct") / "labels.csv").unlink()
    with pytest.raises(UserError, match=r"labels\.csv"):
        engine.inspect(settings(tmp_path))
    assert not (tmp_path / "runs").exists()


def test_runs_that_are_a_file_are_a_users_error(tmp_path: Path):
    write_headct(tmp_path / "headct")
    (tmp_path / "runs").touch()
    with pytest.raises(UserError, match="set runs=<folder>"):
        engine.inspect(settings(tmp_path))
