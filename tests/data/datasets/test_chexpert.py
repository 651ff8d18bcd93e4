import numpy as np
import pytest
from data_sections import sections
from PIL import Image

from anomaly_lab.data.datasets.chexpert import ANOMALIES, CheXpert
from anomaly_lab.data.twins.chexpert import FINDINGS
from anomaly_lab.types import UserError

HEADER = ",".join(("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS))


def row(patient, view="PA", split="train", prefix="CheXpert-v1.0-small/", study=1, **findings):
    """One line of a list; findings by name with _ for spaces."""
    frontal = "Lateral" if view == "" else "Frontal"
    path = f"{prefix}{split}/patient{patient:05d}/study{study}/view1_{frontal.lower()}.jpg"
    cells = {name.replace("_", " "): str(value) for name, value in findings.items()}
    return ",".join((path, "Female", "50", frontal, view, *(cells.get(finding, "") for finding in FINDINGS)))


ROWS = [
    *(row(i, No_Finding=1.0) for i in range(1, 7)),
    row(1, study=2, No_Finding=1.0, Support_Devices=1.0),
    row(2, study=2, No_Finding=1.0, Edema=-1.0),  # uncertain beside No Finding: neither
    row(7, Edema=1.0, Lung_Opacity=1.0),
    row(8, Cardiomegaly=1.0, Pneumonia=1.0, Pneumothorax=-1.0),
    row(9, Edema=-1.0),
    row(10, Fracture=1.0),
    row(11, Support_Devices=1.0),
    row(12, "AP", No_Finding=1.0),
    row(13, "AP", Pneumothorax=1.0, Consolidation=1.0),
    row(14, "", No_Finding=1.0),
    row(15, "LL", No_Finding=1.0),
]
VALID = [row(64541, split="valid", No_Finding=1.0, Edema=0.0), row(64542, split="valid", Edema=1.0, No_Finding=0.0)]


def write(release, rows=ROWS, valid=VALID):
    """Write lists and the pictures they name, one on one of three sizes."""
    release.mkdir(parents=True, exist_ok=True)
    for name, lines in (("train", rows), ("valid", valid)):
        (release / f"{name}.csv").write_text("\n".join([HEADER, *lines]) + "\n")
        for number, line in enumerate(lines):
            path = release / name / line.split(",")[0].partition(f"{name}/")[2]
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (20 + number % 3, 18), np.uint8)
            Image.fromarray(pixels).save(path)
    return release.parent


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "Röntgen bilder" / "CheXpert-v1.0-small")


@pytest.fixture
def make(root, tmp_path):
    def make(**changes) -> CheXpert:
        arguments = {"root": str(root), "patch_size": (16, 16), "batch_size": 2, "store_dir": str(tmp_path / "store")}
        return CheXpert(**sections(**(arguments | {"train_normals": 3, "val_fraction": 0.3} | changes)))

    return make


def kinds(cases):
    return {int(case.patient[-2:]): case.class_name for case in cases}


def test_normal_and_anomalous_pa_pictures_are_cases(make, root):
    cases = make().cases(root)
    assert kinds(cases) == dict.fromkeys(range(1, 7), "") | {7: "Edema", 8: "Cardiomegaly"}
    assert [case.label for case in cases] == [0] * 7 + [1] * 2
    assert [case.id for case in cases if case.patient == "patient00001"] == [
        "patient00001-study1-view1_frontal",
        "patient00001-study2-view1_frontal",
    ]
    assert all(case.split is None and case.mask is None and case.image.is_file() for case in cases)


@pytest.mark.parametrize(
    ("view", "expected"),
    [("AP", {12: "", 13: "Pneumothorax"}), ("frontal", {12: "", 13: "Pneumothorax", 15: ""})],
)
def test_other_views_can_be_asked_for(make, root, view, expected):
    assert expected.items() <= kinds(make(view=view).cases(root)).items()
    assert (7 in kinds(make(view=view).cases(root))) == (view == "frontal")


def test_pneumonia_alone_can_be_judged(make, root):
    anomalous = [case for case in make(pneumonia_only=True).cases(root) if case.label]
    assert kinds(anomalous) == {8: "Pneumonia"}


@pytest.mark.parametrize("finding", [f for f in FINDINGS if f not in ("No Finding", "Support Devices")])
@pytest.mark.parametrize(("value", "mentioned"), [("1.0", True), ("-1.0", True), ("0.0", False), ("", False)])
def test_normal_means_nothing_else_present_or_uncertain(make, tmp_path, finding, value, mentioned):
    line = row(1, No_Finding="1.0", **{finding.replace(" ", "_"): value})
    cases = make().cases(write(tmp_path / "one" / "CheXpert-v1.0", [line]))
    expected = {} if mentioned else {1: ""}
    assert kinds(cases) == ({1: finding} if finding in ANOMALIES and value == "1.0" else expected)


@pytest.mark.parametrize("prefix", ["", "CheXpert-v1.0/", "CheXpert-v1.0-small/", "my data/x/"])
@pytest.mark.parametrize("release", ["CheXpert-v1.0", "CheXpert-v1.0-small", "."])
def test_path_may_begin_with_any_release(make, tmp_path, prefix, release):
    folder = tmp_path / "other"
    write(folder / release, [row(1, prefix=prefix, No_Finding=1.0), row(2, prefix=prefix, Edema=1.0)])
    assert kinds(make().cases(folder)) == {1: "", 2: "Edema"}


