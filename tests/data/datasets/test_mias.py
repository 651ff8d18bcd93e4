import numpy as np
import pytest
from data_sections import sections
from mias_files import film, rows, write_film, write_mias
from PIL import Image

from anomaly_lab.data.datasets.mias import MIAS, breast, chest_is_left, class_of
from anomaly_lab.data.datasets.mias_info import CLASSES, Finding
from anomaly_lab.experiment import compose, config
from anomaly_lab.types import Case, UserError

LISTED = ["mdb001 G CIRC B 300 900 40", "mdb002 G NORM", "mdb003 D NORM", "mdb004 F CALC M"]


@pytest.fixture
def make(tmp_path):
    def make(root, **changes):
        arguments = {"root": str(root), "patch_size": (32, 32), "batch_size": 2, "store_dir": str(tmp_path / "store")}
        return MIAS(**sections(**(arguments | changes)))

    return make


def test_official_list_gives_the_official_counts(make, tmp_path):
    root = write_mias(tmp_path / "mias", rows())
    cases = make(root).cases(root)
    assert [case.id for case in cases] == [f"mdb{number:03d}" for number in range(1, 323)]
    assert sum(case.label == 0 for case in cases) == 207
    assert sum(case.label == 1 for case in cases) == 115
    unknown = [case.id for case in cases if case.label == 1 and case.mask is None]
    assert unknown == ["mdb059", "mdb216", "mdb233", "mdb245"]


def test_two_films_are_one_woman(make, tmp_path):
    root = write_mias(tmp_path, LISTED)
    assert [case.patient for case in make(root).cases(root)] == ["001", "001", "002", "002"]


def test_list_may_lie_beside_the_folder_and_pictures_in_the_root(make, tmp_path):
    root = write_mias(tmp_path / "folder with späces", LISTED)
    usual = [(case.id, case.label) for case in make(root).cases(root)]
    (root / "all-mias" / "Info.txt").rename(root / "Info.txt")
    assert [(case.id, case.label) for case in make(root).cases(root)] == usual
    assert [(case.id, case.label) for case in make(root).cases(root / "all-mias")] == usual


def test_mask_lies_on_the_bright_disc(make, tmp_path):
    root = write_mias(tmp_path, LISTED)
    write_film(root / "all-mias" / "mdb001.pgm", film(left=False, disc=(300, 900, 40)))
    data = make(root)
    scan = data.read(data.cases(root)[0])
    assert scan.pixels.shape == scan.mask.shape == (1, 1024, 1024)
    white = scan.pixels > 200
    assert (white == scan.mask).mean() > 0.9999
    rows, columns = np.nonzero(scan.mask[0])
    assert abs(rows.mean() - (1024 - 900)) < 1
    assert abs(columns.mean() - 300) < 1


@pytest.mark.parametrize(("number", "left"), [(1, False), (2, True)])
def test_crop_leaves_the_breast_alone_its_chest_wall_right(make, tmp_path, number, left):
    x = 500 if left else 524
    root = write_mias(tmp_path, [f"mdb{number:03d} G CIRC B {x} 700 40"])
    picture = film(left, disc=(x, 700, 40))
    label = (slice(20, 60), slice(900, 1000)) if left else (slice(20, 60), slice(20, 120))
    picture[label] = 255
    write_film(root / "all-mias" / f"mdb{number:03d}.pgm", picture)
    data = make(root, crop="breast")
    scan = data.read(data.cases(root)[0])
    height, width = scan.shape
    assert abs(height - 960) < 15
    assert abs(width - 400) < 15
    heights = scan.foreground[0].sum(0)
    assert heights[-20:].min() > heights[:20].max()
    assert ((scan.pixels > 200) == scan.mask).mean() > 0.9999
    assert data.protocol() != make(root).protocol()


def test_breast_is_the_largest_region_without_its_label():
    picture = film(left=True)
    picture[20:60, 800:1000] = 255
    seen = breast(picture[None])
    inside = film(left=True) > 50
    assert (seen[0] & inside).sum() / (seen[0] | inside).sum() > 0.99
    assert breast(np.full((1, 50, 50), 7, np.uint8)).all()


def test_side_goes_by_the_number_or_else_by_the_shape():
    seen = breast(film(left=True)[None])
    assert chest_is_left("mdb002", seen)
    assert not chest_is_left("mdb001", seen)
    assert chest_is_left("scan", seen)
    assert not chest_is_left("scan", seen[..., ::-1])


