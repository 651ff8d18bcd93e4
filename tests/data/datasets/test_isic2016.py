import numpy as np
import pytest
from data_sections import sections
from PIL import Image

from anomaly_lab.data.datasets import artefacts
from anomaly_lab.data.datasets.isic2016 import ISIC2016, MASKS, PICTURES
from anomaly_lab.types import UserError

COUNT = 8


@pytest.fixture
def isic(tmp_path):
    """Eight pictures of varied size: skin, and a lesion in the middle ninth; in the first, third, … a blue strip."""
    root = tmp_path / "dermoscopy é x"
    for folder in (PICTURES, MASKS):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        height, width = 66 + 3 * i, 90
        pixels = np.full((height, width, 3), (220, 170, 140), np.uint8) + rng.integers(
            0, 8, (height, width, 1), np.uint8
        )
        mask = np.zeros((height, width), bool)
        mask[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = True
        pixels[mask] //= 2
        if i % 2 == 0:
            pixels[: i + 4, :10] = (60, 50, 180)
        name = f"ISIC_{3 * i:07d}"
        Image.fromarray(pixels).save(root / PICTURES / f"{name}.jpg", quality=95)
        Image.fromarray(mask).save(root / MASKS / f"{name}_Segmentation.png")
    return root


@pytest.fixture
def make(isic, tmp_path):
    def make(**changes):
        arguments = {"root": str(isic), "patch_size": (8, 8), "in_channels": 3, "resize": (32, 40), "fit": "stretch"}
        arguments |= {"cut": {"overlap": 0.75, "lesion": 0.75, "label": "mask"}, "batch_size": 4, "exclude": "none"}
        arguments |= {"store_dir": str(tmp_path / "store"), "train_normals": 0.75, "val_fraction": 0.2}
        return ISIC2016(**sections(**(arguments | changes)))

    return make


def ids(cases):
    return [case.id for case in cases]


def test_official_layout_is_read(make, isic):
    data = make()
    cases = data.cases(isic)
    assert ids(cases) == [f"ISIC_{3 * i:07d}" for i in range(COUNT)]
    assert all(case.label == 1 and case.split is None and case.patient == case.id for case in cases)
    assert [case.mask.name for case in cases[:2]] == ["ISIC_0000000_Segmentation.png", "ISIC_0000003_Segmentation.png"]
    assert data.census(cases) == {"images": COUNT, "excluded": 0}
    assert ISIC2016.official == {"images": 900}


def test_auto_leaves_out_the_share_of_the_paper_worst_first(make, isic):
    data = make(exclude="auto")
    cases = data.cases(isic)
    assert data.excluded == {"ISIC_0000012", "ISIC_0000018"}  # 240 of 900: 2 of 8; the widest blue strips
    assert len(cases) == 6
    assert data.census(cases) == {"images": COUNT, "excluded": 2}


def test_the_pictures_are_measured_once(make, isic, monkeypatch):
    first = ids(make(exclude="auto").cases(isic))
    with monkeypatch.context() as patch:
        patch.setattr(artefacts, "artefact_share", None)
        assert ids(make(exclude="auto").cases(isic)) == first
    Image.new("RGB", (60, 60), (60, 50, 180)).save(isic / PICTURES / "ISIC_0000003.jpg")  # all blue now
    data = make(exclude="auto")
    data.cases(isic)
    assert "ISIC_0000003" in data.excluded


def test_an_unreadable_picture_is_not_left_out_in_silence(make, isic):
    (isic / PICTURES / "ISIC_0000012.jpg").write_bytes(b"no picture")
    assert "ISIC_0000012" in ids(make(exclude="auto").cases(isic))


@pytest.mark.parametrize("name", ["exclude.txt", "my list.txt"])
def test_a_list_replaces_the_rule(make, isic, name):
    (isic / name).write_text("# by hand\nISIC_0000000\n\nISIC_0000009.jpg  # hair\nISIC_0000000\n", encoding="utf-8")
    data = make(exclude="auto" if name == "exclude.txt" else str(isic / name))
    assert len(data.cases(isic)) == 6
    assert data.excluded == {"ISIC_0000000", "ISIC_0000009"}


def test_faulty_lists_are_named(make, isic):
    path = isic / "exclude.txt"
    path.write_text("ISIC_0000000\nISIC_0000001\n")
    with pytest.raises(UserError, match=r"exclude\.txt, line 2: there is no picture ISIC_0000001"):
        make(exclude="auto").cases(isic)
    path.write_text("\n".join(f"ISIC_{3 * i:07d}" for i in range(COUNT)))
    with pytest.raises(UserError, match="no picture is left"):
        make(exclude="auto").cases(isic)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"data\.exclude\) cannot be read"):
        make(exclude="auto").cases(isic)
    with pytest.raises(UserError, match=r"nowhere.*cannot be read"):
        make(exclude=str(isic / "nowhere")).cases(isic)


