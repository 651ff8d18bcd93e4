import pytest
from mias_files import rows, write_mias

from anomaly_lab.data.datasets.mias_info import located, read_info
from anomaly_lab.types import UserError


def test_official_list_has_123_findings_and_119_places(tmp_path):
    listed = read_info(write_mias(tmp_path, rows()) / "all-mias" / "Info.txt")
    assert len(listed) == 322
    assert sum(not findings for findings in listed.values()) == 207
    assert sum(len(findings) for findings in listed.values()) == 123
    assert sum(len(located(findings)) for findings in listed.values()) == 119


def test_coordinates_count_from_the_bottom_left(tmp_path):
    root = write_mias(tmp_path, ["mdb001 G CIRC B 535 425 197", "mdb002 G CIRC M 0 0 3", "mdb003 G CIRC M 7 1024 3"])
    discs = [located(findings)[0] for findings in read_info(root / "all-mias" / "Info.txt").values()]
    assert discs == [(599, 535, 197), (1023, 0, 3), (0, 7, 3)]


FAULTS = {
    r"line 8: 'G' is not tissue": ["mdb001 G"],
    r"'X CIRC B 1 2 3' is not tissue": ["mdb001 X CIRC B 1 2 3"],
    r"'G LUMP B 1 2 3' is not tissue": ["mdb001 G LUMP B 1 2 3"],
    r"severity of mdb001 is '', not B or M": ["mdb001 G CIRC"],
    r"severity of mdb001 is '535', not": ["mdb001 G CIRC 535 425 197"],
    r"'535 425' is not x, y and radius": ["mdb001 G CIRC B 535 425"],
    r"'535 4x5 197' is not x, y and radius": ["mdb001 G CIRC B 535 4x5 197"],
    r"'535 -4 197' is not x, y and radius": ["mdb001 G CIRC B 535 -4 197"],
    r"x 1024, y 425, radius 197 are outside": ["mdb001 G CIRC B 1024 425 197"],
    r"x 5, y 1025, radius 197 are outside": ["mdb001 G CIRC B 5 1025 197"],
    r"x 5, y 25, radius 0 are outside": ["mdb001 G CIRC B 5 25 0"],
    r"mdb001 is normal and has 'B'": ["mdb001 G NORM B"],
    r"line 9: mdb001 appears twice": ["mdb001 G NORM", "mdb001 G NORM"],
    r"line 9: mdb001 appears": ["mdb001 G NORM", "mdb001 G CIRC B 5 25 9"],
    r"film 'mdb1' is not mdb and three digits": ["mdb1 G NORM"],
    r"no row of the form": [],
}


@pytest.mark.parametrize("message", FAULTS)
def test_faulty_lists_are_named(tmp_path, message):
    root = write_mias(tmp_path, FAULTS[message], ["mdb001"])
    with pytest.raises(UserError, match=message) as caught:
        read_info(root / "all-mias" / "Info.txt")
    assert "Info.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_list_is_named(tmp_path):
    with pytest.raises(UserError, match=r"Info\.txt cannot be read \(No such file"):
        read_info(tmp_path / "Info.txt")
