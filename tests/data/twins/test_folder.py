import numpy as np
from PIL import Image

from anomaly_lab.data.datasets.folder import Folder
from anomaly_lab.data.twins.folder import CLASSES, write_twin


def test_twin_is_read_back_with_kinds_masks_and_several_formats(tmp_path):
    write_twin(tmp_path, seed=0, size=40)
    data = Folder(root=str(tmp_path))
    cases = data.cases(tmp_path)
    assert data.census(cases) == {"images": 40, "normal": 20, "anomalous": 20, CLASSES[0]: 10, CLASSES[1]: 10}
    assert [case.mask is not None for case in cases] == [case.label == 1 for case in cases]
    assert {case.image.suffix for case in cases} == {".png", ".jpg", ".bmp", ".JPG"}
    images = [Image.open(case.image) for case in cases]
    assert {image.mode for image in images} == {"L", "RGB"}
    assert len({image.size for image in images}) > 20


def test_scratches_are_brighter_and_stains_darker_than_the_cloth(tmp_path):
    write_twin(tmp_path, seed=0, size=24)
    for case in Folder(root=str(tmp_path)).cases(tmp_path):
        if case.mask:
            image, mask = np.asarray(Image.open(case.image).convert("L"), float), np.asarray(Image.open(case.mask)) > 0
            assert image.shape == mask.shape
            assert (image[mask].mean() > image[~mask].mean()) == (case.class_name == CLASSES[0])


def test_same_seed_same_files_whatever_the_size(tmp_path):
    for name, seed, size in (("a", 0, 2), ("b", 0, 3), ("c", 1, 2)):
        (tmp_path / name).mkdir()
        write_twin(tmp_path / name, seed, size)
    first, again, other = ((tmp_path / name / CLASSES[0] / "picture 0001.png").read_bytes() for name in "abc")
    assert first == again != other
