import gzip
import struct

import numpy as np
import pytest
from data_sections import sections

from anomaly_lab.data.datasets.abmnist import ABMNIST
from anomaly_lab.types import UserError

TRAIN, TEST = 12, 6


def write_idx(path, values):
    content = struct.pack(f">{1 + values.ndim}I", 2048 + values.ndim, *values.shape) + values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def mnist(tmp_path):
    root = tmp_path / "mnist"
    root.mkdir()
    rng = np.random.default_rng(0)
    for part, count, suffix in (("train", TRAIN, ".gz"), ("t10k", TEST, "")):
        digits = np.zeros((count, 28, 28), np.uint8)
        digits[:, 8:20, 10:18] = rng.integers(1, 255, (count, 12, 8))
        write_idx(root / f"{part}-images-idx3-ubyte{suffix}", digits)
        write_idx(root / f"{part}-labels-idx1-ubyte{suffix}", rng.integers(0, 10, count, np.uint8))
    return root


@pytest.fixture
def make(mnist, tmp_path):
    def make(**changes):
        arguments = {"root": str(mnist), "patch_size": (32, 32), "batch_size": 4, "store_dir": str(tmp_path / "store")}
        return ABMNIST(**sections(**(arguments | changes)))

    return make


def pairs(data, root):
    """Scans of the test digits, as they are and with squares."""
    cases = data.cases(root)
    judged = [case for case in cases if case.split == "test"]
    return [(data.read(judged[i]), data.read(judged[i + TEST])) for i in range(TEST)]


def test_training_digits_train_and_test_digits_are_judged_twice(make, mnist):
    cases = make().cases(mnist)
    assert [case.split for case in cases] == ["train"] * TRAIN + ["test"] * 2 * TEST
    assert [case.label for case in cases] == [0] * (TRAIN + TEST) + [1] * TEST
    assert [case.id for case in cases[-TEST - 1 : -TEST + 1]] == ["t10k-00005", "t10k-00000+square"]
    assert make().census(cases) == {"images": 24, "normal": 18, "anomalous": 6, "square": 6}


def test_a_digit_with_and_without_square_is_one_patient_on_one_side(make, mnist):
    cases = make().cases(mnist)
    train, test = ({case.patient for case in cases if case.split == split} for split in ("train", "test"))
    assert (len(train), len(test)) == (TRAIN, TEST)
    assert not train & test


def test_official_counts_are_those_of_the_paper():
    assert ABMNIST.official == {"images": 80_000, "normal": 70_000, "anomalous": 10_000}


