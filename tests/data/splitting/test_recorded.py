"""A recorded split finds what was added, removed and altered, and keeps every picture where it was."""

import shutil

import numpy as np
import pytest
from PIL import Image

from anomaly_lab.data.splitting.recorded import Changes, RecordedSplit
from anomaly_lab.types import UserError


@pytest.fixture
def recorded(make, tmp_path):
    """The split of the tiny Head-CT folder, written and read again."""
    data = make()
    data.setup()
    path = tmp_path / "split.csv"
    path.write_text(data.record().to_csv())
    return RecordedSplit.read(path), data


def _ids(data, split):
    return [data.store.index.columns["id"][row] for row in data.rows[split]]


def _picture(root, number, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 18), np.uint8)
    Image.fromarray(pixels).save(root / "head_ct" / "head_ct" / f"{number:03d}.png")


def _add(root, number, label):
    _picture(root, number, 100 + number)
    with (root / "labels.csv").open("a") as table:
        table.write(f"{number},{label}\n")


def _pinned(make, recorded, accept=False, **changes):
    data = make(**changes)
    data.pin(recorded[0], accept)
    data.setup()
    return data


@pytest.mark.parametrize("store", [True, False])
def test_the_same_files_elsewhere_are_the_same(make, headct, tmp_path, store):
    data = make(store=store)
    data.setup()
    shutil.copytree(headct, tmp_path / "moved")
    moved = _pinned(make, (data.record(),), root=str(tmp_path / "moved"), store=store, seed=5)
    assert not moved.changes
    assert all(_ids(moved, split) == _ids(data, split) for split in ("train", "val", "test"))


def test_pictures_that_were_added_are_refused_or_left_out(make, headct, recorded):
    for number in range(13, 20):
        _add(headct, number, 0)
    with pytest.raises(UserError, match=r"7 added \(013.*--data-root DIR.*--accept-changed-data"):
        _pinned(make, recorded)
    data = _pinned(make, recorded, accept=True)
    assert len(data.changes.added) == 7
    assert all(_ids(data, split) == _ids(recorded[1], split) for split in ("train", "val", "test"))


def test_a_picture_that_is_gone_is_refused_or_missing_from_its_split(make, headct, recorded):
    gone = _ids(recorded[1], "train")[0]
    labels = (headct / "labels.csv").read_text().splitlines()
    number = gone.removesuffix(".png").lstrip("0").rsplit("/")[-1] or "0"
    (headct / "labels.csv").write_text("\n".join(line for line in labels if line.split(",")[0] != number) + "\n")
    next(headct.rglob(f"*{int(number):03d}.png")).unlink()
    with pytest.raises(UserError, match=rf"1 removed \({gone}\)"):
        _pinned(make, recorded)
    data = _pinned(make, recorded, accept=True)
    assert _ids(data, "train") == _ids(recorded[1], "train")[1:]
    assert _ids(data, "test") == _ids(recorded[1], "test")


def test_a_picture_that_was_drawn_over_is_altered(make, headct, recorded):
    _picture(headct, 7, seed=99)
    with pytest.raises(UserError, match="1 altered"):
        _pinned(make, recorded)


def test_a_label_that_was_turned_is_altered(make, headct, recorded):
    labels = (headct / "labels.csv").read_text()
    (headct / "labels.csv").write_text(labels.replace("\n9,0", "\n9,1"))
    with pytest.raises(UserError, match="1 altered"):
        _pinned(make, recorded)


def test_a_mask_that_was_drawn_over_is_altered(tmp_path):
    from data_sections import sections

    from anomaly_lab.data.datasets.folder import Folder

    def make():
        return Folder(
            **sections(root="none", source="twin", patch_size=(16, 16), store_dir=str(tmp_path), twin_size=20)
        )

    data = make()
    data.setup()
    before = data.record()
    masks = sorted((data.folder / "masks").rglob("*.png"))
    Image.open(masks[0]).transpose(Image.Transpose.FLIP_TOP_BOTTOM).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
        masks[0]
    )
    other = make()
    other.pin(before)
    with pytest.raises(UserError, match="1 altered"):
        other.setup()


def test_limited_sets_know_the_pictures_that_were_not_taken(make, headct):
    data = make(limits={"test_normal": 1, "test_anomalous": 1})
    data.setup()
    again = make(limits={"test_normal": 1, "test_anomalous": 1}, seed=3)
    again.pin(data.record())
    again.setup()
    assert not again.changes
    assert _ids(again, "test") == _ids(data, "test")


def test_without_a_store_other_pictures_of_equal_sizes_are_altered_but_for_runs_of_older_versions(make, headct):
    begun = make(store=False)
    begun.setup()
    entries = begun.record().entries
    former = dict(zip(entries, begun.store.former_digests(), strict=True))
    older = {id: entry._replace(digest=former[id]) for id, entry in entries.items()}
    picture = headct / "head_ct" / "head_ct" / "003.png"
    picture.write_bytes(picture.read_bytes()[::-1])
    data = make(store=False)
    data.pin(RecordedSplit(older))
    data.setup()
    data = make(store=False)
    data.pin(RecordedSplit(entries))
    with pytest.raises(UserError, match=r"1 altered \(003\)"):
        data.setup()


def test_nothing_left_of_a_run_is_said(make, recorded, headct):
    shutil.rmtree(headct)
    (headct / "head_ct" / "head_ct").mkdir(parents=True)
    (headct / "labels.csv").write_text("id, hemorrhage\n")
    for number in range(50, 60):
        _add(headct, number, number % 2)
    with pytest.raises(UserError, match="none of the 13 pictures"):
        _pinned(make, recorded, accept=True)


@pytest.mark.parametrize("rows", ["a,b", "a,a,tst,0f", "a,a,train,0f\na,a,test,0f", "a,a,train,0f,x"])
def test_a_damaged_record_is_one_line(tmp_path, rows):
    (tmp_path / "split.csv").write_text(f"id,case,split,digest\n{rows}\n")
    with pytest.raises(UserError, match="damaged"):
        RecordedSplit.read(tmp_path / "split.csv")
    assert RecordedSplit.read(tmp_path / "none.csv") is None


def test_changes_name_the_first_of_each_kind():
    assert str(Changes(("b",), (), ("c", "d"))) == "1 added (b), 2 altered (c, …)"
