import gzip

import numpy as np
import pytest
from data_sections import sections
from PIL import Image

from anomaly_lab.data.datasets.abmnist import ABMNIST
from anomaly_lab.data.datasets.mnist import MNIST
from anomaly_lab.data.readers.idx import IMAGES, LABELS, read_idx
from anomaly_lab.types import Case, UserError


@pytest.fixture
def twin(tmp_path):
    root = tmp_path / "mnist"
    root.mkdir()
    MNIST(root=str(root)).write_twin(root, seed=0, size=400)
    return root


@pytest.fixture
def make(twin, tmp_path):
    def make(**changes):
        arguments = {"root": str(twin), "patch_size": (32, 32), "batch_size": 4, "store_dir": str(tmp_path / "store")}
        return MNIST(**sections(**(arguments | changes)))

    return make


def test_the_named_digits_are_anomalous_and_every_digit_is_listed(make, twin):
    cases = make(anomalous=[8, 3]).cases(twin)
    labels = [
        *read_idx(twin / "train-labels-idx1-ubyte.gz", LABELS),
        *read_idx(twin / "t10k-labels-idx1-ubyte", LABELS),
    ]
    assert [case.label for case in cases] == [int(digit in {3, 8}) for digit in labels]
    assert [case.class_name for case in cases] == [f"digit {d}" if d in {3, 8} else "" for d in labels]
    assert [case.split for case in cases] == ["train"] * 200 + ["test"] * 100
    assert len({case.id for case in cases}) == len({case.patient for case in cases}) == 300


def test_anomalous_training_digits_train_nobody(make, twin):
    data = make(anomalous=[8])
    data.setup()
    eights = int((read_idx(twin / "train-labels-idx1-ubyte.gz", LABELS) == 8).sum())
    tested = int((read_idx(twin / "t10k-labels-idx1-ubyte", LABELS) == 8).sum())
    counts = data.facts()["counts"]
    assert eights > 5 < tested
    assert counts["train"]["anomalous"] == counts["val"]["anomalous"] == 0
    assert counts["train"]["normal"] + counts["val"]["normal"] == 200 - eights
    assert counts["test"] == {"normal": 100 - tested, "anomalous": tested}


def test_a_digit_is_itself_in_the_middle_of_black(make, twin):
    data = make()
    case = data.cases(twin)[7]
    pixels = data.read(case).pixels
    digits = read_idx(twin / "train-images-idx3-ubyte.gz", IMAGES)
    assert pixels.shape == (1, 32, 32)
    assert (pixels[0, 2:-2, 2:-2] == digits[7]).all()
    assert pixels.sum() == pixels[0, 2:-2, 2:-2].sum()
    assert data.read(case).mask is None


def test_which_digits_are_anomalous_is_part_of_the_stores_key(make):
    assert make(anomalous=[8]).protocol() != make(anomalous=[3]).protocol()
    assert make(anomalous=[8, 3]).protocol() == make(anomalous=[3, 8]).protocol()


@pytest.mark.parametrize("wrong", [[], [10], range(10)])
def test_digits_that_are_none_or_all_are_refused(make, wrong):
    with pytest.raises(UserError, match="one to nine of the digits"):
        make(anomalous=wrong)


def test_files_changed_since_they_were_listed_are_read_again(make, twin):
    data = make()
    before = data.read(data.cases(twin)[0]).pixels
    path = twin / "train-images-idx3-ubyte.gz"
    content = gzip.decompress(path.read_bytes())
    digits = np.frombuffer(content[16:], np.uint8).reshape(-1, 28, 28)[::-1]
    path.write_bytes(gzip.compress(content[:16] + digits.tobytes()))
    assert (data.read(data.cases(twin)[0]).pixels != before).any()


@pytest.mark.parametrize("kind", [MNIST, ABMNIST])
def test_ordinary_pictures_are_read_as_digits_are(make, twin, tmp_path, kind):
    data = make()
    case = next(case for case in data.cases(twin) if case.label == 0)
    Image.fromarray(data.digit(case)).save(tmp_path / "digit.png")
    Image.fromarray(np.kron(data.digit(case), np.ones((5, 5), np.uint8))).save(tmp_path / "large.png")
    other = kind(root=str(twin))
    new = other.read_new(Case("digit.png", "", tmp_path / "digit.png", label=0))
    assert np.array_equal(new.pixels, data.read(case).pixels)
    assert new.origin is not None
    assert np.array_equal(new.origin.back(new.pixels[0]), data.digit(case))
    large = other.read_new(Case("large.png", "", tmp_path / "large.png", label=0))
    assert large.shape == (160, 160)
    assert np.array_equal(large.pixels[0, 2::5, 2::5], new.pixels[0])
