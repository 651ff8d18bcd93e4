from collections import Counter

import numpy as np
import pytest
from data_sections import sections
from PIL import Image

from anomaly_lab.data.datasets.oct2017 import CLASSES, OCT2017, PART, RELEASES, SPLITS, release, without_margin
from anomaly_lab.types import Case, UserError

PATIENTS = {  # of the images of each folder, in their order
    "train/NORMAL": (1, 1, 1, 2, 2, 3, 4, 5, 6),
    "train/CNV": (3, 21),
    "val/NORMAL": (30,),
    "val/DME": (31,),
    "test/NORMAL": (4, 41),
    "test/CNV": (42, 42),
    "test/DME": (43,),
    "test/DRUSEN": (2,),
}


def draw(path, margin=0):
    """A random picture, its size and pixels by its name, with white rows on top and white columns at the right."""
    pixels = np.random.default_rng(sum(path.name.encode())).integers(0, 200, (24, 32), np.uint8)
    pixels = np.pad(pixels, ((margin, 0), (0, margin)), constant_values=255)
    Image.fromarray(pixels).save(path, quality=95)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "Netzhaut Größe"
    for folder, patients in PATIENTS.items():
        where = root / "OCT2017" / folder
        where.mkdir(parents=True)
        for i, patient in enumerate(patients):
            draw(where / f"{where.name}-{patient}-{i + 1}.jpeg", margin=5 * (patient == 5))
    (root / "OCT2017" / "train" / "NORMAL" / "._NORMAL-9-9.jpeg").write_bytes(b"")  # what macOS leaves behind
    return root


@pytest.fixture
def make(root, tmp_path):
    def make(**changes) -> OCT2017:
        arguments = {"root": str(root), "patch_size": (16, 16), "batch_size": 2, "store_dir": str(tmp_path / "store")}
        return OCT2017(**sections(**(arguments | changes)))

    return make


def test_patients_of_test_leave_train_and_val_is_left_out(make, root):
    cases = make().cases(root)
    trained = [case for case in cases if case.split == "train"]
    assert Counter(case.split for case in cases) == {"train": 8, "test": 6}
    assert {case.patient for case in trained} == {"1", "3", "5", "6", "21"}
    assert [case.id for case in cases if case.patient == "42"] == ["test/CNV-42-1", "test/CNV-42-2"]
    assert all(case.label == (case.class_name != "NORMAL") for case in cases)


def test_the_owners_split_can_be_had_with_its_leak(make, root):
    cases = make(drop_shared=False).cases(root)
    assert Counter((case.split, case.label) for case in cases) == {
        ("train", 0): 9,
        ("train", 1): 2,
        ("test", 0): 2,
        ("test", 1): 4,
    }


@pytest.mark.parametrize("where", [".", "CellData/OCT"])
def test_other_layouts_give_the_same(make, root, where):
    before = make().cases(root)
    target = root / where
    target.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        (root / "OCT2017" / split).rename(target / split)
    assert [case.id for case in make().cases(root)] == [case.id for case in before]


def test_setup_holds_out_normal_patients_of_train_and_tells_what_it_found(make):
    data = make(val_fraction=0.3)
    data.setup()
    facts = data.facts()
    assert facts["counts"]["test"] == {"normal": 2, "anomalous": 4}
    assert facts["counts"]["train"]["normal"] + facts["counts"]["val"]["normal"] == 6
    assert facts["patients"]["val"] >= 1
    assert (facts["release"], facts["patients_in_both"]) == (PART, 2)
    assert facts["audit"]["shared_patients"] == []


def test_white_margins_are_cut_off(make, root):
    case = next(case for case in make().cases(root) if case.patient == "5")
    assert make().read(case).shape == (24, 32)
    assert make(crop_white=False).read(case).shape == (29, 37)
    assert make().protocol() != make(crop_white=False).protocol()


@pytest.mark.parametrize(
    ("white", "kept"),
    [
        ((slice(0, 3), slice(None)), (slice(3, 20), slice(0, 30))),
        ((slice(None), slice(26, 30)), (slice(0, 20), slice(0, 26))),
        ((slice(8, 12), slice(None)), (slice(0, 20), slice(0, 30))),  # inside, not at the border
        ((slice(0, 3), slice(0, 25)), (slice(0, 20), slice(0, 30))),  # not all of the line
        ((slice(None), slice(None)), (slice(0, 20), slice(0, 30))),  # nothing else
    ],
)
def test_a_margin_is_whole_lines_at_the_border(white, kept):
    pixels = np.full((1, 20, 30), 90, np.uint8)
    pixels[:, *white] = 253
    assert without_margin(pixels) == kept
    assert without_margin(pixels.astype(np.uint16) * 257) == kept  # sixteen bits have another white
    assert without_margin(pixels / 255) == kept
    pixels[:, *white] = 250  # the darkest that is white
    assert without_margin(pixels) == kept


def official(name):
    sizes = RELEASES[name]
    return Counter({(split, kind): n for split in SPLITS for kind, n in zip(CLASSES, sizes[split], strict=True)})


@pytest.mark.parametrize(
    ("name", "total"), [("kaggle v2", 84484), ("mendeley v2", 84484), ("mendeley v3", 108312 + 1000)]
)
def test_releases_are_told_by_their_counts(tmp_path, name, total):
    counts = official(name)
    assert counts.total() == total
    assert release(tmp_path, counts) == name
    counts["train", "DME"] -= 1
    assert release(tmp_path, counts) == PART
    counts["train", "NORMAL"] += 1
    with pytest.raises(UserError, match=r"DME: \d+ images, where kaggle v2|DME: \d+ images, where mendeley v3"):
        release(tmp_path, counts)


FAULTS = {
    r"NORMAL_7\.jpeg: the name is not <CLASS>": "train/NORMAL/NORMAL_7.jpeg",
    r"CNV-7-1\.jpeg: its name says CNV, not NORMAL; move it": "test/NORMAL/CNV-7-1.jpeg",
}


@pytest.mark.parametrize("message", FAULTS)
def test_misnamed_and_misplaced_files_are_named(make, root, message):
    draw(root / "OCT2017" / FAULTS[message])
    with pytest.raises(UserError, match=message):
        make().cases(root)


def test_an_empty_class_a_missing_split_and_a_train_that_is_all_in_test_are_named(make, root):
    for path in (root / "OCT2017" / "test" / "DME").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"DME: no JPEG files; complete"):
        make().cases(root)
    draw(root / "OCT2017" / "test" / "DME" / "DME-1-1.jpeg")
    for patient in (3, 5, 6):
        draw(root / "OCT2017" / "test" / "NORMAL" / f"NORMAL-{patient}-1.jpeg")
    with pytest.raises(UserError, match=r"drop_shared=false"):
        make().cases(root)
    (root / "OCT2017" / "test").rename(root / "elsewhere")
    with pytest.raises(UserError, match=r"no folders train and test"):
        make().cases(root)


def test_the_same_name_twice_is_refused(make, root):
    draw(root / "OCT2017" / "train" / "NORMAL" / "NORMAL-1-1.jpg")
    with pytest.raises(UserError, match=r"train/NORMAL-1-1 appear twice"):
        make().setup()


def test_values_of_an_image_go_back_to_where_its_margins_were(make, tmp_path):
    draw(tmp_path / "new.png", margin=5)
    scan = make().read_new(Case("new.png", "", tmp_path / "new.png", label=0))
    own = scan.origin.back(scan.pixels[0])
    assert own.shape == (29, 37)
    assert not own[:5].any()
    assert np.array_equal(own[5:, :32], np.asarray(Image.open(tmp_path / "new.png"))[5:, :32])
