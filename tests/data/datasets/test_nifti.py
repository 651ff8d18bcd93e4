from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from data_sections import sections

from anomaly_lab.data.datasets.nifti import Nifti
from anomaly_lab.data.twins import nifti
from anomaly_lab.types import UserError

SHAPE = (12, 14, 10)


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)


def volume(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 100, SHAPE).astype(np.int16)


def lesion(anomalous: bool, value: int = 1) -> np.ndarray:
    values = np.zeros(SHAPE, np.uint8)
    values[2:6, 2:6, 2:6] = value * anomalous
    return values


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight patients in folders, every other one with a lesion."""
    root = tmp_path / "my scäns"
    for number in range(8):
        write(root / f"patient{number}" / "flair.nii.gz", volume(number))
        write(root / f"patient{number}" / "lesion.nii.gz", lesion(number % 2 == 1))
    return root


@pytest.fixture
def make(root: Path, tmp_path: Path):
    def make(**changes) -> Nifti:
        arguments = {"root": str(root), "patch_size": (4, 4), "batch_size": 4, "store_dir": str(tmp_path / "store")}
        return Nifti(**sections(**(arguments | {"cut": {"label": "mask"}} | changes)))

    return make


def flat(root: Path) -> Path:
    """Images and masks apart, two scans of each patient."""
    for number in range(6):
        name = f"sub-{number // 2}_scan{number % 2}"
        write(root / "images" / "set 1" / f"{name}_t2.nii.gz", volume(number))
        write(root / "labels" / "set 1" / f"{name}_seg.nii.gz", lesion(number < 2))
    return root


def test_folders_of_patients(make, root):
    cases = make().cases(root)
    assert [case.id for case in cases] == [f"patient{number}/flair" for number in range(8)]
    assert [case.patient for case in cases] == [f"patient{number}" for number in range(8)]
    assert [case.label for case in cases] == [0, 1] * 4
    assert all(case.mask.name == "lesion.nii.gz" for case in cases)


def test_masks_by_the_wildcards_and_patients_by_a_pattern(make, tmp_path):
    root = flat(tmp_path / "flat")
    data = make(images="images/**/*_t2.nii.gz", masks="labels/**/*_seg.nii.gz", patient=r"(?P<patient>sub-\d+)_")
    cases = data.cases(root)
    assert [case.id for case in cases][:2] == ["images/set 1/sub-0_scan0_t2", "images/set 1/sub-0_scan1_t2"]
    assert [case.patient for case in cases] == ["sub-0", "sub-0", "sub-1", "sub-1", "sub-2", "sub-2"]
    assert [case.label for case in cases] == [1, 1, 0, 0, 0, 0]


def test_masks_beside_by_stem_are_not_volumes(make, tmp_path):
    for number in range(4):
        write(tmp_path / "flat" / f"scan{number}.nii", volume(number))
        write(tmp_path / "flat" / f"scan{number}_mask.nii", lesion(number == 0))
    data = make(images="*.nii", masks="{stem}_mask.nii", patient="(?P<patient>[^/]+)$")
    cases = data.cases(tmp_path / "flat")
    assert [case.id for case in cases] == ["scan0", "scan1", "scan2", "scan3"]
    assert [case.patient for case in cases] == ["scan0", "scan1", "scan2", "scan3"]


def test_wildcards_stay_within_a_folder_and_hidden_files_are_none(make, root):
    write(root / "deep" / "er" / "flair.nii.gz", volume(20))
    (root / "patient0" / "._flair.nii.gz").write_bytes(b"from another system")
    assert len(make(images="*/*flair.nii.gz").cases(root)) == 8
    with pytest.raises(UserError, match=r"deep/er/flair\.nii\.gz: it has no mask"):
        make().cases(root)


def labelled(root: Path, text: str) -> Path:
    (root / "labels.csv").write_text(text, encoding="utf-8-sig")
    return root


ROWS = "".join(f"patient{number}/flair.nii.gz,{int(number > 5)},p{number // 2}\n" for number in range(8))


def test_labels_and_patients_from_a_list(make, root):
    labelled(root, "id, label, patient\n" + ROWS)
    (root / "patient7" / "lesion.nii.gz").unlink()
    cases = make(labels="labels.csv").cases(root)
    assert [case.label for case in cases] == [0] * 6 + [1, 1]
    assert [case.patient for case in cases] == [f"patient {number // 2 + 1:03d}" for number in range(8)]
    assert [case.mask is None for case in cases] == [False] * 7 + [True]
    assert make(labels=str(root / "labels.csv"), masks=None).cases(root)[0].mask is None


def test_patients_of_a_list_may_be_left_to_the_folders(make, root):
    labelled(root, "label,id\n" + "".join(f"0,patient{number}/flair\n" for number in range(8)))
    assert make(labels="labels.csv").cases(root)[3].patient == "patient3"


HEADER = "id,label,patient\n"
LIST_FAULTS = {
    "labels.csv: ids without a volume: patient9/flair": HEADER + ROWS + "patient9/flair,0\n",
    "labels.csv: volumes without a label: patient7/flair": HEADER + ROWS.replace("patient7/flair.nii.gz,1,p3\n", ""),
    "labels.csv, line 10: id patient0/flair appears twice": HEADER + ROWS + "patient0/flair,0,p0\n",
    "labels.csv, line 2: label of 'patient0/flair' is 'none', not 0 or 1": "id,label\npatient0/flair,none\n",
    "labels.csv, line 2: label of 'patient0/flair' is ''": "id,label\npatient0/flair\n",
    "needs the columns id and label and has id, class": "id,class\n",
    "needs the columns id and label and has none": "",
}


def test_maps_of_a_prediction_are_no_volumes(make, root):
    before = make().cases(root)
    write(root / "res" / "maps" / "flair.nii.gz", volume(0))
    for name in ("prediction.json", "scores.csv"):
        (root / "res" / name).touch()
    data = make()
    assert data.cases(root) == before
    assert data.left_out == {"folder of a run or prediction": 1}


def test_a_list_may_come_from_a_spreadsheet(make, root):
    plain = HEADER + ROWS
    labelled(root, plain)
    cases = make(labels="labels.csv").cases(root)
    labelled(root, plain.replace(",", ";") + ";;\n")
    assert make(labels="labels.csv").cases(root) == cases


@pytest.mark.parametrize("message", LIST_FAULTS)
def test_faulty_lists_are_named(make, root, message):
    labelled(root, LIST_FAULTS[message])
    with pytest.raises(UserError, match=message):
        make(labels="labels.csv").cases(root)


def test_a_list_that_is_not_there(make, root):
    with pytest.raises(UserError, match=r"none\.csv: the list of labels \(data\.labels\) cannot be read"):
        make(labels="none.csv").cases(root)


def test_nothing_matches(make, root):
    with pytest.raises(UserError, match=r"no volume matches data\.images=\*\.nii; put"):
        make(images="*.nii").cases(root)


def test_the_same_volume_twice(make, root):
    write(root / "patient3" / "flair.nii", volume(3))
    with pytest.raises(UserError, match=r"flair\.nii in the same folder has the same id; keep one"):
        make(images="**/flair.nii*").cases(root)


def test_one_folder_of_volumes_needs_a_word_about_patients(make, tmp_path):
    root = flat(tmp_path / "flat")
    with pytest.raises(UserError, match=r"all 6 volumes are in one folder.*data\.patient"):
        make(images="images/**/*_t2.nii.gz", masks="labels/**/*_seg.nii.gz").cases(root)


def test_a_path_without_patient_is_named(make, root):
    with pytest.raises(UserError, match=r"patient0/flair: data\.patient=.* finds no patient"):
        make(patient=r"(?P<patient>sub-\d+)").cases(root)


@pytest.mark.parametrize(
    "options",
    [
        {"patient": "("},
        {"patient": "patient"},
        {"images": "*/*.nii", "masks": "*/seg.nii"},
        {"masks": "**/lesion?.nii"},
    ],
)
def test_patterns_that_cannot_be(make, options):
    with pytest.raises(UserError, match=r"data\.(patient|masks)"):
        make(**options)


def test_unknown_labels_in_a_mask(make, root):
    write(root / "patient1" / "lesion.nii.gz", lesion(True, value=5))
    assert make().cases(root)[1].label == 1
    with pytest.raises(UserError, match=r"patient1/lesion.nii.gz: the mask holds 5"):
        make(mask_labels=[0, 1]).cases(root)
    assert make().protocol() != make(mask_labels=[0, 1]).protocol()


def test_a_broken_mask_is_named_or_skipped(make, root):
    mask = root / "patient1" / "lesion.nii.gz"
    mask.write_bytes(mask.read_bytes()[:60])
    with pytest.raises(UserError, match=r"patient1/lesion\.nii\.gz"):
        make().setup()
    data = make(on_bad="skip")
    data.setup()
    assert "patient1/flair" not in data.store.index.columns["case"]
    assert len(data.store.skipped) == 1


def test_patches_keep_patients_apart(make, root):
    data = make(train_normals=0.5, val_fraction=0.25)
    data.setup()
    index = data.store.index
    patients = {name: {index[i]["patient"] for i in data.rows[name]} for name in ("train", "val", "test")}
    assert len(patients["train"] | patients["val"] | patients["test"]) == 8
    assert not (patients["train"] | patients["val"]) & patients["test"]
    assert not data.store.labels[data.rows["train"]].any()


def test_three_axes_by_the_same_code(make):
    data = make(patch_size=(4, 4, 4), cut={"label": "mask", "overlap": 0.5})
    data.setup()
    assert data.store.images.shape[1:] == (1, 4, 4, 4)


def test_the_twin_is_read_back_with_its_lesions(make, tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "IN_PLANE", (4.0, 5.0))  # a coarser twin takes no time
    data = make()
    data.write_twin(tmp_path / "twin", 0, 10)
    cases = data.cases(tmp_path / "twin")
    assert [case.label for case in cases] == [0, 1] * 4
    assert data.read(cases[1]).mask.any()


def roles(data: Nifti, source: Path) -> dict[str, str]:
    files = sorted(path for path in source.rglob("*") if path.is_file())
    return {path.relative_to(source).as_posix(): data.role(path, source) for path in files}


def test_new_volumes_follow_the_patterns_of_the_run_from_any_folder(make, root):
    (root / "patient1" / "t1.nii.gz").touch()
    data = make()
    for source in (root, root / "patient1"):
        found = roles(data, source)
        assert {role for name, role in found.items() if name.endswith("flair.nii.gz")} == {"scan"}
        assert {role for name, role in found.items() if name.endswith("lesion.nii.gz")} == {"mask"}
        assert {role for name, role in found.items() if name.endswith("t1.nii.gz")} == {"other"}
        image = root / "patient1" / "flair.nii.gz"
        assert data.known_mask(image, source) == image.with_name("lesion.nii.gz")
    lonely = root / "patient1" / "t1.nii.gz"
    assert data.role(lonely, lonely) == "scan"  # a file that is asked for by name


def test_new_volumes_and_masks_by_wildcards_and_by_stem(make, tmp_path):
    for name in ("images/a.nii.gz", "masks/a.nii.gz", "masks/b.nii.gz"):
        write(tmp_path / "new" / name, volume(0))
    data = make(images="images/*.nii.gz", masks="masks/*.nii.gz")
    for source in (tmp_path / "new", tmp_path / "new" / "images"):
        assert set(roles(data, source).values()) == ({"scan", "mask"} if source.name == "new" else {"scan"})
        image = tmp_path / "new" / "images" / "a.nii.gz"
        assert data.known_mask(image, source) == tmp_path / "new" / "masks" / "a.nii.gz"
    beside = tmp_path / "beside"
    for name in ("a.nii.gz", "a_mask.nii.gz", "b.nii.gz"):
        write(beside / name, volume(0))
    data = make(images="*.nii.gz", masks="{stem}_mask.nii.gz", patient="(?P<patient>.)")
    assert roles(data, beside) == {"a.nii.gz": "scan", "a_mask.nii.gz": "mask", "b.nii.gz": "scan"}
