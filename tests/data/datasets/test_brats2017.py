from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from data_sections import sections

from anomaly_lab.data.datasets.brats2017 import BraTS2017
from anomaly_lab.data.twins import brats2017
from anomaly_lab.types import UserError

SHAPE = (40, 40, 12)
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
CUT = {"label": "mask", "lesion": 0.75, "foreground": 0.9}


def write_subject(folder: Path, seed: int, suffix=".nii.gz", modalities=("flair",)) -> None:
    """A brain of noise in the middle, a tumour of three labels in its corner."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    brain, labels = np.zeros(SHAPE, np.int16), np.zeros(SHAPE, np.uint8)
    brain[4:36, 4:36, 1:11] = rng.integers(50, 200, (32, 32, 10))
    for label, end in ((2, 18), (4, 14), (1, 10)):
        labels[5:end, 5:end, 2:10] = label
    for modality in modalities:
        nib.save(nib.Nifti1Image(brain, AFFINE), folder / f"{folder.name}_{modality}{suffix}")
    nib.save(nib.Nifti1Image(labels, AFFINE), folder / f"{folder.name}_seg{suffix}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "brats 2017 é"
    for number in range(6):
        write_subject(root / "MICCAI_BraTS17_Data_Training" / "HGG" / f"Brats17_2013_{number}_1", number)
    write_subject(root / "MICCAI_BraTS17_Data_Training" / "LGG" / "Brats17_TCIA_9_1", 9, ".nii", ("flair", "t2"))
    return root


@pytest.fixture
def make(root: Path, tmp_path: Path):
    def make(**changes) -> BraTS2017:
        arguments = {"root": str(root), "patch_size": (8, 8), "batch_size": 4, "store_dir": str(tmp_path / "store")}
        arguments |= {"cut": CUT, "volume": {"axcodes": "SPL", "zscore": 3.0}, "train_normals": 4, "val_fraction": 0.25}
        return BraTS2017(**sections(**(arguments | changes)))

    return make


def test_high_grades_are_read_by_default(make, root):
    cases = make().cases(root)
    assert [case.id for case in cases] == [f"Brats17_2013_{number}_1" for number in range(6)]
    assert [case.patient for case in cases] == [f"Brats17_2013_{number}" for number in range(6)]
    assert all(case.label == 1 and case.class_name == "HGG" and case.mask is not None for case in cases)
    assert make().cases(root / "MICCAI_BraTS17_Data_Training") == cases


def test_low_grades_and_other_modalities_on_request(make, root):
    cases = make(grades=["HGG", "LGG"]).cases(root)
    assert [case.class_name for case in cases] == ["HGG"] * 6 + ["LGG"]
    (case,) = make(grades=["LGG"], modality="t2").cases(root)
    assert case.image.name == "Brats17_TCIA_9_1_t2.nii"


def test_every_label_is_lesion(make, root):
    data = make()
    scan = data.read(data.cases(root)[0])
    assert scan.pixels.dtype == np.int16
    assert scan.pixels.shape == (1, *SHAPE)
    assert scan.mask.sum() == 13 * 13 * 8


def test_the_whole_official_set_is_known_by_its_210_subjects(make, root):
    assert make().official["images"] == 210
    assert make().census(make().cases(root)) == {"images": 6, "normal": 0, "anomalous": 6, "HGG": 6}


def test_windows_follow_the_rules(make, root):
    data = make()
    data.setup()
    index, labels = data.store.index, data.store.labels
    patients = {name: {index[i]["patient"] for i in data.rows[name]} for name in ("train", "val", "test")}
    assert [len(patients[name]) for name in ("train", "val", "test")] == [3, 1, 2]
    assert not patients["train"] & patients["test"]
    assert not patients["val"] & (patients["train"] | patients["test"])
    assert not labels[data.rows["train"]].any()
    assert set(labels[data.rows["test"]]) == {0, 1}
    scans = {case.id: data.preprocessing(data.read(case)) for case in data.cases(root)}
    for row, facts in enumerate(index):
        scan = scans[facts["case"]]
        z, y, x = map(int, facts["location"].split(","))
        share = scan.mask[0, z, y : y + 8, x : x + 8].mean()
        assert share == 0 if labels[row] == 0 else share > 0.75
        assert scan.foreground[0, z, y : y + 8, x : x + 8].mean() >= 0.9


def test_slices_count_from_below(make, root):
    data = make(cut=CUT | {"slices": (2, 4)})
    data.setup()
    assert {location.split(",")[0] for location in data.store.index.columns["location"]} == {"2", "3", "4"}
    scan = data.read(data.cases(root)[0])
    prepared = data.preprocessing(scan)
    below = scan.mask[0].any((0, 1))
    assert np.array_equal(prepared.mask[0].any((1, 2)), below)


def drop(name: str):
    return lambda subject: (subject / f"{subject.name}_{name}.nii.gz").unlink()


LISTING_FAULTS = {
    "Brats17_2013_3_1: no Brats17_2013_3_1_flair.nii.gz; complete the subject": drop("flair"),
    "Brats17_2013_3_1: no Brats17_2013_3_1_seg.nii.gz; complete the subject": drop("seg"),
}


@pytest.mark.parametrize("message", LISTING_FAULTS)
def test_missing_files_are_named(make, root, message):
    LISTING_FAULTS[message](root / "MICCAI_BraTS17_Data_Training" / "HGG" / "Brats17_2013_3_1")
    with pytest.raises(UserError, match=message):
        make().cases(root)


def test_an_empty_grade_is_named(make, root, tmp_path):
    with pytest.raises(UserError, match="the folder contains no subjects; get the BraTS 2017"):
        make().cases(tmp_path)


@pytest.mark.parametrize("options", [{"grades": ["XGG"]}, {"grades": []}, {"modality": "pet"}])
def test_unknown_options(make, options):
    with pytest.raises(UserError, match=r"data\.(grades|modality)"):
        make(**options)


def test_an_unknown_label_is_named_or_skipped(make, root):
    seg = root / "MICCAI_BraTS17_Data_Training" / "HGG" / "Brats17_2013_3_1" / "Brats17_2013_3_1_seg.nii.gz"
    labels = np.asarray(nib.load(seg).dataobj).copy()
    labels[6, 6, 6] = 3
    nib.save(nib.Nifti1Image(labels, AFFINE), seg)
    with pytest.raises(UserError, match=r"Brats17_2013_3_1_seg.nii.gz: the mask holds 3; .* 0, 1, 2, 4"):
        make().setup()
    data = make(on_bad="skip")
    data.setup()
    assert "Brats17_2013_3_1" not in data.store.index.columns["case"]


def test_the_twin_is_read_back_with_its_tumours(make, tmp_path, monkeypatch):
    sizes = {"SHAPE": (60, 60, 8), "SPACING": (4.0, 4.0, 20.0), "BOX": (38, 47, 7)}  # a coarser twin takes no time
    for name, value in sizes.items():
        monkeypatch.setattr(brats2017, name, value)
    data = make()
    data.write_twin(tmp_path / "twin", 0, 10)
    cases = data.cases(tmp_path / "twin")
    assert len(cases) == 6
    assert data.read(cases[0]).mask.any()


def test_new_volumes_are_those_of_the_modality(make, tmp_path):
    folder = tmp_path / "new" / "someone"
    folder.mkdir(parents=True)
    names = {"x_flair.nii.gz": "scan", "x_t1ce.nii": "other", "x_seg.nii.gz": "mask", "unnamed.nii.gz": "scan"}
    for name in names:
        (folder / name).touch()
    data = make()
    assert {name: data.role(folder / name, tmp_path / "new") for name in names} == names
    assert data.known_mask(folder / "x_flair.nii.gz", folder) == folder / "x_seg.nii.gz"
    assert data.known_mask(folder / "unnamed.nii.gz", folder) is None
