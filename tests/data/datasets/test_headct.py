import pytest
from PIL import Image

from anomaly_lab.types import UserError


def test_official_layout_is_read(make, headct):
    cases = make().cases(headct)
    assert [case.id for case in cases] == [f"{i:03d}" for i in range(13)]
    assert [case.label for case in cases] == [1] * 3 + [0] * 10
    assert all(case.mask is None for case in cases)


def test_flat_layout_gives_the_same(make, headct):
    nested = [(case.id, case.label) for case in make().cases(headct)]
    (headct / "head_ct" / "head_ct").rename(headct / "inner")
    (headct / "head_ct").rmdir()
    (headct / "inner").rename(headct / "head_ct")
    assert [(case.id, case.label) for case in make().cases(headct)] == nested


def test_masks_are_all_or_none(make, headct):
    (headct / "masks").mkdir()
    for i in (0, 1):
        Image.new("L", (18, 20 + i), 255).save(headct / "masks" / f"{i:03d}.png")
    with pytest.raises(UserError, match="no mask for 002"):
        make().cases(headct)
    Image.new("L", (18, 22), 255).save(headct / "masks" / "002.png")
    assert [case.mask is not None for case in make().cases(headct)] == [True] * 3 + [False] * 10


LABELS = "id, hemorrhage\n" + "".join(f"{i},{int(i < 3)}\n" for i in range(13))
FAULTS = {
    "without a picture.* 013": LABELS + "13,0\n",
    "without a label.* 012": LABELS.replace("12,0\n", ""),
    "id 4 appears twice": LABELS + "4,0\n",
    "'2', not 0 or 1": LABELS.replace("12,0", "12,2"),
    "'', not 0 or 1": LABELS.replace("12,0", "12"),
    "'x7' is not the number": LABELS.replace("12,0", "x7,0"),
    "has id, label": LABELS.replace("hemorrhage", "label"),
    "has none": "",
}


@pytest.mark.parametrize("message", FAULTS)
def test_faulty_labels_are_named(make, headct, left_behind, message):
    (headct / "labels.csv").write_text(FAULTS[message])
    with pytest.raises(UserError, match=message) as caught:
        make().setup()
    assert "labels.csv" in str(caught.value)
    assert left_behind() == []


def test_missing_labels_are_named(make, headct, left_behind):
    (headct / "labels.csv").unlink()
    with pytest.raises(UserError, match=r"labels\.csv cannot be read"):
        make().setup()
    assert left_behind() == []


def test_empty_folder_is_an_error_and_never_a_twin(make, tmp_path, left_behind):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="no pictures"):
        make(root=str(empty)).setup()
    assert left_behind() == []
