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


def test_store_deleted_while_it_is_used_stays_readable(plan, tmp_path):
    store = open_or_build(plan, tmp_path / "store", "fail")
    shutil.rmtree(store.folder)
    assert np.array_equal(store.images[2, 0], np.asarray(Image.open(plan.cases[2].image)))


def test_read_only_folder_is_said(plan, tmp_path):
    (tmp_path / "store").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        open_or_build(plan, tmp_path / "store", "fail")
