"""Building a store: killed, torn, skipped, out of room; it ends in the same bytes or leaves nothing."""

import shutil
from dataclasses import replace
from errno import ENOSPC

import numpy as np
import pytest
from PIL import Image
from toy_plans import again, plan_of

from anomaly_lab.data.preprocessing.patches import PatchSampling
from anomaly_lab.data.preprocessing.transforms import Preprocessing
from anomaly_lab.data.store import build
from anomaly_lab.data.store.store import open_or_build
from anomaly_lab.types import Case, UserError


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


@pytest.mark.parametrize("on_bad", ["skip", "fail"])
def test_what_can_be_read_now_is_no_longer_left_out(plan, tmp_path, on_bad):
    """Neither a codec that was installed since nor new permissions change the file, by which the store is known."""

    def lacking(case):
        if case.id == "2":
            raise UserError(f"{case.image}: compressed; pip install a codec")
        return plan.read(case)

    assert len(open_or_build(replace(again(plan), read=lacking), tmp_path / "store", "skip").labels) == 3
    assert open_or_build(replace(again(plan), read=lacking), tmp_path / "store", "skip").reused
    store = open_or_build(again(plan), tmp_path / "store", on_bad)
    assert (len(store.labels), list(store.skipped), store.reused) == (4, [], False)
    assert open_or_build(again(plan), tmp_path / "store", on_bad).reused


def test_nothing_usable_is_refused(plan, tmp_path, left_behind):
    for case in plan.cases:
        case.image.write_bytes(b"")
    with pytest.raises(UserError, match="no picture is usable"):
        open_or_build(plan, tmp_path / "store", "skip")
    assert left_behind() == []


def test_full_disk_is_said_and_leaves_nothing(plan, tmp_path, monkeypatch, left_behind):
    def full(*_):
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(build._Array, "append", full)
    with pytest.raises(UserError, match="disk full while building the store"):
        open_or_build(plan, tmp_path / "store", "fail")
    assert left_behind() == []


def _bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


@pytest.mark.parametrize("reads", [0, 1, 3])
@pytest.mark.parametrize("torn", ["", "half a line"])
def test_killed_build_goes_on_where_it_stopped_and_ends_in_the_same_bytes(plan, tmp_path, reads, torn):
    plan = again(plan, patch_sampling=PatchSampling(overlap=0.5), patch_size=(6, 6), preprocessing=Preprocessing(None))
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
    plan = again(plan, patch_sampling=PatchSampling(label="mask"), patch_size=(6, 6), preprocessing=Preprocessing(None))
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
    assert [row["role"] for row in open_or_build(again(plan), tmp_path / "store", "fail").index] == ["grid"] * 4
    bare = open_or_build(plan_of(plan.root, cases), tmp_path / "store", "fail")
    assert [row["role"] for row in bare.index] == ["grid"] * 3 + ["unmasked"]


def test_store_deleted_while_it_is_built_is_said(plan, tmp_path):
    def deleting(case):
        for work in (tmp_path / "store").glob(".*.tmp"):
            shutil.rmtree(work)
        return plan.read(case)

    with pytest.raises(UserError, match="another process deleted files"):
        open_or_build(replace(plan, read=deleting), tmp_path / "store", "fail")


def test_the_facts_of_a_file_are_kept_beside_its_name(plan, tmp_path):
    store = open_or_build(plan, tmp_path / "store", "skip")
    for case, facts in zip(plan.cases, store.scans(), strict=True):
        assert facts["file"] == case.image.name
        assert facts["header"]["bytes"] == case.image.stat().st_size
        assert facts["header"]["bits"] == 8
