from collections import Counter

import numpy as np
import pytest
from data_sections import sections
from PIL import Image

from anomaly_lab.data.datasets.tsukazaki import Tsukazaki
from anomaly_lab.types import UserError

DISEASES = ("AMD", "RVO", "Gla", "MH", "DR", "RD", "RP", "AO", "DM")
HEADER = "filename,age,sex,LR," + ",".join(DISEASES)
EYES = {  # diagnoses of each photograph: patients 1 to 8 are healthy, 9 in one eye
    **{f"{patient:06d}_{i:02d}": "" for patient in range(1, 9) for i in range(2)},
    "000009_00": "",
    "000009_01": "DR DM",
    "000010_00": "DR DM",
    "000011_00": "Gla DR",
    "000011_01": "Gla",
    "000012_00": "AMD RD",
    "000013_00": "AO RVO DM",
    "000014_00": "DM",
    "000015_00": "MH",
    "000016_00": "RP",
    "000017_00": "AMD",
}


def row(name, diagnoses):
    return f"{name}.jpg,60,F,L," + ",".join(str(int(disease in diagnoses.split())) for disease in DISEASES)


ROWS = [row(*eye) for eye in EYES.items()]


def write(root, rows=ROWS):
    (root / "data.csv").write_text("\n".join([HEADER, *rows]) + "\n")


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "眼底 写真"
    (root / "images").mkdir(parents=True)
    write(root)
    for i, name in enumerate(EYES):
        pixels = np.random.default_rng(i).integers(0, 256, (18, 24, 3), np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{name}.jpg")
    return root


@pytest.fixture
def make(root, tmp_path):
    def make(**changes) -> Tsukazaki:
        arguments = {"root": str(root), "patch_size": (16, 16), "in_channels": 3, "batch_size": 2}
        return Tsukazaki(
            **sections(**(arguments | {"store_dir": str(tmp_path / "store"), "train_normals": 0.6} | changes))
        )

    return make


def kinds(cases):
    return Counter(case.class_name for case in cases)


CLASSES = {
    "gan": {"normal": 17, "DR": 3, "Gla": 1, "AMD": 2, "AO": 1, "DM": 1, "MH": 1, "RP": 1},
    1: {"normal": 17, "abnormal": 10},
    2: {"normal": 17, "DR": 2, "Gla": 1},
    3: {"normal": 17, "DR": 2, "Gla": 2, "AMD": 2, "AO": 1, "DM": 1, "MH": 1, "RP": 1},
    4: {"normal": 2, "AMD": 2},
    5: {"AMD": 2, "RVO": 1, "MH": 1, "RP": 1},
}
CLASSES["gan"] = CLASSES[3]


@pytest.mark.parametrize("task", CLASSES)
def test_tasks_take_their_classes(make, root, task):
    cases = make(task=task).cases(root)
    assert kinds(cases) == CLASSES[task]
    assert all(case.label == (case.class_name != "normal") for case in cases)
    assert [case.id for case in cases] == sorted(case.id for case in cases)


def test_task_4_takes_as_many_normals_as_pictures_with_the_disease(make, root):
    for disease in ("RVO", "MH", "RD", "RP", "AO"):
        assert kinds(make(task=4, disease=disease).cases(root)) == {disease: 1, "normal": 1}


def test_rows_are_matched_with_pictures_and_people(make, root):
    cases = {case.id: case for case in make(task=3).cases(root)}
    assert cases["000012_00"].class_name == "AMD"  # RD is the more common
    assert cases["000009_00"].patient == cases["000009_01"].patient == "000009"
    assert cases["000001_01"].image == root / "images" / "000001_01.jpg"
    assert {case.patient for case in make(task=3, image_level=True).cases(root)} == cases.keys()


def test_pictures_may_lie_beside_the_list(make, root):
    before = make().cases(root)
    for path in (root / "images").iterdir():
        path.rename(root / path.name)
    (root / "images").rmdir()
    assert [case.id for case in make().cases(root)] == [case.id for case in before]


def test_setup_keeps_people_apart_unless_told_otherwise(make):
    data = make()
    data.setup()
    facts = data.facts()
    assert facts["audit"]["shared_patients"] == []
    assert facts["patients"]["train"] + facts["patients"]["val"] == 5
    assert facts["census"]["images"] == 27
    assert facts["census"]["DM"] == 4
    mixed = make(image_level=True)
    mixed.setup()
    assert mixed.facts()["patients"]["train"] + mixed.facts()["patients"]["val"] == 10


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """A list of 950 healthy people, 20 with one eye ill, and 1000 ill ones of two photographs; empty pictures."""
    root = tmp_path_factory.mktemp("crowd")
    (root / "images").mkdir()
    names = {f"{i:06d}_{k:02d}": "" for i in range(950) for k in range(2)}
    names |= {f"{i:06d}_00": "" for i in range(950, 970)} | {f"{i:06d}_01": "Gla" for i in range(950, 970)}
    names |= {f"{i:06d}_{k:02d}": "DR DM" for i in range(1000, 2000) for k in range(2)}
    write(root, [row(*eye) for eye in names.items()])
    for name in names:
        (root / "images" / f"{name}.jpg").touch()
    return root


@pytest.mark.parametrize(("task", "anomalous"), [("gan", 1736), ("gan_balanced", 866)])
def test_gan_protocol_draws_the_published_numbers_one_of_each_person_first(make, crowd, task, anomalous):
    cases = make(task=task).cases(crowd)
    normal = [case for case in cases if case.label == 0]
    assert (len(normal), len(cases) - len(normal)) == (872, anomalous)
    assert len({case.patient for case in normal}) == 872  # so that 80 % of the people are 698 pictures
    assert round(0.8 * 872) == 698
    assert not {case.patient for case in normal} & {case.patient for case in cases if case.label}
    ill = {case.patient for case in cases if case.label}
    assert len(ill) == min(1020, anomalous)


def test_the_sample_follows_its_own_seed(make, crowd):
    ids = [{case.id for case in make(**seeds).cases(crowd)} for seeds in ({}, {"seed": 5}, {"sample_seed": 5})]
    assert ids[0] == ids[1] != ids[2]


FAULTS = {
    r"line 29: 000001_00 appears twice": [*ROWS, ROWS[0]],
    r"line 29: 'x.jpg' is not <6-digit": [*ROWS, ROWS[0].replace("000001_00", "x")],
    r"line 2: AMD is '2', not 0 or 1": [ROWS[0].replace("L,0", "L,2"), *ROWS[1:]],
    r"line 2: AMD is '', not 0 or 1": [ROWS[0].replace("L,0", "L,"), *ROWS[1:]],
    r"line 2: 12 cells under 13": [ROWS[0].rpartition(",")[0], *ROWS[1:]],
    r"rows without a picture in .*: 000099_00": [*ROWS, ROWS[0].replace("000001_00", "000099_00")],
    r"pictures without a row in .*: 000001_00": ROWS[1:],
}


@pytest.mark.parametrize("message", FAULTS)
def test_faulty_rows_are_named(make, root, message):
    write(root, FAULTS[message])
    with pytest.raises(UserError, match=message) as caught:
        make().cases(root)
    assert "data.csv" in str(caught.value)


def test_missing_list_columns_pictures_and_unknown_options_are_named(make, root):
    (root / "data.csv").write_text(HEADER.replace("Gla", "Glaucoma") + "\n")
    with pytest.raises(UserError, match="columns Gla are missing"):
        make().cases(root)
    write(root)
    (root / "images").rename(root / "pictures")
    with pytest.raises(UserError, match="no pictures here or in the folder images"):
        make().cases(root)
    (root / "data.csv").unlink()
    with pytest.raises(UserError, match=r"data\.csv: the table cannot be read"):
        make().cases(root)
    with pytest.raises(UserError, match=r"data\.task=6"):
        make(task=6)
    with pytest.raises(UserError, match=r"data\.disease=DM"):
        make(task=4, disease="DM")


def test_a_whole_list_must_have_the_official_sums(make, monkeypatch):
    found = make().census([])
    monkeypatch.setattr(Tsukazaki, "official", found | {"AO": 2})
    with pytest.raises(UserError, match="1 AO, the official set has 2"):
        make().setup()


@pytest.mark.parametrize(
    ("task", "several", "expected"),
    [
        (2, "rarest", {"normal": 17, "DR": 2, "Gla": 2}),  # the eye with both is one of glaucoma, which is rarer
        (3, "drop", {"normal": 17, "Gla": 1, "AMD": 1, "DM": 1, "MH": 1, "RP": 1}),
        (5, "drop", {"AMD": 1, "RVO": 1, "MH": 1, "RP": 1}),
    ],
)
def test_an_eye_with_two_diagnoses_has_the_rarer_one_or_is_left_out(make, root, task, several, expected):
    assert kinds(make(task=task, several=several).cases(root)) == expected


def test_all_diagnoses_of_an_eye_are_learnt(make):
    data = make(task=3, supervision="labels", target_type="multilabel", classes=("Gla", "DR", "DM"), val_fraction=0.3)
    data.setup()
    targets = dict(zip(data.store.index.columns["id"], data.targets.tolist(), strict=True))
    assert len(targets) == len(EYES)
    for eye, diagnoses in EYES.items():
        assert targets[eye] == [int(disease in diagnoses.split()) for disease in ("Gla", "DR", "DM")]


def test_splitting_by_picture_is_a_caveat(make):
    assert make().caveats == ()
    assert len(make(image_level=True).caveats) == 1
