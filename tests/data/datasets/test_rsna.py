import numpy as np
import pytest
from data_sections import sections
from PIL import Image

from anomaly_lab.data.datasets.rsna import FRAME, NORMAL, OPACITY, OTHER, RSNA
from anomaly_lab.data.twins.rsna import SIDE, write_twin
from anomaly_lab.types import UserError

IDS = [f"0004cfab-{i:02d}" for i in range(9)]
LABELS = "patientId,x,y,width,height,Target\n" + "".join(f"{i},,,,,0\n" for i in IDS[:7])
LABELS += f"{IDS[7]},512.0,0.0,256.0,128.0,1\n{IDS[7]},0.0,512.0,128.0,512.0,1\n{IDS[8]},896.0,896.0,128.0,128.0,1\n"
KINDS = [NORMAL] * 5 + [OTHER] * 2 + [OPACITY] * 2
CLASSES = "patientId,class\n" + "".join(f"{i},{kind}\n" for i, kind in zip(IDS, KINDS, strict=True))
CLASSES += f"{IDS[7]},{OPACITY}\n"  # as many rows as boxes


@pytest.fixture
def root(tmp_path):
    """PNG copies of nine pictures, 64×64 instead of 1024×1024."""
    root = tmp_path / "Röntgen bilder"
    (root / "stage_2_train_images").mkdir(parents=True)
    for number, i in enumerate(IDS):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64), np.uint8)
        Image.fromarray(pixels).save(root / "stage_2_train_images" / f"{i}.png")
    (root / "stage_2_train_labels.csv").write_text(LABELS)
    (root / "stage_2_detailed_class_info.csv").write_text(CLASSES)
    return root


@pytest.fixture
def make(root, tmp_path):
    def make(**changes) -> RSNA:
        arguments = {"root": str(root), "patch_size": (16, 16), "batch_size": 2, "store_dir": str(tmp_path / "store")}
        return RSNA(**sections(**(arguments | {"train_normals": 3, "val_fraction": 0.3} | changes)))

    return make


def test_boxes_and_classes_become_one_case_an_id(make, root):
    cases = make().cases(root)
    assert [(case.id, case.label, case.class_name) for case in cases] == [
        *((i, 0, "") for i in IDS[:5]),
        *((i, 1, OPACITY) for i in IDS[7:]),
    ]
    everything = make(anomalies="all_abnormal").cases(root)
    assert [(case.class_name, case.mask is None) for case in everything[5:]] == [(OTHER, True)] * 2 + [
        (OPACITY, False)
    ] * 2


def test_census_is_of_the_lists_whatever_is_judged(make, root):
    data = make()
    cases = data.cases(root)
    counts = {"images": 9, "rows of stage_2_train_labels.csv": 10, NORMAL: 5, OTHER: 2, OPACITY: 2}
    assert data.census(cases) == counts
    assert counts.keys() == RSNA.official.keys()
    assert sum(RSNA.official[kind] for kind in (NORMAL, OTHER, OPACITY)) == RSNA.official["images"]


def test_mask_is_the_union_of_the_boxes_in_the_copys_own_pixels(make, root):
    data = make()
    normal, *_, two, corner = data.cases(root)
    expected = np.zeros((1, 64, 64), bool)
    expected[:, :8, 32:48] = expected[:, 32:64, :8] = True
    assert np.array_equal(data.read(two).mask, expected)
    mask = data.read(corner).mask
    assert mask[:, 56:, 56:].all()
    assert mask.sum() == 64
    assert data.read(normal).mask is None
    assert data.read(normal).pixels.shape == (1, 64, 64)


def test_changed_boxes_are_read_again(make, root):
    data = make()
    case = data.cases(root)[-1]
    before = data.read(case).mask.sum()
    labels = root / "stage_2_train_labels.csv"
    labels.write_text(LABELS.replace("896.0,896.0,128.0,128.0", "0,0,1024,1024"))
    assert before < data.read(case).mask.sum() == 64 * 64


def test_pictures_of_other_patients_need_not_be_there(make, root):
    (root / "stage_2_train_images" / f"{IDS[5]}.png").unlink()
    data = make()
    assert len(data.cases(root)) == 7
    assert data.census([])["images"] == 8
    with pytest.raises(UserError, match=f"ids without a picture: {IDS[5]}"):
        make(anomalies="all_abnormal").cases(root)


@pytest.mark.parametrize("folder", ["stage_2_train_images_png", "images"])
def test_png_copies_may_lie_elsewhere(make, root, folder):
    (root / "stage_2_train_images").rename(root / folder)
    assert len(make().cases(root)) == 7


