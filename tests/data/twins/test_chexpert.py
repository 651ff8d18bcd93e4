import csv

import numpy as np
import pytest
from PIL import Image

from anomaly_lab.data.twins.chexpert import FINDINGS, RELEASE, write_twin


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    root = tmp_path_factory.mktemp("twin")
    write_twin(root, seed=0, size=80)
    return root / RELEASE


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_twin_has_the_official_layout(release):
    train, valid = rows(release / "train.csv"), rows(release / "valid.csv")
    assert (len(train), len(valid)) == (80, 8)
    assert list(train[0])[5:] == list(FINDINGS)
    for listed in (*train, *valid):
        assert (release.parent / listed["Path"]).is_file()
    assert {(row["Frontal/Lateral"], row["AP/PA"]) for row in train} == {
        ("Frontal", "PA"),
        ("Frontal", "AP"),
        ("Lateral", ""),
    }
    assert {row[finding] for row in train for finding in FINDINGS} == {"1.0", "0.0", "-1.0", ""}
    assert {row[finding] for row in valid for finding in FINDINGS} == {"1.0", "0.0"}
    patients = [{row["Path"].split("/")[2] for row in listed} for listed in (train, valid)]
    assert not patients[0] & patients[1]
    assert len(patients[0]) < 80  # some come twice


def test_sizes_vary_and_lesions_are_brighter_than_the_other_side(release):
    brighter, sizes = [], set()
    for path in (release / "masks").rglob("*.png"):
        mask = np.asarray(Image.open(path)) > 0
        picture = Image.open((release / "train" / path.relative_to(release / "masks")).with_suffix(".jpg"))
        image = np.asarray(picture).astype(float)
        assert picture.mode == "L"
        assert mask.shape == image.shape
        sizes.add(picture.size)
        brighter.append(image[mask].mean() > image[:, ::-1][mask].mean())
    assert len(sizes) > 10
    assert np.mean(brighter) > 0.75


def test_picture_depends_on_seed_and_number_alone(tmp_path):
    for name, seed, size in (("a", 0, 2), ("b", 0, 6), ("c", 1, 2)):
        write_twin(tmp_path / name, seed, size)
    path = f"{RELEASE}/train/patient00001/study1/view1_frontal.jpg"
    first, longer, other = ((tmp_path / name / path).read_bytes() for name in "abc")
    assert first == longer != other
