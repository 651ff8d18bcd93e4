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


def test_photographs_of_an_eye_are_alike_and_those_of_a_patient_have_one_colour(tmp_path):
    """Otherwise folds by photograph would leak nothing, and the twin would call a false split harmless."""
    write_twin(tmp_path, seed=0, size=90)
    eyes = {}
    for path in sorted((tmp_path / "images").glob("*.jpg")):
        patient, index = path.stem.split("_")
        eyes.setdefault((patient, int(index) % 2), []).append(np.asarray(Image.open(path)).astype(float))
    twice = {eye: pictures for eye, pictures in eyes.items() if len(pictures) == 2}
    assert len(twice) > 10
    for eye, (first, second) in twice.items():
        others = [pictures[0] for (patient, side), pictures in eyes.items() if patient != eye[0] and side == eye[1]]
        assert likeness(first, second) > max(likeness(first, other) for other in others), eye
    patients = sorted({patient for patient, _ in eyes})
    hues = [(hue(eyes[p, 0][0]), hue(eyes[p, 1][0])) for p in patients if (p, 1) in eyes]
    assert np.corrcoef(np.array(hues)[:, :, 0].T)[0, 1] > 0.8


def likeness(first, second):
    return np.corrcoef(first.ravel(), second.ravel())[0, 1]


def hue(picture):
    middle = picture[30:90, 40:120].mean((0, 1))
    return middle / middle.sum()
