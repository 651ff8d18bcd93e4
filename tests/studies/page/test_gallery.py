"""Pictures: the same cases for all methods where records have them, small, and no reason to fail."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from study_runs import keep_pictures, write_run

from anomaly_lab.studies.findings import read_findings
from anomaly_lab.studies.page.gallery import LARGEST, SIDE, TILE, gallery
from anomaly_lab.studies.plan import DataSet, Key, Row, Study

STUDY = Study(
    name="s",
    title="S",
    datasets={"set": DataSet("Set")},
    rows={name: Row(name.upper(), "x") for name in ("a", "b", "c")},
)


def hung(runs):
    return gallery(read_findings(STUDY, {Key(row, "set", seed): run for (row, seed), run in runs.items()}, {}), "set")


@pytest.fixture
def run(tmp_path):
    def make(row, seed=0):
        return write_run(tmp_path / f"{row}{seed}", 1.0, seed, source="real")

    return make


def opened(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_the_cases_that_most_runs_have_kept_come_first(run):
    runs = {
        ("a", 0): keep_pictures(run("a"), ("000", "002", "004", "006", "001")),
        ("b", 0): keep_pictures(run("b"), ("006", "004", "003")),
        ("c", 0): keep_pictures(run("c"), ("006", "003")),
    }
    found = hung(runs)
    assert [(case.id, case.anomalous) for case in found.cases] == [
        ("003", True),
        ("001", True),
        ("006", False),
        ("004", False),
        ("000", False),
    ]
    assert set(found.strips[2].parts["anomaly_map"]) == {"003", "006"}


def test_it_is_the_lowest_seed_of_each_row(run):
    runs = {
        ("a", 2): keep_pictures(run("a", 2)),
        ("a", 1): keep_pictures(run("a", 1)),
        ("b", 2): keep_pictures(run("b", 2)),
    }
    assert [(strip.title, strip.seed) for strip in hung(runs).strips] == [("A", 1), ("B", 2)]


def test_two_patches_of_one_case_are_not_taken_for_one_picture(run):
    other = np.full((2, 1, 8, 8), 0.9, np.float32)
    found = hung({("a", 0): keep_pictures(run("a")), ("b", 0): keep_pictures(run("b"), image=other)})
    assert len(found.strips[0].parts["reconstruction"]) == 2
    assert found.strips[1].parts == {}


def test_a_method_of_another_size_still_shows_the_same_case(run):
    found = hung({("a", 0): keep_pictures(run("a")), ("b", 0): keep_pictures(run("b"), size=4)})
    assert len(found.strips[1].parts["anomaly_map"]) == 2


def test_known_lesions_are_outlined(run):
    mask = np.zeros((2, 1, 8, 8), bool)
    mask[0, 0, 2, 3] = True
    found = hung({("a", 0): keep_pictures(run("a"), mask=mask)})
    assert [bool(case.outline) for case in found.cases] == [True, False]
    assert found.outlined


def test_pictures_are_small(run):
    found = hung({("a", 0): keep_pictures(run("a"), size=2 * LARGEST)})
    (strip,) = found.strips
    assert opened(strip.parts["anomaly_map"]["001"]).size == (LARGEST, LARGEST)
    assert opened(strip.samples).size == (SIDE * TILE, 2 * TILE)  # the upper two rows of eight


def test_the_last_grid_that_can_be_read_is_shown(run):
    folder = keep_pictures(run("a")) / "samples"
    Image.new("L", (64, 64), 255).save(folder / "00000020.png")
    (folder / "00000030.png").write_bytes(b"torn")
    (folder / "fakepool.png").write_bytes(b"no number")
    (strip,) = hung({("a", 0): folder.parent}).strips
    assert opened(strip.samples).getpixel((0, 0)) == (255, 255, 255)


def test_a_torn_or_missing_record_leaves_its_row_out(run):
    torn = keep_pictures(run("a"))
    (torn / "samples" / "gallery.npz").write_bytes(b"PK torn")
    (torn / "samples" / "00000010.png").unlink()
    found = hung({("a", 0): torn, ("b", 0): keep_pictures(run("b")), ("c", 0): run("c")})
    assert [strip.title for strip in found.strips] == ["B"]
    assert hung({("a", 0): torn}).strips == []
