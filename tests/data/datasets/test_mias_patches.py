import numpy as np
import pytest
from data_sections import sections
from mias_files import film, rows, write_film, write_mias
from PIL import Image

from anomaly_lab.data.datasets.mias_info import Disc
from anomaly_lab.data.datasets.mias_patches import MIASPatches, boxes
from anomaly_lab.types import Case, UserError


@pytest.fixture
def make(tmp_path):
    def make(root, **changes):
        arguments = {"root": str(root), "patch_size": (32, 32), "batch_size": 2, "store_dir": str(tmp_path / "store")}
        return MIASPatches(**sections(**(arguments | changes)))

    return make


@pytest.mark.parametrize(("rule", "left_out"), [("merge", "mdb005-2"), ("small", "mdb212-1")])
def test_official_list_gives_exactly_207_and_117(make, tmp_path, rule, left_out):
    root = write_mias(tmp_path / "mias", rows())
    data = make(root, rule=rule)
    cases = data.cases(root)
    census = data.census(cases)
    assert {name: census[name] for name in data.official} == {"images": 324, "normal": 207, "anomalous": 117}
    ids = {case.id for case in cases}
    assert len(ids) == 324
    assert {"mdb005-1", "mdb212-1", "mdb226-3", "mdb144-2"} - {left_out} <= ids
    assert not {"mdb144-1", left_out} & ids
    assert all(case.box[2:] == (120, 120) for case in cases if case.label == 1)


def test_bright_disc_at_bottom_left_coordinates_is_in_the_patch_centre(make, tmp_path):
    root = write_mias(tmp_path, ["mdb002 G CIRC B 400 300 20"])
    write_film(root / "all-mias" / "mdb002.pgm", film(disc=(400, 300, 20)))
    data = make(root)
    scan = data.read(data.cases(root)[0])
    white = scan.pixels[0] > 200
    assert scan.pixels.shape == scan.mask.shape == (1, 120, 120)
    assert np.abs(np.argwhere(white).mean(0) - 60).max() < 1
    assert (white == scan.mask[0]).mean() > 0.999


def test_patch_shows_the_discs_of_its_neighbours(make, tmp_path):
    root = write_mias(tmp_path, ["mdb002 G CIRC B 400 300 20", "mdb002 G MISC M 400 380 30"])
    write_film(root / "all-mias" / "mdb002.pgm", film())
    data = make(root)
    first, second = data.cases(root)
    assert (first.class_name, second.class_name) == ("CIRC", "MISC")
    mask = data.read(first).mask[0]
    assert mask[60, 60]
    assert mask[5, 60]
    assert not mask[25, 60]


def test_patches_reach_to_the_edge_and_not_over_it():
    assert boxes([Disc(60, 964, 9)], "merge") == {1: (0, 904, 120, 120)}
    assert boxes([Disc(59, 500, 9), Disc(965, 500, 9), Disc(500, 59, 9), Disc(500, 965, 9)], "merge") == {}


def test_two_near_ones_are_one_patch_between_them():
    near, far = Disc(500, 500, 30), Disc(541, 520, 5)
    assert boxes([near, far], "merge") == {1: (460, 450, 120, 120)}
    assert list(boxes([near, far], "small")) == [1, 2]
    assert list(boxes([None, far, Disc(541, 580, 4)], "small")) == [2]
    assert list(boxes([None, far, Disc(541, 580, 4)], "merge")) == [2, 3]


@pytest.mark.parametrize("location", ["mask", "centre", "match"])
def test_normal_patch_is_breast_and_does_not_depend_on_order(make, tmp_path, location):
    lines = ["mdb001 G CIRC B 600 300 20", "mdb003 G NORM", "mdb004 F NORM"]
    root = write_mias(tmp_path, lines)
    for name, left in (("mdb003", False), ("mdb004", True)):
        write_film(root / "all-mias" / f"{name}.pgm", film(left))
    data = make(root, location=location)
    normal = [case for case in data.cases(root) if case.label == 0]
    first = [data.read(case).pixels for case in normal]
    again = [make(root, location=location, seed=5).read(case).pixels for case in reversed(normal)][::-1]
    for pixels, same in zip(first, again, strict=True):
        assert pixels.shape == (1, 120, 120)
        assert (pixels > 50).mean() >= 0.95
        assert np.array_equal(pixels, same)
    assert not data.read(normal[0]).mask.any()


def test_place_is_drawn_anew_with_its_own_seed(make, tmp_path):
    root = write_mias(tmp_path, ["mdb004 F NORM"])
    write_film(root / "all-mias" / "mdb004.pgm", film())
    one, other = (make(root, location_seed=seed) for seed in (0, 1))
    assert one.protocol() != other.protocol()
    case = one.cases(root)[0]
    assert not np.array_equal(one.read(case).pixels, other.read(case).pixels)


def test_match_puts_a_normal_patch_where_an_abnormality_is_mirrored_to_its_side(make, tmp_path):
    root = write_mias(tmp_path, ["mdb001 G CIRC B 600 300 20", "mdb003 F NORM", "mdb004 F NORM"])
    for name, left in (("mdb003", False), ("mdb004", True)):
        picture = film(left)
        picture[1024 - 300, 600 if not left else 1024 - 600] = 255  # the centre of the patch that is wanted
        write_film(root / "all-mias" / f"{name}.pgm", picture)
    data = make(root, location="match")
    for case in data.cases(root)[1:]:
        assert np.abs(np.argwhere(data.read(case).pixels[0] == 255) - 60).max() <= 1


def test_film_without_room_gets_the_fullest_patch(make, tmp_path):
    root = write_mias(tmp_path, ["mdb004 F NORM"])
    picture = np.full((1024, 1024), 3, np.uint8)
    picture[700:760, 300:360] = 120
    write_film(root / "all-mias" / "mdb004.pgm", picture)
    for location in ("mask", "centre", "match"):
        scan = make(root, location=location).read(make(root).cases(root)[0])
        assert scan.pixels.shape == (1, 120, 120)
        if location != "match":
            assert (scan.pixels > 100).sum() == 60 * 60


def test_film_of_another_size_is_refused(make, tmp_path):
    root = write_mias(tmp_path, ["mdb004 F NORM"])
    write_film(root / "all-mias" / "mdb004.pgm", film()[:, ::2])
    with pytest.raises(UserError, match=r"mdb004\.pgm: 1024 x 512 pixels"):
        make(root).read(make(root).cases(root)[0])


def test_twin_goes_all_the_way(make, tmp_path):
    data = make(tmp_path / "none", source="twin", twin_size=24, train_normals=0.7, scoring_batch_size=8)
    data.setup()
    anomalous = data.store.labels == 1
    assert data.store.images.shape == (24, 1, 32, 32)  # 16 normal, 1 + 1 + 1 + 1 + 1 + 3 about the other films
    assert anomalous.sum() == 8
    assert data.store.masks[anomalous].any((1, 2, 3)).all()
    assert not data.store.masks[~anomalous].any()


def test_a_new_picture_is_a_patch_as_a_whole(make, tmp_path):
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "patch.png")
    data = make(write_mias(tmp_path / "mias", ["mdb002 G NORM"]))
    scan = data.read_new(Case("patch.png", "", tmp_path / "patch.png", label=0))
    assert scan.pixels[0].tolist() == np.arange(64).reshape(8, 8).tolist()
