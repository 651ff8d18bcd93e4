from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from data_sections import sections
from dicom_files import MARKER, UID, chest, save, write_dicom_series
from PIL import Image
from pydicom import dcmread
from pydicom.uid import SecondaryCaptureImageStorage

from anomaly_lab.data.datasets.dicom import Dicom
from anomaly_lab.data.readers.dicom import series_key
from anomaly_lab.types import UserError

SHAPE = (4, 20, 16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two normal and one anomalous series, each with a patient of its own."""
    for number, folder in enumerate(("Normal/a", "Normal/b ü", "anomalous/c")):
        stored = np.random.default_rng(number).integers(900, 1200, SHAPE).astype(np.uint16)
        identity = {"SeriesInstanceUID": f"{UID}.2.{number}", "PatientID": f"{MARKER}{number}"}
        write_dicom_series(tmp_path / "dicom" / folder, stored, **identity)
    (tmp_path / "dicom" / "LICENSE").write_text("free")
    return tmp_path / "dicom"


@pytest.fixture
def make(root: Path, tmp_path: Path):
    def make(**changes) -> Dicom:
        arguments = {"root": str(root), "patch_size": (8, 8), "batch_size": 2, "store_dir": str(tmp_path / "store")}
        return Dicom(**sections(**(arguments | changes)))

    return make


def write_mask(path: Path, affine: np.ndarray, shape=SHAPE[::-1]) -> None:
    mask = np.zeros(shape, np.uint8)
    mask[2:5, 3:6, 1] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(mask, affine), path)


def test_folders_are_labels_and_ids(make, root):
    data = make()
    cases = data.cases(root)
    assert [(case.id, case.label) for case in cases] == [("Normal/a", 0), ("Normal/b ü", 0), ("anomalous/c", 1)]
    assert all(len(case.slices) == SHAPE[0] - 1 for case in cases)
    assert len({case.patient for case in cases}) == 3
    assert MARKER not in repr(cases)
    assert data.census(cases) == {"images": 3, "normal": 2, "anomalous": 1, "files": 12, "other_files": 1}


def test_series_of_one_patient_share_a_key(make, root):
    write_dicom_series(root / "normal" / "d", np.zeros(SHAPE, np.uint16), PatientID=f"{MARKER}0", SeriesInstanceUID=UID)
    patients = {case.id: case.patient for case in make().cases(root)}
    assert patients["normal/d"] == patients["Normal/a"] != patients["Normal/b ü"]


@pytest.mark.parametrize(
    "rows",
    [
        "id,label\nNormal/a,0\nNormal/b ü,1\nanomalous/c,0\n",
        "folder,label\nNormal/a/,0\nNormal/b ü,1\nanomalous/c,0\n",
        f"label,series\n0,{UID}.2.0\n1,{UID}.2.1\n0,{series_key(UID + '.2.2')}\n",
    ],
    ids=["id", "folder", "series"],
)
def test_a_list_labels_by_id_folder_or_uid(make, root, rows):
    (root / "labels.csv").write_text(rows, encoding="utf-8")
    assert [case.label for case in make().cases(root)] == [0, 1, 0]


def test_two_series_in_one_folder_become_two(make, root):
    write_dicom_series(root / "Normal" / "a", np.zeros((2, 3, 3), np.uint16), SeriesInstanceUID=f"{UID}.9", shuffle=7)
    ids = {case.id for case in make().cases(root)}
    assert f"Normal/a/{series_key(UID + '.9')}" in ids
    assert f"Normal/a/{series_key(UID + '.2.0')}" in ids


def test_single_pictures_are_cases_named_by_their_files(make, root):
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7)).astype(np.uint8)
    for number in range(2):
        one = chest(pixels, SeriesInstanceUID=f"{UID}.8.{number}")
        save(one, root / "anomalous" / "chests" / f"p{number}.dcm")
    Image.fromarray((pixels > 200).astype(np.uint8)).save(_made(root / "masks" / "anomalous" / "chests") / "p1.png")
    data = make(modality="DX", normal=("nowhere",))
    cases = data.cases(root)
    assert [case.id for case in cases] == ["anomalous/chests/p0", "anomalous/chests/p1"]
    scan = data.read(cases[1])
    np.testing.assert_array_equal(scan.pixels[0], pixels)
    np.testing.assert_array_equal(scan.mask[0], pixels > 200)
    assert scan.affine is None


def test_series_are_read_with_their_mask(make, root):
    data = make()
    affine = data.read(data.cases(root)[2]).affine
    write_mask(root / "masks" / "anomalous" / "c.nii.gz", affine)
    cases = data.cases(root)
    assert [case.mask is not None for case in cases] == [False, False, True]
    scan = data.read(cases[2])
    assert scan.shape == SHAPE[::-1]
    assert scan.mask.sum() == 9
    write_mask(root / "masks" / "anomalous" / "c.nii.gz", affine, (3, 3, 3))
    with pytest.raises(UserError, match=r"c\.nii\.gz"):
        data.read(cases[2])


def test_options_reach_the_reader_and_the_store(make, root):
    data = make(gaps="blank", voi="BONE", volume={"window": "scan"})
    assert data.protocol() == {"voi": "BONE", "gaps": "blank"}
    inside = sorted(root.joinpath("Normal/a").iterdir(), key=lambda path: dcmread(path).ImagePositionPatient[2])[1]
    inside.unlink()
    with pytest.raises(UserError, match="1 of 4 slices are missing"):
        make().read(make().cases(root)[0])
    assert make(gaps="blank").read(make().cases(root)[0]).shape == SHAPE[::-1]


def test_the_headers_window_matters_only_where_it_is_asked_for(make, root):
    write_dicom_series(
        root / "Normal" / "a", np.eye(5, dtype=np.uint16)[None].repeat(4, 0), WindowWidth=0, WindowCenter=1
    )
    case = make().cases(root)[0]
    assert make(volume={"window": [40, 80]}).read(case).window is None
    with pytest.raises(UserError, match=r"data\.voi=null"):
        make(volume={"window": "scan"}).read(case)


FAULTS = {
    r"labels\.csv, line 2: no such series": "series,label\n1.2.3.4.5,0\n",
    r"labels\.csv, line 3: the series already has a label": "id,label\nNormal/a,0\nNormal/a,1\n",
    r"labels\.csv, line 2: label is '2', not 0 or 1": "id,label\nNormal/a,2\n",
    r"labels\.csv, line 2: none of the columns id, folder, series": "what,label\nNormal/a,1\n",
    r"labels\.csv, line 2: 1 cells under 2 columns": "id,label\nNormal/a\n",
    r"labels\.csv: the columns label are missing": "id\nNormal/a\n",
    r"2 series have no label, Normal/b ü, anomalous/c": "id,label\nNormal/a,0\n",
}


@pytest.mark.parametrize("message", FAULTS)
def test_faulty_lists_are_named(make, root, message):
    (root / "labels.csv").write_text(FAULTS[message], encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        make().cases(root)
    assert "1.2.3.4.5" not in str(caught.value)


def test_what_the_tree_does_not_say_is_asked_for(make, root, tmp_path):
    with pytest.raises(UserError, match=r"3 series have no label.* put them into folders named ill or well"):
        make(normal=("well",), anomalous=("ill",)).cases(root)
    with pytest.raises(UserError, match="no DICOM images of modality MR"):
        make(modality="MR").cases(root)
    with pytest.raises(UserError, match=r"the table cannot be read"):
        make(labels="gone.csv").cases(root)
    with pytest.raises(UserError, match="no DICOM images"):
        make().cases(_made(tmp_path / "empty"))
    write_mask(root / "masks" / "nobody.nii.gz", np.eye(4))
    with pytest.raises(UserError, match=r"nobody\.nii\.gz: no series has the id nobody"):
        make().cases(root)


def test_series_without_a_label_can_be_ignored(make, root):
    (root / "labels.csv").write_text("id,label\nNormal/a,0\n")
    assert [case.id for case in make(unlisted="ignore").cases(root)] == ["Normal/a"]


def test_the_whole_road_and_nothing_identifying_in_the_store(make, tmp_path):
    data = make(
        source="twin",
        twin_size=64,
        train_normals=0.5,
        patch_size=(16, 16),
        volume={"window": [40, 80], "spacing": [6, 6, 6]},
        cut={"label": "mask", "foreground": 0.5},
    )
    data.setup()
    assert {name for name, rows in data.rows.items() if len(rows)} == {"train", "val", "test"}
    assert set(data.store.labels) == {0, 1}
    stored = [path for path in (tmp_path / "store").rglob("*") if path.is_file() and "twins" not in path.parts]
    assert stored
    assert not any(secret in path.read_bytes() for path in stored for secret in (b"SYN0", b"Synthetic^"))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def anonymous(tmp_path: Path) -> Path:
    """Six series of which a tool has made one patient."""
    for number in range(6):
        folder = tmp_path / "anonymous" / ("normal" if number < 4 else "anomalous") / f"p{number // 2}_{number}"
        stored = np.random.default_rng(number).integers(900, 1200, SHAPE).astype(np.uint16)
        write_dicom_series(folder, stored, SeriesInstanceUID=f"{UID}.{number}", PatientID="ANONYMOUS")
    return tmp_path / "anonymous"


def test_one_patient_id_for_all_is_named_as_the_cause(make, anonymous):
    with pytest.raises(UserError, match=r"all 6 series have the same PatientID.*data\.patient.*pattern.*CSV") as caught:
        make(root=str(anonymous)).setup()
    assert "ANONYMOUS" not in str(caught.value)
    data = make(root=str(anonymous), volume={"window": [40, 80]})
    data.setup("inspect")
    assert "data.patient" in data.unsplit


@pytest.mark.parametrize("pattern", ["*/{patient}_*", "**/{patient}_?/*", "normal/{patient}_*", "*/{patient}_*/*"])
def test_a_pattern_says_who_is_who(make, anonymous, pattern):
    if pattern.startswith("normal"):
        with pytest.raises(UserError, match=r"data\.patient=normal/.* finds no patient in its path"):
            make(patient=pattern).cases(anonymous)
        return
    patients = {case.id: case.patient for case in make(patient=pattern).cases(anonymous)}
    assert patients["normal/p0_0"] == patients["normal/p0_1"] != patients["normal/p1_2"]
    assert set(patients.values()) == {"patient 001", "patient 002", "patient 003"}


@pytest.mark.parametrize("pattern", ["*/p*", "{patient}/{patient}", "patient"])
def test_a_pattern_without_a_patient_is_refused(make, pattern):
    with pytest.raises(UserError, match=r"data\.patient=.*it needs one \{patient\}"):
        make(patient=pattern)


def test_a_pattern_takes_apart_what_shares_a_uid(make, tmp_path):
    for name in "ab":
        write_dicom_series(tmp_path / "one" / "normal" / name, np.ones(SHAPE, np.uint16), PatientID="ANONYMOUS")
    cases = make(patient="*/{patient}").cases(tmp_path / "one")
    assert [(case.id, case.patient) for case in cases] == [("normal/a", "patient 001"), ("normal/b", "patient 002")]


def test_a_csv_says_who_is_who(make, anonymous):
    rows = [f"{'normal' if i < 4 else 'anomalous'}/p{i // 2}_{i},{int(i > 3)},MRN{i // 3}" for i in range(6)]
    (anonymous / "labels.csv").write_text("\n".join(["id,label,patient", *rows]))
    cases = make(patient="labels.csv").cases(anonymous)
    assert [int(case.patient[-1]) for case in cases] == [1, 1, 2, 2, 2, 1]  # anomalous/p2_4 comes first
    (anonymous / "labels.csv").write_text("\n".join(["id,label,patient", *rows[:-1]]))
    with pytest.raises(UserError, match=r"labels\.csv: 1 series have no patient, anomalous/p2_5"):
        make(patient="labels.csv").cases(anonymous)


def test_two_views_of_a_patient_are_two_cases(make, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7)).astype(np.uint8)
    for number in range(2):
        save(chest(pixels + number), tmp_path / "one" / "normal" / "p00" / f"{number}.dcm")
    cases = make().cases(tmp_path / "one")
    assert [case.id for case in cases] == ["normal/p00/0", "normal/p00/1"]
    assert len({case.patient for case in cases}) == 1


def test_what_is_left_out_is_counted_by_kind_and_can_be_asked_for(make, root):
    capture = {"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT", "SeriesInstanceUID": f"{UID}.7"}
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7)).astype(np.uint8)
    save(chest(pixels, **capture), root / "Normal" / "a" / "screen.dcm")
    data = make()
    assert [case.id for case in data.cases(root)] == ["Normal/a", "Normal/b ü", "anomalous/c"]
    census = data.census(data.cases(root))
    assert census["left out: Secondary Capture Image Storage"] == 1
    assert census["other_files"] == 2
    with pytest.raises(UserError, match=r"modality OT among what is left out \(1 × Secondary Capture Image Storage"):
        make(modality="OT").cases(root)
    (only,) = make(modality="OT", include=("Secondary Capture Image Storage",)).cases(root)
    assert data.read(only).affine is None


def test_an_unreadable_file_is_left_out_and_counted_on_request(make, root):
    (root / "Normal" / "a" / "broken.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 200)
    with pytest.raises(UserError, match=r"broken\.dcm"):
        make().cases(root)
    data = make(on_bad="skip")
    assert data.census(data.cases(root))["left out: unreadable"] == 1


def test_masks_in_a_folder_that_is_spelt_otherwise_are_found(make, root):
    write_mask(root / "Masks" / "nobody.nii.gz", np.eye(4))
    with pytest.raises(UserError, match=r"Masks/nobody\.nii\.gz: no series has the id nobody"):
        make().setup()


def test_two_masks_of_a_series_are_refused(make, root):
    affine = make().read(make().cases(root)[2]).affine
    for suffix in (".nii", ".nii.gz"):
        write_mask(root / "masks" / "anomalous" / f"c{suffix}", affine)
    with pytest.raises(UserError, match=r"anomalous/c has another mask, .*remove one"):
        make().cases(root)


def test_a_series_in_folders_of_both_labels_has_none(make, root):
    files = sorted((root / "Normal" / "a").iterdir())
    files[0].rename(root / "anomalous" / "stray")
    with pytest.raises(UserError, match="1 series have no label"):
        make().cases(root)


def test_the_list_may_have_capitals(make, root):
    (root / "Labels.CSV").write_text("id,label\nNormal/a,1\nNormal/b ü,1\nanomalous/c,0\n")
    assert [case.label for case in make().cases(root)] == [1, 1, 0]


def test_anomalous_series_without_masks_name_the_way_out(make, root):
    data = make(cut={"label": "mask"}, volume={"window": [40, 80]}, train_normals=1, val_fraction=0.0)
    with pytest.raises(UserError, match=r"has no mask.* set data\.cut\.label=case"):
        data.setup()


@pytest.mark.parametrize("spelt", ["masks", "Masks"])
def test_masks_of_new_series_are_found_and_no_scans(make, root, spelt: str):
    data, masks = make(), root / spelt
    first = root / "Normal" / "a" / sorted(path.name for path in (root / "Normal" / "a").iterdir())[0]
    write_mask(masks / "Normal" / "a.nii.gz", np.eye(4))
    (masks / "view.png").touch()
    for source in (root, root / "Normal", root / "Normal" / "a"):
        assert data.known_mask(first, source) == masks / "Normal" / "a.nii.gz"
        assert data.role(first, source) == "scan"
    assert data.known_mask(root / "view.dcm", root) == masks / "view.png"
    assert data.known_mask(root / "other.dcm", root) is None
    assert {data.role(path, root) for path in (masks).rglob("*.*")} == {"mask"}
