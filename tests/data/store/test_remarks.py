import pytest

from anomaly_lab.data.store.remarks import remarks


def scan(case="a", label=1, lesion=None, white=255, high=200):
    return {"case": case, "label": label, "lesion": lesion, "white": white, "range": [0, high], "size": [10, 10]}


def test_nothing_is_said_of_sound_data():
    assert remarks([]) == []
    scans = [
        scan(lesion=5),
        scan(label=0),
        scan(label=0, lesion=0),
        scan(white=None, high=3, lesion=9),
        {"skipped": "x"},
    ]
    assert remarks(scans) == []


@pytest.mark.parametrize(("number", "words"), [(1, r"1 anomalous scan with"), (9, "9 anomalous scans with")])
def test_anomalous_scans_with_empty_masks_are_named(number, words):
    (found,) = remarks([scan(f"picture {i}", lesion=0) for i in range(number)] + [scan(lesion=4)])
    assert found.text.startswith(words)
    assert found.cases == tuple(f"picture {i}" for i in range(number))
    assert "picture" not in found.text.replace("picture, say", "").replace("data.picture", "")
    assert "data.picture.mask_values" in found.text


def test_normal_scans_with_a_lesion_in_the_mask_are_named():
    (found,) = remarks([scan("p1", label=0, lesion=4), scan("p2", label=0, lesion=0), scan(lesion=4)])
    assert found.text.startswith("1 scan listed as normal with a lesion in the mask:")
    assert found.cases == ("p1",)


def test_pictures_that_hardly_fill_their_range_are_noticed():
    (found,) = remarks([scan(white=65535, high=4015), scan(white=65535, high=900)])
    assert "6.1%" in found.text
    assert "data.picture.range" in found.text
    assert remarks([scan(white=65535, high=4015), scan(white=65535, high=9000)]) == []


def test_masks_that_look_inverted_are_noticed():
    (found,) = remarks([scan(lesion=90), scan(lesion=80), scan(lesion=3)])
    assert "80%" in found.text
    assert "mask_values=[0]" in found.text
