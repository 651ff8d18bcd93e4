from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anomaly_lab.data.readers.nifti import read_nifti, read_nifti_mask
from anomaly_lab.data.twins import nifti
from anomaly_lab.data.twins.nifti import AXCODES, write_twin


@pytest.fixture(scope="module", autouse=True)
def _coarse():
    """A twin of large voxels takes no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nifti, "IN_PLANE", (3.0, 4.0))
        yield


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("twin")
    write_twin(root, seed=0, size=80)
    return root


def test_every_patient_lies_in_its_own_way(twin):
    folders = sorted(twin.iterdir())
    assert [folder.name for folder in folders] == [f"patient{number:02d}" for number in range(1, 9)]
    scans = [read_nifti(folder / "flair.nii.gz") for folder in folders]
    assert {"".join(nib.aff2axcodes(scan.affine)) for scan in scans} == set(AXCODES)
    assert {scan.pixels.dtype for scan in scans} == {np.dtype(t) for t in ("float32", "int16", "uint16")}
    assert len({scan.shape for scan in scans}) > 4


def test_half_of_them_have_bright_lesions(twin):
    anomalous = []
    for folder in sorted(twin.iterdir()):
        scan = read_nifti(folder / "flair.nii.gz")
        lesion = read_nifti_mask(folder / "lesion.nii.gz", scan, (0, 1))
        anomalous.append(bool(lesion.any()))
        if lesion.any():
            assert scan.pixels[lesion].mean() > 1.2 * scan.pixels[scan.pixels > 0].mean()
    assert anomalous == [False, True] * 4


def test_a_patient_depends_on_seed_and_number_alone(twin, tmp_path):
    for seed in (0, 1):
        write_twin(tmp_path / f"{seed}", seed=seed, size=90)
        again = nib.load(tmp_path / f"{seed}" / "patient02" / "flair.nii.gz")
        first = nib.load(twin / "patient02" / "flair.nii.gz")
        assert (again.shape == first.shape and np.array_equal(again.dataobj, first.dataobj)) == (seed == 0)
