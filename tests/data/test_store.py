import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from errno import ENOSPC

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_lab.data import store as store_module
from anomaly_lab.data.store import StorePlan, open_or_build
from anomaly_lab.data.transforms import Preprocessing
from anomaly_lab.types import Case, UserError


@pytest.fixture
def plan(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for i in range(4):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (12, 12), np.uint8)).save(root / f"{i}.png")
    lesion = np.zeros((12, 12), np.uint8)
    lesion[3:6, 3:6] = 255
    Image.fromarray(lesion).save(root / "mask.png")
    cases = [Case(str(i), f"p{i}", root / f"{i}.png", int(i == 3)) for i in range(3)]
    cases.append(Case("3", "p3", root / "3.png", 1, root / "mask.png"))
    return StorePlan("toy", root, cases, Preprocessing((12, 12), 1))


def _again(plan, **changes):
    parts = {"name": plan.name, "root": plan.root, "cases": plan.cases, "preprocessing": plan.preprocessing}
    return StorePlan(**(parts | changes))


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
        patch.setattr(store_module, "_build", lambda *_: pytest.fail("built again"))
        assert open_or_build(_again(plan), tmp_path / "store", "fail").fingerprint == first.fingerprint
    os.utime(plan.cases[0].image, ns=(1, 1))
    assert _again(plan).key != plan.key
    assert _again(plan, preprocessing=Preprocessing((8, 8), 1)).key != _again(plan).key
    assert open_or_build(_again(plan), tmp_path / "store", "fail").fingerprint == first.fingerprint


def test_eight_at_once_build_once(plan, tmp_path, monkeypatch):
    builds, real = [], store_module._build
    monkeypatch.setattr(store_module, "_build", lambda *a: (builds.append(1), real(*a)))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: open_or_build(plan, tmp_path / "store", "fail"), range(8)))
    assert len(builds) == 1


def test_one_deep_file_makes_the_store_sixteen_bits(plan, tmp_path):
    deep = np.random.default_rng(9).integers(0, 65536, (12, 12), np.uint16)
    Image.fromarray(deep).save(plan.cases[1].image)
    store = open_or_build(_again(plan), tmp_path / "store", "fail")
    assert np.array_equal(store.images[1, 0], deep)
    assert np.array_equal(store.images[0, 0], np.asarray(Image.open(plan.cases[0].image)).astype(np.uint16) * 257)


def test_broken_file_fails_and_leaves_nothing(plan, tmp_path, left_behind):
    plan.cases[2].image.write_bytes(b"")
    with pytest.raises(UserError, match=r"2\.png: the file is empty"):
        open_or_build(plan, tmp_path / "store", "fail")
    assert left_behind() == []


def test_skipping_leaves_it_out_and_says_so(plan, tmp_path):
    plan.cases[2].image.write_bytes(b"")
    store = open_or_build(plan, tmp_path / "store", "skip")
    assert [row["id"] for row in store.index] == ["0", "1", "3"]
    assert store.images.shape == (3, 1, 12, 12)
    assert store.masks[2].any()
    assert [entry["file"] for entry in store.skipped] == ["2.png"]
    with pytest.raises(UserError, match="empty"):
        open_or_build(plan, tmp_path / "store", "fail")


def test_nothing_usable_is_refused(plan, tmp_path, left_behind):
    for case in plan.cases:
        case.image.write_bytes(b"")
    with pytest.raises(UserError, match="not one usable picture"):
        open_or_build(plan, tmp_path / "store", "skip")
    assert left_behind() == []


def test_full_disk_is_said_and_leaves_nothing(plan, tmp_path, monkeypatch, left_behind):
    def full(*_):
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module._Array, "append", full)
    with pytest.raises(UserError, match="disk full while building the store"):
        open_or_build(plan, tmp_path / "store", "fail")
    assert left_behind() == []


def test_worker_maps_the_file_again(plan, tmp_path):
    store = open_or_build(plan, tmp_path / "store", "fail")
    message = pickle.dumps(store)
    assert len(message) < 1000
    assert np.array_equal(pickle.loads(message).images, store.images)