def test_part_of_the_set_is_taken_as_it_is(make, tmp_path):
    films = [f"mdb{number:03d}" for number in range(1, 121)]
    root = write_mias(tmp_path, rows(), films)
    assert make(root).census(make(root).cases(root))["images"] == 120


def test_film_missing_from_an_otherwise_full_set_is_an_error(make, tmp_path):
    root = write_mias(tmp_path, rows())
    (root / "all-mias" / "mdb017.pgm").unlink()
    with pytest.raises(UserError, match=r"Info\.txt: rows without a picture in .*mdb017"):
        make(root).cases(root)


def test_picture_without_a_row_is_named(make, tmp_path):
    root = write_mias(tmp_path, LISTED, ["mdb001", "mdb009"])
    with pytest.raises(UserError, match=r"Info\.txt: pictures without a row: mdb009"):
        make(root).cases(root)


def test_missing_files_are_named(make, tmp_path):
    with pytest.raises(UserError, match=r"no pictures mdb\*\.pgm"):
        make(tmp_path).cases(tmp_path)
    root = write_mias(tmp_path, LISTED)
    (root / "all-mias" / "Info.txt").unlink()
    with pytest.raises(UserError, match=r"Info\.txt: no such file"):
        make(root).cases(root)


def test_film_of_another_size_is_refused(make, tmp_path):
    root = write_mias(tmp_path, LISTED)
    write_film(root / "all-mias" / "mdb001.pgm", film()[::2, ::2])
    with pytest.raises(UserError, match=r"mdb001\.pgm: 512 x 512 pixels.*data\.store\.on_bad=skip"):
        make(root).read(make(root).cases(root)[0])


def test_truncated_film_is_refused(make, tmp_path):
    root = write_mias(tmp_path, LISTED)
    path = root / "all-mias" / "mdb002.pgm"
    write_film(path, film())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"mdb002\.pgm.*data\.store\.on_bad=skip"):
        make(root).read(make(root).cases(root)[1])


def test_twin_goes_all_the_way(make, tmp_path):
    data = make(tmp_path / "none", source="twin", twin_size=24, train_normals=0.7, scoring_batch_size=8)
    data.setup()
    assert data.store.images.shape == (24, 1, 32, 32)
    assert data.facts()["counts"]["test"]["anomalous"] == 8
    assert data.store.masks[data.store.labels == 1].any((1, 2, 3)).sum() >= 5
    assert not data.store.masks[data.store.labels == 0].any()


@pytest.mark.parametrize("name", [name for name in compose.experiments() if "_mias" in name])
def test_the_small_distribution_fills_a_batch_of_every_laptop_budget(name):
    """Of its 120 films 28 normal ones train: what a study runs on them must not ask for more at once."""
    assert config.load(name, ["budget=laptop"]).data.batch_size <= 28


def test_a_new_picture_has_a_mask_of_its_own_size_and_goes_back_to_it(make, tmp_path):
    pixels = film(left=True, disc=(524, 700, 40))
    mask = (pixels > 200).astype(np.uint8) * 255
    Image.fromarray(pixels).save(tmp_path / "new.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    data = make(write_mias(tmp_path / "mias", LISTED), crop="breast")
    scan = data.read_new(Case("new.png", "", tmp_path / "new.png", label=0, mask=tmp_path / "mask.png"))
    assert scan.origin is not None
    assert scan.shape < pixels.shape
    assert np.array_equal(scan.mask[0], scan.pixels[0] > 200)
    assert np.array_equal(scan.origin.back(scan.mask[0]), mask > 0)


def test_classes_are_findings_or_severities_of_the_same_films(make, tmp_path):
    root = write_mias(tmp_path / "mias", rows())
    found, severe = (
        {case.id: case.class_name for case in make(root, class_by=by).cases(root)} for by in ("finding", "severity")
    )
    assert set(severe.values()) == {"", "benign", "malignant"}
    assert set(found.values()) <= {"", *CLASSES}
    assert [id for id, name in found.items() if name] == [id for id, name in severe.items() if name]


def test_one_malignant_finding_makes_a_film_malignant():
    benign, malignant = (Finding("CALC", severity, None) for severity in "BM")
    assert class_of([benign, malignant], "severity") == class_of([malignant], "severity") == "malignant"
    assert class_of([benign, benign], "severity") == "benign"
