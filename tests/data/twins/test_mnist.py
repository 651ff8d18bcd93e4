import numpy as np

from anomaly_lab.data.datasets.abmnist import ABMNIST
from anomaly_lab.data.readers.idx import IMAGES, LABELS, read_idx
from anomaly_lab.data.twins.mnist import write_twin


def test_twin_has_the_official_layout_gzipped_and_plain(tmp_path):
    write_twin(tmp_path, seed=0, size=40)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
    ]
    assert read_idx(tmp_path / names[2], IMAGES).shape == (20, 28, 28)
    assert set(read_idx(tmp_path / names[3], LABELS)) <= set(range(10))


def test_twin_is_read_back_as_so_many_cases_as_asked(tmp_path):
    write_twin(tmp_path, seed=0, size=40)
    cases = ABMNIST(root=str(tmp_path)).cases(tmp_path)
    assert [case.label for case in cases] == [0] * 30 + [1] * 10


def test_digits_are_light_strokes_on_black_inside_the_frame(tmp_path):
    write_twin(tmp_path, seed=0, size=100)
    digits = read_idx(tmp_path / "train-images-idx3-ubyte.gz", IMAGES)
    assert digits[:, [0, -1]].max() < 60
    assert (digits.max(axis=(1, 2)) > 200).all()
    assert 0.03 < (digits > 128).mean() < 0.25
    assert len(np.unique(digits, axis=0)) == 50


def test_same_seed_same_digits_whatever_the_size(tmp_path):
    for name, seed, size in (("a", 0, 8), ("b", 0, 8), ("c", 1, 8), ("d", 0, 40)):
        (tmp_path / name).mkdir()
        write_twin(tmp_path / name, seed, size)
    first, again, other, longer = (tmp_path / name / "train-images-idx3-ubyte.gz" for name in "abcd")
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    assert (read_idx(longer, IMAGES)[:4] == read_idx(first, IMAGES)).all()