def test_normal_digits_are_untouched_in_the_middle_of_black(make, mnist):
    data = make()
    scan = data.read(data.cases(mnist)[3])
    digits = np.frombuffer(gzip.decompress((mnist / "train-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    assert scan.pixels.shape == (1, 32, 32)
    assert (scan.pixels[0, 2:-2, 2:-2] == digits.reshape(-1, 28, 28)[3]).all()
    assert scan.pixels.sum() == scan.pixels[0, 2:-2, 2:-2].sum()
    assert not scan.mask.any()


def test_an_anomaly_is_its_digit_with_one_square_of_one_grey_which_is_the_mask(make, mnist):
    for normal, anomalous in pairs(make(), mnist):
        rows, columns = np.nonzero(anomalous.mask[0])
        side = rows.max() - rows.min() + 1
        assert 4 <= side <= 10
        assert anomalous.mask.sum() == side**2 == (columns.max() - columns.min() + 1) ** 2
        assert rows.min() >= 2 <= columns.min()  # within the digit's 28×28
        assert max(rows.max(), columns.max()) < 30
        grey = np.unique(anomalous.pixels[anomalous.mask])
        assert len(grey) == 1
        assert grey[0] >= 0.3 * 255 - 1
        assert (anomalous.pixels == normal.pixels)[~anomalous.mask].all()


def test_squares_do_not_depend_on_the_order_of_reading_nor_on_the_seed_of_the_run(make, mnist):
    forwards = [scan.pixels for _, scan in pairs(make(seed=1), mnist)]
    other = make(seed=2)
    cases = other.cases(mnist)[-TEST:]
    backwards = [other.read(case).pixels for case in reversed(cases)][::-1]
    assert all((a == b).all() for a, b in zip(forwards, backwards, strict=True))
    elsewhere = [scan.pixels for _, scan in pairs(make(squares_seed=1), mnist)]
    assert any((a != b).any() for a, b in zip(forwards, elsewhere, strict=True))


def test_options_change_the_squares(make, mnist):
    noise = pairs(make(fill="noise"), mnist)
    assert all(len(np.unique(scan.pixels[scan.mask])) > 8 for _, scan in noise)
    for normal, scan in pairs(make(blend="add"), mnist):
        assert (scan.pixels[scan.mask] >= normal.pixels[scan.mask]).all()
    assert max(scan.mask.sum() for _, scan in pairs(make(squares=3), mnist)) > 100
    plain = make(pad=0, in_channels=3)
    assert plain.read(plain.cases(mnist)[0]).pixels.shape == (3, 28, 28)


def test_no_square_is_fainter_than_min_contrast(make, mnist):
    for normal, scan in pairs(make(min_contrast=0.3), mnist):
        change = np.abs(scan.pixels[scan.mask].astype(int) - normal.pixels[scan.mask])
        assert change.mean() / 255 >= 0.3


def test_a_nearly_white_digit_gets_a_square_although_none_has_contrast(make, mnist):
    digits = np.full((TEST, 28, 28), 255, np.uint8)
    digits[:, 0, 0] = 254
    write_idx(mnist / "t10k-images-idx3-ubyte", digits)
    assert all(scan.mask.any() for _, scan in pairs(make(blend="add"), mnist))


def test_options_are_part_of_the_stores_key(make):
    assert make().protocol() != make(squares=2).protocol()
    assert set(make().protocol()) == {"squares", "fill", "blend", "min_contrast", "squares_seed", "pad"}


@pytest.mark.parametrize("wrong", [{"squares": 0}, {"squares": 4}, {"min_contrast": 0.5}, {"pad": -1}])
def test_absurd_options_are_refused(make, wrong):
    with pytest.raises(UserError, match=r"data\.squares=\d takes 1 to 3|data\.pad=-1: takes a number from 0"):
        make(**wrong)


def test_a_blank_digit_is_a_bad_picture(make, mnist):
    digits = np.zeros((TEST, 28, 28), np.uint8)
    digits[1:, 14] = 255
    write_idx(mnist / "t10k-images-idx3-ubyte", digits)
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte, image 0: every pixel is 0.*on_bad=skip"):
        pairs(make(), mnist)


def test_labels_that_do_not_fit_the_images_are_refused(make, mnist):
    write_idx(mnist / "t10k-labels-idx1-ubyte", np.zeros(TEST - 1, np.uint8))
    with pytest.raises(UserError, match="5 labels for the 6 images"):
        make().cases(mnist)


def test_missing_and_mistaken_files_are_named(make, mnist):
    labels = mnist / "train-labels-idx1-ubyte.gz"
    labels.write_bytes((mnist / "train-images-idx3-ubyte.gz").read_bytes())
    with pytest.raises(UserError, match=r"train-labels.*2051, not the 2049 of labels: it holds images"):
        make().cases(mnist)
    labels.unlink()
    with pytest.raises(UserError, match=r"neither train-labels-idx1-ubyte nor train-labels-idx1-ubyte\.gz"):
        make().cases(mnist)


def test_images_too_small_for_the_squares_are_refused(make, mnist):
    write_idx(mnist / "t10k-images-idx3-ubyte", np.zeros((TEST, 8, 8), np.uint8))
    with pytest.raises(UserError, match="its images are 8×8 pixels"):
        make().cases(mnist)


def test_a_changed_file_is_read_again(make, mnist):
    data = make()
    before = data.read(data.cases(mnist)[TRAIN]).pixels
    write_idx(
        mnist / "t10k-images-idx3-ubyte", np.arange(TEST * 784, dtype=np.uint32).astype(np.uint8).reshape(-1, 28, 28)
    )
    assert (data.read(data.cases(mnist)[TRAIN]).pixels != before).any()


def test_the_whole_road(make):
    data = make(val_fraction=0.25)
    data.setup()
    facts = data.facts()
    assert facts["counts"]["train"] == {"normal": 9, "anomalous": 0}
    assert facts["counts"]["val"] == {"normal": 3, "anomalous": 0}
    assert facts["counts"]["test"] == {"normal": TEST, "anomalous": TEST}
    batch = data.store.batch(data.rows["test"])
    assert batch["image"].shape == (2 * TEST, 1, 32, 32)
    assert batch["mask"].flatten(1).any(1).tolist() == batch["label"].bool().tolist()