def test_pictures_and_masks_must_agree(make, isic):
    mask = isic / MASKS / "ISIC_0000006_Segmentation.png"
    mask.rename(isic / MASKS / "ISIC_0000007_Segmentation.png")
    with pytest.raises(UserError, match="no mask for ISIC_0000006; complete"):
        make().cases(isic)
    mask.write_bytes((isic / MASKS / "ISIC_0000007_Segmentation.png").read_bytes())
    with pytest.raises(UserError, match="no picture for the mask of ISIC_0000007; complete"):
        make().cases(isic)


def test_an_empty_folder_is_an_error_that_says_where_to_get_the_data(make, tmp_path):
    with pytest.raises(UserError, match=r"no pictures \*\.jpg; get part 1"):
        make().cases(tmp_path)


def test_hidden_and_other_files_are_not_looked_at(make, isic):
    (isic / PICTURES / "._ISIC_0000000.jpg").touch()
    (isic / PICTURES / "ATTRIBUTION.txt").touch()
    assert len(make().cases(isic)) == COUNT


def test_windows_are_13_by_17_and_none_that_is_healthy_holds_a_lesion_pixel(make, isic):
    data = make()
    data.setup()
    index = data.store.index
    label, mask = data.store.labels, np.asarray(data.store.masks)
    places = {tuple(map(int, place.split(","))) for place in index.columns["location"]}
    assert {row for row, _ in places} == set(range(0, 26, 2))  # 13 rows of windows
    assert {column for _, column in places} == set(range(0, 34, 2))  # 17 in a row
    share = mask.reshape(len(label), -1).mean(1)
    assert share[label == 0].max() == 0
    assert share[label == 1].min() > 0.75


def test_pictures_do_not_cross_the_split(make):
    data = make()
    data.setup()
    case = np.array(data.store.index.columns["case"])
    train, val, test = (set(case[data.rows[split]]) for split in ("train", "val", "test"))
    assert (len(train | val), len(test)) == (6, 2)
    assert not (train | val) & test
    assert not train & val
    assert data.facts()["counts"]["test"]["anomalous"] > 0
    assert data.facts()["counts"]["train"]["anomalous"] == 0


def test_segmentations_of_new_pictures_are_masks_beside_them_or_in_their_folder(tmp_path):
    data = ISIC2016(root=str(tmp_path / "none"), source="twin")
    for name in ("new/a.jpg", "new/a_Segmentation.png", f"{PICTURES}/b.jpg", f"{MASKS}/b_Segmentation.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        assert data.role(tmp_path / name, tmp_path) == ("mask" if name.endswith("png") else "scan")
    assert data.known_mask(tmp_path / "new" / "a.jpg", tmp_path) == tmp_path / "new" / "a_Segmentation.png"
    assert data.known_mask(tmp_path / PICTURES / "b.jpg", tmp_path) == tmp_path / MASKS / "b_Segmentation.png"
    assert data.known_mask(tmp_path / PICTURES / "c.jpg", tmp_path) is None
