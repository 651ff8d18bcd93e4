from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anomaly_lab.data.readers.nifti import read_nifti, read_nifti_mask
from anomaly_lab.data.twins import brats2017
from anomaly_lab.data.twins.brats2017 import write_twin

SIZES = {"SHAPE": (80, 80, 31), "SPACING": (3.0, 3.0, 5.0), "BOX": (51, 63, 27)}  # a coarser twin takes no time


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("twin")
    write_twin(root, seed=0, size=60)
    return root / "MICCAI_BraTS17_Data_Training"


@pytest.fixture(scope="module", autouse=True)
def _coarse():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SIZES.items():
            patch.setattr(brats2017, name, value)
        yield


def test_layout_is_the_official_one(twin):
    assert len(list((twin / "HGG").iterdir())) == 6
    assert len(list((twin / "LGG").iterdir())) == 2
    for folder in twin.glob("*/*"):
        names = {path.name for path in folder.iterdir()}
        assert names == {f"{folder.name}_flair.nii.gz", f"{folder.name}_seg.nii.gz"}
        assert folder.name.startswith("Brats17_")
        assert folder.name.endswith("_1")


def test_heads_are_stripped_and_their_tumours_known(twin):
    levels = []
    for folder in sorted((twin / "HGG").iterdir()):
        flair = folder / f"{folder.name}_flair.nii.gz"
        scan = read_nifti(flair)
        seg = folder / f"{folder.name}_seg.nii.gz"
        lesion = read_nifti_mask(seg, scan, (0, 1, 2, 4))
        assert scan.shape == SIZES["SHAPE"]
        assert scan.spacing == SIZES["SPACING"]
        assert nib.aff2axcodes(scan.affine) == ("L", "P", "S")
        labels = np.asarray(nib.load(seg).dataobj)
        assert set(np.unique(labels)) == {0, 1, 2, 4}
        assert not lesion[scan.pixels == 0].any()
        brain = scan.pixels > 0
        assert 0.1 < brain.mean() < 0.5
        assert np.median(scan.pixels[0][labels == 2]) > 1.1 * np.median(scan.pixels[brain & ~lesion])  # oedema
        levels.append(scan.pixels[brain].mean())
    assert max(levels) > 1.5 * min(levels)  # every scanner has its own scale


def test_a_subject_depends_on_seed_and_number_alone(twin, tmp_path, monkeypatch):
    monkeypatch.setattr(brats2017, "_LOW_GRADE", 100)  # the same subjects, all in HGG
    write_twin(tmp_path / "other", seed=0, size=10)
    names = sorted((tmp_path / "other").rglob("*_flair.nii.gz"))
    assert len(names) == 6
    same, changed = names[0], tmp_path / "seed 1"
    there = next(twin.rglob(same.name))
    assert np.array_equal(nib.load(there).dataobj, nib.load(same).dataobj)
    write_twin(changed, seed=1, size=10)
    assert not np.array_equal(nib.load(next(changed.rglob(same.name))).dataobj, nib.load(same).dataobj)
