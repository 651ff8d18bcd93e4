from collections import Counter

import numpy as np
from data_sections import sections
from PIL import Image

from anomaly_lab.data.datasets.oct2017 import OCT2017
from anomaly_lab.data.twins.oct2017 import write_twin


def test_twin_is_read_back_with_its_lesions_margins_and_shared_patients(tmp_path):
    write_twin(tmp_path, seed=0, size=60)
    data = OCT2017(**sections(root=str(tmp_path), store_dir=str(tmp_path / "store"), drop_shared=False))
    cases = data.cases(tmp_path)
    assert Counter((case.split, case.class_name) for case in cases) == {
        ("train", "NORMAL"): 30,
        **{("train", kind): 2 for kind in ("CNV", "DME", "DRUSEN")},
        **{("test", kind): 6 for kind in ("CNV", "DME", "DRUSEN", "NORMAL")},
    }
    assert all((case.mask is None) == (case.label == 0) for case in cases)
    sides = [{case.patient for case in cases if case.split == split} for split in ("train", "test")]
    assert len(sides[0] & sides[1]) == 1
    cropped = 0
    for case in cases:
        scan = data.read(case)
        cropped += scan.shape[::-1] != Image.open(case.image).size
        assert scan.pixels[0, 0].mean() < 60
        assert scan.mask is None or 0.0005 < scan.mask.mean() < 0.2
    assert 3 < cropped < 25


def test_fluid_is_darker_than_the_retina_about_it(tmp_path):
    write_twin(tmp_path, seed=1, size=60)
    folder = tmp_path / "OCT2017"
    for path in sorted((folder / "test" / "DME").iterdir()):
        image = np.asarray(Image.open(path)).astype(float)
        mask = np.asarray(Image.open(folder / "masks" / "test" / f"{path.stem}.png")) > 0
        around = np.roll(mask, 8, 1) & ~mask
        assert image[mask].mean() < image[around].mean()


def test_same_seed_same_files(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        write_twin(tmp_path / name, seed, 16)
    picture = "OCT2017/train/NORMAL/NORMAL-100000-1.jpeg"
    first, again, other = ((tmp_path / name / picture).read_bytes() for name in "abc")
    assert first == again != other
