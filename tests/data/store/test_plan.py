"""The plan: what its key depends on, the depth of its pixels, and mistakes that name their file."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from toy_plans import again

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
