import csv

import numpy as np
import pytest

from anomaly_lab.data.twins.rsna import write_twin


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    root = tmp_path_factory.mktemp("twin")
    write_twin(root, seed=0, size=60)
    return root


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_twin_has_the_official_layout(twin):
    labels, classes = rows(twin / "stage_2_train_labels.csv"), rows(twin / "stage_2_detailed_class_info.csv")
    pictures = {path.stem for path in (twin / "stage_2_train_images").glob("*.dcm")}
    assert len(pictures) == 60
    assert pictures == {row["patientId"] for row in labels}
    assert [row["patientId"] for row in labels] == [row["patientId"] for row in classes]
    assert len(labels) > 60  # several boxes
    of = {row["patientId"]: row["class"] for row in classes}
    assert sorted(list(of.values()).count(kind) for kind in set(of.values())) == [9, 15, 36]
    assert all((row["Target"] == "1") == (of[row["patientId"]] == "Lung Opacity") for row in labels)


def test_files_are_dicom_of_both_kinds_and_name_nobody(twin):
    from pydicom import dcmread

    kinds = set()
    for path in (twin / "stage_2_train_images").iterdir():
        header = dcmread(path)
        assert (header.BitsStored, header.pixel_array.dtype) == (8, np.uint8)
        assert (header.PatientName, header.PatientID) == ("", "")
        kinds.add(header.PhotometricInterpretation)
    assert kinds == {"MONOCHROME1", "MONOCHROME2"}


def test_opacities_are_brighter_than_the_other_side(twin):
    from pydicom import dcmread

    brighter = []
    for row in rows(twin / "stage_2_train_labels.csv"):
        header = dcmread(twin / "stage_2_train_images" / f"{row['patientId']}.dcm")
        if row["Target"] == "1" and header.PhotometricInterpretation == "MONOCHROME2":
            x, y, width, height = (int(float(row[side])) for side in ("x", "y", "width", "height"))
            here, there = (
                image[y : y + height, x : x + width] for image in (header.pixel_array, header.pixel_array[:, ::-1])
            )
            brighter.append(here.mean() > there.mean())
    assert np.mean(brighter) > 0.75


def test_picture_depends_on_seed_and_number_alone(tmp_path):
    for name, seed, size in (("a", 0, 2), ("b", 0, 4), ("c", 1, 2)):
        write_twin(tmp_path / name, seed, size)
    first, longer, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.dcm")} for name in "abc"
    )
    assert first.items() <= longer.items()
    assert not first.keys() & other.keys()
