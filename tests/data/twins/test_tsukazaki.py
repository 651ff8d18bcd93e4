import csv
from collections import Counter

import numpy as np
from data_sections import sections
from PIL import Image

from anomaly_lab.data.datasets.tsukazaki import Tsukazaki
from anomaly_lab.data.twins.tsukazaki import DISEASES, write_twin


def test_twin_is_read_back_with_its_lesions_and_every_disease(tmp_path):
    write_twin(tmp_path, seed=0, size=60)
    data = Tsukazaki(**sections(root=str(tmp_path), in_channels=3, store_dir=str(tmp_path / "store"), task=3))
    cases = data.cases(tmp_path)
    assert len(cases) == 60
    assert min(data.census(cases)[disease] for disease in DISEASES) >= 1
    assert len({case.patient for case in cases}) < 40
    for case in cases:
        if case.mask is not None:
            scan = data.read(case)
            assert case.label == 1
            assert scan.pixels.shape == (3, *scan.shape)
            assert 0 < scan.mask.mean() < 0.4
    without = Counter(case.class_name for case in cases if case.mask is None)
    assert set(without) <= {"normal", "DM", "RD"}  # diabetes shows nothing, a detachment may lie under a lid
    with (tmp_path / "data.csv").open() as file:
        assert {row["LR"] for row in csv.DictReader(file)} == {"L", "R"}


def test_a_wide_cup_is_paler_than_the_retina_and_dots_are_darker(tmp_path):
    write_twin(tmp_path, seed=0, size=60)
    data = Tsukazaki(**sections(root=str(tmp_path), in_channels=3, store_dir=str(tmp_path / "store"), task=2))
    for case in data.cases(tmp_path):
        if case.mask is not None:
            grey = np.asarray(Image.open(case.image).convert("L")).astype(float)
            mask = data.read(case).mask[0]
            brighter = grey[mask].mean() > grey[~mask & (grey > 50)].mean()
            assert brighter == (case.class_name == "Gla")


def test_same_seed_same_files(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        write_twin(tmp_path / name, seed, 2)
    first, again, other = ((tmp_path / name / "images/000001_00.jpg").read_bytes() for name in "abc")
    assert first == again != other
