import numpy as np
from PIL import Image

from anomaly_lab.data.twins.headct import write_twin


def test_twin_has_the_official_layout_and_known_lesions(tmp_path):
    write_twin(tmp_path, seed=0, size=40)
    names = [f"{i:03d}.png" for i in range(40)]
    pictures = sorted((tmp_path / "head_ct" / "head_ct").iterdir())
    assert [path.name for path in pictures] == names
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == names[:20]
    assert (tmp_path / "labels.csv").read_text().startswith("id, hemorrhage\n0,1\n")
    images = [Image.open(path) for path in pictures]
    assert len({image.size for image in images}) > 20
    assert {image.mode for image in images} == {"RGB", "RGBA"}


def test_lesions_lie_in_the_picture_and_are_brighter_than_their_surroundings(tmp_path):
    write_twin(tmp_path, seed=0, size=20)
    brighter = []
    for path in sorted((tmp_path / "masks").iterdir()):
        mask = np.asarray(Image.open(path)) > 0
        image = np.asarray(Image.open(tmp_path / "head_ct" / "head_ct" / path.name).convert("L")).astype(float)
        brain = (image > 40) & (image < 140) & ~mask
        assert mask.shape == image.shape
        assert mask.any()
        brighter.append(image[mask].mean() > image[brain].mean())
    assert np.mean(brighter) > 0.8


def test_same_seed_same_files(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        write_twin(tmp_path / name, seed, 2)
    first, again, other = ((tmp_path / name / "head_ct/head_ct/001.png").read_bytes() for name in "abc")
    assert first == again != other
