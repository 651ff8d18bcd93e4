import shutil

import numpy as np
from PIL import Image


def _copy_with_noise(source, target):
    pixels = np.asarray(Image.open(source)).copy()
    pixels[0, 0] ^= 4
    Image.fromarray(pixels).save(target)


def test_identical_and_near_identical_pictures_are_found(make, headct):
    folder = headct / "head_ct" / "head_ct"
    shutil.copy(folder / "005.png", folder / "009.png")
    _copy_with_noise(folder / "001.png", folder / "007.png")
    data = make(patch_size=(32, 32))
    data.setup()
    found = data.facts()["audit"]
    split = {data.store.index[row]["id"]: name for name, rows in data.rows.items() for row in rows}
    assert found["identical"] == [{"ids": ["005", "009"], "splits": [split["005"], split["009"]]}]
    (near,) = found["near_identical"]
    assert near["ids"] == ["001", "007"]
    assert 0 < near["distance"] < 0.02
    assert found["crossing"] == (split["005"] != split["009"]) + (split["001"] != split["007"])
    assert found["checked"] == 13
    assert found["shared_patients"] == []


def test_identical_pictures_that_are_labelled_both_ways_are_named(make, headct):
    folder = headct / "head_ct" / "head_ct"
    shutil.copy(folder / "005.png", folder / "001.png")  # the first three are anomalous
    shutil.copy(folder / "006.png", folder / "007.png")
    data = make()
    data.setup()
    found = data.facts()["audit"]
    assert [pair["ids"] for pair in found["contradicting"]] == [["001", "005"]]
    assert len(found["identical"]) == 2


def test_patient_in_two_splits_is_found(make):
    data = make()
    data.setup()
    data.rows = {"train": np.array([5]), "val": np.array([5]), "test": np.array([0])}
    patients = data.store.index.columns["patient"]
    patients[0] = patients[5]
    assert data.facts()["audit"]["shared_patients"] == ["005"]
