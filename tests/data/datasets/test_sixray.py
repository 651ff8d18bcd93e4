from collections import Counter

import numpy as np
import pytest
from data_sections import sections
from PIL import Image

from anomaly_lab.data.datasets import sixray
from anomaly_lab.data.datasets.sixray import SIXray, box_mask
from anomaly_lab.types import UserError

HEADER = "name,Gun,Knife,Wrench,Pliers,Scissors\n"
HARMLESS = ",-1,-1,-1,-1,-1\n"
TRAIN = (
    HEADER
    + "P00001,1,-1,-1,-1,-1\nP00002,-1,1,-1,-1,-1\n"
    + "".join(f"N{i:07d}{HARMLESS}" for i in range(1, 9))
    + "N0000009,0,-1,-1,-1,-1\n"
)
TEST = (
    HEADER
    + "P00003,1,1,-1,-1,-1\nP00004,0,-1,1,-1,-1\nP00005,-1,-1,-1,-1,-1\n"
    + "".join(f"N{i:07d}{HARMLESS}" for i in range(11, 14))
)
BOX = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def write_lists(root, train=TRAIN, test=TEST, folder="ImageSet/10"):
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / "train.csv").write_text(train)
    (root / folder / "test.csv").write_text(test)


def write_boxes(path, *boxes):
    path.parent.mkdir(exist_ok=True)
    path.write_text("<annotation>" + "".join(BOX.format(*box) for box in boxes) + "</annotation>")
    return path


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "Röntgen bilder"
    (root / "JPEGImage").mkdir(parents=True)
    write_lists(root)
    for i, line in enumerate((TRAIN + TEST).splitlines()):
        name = line.partition(",")[0]
        if name != "name":
            pixels = np.random.default_rng(i).integers(0, 256, (20, 30, 3), np.uint8)
            Image.fromarray(pixels).save(root / "JPEGImage" / f"{name}.jpg")
    write_boxes(root / "Annotation" / "P00003.xml", ("Gun", 1, 1, 10, 5), ("Knife", 21, 11, 30, 20))
    return root


@pytest.fixture
def make(root, tmp_path):
    def make(**changes) -> SIXray:
        arguments = {"root": str(root), "patch_size": (16, 16), "in_channels": 3, "batch_size": 2}
        return SIXray(**sections(**(arguments | {"store_dir": str(tmp_path / "store")} | changes)))

    return make


def test_any_item_is_an_anomaly_and_all_of_them_are_kept(make, root):
    cases = make().cases(root)
    assert {case.id: case.class_name for case in cases if case.label} == {
        "P00001": "Gun",
        "P00002": "Knife",
        "P00003": "Gun+Knife",
        "P00004": "Wrench",
        "P00005": "other",
    }
    assert Counter((case.split, case.label) for case in cases) == {
        ("train", 1): 2,
        ("train", 0): 8,  # N0000009 is hard to say
        ("test", 1): 3,
        ("test", 0): 3,
    }
    assert all(case.patient == case.id for case in cases)


def test_one_category_leaves_out_the_other_items(make, root):
    cases = make(category="Gun").cases(root)
    assert [case.id for case in cases if case.label] == ["P00001", "P00003"]
    assert sum(case.label == 0 for case in cases) == 11


def test_census_counts_the_lists_whatever_the_category(make, root):
    for category in (None, "Gun"):
        data = make(category=category)
        census = data.census(data.cases(root))
        assert census["images"] == 17
        assert (census["anomalous"], census["train"], census["Gun"], census["Knife"]) == (5, 11, 2, 2)


def test_lists_can_be_ones_own_or_of_another_subset(make, root):
    write_lists(root, folder="ImageSet/1000", train=TRAIN.replace("P00002,-1,1,-1,-1,-1\n", ""))
    assert len(make(subset=1000).cases(root)) == len(make().cases(root)) - 1
    (root / "ImageSet" / "10").rename(root / "ImageSet" / "train_test_10-5")
    own = make(train_list="ImageSet/train_test_10-5/train.csv", test_list="ImageSet/train_test_10-5/test.csv")
    assert len(own.cases(root)) == 16


def test_pictures_may_lie_in_numbered_folders(make, root):
    for i, path in enumerate(sorted((root / "JPEGImage").glob("*.jpg"))):
        folder = root / "JPEGImage" / str(i % 3)
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    assert all(case.image.exists() for case in make(check=True).cases(root))


def test_missing_pictures_are_found_when_read_or_checked(make, root):
    (root / "JPEGImage" / "N0000002.jpg").unlink()
    data = make()
    case = next(case for case in data.cases(root) if case.id == "N0000002")
    with pytest.raises(UserError, match=r"N0000002\.jpg"):
        data.read(case)
    with pytest.raises(UserError, match=r"train\.csv, line 5: no picture N0000002\.jpg"):
        make(check=True).cases(root)
    (root / "JPEGImage").rename(root / "pictures")
    with pytest.raises(UserError, match="JPEGImage: no such folder; get SIXray"):
        make().cases(root)


