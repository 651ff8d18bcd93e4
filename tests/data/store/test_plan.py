"""The plan: what its key depends on, the depth of its pixels, and mistakes that name their file."""

import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from toy_plans import again, plan_of, write_pictures

from anomaly_lab.data.preprocessing.patches import PatchSampling
from anomaly_lab.data.preprocessing.transforms import Preprocessing
from anomaly_lab.data.store import plan as plan_module
from anomaly_lab.data.store.store import open_or_build
from anomaly_lab.types import UserError


def test_one_deep_file_makes_the_store_sixteen_bits(plan, tmp_path):
    deep = np.random.default_rng(9).integers(0, 65536, (12, 12), np.uint16)
    Image.fromarray(deep).save(plan.cases[1].image)
    store = open_or_build(again(plan), tmp_path / "store", "fail")
    assert np.array_equal(store.images[1, 0], deep)
    assert np.array_equal(store.images[0, 0], np.asarray(Image.open(plan.cases[0].image)).astype(np.uint16) * 257)


def test_options_of_the_data_set_and_the_cut_change_the_key(plan):
    others = [
        {"protocol": {"version": 2}},
        {"patch_sampling": PatchSampling()},
        {"patch_sampling": PatchSampling(overlap=0.5)},
    ]
    keys = {plan.key, *(again(plan, **change).key for change in others)}
    assert len(keys) == 4
    assert again(plan).key == plan.key


def test_equal_names_sizes_and_times_are_no_equal_data(plan, tmp_path):
    def copied(name):
        other = plan_of(tmp_path / name, write_pictures(tmp_path / name))
        for path in (tmp_path / name).iterdir():
            path.with_suffix(".png").write_bytes(path.read_bytes().ljust(2**20, b"-"))
            os.utime(path, ns=(1, 1))
        return other

    one, moved, other = map(copied, ("one", "moved", "other"))
    with (tmp_path / "other" / "2.png").open("r+b") as file:
        file.seek(2**19)
        file.write(b"another")
    os.utime(tmp_path / "other" / "2.png", ns=(1, 1))
    assert one.key == moved.key != other.key


def test_of_many_files_a_sample_is_opened(plan, monkeypatch):
    monkeypatch.setattr(plan_module, "SAMPLED", 2)
    opened = []
    monkeypatch.setattr(plan_module, "sampled", lambda paths: (opened.extend(path.name for path in paths), b"")[1])
    _ = plan.key
    assert opened == ["0.png", "mask.png"]


def test_missing_file_is_named(plan):
    plan.cases[1].image.unlink()
    with pytest.raises(UserError, match=r"1\.png: cannot be read"):
        _ = plan.key


def test_a_scan_that_does_not_fit_is_named_with_a_remedy(plan):
    def too_small(case):
        raise UserError("smaller than a window")

    with pytest.raises(UserError, match=r"1\.png: smaller than a window; replace it, .*data\.store\.on_bad=skip"):
        replace(plan, read=too_small).patches(plan.cases[1])


def test_blocks_are_patches_and_masks_a_few_at_a_time(plan, monkeypatch):
    monkeypatch.setattr(plan_module, "BLOCK", 3)
    windows = again(plan, patch_sampling=PatchSampling(), patch_size=(6, 6), preprocessing=Preprocessing(None))
    cut, _ = windows.patches(plan.cases[3])
    blocks = list(cut.blocks())
    assert [len(images) for images, _ in blocks] == [3, 1]
    assert np.array_equal(
        np.concatenate([images for images, _ in blocks])[1, 0], np.asarray(Image.open(plan.cases[3].image))[:6, 6:]
    )
    assert sum(int(masks.sum()) for _, masks in blocks) == 9
