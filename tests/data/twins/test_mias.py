import numpy as np
import pytest
from PIL import Image

from anomaly_lab.data.datasets.mias import breast, chest_is_left, discs, films
from anomaly_lab.data.datasets.mias_info import located
from anomaly_lab.data.datasets.mias_patches import boxes
from anomaly_lab.data.twins.mias import write_twin


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    root = tmp_path_factory.mktemp("twin")
    write_twin(root, seed=0, size=24)
    return root


def read(film):
    return np.asarray(Image.open(film.path))[None]


def test_twin_has_the_official_layout(twin):
    pictures = sorted((twin / "all-mias").glob("*.pgm"))
    assert [path.name for path in pictures] == [f"mdb{number:03d}.pgm" for number in range(1, 25)]
    assert {path.stat().st_size for path in pictures} == {1024 * 1024 + 17}
    text = (twin / "all-mias" / "Info.txt").read_bytes()
    assert text.count(b"\r\n") == text.count(b"\n") > 30
    assert b"*NOTE 3*" in text


def test_twin_has_every_awkward_row(twin):
    listed = films(twin)
    findings = [finding for film in listed.values() for finding in film.findings]
    places = {name: located(film.findings) for name, film in listed.items()}
    assert sum(finding.disc is None for finding in findings) == 2
    assert min(disc.radius for some in places.values() for disc in some) == 3
    assert max(map(len, places.values())) == 3
    assert {name for name, some in places.items() if len(boxes(some, "merge")) < len(some)} == {"mdb005", "mdb012"}
    women = {}
    for film in listed.values():
        women.setdefault(film.patient, []).append(bool(film.findings))
    assert sum(not any(sides) for sides in women.values()) == 4


def test_lesions_are_brighter_than_the_same_film_without_them(twin):
    brighter = []
    for film in films(twin).values():
        places = [disc for disc in located(film.findings) if disc.radius > 3]
        if places:
            pixels = read(film)
            mask, seen = discs(places, film.path, pixels), breast(pixels)
            wide = discs([disc._replace(radius=int(disc.radius * 1.5)) for disc in places], film.path, pixels)
            brighter.append(pixels[mask & seen].mean() > pixels[wide & ~mask & seen].mean())
    assert np.mean(brighter) > 0.8


def test_breasts_are_of_a_size_and_on_their_side(twin):
    for name, film in films(twin).items():
        seen = breast(read(film))
        assert 0.1 < seen.mean() < 0.5
        assert chest_is_left("by its shape", seen) == (int(name[3:]) % 2 == 0)


def test_same_seed_same_files_whatever_the_size(tmp_path):
    for name, seed, size in (("a", 0, 2), ("b", 0, 3), ("c", 1, 2)):
        (tmp_path / name).mkdir()
        write_twin(tmp_path / name, seed, size)
    first, again, other = ((tmp_path / name / "all-mias/mdb002.pgm").read_bytes() for name in "abc")
    assert first == again != other