def test_boxes_are_masks(make, root):
    boxed = {category: make(category=category) for category in (None, "Gun")}
    cases = {case.id: case for case in boxed[None].cases(root)}
    gun, both = (boxed[category].read(cases["P00003"]).mask[0] for category in ("Gun", None))
    assert (gun[:5, :10].all(), gun.sum()) == (True, 50)
    assert (both[10:, 20:].all(), both.sum()) == (True, 150)
    assert boxed[None].read(cases["P00004"]).mask is None
    assert boxed[None].protocol() != boxed["Gun"].protocol()


def test_boxes_are_cut_at_the_edge_and_may_be_of_other_items(tmp_path):
    path = write_boxes(tmp_path / "P1.xml", ("gun", 28, 0, 35, 2))
    assert box_mask(path, (20, 30)).sum() == 6
    assert box_mask(path, (20, 30), "Knife") is None


BOXES = {
    r"P1\.xml: the boxes cannot be read \(could not convert": ("Gun", "", 1, 2, 2),
    r"the box 40, 1, 50, 9 of Gun covers nothing of the picture \(30×20\)": ("Gun", 40, 1, 50, 9),
    r"the box 9, 9, 2, 12 of Gun covers nothing": ("Gun", 9, 9, 2, 12),
}


@pytest.mark.parametrize("message", BOXES)
def test_faulty_boxes_are_named(tmp_path, message):
    with pytest.raises(UserError, match=message):
        box_mask(write_boxes(tmp_path / "P1.xml", BOXES[message]), (20, 30))


def test_broken_box_file_is_named(tmp_path):
    (tmp_path / "P1.xml").write_text("<annotation><object>")
    with pytest.raises(UserError, match=r"P1\.xml: the boxes cannot be read"):
        box_mask(tmp_path / "P1.xml", (20, 30))


@pytest.mark.parametrize("store", [True, False])
def test_setup_follows_the_lists(make, store):
    data = make(store=store, val_fraction=0.25)
    data.setup()
    facts = data.facts()
    assert facts["counts"] == {
        "train": {"normal": 6, "anomalous": 0},
        "val": {"normal": 2, "anomalous": 0},
        "test": {"normal": 3, "anomalous": 3},
    }
    assert facts["official"] == {"images": 98219, "anomalous": 8929}


FAULTS = {
    r"train\.csv, line 13: P00001 appears twice": (TRAIN + "P00001,1,-1,-1,-1,-1\n", TEST),
    r"test\.csv, line 8: P00001 is also in .*train\.csv;": (TRAIN, TEST + "P00001,1,-1,-1,-1,-1\n"),
    r"train\.csv, line 13: 'X00001' is not P": (TRAIN + "X00001,1,-1,-1,-1,-1\n", TEST),
    r"train\.csv, line 14: '' is not P": (TRAIN + "\n,1,-1,-1,-1,-1\n", TEST),
    r"train\.csv, line 13: Scissors is '', not 1": (TRAIN + "P00099,1,-1,-1,-1\n", TEST),
    r"train\.csv, line 13: Gun is 'yes', not 1": (TRAIN + "P00099,yes,-1,-1,-1,-1\n", TEST),
    r"test\.csv, line 8: N0000099 has Gun, but N": (TRAIN, TEST + "N0000099,1,-1,-1,-1,-1\n"),
    r"train\.csv: its header is 'name,Gun', not name,Gun,Knife": ("name,Gun\n", TEST),
    r"train\.csv: its header is '', not": ("", TEST),
}


@pytest.mark.parametrize("message", FAULTS)
def test_faulty_lists_are_named(make, root, message):
    write_lists(root, *FAULTS[message])
    with pytest.raises(UserError, match=message):
        make().cases(root)


def test_missing_lists_point_to_other_ways(make, root):
    (root / "ImageSet" / "10" / "train.csv").unlink()
    with pytest.raises(UserError, match=r"train\.csv: no such list; get the lists.*data set `folder`"):
        make().cases(root)


def test_lists_as_long_as_the_official_ones_must_be_these(make, root, monkeypatch):
    monkeypatch.setitem(sixray.TOTALS, 10, (17, 4))
    with pytest.raises(UserError, match=r"of the 17 bags .* 5 are P, where SIXray10 has 4"):
        make().cases(root)


def test_unknown_options_are_named(make):
    with pytest.raises(UserError, match=r"data\.subset=20"):
        make(subset=20)
    with pytest.raises(UserError, match=r"data\.category=Hammer"):
        make(category="Hammer")


def test_items_are_classes_of_their_own_and_uncertain_ones_are_unknown(make):
    """N0000009 may have a gun: with labels it stays and teaches of the other items; P00005 has none of the five."""
    classes = {"supervision": "labels", "target_type": "multilabel", "classes": ("Gun", "Knife", "Wrench")}
    data = make(val_fraction=0.2, **classes)
    data.setup()
    targets = dict(zip(data.store.index.columns["id"], data.targets.tolist(), strict=True))
    assert targets["P00003"] == [1, 1, 0]
    assert targets["P00004"] == [-1, 0, 1]
    assert targets["P00005"] == targets["N0000001"] == [0, 0, 0]
    assert targets["N0000009"] == [-1, 0, 0]
    binary = make(supervision="labels", val_fraction=0.2)
    binary.setup()
    assert "N0000009" not in binary.store.index.columns["id"]  # nor does it where bags are normal or anomalous
