"""A run folder is read as it is: order, types, torn files."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from anomaly_lab.reports import gallery, record
from anomaly_lab.reports.record import read_run
from anomaly_lab.types import UserError


def test_samples_are_at_most_six_with_the_first_and_the_last(fake_run: Path) -> None:
    samples = read_run(fake_run).samples
    assert [iteration for iteration, _ in samples] == [200, 600, 1000, 1200, 1600, 2000]


def test_the_pools_picture_says_when_its_rows_were_drawn(fake_run: Path) -> None:
    assert read_run(fake_run).pool is None
    path, notes = fake_run / "samples" / "fakepool.png", PngInfo()
    notes.add_text("iterations", "1,4,7")
    Image.new("L", (4, 6)).save(path, pnginfo=notes)
    found = read_run(fake_run).pool
    assert found is not None
    assert found[0] == [1, 4, 7]
    assert found[1].startswith("data:image/png")
    path.write_bytes(path.read_bytes()[:40])
    assert read_run(fake_run).pool is None


def test_pictures_of_callbacks_are_found_by_folder(fake_run: Path) -> None:
    assert read_run(fake_run).pictures == {}
    for name in ("copies/00000020.png", "copies/00000010.png", "copies/notes.png", "empty/notes.png"):
        path = fake_run / "samples" / name
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (4, 6)).save(path)
    found = read_run(fake_run)
    assert {name: [iteration for iteration, _ in grids] for name, grids in found.pictures.items()} == {
        "copies": [10, 20]
    }
    assert len(found.samples) == 6


def test_a_torn_sample_is_left_out(fake_run: Path) -> None:
    file = fake_run / "samples" / "00002000.png"
    file.write_bytes(file.read_bytes()[:300])
    assert [iteration for iteration, _ in read_run(fake_run).samples][-1] == 1600


def test_the_most_extreme_scores_come_first(fake_run: Path) -> None:
    gallery = read_run(fake_run).gallery
    assert set(gallery) == {"tp", "fp", "tn", "fn"}
    highest, lowest = ([case["score"] for case in gallery[kind]] for kind in ("fp", "fn"))
    assert highest == sorted(highest, reverse=True)
    assert lowest == sorted(lowest)


def test_scores_are_numbers_and_empty_fields_none(fake_run: Path) -> None:
    held_out = read_run(fake_run).scores[0]
    assert (held_out["split"], held_out["label"], held_out["p_value"], held_out["pred_label"]) == (
        "val",
        0,
        None,
        None,
    )
    assert isinstance(held_out["pca_32"], float)


def test_a_broken_score_is_named_by_its_line(fake_run: Path) -> None:
    file = fake_run / "scores.csv"
    file.write_text(file.read_text() + "x,p,test,1,not-a-number,,,,\n")
    with pytest.raises(UserError, match=r"scores\.csv, line 127"):
        read_run(fake_run)


def test_a_torn_gallery_is_named(fake_run: Path) -> None:
    file = fake_run / "samples" / "gallery.npz"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"gallery\.npz cannot be read"):
        read_run(fake_run)


def big(file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("image.npy", "w") as member:
        for _ in range(300):
            member.write(bytes(2**20))


def other_sizes(file: Path) -> None:
    np.savez(file, id=np.array(["a"]), kind=np.array(["tp"]), image=np.zeros((2, 1, 4, 4)))


def claims_much(file: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 1, 4, 4)})
    other_sizes(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("image.npy", header.getvalue())


@pytest.mark.parametrize("plant", [big, other_sizes, claims_much, lambda file: file.write_bytes(b"PK" * 100)])
def test_a_hostile_gallery_is_one_line_and_takes_no_memory(fake_run: Path, monkeypatch, plant) -> None:
    monkeypatch.setattr(gallery, "MAX_BYTES", 2**28)
    plant(fake_run / "samples" / "gallery.npz")
    with pytest.raises(UserError, match=r"gallery\.npz cannot be read") as refused:
        read_run(fake_run)
    assert "\n" not in str(refused.value)


def keep_missed(run: Path, ids: list[str], side: int = 8) -> None:
    pictures = np.random.default_rng(0).uniform(-1, 1, (len(ids), 1, side, side)).astype(np.float16)
    np.savez(run / "samples" / "missed.npz", id=np.array(ids), kind=np.array(["fn"] * len(ids)), image=pictures,
             anomaly_map=np.abs(pictures))  # fmt: skip


def test_missed_cases_are_those_of_the_present_threshold(fake_run: Path) -> None:
    rows = [row for row in read_run(fake_run).scores if row["split"] == "test" and row["label"] == 1]
    missed = sorted((row for row in rows if not row["pred_label"]), key=lambda row: row["score"])
    found = next(row["id"] for row in rows if row["pred_label"])
    keep_missed(fake_run, [found, "unknown", *(row["id"] for row in reversed(missed[1:]))])
    shown = read_run(fake_run).missed
    assert [case["id"] for case in shown] == [row["id"] for row in missed[1:]]
    assert {"image", "overlay", "score"} <= set(shown[0])


def test_many_missed_cases_have_smaller_pictures_so_that_the_page_has_room(fake_run: Path, monkeypatch) -> None:
    missed = [row["id"] for row in read_run(fake_run).scores if (row["label"], row["pred_label"]) == (1, 0)]
    keep_missed(fake_run, missed, side=256)
    sizes = [2 * 10**9]
    for share in (1, 0.6, 0):
        monkeypatch.setattr(record, "MISSED_BYTES", share * sizes[-1])
        sizes.append(sum(len(case["image"]) + len(case["overlay"]) for case in read_run(fake_run).missed))
    assert sizes[1] > sizes[2] > sizes[3] > 0


def test_torn_pictures_of_missed_cases_are_named(fake_run: Path) -> None:
    (fake_run / "samples" / "missed.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"missed\.npz cannot be read"):
        read_run(fake_run)


def test_defused_ids_are_those_of_the_gallery(fake_run: Path) -> None:
    scores = fake_run / "scores.csv"
    rows = [line.split(",", 1) for line in scores.read_text().splitlines()]
    scores.write_text("\n".join([",".join(rows[0]), *(f"'={id},{rest}" for id, rest in rows[1:])]))
    assert all(row["id"].startswith("=") for row in read_run(fake_run).scores)
