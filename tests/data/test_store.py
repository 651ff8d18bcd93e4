import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from errno import ENOSPC

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly_lab.data import building
from anomaly_lab.data import store as store_module
from anomaly_lab.data.patches import Cutting
from anomaly_lab.data.readers.files import is_deep, read_scan
from anomaly_lab.data.store import open_or_build
from anomaly_lab.data.store_plan import StorePlan
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
    return plan_of(root, cases)


def plan_of(root, cases, **changes):
    parts = {"preprocessing": Preprocessing((12, 12)), "cutting": None, "patch_size": (12, 12), "deep": is_deep}
    return StorePlan("toy", root, cases, lambda case: read_scan(case, 1), in_channels=1, **(parts | changes))


def _again(plan, **changes):
    return plan_of(plan.root, plan.cases, **changes)


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
        assert open_or_build(_again(plan), tmp_path / "store", "fail").fingerprint == first.fingerprint
    os.utime(plan.cases[0].image, ns=(1, 1))
    assert _again(plan).key != plan.key
    assert _again(plan, preprocessing=Preprocessing((8, 8)), patch_size=(8, 8)).key != _again(plan).key
    assert open_or_build(_again(plan), tmp_path / "store", "fail").fingerprint == first.fingerprint


def test_eight_at_once_build_once(plan, tmp_path, monkeypatch):
    builds, real = [], store_module.build
    monkeypatch.setattr(store_module, "build", lambda *a: (builds.append(1), real(*a)))
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

    monkeypatch.setattr(building._Array, "append", full)
    with pytest.raises(UserError, match="disk full while building the store"):
        open_or_build(plan, tmp_path / "store", "fail")
    assert left_behind() == []


def test_worker_maps_the_file_again(plan, tmp_path):
    store = open_or_build(plan, tmp_path / "store", "fail")
    message = pickle.dumps(store)
    assert len(message) < 1000
    assert np.array_equal(pickle.loads(message).images, store.images)


def _bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


@pytest.mark.parametrize("reads", [0, 1, 3])
@pytest.mark.parametrize("torn", ["", "half a line"])
def test_killed_build_goes_on_where_it_stopped_and_ends_in_the_same_bytes(plan, tmp_path, reads, torn):
    plan = _again(plan, cutting=Cutting(overlap=0.5), patch_size=(6, 6), preprocessing=Preprocessing(None))
    straight = open_or_build(plan, tmp_path / "straight", "fail")
    read, seen = plan.read, []

    def killed(case):
        seen.append(case.id)
        if len(seen) > reads:
            raise Killed
        return read(case)

    with pytest.raises(Killed):
        open_or_build(replace(plan, read=killed), tmp_path / "store", "fail")
    (work,) = (tmp_path / "store").glob(".*.tmp")
    for name in ("cases.jsonl", "index.csv", "images.npy"):
        with (work / name).open("ab") as file:
            file.write(torn.encode())
    seen.clear()
    store = open_or_build(
        replace(plan, read=lambda case: (seen.append(case.id), read(case))[1]), tmp_path / "store", "fail"
    )
    assert seen == ["0", "1", "2", "3"][reads:]
    assert _bytes(store.folder) == _bytes(straight.folder)
    assert straight.masks.any()


def test_windows_have_ids_places_and_their_own_masks(plan, tmp_path):
    plan = _again(plan, cutting=Cutting(label="mask"), patch_size=(6, 6), preprocessing=Preprocessing(None))
    store = open_or_build(plan, tmp_path / "store", "fail")
    assert store.images.shape == (16, 1, 6, 6)
    assert store.index[13]["id"] == "3@0,6"
    assert store.index[13]["case"] == "3"
    assert store.labels.tolist() == [0] * 12 + [1, 0, 0, 0]
    assert store.masks.sum((1, 2, 3)).tolist() == [0] * 12 + [9, 0, 0, 0]
    whole = np.asarray(Image.open(plan.cases[3].image))
    assert np.array_equal(store.images[13, 0], whole[:6, 6:])
    facts = list(store.scans())
    assert [scan["windows"] for scan in facts] == [4] * 4
    assert facts[3]["size"] == [12, 12]
    assert facts[3]["normal"] == 3
    assert sum(facts[3]["histogram"]) == 144


def test_anomalous_scan_without_a_mask_is_marked(plan, tmp_path):
    cases = [*plan.cases[:3], Case("3", "p3", plan.cases[3].image, 1)]
    assert [row["role"] for row in open_or_build(_again(plan), tmp_path / "store", "fail").index] == ["grid"] * 4
    bare = open_or_build(plan_of(plan.root, cases), tmp_path / "store", "fail")
    assert [row["role"] for row in bare.index] == ["grid"] * 3 + ["unmasked"]


def test_damaged_store_is_named(plan, tmp_path):
    folder = open_or_build(plan, tmp_path / "store", "fail").folder
    with (folder / "images.npy").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"images\.npy changed its length; delete this folder"):
        open_or_build(plan, tmp_path / "store", "fail")
    (folder / "images.npy").unlink()
    with pytest.raises(UserError, match="damaged"):
        open_or_build(plan, tmp_path / "store", "fail")


def test_store_deleted_while_it_is_built_is_said(plan, tmp_path):
    def deleting(case):
        for work in (tmp_path / "store").glob(".*.tmp"):
            shutil.rmtree(work)
        return plan.read(case)

    with pytest.raises(UserError, match="another process deleted the store"):
        open_or_build(replace(plan, read=deleting), tmp_path / "store", "fail")


def test_store_deleted_while_it_is_used_stays_readable(plan, tmp_path):
    store = open_or_build(plan, tmp_path / "store", "fail")
    shutil.rmtree(store.folder)
    assert np.array_equal(store.images[2, 0], np.asarray(Image.open(plan.cases[2].image)))


def test_options_of_the_data_set_and_the_cut_change_the_key(plan):
    others = [{"protocol": {"version": 2}}, {"cutting": Cutting()}, {"cutting": Cutting(overlap=0.5)}]
    keys = {plan.key, *(_again(plan, **change).key for change in others)}
    assert len(keys) == 4
    assert _again(plan).key == plan.key


def test_missing_file_is_named(plan):
    plan.cases[1].image.unlink()
    with pytest.raises(UserError, match=r"1\.png: cannot be read"):
        _ = plan.key


def test_read_only_folder_is_said(plan, tmp_path):
    (tmp_path / "store").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        open_or_build(plan, tmp_path / "store", "fail")