NOTHING = ("", "")
LISTED = f"0004cfab-xx,{NORMAL}\n"
FAULTS = [  # message, then what is replaced by what in the labels and in the classes; "" adds to the end
    (r"pictures without a label: 0004cfab-00;", (f"{IDS[0]},,,,,0\n", ""), (f"{IDS[0]},{NORMAL}\n", "")),
    (r"ids without a picture: 0004cfab-xx", ("", "0004cfab-xx,,,,,0\n"), ("", LISTED)),
    (r"no class for the ids: 0004cfab-xx", ("", "0004cfab-xx,,,,,0\n"), NOTHING),
    (r"stage_2_train_labels\.csv does not have: 0004cfab-xx", NOTHING, ("", LISTED)),
    (r"disagree for: 0004cfab-08", NOTHING, (f"{IDS[8]},{OPACITY}", f"{IDS[8]},{OTHER}")),
    (r"line 11: patientId 0004cfab-07 has two classes", NOTHING, (f"{IDS[7]},{OPACITY}", f"{IDS[7]},{NORMAL}")),
    (r"line 2: class is 'Sick'", NOTHING, (NORMAL, "Sick")),
    (r"columns class are missing", NOTHING, ("class", "kind")),
    (r"line 12: patientId 0004cfab-07 is listed with and without", ("", f"{IDS[7]},,,,,0\n"), NOTHING),
    (r"line 2: the patientId is empty", (IDS[0], ""), NOTHING),
    (r"line 2: Target is '2'", (",,,,,0", ",,,,,2"), NOTHING),
    (r"line 2: Target is 0 beside a box", (",,,,,0", ",1,1,5,5,0"), NOTHING),
    (r"line 2: the box , , ,  is not four numbers", (",,,,,0", ",,,,,1"), NOTHING),
    (r"line 9: the box 512\.0, 0\.0, x, 128\.0 is not four", ("256.0", "x"), NOTHING),
    (r"line 9: the box 512\.0, 0\.0, 0, 128\.0 is empty", ("256.0", "0"), NOTHING),
    (r"line 9: the box 512\.0, 0\.0, nan, 128\.0 is empty", ("256.0", "nan"), NOTHING),
    (r"line 9: the box 512\.0, 0\.0, inf, 128\.0 is empty", ("256.0", "inf"), NOTHING),
    (r"line 11: the box -1, 896\.0, 128\.0, 128\.0 is .* outside the picture", ("896.0", "-1"), NOTHING),
    (r"line 11: 5 cells under 6 columns", ("896.0,896.0", "896.0"), NOTHING),
]


@pytest.mark.parametrize(("message", "labels", "classes"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_faulty_lists_are_named(make, root, message, labels, classes):
    for name, text, (old, new) in (("train_labels", LABELS, labels), ("detailed_class_info", CLASSES, classes)):
        (root / f"stage_2_{name}.csv").write_text(text.replace(old, new, 1) if old else text + new)
    with pytest.raises(UserError, match=message) as caught:
        make().cases(root)
    assert "\n" not in str(caught.value)
    assert ".csv" in str(caught.value)


def test_box_outside_the_picture_is_refused_or_skipped(make, root):
    (root / "stage_2_train_labels.csv").write_text(LABELS.replace("896.0,128.0,128.0", "896.0,128.0,256.0"))
    with pytest.raises(UserError, match=rf"a box of {IDS[8]} ends at column 64, row 72 .*data\.store\.on_bad=skip"):
        make().setup()
    data = make(on_bad="skip")
    data.setup()
    assert len(data.facts()["skipped"]) == 1


@pytest.mark.parametrize("name", ["stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"])
def test_missing_lists_are_named(make, root, name):
    (root / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: the table cannot be read"):
        make().cases(root)


def test_no_pictures_and_unknown_options_are_named(make, root):
    (root / "stage_2_train_images").rename(root / "train")
    with pytest.raises(UserError, match=r"no pictures in stage_2_train_images; get .* from Kaggle"):
        make().cases(root)
    with pytest.raises(UserError, match=r"data\.anomalies=all: takes opacity or all_abnormal"):
        make(anomalies="all")


def test_dicom_twin_goes_the_whole_way_and_keeps_patients_apart(make):
    data = make(source="twin", twin_size=40, limits={"test_normal": 5, "test_anomalous": 6}, train_normals=0.5)
    data.setup()
    counts = data.facts()["counts"]
    assert counts["test"] == {"normal": 5, "anomalous": 6}
    assert counts["train"]["normal"] + counts["val"]["normal"] == 12
    batch = data.store.batch(data.rows["test"])
    assert ((batch["mask"].flatten(1).any(1)) == (batch["label"] == 1)).all()


def test_boxes_of_dicom_files_are_in_their_own_pixels(make, tmp_path):
    write_twin(tmp_path / "twin", seed=1, size=20)
    data = make()
    opacities = [case for case in data.cases(tmp_path / "twin") if case.label]
    assert len(opacities) == 5
    assert SIDE < FRAME
    for case in opacities:
        scan = data.read(case)
        lungs = scan.mask[0]
        assert scan.pixels.shape == scan.mask.shape == (1, SIDE, SIDE)
        assert lungs.sum() < SIDE**2 / 3