def test_two_releases_are_not_chosen_between(make, root):
    write(root / "CheXpert-v1.0")
    with pytest.raises(UserError, match=r"two releases.*set data\.root"):
        make().cases(root)
    assert make().cases(root / "CheXpert-v1.0")


def test_owners_split_is_used_when_asked_for(make, root):
    cases = make(use_valid=True).cases(root)
    assert [(case.id, case.label, case.split) for case in cases[-2:]] == [
        ("patient64541-study1-view1_frontal", 0, "test"),
        ("patient64542-study1-view1_frontal", 1, "test"),
    ]
    assert {case.split for case in cases[:-2]} == {"train"}
    data = make(use_valid=True)
    data.setup()
    counts = data.facts()["counts"]
    assert counts["test"] == {"normal": 1, "anomalous": 1}
    assert counts["train"]["normal"] + counts["val"]["normal"] == 7
    assert counts["train"]["anomalous"] == 0


def test_patient_in_both_lists_is_refused(make, tmp_path):
    folder = write(tmp_path / "both" / "CheXpert-v1.0", ROWS, [row(3, split="valid", No_Finding=1.0)])
    with pytest.raises(UserError, match=r"valid\.csv: patients that are also in train\.csv: patient00003"):
        make(use_valid=True).cases(folder)


def test_census_counts_the_list_whatever_is_used(make, root):
    data = make()
    cases = data.cases(root)
    assert data.census(cases) == {"images": len(ROWS), "frontal": len(ROWS) - 1, "lateral": 1}
    assert CheXpert.official["frontal"] + CheXpert.official["lateral"] == CheXpert.official["images"]


FAULTS = {
    r"line 3: Path .* appears twice": [ROWS[0], ROWS[0]],
    r"line 2: Path 'x\.jpg' is not of the form": [ROWS[0].replace(ROWS[0].split(",")[0], "x.jpg")],
    r"line 2: Path '.*\.\./.*' is not of the form": [ROWS[0].replace("patient00001", "..")],
    r"line 2: Path .*valid.* is not of the form …/train/": [VALID[0]],
    r"line 2: the value '2' of a finding is not 1, 0, -1 or blank": [row(1, No_Finding=2)],
    r"line 2: the value 'yes' of a finding": [row(1, Fracture="yes")],
    r"line 2: Frontal/Lateral is 'Front', not Frontal": [ROWS[0].replace("Frontal", "Front")],
    r"line 2: 18 cells under 19 columns": [ROWS[0].rpartition(",")[0]],
}


@pytest.mark.parametrize("message", FAULTS)
def test_faulty_rows_are_named(make, root, message):
    lists = root / "CheXpert-v1.0-small" / "train.csv"
    lists.write_text("\n".join([HEADER, *FAULTS[message]]) + "\n")
    with pytest.raises(UserError, match=message) as caught:
        make().cases(root)
    assert str(lists) in str(caught.value)


def test_missing_columns_lists_and_pictures_are_named(make, root):
    release = root / "CheXpert-v1.0-small"
    picture = release / "train/patient00007/study1/view1_frontal.jpg"
    picture.unlink()
    with pytest.raises(UserError, match=r"train\.csv: rows without a picture: 1, first .*patient00007"):
        make().cases(root)
    (release / "train.csv").write_text(HEADER.replace("Edema", "Oedema") + "\n")
    with pytest.raises(UserError, match=r"train\.csv: the columns Edema are missing"):
        make().cases(root)
    (release / "train.csv").unlink()
    with pytest.raises(UserError, match=r"no train\.csv, nor one in .*; get CheXpert"):
        make().cases(root)
    with pytest.raises(UserError, match=r"data\.view=LL: takes PA, AP or frontal"):
        make(view="LL")


def test_twin_goes_the_whole_way_with_patients_apart(make):
    data = make(
        source="twin", twin_size=60, limits={"train": 9, "test_normal": 4, "test_anomalous": 7}, train_normals=0.6
    )
    data.setup()
    facts = data.facts()
    assert facts["counts"]["train"] == {"normal": 9, "anomalous": 0}
    assert facts["counts"]["test"] == {"normal": 4, "anomalous": 7}
    split_of = {}
    for case in data.cases(data.folder):
        split_of.setdefault(case.patient, set()).add(data.split[case.id])
    assert all(len(sides) == 1 for sides in split_of.values())
    assert len(split_of) < len(data.cases(data.folder))  # some come twice


LEARNT = {"supervision": "labels", "target_type": "multilabel", "classes": ("Edema", "Lung Opacity", "Pneumothorax")}


def test_every_finding_is_learnt_and_an_uncertain_one_is_unknown(make, root):
    cases = {case.patient: case for case in make(**LEARNT).cases(root)}
    assert cases["patient00007"].class_name.split("+") == ["Edema", "Lung Opacity"]
    assert cases["patient00008"].unknown == ("Pneumothorax",)


def test_a_row_that_says_both_is_refused_where_labels_are_learnt(make, tmp_path):
    root = write(tmp_path / "both" / "CheXpert-v1.0-small", [*ROWS, row(16, No_Finding=1.0, Edema=1.0)])
    make().cases(root)
    with pytest.raises(UserError, match=r"line 19: No Finding and Edema are both 1; correct the row or remove it"):
        make(**LEARNT).cases(root)
