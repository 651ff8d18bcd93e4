"""The store: pixels and facts as they were, shared, rebuilt when something changed."""

import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from toy_plans import again

from anomaly_lab.data.preprocessing.transforms import Preprocessing
from anomaly_lab.data.store import store as store_module
from anomaly_lab.data.store.store import open_or_build
from anomaly_lab.types import UserError


def test_store_holds_the_pixels_and_the_facts(plan, tmp_path):
    store = open_or_build(plan, tmp_path / "store", "fail")
    assert store.images.shape == (4, 1, 12, 12)
    assert store.images.dtype == np.uint8
    original = np.asarray(Image.open(plan.cases[2].image))
    assert np.array_equal(store.images[2, 0], original)
    assert [row["file"] for row in store.index] == ["0.png", "1.png", "2.png", "3.png"]
    assert store.labels.tolist() == [0, 0, 0, 1]
    assert store.masks.sum((1, 2, 3)).tolist() == [0, 0, 0, 9]


def test_batch_is_rows_in_the_order_asked(plan, tmp_path):
    batch = open_or_build(plan, tmp_path / "store", "fail").batch(np.array([3, 0]))
    assert batch["row"].tolist() == [3, 0]
    assert batch["label"].tolist() == [1, 0]
    assert batch["mask"].dtype == torch.bool
    assert batch["image"].stride() == (144, 144, 12, 1)


def test_second_run_reuses_and_a_changed_file_or_step_rebuilds(plan, tmp_path, monkeypatch):
    first = open_or_build(plan, tmp_path / "store", "fail")
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "build", lambda *_: pytest.fail("built again"))
        assert open_or_build(again(plan), tmp_path / "store", "fail").fingerprint == first.fingerprint
    os.utime(plan.cases[0].image, ns=(1, 1))
    assert again(plan).key != plan.key
    assert again(plan, preprocessing=Preprocessing((8, 8)), patch_size=(8, 8)).key != again(plan).key
    assert open_or_build(again(plan), tmp_path / "store", "fail").fingerprint == first.fingerprint


def test_eight_at_once_build_once(plan, tmp_path, monkeypatch):
    builds, real = [], store_module.build
    monkeypatch.setattr(store_module, "build", lambda *a: (builds.append(1), real(*a)))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: open_or_build(plan, tmp_path / "store", "fail"), range(8)))
    assert len(builds) == 1


def test_worker_maps_the_file_again(plan, tmp_path):
    store = open_or_build(plan, tmp_path / "store", "fail")
    message = pickle.dumps(store)
    assert len(message) < 1000
    assert np.array_equal(pickle.loads(message).images, store.images)


def test_damaged_store_is_named(plan, tmp_path):
    folder = open_or_build(plan, tmp_path / "store", "fail").folder
    with (folder / "images.npy").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"the size of images\.npy has changed; delete this folder"):
        open_or_build(plan, tmp_path / "store", "fail")
    (folder / "images.npy").unlink()
    with pytest.raises(UserError, match="damaged"):
        open_or_build(plan, tmp_path / "store", "fail")


def _zero_a_row(folder) -> None:
    np.load(folder / "images.npy", mmap_mode="r+")[2] = 0


def _truncate(name: str):
    return lambda folder: os.truncate(folder / name, 100)


def _write(name: str, old: bytes, new: bytes):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes().replace(old, new, 1))


class _Payload:
    def __init__(self, canary) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


DAMAGES = {
    "a row of zeros": (_zero_a_row, "pixels of row 2, 2, have changed"),
    "another label": (_write("index.csv", b",0,", b",1,"), "content of index.csv has changed"),
    "a truncated array": (_truncate("images.npy"), "size of images.npy has changed"),
    "another mask": (lambda folder: np.load(folder / "masks.npy", mmap_mode="r+").fill(False), "content of masks.npy"),
    "no index": (lambda folder: (folder / "index.csv").unlink(), "No such file"),
    "broken JSON": (_write("done.json", b"{", b"["), "damaged: "),
    "other JSON": (lambda folder: (folder / "done.json").write_text("[1]"), "damaged: "),
    "no list of files": (lambda folder: (folder / "done.json").write_text('{"key": "", "bytes": {}}'), "not know"),
    "another shape": (_write("images.npy", b"(4, 1, 12, 12)", b"(2, 2, 12, 12)"), "the index has 4 rows"),
    "more rows than bytes": (_write("images.npy", b"(4, 1, 12, 12)", b"(9, 1, 12, 12)"), "damaged: "),
    "objects": (_write("images.npy", b"|u1", b"|O1"), "damaged: "),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_refused_in_one_line_that_says_what_to_delete(plan, tmp_path, damage):
    folder = open_or_build(plan, tmp_path / "store", "fail").folder
    do, message = DAMAGES[damage]
    do(folder)
    with pytest.raises(UserError, match=message) as refused:
        open_or_build(plan, tmp_path / "store", "fail")
    assert str(refused.value).startswith(f"{folder}: the store is damaged")
    assert str(refused.value).endswith("delete this folder to rebuild it")
    assert "\n" not in str(refused.value)


def test_arrays_of_objects_run_no_code(plan, tmp_path):
    folder = open_or_build(plan, tmp_path / "store", "fail").folder
    size = (folder / "images.npy").stat().st_size
    content = np.empty(4, object)
    content[:] = [_Payload(tmp_path / "canary")] * 4
    np.save(folder / "images.npy", content, allow_pickle=True)
    with (folder / "images.npy").open("ab") as file:
        file.write(b" " * (size - file.tell()))
    with pytest.raises(UserError, match="damaged"):
        open_or_build(plan, tmp_path / "store", "fail")
    assert not (tmp_path / "canary").exists()


def test_of_a_large_store_a_sample_is_compared_and_the_whole_on_demand(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "CHECKED_BYTES", 0)
    monkeypatch.setattr(store_module, "CHECKED_ROWS", 2)
    store = open_or_build(plan, tmp_path / "store", "fail")
    assert store.verify() == 4
    _zero_a_row(store.folder)
    with pytest.raises(UserError, match="pixels of row 2"):
        open_or_build(plan, tmp_path / "store", "fail").verify()


def test_an_unfinished_store_is_not_written_through_links(plan, tmp_path):
    (victim := tmp_path / "victim").write_text("mine")
    work = tmp_path / "store" / f".{plan.name}-{plan.key}.tmp"
    work.mkdir(parents=True)
    (work / "images.npy").symlink_to(victim)
    with pytest.raises(UserError, match="is, or holds, a link"):
        open_or_build(plan, tmp_path / "store", "fail")
    assert victim.read_text() == "mine"


def test_store_deleted_while_it_is_used_stays_readable(plan, tmp_path):
    store = open_or_build(plan, tmp_path / "store", "fail")
    shutil.rmtree(store.folder)
    assert np.array_equal(store.images[2, 0], np.asarray(Image.open(plan.cases[2].image)))


def test_read_only_folder_is_said(plan, tmp_path):
    (tmp_path / "store").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        open_or_build(plan, tmp_path / "store", "fail")
