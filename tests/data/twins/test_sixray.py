from collections import Counter

import numpy as np
from data_sections import sections
from PIL import Image

from anomaly_lab.data.datasets.sixray import SIXray
from anomaly_lab.data.twins.sixray import write_twin


def test_twin_is_read_back_with_its_lists_and_boxes(tmp_path):
    write_twin(tmp_path, seed=0, size=50)
    sizes = {}
    for subset in (10, 100, 1000):
        data = SIXray(
            **sections(root=str(tmp_path), in_channels=3, store_dir=str(tmp_path / "store"), subset=subset, check=True)
        )
        cases = data.cases(tmp_path)
        sizes[subset] = Counter(case.label for case in cases)
        judged = [case for case in cases if case.label and case.split == "test"]
        assert judged
        for case in judged:
            scan = data.read(case)
            assert 0.005 < scan.mask.mean() < 0.6
    assert sizes == {10: {1: 10, 0: 20}, 100: {1: 10, 0: 40}, 1000: {1: 2, 0: 40}}


def test_bags_are_white_outside_and_of_many_sizes_and_items_are_blue(tmp_path):
    write_twin(tmp_path, seed=0, size=50)
    data = SIXray(**sections(root=str(tmp_path), in_channels=3, store_dir=str(tmp_path / "store")))
    cases = data.cases(tmp_path)
    assert len({Image.open(case.image).size for case in cases}) > 20
    bluer = []
    for case in cases:
        scan = data.read(case)
        assert np.median(scan.pixels[:, 0]) > 235
        if scan.mask is not None:
            blue = scan.pixels[2].astype(float) - scan.pixels[0]
            bluer.append(blue[scan.mask[0]].mean() > blue[~scan.mask[0]].mean())
    assert np.mean(bluer) >= 0.75


def test_same_seed_same_files(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        write_twin(tmp_path / name, seed, 10)
    first, again, other = ((tmp_path / name / "JPEGImage/P00001.jpg").read_bytes() for name in "abc")
    assert first == again != other
